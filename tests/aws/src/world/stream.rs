//! A stream of either service as a time line of snapshots: what was, is and will be.
//!
//! A Start or Stop writes both the change and its known end into the time line, so that no state ever moves by itself: who looks
//! passes the time. It must never know the wire form or the limits; `firehose` and `kinesis` do.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::request::Service;

/// The key of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamKey {
    /// Firehose's `AWS_OWNED_CMK`.
    AwsOwned,
    /// A KMS key: its ARN, and the text that named it (Kinesis may echo that).
    Kms {
        /// The key's ARN.
        arn: String,
        /// The identifier of the call.
        given: String,
    },
}

impl StreamKey {
    /// A key named by its ARN.
    #[must_use]
    pub fn arn(arn: &str) -> StreamKey {
        StreamKey::Kms { arn: arn.to_owned(), given: arn.to_owned() }
    }

    /// The ARN; none for `AWS_OWNED_CMK`.
    #[must_use]
    pub fn key_arn(&self) -> Option<&str> {
        match self {
            StreamKey::AwsOwned => None,
            StreamKey::Kms { arn, .. } => Some(arn),
        }
    }
}

/// Where a Firehose stream's records come from. Only `DirectPut` takes encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum Source {
    DirectPut,
    KinesisStreamAsSource,
    MSKAsSource,
    DatabaseAsSource,
}

/// `DeliveryStreamStatus` and `StreamStatus`; UPDATING is Kinesis's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum StreamStatus {
    Creating,
    CreatingFailed,
    Active,
    Updating,
    Deleting,
    /// Not documented: one user reported it of Firehose. No call leads there.
    Suspended,
    /// No more there; never shown.
    Gone,
}

/// Firehose's `DeliveryStreamEncryptionStatus`. For Kinesis the same, though it never shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum EncryptionStatus {
    /// Nobody ever called Start.
    NeverSet,
    Enabling,
    Enabled,
    EnablingFailed,
    Disabling,
    Disabled,
    DisablingFailed,
}

/// `FailureDescription.Type` of Firehose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum FailureType {
    RetireKmsGrantFailed,
    CreateKmsGrantFailed,
    KmsAccessDenied,
    DisabledKmsKey,
    InvalidKmsKey,
    KmsKeyNotFound,
    KmsOptInRequired,
    VpcEndpointServiceNameNotFound,
    VpcInterfaceEndpointServiceAccessDenied,
    CreateEniFailed,
    DeleteEniFailed,
    SubnetNotFound,
    SecurityGroupNotFound,
    EniAccessDenied,
    SubnetAccessDenied,
    SecurityGroupAccessDenied,
    UnknownError,
}

/// How Describe shows a Firehose stream that was never encrypted. Both were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NeverEncryptedShows {
    /// No encryption block at all.
    NoBlock,
    /// `{"Status": "DISABLED"}`.
    Disabled,
}

/// One state of a stream, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshot {
    /// The stream's own status.
    pub status: StreamStatus,
    /// Where its encryption stands.
    pub encryption: EncryptionStatus,
    /// The key of the most recent Start, or that of the encryption that was stopped.
    pub asked: Option<StreamKey>,
    /// What really encrypts records; none: plain text.
    pub in_force: Option<StreamKey>,
    /// Why the most recent attempt failed.
    pub failure: Option<FailureType>,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot {
            status: StreamStatus::Active,
            encryption: EncryptionStatus::NeverSet,
            asked: None,
            in_force: None,
            failure: None,
        }
    }
}

impl Snapshot {
    /// ENABLED with this key.
    #[must_use]
    pub fn enabled(key: StreamKey) -> Snapshot {
        Snapshot {
            encryption: EncryptionStatus::Enabled,
            asked: Some(key.clone()),
            in_force: Some(key),
            ..Snapshot::default()
        }
    }

    /// `ENABLING_FAILED`: `asked` failed for this reason, `in_force` still encrypts.
    #[must_use]
    pub fn enabling_failed(asked: StreamKey, in_force: Option<StreamKey>, failure: FailureType) -> Snapshot {
        Snapshot {
            encryption: EncryptionStatus::EnablingFailed,
            asked: Some(asked),
            in_force,
            failure: Some(failure),
            ..Snapshot::default()
        }
    }
}

/// A stream to plant, in any state. Empty account or region: the defaults of [`super::settings::Settings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlantedStream {
    /// Firehose or Kinesis.
    pub service: Service,
    /// Empty: the default account.
    pub account: String,
    /// Empty: the default region.
    pub region: String,
    /// The stream's name.
    pub name: String,
    /// Of Firehose streams.
    pub source: Source,
    /// `CreateTimestamp`; absent: long ago.
    pub created: Option<Timestamp>,
    /// Its state.
    pub state: Snapshot,
    /// How it shows that it was never encrypted (Firehose).
    pub never_encrypted_shows: NeverEncryptedShows,
}

impl Default for PlantedStream {
    fn default() -> PlantedStream {
        PlantedStream {
            service: Service::Firehose,
            account: String::new(),
            region: String::new(),
            name: "orders".to_owned(),
            source: Source::DirectPut,
            created: None,
            state: Snapshot::default(),
            never_encrypted_shows: NeverEncryptedShows::Disabled,
        }
    }
}

/// Which stream: the parts of its ARN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId {
    /// Firehose or Kinesis.
    pub service: Service,
    /// The owner's account.
    pub account: String,
    /// The region.
    pub region: String,
    /// The name.
    pub name: String,
}

impl StreamId {
    /// The stream's ARN.
    #[must_use]
    pub fn arn(&self) -> String {
        let kind = if self.service == Service::Firehose { "deliverystream" } else { "stream" };
        format!("arn:aws:{}:{}:{}:{kind}/{}", self.service, self.region, self.account, self.name)
    }
}

/// How a change of encryption will end: it was decided when the call arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Succeeds { after: SignedDuration },
    Fails { after: SignedDuration, failure: FailureType },
    Never,
}

/// A stream with its past and its known future.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) source: Source,
    pub(crate) created: Timestamp,
    pub(crate) never_encrypted_shows: NeverEncryptedShows,
    /// Sorted by time.
    line: Vec<(Timestamp, Snapshot)>,
}

impl Stream {
    pub(crate) fn new(
        id: StreamId,
        source: Source,
        created: Timestamp,
        since: Timestamp,
        state: Snapshot,
    ) -> Stream {
        Stream {
            id,
            source,
            created,
            never_encrypted_shows: NeverEncryptedShows::Disabled,
            line: vec![(since, state)],
        }
    }

    /// The state at a time; none before the stream was made and after it was deleted.
    pub(crate) fn at(&self, time: Timestamp) -> Option<&Snapshot> {
        let known = self.line.partition_point(|(since, _)| *since <= time);
        let (_, snapshot) = self.line.get(known.checked_sub(1)?)?;
        (snapshot.status != StreamStatus::Gone).then_some(snapshot)
    }

    /// Since when the state at this time holds.
    pub(crate) fn since(&self, time: Timestamp) -> Timestamp {
        let known = self.line.partition_point(|(since, _)| *since <= time);
        known.checked_sub(1).and_then(|at| self.line.get(at)).map_or(self.created, |(since, _)| *since)
    }

    /// The state that the stream comes to rest in.
    pub(crate) fn last(&self) -> &Snapshot {
        &self.line.last().expect("a time line starts with one snapshot").1
    }

    /// Writes a state from this time on; what was planned after it no longer happens.
    pub(crate) fn write(&mut self, time: Timestamp, state: Snapshot) {
        self.line.retain(|(since, _)| *since < time);
        self.plan(time, state);
    }

    /// Adds a state later than all others.
    pub(crate) fn plan(&mut self, time: Timestamp, state: Snapshot) {
        self.line.push((time, state));
    }

    /// Start (`asked`) or Stop (none): the change now and its end.
    pub(crate) fn change(&mut self, now: Timestamp, asked: Option<StreamKey>, end: End) {
        let before = self.at(now).cloned().unwrap_or_default();
        let starting = asked.is_some();
        let busy =
            if self.id.service == Service::Kinesis { StreamStatus::Updating } else { StreamStatus::Active };
        let changing = Snapshot {
            status: busy,
            encryption: if starting { EncryptionStatus::Enabling } else { EncryptionStatus::Disabling },
            asked: if starting { asked.clone() } else { before.in_force.clone() },
            in_force: before.in_force.clone(),
            failure: None,
        };
        self.write(now, changing.clone());
        let rest = Snapshot { status: StreamStatus::Active, ..changing };
        match end {
            End::Succeeds { after } => {
                let encryption =
                    if starting { EncryptionStatus::Enabled } else { EncryptionStatus::Disabled };
                self.plan(later(now, after), Snapshot { encryption, in_force: asked, ..rest });
            }
            End::Fails { after, failure } => {
                let encryption = if starting {
                    EncryptionStatus::EnablingFailed
                } else {
                    EncryptionStatus::DisablingFailed
                };
                self.plan(later(now, after), Snapshot { encryption, failure: Some(failure), ..rest });
            }
            End::Never => {}
        }
    }
}

/// All streams of all accounts and regions.
pub(crate) type Streams = BTreeMap<StreamId, Stream>;

/// A time plus a duration, held at the end of time instead of failing.
pub(crate) fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}
