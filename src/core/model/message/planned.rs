//! What the operator would do next, as a phrase: for `mode: Observe`, and for people who plan a change.

use stream_encryption_api::condition::Reason;
use stream_encryption_api::stream_encryption::Mode;

use super::{describe_key, known_active_key, message_for, whole_seconds};
use crate::model::decision::{DecisionInput, Step, budget, decide};
use crate::model::desired::DesiredState;
use crate::model::ledger::PlannedCall;
use crate::model::service::Operation;

/// Returns the call, and how many calls it leaves, as a phrase that follows "would": `call
/// StartDeliveryStreamEncryption with … now; 16 of 20 calls in 24 hours would be left`.
#[must_use]
pub fn planned_call(input: &DecisionInput<'_>, call: &PlannedCall) -> String {
    let operation = Operation::change(input.stream.service, call.target.action).name();
    let key = call.target.key.as_ref();
    let with = key.map(|key| format!(" with {}", describe_key(input, key))).unwrap_or_default();
    let budget = budget(input);
    let left = budget.limit.saturating_sub(budget.used.saturating_add(1));
    format!("call {operation}{with} now; {left} of {} calls in 24 hours would be left", budget.limit)
}

/// Returns the message of `Drifted`: what encrypts records now, and what the operator would do with
/// `mode: Enforce`.
pub(super) fn drifted(input: &DecisionInput<'_>) -> String {
    let desired = DesiredState { mode: Mode::Enforce, ..input.desired.clone() };
    let enforced = DecisionInput { desired: &desired, ..input.clone() };
    let decision = decide(&enforced);
    let active_key = known_active_key(input);
    let drifted = "The stream differs from the spec, and mode is Observe.";
    if let Step::ChangeEncryption(call) = &decision.step {
        let call = planned_call(&enforced, call);
        return format!("{drifted} {active_key} With mode: Enforce, the operator would {call}.");
    }
    let when =
        decision.next_attempt.map_or_else(|| "now".to_owned(), |at| format!("before {}", whole_seconds(at)));
    let why = match decision.reason {
        // The message of this reason recommends `mode: Observe`.
        Reason::DriftCorrectionLimitReached => "It has corrected drift three times in 24 hours.".to_owned(),
        reason => message_for(&enforced, reason),
    };
    // Some messages have the sentence about the active key.
    let active_key = if why.contains(&active_key) { String::new() } else { format!(" {active_key}") };
    format!(
        "{drifted}{active_key} With mode: Enforce, the operator would make no call {when} ({}): {why}",
        decision.reason.as_str()
    )
}
