//! Which changes of a resource lead to a reconcile: the spec, a deletion, the annotations, the finalizers,
//! and a status that another client has written. A change of any annotation or finalizer in the metadata counts. Callers
//! therefore pass metadata from which `kubernetes/trimmed.rs` has removed those that are not the operator's.
//!
//! The operator's own status writes lead to none, neither in this replica nor in another one. There is one exception: a write
//! that replaces the last field of another writer removes that writer's entry in `managedFields`, and leads to one more
//! reconcile. This module computes a hash of each resource; `kubernetes/change_detector.rs` keeps the hashes and compares them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stream_encryption_api::FIELD_MANAGER;

/// Returns a hash that changes whenever the resource with this metadata is to be reconciled. `error` states why its
/// content is invalid; it is empty if the content is valid.
#[must_use]
pub fn change_hash(metadata: &ObjectMeta, error: &str) -> u64 {
    let ObjectMeta { generation, deletion_timestamp, annotations, finalizers, .. } = metadata;
    let mut hasher = DefaultHasher::new();
    let deleted = deletion_timestamp.as_ref().map(|time| time.0);
    (error, generation, deleted, annotations, finalizers).hash(&mut hasher);
    let others = metadata.managed_fields.iter().flatten().filter(|entry| {
        entry.subresource.as_deref() == Some("status") && entry.manager.as_deref() != Some(FIELD_MANAGER)
    });
    for entry in others {
        (&entry.manager, entry.time.as_ref().map(|time| time.0)).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn hash(object: &Value) -> u64 {
        let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
        change_hash(&metadata, object["error"].as_str().unwrap_or_default())
    }

    fn resource() -> Value {
        json!({
            "metadata": {
                "name": "orders", "namespace": "data", "uid": "1", "resourceVersion": "7", "generation": 2,
                "managedFields": [{
                    "manager": FIELD_MANAGER, "subresource": "status", "time": "2026-01-01T00:00:00Z",
                }],
            },
            "error": "",
        })
    }

    #[test]
    fn own_status_write_keeps_the_hash() {
        let mut written = resource();
        written["status"] = json!({"observedGeneration": 2});
        written["metadata"]["resourceVersion"] = json!("8");
        written["metadata"]["managedFields"][0]["time"] = json!("2026-01-01T00:00:05Z");
        assert_eq!(hash(&written), hash(&resource()));
    }

    #[test]
    fn change_that_concerns_operator_changes_hash() {
        let other = json!([{"manager": "velero", "subresource": "status", "time": "2026-01-01T00:00:05Z"}]);
        for (pointer, value) in [
            ("/metadata/generation", json!(3)),
            ("/metadata/deletionTimestamp", json!("2026-01-02T00:00:00Z")),
            ("/metadata/annotations", json!({"streamencryption.dev/retry": "1"})),
            ("/metadata/finalizers", json!(["streamencryption.dev/disable-encryption"])),
            ("/metadata/managedFields", other),
            ("/error", json!("invalid type: integer `7`")),
        ] {
            let mut changed = resource();
            let (parent, member) = pointer.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap()[member] = value;
            assert_ne!(hash(&changed), hash(&resource()), "{pointer}");
        }
    }
}
