//! A stream of either service as a timeline of snapshots: past, present and planned.
//!
//! A Start or Stop writes both the change and its known end into the timeline, so that no state changes by
//! itself: every reader passes the time. This module must never know the wire format or the limits;
//! `firehose` and `kinesis` do.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::request::Service;

/// The key of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamKey {
    /// Firehose's `AWS_OWNED_CMK`.
    AwsOwned,
    /// A KMS key: its ARN, and the identifier in the request, which Kinesis may echo.
    Kms {
        /// The key's ARN.
        arn: String,
        /// The identifier in the request.
        given: String,
    },
}

impl StreamKey {
    /// Creates a key that is identified by its ARN.
    pub fn arn(arn: &str) -> StreamKey {
        StreamKey::Kms { arn: arn.to_owned(), given: arn.to_owned() }
    }

    /// Returns the ARN; `None` for `AWS_OWNED_CMK`.
    pub fn key_arn(&self) -> Option<&str> {
        match self {
            StreamKey::AwsOwned => None,
            StreamKey::Kms { arn, .. } => Some(arn),
        }
    }
}

/// The source of a Firehose stream's records. Only `DirectPut` streams can be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum Source {
    DirectPut,
    KinesisStreamAsSource,
    MSKAsSource,
    DatabaseAsSource,
}

/// `DeliveryStreamStatus` and `StreamStatus`; only Kinesis has UPDATING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum StreamStatus {
    Creating,
    CreatingFailed,
    Active,
    Updating,
    Deleting,
    /// Not documented; one user reported it for Firehose. No request leads to it.
    Suspended,
    /// The stream no longer exists; never shown.
    Gone,
}

/// `StreamModeDetails.StreamMode` of Kinesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum StreamMode {
    Provisioned,
    OnDemand,
}

/// Firehose's `DeliveryStreamEncryptionStatus`. It is also used for Kinesis, which never shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "AWS's own words")]
pub enum EncryptionStatus {
    /// Start was never called.
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

/// How Describe shows a Firehose stream that was never encrypted. All forms were observed. A stream with another
/// source than `DirectPut` never shows an encryption block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NeverEncryptedShows {
    /// Neither an encryption block nor `DeliveryStreamType`, as in 2016.
    NeitherBlockNorType,
    /// No encryption block at all.
    NoBlock,
    /// `{"Status": "DISABLED"}`.
    Disabled,
}

/// The reason why a Firehose stream is in `CREATING_FAILED`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreationFailure {
    /// `FailureDescription.Type`. A text, because AWS has sent a type that its SDKs do not know.
    #[serde(rename = "type")]
    pub failure_type: String,
    /// `FailureDescription.Details`.
    pub details: String,
}

/// The complete state of a stream at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshot {
    /// The stream's own status.
    pub status: StreamStatus,
    pub encryption: EncryptionStatus,
    /// The key of the most recent Start, or the key of the encryption that was stopped.
    pub requested_key: Option<StreamKey>,
    /// The key that actually encrypts records; `None` for plaintext.
    pub active_key: Option<StreamKey>,
    /// The failure of the most recent attempt.
    pub failure: Option<FailureType>,
    /// The capacity mode; Kinesis only.
    pub mode: StreamMode,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot {
            status: StreamStatus::Active,
            encryption: EncryptionStatus::NeverSet,
            requested_key: None,
            active_key: None,
            failure: None,
            mode: StreamMode::Provisioned,
        }
    }
}

impl Snapshot {
    /// Returns an ENABLED state with this key.
    pub fn enabled(key: StreamKey) -> Snapshot {
        Snapshot {
            encryption: EncryptionStatus::Enabled,
            requested_key: Some(key.clone()),
            active_key: Some(key),
            ..Snapshot::default()
        }
    }

    /// Returns an `ENABLING_FAILED` state: `asked` failed with this failure, and `active_key` still encrypts
    /// records.
    pub fn enabling_failed(
        requested_key: StreamKey,
        active_key: Option<StreamKey>,
        failure: FailureType,
    ) -> Snapshot {
        Snapshot {
            encryption: EncryptionStatus::EnablingFailed,
            requested_key: Some(requested_key),
            active_key,
            failure: Some(failure),
            ..Snapshot::default()
        }
    }
}

/// A stream to plant, in any state. If the account or region is empty, the default of
/// [`super::settings::Settings`] is used.
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
    /// The source; Firehose only.
    pub source: Source,
    /// `CreateTimestamp`; absent: a time long ago.
    pub created: Option<Timestamp>,
    pub state: Snapshot,
    /// The tags, by key.
    pub tags: BTreeMap<String, String>,
    /// How Describe shows that it was never encrypted; Firehose only.
    pub never_encrypted_shows: NeverEncryptedShows,
    /// The reason why it could not be created; Firehose only, with the status `CREATING_FAILED`.
    pub creation_failure: Option<CreationFailure>,
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
            tags: BTreeMap::new(),
            never_encrypted_shows: NeverEncryptedShows::Disabled,
            creation_failure: None,
        }
    }
}

/// The identity of a stream: the parts of its ARN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId {
    /// Firehose or Kinesis.
    pub service: Service,
    /// The owner's account.
    pub account: String,
    pub region: String,
    pub name: String,
}

impl StreamId {
    /// Returns the stream's ARN.
    pub fn arn(&self) -> String {
        let kind = if self.service == Service::Firehose { "deliverystream" } else { "stream" };
        format!("arn:aws:{}:{}:{}:{kind}/{}", self.service, self.region, self.account, self.name)
    }
}

/// How a change of encryption ends; decided when the request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Succeeds { after: SignedDuration },
    Fails { after: SignedDuration, failure: FailureType },
    Never,
}

/// A stream with its past and its planned future.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) source: Source,
    pub(crate) created: Timestamp,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) never_encrypted_shows: NeverEncryptedShows,
    pub(crate) creation_failure: Option<CreationFailure>,
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
            tags: BTreeMap::new(),
            never_encrypted_shows: NeverEncryptedShows::Disabled,
            creation_failure: None,
            line: vec![(since, state)],
        }
    }

    /// Returns the state at a time; `None` before the stream was created and after it was deleted.
    pub(crate) fn at(&self, time: Timestamp) -> Option<&Snapshot> {
        let known = self.line.partition_point(|(since, _)| *since <= time);
        let (_, snapshot) = self.line.get(known.checked_sub(1)?)?;
        (snapshot.status != StreamStatus::Gone).then_some(snapshot)
    }

    /// Returns the time since which the state at this time holds.
    pub(crate) fn since(&self, time: Timestamp) -> Timestamp {
        let known = self.line.partition_point(|(since, _)| *since <= time);
        known.checked_sub(1).and_then(|at| self.line.get(at)).map_or(self.created, |(since, _)| *since)
    }

    /// Returns the final planned state.
    pub(crate) fn last(&self) -> &Snapshot {
        &self.line.last().expect("a time line starts with one snapshot").1
    }

    /// Sets the state from this time on; discards the plans after this time.
    pub(crate) fn write(&mut self, time: Timestamp, state: Snapshot) {
        self.line.retain(|(since, _)| *since < time);
        self.plan(time, state);
    }

    /// Appends a state; its time must be later than all others.
    pub(crate) fn plan(&mut self, time: Timestamp, state: Snapshot) {
        self.line.push((time, state));
    }

    /// Records a Start (`asked`) or Stop (`None`): the change now, and its end.
    pub(crate) fn change(&mut self, now: Timestamp, requested_key: Option<StreamKey>, end: End) {
        let before = self.at(now).cloned().unwrap_or_default();
        let starting = requested_key.is_some();
        let busy =
            if self.id.service == Service::Kinesis { StreamStatus::Updating } else { StreamStatus::Active };
        let changing = Snapshot {
            status: busy,
            encryption: if starting { EncryptionStatus::Enabling } else { EncryptionStatus::Disabling },
            requested_key: if starting { requested_key.clone() } else { before.active_key.clone() },
            active_key: before.active_key.clone(),
            failure: None,
            mode: before.mode,
        };
        self.write(now, changing.clone());
        let rest = Snapshot { status: StreamStatus::Active, ..changing };
        match end {
            End::Succeeds { after } => {
                let encryption =
                    if starting { EncryptionStatus::Enabled } else { EncryptionStatus::Disabled };
                self.plan(later(now, after), Snapshot { encryption, active_key: requested_key, ..rest });
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

/// Adds a duration to a time; saturates instead of failing.
pub(crate) fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}
