//! Objects as read from the API server, without the parts that the operator never uses.
//!
//! Users may write about 1.5 MB of labels, annotations, finalizers and managed fields to each object. They are dropped
//! entry by entry while the JSON is parsed: no parsed object ever holds them.
//!
//! Users may also write managed fields that the types of Kubernetes cannot hold, such as a time after the year 9999, or
//! fields nested a thousand deep: the API server takes these fields from a request. One such object must not make a list
//! unreadable, in which there are objects of others.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use stream_encryption_api::{FIELD_MANAGER, FINALIZER, RETRY_ANNOTATION, SUSPEND_ANNOTATION};

/// Maximum number of characters of an annotation's value. The operator compares no more of them.
const LONGEST_VALUE: usize = 256;

/// An object of which only the metadata `M` is kept. By default it has no labels, and only the annotations and finalizers that
/// the operator uses. Of its managed fields, the last writers of the status remain.
#[derive(Clone, Debug)]
pub struct Trimmed<K, M = UsedMetadata>(pub K, PhantomData<M>);

/// An object without its managed fields.
pub type Unmanaged<K> = Trimmed<K, UnmanagedMetadata>;

/// An object before its conversion to a type.
#[derive(Deserialize)]
struct Object<M: Default> {
    #[serde(default)]
    metadata: M,
    #[serde(flatten)]
    members: Map<String, Value>,
}

/// The metadata without the managed fields.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UnmanagedMetadata(Map<String, Value>);

impl<'de> Deserialize<'de> for UnmanagedMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = UnmanagedMetadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("metadata")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UnmanagedMetadata, A::Error> {
                let mut kept = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "managedFields" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        kept.insert(name, map.next_value()?);
                    }
                }
                Ok(UnmanagedMetadata(kept))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The metadata that the operator uses.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UsedMetadata {
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
    finalizers: Option<OwnFinalizer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<OwnAnnotations>,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_fields: Option<StatusWriters>,
}

/// Maximum number of labels of a namespace. Kubernetes limits only the size of the object, into which tens of thousands of short
/// labels fit. Once they are parsed, they need ten times as much memory.
pub const MAX_LABELS: usize = 128;

/// The metadata of a namespace that the operator uses: its identity and its labels.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceMetadata {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: FewLabels,
}

/// The labels; `None` if there are more than [`MAX_LABELS`]. A part of them would be wrong: a selector may require that a label
/// does not exist.
#[derive(Clone, Debug, Serialize)]
struct FewLabels(Option<BTreeMap<String, String>>);

impl Default for FewLabels {
    fn default() -> Self {
        Self(Some(BTreeMap::new()))
    }
}

impl<'de> Deserialize<'de> for FewLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Labels;
        impl<'de> Visitor<'de> for Labels {
            type Value = FewLabels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FewLabels, A::Error> {
                let mut labels = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    labels.insert(key, value);
                    if labels.len() > MAX_LABELS {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Ok(FewLabels(None));
                    }
                }
                Ok(FewLabels(Some(labels)))
            }
        }
        deserializer.deserialize_map(Labels)
    }
}

/// Maximum number of other writers of the status that are kept, those that wrote last. The API server limits the writers that
/// update, but not those that apply.
const MAX_OTHER_WRITERS: usize = 8;

/// The last writers of the status, the latest first. Their fields are dropped.
#[derive(Clone, Debug, Default, Serialize)]
struct StatusWriters(Vec<Manager>);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Manager {
    #[serde(rename = "manager")]
    name: Option<String>,
    subresource: Option<String>,
    #[serde(default, deserialize_with = "time_or_latest")]
    time: Option<Time>,
}

impl Manager {
    fn is_own(&self) -> bool {
        self.name.as_deref() == Some(FIELD_MANAGER)
    }

    /// Later writers have a higher rank.
    fn rank(&self) -> (Option<Timestamp>, Option<&str>) {
        (self.time.as_ref().map(|time| time.0), self.name.as_deref())
    }
}

impl StatusWriters {
    fn add(&mut self, writer: Manager) {
        let is_own = writer.is_own();
        let at = self.0.partition_point(|one| one.rank() >= writer.rank());
        self.0.insert(at, writer);
        let limit = if is_own { 1 } else { MAX_OTHER_WRITERS };
        let mut of_kind = self.0.iter().enumerate().filter(|(_, one)| one.is_own() == is_own);
        if let Some((excess, _)) = of_kind.nth(limit) {
            self.0.remove(excess);
        }
    }
}

/// Returns the latest time that can be represented for one that cannot. Such a writer has written last.
fn time_or_latest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.map(|text| Time(text.parse().unwrap_or(Timestamp::MAX))))
}

/// The operator's own finalizer, once, or none.
#[derive(Clone, Debug, Default, Serialize)]
struct OwnFinalizer(Vec<String>);

/// Adds the entries of a list to what is kept of them.
struct Entries<E, T>(fn(&mut T, E), PhantomData<E>);

impl<'de, E: Deserialize<'de>, T: Default> Visitor<'de> for Entries<E, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list in the metadata")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<T, A::Error> {
        let mut kept = T::default();
        while let Some(entry) = entries.next_element::<E>()? {
            self.0(&mut kept, entry);
        }
        Ok(kept)
    }
}

impl<'de> Deserialize<'de> for StatusWriters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let add = |writers: &mut Self, one: Manager| {
            if one.subresource.as_deref() == Some("status") {
                writers.add(one);
            }
        };
        deserializer.deserialize_seq(Entries(add, PhantomData))
    }
}

impl<'de> Deserialize<'de> for OwnFinalizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let add = |own: &mut Self, one: String| {
            if one == FINALIZER && own.0.is_empty() {
                own.0.push(one);
            }
        };
        deserializer.deserialize_seq(Entries(add, PhantomData))
    }
}

/// The annotations that the operator reads.
#[derive(Clone, Debug, Default, Serialize)]
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

impl<'de, K, M> Deserialize<'de> for Trimmed<K, M>
where
    K: DeserializeOwned,
    M: Default + DeserializeOwned + Serialize,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object::<M> { metadata, mut members } = Object::deserialize(deserializer)?;
        members.insert("metadata".to_owned(), serde_json::to_value(metadata).map_err(D::Error::custom)?);
        let object = K::deserialize(Value::Object(members)).map_err(D::Error::custom)?;
        Ok(Self(object, PhantomData))
    }
}

impl<K: Resource, M> Resource for Trimmed<K, M> {
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
    use k8s_openapi::api::core::v1::Namespace;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use kube::core::{DeserializeGuard, PartialObjectMeta};
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
        let Trimmed(read, _): Trimmed<StreamEncryption> = serde_json::from_str(&text).unwrap();
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
        let Trimmed(read, _): Trimmed<StreamEncryption> = serde_json::from_value(object).unwrap();
        assert_eq!(read.metadata.annotations, None);
        assert_eq!(read.metadata.name.as_deref(), Some("orders"));
    }

    #[test]
    fn trimmed_invalid_object_keeps_its_metadata() {
        let mut object = object();
        object["spec"]["stream"] = json!(7);
        let Trimmed(read, _): Trimmed<DeserializeGuard<StreamEncryption>> =
            serde_json::from_str(&object.to_string()).unwrap();
        let invalid = read.0.unwrap_err();
        assert_eq!(invalid.metadata.name.as_deref(), Some("orders"));
        assert_eq!(invalid.metadata.labels, None);
        assert!(!invalid.error.is_empty());
    }

    fn with_managers(managers: Value) -> String {
        let mut object = object();
        object["metadata"]["managedFields"] = managers;
        object.to_string()
    }

    /// The API server takes the managed fields of a request, and checks neither their times nor their depth.
    #[test]
    fn managed_fields_that_cannot_be_represented_do_not_fail_the_object() {
        let deep = format!("{}1{}", r#"{"f:a":"#.repeat(1_000), "}".repeat(1_000));
        let text = with_managers(json!([
            {"manager": "x", "subresource": "status", "time": "9999-12-31T00:00:00Z", "fieldsV1": "DEEP"},
            {"manager": "y", "subresource": "status", "time": null},
        ]));
        let text = text.replace("\"DEEP\"", &deep);
        let read: Trimmed<StreamEncryption> = serde_json::from_str(&text).unwrap();
        let times: Vec<_> =
            read.0.metadata.managed_fields.iter().flatten().map(|one| one.time.clone()).collect();
        assert_eq!(times.len(), 2);
        assert!(times[0].as_ref().is_some_and(|time| time.0.as_second() == Timestamp::MAX.as_second()));
        let read: Unmanaged<StreamEncryption> = serde_json::from_str(&text).unwrap();
        assert_eq!(read.0.metadata.managed_fields, None);
        assert!(read.0.metadata.labels.is_some_and(|labels| labels["team"] == "data"));
    }

    #[test]
    fn last_writers_of_the_status_are_kept_up_to_a_limit() {
        let writer = |name: &str, second: usize| {
            let time = format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
            json!({"manager": name, "operation": "Apply", "subresource": "status", "time": time})
        };
        let mut writers: Vec<Value> = (0..1_000).map(|n| writer(&format!("w{n}"), n)).collect();
        writers.extend((0..100).map(|n| writer(FIELD_MANAGER, n)));
        let read: Trimmed<StreamEncryption> = serde_json::from_str(&with_managers(json!(writers))).unwrap();
        let kept = read.0.metadata.managed_fields.unwrap();
        let names: Vec<_> = kept.iter().filter_map(|one| one.manager.as_deref()).collect();
        assert_eq!(names.len(), MAX_OTHER_WRITERS + 1);
        assert_eq!((names[0], names[8]), ("w999", FIELD_MANAGER));
        assert_eq!(kept[8].time.as_ref().unwrap().0.to_string(), "2026-01-01T00:01:39Z");
    }

    /// A team that may label its namespaces must not fill the memory of the operator.
    #[test]
    fn labels_of_a_namespace_are_kept_up_to_a_limit() {
        let read = |metadata: &Value| {
            let text = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).to_string();
            let Trimmed(read, _): Trimmed<PartialObjectMeta<Namespace>, NamespaceMetadata> =
                serde_json::from_str(&text).unwrap();
            read.metadata
        };
        let with_labels = |count: usize| {
            let labels: BTreeMap<String, String> =
                (0..count).map(|n| (format!("l{n}"), n.to_string())).collect();
            read(&json!({
                "name": "data", "uid": "1", "resourceVersion": "7", "labels": labels, "annotations": {"note": "no"},
            }))
        };
        let kept = ObjectMeta {
            name: Some("data".to_owned()),
            uid: Some("1".to_owned()),
            resource_version: Some("7".to_owned()),
            labels: Some(BTreeMap::from([("l0".to_owned(), "0".to_owned())])),
            ..ObjectMeta::default()
        };
        assert_eq!(with_labels(1), kept);
        assert_eq!(with_labels(65_000), ObjectMeta { labels: None, ..kept });
        let number = |count| with_labels(count).labels.map(|labels| labels.len());
        assert_eq!([MAX_LABELS, MAX_LABELS + 1].map(number), [Some(MAX_LABELS), None]);
        assert_eq!(read(&json!({"name": "data"})).labels, Some(BTreeMap::new()));
        let page = include_str!("../../docs/policies.md");
        assert!(page.contains(&format!("at most {MAX_LABELS} labels of a namespace")));
    }

    #[test]
    fn repeated_finalizer_is_kept_once() {
        let mut object = object();
        object["metadata"]["finalizers"] = json!(vec![FINALIZER; 1_000]);
        let read: Trimmed<StreamEncryption> = serde_json::from_value(object).unwrap();
        assert_eq!(read.0.metadata.finalizers.unwrap(), [FINALIZER]);
    }
}
