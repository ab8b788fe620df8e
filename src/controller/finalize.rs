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

/// Sets or takes away the finalizer as the spec has it. True: the resource is being deleted and nothing is left to do.
pub(super) async fn is_released<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    subject: &Subject,
) -> Result<bool, RecordError> {
    let deleting = resource.metadata.deletion_timestamp.is_some();
    let held = is_held(resource);
    let wanted = subject.intent.disable_on_deletion && (deleting || subject.permission.disable().is_ok());
    match (deleting, held, wanted) {
        (true, true, false) => operator.records.set_finalizer(resource, false).await.map(|()| true),
        (true, false, _) => Ok(true),
        (false, false, true) => operator.records.set_finalizer(resource, true).await.map(|()| false),
        (false, true, false) => operator.records.set_finalizer(resource, false).await.map(|()| false),
        (_, true, true) | (false, false, false) => Ok(false),
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
