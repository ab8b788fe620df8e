//! The message of `Encrypted`: whether records are encrypted and since when, or why that is unknown.

use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::Action;

use super::{describe_key, whole_seconds};
use crate::model::decision::{DecisionInput, LastObservation};
use crate::model::ledger::READ_LAG;
use crate::model::observation::Observation;
use crate::model::service::Operation;
use crate::model::status_fields;

/// Returns whether, for this reason, the operator waits for AWS to report the outcome of a call.
pub(super) fn awaits_confirmation(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Enabling
            | Reason::Disabling
            | Reason::StreamUpdating
            | Reason::OutcomeUnknown
            | Reason::Settling
    )
}

/// Returns a sentence about the state that AWS reports while it is being confirmed.
pub(in crate::model) fn still_reported(observation: &Observation) -> String {
    let state = match observation {
        Observation::Failed { action: Action::Start, .. } => "ENABLING_FAILED",
        Observation::Failed { action: Action::Stop, .. } => "DISABLING_FAILED",
        Observation::On(_) => "ENABLED",
        _ => "DISABLED",
    };
    format!(
        "AWS reports {state}, which may still be the state before the operator's last call; the operator checks again within {} seconds.",
        READ_LAG.as_secs()
    )
}

/// Returns the message of `Encrypted`.
#[must_use]
pub fn encrypted(input: &DecisionInput<'_>) -> String {
    let Some(known) =
        input.ledger.known_encryption.as_ref().filter(|_| !status_fields::known_encryption_is_void(input))
    else {
        return format!("Unknown: {}.", why_unknown(input));
    };
    if let Some(observation) = status_fields::in_doubt(input) {
        return format!("Unknown: {}", still_reported(observation));
    }
    let Some(key) = &known.key else {
        return format!(
            "Records have been in plaintext since {} or earlier.",
            whole_seconds(known.since_time.0)
        );
    };
    let key = describe_key(input, key);
    match (status_fields::encrypted_since_time(input), status_fields::active_key_since(input)) {
        (None, _) => {
            "AWS reports ENABLED; it can take up to 5 seconds until all records are encrypted.".to_owned()
        }
        (Some(since), None) => format!(
            "Records have been encrypted since {}. AWS has changed the key to {key}; the change can take up to 5 seconds to apply to all records.",
            whole_seconds(since)
        ),
        (Some(since), Some(with_key)) if since == with_key => {
            format!("Records have been encrypted since {}, with {key}.", whole_seconds(since))
        }
        (Some(since), Some(with_key)) => format!(
            "Records have been encrypted since {}, and with {key} since {}.",
            whole_seconds(since),
            whole_seconds(with_key)
        ),
    }
}

/// Returns why it is unknown whether records are encrypted.
fn why_unknown(input: &DecisionInput<'_>) -> String {
    let words = match input.last_observation {
        LastObservation::NotYet => "the stream has not been described yet",
        LastObservation::Failed(error) if error.operation == Operation::DescribeKey => {
            "no encryption state of the stream is known yet, and the desired key could not be described"
        }
        LastObservation::Failed(_) => "the stream could not be described",
        LastObservation::Described(_, observation) => match observation {
            Observation::Missing => "the stream was not found",
            Observation::OtherStream => "the operator's credentials are of another account",
            Observation::Creating => "the stream is being created",
            Observation::Deleting => "the stream is being deleted",
            Observation::NotOperational(word) => {
                return format!("the stream is not operational (AWS reports {word})");
            }
            Observation::NotEncryptable(source) => {
                return format!(
                    "the stream's source is {source}, and encryption at rest depends on that source"
                );
            }
            Observation::Unrecognized(words) => {
                return format!("AWS reports {words}, which this operator version does not support");
            }
            Observation::Failed { .. } => {
                "AWS reports a failed attempt and does not report which key is active"
            }
            _ => "AWS has not reported a stable encryption state yet",
        },
    };
    words.to_owned()
}
