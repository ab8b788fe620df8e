//! What an observation shows of the calls of a ledger: which call has taken effect, and which has failed. Pure.

use stream_encryption_api::ledger::{Action, Call, KnownEncryption, Outcome, StreamLedgerSpec, Target};

use super::{MAX_IN_FLIGHT, READ_LAG, last_unrefused_call, saturating_add};
use crate::model::observation::Observation;

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

/// Returns whether AWS applies the opposite of the last call, which it accepted, and no observation has shown the effect of
/// that call: it may have changed the encryption before somebody else reversed it.
pub(super) fn may_hide_accepted_change(ledger: &StreamLedgerSpec, observation: &Observation) -> bool {
    let Some(call) = last_unrefused_call(ledger) else { return false };
    let is_reversed =
        matches!(observation, Observation::InProgress(Some(action)) if *action != call.target.action);
    is_reversed
        && call.outcome == Outcome::Accepted
        && !call.confirmed
        && ledger.known_encryption.as_ref().is_some_and(|known| would_change(call, known))
}

/// Returns whether AWS accepted a Stop after the encryption became known, as the last call. If the stream is encrypted
/// nevertheless, the Stop failed, or somebody else has enabled encryption since: records may have been in plaintext between.
pub(super) fn may_have_been_off(ledger: &StreamLedgerSpec) -> bool {
    let Some(call) = last_unrefused_call(ledger).filter(|call| call.outcome == Outcome::Accepted) else {
        return false;
    };
    let is_newer = |known: &KnownEncryption| known.since_time.0 < call.at();
    call.target.action == Action::Stop
        && ledger.known_encryption.as_ref().is_some_and(|known| known.key.is_some() && is_newer(known))
}

/// Returns whether the call changes this encryption.
fn would_change(call: &Call, known: &KnownEncryption) -> bool {
    match call.target.action {
        Action::Start => call.target.key != known.key,
        Action::Stop => known.key.is_some(),
    }
}
