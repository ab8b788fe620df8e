//! The objects of a cache, by namespace and name.
//!
//! It holds what the events of the watches say and decides nothing. kube's store would keep each object as a Rust
//! value, with a second key and, during a list, a second copy of everything. Here a valid object is [`Packed`], and a
//! list replaces one object after the other; what a complete list lacks is removed by `merged_watches.rs`.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::packed::Packed;

use super::policies::{MaybeInvalidPolicy, NamespaceLabels};

/// The name of an object and of its namespace, which is empty if the object lies in none: `data/orders`. Neither
/// contains a slash. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Returns the key of the object with this name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// Returns the key of the object with this name and namespace, `data/orders`.
    #[must_use]
    pub fn of_path(path: Arc<str>) -> Self {
        Self(path)
    }

    /// Returns the key of an object.
    pub fn of(object: &impl Resource) -> Self {
        let ObjectMeta { namespace, name, .. } = object.meta();
        Self::new(namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
    }

    /// Returns the namespace of the object.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Returns the name of the object.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kind of object that a store can hold.
pub trait Kind: Resource<DynamicType = ()> + Clone {
    /// The form in which the store keeps an object.
    type Kept: Clone + Send + Sync;
    /// The form in which the store returns an object: a value, or one that it shares.
    type Read: Borrow<Self>;

    /// Returns the kept form of an object. `earlier` is that of an object of the same name.
    fn keep(&self, earlier: Option<&Self::Kept>) -> Self::Kept;

    /// Returns a kept object.
    fn read(kept: &Self::Kept) -> Self::Read;
}

/// An object as a watch returned it: valid and packed, or invalid.
type PackedOrInvalid<K> = Result<Packed<K>, Arc<DeserializeGuard<K>>>;

/// A kind with many objects, of which few are read at a time. They are therefore packed.
pub trait PackedKind:
    Resource<DynamicType = ()> + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync
{
}

impl PackedKind for StreamEncryption {}
impl PackedKind for StreamLedger {}

impl<K: PackedKind> Kind for DeserializeGuard<K> {
    type Kept = PackedOrInvalid<K>;
    type Read = Self;

    fn keep(&self, earlier: Option<&Self::Kept>) -> Self::Kept {
        let Ok(object) = &self.0 else { return Err(Arc::new(self.clone())) };
        Ok(match earlier {
            Some(Ok(earlier)) => Packed::of_similar(earlier, object),
            _ => Packed::of(object),
        })
    }

    fn read(kept: &Self::Kept) -> Self::Read {
        match kept {
            Ok(object) => Self(Ok(object.read())),
            Err(invalid) => Self::clone(invalid),
        }
    }
}

/// Implements [`Kind`] for kinds with few objects, which every reconcile reads: the store shares them.
macro_rules! shared_kinds {
    ($($kind:ty),+) => {$(
        impl Kind for $kind {
            type Kept = Arc<Self>;
            type Read = Arc<Self>;

            fn keep(&self, _: Option<&Self::Kept>) -> Self::Kept {
                Arc::new(self.clone())
            }

            fn read(kept: &Self::Kept) -> Self::Read {
                kept.clone()
            }
        }
    )+};
}

shared_kinds!(MaybeInvalidPolicy, NamespaceLabels);

/// The objects of one kind. Clones share them.
pub struct Store<K: Kind>(Arc<RwLock<BTreeMap<Key, K::Kept>>>);

impl<K: Kind> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Kind> Default for Store<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Kind> Store<K> {
    /// Returns an object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<K::Read> {
        // The lock is held only to copy the kept form; unpacking happens after it.
        self.kept(key).map(|kept| K::read(&kept))
    }

    /// Calls `visit` with each object. They are unpacked one after the other: all of them at a time would need much
    /// more memory than the store itself.
    pub fn for_each(&self, visit: impl FnMut(K::Read)) {
        // The lock is held only to copy the kept form; unpacking happens after it.
        let kept: Vec<K::Kept> = self.read().values().cloned().collect();
        kept.iter().map(K::read).for_each(visit);
    }

    /// Returns what `select` returns for each object, as [`for_each`](Self::for_each) visits them.
    pub fn select<T>(&self, select: impl Fn(K::Read) -> Option<T>) -> Vec<T> {
        let mut selected = Vec::new();
        self.for_each(|object| selected.extend(select(object)));
        selected
    }

    /// Returns the keys of all objects.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.read().keys().cloned().collect()
    }

    /// Returns the keys of all objects in a namespace.
    #[must_use]
    pub fn keys_in(&self, namespace: &str) -> Vec<Key> {
        // No object has an empty name, so this key precedes all others of the namespace.
        let first = Key::new(namespace, "");
        let objects = self.read();
        let rest = objects.range(first..).map(|(key, _)| key);
        rest.take_while(|key| key.namespace() == namespace).cloned().collect()
    }

    /// Applies an event of a watch. The events of a list add and replace objects. What the list lacks is removed by
    /// `merged_watches.rs`.
    pub fn apply(&self, event: &Event<K>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let key = Key::of(object);
                let kept = object.keep(self.kept(&key).as_ref());
                self.write().insert(key, kept);
            }
            Event::Delete(object) => {
                self.write().remove(&Key::of(object));
            }
            Event::Init | Event::InitDone => {}
        }
    }

    /// Removes an object of which a reader knows that it no longer exists, if `is_gone` returns true for the stored one. Returns
    /// the removed object.
    pub(super) fn remove_if(&self, key: &Key, is_gone: impl FnOnce(&K) -> bool) -> Option<K::Read> {
        let mut objects = self.write();
        let removed = objects.get(key).map(K::read).filter(|stored| is_gone(stored.borrow()))?;
        objects.remove(key);
        Some(removed)
    }

    /// Returns the objects whose keys `select` accepts.
    pub(super) fn with_keys(&self, select: impl Fn(&Key) -> bool) -> Vec<K::Read> {
        let objects = self.read();
        objects.iter().filter(|(key, _)| select(key)).map(|(_, kept)| K::read(kept)).collect()
    }

    /// Returns the next `size` objects after the key `after`, in the order of the keys, and the last of these keys if more
    /// objects follow.
    pub(super) fn page(&self, after: Option<&Key>, size: usize) -> (Vec<K::Read>, Option<Key>) {
        let (page, more_follow) = {
            let objects = self.read();
            let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = objects.range((begin, Bound::Unbounded));
            let page: Vec<(Key, K::Kept)> =
                rest.by_ref().take(size).map(|(key, kept)| (key.clone(), kept.clone())).collect();
            (page, rest.next().is_some())
        };
        let last = page.last().filter(|_| more_follow).map(|(key, _)| key.clone());
        (page.iter().map(|(_, kept)| K::read(kept)).collect(), last)
    }

    fn kept(&self, key: &Key) -> Option<K::Kept> {
        self.read().get(key).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, K::Kept>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, K::Kept>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::watches;

    fn resource(name: &str, stream: &Value) -> watches::MaybeInvalidResource {
        let resource = json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": name, "namespace": "data", "uid": name, "resourceVersion": "1"},
            "spec": {"stream": stream},
        });
        serde_json::from_value(resource).unwrap()
    }

    #[test]
    fn valid_and_invalid_objects_are_read_as_they_came() {
        let store = Store::default();
        let objects =
            [resource("valid", &json!({"service": "Kinesis", "name": "x"})), resource("invalid", &json!(7))];
        for object in objects {
            store.apply(&Event::InitApply(object.clone()));
            let read = store.get(&Key::of(&object)).unwrap();
            assert_eq!(format!("{read:?}"), format!("{object:?}"));
        }
        assert_eq!(
            store.select(|one| one.0.err().map(|invalid| invalid.metadata.name)),
            [Some("invalid".to_owned())]
        );
        let gone = store.get(&Key::new("data", "valid")).unwrap();
        store.apply(&Event::Delete(gone));
        assert_eq!(store.keys(), [Key::new("data", "invalid")]);
    }

    #[test]
    fn keys_of_a_namespace_exclude_similar_namespaces() {
        let store = Store::default();
        for namespace in ["data", "data-eu", "dat", "data0", "web"] {
            for name in ["a", "z"] {
                let mut object = resource(name, &json!(7));
                object.meta_mut().namespace = Some(namespace.to_owned());
                store.apply(&Event::InitApply(object));
            }
        }
        assert_eq!(store.keys_in("data"), [Key::new("data", "a"), Key::new("data", "z")]);
        assert_eq!(store.keys_in("dat-eu"), []);
    }

    #[test]
    fn pages_hold_each_object_once() {
        let store = Store::default();
        for number in 0..10 {
            store.apply(&Event::InitApply(resource(&format!("r{number}"), &json!(7))));
        }
        for size in 1..12 {
            let (mut names, mut after) = (Vec::new(), None);
            loop {
                let (page, last) = store.page(after.as_ref(), size);
                assert!(page.len() <= size && (page.len() == size || last.is_none()), "a page of {size}");
                names.extend(page.iter().map(Key::of));
                after = last;
                if after.is_none() {
                    break;
                }
            }
            names.sort();
            let all: Vec<Key> = (0..10).map(|number| Key::new("data", &format!("r{number}"))).collect();
            assert_eq!(names, all, "pages of {size}");
        }
    }

    #[test]
    fn key_has_the_parts_of_its_name() {
        for (namespace, name) in [("data", "orders"), ("", "data")] {
            let key = Key::new(namespace, name);
            assert_eq!((key.namespace(), key.name()), (namespace, name));
        }
    }
}
