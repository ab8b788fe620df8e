//! The fields of a status: they never claim more than was observed.
//!
//! Values are AWS's own where AWS has them. Kinesis reports neither "enabling" nor "failed", so these values
//! are derived from the call and the reported state. The active key is the one that AWS reports once it is
//! stable, otherwise the one that was active before. The key ARN is redacted for namespaces that may not use
//! the key.

use std::borrow::Cow;

use jiff::Timestamp;
use stream_encryption_api::condition::{ConditionStatus, Reason};
use stream_encryption_api::ledger::{Action, Call, Outcome};
use stream_encryption_api::stream_encryption::{EncryptionStatus, KeyIdentity, StreamEncryptionStatus};

use super::arn::{KeyArn, StreamArn};
use super::decision::{DecisionInput, LastObservation, PROPAGATION_DELAY, action_in_progress};
use super::key::Key;
use super::ledger::{self, saturating_add};
use super::observation::Observation;
use super::service::profile;

/// Returns whether a status may be about this stream. A name stands for another stream once the operator has credentials of
/// another account or another default region. A status does not disclose every ARN.
#[must_use]
pub fn may_be_of(status: &StreamEncryptionStatus, stream: &StreamArn) -> bool {
    let reported = status.stream.as_ref().and_then(|stream| stream.arn.as_deref());
    reported.is_none_or(|arn| arn == stream.to_string())
}

/// Returns what a status reports of this stream. If the status is about another stream, only the last retry remains, which
/// belongs to the resource.
#[must_use]
pub fn about<'a>(status: &'a StreamEncryptionStatus, stream: &StreamArn) -> Cow<'a, StreamEncryptionStatus> {
    if may_be_of(status, stream) {
        return Cow::Borrowed(status);
    }
    Cow::Owned(StreamEncryptionStatus {
        last_handled_retry: status.last_handled_retry.clone(),
        ..StreamEncryptionStatus::default()
    })
}

/// Returns the encryption status in AWS's terms; `None` if it is unknown.
#[must_use]
pub fn encryption_status(input: &DecisionInput<'_>) -> Option<EncryptionStatus> {
    let LastObservation::Described(requested, observation) = input.last_observation else { return None };
    if let Some(action) = accepted_since(input, requested.at) {
        return Some(in_progress(action));
    }
    if ledger::may_be_stale(input.ledger, observation, requested) {
        // While the reported state is being confirmed, it is shown as AWS reports it.
        return match observation {
            Observation::Failed { action, .. } => Some(failed(*action)),
            _ => observation.stable_encryption().map(|key| stable_status(key.is_some())),
        };
    }
    match observation {
        Observation::InProgress(Some(action)) => Some(in_progress(*action)),
        // Kinesis reports UPDATING for every change.
        Observation::InProgress(None) => match action_in_progress(input) {
            Some(action) => Some(in_progress(action)),
            None => input.ledger.known_encryption.as_ref().map(|known| stable_status(known.key.is_some())),
        },
        Observation::Failed { action, .. } => Some(failed(*action)),
        Observation::Off | Observation::On(_) => {
            let on = matches!(observation, Observation::On(_));
            Some(if !profile(input.stream.service).reports_failures && attempt_failed(input, observation) {
                failed(last_attempt(input).map_or(Action::Start, |call| call.target.action))
            } else {
                stable_status(on)
            })
        }
        Observation::NotEncryptable(_) => Some(EncryptionStatus::Disabled),
        Observation::Missing
        | Observation::OtherStream
        | Observation::Creating
        | Observation::Deleting
        | Observation::NotOperational(_)
        | Observation::Unrecognized(_) => None,
    }
}

/// Returns the key that encrypts records now; `None` for plaintext, or if it is unknown.
#[must_use]
pub fn active_key(input: &DecisionInput<'_>) -> Option<KeyIdentity> {
    if known_encryption_is_void(input) {
        return None;
    }
    input
        .ledger
        .known_encryption
        .as_ref()
        .and_then(|known| known.key.as_ref())
        .map(|key| redacted_key(input, key))
}

/// Returns the customer managed key that encrypts records now, if the namespace may use it. The operator must
/// not describe other keys on behalf of the namespace.
#[must_use]
pub fn active_customer_key(input: &DecisionInput<'_>) -> Option<KeyArn> {
    let Key::Customer(arn) = Key::of(&active_key(input)?) else { return None };
    Some(arn)
}

/// Returns the key, without its ARN if no policy allows the namespace to use it.
#[must_use]
pub fn redacted_key(input: &DecisionInput<'_>, key: &KeyIdentity) -> KeyIdentity {
    if input.permission.check_key(input.stream, &Key::of(key)).is_ok() {
        key.clone()
    } else {
        KeyIdentity { kind: key.kind, arn: None }
    }
}

/// Returns since when records are known to be encrypted.
#[must_use]
pub fn encrypted_since_time(input: &DecisionInput<'_>) -> Option<Timestamp> {
    let known = input.ledger.known_encryption.as_ref().filter(|_| !known_encryption_is_void(input))?;
    let since = known.encrypted_since_time.as_ref()?.0;
    Some(saturating_add(since, PROPAGATION_DELAY)).filter(|since| *since <= input.now)
}

/// Returns since when records are known to be encrypted with the active key.
#[must_use]
pub fn active_key_since(input: &DecisionInput<'_>) -> Option<Timestamp> {
    let known = input
        .ledger
        .known_encryption
        .as_ref()
        .filter(|known| known.key.is_some() && !known_encryption_is_void(input))?;
    Some(saturating_add(known.since_time.0, PROPAGATION_DELAY)).filter(|since| *since <= input.now)
}

/// Returns since when records are known to be in plaintext.
#[must_use]
pub fn plaintext_since_time(input: &DecisionInput<'_>) -> Option<Timestamp> {
    let known = input
        .ledger
        .known_encryption
        .as_ref()
        .filter(|known| known.key.is_none() && !known_encryption_is_void(input))?;
    Some(known.since_time.0)
}

/// Returns whether records are encrypted now, with any key.
#[must_use]
pub fn encrypted(input: &DecisionInput<'_>, reason: Reason) -> ConditionStatus {
    let known = input
        .ledger
        .known_encryption
        .as_ref()
        .filter(|_| !known_encryption_is_void(input) && in_doubt(input).is_none());
    match known {
        None => ConditionStatus::Unknown,
        Some(known) if known.key.is_none() => ConditionStatus::False,
        // The requested verification is still missing.
        Some(_) if reason == Reason::Verifying => ConditionStatus::Unknown,
        Some(_) if encrypted_since_time(input).is_some() => ConditionStatus::True,
        Some(_) => ConditionStatus::False,
    }
}

/// Returns the state that AWS reports, stable or failed, while it may be older than the last call and is
/// being confirmed.
#[must_use]
pub fn unconfirmed_observation<'a>(input: &DecisionInput<'a>) -> Option<&'a Observation> {
    let LastObservation::Described(requested, observation) = input.last_observation else { return None };
    let looked_since = ledger::last_unrefused_call(input.ledger).is_some_and(|call| call.at() < requested.at);
    (looked_since && ledger::may_be_stale(input.ledger, observation, requested)).then_some(observation)
}

/// Returns the state that is being confirmed, if it differs from the known encryption.
#[must_use]
pub fn in_doubt<'a>(input: &DecisionInput<'a>) -> Option<&'a Observation> {
    let observation = unconfirmed_observation(input)?;
    let key = observation.stable_encryption()?.map(Key::to_api);
    input.ledger.known_encryption.as_ref().filter(|known| known.key != key).map(|_| observation)
}

/// Returns the action of a call that AWS accepted after the last Describe; the observation does not show its
/// effect yet.
fn accepted_since(input: &DecisionInput<'_>, seen: Timestamp) -> Option<Action> {
    let call = ledger::last_unrefused_call(input.ledger).filter(|_| input.ledger.attempts.is_some())?;
    (call.outcome == Outcome::Accepted && !call.confirmed && seen <= call.at()).then_some(call.target.action)
}

/// The failure code of a call that AWS accepted and that changed nothing. AWS has no code for this.
pub const NOT_APPLIED: &str = "NOT_APPLIED";

/// Returns why the last attempt failed: AWS's failure type, its error code, or a code of the operator's own.
#[must_use]
pub fn failure_code(input: &DecisionInput<'_>) -> Option<String> {
    if let LastObservation::Described(requested, observation @ Observation::Failed { reason, .. }) =
        input.last_observation
        && !ledger::may_be_stale(input.ledger, observation, requested)
    {
        return Some(reason.clone());
    }
    let last = last_attempt(input)?;
    match last.outcome {
        Outcome::Refused => Some(last.code.clone().unwrap_or_else(|| "UNKNOWN_ERROR".to_owned())),
        Outcome::Accepted => match input.last_observation {
            LastObservation::Described(requested, observation @ (Observation::Off | Observation::On(_)))
                if !ledger::may_be_stale(input.ledger, observation, requested)
                    && !ledger::matches_target(observation, &last.target) =>
            {
                Some(NOT_APPLIED.to_owned())
            }
            LastObservation::Described(..) | LastObservation::NotYet | LastObservation::Failed(_) => None,
        },
        Outcome::Pending | Outcome::Unknown => None,
    }
}

/// Returns the key that the spec names; `None` if it names none, or one that could not be resolved.
#[must_use]
pub fn specified_key<'a>(input: &DecisionInput<'a>) -> Option<&'a Key> {
    match &input.desired.encryption {
        super::desired::DesiredEncryption::Key(key) => Some(key),
        _ => None,
    }
}

/// Returns whether a status reports the active key, or that records are in plaintext.
#[must_use]
pub fn is_encryption_reported(status: &StreamEncryptionStatus) -> bool {
    status.active_key.is_some() || status.plaintext_since_time.is_some()
}

/// Returns whether the ledger's known encryption must not be reported. Either it no longer applies: the stream does not
/// exist or is another account's, cannot be encrypted, or AWS reports a value that this version does not know. Or the
/// stream is not described, and the last status did not report its encryption: what was observed before may be missing
/// in the ledger, which could be read and not written.
#[must_use]
pub fn known_encryption_is_void(input: &DecisionInput<'_>) -> bool {
    match input.last_observation {
        LastObservation::NotYet | LastObservation::Failed(_) => !input.is_encryption_reported,
        LastObservation::Described(_, observation) => matches!(
            observation,
            Observation::Missing
                | Observation::OtherStream
                | Observation::NotEncryptable(_)
                | Observation::Unrecognized(_)
        ),
    }
}

/// Returns the last call of the attempts to reach the desired encryption. Attempts for an earlier spec are no longer relevant.
fn last_attempt<'a>(input: &DecisionInput<'a>) -> Option<&'a Call> {
    let desired = input.desired.encryption.target();
    let attempts = input.ledger.attempts.as_ref()?;
    input.ledger.calls.last().filter(|_| desired.is_none_or(|desired| attempts.target == desired))
}

/// Returns whether an attempt is no longer in progress and had no effect.
fn attempt_failed(input: &DecisionInput<'_>, observation: &Observation) -> bool {
    last_attempt(input).is_some_and(|call| match call.outcome {
        Outcome::Accepted => !ledger::matches_target(observation, &call.target),
        // Only a refusal because of the key is reported as a failed attempt.
        Outcome::Refused => call.code.as_ref().is_some_and(|code| code.starts_with("KMS")),
        Outcome::Pending | Outcome::Unknown => false,
    })
}

fn in_progress(action: Action) -> EncryptionStatus {
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

fn stable_status(on: bool) -> EncryptionStatus {
    if on { EncryptionStatus::Enabled } else { EncryptionStatus::Disabled }
}

#[cfg(test)]
mod tests;
