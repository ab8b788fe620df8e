//! What the operator would do next, as a phrase: for `mode: Observe`, and for people who plan a change.

use super::{describe_active_key, message_for, whole_seconds};
use crate::model::decision::{Decision, DecisionInput, Step, budget, decide};
use crate::model::desired::DesiredState;
use crate::model::ledger::PlannedCall;
use crate::model::service::Operation;
use stream_encryption_api::stream_encryption::Mode;

/// Returns the call, and how many calls it leaves, as a phrase that follows "would": `call
/// StartDeliveryStreamEncryption with … now; 16 of 20 calls in 24 hours would be left`.
#[must_use]
pub fn planned_call(input: &DecisionInput<'_>, call: &PlannedCall) -> String {
    let operation = Operation::change(input.stream.service, call.target.action).name();
    let key = call.target.key.as_ref();
    let with = key.map(|key| format!(" with {}", describe_active_key(input, key))).unwrap_or_default();
    let budget = budget(input);
    let left = budget.limit.saturating_sub(budget.used.saturating_add(1));
    format!("call {operation}{with} now; {left} of {} calls in 24 hours would be left", budget.limit)
}

/// Returns what the operator would do with `mode: Enforce`, as a sentence.
pub(super) fn with_enforce(input: &DecisionInput<'_>) -> String {
    let desired = DesiredState { mode: Mode::Enforce, ..input.desired.clone() };
    let enforced = DecisionInput { desired: &desired, ..input.clone() };
    match decide(&enforced) {
        Decision { step: Step::ChangeEncryption(call), .. } => {
            format!("With mode: Enforce, the operator would {}.", planned_call(&enforced, &call))
        }
        Decision { reason, next_attempt, .. } => {
            let until = next_attempt.map(|at| format!(" before {}", whole_seconds(at))).unwrap_or_default();
            let why = message_for(&enforced, reason);
            format!("With mode: Enforce, the operator would make no call{until}: {why}")
        }
    }
}
