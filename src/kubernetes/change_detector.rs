//! Which objects have changed in a way that leads to reconciles, according to the events of their watches: resources
//! that are due because they themselves have changed, namespaces with other labels, and key objects.
//!
//! It compares and keeps a hash of each object, until the object is deleted. The reconcile reads the object from the
//! cache. The changed objects of a list are returned only when the list is complete. Before the first list is complete, the
//! cache is not read, so each reconcile would ask the API server. Several watches that list at the same time have one
//! buffer: the first list to complete also returns the objects that the others have delivered so far. An object whose own
//! watch has not completed its first list is then reconciled from the API server.

use std::collections::{HashMap, HashSet};
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
    /// All objects of the list that is not complete, which show what was deleted while no watch was running. `None` for the kinds
    /// with a cache, which returns such deletions as events.
    present: Option<HashSet<Key>>,
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
    /// of its change than the version. It must observe a single watch.
    #[must_use]
    pub fn of_key_objects() -> Self {
        let detector = Self::new(|key| hash(&key.metadata.resource_version));
        Self { present: Some(HashSet::new()), ..detector }
    }
}

impl<K: Resource> ChangeDetector<K> {
    fn new(hash: fn(&K) -> u64) -> Self {
        Self { hash, hashes: HashMap::new(), listed: Vec::new(), present: None }
    }

    /// Processes an event after its effect on the cache. Returns the objects that lead to reconciles now.
    ///
    /// The hash of a deleted object is removed: if only the labels of a resource did not match for a while, it returns
    /// unchanged, and must be reconciled then.
    pub fn observe(&mut self, event: &Event<K>) -> Vec<Key> {
        match event {
            Event::Init => {
                if let Some(present) = &mut self.present {
                    present.clear();
                }
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(present) = &mut self.present {
                    present.insert(Key::of(object));
                }
                let changed = self.changed(object);
                self.listed.extend(changed);
                Vec::new()
            }
            Event::InitDone => {
                let mut changed = std::mem::take(&mut self.listed);
                if let Some(present) = &mut self.present {
                    let present = std::mem::take(present);
                    changed
                        .extend(self.hashes.extract_if(|key, _| !present.contains(key)).map(|(key, _)| key));
                }
                changed
            }
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
    use std::sync::Arc;

    use futures_util::{StreamExt as _, stream};
    use kube::runtime::watcher;
    use serde_json::json;

    use super::super::caches::{Cache, Caches};
    use super::super::tests::no_caches;
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

    /// A reader finds no resource while the watch fails. Then etcd is restored from a backup, which has the resource.
    #[tokio::test]
    async fn removed_resource_that_returns_unchanged_has_changed() {
        let list = || [Event::Init, Event::InitApply(resource("orders", "1")), Event::InitDone].map(Ok);
        let failure = Err(watcher::Error::NoResourceVersion);
        let watch = stream::iter(list().into_iter().chain([failure]).chain(list()));
        let (resources, events) = Cache::of(vec![(None, watch)], "StreamEncryptions", &Arc::default());
        let caches = Caches { resources, ..no_caches() };
        let mut events = std::pin::pin!(events);
        let (mut detector, mut changed) = (ChangeDetector::of_resources(), Vec::new());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => changed.push(names(&mut detector, &[event])),
                Err(_) => caches.remove_resource("data", "orders", "1"),
            }
        }
        let orders = || vec!["orders".to_owned()];
        let expected = [vec![], vec![], orders(), orders(), vec![], vec![], orders()];
        assert_eq!(changed, expected, "the first list, the deletion, and the second list");
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
        let mut detector = ChangeDetector::of_key_objects();
        let mut list = |version| list_keys(&mut detector, &["orders"], version).len();
        assert_eq!([list("1"), list("1"), list("2")], [1, 0, 1]);
    }

    /// Lists key objects of one version. Returns the changed ones.
    fn list_keys(detector: &mut ChangeDetector<KeyMetadata>, names: &[&str], version: &str) -> Vec<String> {
        assert!(detector.observe(&Event::Init).is_empty());
        for name in names {
            let metadata = json!({"name": name, "namespace": "data", "resourceVersion": version});
            let key: KeyMetadata = serde_json::from_value(json!({"metadata": metadata})).unwrap();
            assert!(detector.observe(&Event::InitApply(key)).is_empty());
        }
        detector.observe(&Event::InitDone).iter().map(|key| key.name().to_owned()).collect()
    }

    /// The watch has expired, so it reports no deletion.
    #[test]
    fn key_object_that_is_no_longer_listed_has_changed() {
        let mut detector = ChangeDetector::of_key_objects();
        assert_eq!(list_keys(&mut detector, &["a", "b"], "1"), ["a", "b"]);
        assert_eq!(list_keys(&mut detector, &["a"], "1"), ["b"]);
        assert_eq!(detector.hashes.len(), 1);
        // The list fails, and begins again.
        detector.observe(&Event::Init);
        assert_eq!(list_keys(&mut detector, &["a", "b"], "1"), ["b"]);
    }
}
