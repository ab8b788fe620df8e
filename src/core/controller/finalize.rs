//! The finalizer: set only if the deletion of the resource is to disable encryption, and removed once encryption
//! is disabled.
//!
//! A step that needs no response from AWS does not wait for AWS: with `deletionPolicy: Retain`, the finalizer is removed
//! regardless of AWS's responses. A finalizer that cannot be changed must never keep a stream from being encrypted.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::has_finalizer;
use stream_encryption_api::stream_encryption::{DeletionPolicy, StreamEncryption};
use tracing::{info, warn};

use super::context::Context;
use super::interruption::Interruption;
use super::kube_api::{ENCRYPTION_LEFT_ON, FINALIZER_UPDATE_FAILED, KubeApi, KubeError, ReconcileEvent};
use super::ledger_store::resource_identity_of;
use super::recheck::ensure_policies_unchanged;
use super::resolve::ResolvedSpec;
use super::state::ReconcileState;
use super::stream_api::StreamApi;
use crate::model::decision::Decision;
use crate::model::message;
use crate::model::permission::Denial;

/// Removes the finalizer if the spec requires none. Ends the reconcile in two cases: it removed the finalizer, or the
/// resource is being deleted and has no finalizer of the operator. Returns the error if the removal from a resource that
/// is not being deleted has failed. Sends no request to AWS.
pub(super) async fn remove_unwanted_finalizer<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
) -> Result<Option<KubeError>, Interruption> {
    let has_finalizer = has_finalizer(&resource.metadata);
    if is_deleted_without_disabling(resource) {
        if has_finalizer {
            release(context, &resource.metadata).await?;
        }
        return Err(end_as_released(context));
    }
    if has_finalizer && resource.spec.deletion_policy == DeletionPolicy::Retain {
        return change_finalizer(context, &resource.metadata, false).await;
    }
    Ok(None)
}

/// Returns whether the resource is being deleted and encryption need not be disabled before: the spec does not
/// require it, or the finalizer has been removed. The finalizer of another client may keep such a resource for a long time,
/// and its status no longer changes.
#[must_use]
pub fn is_deleted_without_disabling(resource: &StreamEncryption) -> bool {
    let is_wanted = resource.spec.deletion_policy == DeletionPolicy::Disable;
    resource.metadata.deletion_timestamp.is_some() && !(is_wanted && has_finalizer(&resource.metadata))
}

/// If the spec requires the finalizer: adds it while the policies allow disabling encryption, and removes it while they do
/// not. While the policies name different roles for the stream, the finalizer stays as it is: one of the policies may allow
/// disabling encryption. Ends the reconcile if it changed anything; returns the error if the change has failed. The finalizer
/// of a resource that is being deleted is left to the decision.
pub(super) async fn sync_finalizer<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    spec: &ResolvedSpec,
) -> Result<Option<KubeError>, Interruption> {
    if spec.desired.deleting || !spec.desired.disable_on_deletion {
        return Ok(None);
    }
    let disable = spec.permission.check_disable(&spec.stream);
    if disable == Err(Denial::Roles) {
        return Ok(None);
    }
    let (wanted, is_present) = (disable.is_ok(), has_finalizer(&resource.metadata));
    if wanted && is_present {
        return Ok(None);
    }
    // The policies in the cache may be outdated. A denial is checked even if there is no finalizer to remove: without the
    // finalizer, a deletion would leave the stream encrypted. A finalizer that only the cache allows would be removed by the next
    // reconcile that reads the API server, then added again, and so on.
    ensure_policies_unchanged(context, resource, &spec.permission).await?;
    if wanted == is_present {
        return Ok(None);
    }
    change_finalizer(context, &resource.metadata, wanted).await
}

/// Adds or removes the finalizer of a resource that is not being deleted. Returns [`Interruption::Ended`] if that succeeded, and
/// [`Interruption::Outdated`] after a conflict. Publishes any other error and returns it as `Some(error)`, so that the reconcile
/// goes on: an admission policy or a webhook may fail only this change, while the API server accepts the writes of the ledger and
/// the status.
async fn change_finalizer<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
    present: bool,
) -> Result<Option<KubeError>, Interruption> {
    match set_finalizer(context, read, present).await {
        // The resource has another version now, which the next reconcile handles.
        Ok(_) => Err(Interruption::Ended(context.clock.now())),
        Err(KubeError::Conflict) => Err(Interruption::Outdated),
        Err(error) => {
            report_failure(context, read, present, &error).await;
            Ok(Some(error))
        }
    }
}

/// Logs and publishes the error with which the finalizer could not be added or removed.
async fn report_failure<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
    present: bool,
    error: &KubeError,
) {
    warn!(namespace = read.namespace, name = read.name, %error, present, "failed to change the finalizer");
    let note = if present {
        format!(
            "The finalizer cannot be added: {error}. If the resource is deleted now, the encryption of its stream stays on."
        )
    } else {
        format!(
            "The finalizer cannot be removed: {error}. Until it is removed, a deletion of the resource does not complete."
        )
    };
    let reason = FINALIZER_UPDATE_FAILED.to_owned();
    let event = ReconcileEvent { warning: true, reason, action: "UpdateFinalizer", note };
    context.publish_event(&resource_identity_of(read), &event).await;
}

/// Removes the finalizer as decided: encryption is disabled, the policies do not allow the stream, or there is nothing to
/// disable (the stream is missing, or another resource manages it). The removal ends the reconcile: it gives the resource a
/// new version, so a status write would name the old one and be refused, and `Memory::keep` would replace the new version
/// with the old one. A conflict ends the reconcile, too. If the removal fails otherwise, the reconcile goes on to its report, and
/// fails after it.
pub(super) async fn remove_decided_finalizer<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    state: &mut ReconcileState,
    decision: &Decision,
) -> Result<(), Interruption> {
    ensure_policies_unchanged(context, resource, &state.spec.permission).await?;
    state.ledger.ensure_unchanged(&context.kube).await?;
    let released = if decision.reason == Reason::NotPermitted {
        let why = message::ready(&state.input(), decision);
        release_leaving_encryption(context, &resource.metadata, stream_of(resource), &why).await
    } else {
        release(context, &resource.metadata).await.map(drop)
    };
    match released {
        Ok(()) => Err(end_as_released(context)),
        Err(KubeError::Conflict) => Err(Interruption::Outdated),
        Err(error) => {
            state.finalizer_failure = Some(error);
            Ok(())
        }
    }
}

/// Removes the finalizer of a deleted resource whose spec is invalid. Encryption cannot be disabled for a stream
/// that cannot be resolved, and the stream of a resource is immutable.
pub(super) async fn release_unresolved<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &StreamEncryption,
    why: &str,
) -> Result<Timestamp, Interruption> {
    let why = format!("Invalid spec: {why}.");
    release_leaving_encryption(context, &resource.metadata, stream_of(resource), &why).await?;
    Ok(context.clock.now() + context.config.drift_interval)
}

/// Returns the end of the reconcile of a resource that is being deleted and for which no step is left.
fn end_as_released<A, R>(context: &Context<A, R>) -> Interruption {
    Interruption::Ended(context.clock.now() + context.config.drift_interval)
}

/// Returns the ARN or the name of the stream that the spec names.
fn stream_of(resource: &StreamEncryption) -> Option<&str> {
    let stream = &resource.spec.stream;
    stream.arn.as_deref().or(stream.name.as_deref())
}

/// Removes the finalizer of the deleted resource. Returns whether the resource still existed.
async fn release<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
) -> Result<bool, KubeError> {
    let released = set_finalizer(context, read, false).await;
    match &released {
        Ok(true) => info!(namespace = read.namespace, name = read.name, "finalizer removed"),
        Ok(false) | Err(KubeError::Conflict) => {}
        Err(error) => report_failure(context, read, false, error).await,
    }
    released
}

/// Adds or removes the finalizer. Returns whether the resource still existed.
async fn set_finalizer<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
    present: bool,
) -> Result<bool, KubeError> {
    let version = context.kube.set_finalizer(read, present).await?;
    let (existed, uid) = (version.is_some(), &resource_identity_of(read).uid);
    match version {
        Some(version) => context.memory.record_version(uid, version),
        None => context.memory.forget_version(uid),
    }
    Ok(existed)
}

/// Removes the finalizer of a deleted resource whose stream stays encrypted against its `deletionPolicy`, and
/// reports that once. If the namespace is being deleted, too, the API server refuses the event, so the log and a
/// metric report the removal, too. `stream` is the ARN or the name of the stream, if the spec can be read.
pub(super) async fn release_leaving_encryption<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
    stream: Option<&str>,
    why: &str,
) -> Result<(), KubeError> {
    // If this process has seen another version than `read`, then `read` may be from a cache that lags, and the
    // resource may be gone because this process has removed the finalizer and reported that.
    let may_lag = context.memory.has_seen_another(read);
    let released = release(context, read).await;
    match &released {
        Ok(false) if may_lag => return Ok(()),
        // Without a response, the finalizer may be removed. No reconcile would follow to report that: the
        // resource does not exist then.
        Ok(_) | Err(KubeError::Unavailable(_)) => {}
        Err(KubeError::Conflict | KubeError::Rejected(_)) => return released.map(drop),
    }
    let me = resource_identity_of(read);
    if !context.memory.report_removal(&me.uid) {
        return released.map(drop);
    }
    warn!(
        namespace = me.namespace,
        name = me.name,
        stream,
        why,
        "deleted with deletionPolicy: Disable, leaving the encryption unchanged"
    );
    context.metrics.encryption_left_on();
    let note = match &released {
        Ok(_) => format!("{why} The resource is deleted, and the encryption of its stream is unchanged."),
        Err(_) => format!(
            "{why} The API server did not confirm the removal of the finalizer. If it removed the finalizer, the resource is deleted, and the encryption of its stream is unchanged."
        ),
    };
    let event =
        ReconcileEvent { warning: true, reason: ENCRYPTION_LEFT_ON.to_owned(), action: "Release", note };
    context.publish_event(&me, &event).await;
    released.map(drop)
}
