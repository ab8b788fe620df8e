//! Wrong decisions: each calls the real decision, with a wrong input or a wrong use of its result.
//!
//! They are pure, as the real decision is, and each has only one bug.

use jiff::SignedDuration;
use stream_encryption_api::condition::Reason;
use stream_encryption_core::model::decision::{Decision, DecisionInput, LastObservation, Step};
use stream_encryption_core::model::desired::{DesiredEncryption, DesiredState};
use stream_encryption_core::model::ledger::{DAY, QUOTA_WINDOW};
use stream_encryption_core::model::observation::Observation;

use crate::stats::noted;

/// Waits for the limit as if a call counted for exactly 24 hours; the ledger with the planted bug contains no
/// older calls.
pub(super) fn back_after_a_day_sharp(input: &DecisionInput<'_>) -> Decision {
    let decision = noted(input);
    match decision.next_attempt {
        Some(next) if decision.reason == Reason::CallLimitReached => {
            // The ledger is read a moment before the time of the reconcile is taken.
            let free = next - (QUOTA_WINDOW - DAY) + SignedDuration::from_millis(10);
            let wake = decision.wake.min(free).max(input.now);
            let describe_due = decision.describe_due.min(free).max(input.now);
            Decision { wake, describe_due, next_attempt: Some(free), ..decision }
        }
        _ => decision,
    }
}

/// Treats a stream that is encrypted with one key as encrypted with the other.
pub(super) fn enabled_is_enough(input: &DecisionInput<'_>) -> Decision {
    let on = matches!(input.last_observation, LastObservation::At(_, Observation::On(_)));
    if !on || matches!(input.desired.encryption, DesiredEncryption::Off) {
        return noted(input);
    }
    let desired =
        DesiredState { encryption: DesiredEncryption::AnyKey, key_problem: None, ..input.desired.clone() };
    noted(&DecisionInput { desired: &desired, ..input.clone() })
}

/// Ignores KMS's report on the active key.
pub(super) fn lost_key_is_ready(input: &DecisionInput<'_>) -> Decision {
    noted(&DecisionInput { active_key_problem: None, ..input.clone() })
}

/// Reports the state that AWS has just reported, without a settle time.
pub(super) fn without_settling(input: &DecisionInput<'_>) -> Decision {
    let decision = noted(input);
    if decision.reason == Reason::Settling && matches!(decision.step, Step::Wait) {
        Decision { reason: Reason::Encrypted, ..decision }
    } else {
        decision
    }
}
