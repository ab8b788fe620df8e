//! Objects as read from the API server, without the parts that the operator never uses.
//!
//! Users may write about 1.5 MB of labels, annotations, finalizers and managed fields to each object. They are dropped
//! entry by entry while the JSON is parsed: no parsed object ever holds them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use stream_encryption_api::{FINALIZER, RETRY_ANNOTATION, SUSPEND_ANNOTATION};

/// Maximum number of characters of an annotation's value. The operator compares no more of them.
const LONGEST_VALUE: usize = 256;

/// An object without its labels, and without the annotations and finalizers that the operator does not use. Of
/// its managed fields, only the writers of the status remain.
#[derive(Clone, Debug)]
pub(super) struct Trimmed<K>(pub(super) K);

/// An object before its conversion to a type.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    #[serde(flatten)]
    members: Map<String, Value>,
}

/// The metadata that is kept.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_timestamp: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finalizers: Option<Kept<Finalizer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<OwnAnnotations>,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_fields: Option<Kept<Manager>>,
}

/// An entry of a list of which only some entries are kept.
trait Entry: DeserializeOwned {
    /// Returns whether the entry is kept.
    fn is_kept(&self) -> bool;
}

/// The kept entries of a list.
#[derive(Serialize)]
struct Kept<E>(Vec<E>);

/// One entry of the managed fields, without the fields. The writers of the status are kept.
#[derive(Deserialize, Serialize)]
struct Manager {
    #[serde(rename = "manager")]
    name: Option<String>,
    subresource: Option<String>,
    time: Option<Time>,
}

impl Entry for Manager {
    fn is_kept(&self) -> bool {
        self.subresource.as_deref() == Some("status")
    }
}

/// A finalizer. The operator's own is kept.
#[derive(Deserialize, Serialize)]
struct Finalizer(String);

impl Entry for Finalizer {
    fn is_kept(&self) -> bool {
        self.0 == FINALIZER
    }
}

impl<'de, E: Entry> Deserialize<'de> for Kept<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<E>(PhantomData<E>);
        impl<'de, E: Entry> Visitor<'de> for Entries<E> {
            type Value = Kept<E>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list in the metadata")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Kept<E>, A::Error> {
                let mut kept = Vec::new();
                while let Some(entry) = entries.next_element::<E>()? {
                    if entry.is_kept() {
                        kept.push(entry);
                    }
                }
                Ok(Kept(kept))
            }
        }
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// The annotations that the operator reads.
#[derive(Default, Serialize)]
struct OwnAnnotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for OwnAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Annotations;
        impl<'de> Visitor<'de> for Annotations {
            type Value = OwnAnnotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OwnAnnotations, A::Error> {
                let mut own = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if [RETRY_ANNOTATION, SUSPEND_ANNOTATION].contains(&name.as_str()) {
                        let value: String = map.next_value()?;
                        own.insert(name, value.chars().take(LONGEST_VALUE).collect());
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(OwnAnnotations(own))
            }
        }
        deserializer.deserialize_map(Annotations)
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Trimmed<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object { metadata, mut members } = Object::deserialize(deserializer)?;
        members.insert("metadata".to_owned(), serde_json::to_value(metadata).map_err(D::Error::custom)?);
        K::deserialize(Value::Object(members)).map(Self).map_err(D::Error::custom)
    }
}

impl<K: Resource> Resource for Trimmed<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    // Otherwise kube would request whole objects of a kind of which only the metadata is parsed.
    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use kube::core::DeserializeGuard;
    use serde_json::json;
    use stream_encryption_api::stream_encryption::StreamEncryption;

    use super::*;

    fn object() -> Value {
        json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {
                "name": "orders", "namespace": "data", "uid": "1", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "finalizers": ["streamencryption.dev/disable-encryption", "x.example/keep"],
                "labels": {"team": "data"},
                "annotations": {
                    "streamencryption.dev/retry": "ü".repeat(1000), "streamencryption.dev/suspend": "true",
                    "streamencryption.dev/other": "no", "note": "no",
                },
                "managedFields": [
                    {"manager": "x", "operation": "Apply", "fieldsV1": {"f:spec": {}}},
                    {
                        "manager": "y", "operation": "Update", "subresource": "status",
                        "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:status": {}},
                    },
                ],
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "2"}],
            },
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
        })
    }

    #[test]
    fn trimmed_object_keeps_only_used_metadata() {
        let text = object().to_string();
        let Trimmed(read): Trimmed<StreamEncryption> = serde_json::from_str(&text).unwrap();
        let whole: StreamEncryption = serde_json::from_str(&text).unwrap();
        let kept = ObjectMeta {
            labels: None,
            finalizers: Some(vec!["streamencryption.dev/disable-encryption".to_owned()]),
            managed_fields: Some(vec![ManagedFieldsEntry {
                manager: Some("y".to_owned()),
                subresource: Some("status".to_owned()),
                time: whole.metadata.creation_timestamp.clone(),
                ..ManagedFieldsEntry::default()
            }]),
            owner_references: None,
            annotations: Some(BTreeMap::from([
                ("streamencryption.dev/retry".to_owned(), "ü".repeat(256)),
                ("streamencryption.dev/suspend".to_owned(), "true".to_owned()),
            ])),
            ..whole.metadata
        };
        assert_eq!(read.metadata, kept);
        assert_eq!(read.spec, whole.spec);
    }

    #[test]
    fn trimmed_object_accepts_null_members() {
        let mut object = object();
        for member in ["annotations", "finalizers", "labels", "managedFields", "deletionTimestamp"] {
            object["metadata"][member] = Value::Null;
        }
        let Trimmed(read): Trimmed<StreamEncryption> = serde_json::from_value(object).unwrap();
        assert_eq!(read.metadata.annotations, None);
        assert_eq!(read.metadata.name.as_deref(), Some("orders"));
    }

    #[test]
    fn trimmed_invalid_object_keeps_its_metadata() {
        let mut object = object();
        object["spec"]["stream"] = json!(7);
        let Trimmed(read): Trimmed<DeserializeGuard<StreamEncryption>> =
            serde_json::from_str(&object.to_string()).unwrap();
        let invalid = read.0.unwrap_err();
        assert_eq!(invalid.metadata.name.as_deref(), Some("orders"));
        assert_eq!(invalid.metadata.labels, None);
        assert!(!invalid.error.is_empty());
    }
}
