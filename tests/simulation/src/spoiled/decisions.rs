//! Wrong decisions: each asks the real one, with an input or an answer that a programmer got wrong.
//!
//! They are pure, as the real one is, and each is wrong in one way only.

use jiff::SignedDuration;
use stream_encryption_operator::api::condition::Reason;
use stream_encryption_operator::model::decision::{Decision, Input, Intent, Seen, Step, Wanted};
use stream_encryption_operator::model::ledger::{DAY, WINDOW};
use stream_encryption_operator::model::observation::Observation;

use crate::tally::noted;

/// Waits for the budget as if a call counted for 24 hours sharp; the spoiled ledger shows none that is older.
pub(super) fn back_after_a_day_sharp(input: &Input<'_>) -> Decision {
    let decision = noted(input);
    match decision.next_attempt {
        Some(next) if decision.reason == Reason::CallLimitReached => {
            // The ledger is read a moment before the visit's own time is.
            let free = next - (WINDOW - DAY) + SignedDuration::from_millis(10);
            let wake = decision.wake.min(free).max(input.now);
            let look_due = decision.look_due.min(free).max(input.now);
            Decision { wake, look_due, next_attempt: Some(free), ..decision }
        }
        _ => decision,
    }
}

/// A stream that is encrypted with one key is taken for encrypted with the other.
pub(super) fn enabled_is_enough(input: &Input<'_>) -> Decision {
    let on = matches!(input.seen, Seen::At(_, Observation::On(_)));
    if !on || matches!(input.intent.wanted, Wanted::Off) {
        return noted(input);
    }
    let intent = Intent { wanted: Wanted::AnyKey, key_problem: None, ..input.intent.clone() };
    noted(&Input { intent: &intent, ..input.clone() })
}

/// What KMS reports of the active key is not looked at.
pub(super) fn lost_key_is_ready(input: &Input<'_>) -> Decision {
    noted(&Input { active_key_problem: None, ..input.clone() })
}

/// What AWS has just said is said at once.
pub(super) fn without_settling(input: &Input<'_>) -> Decision {
    let decision = noted(input);
    if decision.reason == Reason::Settling && matches!(decision.step, Step::Rest) {
        Decision { reason: Reason::Encrypted, ..decision }
    } else {
        decision
    }
}
