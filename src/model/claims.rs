//! What a status may claim of a stream: never more than was observed.
//!
//! AWS's own words where AWS has them; for Kinesis, which has none for "enabling" and "failed", the same words from what
//! was asked and what is shown. The key in force is what AWS shows once it has settled, and else what was in force before; which
//! one it is, only a namespace is told that may use it.

use jiff::Timestamp;

use super::decision::{Input, SETTLE, Seen, asked_last};
use super::key::{Key, KeyArn};
use super::ledger::{self, later};
use super::observation::Observation;
use crate::api::condition::{Reason, Truth};
use crate::api::ledger::{Action, Outcome};
use crate::api::stream_encryption::{EncryptionStatus, KeyStatus, Service};

/// Where the stream's encryption stands, in AWS's words; nothing where it is not known.
#[must_use]
pub fn encryption_status(i: &Input<'_>) -> Option<EncryptionStatus> {
    let Seen::At(at, observation) = i.seen else { return None };
    if let Some(action) = accepted_since(i, at) {
        return Some(on_the_way(action));
    }
    if ledger::may_be_stale(i.ledger, observation, at) {
        // What AWS shows is said as it is shown, while it is being confirmed.
        return match observation {
            Observation::Failed { action, .. } => Some(failed(*action)),
            _ => observation.settled().map(|key| at_rest(key.is_some())),
        };
    }
    match observation {
        Observation::Changing(Some(action)) => Some(on_the_way(*action)),
        // Kinesis says UPDATING for whatever changes.
        Observation::Changing(None) => match asked_last(i) {
            Some(action) => Some(on_the_way(action)),
            None => i.ledger.in_force.as_ref().map(|known| at_rest(known.key.is_some())),
        },
        Observation::Failed { action, .. } => Some(failed(*action)),
        Observation::Off | Observation::On(_) => {
            let on = matches!(observation, Observation::On(_));
            Some(if i.stream.service == Service::Kinesis && attempt_failed(i, observation) {
                failed(asked(i).unwrap_or(Action::Start))
            } else {
                at_rest(on)
            })
        }
        Observation::NotEncryptable(_) => Some(EncryptionStatus::Disabled),
        Observation::Missing
        | Observation::OtherStream
        | Observation::Creating
        | Observation::Deleting
        | Observation::Broken(_)
        | Observation::Unrecognized(_) => None,
    }
}

/// The key that encrypts records now; nothing for plain text, or where it is not known.
#[must_use]
pub fn key_in_force(i: &Input<'_>) -> Option<KeyStatus> {
    if gone(i) {
        return None;
    }
    i.ledger.in_force.as_ref().and_then(|known| known.key.as_ref()).map(|key| told(i, key))
}

/// The customer managed key that encrypts records now, where the namespace may use it: KMS may be asked of no other.
#[must_use]
pub fn customer_key_in_force(i: &Input<'_>) -> Option<KeyArn> {
    let Key::Customer(arn) = Key::of(&key_in_force(i)?) else { return None };
    Some(arn)
}

/// A key as the namespace may know it: of one that no policy allows it, only that it is a customer's.
#[must_use]
pub fn told(i: &Input<'_>, key: &KeyStatus) -> KeyStatus {
    if i.permission.key(i.stream, &Key::of(key)).is_ok() {
        key.clone()
    } else {
        KeyStatus { kind: key.kind, arn: None }
    }
}

/// Since when records are known to be encrypted.
#[must_use]
pub fn encrypted_since(i: &Input<'_>) -> Option<Timestamp> {
    let known = i.ledger.in_force.as_ref().filter(|_| !gone(i))?;
    let since = known.encrypted_since.as_ref()?.0;
    Some(later(since, SETTLE)).filter(|since| *since <= i.now)
}

/// Since when records are known to be encrypted with the active key.
#[must_use]
pub fn active_key_since(i: &Input<'_>) -> Option<Timestamp> {
    let known = i.ledger.in_force.as_ref().filter(|known| known.key.is_some() && !gone(i))?;
    Some(later(known.since.0, SETTLE)).filter(|since| *since <= i.now)
}

/// Since when records are known to be in plain text.
#[must_use]
pub fn plain_text_since(i: &Input<'_>) -> Option<Timestamp> {
    let known = i.ledger.in_force.as_ref().filter(|known| known.key.is_none() && !gone(i))?;
    Some(known.since.0)
}

/// Whether records are encrypted now, with whatever key.
#[must_use]
pub fn encrypted(i: &Input<'_>, reason: Reason) -> Truth {
    let known = i.ledger.in_force.as_ref().filter(|_| !gone(i) && in_doubt(i).is_none());
    match known {
        None => Truth::Unknown,
        Some(known) if known.key.is_none() => Truth::False,
        // The proof that was asked for is still missing.
        Some(_) if reason == Reason::Verifying => Truth::Unknown,
        Some(_) if encrypted_since(i).is_some() => Truth::True,
        Some(_) => Truth::False,
    }
}

/// What AWS shows, while that may be older than the last call and is being confirmed: as settled, or as failed.
#[must_use]
pub fn unconfirmed<'a>(i: &Input<'a>) -> Option<&'a Observation> {
    let Seen::At(at, observation) = i.seen else { return None };
    let looked_since = ledger::last_open(i.ledger).is_some_and(|call| call.at() < at);
    (looked_since && ledger::may_be_stale(i.ledger, observation, at)).then_some(observation)
}

/// What AWS shows, while that is being confirmed, if it is another state than the one that is known to be in force.
#[must_use]
pub fn in_doubt<'a>(i: &Input<'a>) -> Option<&'a Observation> {
    let shown = unconfirmed(i)?;
    let key = shown.settled()?.map(Key::status);
    i.ledger.in_force.as_ref().filter(|known| known.key != key).map(|_| shown)
}

/// What AWS has accepted since it was looked at: its answer to the call is newer than what was seen.
fn accepted_since(i: &Input<'_>, seen: Timestamp) -> Option<Action> {
    let call = ledger::last_open(i.ledger).filter(|_| i.ledger.attempts.is_some())?;
    (call.outcome == Outcome::Accepted && !call.confirmed && seen <= call.at()).then_some(call.target.action)
}

/// Why the last attempt failed: AWS's type of failure, or its error code.
#[must_use]
pub fn failure(i: &Input<'_>) -> Option<String> {
    if let Seen::At(at, observation @ Observation::Failed { reason, .. }) = i.seen
        && !ledger::may_be_stale(i.ledger, observation, at)
    {
        return Some(reason.clone());
    }
    let last = i.ledger.attempts.as_ref().and_then(|_| i.ledger.calls.last())?;
    match last.outcome {
        Outcome::Refused => Some(last.code.clone().unwrap_or_else(|| "UNKNOWN_ERROR".to_owned())),
        Outcome::Accepted => match i.seen {
            Seen::At(at, shown @ (Observation::Off | Observation::On(_)))
                if !ledger::may_be_stale(i.ledger, shown, at) && !ledger::shows(shown, &last.target) =>
            {
                Some("NOT_APPLIED".to_owned())
            }
            Seen::At(..) | Seen::NotYet | Seen::Failed(_) => None,
        },
        Outcome::Pending | Outcome::Unknown => None,
    }
}

/// The key asked for, as far as it is known.
#[must_use]
pub fn key_asked_for<'a>(i: &Input<'a>) -> Option<&'a Key> {
    match &i.intent.wanted {
        super::decision::Wanted::Key(key) => Some(key),
        _ => None,
    }
}

/// Whether what was known of the stream's encryption no longer holds: the stream is gone, takes no encryption, or AWS describes
/// it in words that may mean anything.
#[must_use]
pub fn gone(i: &Input<'_>) -> bool {
    matches!(
        i.seen,
        Seen::At(
            _,
            Observation::Missing
                | Observation::OtherStream
                | Observation::NotEncryptable(_)
                | Observation::Unrecognized(_)
        )
    )
}

fn asked(i: &Input<'_>) -> Option<Action> {
    i.ledger.attempts.as_ref().and_then(|_| i.ledger.calls.last()).map(|call| call.target.action)
}

/// Kinesis: an attempt was made, it is not on the way any more, and it has not come true.
fn attempt_failed(i: &Input<'_>, shown: &Observation) -> bool {
    let last = i.ledger.attempts.as_ref().and_then(|_| i.ledger.calls.last());
    last.is_some_and(|call| match call.outcome {
        Outcome::Accepted => !ledger::shows(shown, &call.target),
        // What was refused for another reason than the key was never begun.
        Outcome::Refused => call.code.as_ref().is_some_and(|code| code.starts_with("KMS")),
        Outcome::Pending | Outcome::Unknown => false,
    })
}

fn on_the_way(action: Action) -> EncryptionStatus {
    match action {
        Action::Start => EncryptionStatus::Enabling,
        Action::Stop => EncryptionStatus::Disabling,
    }
}

fn failed(action: Action) -> EncryptionStatus {
    match action {
        Action::Start => EncryptionStatus::EnablingFailed,
        Action::Stop => EncryptionStatus::DisablingFailed,
    }
}

fn at_rest(on: bool) -> EncryptionStatus {
    if on { EncryptionStatus::Enabled } else { EncryptionStatus::Disabled }
}

#[cfg(test)]
mod tests;
