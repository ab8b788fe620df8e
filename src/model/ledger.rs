//! The ledger's arithmetic: how many calls count, when the next is free, and what an observation teaches.
//!
//! Every function takes a ledger and gives another; none writes. The rules of design section 7 stand here: each call is
//! counted before it is sent, none is forgotten before AWS has forgotten it, and doubt is counted as a call.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use sha2::{Digest, Sha256};

use super::backoff;
use super::fault::{Class, Fault};
use super::key::Key;
use super::object::can_be_named;
use super::observation::Observation;
use super::stream::StreamArn;
use crate::api::ledger::{Action, Attempts, Call, InForce, Outcome, Owner, StreamLedgerSpec, Target};
use crate::api::stream_encryption::{KeyStatus, KeyType, Service};

/// AWS's limit of calls per stream in 24 hours
/// ([StartDeliveryStreamEncryption](https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html),
/// [StartStreamEncryption](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_StartStreamEncryption.html)).
pub const AWS_LIMIT: u32 = 25;
/// AWS refuses a request whose date is further than this from its own clock, either way
/// ([RequestExpired](https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html)). A call is dated as of its
/// reservation, so this is how far the time in the ledger can be from the time at which AWS counts it, whatever
/// becomes of the process or its clock.
pub const ARRIVAL: SignedDuration = SignedDuration::from_mins(15);
/// AWS's day.
pub const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long a call counts: AWS's day, and what may lie between reservation and arrival at both of its ends: the first call
/// may arrive so much late, and the one that follows it be dated so much early. The last minute is for what is read late.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(24 * 60 + 2 * 15 + 1);
/// How long after a call AWS's answers may still be about the time before it.
pub const READ_LAG: SignedDuration = SignedDuration::from_secs(30);
/// The most entries a ledger holds. Refused calls of Kinesis count against no limit of AWS, but not for ever either.
pub const MOST_CALLS: usize = 200;

/// The name of the ledger of a stream: a hash of its ARN, so that no two streams ever share one.
#[must_use]
pub fn name(stream: &StreamArn) -> String {
    let digest = Sha256::digest(stream.to_string().as_bytes());
    let mut name = String::from("stream-");
    let nibbles = digest[..20].iter().flat_map(|byte| [byte >> 4, byte & 15]);
    name.extend(nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)));
    name
}

/// An empty ledger for a stream, claimed by `owner`.
#[must_use]
pub fn new(stream: &StreamArn, owner: Owner) -> StreamLedgerSpec {
    StreamLedgerSpec {
        stream_arn: stream.to_string(),
        owner,
        stream_created: None,
        calls: Vec::new(),
        in_force: None,
        satisfied: None,
        attempts: None,
    }
}

/// A ledger in place of one that somebody deleted, when `told` calls of its stream counted as far as anybody knows. When
/// they were made is lost with it, so they count as made now.
#[must_use]
pub fn regained(empty: &StreamLedgerSpec, action: Action, told: u32, now: Timestamp) -> StreamLedgerSpec {
    let target = match action {
        Action::Start => Key::AwsOwned.target(),
        Action::Stop => Target { action, key: None },
    };
    let call = |number| Call {
        id: format!("regained-{number}"),
        target: target.clone(),
        time: stored(now),
        outcome: Outcome::Accepted,
        code: None,
        correction: false,
        after_failure: false,
        confirmed: false,
        retry: None,
    };
    StreamLedgerSpec { calls: (0..told.min(AWS_LIMIT)).map(call).collect(), ..empty.clone() }
}

/// Why a ledger is not believed. Nothing is called on its stream until a person has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// It is of another stream.
    #[error("it names another stream")]
    OtherStream,
    /// Two calls with one id.
    #[error("two of its calls have the same id")]
    RepeatedCall,
    /// A Start without a key, a Stop with one, or a key that is none.
    #[error("one of its calls has no meaning")]
    MeaninglessCall,
    /// Its owner has no uid, or a name that no resource can have.
    #[error("its owner is no resource")]
    NoOwner,
    /// A key in force that is none, or one of which is not said since when records are encrypted; or plain text of which it is.
    #[error("what it says of the key in force has no meaning")]
    MeaninglessKey,
}

/// Whether a ledger can be believed.
pub fn check(ledger: &StreamLedgerSpec, stream: &StreamArn) -> Result<(), Corrupt> {
    if ledger.stream_arn != stream.to_string() {
        return Err(Corrupt::OtherStream);
    }
    let Owner { namespace, name, uid } = &ledger.owner;
    if uid.is_empty() || !can_be_named(namespace) || !can_be_named(name) {
        return Err(Corrupt::NoOwner);
    }
    let ids: BTreeSet<&str> = ledger.calls.iter().map(|call| call.id.as_str()).collect();
    if ids.len() != ledger.calls.len() {
        return Err(Corrupt::RepeatedCall);
    }
    let is_key = |key: &KeyStatus| (key.kind == KeyType::CustomerManaged) == key.arn.is_some();
    let meaningful = |call: &Call| match (call.target.action, &call.target.key) {
        (Action::Start, Some(key)) => is_key(key),
        (Action::Stop, None) => true,
        (Action::Start, None) | (Action::Stop, Some(_)) => false,
    };
    if !ledger.calls.iter().all(meaningful) {
        return Err(Corrupt::MeaninglessCall);
    }
    let contradicts = |known: &InForce| {
        known.key.is_some() != known.encrypted_since.is_some() || !known.key.as_ref().is_none_or(is_key)
    };
    if ledger.in_force.as_ref().is_some_and(contradicts) { Err(Corrupt::MeaninglessKey) } else { Ok(()) }
}

/// How many calls are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Calls that count now.
    pub used: u32,
    /// How many may count.
    pub limit: u32,
    /// When the next slot becomes free; nothing while none is taken.
    pub next_free: Option<Timestamp>,
}

impl Budget {
    /// Whether a call may be made now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.used < self.limit
    }
}

/// The budget of one action on a stream.
///
/// Firehose counts every Start and Stop together. Kinesis counts Starts and Stops apart, and only those that it
/// carried out; a call whose outcome is not known counts. An entry from the future (a clock that was set back) counts.
#[must_use]
pub fn budget(calls: &[Call], service: Service, action: Action, limit: u32, now: Timestamp) -> Budget {
    let limit = limit.min(AWS_LIMIT);
    let recent = calls.iter().filter(|call| counts_until(call) > now);
    let mut counted: Vec<Timestamp> = recent
        .clone()
        .filter(|call| match service {
            Service::Firehose => true,
            Service::Kinesis => call.target.action == action && call.outcome != Outcome::Refused,
        })
        .map(counts_until)
        .collect();
    let used = u32::try_from(counted.len()).unwrap_or(u32::MAX);
    let next_free = room_at(&mut counted, usize::try_from(limit).unwrap_or(usize::MAX));
    let mut kept: Vec<Timestamp> = recent.map(counts_until).collect();
    if kept.len() >= MOST_CALLS {
        let entry_free = room_at(&mut kept, MOST_CALLS);
        let next_free = if used < limit { entry_free } else { next_free.max(entry_free) };
        return Budget { used: used.max(limit), limit, next_free };
    }
    Budget { used, limit, next_free }
}

/// When the next of `most` places becomes free. With more entries than places, as many must age out first.
fn room_at(ends: &mut [Timestamp], most: usize) -> Option<Timestamp> {
    ends.sort_unstable();
    ends.get(ends.len().saturating_sub(most)).copied()
}

/// Until when an entry counts, and is kept.
#[must_use]
pub fn counts_until(call: &Call) -> Timestamp {
    later(call.at(), WINDOW)
}

/// Corrections of the last day.
#[must_use]
pub fn corrections(ledger: &StreamLedgerSpec, now: Timestamp) -> Vec<Timestamp> {
    ledger.calls.iter().filter(|call| call.correction && later(call.at(), DAY) > now).map(Call::at).collect()
}

/// The last call that AWS may have carried out: its answers may be about the time before it.
#[must_use]
pub fn last_open(ledger: &StreamLedgerSpec) -> Option<&Call> {
    ledger.calls.iter().rev().find(|call| call.outcome != Outcome::Refused)
}

/// Until when a call without an outcome may still arrive at AWS, on whoever's clock. What [`WINDOW`] adds to AWS's day is
/// just that: the life of a signature, a reservation that was not sent at once, a clock that is ahead, and AWS's old answers.
#[must_use]
pub fn may_arrive_until(ledger: &StreamLedgerSpec) -> Option<Timestamp> {
    let open = ledger.calls.iter().filter(|call| matches!(call.outcome, Outcome::Pending | Outcome::Unknown));
    open.map(|call| later(call.at(), WINDOW - DAY)).max()
}

/// Whether what was seen when it was looked at (`seen`) may be older than the last call, so that it must not be believed. Once a
/// look has shown the effect of that call, a later one that differs is news, however soon it comes.
#[must_use]
pub fn may_be_stale(ledger: &StreamLedgerSpec, observation: &Observation, seen: Timestamp) -> bool {
    let Some(call) = last_open(ledger) else { return false };
    if call.confirmed || seen >= later(call.at(), READ_LAG) {
        return false;
    }
    // A failure that was there before the call may be shown for a while after it.
    if matches!(observation, Observation::Failed { .. }) {
        return call.after_failure;
    }
    match (observation.settled(), call.target.action) {
        (Some(Some(key)), Action::Start) => call.target.key.as_ref() != Some(&key.status()),
        (Some(Some(_)), Action::Stop) | (Some(None), Action::Start) => true,
        (Some(None), Action::Stop) | (None, _) => false,
    }
}

/// From when on a look can be believed, if what was seen may be older than the last call.
#[must_use]
pub fn stale_until(
    ledger: &StreamLedgerSpec,
    observation: &Observation,
    seen: Timestamp,
) -> Option<Timestamp> {
    let call = last_open(ledger).filter(|_| may_be_stale(ledger, observation, seen))?;
    Some(later(call.at(), READ_LAG))
}

/// What an observation teaches the ledger: what is in force, what was asked for and is true, what came of the last call.
/// `wanted` is nothing while the key asked for is not known: then nothing that is seen satisfies.
#[must_use]
pub fn learn(
    ledger: &StreamLedgerSpec,
    observation: &Observation,
    created: Option<Timestamp>,
    wanted: Option<&Target>,
    key_is_unusable: bool,
    now: Timestamp,
) -> StreamLedgerSpec {
    let mut learned = ledger.clone();
    if let Some(known) = &mut learned.in_force {
        // Later than now, if the clock was set back or it is another node's: it has been so since now at the latest.
        for since in [Some(&mut known.since), known.encrypted_since.as_mut()].into_iter().flatten() {
            since.0 = since.0.min(stored(now).0);
        }
    }
    if let Some(created) = created
        && learned.stream_created.as_ref() != Some(&stored(created))
    {
        if learned.stream_created.is_some() {
            // Another stream under the same name: AWS's counter may go on, what we knew of its key does not.
            learned.in_force = None;
            learned.satisfied = None;
            learned.attempts = None;
        }
        learned.stream_created = Some(stored(created));
    }
    if may_be_stale(&learned, observation, now) {
        return learned;
    }
    if let Some(last) = learned.calls.last_mut()
        && matches!(last.outcome, Outcome::Pending | Outcome::Unknown)
        && shows(observation, &last.target)
    {
        last.outcome = Outcome::Accepted;
    }
    if let Some(call) = learned.calls.iter_mut().rev().find(|call| call.outcome != Outcome::Refused) {
        call.confirmed |= shows(observation, &call.target) || is_its_failure(observation, call);
    }
    if let Some(key) = observation.settled() {
        let key = key.map(Key::status);
        if learned.in_force.as_ref().map(|known| &known.key) != Some(&key) {
            // From one key to another, records were encrypted all along.
            let all_along = learned.in_force.as_ref().and_then(|known| known.encrypted_since.clone());
            let encrypted_since = key.as_ref().map(|_| all_along.unwrap_or_else(|| stored(now)));
            learned.in_force = Some(InForce { key, since: stored(now), encrypted_since });
        }
    }
    if let Some(wanted) = wanted
        && satisfies(&learned, observation, wanted)
    {
        learned.satisfied = Some(wanted.clone());
        learned.attempts = None;
    }
    if let Some(attempts) = &mut learned.attempts
        && key_is_unusable
    {
        attempts.key_was_unusable = true;
    }
    learned
}

/// Whether what is known to be in force is what is wanted. `Start` without a key is satisfied by any key.
#[must_use]
pub fn satisfies(ledger: &StreamLedgerSpec, observation: &Observation, wanted: &Target) -> bool {
    // After a failure AWS shows either key; what was in force before it still is.
    if !matches!(observation, Observation::Off | Observation::On(_) | Observation::Failed { .. }) {
        return false;
    }
    let Some(in_force) = &ledger.in_force else { return false };
    match (&in_force.key, wanted.action, &wanted.key) {
        (None, Action::Stop, _) | (Some(_), Action::Start, None) => true,
        (Some(key), Action::Start, Some(asked)) => key == asked,
        (Some(_), Action::Stop, _) | (None, Action::Start, _) => false,
    }
}

/// Whether it shows that a call for this is being carried out, or was.
#[must_use]
pub fn shows(observation: &Observation, target: &Target) -> bool {
    match observation {
        Observation::Changing(None) => true,
        Observation::Changing(Some(action)) => *action == target.action,
        Observation::On(key) => target.key.as_ref() == Some(&key.status()),
        Observation::Off => target.action == Action::Stop,
        _ => false,
    }
}

/// Whether a failure that is shown, and may be believed, is that of this call.
fn is_its_failure(observation: &Observation, call: &Call) -> bool {
    matches!(observation, Observation::Failed { action, .. } if *action == call.target.action)
}

/// A call to be made: what is reserved in the ledger, and what it was decided for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// What AWS is asked for.
    pub target: Target,
    /// What the resource asks for.
    pub wanted: Target,
    /// The value of the retry annotation.
    pub retry: Option<String>,
    /// Whether it puts right what somebody else changed.
    pub correction: bool,
    /// Whether AWS shows a failure now.
    pub after_failure: bool,
}

/// The ledger with one more call, pending, and the id of that call.
#[must_use]
pub fn reserve(ledger: &StreamLedgerSpec, plan: &Reservation, now: Timestamp) -> (StreamLedgerSpec, String) {
    let Reservation { target, wanted, retry, correction, after_failure } = plan.clone();
    let mut reserved = ledger.clone();
    let id = fresh_id(&reserved.calls, now);
    reserved.calls.push(Call {
        id: id.clone(),
        target,
        time: stored(now),
        outcome: Outcome::Pending,
        code: None,
        correction,
        after_failure,
        confirmed: false,
        retry: retry.clone(),
    });
    let before = ledger.attempts.as_ref().filter(|attempts| attempts.target == wanted);
    let count = before.map_or(0, |attempts| attempts.count).saturating_add(1);
    reserved.attempts = Some(Attempts {
        count,
        not_before: stored(later(now, backoff::after_attempt(count))),
        target: wanted,
        reason: None,
        retry,
        key_was_unusable: false,
    });
    (reserved, id)
}

/// The ledger with the outcome of call `id`.
#[must_use]
pub fn record(
    ledger: &StreamLedgerSpec,
    id: &str,
    outcome: Result<(), &Fault>,
    now: Timestamp,
) -> StreamLedgerSpec {
    let mut recorded = ledger.clone();
    // An outcome may be recorded late: the attempts since then are another call's.
    let is_last = ledger.calls.last().is_some_and(|call| call.id == id);
    let Some(call) = recorded.calls.iter_mut().find(|call| call.id == id) else { return recorded };
    let Err(fault) = outcome else {
        call.outcome = Outcome::Accepted;
        return recorded;
    };
    if call.outcome != Outcome::Pending {
        // Another replica has seen meanwhile what came of it, and that is more than an error tells.
        return recorded;
    }
    call.code.clone_from(&fault.code);
    call.outcome = if fault.class == Class::UnknownOutcome { Outcome::Unknown } else { Outcome::Refused };
    if let Some(attempts) = recorded.attempts.as_mut().filter(|_| is_last) {
        attempts.reason = Some(fault.class.reason().to_string());
        attempts.not_before = stored(later(now, backoff::after_refusal(attempts.count, fault.class)));
    }
    recorded
}

/// The ledger without the calls that are too old to count. `proven` is a time that AWS has just accepted as the date of a
/// request: by a clock that leapt ahead, the operator would forget what AWS still counts.
#[must_use]
pub fn without_old_calls(ledger: &StreamLedgerSpec, proven: Timestamp) -> StreamLedgerSpec {
    let mut shorter = ledger.clone();
    shorter.calls.retain(|call| counts_until(call) > proven);
    shorter
}

fn fresh_id(calls: &[Call], now: Timestamp) -> String {
    let base = now.as_millisecond();
    let taken = |id: &String| calls.iter().any(|call| call.id == *id);
    (0..=calls.len())
        .map(|n| format!("{base}-{n}"))
        .find(|id| !taken(id))
        .unwrap_or_else(|| format!("{base}-x"))
}

/// A time as Kubernetes keeps it: in microseconds. Else it would be another one when it is read again.
fn stored(time: Timestamp) -> MicroTime {
    MicroTime(Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time))
}

/// `time` and `by`, or the end of time where there is nothing later.
#[must_use]
pub fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
