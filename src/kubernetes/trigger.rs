//! Which changes of a resource lead to a reconcile: the spec, a deletion, the operator's annotations and
//! finalizer, and a status that another client has written.
//!
//! The operator's own status writes lead to none, neither in this replica nor in another one. This module
//! compares; it keeps nothing but a hash of each resource.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};

use super::watches::Guarded;
use crate::api::FIELD_MANAGER;

/// Drops the content of a resource: the trigger depends on its metadata only, and the controller reads the
/// resource from the cache.
pub fn drop_content(resource: &mut Guarded) {
    let (error, metadata) = match &mut resource.0 {
        Ok(resource) => (String::new(), std::mem::take(&mut resource.metadata)),
        Err(invalid) => (std::mem::take(&mut invalid.error), std::mem::take(&mut invalid.metadata)),
    };
    *resource = DeserializeGuard(Err(InvalidObject { error, metadata }));
}

/// Returns a hash that changes whenever the resource without content is to be reconciled.
#[must_use]
pub fn trigger(resource: &Guarded) -> Option<u64> {
    let InvalidObject { error, metadata } = resource.0.as_ref().err()?;
    Some(trigger_of(metadata, error))
}

/// Returns the hash for the metadata of a resource; `error` is empty if its content is valid.
#[must_use]
pub fn trigger_of(metadata: &ObjectMeta, error: &str) -> u64 {
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
        let mut resource: Guarded = serde_json::from_value(object.clone()).unwrap();
        drop_content(&mut resource);
        trigger(&resource).unwrap()
    }

    fn resource() -> Value {
        json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {
                "name": "orders", "namespace": "data", "uid": "1", "resourceVersion": "7", "generation": 2,
                "managedFields": [{
                    "manager": FIELD_MANAGER, "subresource": "status", "time": "2026-01-01T00:00:00Z",
                }],
            },
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
        })
    }

    #[test]
    fn own_status_write_is_no_trigger() {
        let mut written = resource();
        written["status"] = json!({"observedGeneration": 2});
        written["metadata"]["resourceVersion"] = json!("8");
        written["metadata"]["managedFields"][0]["time"] = json!("2026-01-01T00:00:05Z");
        assert_eq!(hash(&written), hash(&resource()));
    }

    #[test]
    fn change_that_concerns_operator_is_trigger() {
        let other = json!([{"manager": "velero", "subresource": "status", "time": "2026-01-01T00:00:05Z"}]);
        for (pointer, value) in [
            ("/metadata/generation", json!(3)),
            ("/metadata/deletionTimestamp", json!("2026-01-02T00:00:00Z")),
            ("/metadata/annotations", json!({"streamencryption.dev/retry": "1"})),
            ("/metadata/finalizers", json!(["streamencryption.dev/disable-encryption"])),
            ("/metadata/managedFields", other),
            ("/spec/stream", json!(7)),
        ] {
            let mut changed = resource();
            let (parent, member) = pointer.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap()[member] = value;
            assert_ne!(hash(&changed), hash(&resource()), "{pointer}");
        }
    }
}
