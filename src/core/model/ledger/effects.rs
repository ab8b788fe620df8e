//! What an observation shows of the calls of a ledger: which call has taken effect, and which has failed. Pure.

use stream_encryption_api::ledger::{Action, Call, KnownEncryption, Outcome, StreamLedgerSpec, Target};

use super::{MAX_IN_FLIGHT, READ_LAG, last_unrefused_call, saturating_add};
use crate::model::observation::{Observation, Requested};

/// Returns whether the observation shows that a call for this target is in progress or was applied.
#[must_use]
pub fn matches_target(observation: &Observation, target: &Target) -> bool {
    match observation {
        Observation::InProgress(None) => true,
        Observation::InProgress(Some(action)) => *action == target.action,
        Observation::On(key) => target.key.as_ref() == Some(&key.to_api()),
        Observation::Off => target.action == Action::Stop,
        _ => false,
    }
}

/// Returns whether the observation shows the effect of this call. A Kinesis stream is UPDATING for other reasons, too, such
/// as resharding. AWS makes one change at a time, so UPDATING is the effect of a call that AWS has accepted. As long as it is
/// unknown whether AWS accepted the call, UPDATING may be a change by somebody else.
#[must_use]
pub fn shows_effect(observation: &Observation, call: &Call) -> bool {
    let is_updating = *observation == Observation::InProgress(None);
    matches_target(observation, &call.target) && (!is_updating || call.outcome == Outcome::Accepted)
}

/// Returns whether the observation, which must not be stale, reports the failure of this call.
pub(super) fn is_its_failure(observation: &Observation, call: &Call) -> bool {
    matches!(observation, Observation::Failed { action, .. } if *action == call.target.action)
}

/// Returns whether the observation reports the failure of the last call, and an earlier call may have changed the encryption
/// although no observation has shown it. AWS accepted both calls shortly after each other: a Describe between them showed the
/// state before the first one, and AWS lagged by more than [`READ_LAG`]. If the first call has enabled the encryption, Firehose
/// fails the second one, because its key is already active. Calls of others are not considered: a forged event must not make the
/// operator forget the key.
pub(super) fn may_hide_earlier_change(ledger: &StreamLedgerSpec, observation: &Observation) -> bool {
    let mut calls = ledger.calls.iter().rev().filter(|call| call.outcome != Outcome::Refused);
    let Some(failed) = calls.next().filter(|call| is_its_failure(observation, call)) else { return false };
    let Some(known) = &ledger.known_encryption else { return false };
    let would_change = |call: &Call| would_change(call, known);
    let is_close = |call: &&Call| failed.at().duration_since(call.at()).abs() < MAX_IN_FLIGHT;
    // What was first observed after the call, when the observation could be trusted, includes its effect. So does what was
    // observed of a stream that was created again, and after the call of a ledger that was rebuilt.
    let is_newer = |call: &&Call| known.since_time.0 < saturating_add(call.at(), READ_LAG);
    calls.take_while(|call| !call.confirmed).filter(is_close).filter(is_newer).any(would_change)
}

/// Returns whether AWS applies another change than that of the last call, and no observation has shown the effect of that call:
/// AWS may have applied it before somebody else reversed it. Shortly after the call, AWS may still report an earlier change.
pub(super) fn may_hide_reversed_change(
    ledger: &StreamLedgerSpec,
    observation: &Observation,
    requested: Requested,
) -> bool {
    let Some(call) = last_unrefused_call(ledger).filter(|call| !call.confirmed) else { return false };
    let Some(known) = &ledger.known_encryption else { return false };
    let is_reversed = match observation {
        Observation::InProgress(Some(action)) => *action != call.target.action,
        // Kinesis does not report which change it applies, and applies none for so long.
        Observation::InProgress(None) => {
            call.target.action == Action::Stop && is_surely_over(call, requested)
        }
        _ => false,
    };
    let may_be_applied = call.outcome == Outcome::Accepted || call.target.action == Action::Stop;
    is_reversed
        && is_lag_over(call, requested)
        && may_be_applied
        && known.since_time.0 < call.at()
        && would_change(call, known)
}

/// Returns whether AWS reports a call of somebody else, in progress or failed, and the known encryption may no longer be in
/// force: before that call, somebody may have changed it, and AWS reports only the last call.
///
/// After a Stop, completed or not, nothing is lost if records are still considered encrypted. The same applies to plaintext and
/// a Start, unless plaintext is desired: the operator should encrypt, then. Shortly after the operator's own call, AWS may still
/// report an earlier change.
pub(super) fn is_call_of_another(
    ledger: &StreamLedgerSpec,
    observation: &Observation,
    desired: Option<&Target>,
    requested: Requested,
) -> bool {
    let Some(known) = &ledger.known_encryption else { return false };
    let last = last_unrefused_call(ledger);
    let may_be_earlier = last.is_some_and(|call| !call.confirmed && !is_lag_over(call, requested));
    let action = match observation {
        Observation::InProgress(_) if may_be_earlier => return false,
        Observation::InProgress(Some(action)) | Observation::Failed { action, .. } => *action,
        _ => return false,
    };
    // If the key became known after a call, then AWS reports another one. The Describe before each call showed what was known
    // then, so what has been known since then became known before the call on its own clock, too.
    let is_before = |call: &Call| known.since_time.0 <= call.at();
    let is_own =
        |call: &Call| call.outcome != Outcome::Refused && call.target.action == action && is_before(call);
    match (&known.key, action) {
        (Some(_), Action::Stop) => false,
        (None, Action::Stop) => true,
        (Some(_), Action::Start) => !ledger.calls.iter().any(is_own),
        (None, Action::Start) => {
            desired.is_some_and(|desired| desired.action == Action::Stop) && !ledger.calls.iter().any(is_own)
        }
    }
}

/// Returns whether the last call is a Stop that AWS may have applied after the encryption became known. If the stream is
/// encrypted nevertheless, the Stop failed, or somebody else has enabled encryption since: records may have been in plaintext
/// between.
pub(super) fn may_have_been_off(ledger: &StreamLedgerSpec) -> bool {
    let stop = last_unrefused_call(ledger).filter(|call| call.target.action == Action::Stop);
    let known = ledger.known_encryption.as_ref().filter(|known| known.key.is_some());
    stop.zip(known).is_some_and(|(call, known)| known.since_time.0 < call.at())
}

/// Returns whether AWS reports what was after this call, or later. Two clocks have measured that.
pub(super) fn is_lag_over(call: &Call, requested: Requested) -> bool {
    let is_later = requested.at >= saturating_add(call.at(), READ_LAG);
    is_surely_over(call, requested) || (is_later && requested.call_known_for >= READ_LAG.unsigned_abs())
}

/// Returns whether the request was so much later than this call that neither clock matters. AWS has accepted the dates of both
/// requests, so their times are wrong by 15 minutes at most.
fn is_surely_over(call: &Call, requested: Requested) -> bool {
    requested.at >= saturating_add(call.at(), MAX_IN_FLIGHT)
}

/// Returns whether the call changes this encryption.
fn would_change(call: &Call, known: &KnownEncryption) -> bool {
    match call.target.action {
        Action::Start => call.target.key != known.key,
        Action::Stop => known.key.is_some(),
    }
}
