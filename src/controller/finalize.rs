//! The finalizer: set only while deleting the resource is to turn encryption off, and taken away once it is off.
//!
//! What needs nothing of AWS does not wait for it: where nothing is to be turned off, the finalizer goes whatever AWS answers.

use tracing::{info, warn};

use super::book::owner;
use super::context::Operator;
use super::records::{ENCRYPTION_LEFT_ON, Happening, RecordError, Records};
use super::resolve::Subject;
use crate::api::FINALIZER;
use crate::api::stream_encryption::{DeletionPolicy, StreamEncryption};
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

/// Takes away the finalizer where the spec wants none, and lets a deleted resource go that nothing holds. Asks AWS nothing.
pub(super) async fn unless_wanted<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
) -> Result<Hold, RecordError> {
    let deleting = resource.metadata.deletion_timestamp.is_some();
    let wanted = resource.spec.deletion_policy == DeletionPolicy::Disable;
    match (deleting, is_held(resource), wanted) {
        (true, true, false) => release(operator, resource).await.map(|()| Hold::Released),
        (true, false, _) => Ok(Hold::Released),
        (false, true, false) => operator.records.set_finalizer(resource, false).await.map(|()| Hold::Changed),
        (_, true, true) | (false, false, _) => Ok(Hold::AsItShouldBe),
    }
}

/// Sets the finalizer where the policies allow what it is for, and takes it away where they do not. One that is being deleted is
/// left to the decision.
pub(super) async fn as_permitted<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    subject: &Subject,
) -> Result<Hold, RecordError> {
    if subject.intent.deleting {
        return Ok(Hold::AsItShouldBe);
    }
    let wanted = subject.intent.disable_on_deletion && subject.permission.disable(&subject.stream).is_ok();
    if wanted == is_held(resource) {
        return Ok(Hold::AsItShouldBe);
    }
    operator.records.set_finalizer(resource, wanted).await.map(|()| Hold::Changed)
}

/// Lets the deleted resource go.
pub(super) async fn release<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
) -> Result<(), RecordError> {
    info!(namespace = resource.metadata.namespace, name = resource.metadata.name, "released");
    operator.records.set_finalizer(resource, false).await
}

/// Lets a deleted resource go whose stream was to be turned off and is not. Where its namespace is being deleted too, the event is
/// refused, so the log and a metric have it as well.
pub(super) async fn release_unchanged<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    resource: &StreamEncryption,
    why: &str,
) -> Result<(), RecordError> {
    release(operator, resource).await?;
    let me = owner(resource);
    let stream = &resource.spec.stream;
    let stream = stream.arn.as_ref().or(stream.name.as_ref());
    warn!(
        namespace = me.namespace,
        name = me.name,
        stream,
        why,
        "the resource is deleted with deletionPolicy: Disable, and the encryption of its stream is left as it is"
    );
    let note = format!("{why} The resource is deleted, and the encryption of its stream is left as it is.");
    let happening = Happening {
        warning: true,
        reason: ENCRYPTION_LEFT_ON.to_owned(),
        action: "Release",
        note,
        encrypted_after: None,
    };
    // A loss is counted and in the log.
    operator.records.tell(&me, &happening).await.ok();
    Ok(())
}
