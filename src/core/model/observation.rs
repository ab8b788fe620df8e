//! The result of one Describe of a stream, in one vocabulary for both services.
//!
//! A [`StreamDescription`] is AWS's response, field by field; an [`Observation`] is its meaning for
//! encryption. While a Kinesis stream reports its old key, a single description does not show whether the
//! change of the key has failed or has not started yet; `decision` and `status_fields` derive that from the
//! ledger.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::Action;

use super::arn::StreamArn;
use super::key::Key;

/// Values of `DeliveryStreamType` for which Firehose does not support encryption of the stream itself
/// ([DeliveryStreamType](https://docs.aws.amazon.com/firehose/latest/APIReference/API_DeliveryStreamDescription.html)).
const SOURCES_WITHOUT_SSE: [&str; 3] = ["KinesisStreamAsSource", "MSKAsSource", "DatabaseAsSource"];

/// The part of the response of `DescribeDeliveryStream` or `DescribeStreamSummary` that concerns encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamDescription {
    /// The ARN in AWS's response. Firehose is queried by name, so it may be another account's stream of that
    /// name.
    pub arn: StreamArn,
    /// When the stream was created; another time means another stream under the same name.
    pub created: Option<Timestamp>,
    /// The source of a Firehose stream (`DeliveryStreamType`); `None` for Kinesis, and if AWS reports no
    /// source.
    pub source: Option<String>,
    /// The state of the stream itself.
    pub state: StreamState,
    /// The state as AWS spells it.
    pub raw_status: String,
    /// The encryption that AWS reports.
    pub encryption: ReportedEncryption,
    /// The retention period. The key that encrypted a record is required until the record expires.
    pub retention: SignedDuration,
}

/// The state of the stream itself, apart from its encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Being created.
    Creating,
    /// Operational.
    Active,
    /// Kinesis: being resharded or changed, including a change of encryption.
    Updating,
    /// Being deleted.
    Deleting,
    /// Creation or deletion failed (`CREATING_FAILED`, `DELETING_FAILED`).
    NotOperational,
    /// A state that this version does not know, or none.
    Unrecognized,
}

/// The encryption of a stream as AWS reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportedEncryption {
    /// `DISABLED`, `NONE`, or no value.
    Off,
    /// `ENABLED`, or `KMS`, with this key.
    On(Key),
    /// `ENABLING`.
    Enabling,
    /// `DISABLING`.
    Disabling,
    /// `ENABLING_FAILED` or `DISABLING_FAILED`.
    Failed {
        /// The action that failed.
        action: Action,
        /// `DeliveryStreamFailureType`, such as `KMS_ACCESS_DENIED`.
        reason: String,
        /// AWS's details, for the log.
        details: String,
    },
    /// A status, encryption type or key type that this version does not know.
    Unknown(String),
}

/// The meaning of a description for encryption. AWS's states are reduced to those that decisions distinguish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The stream does not exist.
    Missing,
    /// The credentials belong to another account: AWS described another stream of the name, or found none there.
    OtherStream,
    /// The stream is being created.
    Creating,
    /// The stream is being deleted.
    Deleting,
    /// The stream is not operational and will not recover by itself.
    NotOperational(String),
    /// A Firehose stream that cannot be encrypted because of its source, one of `SOURCES_WITHOUT_SSE`.
    NotEncryptable(String),
    /// Plaintext.
    Off,
    /// Encrypted with this key.
    On(Key),
    /// A change is in progress: `ENABLING`, `DISABLING` or `UPDATING`.
    InProgress(Option<Action>),
    /// AWS reports a state, source or encryption of the stream that this version does not know. No conclusion
    /// is drawn: neither that the stream can be encrypted nor that it cannot, nor which key encrypts its
    /// records.
    Unrecognized(String),
    /// The last attempt failed; the previously active key remains active.
    Failed {
        /// The action that failed.
        action: Action,
        /// AWS's reason.
        reason: String,
    },
}

/// When a Describe was requested, and when AWS's response was received, by the operator's clock. AWS made the
/// response at an unknown time in between: the start decides whether the response may be outdated, and what it
/// shows is known since the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescribeTimes {
    /// The time of the request, before the wait for the rate limiter.
    pub requested: Requested,
    /// The time of the response.
    pub answered: Timestamp,
}

/// When a Describe was requested. Two clocks measure how much later that was than the last call of the ledger: the clocks of
/// two replicas may differ by minutes, and a clock may be set. The time of the call is that of one clock, and `at` may be that
/// of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requested {
    /// The time of day.
    pub at: Timestamp,
    /// How long this process had known the last call that AWS may have applied, by the monotonic clock. The call was recorded
    /// before, and sent shortly after that, or not at all.
    pub call_known_for: Duration,
}

impl From<Timestamp> for Requested {
    /// Returns the time of a request by a process that has known the call for long: only the time of day matters.
    fn from(at: Timestamp) -> Self {
        Self { at, call_known_for: Duration::MAX }
    }
}

impl From<Timestamp> for DescribeTimes {
    /// Returns the times of a Describe that took no time.
    fn from(time: Timestamp) -> Self {
        Self { requested: time.into(), answered: time }
    }
}

impl Observation {
    /// Returns the meaning of `description` for `stream`; `None` is a stream that does not exist.
    #[must_use]
    pub fn of(stream: &StreamArn, description: Option<&StreamDescription>) -> Self {
        let Some(description) = description else { return Self::Missing };
        if description.arn != *stream {
            return Self::OtherStream;
        }
        match description.state {
            StreamState::Creating => return Self::Creating,
            StreamState::Deleting => return Self::Deleting,
            StreamState::NotOperational => return Self::NotOperational(description.raw_status.clone()),
            StreamState::Unrecognized => {
                return Self::Unrecognized(format!("the stream status {:?}", description.raw_status));
            }
            StreamState::Active | StreamState::Updating => {}
        }
        match description.source.as_deref() {
            // Firehose reported no source in 2016, when every stream had this one.
            None | Some("DirectPut") => {}
            Some(source) if SOURCES_WITHOUT_SSE.contains(&source) => {
                return Self::NotEncryptable(source.to_owned());
            }
            Some(source) => return Self::Unrecognized(format!("the source {source:?}")),
        }
        // While UPDATING, Kinesis was recorded to report the old encryption, and emulators report the new
        // one. Neither is the result of the change.
        if description.state == StreamState::Updating {
            return Self::InProgress(None);
        }
        match &description.encryption {
            ReportedEncryption::Off => Self::Off,
            ReportedEncryption::On(key) => Self::On(key.clone()),
            ReportedEncryption::Enabling => Self::InProgress(Some(Action::Start)),
            ReportedEncryption::Disabling => Self::InProgress(Some(Action::Stop)),
            ReportedEncryption::Failed { action, reason, .. } => {
                Self::Failed { action: *action, reason: reason.clone() }
            }
            ReportedEncryption::Unknown(value) => Self::Unrecognized(format!("the encryption {value:?}")),
        }
    }

    /// Returns the encryption if it is stable: the key, or `Some(None)` for plaintext. `None` if it is
    /// changing, failed or unknown.
    #[must_use]
    pub fn stable_encryption(&self) -> Option<Option<&Key>> {
        match self {
            Self::Off => Some(None),
            Self::On(key) => Some(Some(key)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> StreamArn {
        "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks".parse().unwrap()
    }

    fn description(state: StreamState, encryption: ReportedEncryption) -> StreamDescription {
        StreamDescription {
            arn: stream(),
            created: None,
            source: None,
            state,
            raw_status: String::new(),
            encryption,
            retention: SignedDuration::from_hours(24),
        }
    }

    #[test]
    fn kinesis_encryption_while_updating_is_not_trusted() {
        let description = description(StreamState::Updating, ReportedEncryption::On(Key::AwsOwned));
        assert_eq!(Observation::of(&stream(), Some(&description)), Observation::InProgress(None));
    }

    #[test]
    fn same_name_in_another_account_is_another_stream() {
        let mut description = description(StreamState::Active, ReportedEncryption::Off);
        description.arn = "arn:aws:kinesis:eu-west-1:444455556666:stream/clicks".parse().unwrap();
        assert_eq!(Observation::of(&stream(), Some(&description)), Observation::OtherStream);
    }

    #[test]
    fn only_direct_put_streams_can_be_encrypted() {
        let mut description = description(StreamState::Active, ReportedEncryption::Off);
        description.source = Some("KinesisStreamAsSource".into());
        assert_eq!(
            Observation::of(&stream(), Some(&description)),
            Observation::NotEncryptable("KinesisStreamAsSource".into())
        );
        description.source = Some("DirectPut".into());
        assert_eq!(Observation::of(&stream(), Some(&description)), Observation::Off);
    }

    #[test]
    fn unknown_aws_values_are_unrecognized() {
        let suspended = StreamDescription {
            raw_status: "SUSPENDED".into(),
            ..description(StreamState::Unrecognized, ReportedEncryption::Off)
        };
        let source = StreamDescription {
            source: Some("New".into()),
            ..description(StreamState::Active, ReportedEncryption::Off)
        };
        let encryption = description(StreamState::Active, ReportedEncryption::Unknown("ROT13".into()));
        for (description, words) in [
            (suspended, "the stream status \"SUSPENDED\""),
            (source, "the source \"New\""),
            (encryption, "the encryption \"ROT13\""),
        ] {
            let observation = Observation::of(&stream(), Some(&description));
            assert_eq!(observation, Observation::Unrecognized(words.into()));
            assert_eq!(observation.stable_encryption(), None);
        }
    }
}
