//! The port to Kubernetes: the reads and writes that one reconcile makes, and nothing else.
//!
//! Reads are live, never from a cache: a decision from a stale read is the commonest way in which controllers go wrong.
//! `crate::kubernetes` implements it on the API server; the simulation implements it in memory.

use std::future::Future;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use crate::api::policy::StreamEncryptionPolicySpec;
use crate::api::stream_encryption::{KeyObjectReference, Service, StreamEncryption, StreamEncryptionStatus};

/// How long after a conflict everything is read and decided anew.
pub const AFTER_CONFLICT: SignedDuration = SignedDuration::from_secs(1);

/// The reason of the event that a deleted resource was let go although the encryption of its stream was to be turned off first. The
/// metrics count it, whether or not Kubernetes takes the event.
pub const ENCRYPTION_LEFT_ON: &str = "EncryptionLeftOn";

/// The reads and writes of a reconcile.
pub trait Records: Send + Sync + 'static {
    /// The resource as it is now.
    fn resource(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<StreamEncryption>, RecordError>> + Send;

    /// A ledger as it is now.
    fn ledger(&self, name: &str) -> impl Future<Output = Result<Option<StreamLedger>, RecordError>> + Send;

    /// Every ledger.
    fn ledgers(&self) -> impl Future<Output = Result<Vec<StreamLedger>, RecordError>> + Send;

    /// Makes a ledger, and so claims its stream; [`RecordError::Conflict`] if there is one.
    fn create_ledger(
        &self,
        name: &str,
        spec: &StreamLedgerSpec,
    ) -> impl Future<Output = Result<StreamLedger, RecordError>> + Send;

    /// Writes a ledger; [`RecordError::Conflict`] if it has changed since it was read.
    fn replace_ledger(
        &self,
        ledger: &StreamLedger,
    ) -> impl Future<Output = Result<StreamLedger, RecordError>> + Send;

    /// Deletes a ledger, unless it has changed since it was read.
    fn delete_ledger(&self, ledger: &StreamLedger) -> impl Future<Output = Result<(), RecordError>> + Send;

    /// Writes the status of the resource whose metadata was read as `read`; [`RecordError::Conflict`] if it has changed since.
    /// One that is gone is no error: nobody is left to read it.
    fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> impl Future<Output = Result<(), RecordError>> + Send;

    /// Publishes an event. It is lost where that fails: events are for people, not for decisions. The loss is reported and counted
    /// on the way.
    fn tell(
        &self,
        resource: &Owner,
        happening: &Happening,
    ) -> impl Future<Output = Result<(), RecordError>> + Send;

    /// Adds or removes the operator's finalizer.
    fn set_finalizer(
        &self,
        resource: &StreamEncryption,
        present: bool,
    ) -> impl Future<Output = Result<(), RecordError>> + Send;

    /// The policies that select this namespace, as they are now.
    fn policies(
        &self,
        namespace: &str,
    ) -> impl Future<Output = Result<Vec<StreamEncryptionPolicySpec>, RecordError>> + Send;

    /// What the object that `key.ref` names says.
    fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> impl Future<Output = Result<ReferencedKey, RecordError>> + Send;
}

/// What the object that `key.ref` names says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferencedKey {
    /// The ARN in its status, not checked.
    Arn(String),
    /// It does not exist, or shows no ARN.
    NotReady,
    /// The cluster does not know its kind.
    KindMissing,
}

/// What a person is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Whether something is wrong.
    pub warning: bool,
    /// The reason, in CamelCase.
    pub reason: String,
    /// What the operator was doing.
    pub action: &'static str,
    /// The words. Kubernetes keeps the first 1024 bytes of them.
    pub note: String,
    /// Where AWS says for the first time that records are encrypted: for how long they were known to be in plain text. This is
    /// counted, not told.
    pub encrypted_after: Option<(Service, SignedDuration)>,
}

/// Why Kubernetes did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It has changed since it was read, or exists already.
    #[error("it has changed since it was read")]
    Conflict,
    /// It is there and cannot be read or written as it should be: its content, its namespace, or the operator's rights.
    #[error("{0}")]
    Unusable(String),
    /// The API server does not answer, or not in time.
    #[error("the API server did not answer: {0}")]
    Unavailable(String),
}
