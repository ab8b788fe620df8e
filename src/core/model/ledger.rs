//! The ledger's arithmetic: the calls that count, the time of the next available call, and the effect of an
//! observation.
//!
//! A function that changes a ledger returns a new one; none writes. Three rules apply: each call is counted
//! before it is sent, no call is removed while AWS still counts it, and a call with an unknown outcome
//! counts.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use sha2::{Digest, Sha256};
use stream_encryption_api::ledger::{
    Action, Attempts, Call, KnownEncryption, Outcome, Owner, StreamLedgerSpec, Target,
};
use stream_encryption_api::stream_encryption::{KeyIdentity, KeyType, Service};

use super::arn::StreamArn;
use super::aws_error::{Accepted, AwsError, ErrorKind};
use super::key::Key;
use super::object::is_dns_subdomain;
use super::observation::{DescribeTimes, Observation, Requested};
use super::schedule;
use super::service::{AWS_LIMIT, CountedCalls, profile};

mod budget;
mod effects;
pub mod external;
mod unsent;

pub use budget::{Budget, budget};
use effects::{
    is_call_of_another, is_its_failure, is_lag_over, may_have_been_off, may_hide_earlier_change,
    may_hide_reversed_change,
};
pub use effects::{matches_target, shows_effect};
pub use unsent::{corrections, is_correction_unsent, last_sent_call};
use unsent::{is_unsent, unsent_in_a_row};

/// Maximum difference between the date of a request and AWS's clock, in either direction; AWS refuses a
/// request beyond it
/// ([RequestExpired](https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html)). The date of
/// a call is the time of its reservation. The time in the ledger therefore differs from the time at which AWS
/// counts the call by at most this, even if the process is paused or its clock changes.
pub const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(15);
/// The period of AWS's limit.
pub const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Time after the reservation of a call during which AWS may still apply the call, or may report the state before it. The
/// operator's clock may be ahead of AWS's by [`MAX_CLOCK_SKEW`]. AWS accepts the call until AWS's clock is as much past the
/// reservation. The last minute covers stale responses ([`READ_LAG`]).
pub const MAX_IN_FLIGHT: SignedDuration = SignedDuration::from_mins(2 * 15 + 1);
/// Time during which a call counts: AWS's day and 31 minutes. AWS may receive this call up to [`MAX_CLOCK_SKEW`] later than
/// the ledger says. It may receive the call that becomes possible afterwards up to [`MAX_CLOCK_SKEW`] earlier than the ledger
/// says. These are 30 minutes. The last minute is a reserve.
pub const QUOTA_WINDOW: SignedDuration = SignedDuration::from_mins(24 * 60 + 2 * 15 + 1);
/// Time after a call during which AWS's responses may still describe the state before it.
pub const READ_LAG: SignedDuration = SignedDuration::from_secs(30);
/// Maximum number of entries in a ledger. AWS does not count refused Kinesis calls, but the ledger must not
/// grow without bound.
pub const MAX_LEDGER_ENTRIES: u32 = 200;

/// The beginning of the ids of calls in a rebuilt ledger.
const REBUILT: &str = "rebuilt-";

/// Returns the name of a stream's ledger: a hash of its ARN, so that no two streams share one.
#[must_use]
pub fn name(stream: &StreamArn) -> String {
    let digest = Sha256::digest(stream.to_string().as_bytes());
    let mut name = String::from("stream-");
    let nibbles = digest[..20].iter().flat_map(|byte| [byte >> 4, byte & 15]);
    name.extend(nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)));
    name
}

/// Creates an empty ledger for a stream, owned by `owner`.
#[must_use]
pub fn new(stream: &StreamArn, owner: Owner) -> StreamLedgerSpec {
    StreamLedgerSpec {
        stream_arn: stream.to_string(),
        owner,
        stream_creation_time: None,
        calls: Vec::new(),
        external_calls: Vec::new(),
        known_encryption: None,
        satisfied: None,
        attempts: None,
    }
}

/// Rebuilds a deleted ledger for which a status still shows `counted_calls` counted calls. The times of the
/// calls are lost with the ledger, so they count as made now. If AWS counts Starts and Stops separately, the status does not
/// show which of them it has counted, so both get that number.
#[must_use]
pub fn rebuilt_from_status(
    empty: &StreamLedgerSpec,
    service: Service,
    counted_calls: u32,
    now: Timestamp,
) -> StreamLedgerSpec {
    let start = Key::AwsOwned.target();
    let stop = Target { action: Action::Stop, key: None };
    let targets = match profile(service).counted {
        CountedCalls::All => vec![start],
        CountedCalls::AppliedPerAction => vec![stop, start],
    };
    let numbers = || 0..counted_calls.min(AWS_LIMIT);
    let calls = targets.iter().flat_map(|target| numbers().map(move |number| (target, number)));
    let call = |(target, number): (&Target, u32)| Call {
        id: format!("{REBUILT}{:?}-{number}", target.action),
        target: target.clone(),
        time: truncate_to_micros(now),
        outcome: Outcome::Accepted,
        code: None,
        request_id: None,
        correction: false,
        after_failure: false,
        confirmed: false,
        retry: None,
    };
    StreamLedgerSpec { calls: calls.map(call).collect(), ..empty.clone() }
}

/// The error of an invalid ledger. No call is made on its stream until the ledger is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The ledger belongs to another stream.
    #[error("streamARN is the ARN of another stream")]
    OtherStream,
    /// Two calls have the same id, or two external calls the same event id.
    #[error("two calls have the same id")]
    RepeatedCall,
    /// A Start without a key, a Stop with one, or an invalid key.
    #[error("the target of a call is invalid")]
    InvalidCall,
    /// The owner has no uid, or its namespace or name is not a valid Kubernetes name.
    #[error("owner is invalid: uid, namespace and name must be set and valid")]
    InvalidOwner,
    /// The active key is invalid, or `encryptedSinceTime` is missing for a key or set for plaintext.
    #[error("knownEncryption is invalid")]
    InvalidActiveKey,
}

/// Returns an error if the ledger is invalid.
pub fn validate(ledger: &StreamLedgerSpec, stream: &StreamArn) -> Result<(), LedgerError> {
    if ledger.stream_arn != stream.to_string() {
        return Err(LedgerError::OtherStream);
    }
    let Owner { namespace, name, uid } = &ledger.owner;
    if uid.is_empty() || !is_dns_subdomain(namespace) || !is_dns_subdomain(name) {
        return Err(LedgerError::InvalidOwner);
    }
    let ids: BTreeSet<&str> = ledger.calls.iter().map(|call| call.id.as_str()).collect();
    let events: BTreeSet<&str> = ledger.external_calls.iter().map(|call| call.event_id.as_str()).collect();
    if ids.len() != ledger.calls.len() || events.len() != ledger.external_calls.len() {
        return Err(LedgerError::RepeatedCall);
    }
    let is_key = |key: &KeyIdentity| (key.kind == KeyType::CustomerManaged) == key.arn.is_some();
    let meaningful = |call: &Call| match (call.target.action, &call.target.key) {
        (Action::Start, Some(key)) => is_key(key),
        (Action::Stop, None) => true,
        (Action::Start, None) | (Action::Stop, Some(_)) => false,
    };
    if !ledger.calls.iter().all(meaningful) {
        return Err(LedgerError::InvalidCall);
    }
    let contradicts = |known: &KnownEncryption| {
        known.key.is_some() != known.encrypted_since_time.is_some() || !known.key.as_ref().is_none_or(is_key)
    };
    if ledger.known_encryption.as_ref().is_some_and(contradicts) {
        Err(LedgerError::InvalidActiveKey)
    } else {
        Ok(())
    }
}

/// Returns when an entry stops counting and may be removed.
#[must_use]
pub fn expires_at(call: &Call) -> Timestamp {
    saturating_add(call.at(), QUOTA_WINDOW)
}

/// Returns the last call that AWS may have applied. AWS's responses may still describe the state before it.
#[must_use]
pub fn last_unrefused_call(ledger: &StreamLedgerSpec) -> Option<&Call> {
    ledger.calls.iter().rev().find(|call| call.outcome != Outcome::Refused)
}

/// Returns the time until which AWS may still apply a call that is `Pending` or `Unknown`, or may report the
/// state before it ([`MAX_IN_FLIGHT`]); `None` if there is no such call.
#[must_use]
pub fn in_flight_until(ledger: &StreamLedgerSpec) -> Option<Timestamp> {
    let open = ledger.calls.iter().filter(|call| matches!(call.outcome, Outcome::Pending | Outcome::Unknown));
    open.map(|call| saturating_add(call.at(), MAX_IN_FLIGHT)).max()
}

/// Returns whether AWS may still apply a Start that received no response. A failure that AWS reports meanwhile is no sign that
/// it cannot: it may be the failure of an earlier call.
#[must_use]
pub fn may_apply_start(ledger: &StreamLedgerSpec, now: Timestamp) -> bool {
    let is_start = last_unrefused_call(ledger).is_some_and(|call| call.target.action == Action::Start);
    is_start && in_flight_until(ledger).is_some_and(|until| until > now)
}

/// Returns whether an observation may be older than the last call, and so must not be trusted.
/// Once an observation has shown the effect of that call, a later one that differs is a new state, however
/// soon it comes.
#[must_use]
pub fn may_be_stale(
    ledger: &StreamLedgerSpec,
    observation: &Observation,
    requested: impl Into<Requested>,
) -> bool {
    let Some(call) = last_unrefused_call(ledger) else { return false };
    if call.confirmed || is_lag_over(call, requested.into()) {
        return false;
    }
    // For a while after a call, AWS may still report the failure of an earlier one. The failure of the other action is not that
    // of this call.
    if let Observation::Failed { action, .. } = observation {
        return call.after_failure || *action != call.target.action;
    }
    match (observation.stable_encryption(), call.target.action) {
        // `Some(None)` is plaintext; `None` is a change, a failure, or an unknown state.
        (Some(Some(key)), Action::Start) => call.target.key.as_ref() != Some(&key.to_api()),
        (Some(Some(_)), Action::Stop) | (Some(None), Action::Start) => true,
        (Some(None), Action::Stop) | (None, _) => false,
    }
}

/// Returns the time from which an observation can be trusted; `None` if this one cannot be older than the
/// last call.
#[must_use]
pub fn stale_until(
    ledger: &StreamLedgerSpec,
    observation: &Observation,
    requested: impl Into<Requested>,
) -> Option<Timestamp> {
    let requested = requested.into();
    let call = last_unrefused_call(ledger).filter(|_| may_be_stale(ledger, observation, requested))?;
    let remaining = READ_LAG.unsigned_abs().saturating_sub(requested.call_known_for);
    let known_long_enough = requested.at.checked_add(remaining).unwrap_or(Timestamp::MAX);
    Some(saturating_add(call.at(), READ_LAG).max(known_long_enough))
}

/// Applies an observation to the ledger: the active key, whether the desired encryption is reached, and the
/// outcome of the last call. `desired_target` is `None` while the desired key is unknown; no observation
/// satisfies the spec then. `desired_key_has_problem` states whether the desired key has any
/// [`KeyProblem`](super::key::KeyProblem) now. This is recorded in the attempts, because the next attempt may succeed once the
/// problem has ended.
#[must_use]
pub fn apply_observation(
    ledger: &StreamLedgerSpec,
    observation: &Observation,
    created: Option<Timestamp>,
    desired_target: Option<&Target>,
    desired_key_has_problem: bool,
    times: impl Into<DescribeTimes>,
) -> StreamLedgerSpec {
    let DescribeTimes { requested, answered: now } = times.into();
    let mut updated = ledger.clone();
    if let Some(known) = &mut updated.known_encryption {
        // A time in the future means that the clock was set back, or that another node wrote the time. Now is the latest
        // possible time.
        for since in [Some(&mut known.since_time), known.encrypted_since_time.as_mut()].into_iter().flatten()
        {
            since.0 = since.0.min(truncate_to_micros(now).0);
        }
    }
    if let Some(created) = created
        && updated.stream_creation_time.as_ref() != Some(&truncate_to_micros(created))
    {
        if updated.stream_creation_time.is_some() {
            // Another stream under the same name: AWS's counter may continue, but the known key belongs to
            // the earlier stream.
            updated.known_encryption = None;
            updated.satisfied = None;
            updated.attempts = None;
        }
        updated.stream_creation_time = Some(truncate_to_micros(created));
    }
    if may_be_stale(&updated, observation, requested) {
        return updated;
    }
    if let Some(last) = updated.calls.last_mut()
        && matches!(last.outcome, Outcome::Pending | Outcome::Unknown)
        && shows_effect(observation, last)
    {
        last.outcome = Outcome::Accepted;
        // The reason was that the outcome is unknown.
        if let Some(attempts) = &mut updated.attempts {
            attempts.reason = None;
        }
    }
    let hides_reversed = may_hide_reversed_change(&updated, observation, requested);
    if let Some(call) = updated.calls.iter_mut().rev().find(|call| call.outcome != Outcome::Refused) {
        call.confirmed |= shows_effect(observation, call) || is_its_failure(observation, call);
    }
    if hides_reversed
        || may_hide_earlier_change(&updated, observation)
        || is_call_of_another(&updated, observation, desired_target, requested)
    {
        updated.known_encryption = None;
    }
    if let Some(key) = observation.stable_encryption() {
        let key = key.map(Key::to_api);
        let was_off = may_have_been_off(&updated);
        if updated.known_encryption.as_ref().map(|known| &known.key) != Some(&key) || was_off {
            // During a change from one key to another, records were encrypted continuously.
            let encrypted_since = updated
                .known_encryption
                .as_ref()
                .filter(|_| !was_off)
                .and_then(|known| known.encrypted_since_time.clone());
            let encrypted_since_time =
                key.as_ref().map(|_| encrypted_since.unwrap_or_else(|| truncate_to_micros(now)));
            updated.known_encryption =
                Some(KnownEncryption { key, since_time: truncate_to_micros(now), encrypted_since_time });
        }
    }
    if let Some(desired_target) = desired_target
        && satisfies(&updated, observation, desired_target)
    {
        updated.satisfied = Some(desired_target.clone());
        updated.attempts = None;
    }
    if let Some(attempts) = &mut updated.attempts
        && desired_key_has_problem
    {
        attempts.key_was_unusable = true;
    }
    updated
}

/// Returns whether the known encryption is the desired one. `Start` without a key is satisfied by any key.
#[must_use]
pub fn satisfies(ledger: &StreamLedgerSpec, observation: &Observation, desired_target: &Target) -> bool {
    // After a failure AWS may report either key; the previously active key remains active.
    if !matches!(observation, Observation::Off | Observation::On(_) | Observation::Failed { .. }) {
        return false;
    }
    let Some(known_encryption) = &ledger.known_encryption else { return false };
    match (&known_encryption.key, desired_target.action, &desired_target.key) {
        (None, Action::Stop, _) | (Some(_), Action::Start, None) => true,
        (Some(key), Action::Start, Some(desired)) => key == desired,
        (Some(_), Action::Stop, _) | (None, Action::Start, _) => false,
    }
}

/// A planned call: what the ledger reserves, and the desired encryption that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCall {
    /// The encryption that the call requests.
    pub target: Target,
    /// The encryption that the resource requests. It differs from `target` if any key will do: the call then names the key of
    /// AWS.
    pub desired_target: Target,
    /// The value of the retry annotation.
    pub retry: Option<String>,
    /// Whether the call corrects drift.
    pub correction: bool,
    /// Whether AWS reports a failure at the time of the plan.
    pub after_failure: bool,
}

/// Returns the ledger with one more call, pending, and the id of that call.
#[must_use]
pub fn reserve(ledger: &StreamLedgerSpec, plan: &PlannedCall, now: Timestamp) -> (StreamLedgerSpec, String) {
    let PlannedCall { target, desired_target, retry, correction, after_failure } = plan.clone();
    let mut reserved = ledger.clone();
    let id = fresh_id(&reserved.calls, now);
    reserved.calls.push(Call {
        id: id.clone(),
        target,
        time: truncate_to_micros(now),
        outcome: Outcome::Pending,
        code: None,
        request_id: None,
        correction,
        after_failure,
        confirmed: false,
        retry: retry.clone(),
    });
    let before = ledger.attempts.as_ref().filter(|attempts| attempts.target == desired_target);
    let count = before.map_or(0, |attempts| attempts.count).saturating_add(1);
    reserved.attempts = Some(Attempts {
        count,
        not_before_time: truncate_to_micros(saturating_add(now, schedule::after_attempt(count))),
        target: desired_target,
        reason: None,
        retry,
        key_was_unusable: false,
    });
    (reserved, id)
}

/// Returns the ledger with the outcome of call `id`, and the id that AWS gave the request.
#[must_use]
pub fn record_outcome(
    ledger: &StreamLedgerSpec,
    id: &str,
    outcome: Result<&Accepted, &AwsError>,
    now: Timestamp,
) -> StreamLedgerSpec {
    let mut recorded = ledger.clone();
    // An outcome may be recorded late: the attempts then belong to a later call.
    let is_last = ledger.calls.last().is_some_and(|call| call.id == id);
    let Some(call) = recorded.calls.iter_mut().find(|call| call.id == id) else { return recorded };
    let request_id = match outcome {
        Ok(accepted) => &accepted.request_id,
        Err(error) => &error.request_id,
    };
    if call.request_id.is_none() {
        call.request_id.clone_from(request_id);
    }
    let Err(error) = outcome else {
        call.outcome = Outcome::Accepted;
        return recorded;
    };
    if call.outcome != Outcome::Pending {
        // Another replica has observed the effect meanwhile, which is more reliable than an error.
        return recorded;
    }
    call.code.clone_from(&error.code);
    // An event of another caller's call may have been taken for that of this one (see `external`). The entry then has the
    // request id of the other call, and stands for it. AWS may have accepted that call.
    let is_another = call.request_id.is_some() && call.request_id != *request_id;
    let is_unknown = error.kind == ErrorKind::UnknownOutcome || is_another;
    call.outcome = if is_unknown { Outcome::Unknown } else { Outcome::Refused };
    let unsent = unsent_in_a_row(&recorded);
    if let Some(attempts) = recorded.attempts.as_mut().filter(|_| is_last) {
        attempts.reason = Some(error.kind.reason().to_string());
        let wait = if unsent > 0 {
            // It was no attempt: AWS has refused nothing.
            attempts.count = attempts.count.saturating_sub(1);
            schedule::after_unsent(unsent)
        } else {
            schedule::after_refusal(attempts.count, error.kind)
        };
        attempts.not_before_time = truncate_to_micros(saturating_add(now, wait));
    }
    recorded
}

/// Returns the ledger without the calls that no longer count at `verified_now`: a time that AWS has just
/// accepted as the date of a request. With the time of a clock that jumped ahead, calls that AWS still counts
/// would be removed. The last call that AWS may have applied since the encryption became known stays: AWS may still report its
/// failure, which would otherwise seem to be that of somebody else's call.
#[must_use]
pub fn prune_expired(ledger: &StreamLedgerSpec, verified_now: Timestamp) -> StreamLedgerSpec {
    let known_since = ledger.known_encryption.as_ref().map(|known| known.since_time.0);
    let explains = |call: &&Call| known_since.is_some_and(|since| since < call.at());
    let kept = last_unrefused_call(ledger).filter(explains).map(|call| &call.id);
    let mut shorter = ledger.clone();
    shorter.calls.retain(|call| expires_at(call) > verified_now || Some(&call.id) == kept);
    shorter.external_calls.retain(|call| external::expires_at(call) > verified_now);
    shorter
}

/// Returns an id that no other call has. Two replicas do not read their clocks at the same nanosecond, so an id also names the
/// process that made the reservation.
fn fresh_id(calls: &[Call], now: Timestamp) -> String {
    let base = now.as_nanosecond();
    let taken = |id: &String| calls.iter().any(|call| call.id == *id);
    (0..=calls.len())
        .map(|n| format!("{base}-{n}"))
        .find(|id| !taken(id))
        .unwrap_or_else(|| format!("{base}-x"))
}

/// Returns the time in microseconds, as Kubernetes stores it. Otherwise it would differ when it is read back.
fn truncate_to_micros(time: Timestamp) -> MicroTime {
    MicroTime(Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time))
}

/// Returns `time` plus `by`, or the maximum time on overflow.
#[must_use]
pub fn saturating_add(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
