//! The status from which a reconcile continues. Usually it is the stored one. If another client wrote the stored one, and no
//! write of this process is unacknowledged, it is the one in memory. Reads only.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use stream_encryption_api::FIELD_MANAGER;
use stream_encryption_api::stream_encryption::StreamEncryptionStatus;

use super::memory::LastReconcile;

/// Returns the status from which a reconcile continues; `None` if there is none.
pub(super) fn previous_status<'a>(
    read: &ObjectMeta,
    stored: Option<&'a StreamEncryptionStatus>,
    last: &LastReconcile,
) -> Option<Cow<'a, StreamEncryptionStatus>> {
    let own =
        last.status.as_ref().filter(|_| changed_by_another(read) && last.unacknowledged_write.is_none());
    own.map(|own| Cow::Owned(own.read())).or(stored.map(Cow::Borrowed))
}

/// Returns whether another client has changed the status since the operator last wrote it, as `managedFields`
/// records: a restore, or a user. All replicas write under one name. The times are whole seconds, so if both
/// wrote in the same second, the change counts as that of the other client; the operator's next write is
/// later.
pub(super) fn changed_by_another(read: &ObjectMeta) -> bool {
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
        // The operator has not written a status yet, or its entry was lost.
        (None, Some(_)) => true,
        (Some(own), Some(other)) => other >= own,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
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
    fn status_is_foreign_if_another_manager_wrote_last() {
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
