//! Wrong decisions: each calls the real decision, with a wrong input or a modified result.
//!
//! These decisions are pure, as is the real one, and each has only one bug.

use jiff::SignedDuration;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::{Action, Outcome, Target};
use stream_encryption_core::model::decision::{Decision, DecisionInput, LastObservation, Step};
use stream_encryption_core::model::desired::{DesiredEncryption, DesiredState};
use stream_encryption_core::model::ledger::MAX_IN_FLIGHT;
use stream_encryption_core::model::observation::Observation;

use crate::statistics::decide_and_record;

/// Waits for the limit as if a call counted for exactly 24 hours; the ledger with the planted bug contains no
/// older calls.
pub(super) fn sharp_window(input: &DecisionInput<'_>) -> Decision {
    let decision = decide_and_record(input);
    match decision.next_attempt {
        Some(next) if decision.reason == Reason::CallLimitReached => {
            // The ledger is read a moment before the time of the reconcile is taken.
            let available_at = next - MAX_IN_FLIGHT + SignedDuration::from_millis(10);
            if available_at <= input.now {
                return decision;
            }
            let wake = decision.wake.min(available_at);
            let describe_due = decision.describe_due.min(available_at);
            Decision { wake, describe_due, next_attempt: Some(available_at), ..decision }
        }
        _ => decision,
    }
}

/// Treats a stream that is encrypted with one key as encrypted with the other.
pub(super) fn enabled_is_enough(input: &DecisionInput<'_>) -> Decision {
    let is_on = matches!(input.last_observation, LastObservation::Described(_, Observation::On(_)));
    if !is_on || matches!(input.desired.encryption, DesiredEncryption::Off) {
        return decide_and_record(input);
    }
    let desired =
        DesiredState { encryption: DesiredEncryption::AnyKey, key_problem: None, ..input.desired.clone() };
    decide_and_record(&DecisionInput { desired: &desired, ..input.clone() })
}

/// Ignores KMS's report on the active key.
pub(super) fn lost_key_is_ready(input: &DecisionInput<'_>) -> Decision {
    decide_and_record(&DecisionInput { active_key_problem: None, ..input.clone() })
}

/// Reports the state that AWS has just reported, without a settle time.
pub(super) fn no_settling(input: &DecisionInput<'_>) -> Decision {
    let decision = decide_and_record(input);
    if decision.reason == Reason::Settling && matches!(decision.step, Step::Wait) {
        Decision { reason: Reason::Encrypted, ..decision }
    } else {
        decision
    }
}

/// Treats calls without an outcome as refused, so that there is no wait for them.
pub(super) fn no_wait_for_late_calls(input: &DecisionInput<'_>) -> Decision {
    let mut ledger = input.ledger.clone();
    for call in &mut ledger.calls {
        if matches!(call.outcome, Outcome::Pending | Outcome::Unknown) {
            call.outcome = Outcome::Refused;
        }
    }
    ledger.attempts = None;
    decide_and_record(&DecisionInput { ledger: &ledger, ..input.clone() })
}

/// Trusts a description that was requested 30 s after the last call by the wall clock.
pub(super) fn clock_believed(input: &DecisionInput<'_>) -> Decision {
    let LastObservation::Described(requested, observation) = input.last_observation else {
        return decide_and_record(input);
    };
    let last_observation = LastObservation::Described(requested.at.into(), observation);
    decide_and_record(&DecisionInput { last_observation, ..input.clone() })
}

/// Calls Stop for an encrypted stream that needs another key, and Start afterwards.
pub(super) fn stop_before_re_key(input: &DecisionInput<'_>) -> Decision {
    let mut decision = decide_and_record(input);
    let is_encrypted = input.ledger.known_encryption.as_ref().is_some_and(|known| known.key.is_some());
    if let (Step::ChangeEncryption(call), true) = (&mut decision.step, is_encrypted) {
        call.target = Target { action: Action::Stop, key: None };
    }
    decision
}

/// Never repeats a call that AWS has refused because of its limit.
pub(super) fn gives_up_at_the_limit(input: &DecisionInput<'_>) -> Decision {
    let decision = decide_and_record(input);
    let reason = input.ledger.attempts.as_ref().and_then(|attempts| attempts.reason.as_deref());
    let is_refused = reason == Some(Reason::CallLimitReached.as_str());
    let later = input.now + input.drift_interval;
    if is_refused {
        Decision { step: Step::Wait, wake: later, describe_due: later, ..decision }
    } else {
        decision
    }
}
