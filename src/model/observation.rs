//! What one look at a stream showed, in one vocabulary for both services.
//!
//! A [`Look`] is AWS's answer, field by field; an [`Observation`] is what it means for encryption. Whether a Kinesis
//! stream that shows an old key has *failed* cannot be seen in one look: the decision knows, from the ledger.

use jiff::{SignedDuration, Timestamp};

use super::key::Key;
use super::stream::StreamArn;
use crate::api::ledger::Action;

/// The sources of Firehose streams that take no encryption
/// ([DeliveryStreamType](https://docs.aws.amazon.com/firehose/latest/APIReference/API_DeliveryStreamDescription.html)).
const OTHER_SOURCES: [&str; 3] = ["KinesisStreamAsSource", "MSKAsSource", "DatabaseAsSource"];

/// The answer of `DescribeDeliveryStream` or `DescribeStreamSummary`, as far as encryption goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The ARN that AWS answered with. Firehose is asked by name, so it may be another account's stream of that name.
    pub arn: StreamArn,
    /// When the stream was made; another time means another stream under the same name.
    pub created: Option<Timestamp>,
    /// Where a Firehose stream's records come from (`DeliveryStreamType`); `None` for Kinesis, and where AWS
    /// shows no source.
    pub source: Option<String>,
    /// The state of the stream itself.
    pub state: StreamState,
    /// The state in AWS's own word.
    pub state_word: String,
    /// What AWS says of its encryption.
    pub encryption: Shown,
    /// How long the stream keeps a record at most, and with it needs the key that it was written with.
    pub retention: SignedDuration,
}

/// The state of the stream itself, apart from its encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Being made.
    Creating,
    /// It serves.
    Active,
    /// Kinesis: being resharded or changed, encryption included.
    Updating,
    /// Being deleted.
    Deleting,
    /// It could not be created or deleted (`CREATING_FAILED`, `DELETING_FAILED`).
    Broken,
    /// A word that this version does not know, or none.
    Unrecognized,
}

/// What AWS says of a stream's encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// `DISABLED`, `NONE`, or no word about encryption at all.
    Off,
    /// `ENABLED`, or `KMS`, with this key.
    On(Key),
    /// `ENABLING`.
    Enabling,
    /// `DISABLING`.
    Disabling,
    /// `ENABLING_FAILED` or `DISABLING_FAILED`.
    Failed {
        /// What failed.
        action: Action,
        /// `DeliveryStreamFailureType`, such as `KMS_ACCESS_DENIED`.
        reason: String,
        /// AWS's details, for the log.
        details: String,
    },
    /// A status, a type of encryption or a type of key in a word that this version does not know.
    Unknown(String),
}

/// What a look means for encryption. AWS's words are folded so that every decision is about one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// There is no such stream.
    Missing,
    /// AWS answered with another stream than was meant: other credentials, another account.
    OtherStream,
    /// The stream is being made.
    Creating,
    /// The stream is being deleted.
    Deleting,
    /// The stream does not serve, and will not by itself.
    Broken(String),
    /// A Firehose stream whose source is not `DirectPut` takes no encryption.
    NotEncryptable(String),
    /// Plain text.
    Off,
    /// Encrypted with this key.
    On(Key),
    /// On the way to something else: `ENABLING`, `DISABLING` or `UPDATING`.
    Changing(Option<Action>),
    /// AWS describes the stream, its source or its encryption in words that this version does not know.
    /// Nothing follows from them: neither that the stream can be encrypted nor that it cannot, nor which key
    /// encrypts its records.
    Unrecognized(String),
    /// The last attempt failed; what was in force before it still is.
    Failed {
        /// What failed.
        action: Action,
        /// AWS's reason.
        reason: String,
    },
}

impl Observation {
    /// What `look` means for `stream`; `None` is a stream that AWS does not know.
    #[must_use]
    pub fn of(stream: &StreamArn, look: Option<&Look>) -> Self {
        let Some(look) = look else { return Self::Missing };
        if look.arn != *stream {
            return Self::OtherStream;
        }
        match look.state {
            StreamState::Creating => return Self::Creating,
            StreamState::Deleting => return Self::Deleting,
            StreamState::Broken => return Self::Broken(look.state_word.clone()),
            StreamState::Unrecognized => {
                return Self::Unrecognized(format!("the stream status {:?}", look.state_word));
            }
            StreamState::Active | StreamState::Updating => {}
        }
        match look.source.as_deref() {
            // Firehose showed no source in 2016, when every stream had this one.
            None | Some("DirectPut") => {}
            Some(source) if OTHER_SOURCES.contains(&source) => {
                return Self::NotEncryptable(source.to_owned());
            }
            Some(source) => return Self::Unrecognized(format!("the stream type {source:?}")),
        }
        // While UPDATING, Kinesis was recorded to show the old encryption, and emulators show the new one:
        // neither is what the stream comes to.
        if look.state == StreamState::Updating {
            return Self::Changing(None);
        }
        match &look.encryption {
            Shown::Off => Self::Off,
            Shown::On(key) => Self::On(key.clone()),
            Shown::Enabling => Self::Changing(Some(Action::Start)),
            Shown::Disabling => Self::Changing(Some(Action::Stop)),
            Shown::Failed { action, reason, .. } => Self::Failed { action: *action, reason: reason.clone() },
            Shown::Unknown(word) => Self::Unrecognized(format!("the encryption {word:?}")),
        }
    }

    /// Whether AWS is done with it: what is shown is in force.
    #[must_use]
    pub fn settled(&self) -> Option<Option<&Key>> {
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

    fn look(state: StreamState, encryption: Shown) -> Look {
        Look {
            arn: stream(),
            created: None,
            source: None,
            state,
            state_word: String::new(),
            encryption,
            retention: SignedDuration::from_hours(24),
        }
    }

    #[test]
    fn what_kinesis_shows_while_updating_is_not_believed() {
        let shown = look(StreamState::Updating, Shown::On(Key::AwsOwned));
        assert_eq!(Observation::of(&stream(), Some(&shown)), Observation::Changing(None));
    }

    #[test]
    fn a_stream_of_the_same_name_in_another_account_is_another_stream() {
        let mut shown = look(StreamState::Active, Shown::Off);
        shown.arn = "arn:aws:kinesis:eu-west-1:444455556666:stream/clicks".parse().unwrap();
        assert_eq!(Observation::of(&stream(), Some(&shown)), Observation::OtherStream);
    }

    #[test]
    fn only_direct_put_streams_can_be_encrypted() {
        let mut shown = look(StreamState::Active, Shown::Off);
        shown.source = Some("KinesisStreamAsSource".into());
        assert_eq!(
            Observation::of(&stream(), Some(&shown)),
            Observation::NotEncryptable("KinesisStreamAsSource".into())
        );
        shown.source = Some("DirectPut".into());
        assert_eq!(Observation::of(&stream(), Some(&shown)), Observation::Off);
    }

    #[test]
    fn unknown_words_of_aws_are_unrecognized() {
        let suspended =
            Look { state_word: "SUSPENDED".into(), ..look(StreamState::Unrecognized, Shown::Off) };
        let source = Look { source: Some("New".into()), ..look(StreamState::Active, Shown::Off) };
        let encryption = look(StreamState::Active, Shown::Unknown("ROT13".into()));
        for (shown, words) in [
            (suspended, "the stream status \"SUSPENDED\""),
            (source, "the stream type \"New\""),
            (encryption, "the encryption \"ROT13\""),
        ] {
            let observation = Observation::of(&stream(), Some(&shown));
            assert_eq!(observation, Observation::Unrecognized(words.into()));
            assert_eq!(observation.settled(), None);
        }
    }
}
