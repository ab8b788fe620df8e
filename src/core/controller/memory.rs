//! The memory of the process between two reconciles of a resource.
//!
//! Safety must not depend on this memory: a restart loses all of it. The memory saves Describes (a change of
//! the policies triggers a reconcile of every resource, and Firehose allows 5 Describes a second),
//! lets waits grow, and detects a cache that lags.
//!
//! The files of the controller use these words for earlier state:
//!
//! - `last`: the result of the resource's last reconcile in this process, a [`LastReconcile`].
//! - `remembered`: the responses of AWS in `last`, a [`Remembered`].
//! - `reported`: what a status reports, or the status in `last`, which is the one that this process reported last.
//! - `stored`: an object of the API server, as it was last read or written.
//! - `before`: the status from which the next one is computed, either the stored or the reported one
//!   (`previous_status.rs`).
//! - `known`: a single value of such an earlier state, for example a version or a time, with which a new value is compared.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::KnownEncryption;
use stream_encryption_api::stream_encryption::{Service, StreamEncryption, StreamEncryptionStatus};

use super::annotations::retry_token;
use super::clock::Moment;
use super::event_inbox::EventInbox;
use super::kube_api::ReadFrom;
use crate::model::arn::{KeyArn, KmsKeyId};
use crate::model::aws_error::AwsError;
use crate::model::change_times::ChangeTimes;
use crate::model::key::{KeyMetadata, KeyProblem};
use crate::model::ledger::saturating_add;
use crate::model::observation::StreamDescription;
use crate::model::schedule::RETRY_PAUSE;
use crate::packed::Packed;

/// How long a write without an acknowledgement may still be applied: longer than the API server works on a
/// request.
const MAY_BE_APPLIED: SignedDuration = SignedDuration::from_mins(2);

/// Number of unsent calls that are remembered for a resource.
const MAX_UNSENT_CALLS: usize = 8;

/// What a process remembers: the last reconcile of each resource, and how long AWS's changes took.
#[derive(Default)]
pub struct Memory {
    /// The entries of all resources, by uid. They are boxed, because a table keeps room for more entries than it
    /// holds.
    entries: Mutex<HashMap<String, Box<LastReconcile>>>,
    change_times: Mutex<ChangeTimes>,
    /// The events of AWS that concern resources.
    pub events: EventInbox,
}

/// The result of the last reconcile of a resource.
#[derive(Clone, Debug, Default)]
pub struct LastReconcile {
    /// The responses of AWS; `None` if they must not be used again.
    pub remembered: Option<Remembered>,
    /// When the stream is described again for a retry annotation that has changed too soon after the last
    /// Describe; set by [`Memory::recall_unexpired`].
    pub retry_due: Option<Timestamp>,
    /// The time before which no further test record may be written; `None` if no record is expected. It stays in force if
    /// the stream is described earlier: for an event of AWS, a write of another replica, or after a failed request.
    pub next_record: Option<Timestamp>,
    /// The last call of the ledger that AWS may have applied; `None` if an observation has already shown its effect or its
    /// failure. Boxed, because it is absent for most streams.
    pub known_call: Option<Box<KnownCall>>,
    /// The ids of the last calls that were not sent, each with the cause, if the API server did not acknowledge the reservation or
    /// the outcome. The reservation may be in the ledger without an outcome, or may still arrive there. At most
    /// `MAX_UNSENT_CALLS`.
    pub unsent_calls: Vec<(Box<str>, AwsError)>,
    /// Number of consecutive writes of the ledger that the API server did not acknowledge.
    pub unacknowledged_ledger_writes: u32,
    /// What the last reconcile has learned of the encryption and could not write into the ledger. Boxed, because it is absent
    /// for most streams.
    pub unwritten_encryption: Option<Box<UnwrittenEncryption>>,
    /// The version of the ledger that this process saw last; `None` if none was stored. A description is used again only with
    /// this version.
    pub ledger_version: Option<String>,
    /// The reason reported last, and since when.
    pub reason: Option<(Reason, Timestamp)>,
    /// The last status of this process that the API server acknowledged, or that needed no write. A write that fails does not
    /// change it.
    pub status: Option<Packed<StreamEncryptionStatus>>,
    /// The time of the last write of the status that the API server did not acknowledge. The API server may have applied it,
    /// or may still apply it. `None` once that is excluded: after two minutes, or after a later write was acknowledged,
    /// because the API server then refuses the earlier one, which names an old version.
    pub unacknowledged_write: Option<Timestamp>,
    /// The latest time at which a test record was encrypted, and the identity of its stream (`ResolvedSpec::stream_identity`):
    /// this process has observed it, or has read it from the status. The stored status may not have this time, because the write
    /// of the status may have failed.
    pub verified: Option<(u64, Timestamp)>,
    /// When this process requested the last Describe of the stream that succeeded. The stored status may have an earlier time.
    pub described: Option<Timestamp>,
    /// Number of consecutive reconciles in which a request to Kubernetes failed, or which were given up because of a
    /// conflict.
    pub failures: u32,
    /// Number of consecutive reconciles that could not describe the stream: the Describe failed, or a request to AWS before it. A
    /// refusal counts, too.
    pub undescribed: u32,
    /// When the stream was last described while AWS was changing its encryption, if it is still changing.
    pub changing_at: Option<Timestamp>,
    /// Whether a reconcile was interrupted since: its decision needed a newer description, or what it was
    /// based on was no longer current.
    pub is_interrupted: bool,
    /// Whether this process has reported that the removal of the finalizer leaves the encryption unchanged.
    pub is_removal_reported: bool,
    /// The version of the resource as this process last read or wrote it. A cache with another version lags, or holds a
    /// change by another client.
    pub version: SeenVersion,
}

/// The version of a resource that this process has seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SeenVersion {
    /// This process has seen none.
    #[default]
    Never,
    /// The resource may have a version that this process has not seen. The next reconcile reads it from the API server.
    Unknown,
    /// This process last read or wrote this version.
    Is(String),
}

impl SeenVersion {
    /// Returns the version of an object that was read.
    #[must_use]
    pub fn of(read: &ObjectMeta) -> Self {
        read.resource_version.clone().map_or(Self::Never, Self::Is)
    }
}

/// The last call of a ledger that AWS may have applied, while no observation has shown its effect or its failure, and since
/// when this process has known the call.
#[derive(Clone, Debug)]
pub struct KnownCall {
    /// The id of the call.
    pub id: String,
    /// When this process first read the call, or ended the reconcile that sent it, by the monotonic clock.
    pub since: Duration,
}

/// What a reconcile has learned of the encryption of a stream, and could not write into the ledger.
#[derive(Clone, Debug)]
pub struct UnwrittenEncryption {
    /// The version of the ledger that lacks it.
    pub ledger_version: Option<String>,
    /// When the stream was created.
    pub stream_creation_time: Option<MicroTime>,
    /// The last known encryption; `None` if it is not known.
    pub known: Option<KnownEncryption>,
}

/// What AWS returned about a stream and its keys, for reconciles that need nothing newer.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// The identity of the stream that AWS was asked about (`ResolvedSpec::stream_identity`).
    pub identity: u64,
    /// When the Describe was requested, and its response: `None` if the stream does not exist.
    /// The outer `None`: only the key was described. Describing the stream is not allowed, for example because another
    /// resource manages it.
    pub stream: Option<(Moment, Option<StreamDescription>)>,
    /// The metadata that KMS returned for the desired key, by the requested name. Boxed, because it is absent for keys
    /// of AWS.
    pub key: Option<Box<(KmsKeyId, Option<KeyMetadata>)>>,
    /// The active key, and its problem. Boxed, because it is absent for keys of AWS.
    pub active_key_report: Option<Box<(KeyArn, Option<KeyProblem>)>>,
    /// The time from which a reconcile needs a newer description.
    pub due: Timestamp,
    /// The retry annotation for which the stream was described.
    pub retry: Option<String>,
    /// Whether the resource was being deleted.
    pub deleting: bool,
}

/// What the last reconcile of a resource means for the [`Lane`](crate::work_queue::Lane) of the next one: why it is due, and how
/// urgent that is.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastOutcome {
    /// The reason reported last by this process.
    pub reason: Option<Reason>,
    /// Whether a reconcile was interrupted since.
    pub is_interrupted: bool,
}

impl LastReconcile {
    /// Discards the responses of AWS from this copy of the entry, so that the reconcile describes the stream. Returns whether
    /// there were any. If a retry annotation still waits, the Describe handles it, and its test record may be written at once.
    pub fn require_describe(&mut self) -> bool {
        if self.retry_due.take().is_some() {
            self.next_record = None;
        }
        self.remembered.take().is_some()
    }
}

impl From<&LastReconcile> for LastOutcome {
    fn from(last: &LastReconcile) -> Self {
        Self { reason: last.reason.map(|(reason, _)| reason), is_interrupted: last.is_interrupted }
    }
}

impl Memory {
    /// Returns the entry of a resource without what has expired. An unacknowledged write of the status expires after two
    /// minutes. The responses of AWS expire when they are due, when a user deletes the resource, and when a user changes the
    /// retry annotation. If that change comes too soon after the last Describe, they expire later, at
    /// [`LastReconcile::retry_due`].
    pub fn recall_unexpired(&self, resource: &StreamEncryption, now: Timestamp) -> LastReconcile {
        let mut last = self.recall_with_expired(uid(resource));
        let may_be_applied = |sent: &Timestamp| now < saturating_add(*sent, MAY_BE_APPLIED) && *sent <= now;
        last.unacknowledged_write = last.unacknowledged_write.filter(may_be_applied);
        last.retry_due = None;
        if let Some(remembered) = &last.remembered {
            match remembered.validity(resource, now) {
                Validity::Current => {}
                Validity::UntilRetry(pause_ends) => last.retry_due = Some(pause_ends),
                Validity::Expired => {
                    // A retry that a user requests includes the test record.
                    last.next_record = last.next_record.filter(|_| remembered.retry == retry_token(resource));
                    last.remembered = None;
                }
            }
        }
        last
    }

    /// Returns what the queue needs to know of a resource: whether [`recall_unexpired`](Self::recall_unexpired) would return
    /// responses of AWS, and the outcome.
    pub fn scheduling_state(&self, resource: &StreamEncryption, now: Timestamp) -> (bool, LastOutcome) {
        let entries = self.lock();
        let Some(last) = entries.get(uid(resource)) else { return (false, LastOutcome::default()) };
        let validity = last.remembered.as_ref().map(|remembered| remembered.validity(resource, now));
        (validity.is_some_and(|validity| validity != Validity::Expired), LastOutcome::from(&**last))
    }

    /// Stores the result of a reconcile. What the reconcile itself has recorded stays: that a removal is reported, calls that were
    /// not sent, and the number of unacknowledged writes of the ledger.
    pub fn keep(&self, resource: &StreamEncryption, mut last: LastReconcile) {
        let mut entries = self.lock();
        if let Some(kept) = entries.get_mut(uid(resource)) {
            last.is_removal_reported |= kept.is_removal_reported;
            last.unsent_calls = std::mem::take(&mut kept.unsent_calls);
            last.unacknowledged_ledger_writes = kept.unacknowledged_ledger_writes;
        }
        entries.insert(uid(resource).to_owned(), Box::new(last));
    }

    /// Returns the entry of the resource with this uid, including what has expired. The resource may be invalid.
    #[must_use]
    pub fn recall_with_expired(&self, uid: &str) -> LastReconcile {
        self.lock().get(uid).map(|last| LastReconcile::clone(last)).unwrap_or_default()
    }

    /// Replaces the entry of an invalid resource. The new entry has only the status, the unacknowledged write of it, and the
    /// number of failures.
    pub fn keep_status(
        &self,
        uid: &str,
        status: Option<Packed<StreamEncryptionStatus>>,
        unacknowledged_write: Option<Timestamp>,
        failures: u32,
    ) {
        let last = LastReconcile { status, unacknowledged_write, failures, ..LastReconcile::default() };
        self.lock().insert(uid.to_owned(), Box::new(last));
    }

    /// Records the last call of the resource's ledger. The reconcile does this before it describes the stream, so the record
    /// remains however the reconcile ends.
    pub fn record_known_call(&self, resource: &StreamEncryption, call: Option<Box<KnownCall>>) {
        let mut entries = self.lock();
        match entries.get_mut(uid(resource)) {
            Some(last) => last.known_call = call,
            None if call.is_none() => {}
            None => entries.entry(uid(resource).to_owned()).or_default().known_call = call,
        }
    }

    /// Records a write of the resource's ledger. `is_acknowledged` is `false` if it is not known whether the API server executed the
    /// write; a refusal and a conflict count as acknowledged. Returns the number of consecutive writes without an
    /// acknowledgement.
    pub fn record_ledger_write(&self, resource: &StreamEncryption, is_acknowledged: bool) -> u32 {
        let mut entries = self.lock();
        if is_acknowledged {
            if let Some(last) = entries.get_mut(uid(resource)) {
                last.unacknowledged_ledger_writes = 0;
            }
            return 0;
        }
        let writes = &mut entries.entry(uid(resource).to_owned()).or_default().unacknowledged_ledger_writes;
        *writes = writes.saturating_add(1);
        *writes
    }

    /// Records that the call with this id was not sent, for this cause, and that the ledger may have its reservation without an
    /// outcome.
    pub fn record_unsent_call(&self, resource: &StreamEncryption, id: &str, cause: AwsError) {
        let mut entries = self.lock();
        let unsent = &mut entries.entry(uid(resource).to_owned()).or_default().unsent_calls;
        if unsent.len() == MAX_UNSENT_CALLS {
            unsent.remove(0);
        }
        unsent.push((id.into(), cause));
    }

    /// Returns the source of the next read of a resource: the cache, unless it holds another version than
    /// this process last saw.
    #[must_use]
    pub fn read_from(&self, cached: &StreamEncryption) -> ReadFrom {
        if self.has_seen_another(&cached.metadata) { ReadFrom::ApiServer } else { ReadFrom::Cache }
    }

    /// Records that the state of the resource with this uid is not known: the next reconcile reads it from
    /// the API server.
    pub fn forget_version(&self, uid: &str) {
        self.lock().entry(uid.to_owned()).or_default().version = SeenVersion::Unknown;
    }

    /// Records the version of the resource with this uid after a write of this process.
    pub fn record_version(&self, uid: &str, version: String) {
        self.lock().entry(uid.to_owned()).or_default().version = SeenVersion::Is(version);
    }

    /// Returns whether this process last read or wrote another version of the resource than `read`, or does not know the
    /// present version ([`SeenVersion::Unknown`]). A process that has seen no version of the resource returns `false`.
    #[must_use]
    pub fn has_seen_another(&self, read: &ObjectMeta) -> bool {
        let uid = read.uid.as_deref().unwrap_or_default();
        match self.lock().get(uid).map(|last| &last.version) {
            None | Some(SeenVersion::Never) => false,
            Some(SeenVersion::Unknown) => true,
            Some(SeenVersion::Is(known)) => read.resource_version.as_ref() != Some(known),
        }
    }

    /// Records that a reconcile of the resource was interrupted, and evicts the responses of AWS: the stream must be
    /// described again. The last written status is kept.
    pub fn record_interruption(&self, resource: &StreamEncryption) {
        let mut entries = self.lock();
        let last = entries.entry(uid(resource).to_owned()).or_default();
        last.remembered = None;
        last.is_interrupted = true;
    }

    /// Evicts the responses of AWS for the resource with this uid, whose stream another resource has taken over.
    pub fn forget_description(&self, uid: &str) {
        if let Some(last) = self.lock().get_mut(uid) {
            last.remembered = None;
        }
    }

    /// Records that a reconcile of the resource with this uid has failed because of a request to Kubernetes, or was given
    /// up because of a conflict. Returns the number of such reconciles in succession.
    pub fn count_failure(&self, uid: &str) -> u32 {
        let mut entries = self.lock();
        let last = entries.entry(uid.to_owned()).or_default();
        last.failures = last.failures.saturating_add(1);
        last.failures
    }

    /// Records that the removal of the finalizer is reported for the resource with this uid. Returns whether it is
    /// the first time.
    pub fn report_removal(&self, uid: &str) -> bool {
        let mut entries = self.lock();
        let last = entries.entry(uid.to_owned()).or_default();
        !std::mem::replace(&mut last.is_removal_reported, true)
    }

    /// Returns when this process last described the stream of this resource; `None` if it has not yet.
    #[must_use]
    pub fn described_at(&self, resource: &StreamEncryption) -> Option<Timestamp> {
        self.lock().get(uid(resource)).and_then(|last| last.described)
    }

    /// Returns how long AWS took to change streams of a service.
    #[must_use]
    pub fn change_times(&self) -> ChangeTimes {
        *self.change_times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from a change that is complete, as [`ChangeTimes::learn`] does.
    pub fn learn_change_time(
        &self,
        service: Service,
        in_progress: Option<SignedDuration>,
        complete: SignedDuration,
    ) {
        let mut times = self.change_times.lock().unwrap_or_else(PoisonError::into_inner);
        times.learn(service, in_progress, complete);
    }

    /// Evicts the resource with this uid, which was deleted.
    pub fn evict(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Evicts every resource for whose uid `alive` returns `false`.
    pub fn retain(&self, alive: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| alive(uid));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Box<LastReconcile>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a description can still be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    Current,
    /// It can be used until this time. Then the stream is described for a changed retry annotation.
    UntilRetry(Timestamp),
    Expired,
}

impl Remembered {
    fn validity(&self, resource: &StreamEncryption, now: Timestamp) -> Validity {
        if self.due <= now || self.deleting != is_being_deleted(resource) {
            return Validity::Expired;
        }
        if self.retry == retry_token(resource) {
            return Validity::Current;
        }
        let described = self.stream.as_ref().map_or(Timestamp::MIN, |(at, _)| at.wall);
        let pause_ends = saturating_add(described, RETRY_PAUSE);
        // A clock that was set back must not prolong the pause.
        let is_pause = pause_ends > now && pause_ends <= saturating_add(now, RETRY_PAUSE);
        if is_pause { Validity::UntilRetry(pause_ends) } else { Validity::Expired }
    }
}

fn is_being_deleted(resource: &StreamEncryption) -> bool {
    resource.metadata.deletion_timestamp.is_some()
}

fn uid(resource: &StreamEncryption) -> &str {
    resource.metadata.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
