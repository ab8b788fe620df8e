//! Whether records are encrypted, in words: as far as it is known, since when, and else why it is not known.

use super::{key_name, whole_seconds};
use crate::api::condition::Reason;
use crate::api::ledger::Action;
use crate::model::claims;
use crate::model::decision::{Input, Seen};
use crate::model::ledger::READ_LAG;
use crate::model::observation::Observation;

/// Whether it is a reason of waiting until AWS's answers show what came of a call.
pub(super) fn confirms(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Enabling
            | Reason::Disabling
            | Reason::StreamUpdating
            | Reason::OutcomeUnknown
            | Reason::Settling
    )
}

/// What AWS reports, and that it is being confirmed.
pub(super) fn still_shows(shown: &Observation) -> String {
    let state = match shown {
        Observation::Failed { action: Action::Start, .. } => "ENABLING_FAILED",
        Observation::Failed { action: Action::Stop, .. } => "DISABLING_FAILED",
        Observation::On(_) => "ENABLED",
        _ => "DISABLED",
    };
    format!(
        "AWS reports {state}: this may be older than the operator's last call, and is confirmed within {} seconds.",
        READ_LAG.as_secs()
    )
}

/// The message of `Encrypted`.
#[must_use]
pub fn encrypted(i: &Input<'_>) -> String {
    let Some(known) = i.ledger.in_force.as_ref().filter(|_| !claims::gone(i)) else {
        return format!("Unknown: {}.", why_unknown(i));
    };
    if let Some(shown) = claims::in_doubt(i) {
        return format!("Unknown: {}", still_shows(shown));
    }
    let Some(key) = &known.key else {
        return format!("Records are in plain text, since {} at the latest.", whole_seconds(known.since.0));
    };
    let key = key_name(i, key);
    match (claims::encrypted_since(i), claims::active_key_since(i)) {
        (None, _) => "AWS says ENABLED; it takes up to 5 seconds until all records are encrypted.".to_owned(),
        (Some(since), None) => format!(
            "Records are encrypted since {}. AWS has changed the key to {key}; it takes up to 5 seconds until that holds for all records.",
            whole_seconds(since)
        ),
        (Some(since), Some(with_key)) if since == with_key => {
            format!("Records are encrypted with {key} since {}.", whole_seconds(since))
        }
        (Some(since), Some(with_key)) => format!(
            "Records are encrypted since {}, with {key} since {}.",
            whole_seconds(since),
            whole_seconds(with_key)
        ),
    }
}

/// Why it is not known whether records are encrypted.
fn why_unknown(i: &Input<'_>) -> String {
    let words = match i.seen {
        Seen::NotYet => "AWS has not been asked about the stream",
        Seen::Failed(_) => "AWS could not be asked about the stream",
        Seen::At(_, observation) => match observation {
            Observation::Missing => "AWS reports no such stream",
            Observation::OtherStream => "AWS answers with another stream of this name",
            Observation::Creating => "the stream is being made",
            Observation::Deleting => "the stream is being deleted",
            Observation::Broken(word) => {
                return format!("the stream is not operational (AWS reports {word})");
            }
            Observation::NotEncryptable(source) => {
                return format!(
                    "the stream's own encryption is off and cannot be turned on, because its source is {source}. Whether records are encrypted at rest depends on that source"
                );
            }
            Observation::Unrecognized(words) => {
                return format!("AWS reports {words}, which this version of the operator does not know");
            }
            Observation::Failed { .. } => "AWS reports a failed attempt, and not which key is active",
            _ => "AWS has not reported a settled state yet",
        },
    };
    words.to_owned()
}
