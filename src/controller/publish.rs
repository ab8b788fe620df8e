//! Publishes a status, and an event on a transition. Writes to Kubernetes only what changed.
//!
//! A status that is already there is not written again: in the steady state a look costs no write. Nor is one that this process has
//! written before and another replica has changed since, unless it has just looked: two memories would write against each other for
//! ever. What somebody wrote who is no replica is put right at once: nobody answers that with a write of their own.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry, ObjectMeta};
use tracing::info;

use super::book::owner_of;
use super::context::Operator;
use super::memory::Visit;
use super::records::{AFTER_CONFLICT, Happening, RecordError, Records};
use crate::api::condition::{ConditionType, Reason, Truth, find, standing};
use crate::api::stream_encryption::{Service, StreamEncryptionStatus};
use crate::api::{FIELD_MANAGER, RETRY_ANNOTATION};
use crate::aws::Streams;

/// What became of a status.
pub(super) struct Said {
    /// What this process said last.
    pub(super) status: Option<StreamEncryptionStatus>,
    /// Whether what it tried to say since went unheard.
    pub(super) unheard: bool,
    /// When to try again, if somebody else wrote first.
    pub(super) again: Option<Timestamp>,
}

/// Says the status that `make` makes of `standing`, which is what stands there, where it is news. To repeat what this process said last
/// is none, unless it has just `looked`, or what stands there is not a replica's word: somebody else wrote it, or it may be what
/// this process said in between and nobody answered.
pub(super) async fn say<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    read: &ObjectMeta,
    standing: Option<&StreamEncryptionStatus>,
    visit: &Visit,
    looked: bool,
    make: impl Fn(&StreamEncryptionStatus) -> StreamEncryptionStatus,
) -> Result<Said, RecordError> {
    let last = visit.status.as_ref();
    let is_foreign = changed_by_another(read);
    let before = before(read, standing, visit).cloned().unwrap_or_default();
    let status = make(&before);
    let may_repeat = looked || visit.unheard || is_foreign || last.is_none_or(|last| *last != make(last));
    let mut unheard = visit.unheard;
    if standing != Some(&status) && may_repeat {
        match operator.records.write_status(read, &status).await {
            Ok(()) => {
                unheard = false;
                tell(operator, read, &before, &status).await;
            }
            // The next visit says it, of what is true then; a new look would only give cause to write again.
            Err(RecordError::Conflict) => {
                let again = operator.clock.now() + AFTER_CONFLICT;
                return Ok(Said { status: last.cloned(), unheard, again: Some(again) });
            }
            Err(error) => {
                operator.memory.unheard(uid(read));
                return Err(error);
            }
        }
    }
    Ok(Said { status: Some(status), unheard, again: None })
}

/// What was said before: what stands there, or, where somebody else has written, what this process remembers of it.
pub(super) fn before<'a>(
    read: &ObjectMeta,
    standing: Option<&'a StreamEncryptionStatus>,
    visit: &'a Visit,
) -> Option<&'a StreamEncryptionStatus> {
    let own = visit.status.as_ref().filter(|_| changed_by_another(read) && !visit.unheard);
    own.or(standing)
}

/// Reports a resource whose content is not what its schema says. Its own status cannot be read either, so what was last
/// written is remembered: each write brings the resource back, and must not lead to another.
pub async fn malformed<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    read: &ObjectMeta,
    why: &str,
) -> Result<(), RecordError> {
    let words = format!("The resource cannot be read: {why}. Write it anew.");
    let visit = operator.memory.visit_of(uid(read));
    let now = operator.clock.now();
    // What stands there is known only if it is what was written last.
    let stands = visit.status.as_ref().filter(|_| !visit.unheard && !changed_by_another(read));
    // A condition keeps its time, whatever became of the write.
    let known = visit.status.as_ref().map_or(&[][..], |last| &last.conditions);
    let make = |_: &StreamEncryptionStatus| StreamEncryptionStatus {
        observed_generation: read.generation,
        conditions: standing(known, Reason::SpecInvalid, &words, read.generation, now),
        ..StreamEncryptionStatus::default()
    };
    let said = say(operator, read, stands, &visit, false, make).await?;
    operator.memory.keep_status(uid(read), said.status, said.unheard);
    if said.again.is_some() { Err(RecordError::Conflict) } else { Ok(()) }
}

/// Whether the status was changed by somebody else since the operator last wrote it, as the API server recorded it: a restore, or a
/// person. All replicas write under one name. The times are whole seconds, so in the second of a change of both it counts as
/// the other's; the operator's next write is later.
fn changed_by_another(read: &ObjectMeta) -> bool {
    let entries = || {
        let entries = read.managed_fields.iter().flatten();
        entries.filter(|entry| entry.subresource.as_deref() == Some("status"))
    };
    let latest = |own: bool| {
        let is_own = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(FIELD_MANAGER);
        entries().filter(|entry| is_own(entry) == own).filter_map(|entry| Some(entry.time.as_ref()?.0)).max()
    };
    match (latest(true), latest(false)) {
        (_, None) => false,
        // The operator has not written yet, or the record of it was lost.
        (None, Some(_)) => true,
        (Some(own), Some(other)) => other >= own,
    }
}

fn uid(read: &ObjectMeta) -> &str {
    read.uid.as_deref().unwrap_or_default()
}

/// Tells of a transition.
async fn tell<A: Streams, R: Records>(
    operator: &Operator<A, R>,
    read: &ObjectMeta,
    before: &StreamEncryptionStatus,
    status: &StreamEncryptionStatus,
) {
    let happening = transition(&before.conditions, &status.conditions);
    let Some(mut happening) = happening.or_else(|| retried_in_vain(before, status)) else { return };
    happening.encrypted_after = encrypted_after(before, status, operator.clock.now());
    let me = owner_of(read);
    info!(
        namespace = me.namespace,
        name = me.name,
        reason = happening.reason,
        note = happening.note,
        "status"
    );
    // A loss is counted and in the log.
    operator.records.tell(&me, &happening).await.ok();
}

/// What a person is told whose retry changed nothing: a retry that did is told by what it changed.
fn retried_in_vain(before: &StreamEncryptionStatus, status: &StreamEncryptionStatus) -> Option<Happening> {
    let retry = status.last_handled_retry.as_ref();
    let retry = retry.filter(|retry| before.last_handled_retry.as_ref() != Some(*retry))?;
    let ready = find(&status.conditions, ConditionType::Ready).map_or("", |ready| &ready.message);
    let note = format!("The retry {retry:?} of the annotation {RETRY_ANNOTATION} changed nothing: {ready}");
    Some(Happening {
        warning: false,
        reason: "RetryHandled".to_owned(),
        action: "Retry",
        note,
        encrypted_after: None,
    })
}

/// For how long records were in plain text, if that has just ended.
fn encrypted_after(
    before: &StreamEncryptionStatus,
    after: &StreamEncryptionStatus,
    now: Timestamp,
) -> Option<(Service, SignedDuration)> {
    let since = before.plain_text_since.as_ref().filter(|_| after.key_in_force.is_some())?;
    Some((after.stream.as_ref()?.service, now.duration_since(since.0)))
}

/// What a person is told when `Ready` changes its reason, or the key stops being usable.
fn transition(before: &[Condition], after: &[Condition]) -> Option<Happening> {
    let changed = |kind| {
        let new = find(after, kind)?;
        let same = find(before, kind).is_some_and(|old| old.status == new.status && old.reason == new.reason);
        (!same).then_some(new)
    };
    let key = changed(ConditionType::KeyUsable).filter(|condition| condition.status == Truth::False.as_str());
    let condition = changed(ConditionType::Ready).or(key)?;
    let reason = condition.reason.parse::<Reason>().ok();
    let at_ease = [
        Reason::Settling,
        Reason::Verifying,
        Reason::Enabling,
        Reason::Disabling,
        Reason::StreamUpdating,
        Reason::StreamCreating,
        Reason::Suspended,
    ];
    let warning =
        condition.status != Truth::True.as_str() && !reason.is_some_and(|reason| at_ease.contains(&reason));
    let note = condition.message.clone();
    Some(Happening {
        warning,
        reason: condition.reason.clone(),
        action: "Reconcile",
        note,
        encrypted_after: None,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn entry(manager: &str, subresource: Option<&str>, second: i64) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            subresource: subresource.map(ToOwned::to_owned),
            time: Some(Time(Timestamp::from_second(second).unwrap())),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn status_is_changed_by_another_if_its_latest_manager_is() {
        let own = |second| entry(FIELD_MANAGER, Some("status"), second);
        let other = |second| entry("velero-server", Some("status"), second);
        for (entries, changed) in [
            (vec![], false),
            (vec![own(5)], false),
            (vec![other(5)], true),
            (vec![own(5), other(4)], false),
            (vec![own(5), other(5)], true),
            (vec![own(5), other(6)], true),
            (vec![own(5), other(4), other(6)], true),
            (vec![own(5), own(7), other(6)], false),
            (vec![own(5), entry("kubectl", None, 6)], false),
        ] {
            let read = ObjectMeta { managed_fields: Some(entries.clone()), ..ObjectMeta::default() };
            assert_eq!(changed_by_another(&read), changed, "{entries:?}");
        }
    }
}
