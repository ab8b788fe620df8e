//! The finalizer: set only while deleting the resource is to disable encryption, and removed once encryption
//! is disabled.
//!
//! A step that needs no response from AWS does not wait for AWS: if encryption is not to be disabled, the
//! finalizer is removed regardless of AWS's responses.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::FINALIZER;
use stream_encryption_api::stream_encryption::{DeletionPolicy, StreamEncryption};
use tracing::{info, warn};

use super::context::Context;
use super::interruption::Interruption;
use super::kube_api::{ENCRYPTION_LEFT_ON, KubeApi, KubeError, ReconcileEvent};
use super::ledger_store::owner_of;
use super::recheck::ensure_policies_unchanged;
use super::resolve::ResolvedSpec;
use crate::controller::stream_api::StreamApi;

/// Returns whether the resource has the operator's finalizer.
pub(super) fn has_finalizer(read: &ObjectMeta) -> bool {
    read.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// The result of a finalizer step.
pub(super) enum FinalizerState {
    /// No change: the finalizer is present or absent, as the spec requires.
    UpToDate,
    /// The finalizer was added or removed.
    Changed,
    /// The resource is being deleted, and no step is left.
    Released,
}

/// Removes the finalizer if the spec requires none. If the resource is being deleted and has no finalizer of
/// the operator afterwards, the result is [`FinalizerState::Released`]. Sends no request to AWS.
pub(super) async fn remove_unwanted_finalizer<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    resource: &StreamEncryption,
) -> Result<FinalizerState, KubeError> {
    let deleting = resource.metadata.deletion_timestamp.is_some();
    let wanted = resource.spec.deletion_policy == DeletionPolicy::Disable;
    match (deleting, has_finalizer(&resource.metadata), wanted) {
        (true, true, false) => release(operator, &resource.metadata).await.map(|_| FinalizerState::Released),
        (true, false, _) => Ok(FinalizerState::Released),
        (false, true, false) => {
            set_finalizer(operator, &resource.metadata, false).await.map(|_| FinalizerState::Changed)
        }
        (_, true, true) | (false, false, _) => Ok(FinalizerState::UpToDate),
    }
}

/// Adds the finalizer if the spec requires it and the policies allow disabling encryption, otherwise removes
/// it. The finalizer of a resource that is being deleted is left to the decision.
pub(super) async fn sync_finalizer<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    resource: &StreamEncryption,
    subject: &ResolvedSpec,
) -> Result<FinalizerState, Interruption> {
    if subject.desired.deleting {
        return Ok(FinalizerState::UpToDate);
    }
    let wanted =
        subject.desired.disable_on_deletion && subject.permission.check_disable(&subject.stream).is_ok();
    if subject.desired.disable_on_deletion && !wanted {
        // Without the finalizer, a deletion leaves the stream encrypted.
        ensure_policies_unchanged(operator, resource, &subject.permission).await?;
    }
    if wanted == has_finalizer(&resource.metadata) {
        return Ok(FinalizerState::UpToDate);
    }
    set_finalizer(operator, &resource.metadata, wanted).await?;
    Ok(FinalizerState::Changed)
}

/// Returns the ARN or the name of the stream that the spec names.
pub(super) fn stream_of(resource: &StreamEncryption) -> Option<&str> {
    let stream = &resource.spec.stream;
    stream.arn.as_deref().or(stream.name.as_deref())
}

/// Removes the finalizer of the deleted resource. Returns whether the resource still existed.
pub(super) async fn release<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    read: &ObjectMeta,
) -> Result<bool, KubeError> {
    let existed = set_finalizer(operator, read, false).await?;
    if existed {
        info!(namespace = read.namespace, name = read.name, "finalizer removed");
    }
    Ok(existed)
}

/// Adds or removes the finalizer. Returns whether the resource still existed.
async fn set_finalizer<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    read: &ObjectMeta,
    present: bool,
) -> Result<bool, KubeError> {
    let version = operator.records.set_finalizer(read, present).await?;
    let (existed, uid) = (version.is_some(), &owner_of(read).uid);
    if existed {
        operator.memory.written(uid, version);
    } else {
        operator.memory.read_again(uid);
    }
    Ok(existed)
}

/// Removes the finalizer of a deleted resource whose stream stays encrypted against its `deletionPolicy`. If
/// the namespace is being deleted, too, the API server refuses the event, so the log and a metric report the
/// removal, too. `stream` is the ARN or the name of the stream, if the spec can be read.
pub(super) async fn release_unchanged<A: StreamApi, R: KubeApi>(
    operator: &Context<A, R>,
    read: &ObjectMeta,
    stream: Option<&str>,
    why: &str,
) -> Result<(), KubeError> {
    // A cache may still hold a resource whose removal was reported. A removal without an acknowledgement was
    // not.
    let is_reported = operator.memory.has_seen_another(read);
    if !release(operator, read).await? && is_reported {
        return Ok(());
    }
    let me = owner_of(read);
    warn!(
        namespace = me.namespace,
        name = me.name,
        stream,
        why,
        "deleted with deletionPolicy: Disable, leaving the stream encrypted"
    );
    operator.metrics.encryption_left_on();
    let note = format!("{why} The resource is deleted, and the encryption of its stream is unchanged.");
    let event =
        ReconcileEvent { warning: true, reason: ENCRYPTION_LEFT_ON.to_owned(), action: "Release", note };
    // The loss of an event is counted and logged.
    operator.records.publish_event(&me, &event).await.ok();
    Ok(())
}
