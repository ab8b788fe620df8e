//! The finalizer: set only while deleting the resource is to turn encryption off, and taken away once it is off.

use super::context::Operator;
use super::records::{RecordError, Records};
use super::resolve::Subject;
use crate::api::FINALIZER;
use crate::api::stream_encryption::StreamEncryption;
use crate::aws::Streams;

/// Whether the resource carries the operator's finalizer.
fn is_held(resource: &StreamEncryption) -> bool {
    resource.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// What became of the finalizer.
pub(super) enum Hold {
    /// Nothing: it is there, or not, as the spec has it.
    AsItShouldBe,
    /// It was set, or taken away.
    Changed,
    /// The resource is being deleted, and nothing is left to do.
    Released,
}

/// Sets or takes away the finalizer as the spec has it.
pub(super) async fn hold<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    subject: &Subject,
) -> Result<Hold, RecordError> {
    let deleting = resource.metadata.deletion_timestamp.is_some();
    let held = is_held(resource);
    let wanted = subject.intent.disable_on_deletion
        && (deleting || subject.permission.disable(&subject.stream).is_ok());
    let set = |present| operator.records.set_finalizer(resource, present);
    match (deleting, held, wanted) {
        (true, true, false) => set(false).await.map(|()| Hold::Released),
        (true, false, _) => Ok(Hold::Released),
        (false, false, true) => set(true).await.map(|()| Hold::Changed),
        (false, true, false) => set(false).await.map(|()| Hold::Changed),
        (_, true, true) | (false, false, false) => Ok(Hold::AsItShouldBe),
    }
}

/// Lets the deleted resource go.
pub(super) async fn release<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
) -> Result<(), RecordError> {
    tracing::info!(namespace = resource.metadata.namespace, name = resource.metadata.name, "released");
    operator.records.set_finalizer(resource, false).await
}
