//! Publishes a status, and an event on a transition. Writes to Kubernetes only what changed.
//!
//! A status that is already stored is not written again, so in the steady state a Describe costs no write. A
//! status that this process wrote earlier and that another replica has changed since is not repeated either,
//! unless this process has just described the stream: two replicas with different memories would overwrite
//! each other indefinitely. A status that was written by any other client is corrected at once, because that
//! client does not respond with another write.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use stream_encryption_api::condition::{
    ConditionStatus, ConditionType, EventType, Reason, find, ready_conditions,
};
use stream_encryption_api::stream_encryption::{Service, StreamEncryptionStatus};
use stream_encryption_api::{RETRY_ANNOTATION, has_finalizer};
use tracing::{info, warn};

use super::context::Context;
use super::finalize;
use super::kube_api::{KubeApi, KubeError, ReconcileEvent};
use super::ledger_store::resource_identity_of;
use super::memory::{LastReconcile, SeenVersion};
use super::previous_status::{changed_by_another, previous_status};
use super::stream_api::StreamApi;
use crate::model::schedule;
use crate::packed::Packed;

/// The result of a status update.
pub(super) struct StatusWrite {
    /// The status that this process reported last.
    pub(super) status: Option<Packed<StreamEncryptionStatus>>,
    /// When a write was sent that was not acknowledged, and that may still be applied.
    pub(super) unacknowledged_write: Option<Timestamp>,
    /// The version of the resource after the write, or as it was read.
    pub(super) version: SeenVersion,
    /// When to read the resource again at the latest, if another writer was first or an earlier write may still be
    /// applied.
    pub(super) reread_by: Option<Timestamp>,
    /// Whether another writer was first.
    pub(super) is_conflict: bool,
    /// The error, if the write failed for another reason than a conflict.
    pub(super) failed: Option<KubeError>,
    /// The number of consecutive failures and conflicts. A conflict of this write is included. `failed` is not: the
    /// dispatcher adds it with `Memory::count_failure`.
    pub(super) failures: u32,
}

/// Writes the status that `make` computes from the previous one. Does not write if the `stored` status is equal. Does not
/// write either if all of these are true, because another replica has then written what differs:
///
/// - This reconcile has not described the stream (`described`).
/// - No client other than a replica has changed the stored status since a replica wrote it.
/// - No write of this process is unacknowledged.
/// - `make` leaves the status unchanged that this process reported last.
///
/// A write that fails does not end the reconcile: what AWS has returned is kept in the memory, or each attempt would
/// describe the stream again and write another test record.
pub(super) async fn update_status<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
    stored: Option<&StreamEncryptionStatus>,
    last: &LastReconcile,
    described: bool,
    make: impl Fn(&StreamEncryptionStatus) -> StreamEncryptionStatus,
) -> StatusWrite {
    let is_foreign = changed_by_another(read);
    let before = previous_status(read, stored, last).map(Cow::into_owned).unwrap_or_default();
    let status = make(&before);
    // Whether this reconcile would change the status that this process reported last. If it would not, another replica has
    // written whatever differs in the stored status.
    let has_news =
        || last.status.as_ref().map(Packed::read).is_none_or(|reported| reported != make(&reported));
    let may_write = described || last.unacknowledged_write.is_some() || is_foreign || has_news();
    let mut unacknowledged_write = last.unacknowledged_write;
    let mut version = SeenVersion::of(read);
    // The API server may have applied the unacknowledged write, and its transition has no event. So the next event compares
    // with the last status of which users got an event.
    let last_announced = match last.unacknowledged_write {
        Some(_) => Cow::Owned(last.status.as_ref().map(Packed::read).unwrap_or_default()),
        None => Cow::Borrowed(&before),
    };
    if stored == Some(&status) && last.unacknowledged_write.is_some() && *last_announced != status {
        publish_transition(context, read, &last_announced, &status).await;
    }
    if stored != Some(&status) && may_write {
        match context.kube.write_status(read, &status).await {
            Ok(written) => {
                unacknowledged_write = None;
                // If the resource is gone, the cache must not be believed.
                version = written.map_or(SeenVersion::Unknown, SeenVersion::Is);
                publish_transition(context, read, &last_announced, &status).await;
            }
            Err(error) => {
                let now = context.clock.now();
                let conflicts = last.failures.saturating_add(1);
                let after_conflict = now + schedule::after_conflict(uid(read), conflicts);
                let is_conflict = error == KubeError::Conflict;
                let (unacknowledged_write, version, reread_by, failed, failures) = match error {
                    KubeError::Conflict => {
                        (unacknowledged_write, SeenVersion::Unknown, Some(after_conflict), None, conflicts)
                    }
                    // A write that was refused was not applied.
                    KubeError::Rejected(_) => {
                        (unacknowledged_write, version, None, Some(error), last.failures)
                    }
                    KubeError::Unavailable(_) => {
                        (Some(now), SeenVersion::Unknown, None, Some(error), last.failures)
                    }
                };
                let status = last.status.clone();
                return StatusWrite {
                    status,
                    unacknowledged_write,
                    version,
                    reread_by,
                    is_conflict,
                    failed,
                    failures,
                };
            }
        }
    }
    // A status that is equal to the last one shares its memory.
    let packed = match &last.status {
        Some(reported) => Packed::of_similar(reported, &status),
        None => Packed::of(&status),
    };
    let status = Some(packed);
    // An earlier write without an acknowledgement may still change the status.
    let (version, reread_by) = match unacknowledged_write {
        Some(_) => (SeenVersion::Unknown, Some(context.clock.now() + schedule::REREAD)),
        None => (version, None),
    };
    StatusWrite {
        status,
        unacknowledged_write,
        version,
        reread_by,
        is_conflict: false,
        failed: None,
        failures: 0,
    }
}

/// Reports a resource whose content does not match its schema, or removes its finalizer if it is being deleted:
/// encryption cannot be disabled without the spec, and nobody would apply the resource again. The status of such a
/// resource cannot be parsed either, so the last written status is kept in memory: the next reconcile must not lead to
/// another write.
///
/// The metadata is that of the cache, because the API server's response cannot be parsed. A conflict is therefore a
/// failure, which the caller counts: the next attempt succeeds only once the cache is current.
pub async fn report_invalid_object<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
    why: &str,
) -> Result<(), KubeError> {
    if read.deletion_timestamp.is_some() {
        let why = format!("Invalid resource: {why}.");
        return if has_finalizer(read) {
            finalize::release_leaving_encryption(context, read, None, &why).await
        } else {
            Ok(())
        };
    }
    let words = format!(
        "Invalid resource: {why}. The stored resource does not match the schema of this operator version: correct it and apply it again."
    );
    let last = context.memory.recall_with_expired(uid(read));
    let now = context.clock.now();
    let reported = last.status.as_ref().map(Packed::read);
    // The stored status is known only if it is the one that was written last.
    let stored =
        reported.as_ref().filter(|_| last.unacknowledged_write.is_none() && !changed_by_another(read));
    // Transition times are taken from the status in memory, even if a later write was not acknowledged.
    let before = reported.as_ref().map_or(&[][..], |reported| &reported.conditions);
    let make = |_: &StreamEncryptionStatus| StreamEncryptionStatus {
        observed_generation: read.generation,
        conditions: ready_conditions(before, Reason::SpecInvalid, &words, read.generation, now),
        ..StreamEncryptionStatus::default()
    };
    let written = update_status(context, read, stored, &last, false, make).await;
    let StatusWrite { status, unacknowledged_write, is_conflict, failed, failures, .. } = written;
    // The caller counts this conflict, because it is returned as an error.
    let failures = if is_conflict { last.failures } else { failures };
    context.memory.keep_status(uid(read), status, unacknowledged_write, failures);
    if let Some(error) = failed {
        return Err(error);
    }
    if is_conflict { Err(KubeError::Conflict) } else { Ok(()) }
}

fn uid(read: &ObjectMeta) -> &str {
    read.uid.as_deref().unwrap_or_default()
}

/// Logs and counts a transition, and publishes an event for it.
async fn publish_transition<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
    before: &StreamEncryptionStatus,
    status: &StreamEncryptionStatus,
) {
    if let Some((service, after)) = encrypted_after(before, status, context.clock.now()) {
        context.metrics.encrypted(service, after);
    }
    if let Some((before, now)) = replaced_stream(before, status) {
        let ObjectMeta { namespace, name, .. } = read;
        warn!(
            namespace,
            name, before, now, "the name stands for another stream now, so the earlier one is not managed"
        );
    }
    if has_no_event(&status.conditions) && !has_no_event(&before.conditions) {
        return;
    }
    let event = transition(&before.conditions, &status.conditions);
    let Some(event) = event.or_else(|| retried_without_change(before, status)) else { return };
    let me = resource_identity_of(read);
    info!(namespace = me.namespace, name = me.name, reason = event.reason, note = event.note, "status");
    context.publish_event(&me, &event).await;
}

/// Returns the event for a retry that did not change the reason of `Ready`; `None` if no new retry was handled. A retry
/// that changed it is reported by the event for that change.
fn retried_without_change(
    before: &StreamEncryptionStatus,
    status: &StreamEncryptionStatus,
) -> Option<ReconcileEvent> {
    let retry = status.last_handled_retry.as_ref();
    let retry = retry.filter(|retry| before.last_handled_retry.as_ref() != Some(*retry))?;
    let ready = find(&status.conditions, ConditionType::Ready).map_or("", |ready| &ready.message);
    let note = format!(
        "The retry {retry:?} of the annotation {RETRY_ANNOTATION} was handled, and the reason is the same: {ready}"
    );
    Some(ReconcileEvent { warning: false, reason: "RetryHandled".to_owned(), action: "Retry", note })
}

/// Returns the service, and the time for which records of this stream were in plaintext, if that time has just ended.
fn encrypted_after(
    before: &StreamEncryptionStatus,
    after: &StreamEncryptionStatus,
    now: Timestamp,
) -> Option<(Service, SignedDuration)> {
    let since = before.plaintext_since_time.as_ref().filter(|_| after.active_key.is_some())?;
    let service = after.stream.as_ref()?.service;
    replaced_stream(before, after).is_none().then(|| (service, now.duration_since(since.0)))
}

/// Returns the ARNs of the two streams if the status is about another stream than before.
fn replaced_stream<'a>(
    before: &'a StreamEncryptionStatus,
    after: &'a StreamEncryptionStatus,
) -> Option<(&'a str, &'a str)> {
    let arn_of = |status: &'a StreamEncryptionStatus| status.stream.as_ref()?.arn.as_deref();
    let (before, after) = (arn_of(before)?, arn_of(after)?);
    (before != after).then_some((before, after))
}

/// Returns whether the reason of `Ready` is one that publishes no event (`Settling`).
fn has_no_event(conditions: &[Condition]) -> bool {
    find(conditions, ConditionType::Ready).is_some_and(|ready| event_type(ready) == EventType::Absent)
}

fn event_type(condition: &Condition) -> EventType {
    condition.reason.parse().map_or(EventType::Warning, Reason::event_type)
}

/// Returns the event for a change of `Ready`, or for a key that is no longer usable.
fn transition(before: &[Condition], after: &[Condition]) -> Option<ReconcileEvent> {
    let changed = |kind| {
        let new = find(after, kind)?;
        let same = find(before, kind).is_some_and(|old| old.status == new.status && old.reason == new.reason);
        (!same).then_some(new)
    };
    let key = changed(ConditionType::KeyUsable)
        .filter(|condition| condition.status == ConditionStatus::False.as_str());
    let condition = changed(ConditionType::Ready).or(key)?;
    let warning = event_type(condition) == EventType::Warning;
    let note = condition.message.clone();
    Some(ReconcileEvent { warning, reason: condition.reason.clone(), action: "Reconcile", note })
}
