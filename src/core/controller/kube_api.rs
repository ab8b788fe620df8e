//! The port to Kubernetes: the reads and writes of reconciles and of the cleanup of ledgers, and no others.
//!
//! Objects that a watch caches can be read from two sources, so each of these reads has a `from`, except for the list of
//! ledgers, which may always come from the cache. A cache suffices for an observation and for a status. A step
//! that would be wrong after a stale read, such as a change of the encryption, reads from the API server first: decisions
//! based on stale reads are the most common error in controllers. The deletion of a ledger names the version that was read,
//! so a stale read leads to no deletion. The operator implements the port on the API server; the simulation implements it in
//! memory.

use std::future::Future;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};

/// The reason of the event for a deleted resource whose finalizer was removed although the encryption of its
/// stream was to be disabled first. The metrics count the event, whether or not Kubernetes accepts it.
pub const ENCRYPTION_LEFT_ON: &str = "EncryptionLeftOn";

/// The reason of the event for a finalizer that could not be added or removed.
pub const FINALIZER_UPDATE_FAILED: &str = "FinalizerUpdateFailed";

/// The source of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// The cache of a watch, which may lag; the API server, if the watch has failed recently.
    Cache,
    /// The API server, which returns the current state.
    ApiServer,
}

/// The reads and writes of reconciles and of the cleanup of ledgers.
pub trait KubeApi: Send + Sync + 'static {
    /// Returns the resource; `None` if it does not exist.
    fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> impl Future<Output = Result<Option<StreamEncryption>, KubeError>> + Send;

    /// Returns a ledger; `None` if it does not exist.
    fn ledger(
        &self,
        name: &str,
        from: ReadFrom,
    ) -> impl Future<Output = Result<Option<StreamLedger>, KubeError>> + Send;

    /// Returns a page of the ledgers whose owners are in a watched namespace, from the cache or the API server. `after` is
    /// the [`next`](LedgerPage::next) of the page before; `None` returns the first page.
    fn ledgers(&self, after: Option<&str>) -> impl Future<Output = Result<LedgerPage, KubeError>> + Send;

    /// Creates a ledger, which claims its stream. Returns [`KubeError::Conflict`] if the ledger already
    /// exists.
    fn create_ledger(
        &self,
        name: &str,
        spec: &StreamLedgerSpec,
    ) -> impl Future<Output = Result<StreamLedger, KubeError>> + Send;

    /// Replaces a ledger. Returns [`KubeError::Conflict`] if the ledger has changed since it was read.
    fn replace_ledger(
        &self,
        ledger: &StreamLedger,
    ) -> impl Future<Output = Result<StreamLedger, KubeError>> + Send;

    /// Deletes a ledger, unless it has changed since it was read.
    fn delete_ledger(&self, ledger: &StreamLedger) -> impl Future<Output = Result<(), KubeError>> + Send;

    /// Writes the status of the resource whose metadata was read as `read`. Returns [`KubeError::Conflict`]
    /// if the resource has changed since. Returns the resource's new version; `None` if the resource was
    /// deleted, which is not an error, because its status has no reader.
    fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> impl Future<Output = Result<Option<String>, KubeError>> + Send;

    /// Publishes an event. If this fails, the event is lost: events inform users, and no decision depends on
    /// them. Implementations log the loss.
    fn publish_event(
        &self,
        resource: &Owner,
        event: &ReconcileEvent,
    ) -> impl Future<Output = Result<(), KubeError>> + Send;

    /// Adds or removes the operator's finalizer of the resource whose metadata was read as `read`. Returns
    /// [`KubeError::Conflict`] if the resource has changed since, and otherwise its new version; `None` if the
    /// resource no longer exists.
    fn set_finalizer(
        &self,
        read: &ObjectMeta,
        present: bool,
    ) -> impl Future<Output = Result<Option<String>, KubeError>> + Send;

    /// Returns the policies that select this namespace.
    fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> impl Future<Output = Result<Vec<StreamEncryptionPolicySpec>, KubeError>> + Send;

    /// Returns the state of the object that `key.objectRef` names.
    fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> impl Future<Output = Result<ReferencedKey, KubeError>> + Send;
}

/// A page of the ledgers.
#[derive(Debug, Default)]
pub struct LedgerPage {
    /// The ledgers of the page, which may be none.
    pub ledgers: Vec<StreamLedger>,
    /// A token for the next page; `None` if this is the last one.
    pub next: Option<String>,
}

/// The state of the object that `key.objectRef` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferencedKey {
    /// The ARN in its status, not checked.
    Arn(String),
    /// The object does not exist, or its status has no ARN.
    NotReady,
    /// The object's kind is not installed in the cluster.
    KindMissing,
}

/// An event for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconcileEvent {
    /// Whether the event reports a problem.
    pub warning: bool,
    /// The reason, in CamelCase.
    pub reason: String,
    /// The action of the operator.
    pub action: &'static str,
    /// The message. Kubernetes keeps its first 1024 bytes.
    pub note: String,
}

/// The cause of a failed request to Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeError {
    /// The object has changed since it was read, or already exists.
    #[error("it has changed since it was read")]
    Conflict,
    /// The API server refuses the request, because of the object's content, its namespace or the operator's permissions. Or
    /// the object cannot be parsed. Or something that the request requires does not exist, such as the definition of the kind.
    #[error("{0}")]
    Rejected(String),
    /// The API server does not respond, or not in time.
    #[error("the API server is unavailable: {0}")]
    Unavailable(String),
}
