//! One stream as AWS describes it: how it is encrypted, or why it cannot be taken over. Pure.
//!
//! A stream is a line of the progress file, so it can be written as JSON.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stream_encryption_api::ledger::Action;
use stream_encryption_core::model::arn::{KeyArn, StreamArn};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::observation::{Observation, StreamDescription};

use super::owners::Owner;

/// A stream that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundStream {
    /// The ARN.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub arn: StreamArn,
    /// When AWS described it.
    pub described_time: Timestamp,
    /// How its records are encrypted.
    pub encryption: FoundEncryption,
    /// The tools that manage it, according to its tags; `None` if the tags could not be read.
    pub owners: Option<Vec<Owner>>,
}

/// How the records of a stream are encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundEncryption {
    /// Plaintext.
    Plaintext,
    /// Encrypted with `AWS_OWNED_CMK`.
    AwsOwned,
    /// Encrypted with a customer managed key.
    Customer(#[serde(serialize_with = "as_text", deserialize_with = "from_text")] KeyArn),
    /// Encrypted with a key that could not be identified.
    UnknownKey(String),
    /// The stream cannot be encrypted, because of its source.
    NotEncryptable(String),
    /// Not known now: the stream or its encryption is changing.
    Changing(String),
    /// Not known: the stream or a change of its encryption has failed, or is in a state that this version does not
    /// know.
    Unsettled(String),
}

impl FoundStream {
    /// Returns the stream that AWS described so at this time; `None` if it does not exist any more.
    #[must_use]
    pub fn of(
        arn: &StreamArn,
        description: Option<&StreamDescription>,
        owners: Option<Vec<Owner>>,
        described_time: Timestamp,
    ) -> Option<Self> {
        let changing = |why: &str| FoundEncryption::Changing(why.to_owned());
        let unsettled = |why: &str| FoundEncryption::Unsettled(why.to_owned());
        let encryption = match Observation::of(arn, description) {
            Observation::Missing => return None,
            Observation::OtherStream => unsettled("AWS described a stream of another account"),
            Observation::Creating => changing("the stream is being created"),
            Observation::Deleting => changing("the stream is being deleted"),
            Observation::NotOperational(status) => {
                unsettled(&format!("the stream is not operational ({status})"))
            }
            Observation::NotEncryptable(source) => FoundEncryption::NotEncryptable(source),
            Observation::Off => FoundEncryption::Plaintext,
            Observation::On(Key::AwsOwned) => FoundEncryption::AwsOwned,
            Observation::On(Key::Customer(key)) => FoundEncryption::Customer(key),
            Observation::On(Key::Unresolved(name)) => FoundEncryption::UnknownKey(name),
            Observation::InProgress(None) => changing("the stream is being changed"),
            Observation::InProgress(Some(Action::Start)) => changing("encryption is being enabled"),
            Observation::InProgress(Some(Action::Stop)) => changing("encryption is being disabled"),
            Observation::Failed { action: Action::Start, reason } => unsettled(&format!(
                "enabling encryption failed ({reason}), and AWS does not report the active key"
            )),
            Observation::Failed { action: Action::Stop, reason } => unsettled(&format!(
                "disabling encryption failed ({reason}), and AWS does not report the active key"
            )),
            Observation::Unrecognized(what) => unsettled(&format!("this version does not know {what}")),
        };
        Some(Self { arn: arn.clone(), described_time, encryption, owners })
    }
}

impl FoundEncryption {
    /// Returns the state in one word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self::Plaintext => "Plaintext",
            Self::AwsOwned | Self::Customer(_) | Self::UnknownKey(_) => "Encrypted",
            Self::NotEncryptable(_) => "NotEncryptable",
            Self::Changing(_) | Self::Unsettled(_) => "Unknown",
        }
    }

    /// Returns whether AWS reports how the records are encrypted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Changing(_) | Self::Unsettled(_))
    }

    /// Returns whether a change is in progress, so that a description soon after may report the encryption.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        matches!(self, Self::Changing(_))
    }

    /// Returns the active key, as a spec or AWS names it.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        match self {
            Self::AwsOwned => Some("AWS_OWNED_CMK".to_owned()),
            Self::Customer(key) => Some(key.to_string()),
            Self::UnknownKey(name) => Some(name.clone()),
            Self::Plaintext | Self::NotEncryptable(_) | Self::Changing(_) | Self::Unsettled(_) => None,
        }
    }
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use stream_encryption_core::model::observation::{ReportedEncryption, StreamState};

    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn orders() -> StreamArn {
        "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".parse().unwrap()
    }

    fn found(state: StreamState, encryption: ReportedEncryption, source: Option<&str>) -> FoundEncryption {
        let description = StreamDescription {
            arn: orders(),
            created: None,
            source: source.map(ToOwned::to_owned),
            state,
            raw_status: "CREATING_FAILED".to_owned(),
            encryption,
            retention: SignedDuration::from_hours(24),
        };
        FoundStream::of(&orders(), Some(&description), None, Timestamp::UNIX_EPOCH).unwrap().encryption
    }

    /// Asserts that the encryption is not known, for a reason with these words.
    fn assert_unknown(encryption: &FoundEncryption, is_changing: bool, words: &str) {
        let (FoundEncryption::Changing(why) | FoundEncryption::Unsettled(why)) = encryption else {
            panic!("{words}: it is settled")
        };
        assert!(why.contains(words), "{why}");
        assert_eq!((encryption.is_settled(), encryption.is_changing()), (false, is_changing), "{words}");
    }

    #[test]
    fn stream_that_is_gone_is_not_found() {
        assert_eq!(FoundStream::of(&orders(), None, None, Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn active_key_is_known_only_in_a_settled_state() {
        let active = |encryption| found(StreamState::Active, encryption, Some("DirectPut"));
        let customer = Key::Customer(KEY.parse().unwrap());
        assert_eq!(active(ReportedEncryption::Off), FoundEncryption::Plaintext);
        assert_eq!(active(ReportedEncryption::On(Key::AwsOwned)), FoundEncryption::AwsOwned);
        assert_eq!(active(ReportedEncryption::On(customer)).key().as_deref(), Some(KEY));
        let unresolved = ReportedEncryption::On(Key::Unresolved("alias/x".to_owned()));
        assert_eq!(active(unresolved), FoundEncryption::UnknownKey("alias/x".to_owned()));
        let failed = |action| ReportedEncryption::Failed {
            action,
            reason: "KMS_ACCESS_DENIED".to_owned(),
            details: String::new(),
        };
        for (encryption, is_changing, words) in [
            (ReportedEncryption::Enabling, true, "being enabled"),
            (ReportedEncryption::Disabling, true, "being disabled"),
            (failed(Action::Start), false, "enabling encryption failed (KMS_ACCESS_DENIED)"),
            (failed(Action::Stop), false, "disabling encryption failed (KMS_ACCESS_DENIED)"),
            (
                ReportedEncryption::Unknown("ROT13".to_owned()),
                false,
                "does not know the encryption \"ROT13\"",
            ),
        ] {
            assert_unknown(&active(encryption), is_changing, words);
        }
    }

    #[test]
    fn stream_that_is_not_active_is_unsettled() {
        for (state, is_changing, words) in [
            (StreamState::Creating, true, "being created"),
            (StreamState::Deleting, true, "being deleted"),
            (StreamState::Updating, true, "being changed"),
            (StreamState::NotOperational, false, "CREATING_FAILED"),
        ] {
            assert_unknown(&found(state, ReportedEncryption::Off, None), is_changing, words);
        }
    }

    #[test]
    fn only_direct_put_is_encryptable() {
        let found = found(StreamState::Active, ReportedEncryption::Off, Some("MSKAsSource"));
        assert_eq!(found, FoundEncryption::NotEncryptable("MSKAsSource".to_owned()));
        assert_eq!((found.state(), found.key()), ("NotEncryptable", None));
    }

    #[test]
    fn every_encryption_survives_json() {
        let key = FoundEncryption::Customer(KEY.parse().unwrap());
        let changing = FoundEncryption::Changing("the stream is being created".to_owned());
        for encryption in [FoundEncryption::Plaintext, FoundEncryption::AwsOwned, key, changing] {
            let (described_time, owners) = (Timestamp::UNIX_EPOCH, Some(vec![Owner::Cdk]));
            let stream = FoundStream { arn: orders(), described_time, encryption, owners };
            let text = serde_json::to_string(&stream).unwrap();
            assert_eq!(serde_json::from_str::<FoundStream>(&text).unwrap(), stream, "{text}");
        }
        assert!(
            serde_json::from_str::<FoundStream>(
                r#"{"arn":"x","described_time":"1970-01-01T00:00:00Z","encryption":"Plaintext","owners":null}"#
            )
            .is_err()
        );
    }
}
