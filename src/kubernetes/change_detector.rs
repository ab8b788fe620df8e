//! Which objects have changed in a way that leads to reconciles, according to the events of their watches: resources
//! that are due because they themselves have changed, namespaces with other labels, and key objects.
//!
//! It compares and keeps a hash of each object, until the object is deleted. The reconcile reads the object from the
//! cache. The changed objects of a list are returned only when the list is complete. Before the first list is complete, the
//! cache is not read, so each reconcile would ask the API server. Several watches that list at the same time have one
//! buffer: the first list to complete also returns the objects that the others have delivered so far. An object whose own
//! watch has not completed its first list is then reconciled from the API server.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use kube::Resource;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use stream_encryption_core::controller::change_hash::change_hash;

use super::policies::NamespaceLabels;
use super::store::Key;
use super::watches::MaybeInvalidResource;

/// A key object, of which only the metadata is watched.
pub type KeyMetadata = PartialObjectMeta<DynamicObject>;

/// Detects changes of the objects of a kind. The first event of an object counts as a change.
pub struct ChangeDetector<K> {
    /// Returns a hash of the properties whose change leads to reconciles.
    hash: fn(&K) -> u64,
    /// The hash of each object that exists, as of its last event.
    hashes: HashMap<Key, u64>,
    /// The changed objects of the lists that are not complete.
    listed: Vec<Key>,
}

impl ChangeDetector<MaybeInvalidResource> {
    /// Creates the detector for resources.
    #[must_use]
    pub fn of_resources() -> Self {
        Self::new(|resource| {
            let error = resource.0.as_ref().err().map_or("", |invalid| &invalid.error);
            change_hash(resource.meta(), error)
        })
    }
}

impl ChangeDetector<NamespaceLabels> {
    /// Creates the detector for namespaces. Their labels determine which policies select them.
    #[must_use]
    pub fn of_namespaces() -> Self {
        Self::new(|namespace| hash(&namespace.metadata.labels))
    }
}

impl ChangeDetector<KeyMetadata> {
    /// Creates the detector for key objects. Their status has the key's ARN, and a watch of metadata sees no other trace
    /// of its change than the version.
    #[must_use]
    pub fn of_key_objects() -> Self {
        Self::new(|key| hash(&key.metadata.resource_version))
    }
}

impl<K: Resource> ChangeDetector<K> {
    fn new(hash: fn(&K) -> u64) -> Self {
        Self { hash, hashes: HashMap::new(), listed: Vec::new() }
    }

    /// Processes an event after its effect on the cache. Returns the objects that lead to reconciles now.
    ///
    /// The hash of a deleted object is removed: if only the labels of a resource did not match for a while, it returns
    /// unchanged, and must be reconciled then.
    pub fn observe(&mut self, event: &Event<K>) -> Vec<Key> {
        match event {
            Event::Init => Vec::new(),
            Event::InitApply(object) => {
                let changed = self.changed(object);
                self.listed.extend(changed);
                Vec::new()
            }
            Event::InitDone => std::mem::take(&mut self.listed),
            Event::Apply(object) => self.changed(object).into_iter().collect(),
            Event::Delete(object) => {
                let key = Key::of(object);
                self.hashes.remove(&key);
                vec![key]
            }
        }
    }

    fn changed(&mut self, object: &K) -> Option<Key> {
        // Another object of the same name has another uid.
        let (key, hash) = (Key::of(object), hash(&(&object.meta().uid, (self.hash)(object))));
        (self.hashes.insert(key.clone(), hash) != Some(hash)).then_some(key)
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(name: &str, uid: &str) -> MaybeInvalidResource {
        let resource = json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": name, "namespace": "data", "uid": uid, "generation": 1},
            "spec": {"stream": {"service": "Kinesis", "name": name}},
        });
        serde_json::from_value(resource).unwrap()
    }

    fn names(
        detector: &mut ChangeDetector<MaybeInvalidResource>,
        events: &[Event<MaybeInvalidResource>],
    ) -> Vec<String> {
        events.iter().flat_map(|event| detector.observe(event)).map(|key| key.name().to_owned()).collect()
    }

    /// Its labels are moved to those of another shard and back, and nothing else changes.
    #[test]
    fn returning_resource_is_reconciled_again() {
        let [moved, other] = ["moved", "other"].map(|name| resource(name, name));
        let events = [
            Event::Apply(moved.clone()),
            Event::Apply(moved.clone()),
            Event::Apply(other.clone()),
            Event::Delete(moved.clone()),
            Event::Apply(other),
            Event::Apply(moved),
        ];
        assert_eq!(names(&mut ChangeDetector::of_resources(), &events), ["moved", "other", "moved", "moved"]);
    }

    #[test]
    fn resource_created_again_is_reconciled_again() {
        let events = ["1", "1", "2"].map(|uid| Event::Apply(resource("orders", uid)));
        assert_eq!(names(&mut ChangeDetector::of_resources(), &events), ["orders", "orders"]);
    }

    #[test]
    fn listed_resources_are_returned_when_list_is_complete() {
        let mut detector = ChangeDetector::of_resources();
        let [one, two] = ["one", "two"].map(|name| resource(name, name));
        let list = |objects: &[&MaybeInvalidResource]| {
            let objects = objects.iter().map(|object| Event::InitApply(MaybeInvalidResource::clone(object)));
            [Event::Init].into_iter().chain(objects).collect::<Vec<_>>()
        };
        // The list fails, and begins again.
        assert!(names(&mut detector, &list(&[&one])).is_empty());
        assert!(names(&mut detector, &list(&[&one, &two])).is_empty());
        assert_eq!(names(&mut detector, &[Event::InitDone]), ["one", "two"]);
        assert!(names(&mut detector, &list(&[&one, &two])).is_empty());
        assert!(names(&mut detector, &[Event::InitDone]).is_empty(), "nothing has changed");
    }

    /// The watches list all namespaces again every hour.
    #[test]
    fn namespace_with_the_same_labels_changes_nothing() {
        let namespace = |team: &str| -> NamespaceLabels {
            let metadata = json!({"name": "data", "uid": "1", "labels": {"team": team}});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let mut detector = ChangeDetector::of_namespaces();
        for (event, changed) in [
            (Event::Init, false),
            (Event::InitApply(namespace("data")), false),
            (Event::InitDone, true),
            (Event::Apply(namespace("data")), false),
            (Event::Init, false),
            (Event::InitApply(namespace("data")), false),
            (Event::InitDone, false),
            (Event::Apply(namespace("web")), true),
            (Event::Delete(namespace("web")), true),
            (Event::Apply(namespace("web")), true),
        ] {
            assert_eq!(!detector.observe(&event).is_empty(), changed, "{event:?}");
        }
    }

    /// A watch that begins anew lists all key objects of the cluster.
    #[test]
    fn listed_again_key_object_of_the_same_version_changes_nothing() {
        let key = |version: &str| -> KeyMetadata {
            let metadata = json!({"name": "orders", "namespace": "data", "resourceVersion": version});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let mut detector = ChangeDetector::of_key_objects();
        let mut list = |version| {
            assert!(detector.observe(&Event::Init).is_empty());
            assert!(detector.observe(&Event::InitApply(key(version))).is_empty());
            detector.observe(&Event::InitDone).len()
        };
        assert_eq!([list("1"), list("1"), list("2")], [1, 0, 1]);
    }
}
