//! One store for the watches of a kind: one of everything, or one for each watched namespace.
//!
//! A list changes only what its own watch covers: its objects replace those of the same name as they arrive, and what
//! the store holds beyond the complete list is deleted. The store therefore never holds two lists at a time, and the
//! list of one namespace removes nothing of the others. This module sends no request, and never delays one namespace
//! because another one cannot be listed.

use std::borrow::Borrow as _;
use std::collections::HashSet;

use kube::runtime::watcher::Event;

use super::store::{Key, Kind, Store};

/// The namespace whose objects a watch covers; the watch of namespaces covers the namespace itself. `None`: there is a
/// single watch, which covers everything.
pub(super) type WatchedNamespace = Option<String>;

/// Returns whether a watch covers an object. An object without a namespace is a namespace itself here: no other kind without
/// one has a watch for each namespace.
pub(super) fn covers(watched: &WatchedNamespace, object: &Key) -> bool {
    let namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
    watched.as_deref().is_none_or(|watched| watched == namespace.unwrap_or(object.name()))
}

/// The state of the watches that fill one store.
pub(super) struct MergedWatches {
    covered: Vec<WatchedNamespace>,
    /// The objects of the list that each watch has begun.
    lists: Vec<HashSet<Key>>,
}

impl MergedWatches {
    pub(super) fn new(covered: Vec<WatchedNamespace>) -> Self {
        let lists = covered.iter().map(|_| HashSet::new()).collect();
        Self { covered, lists }
    }

    /// Applies an event of one watch to the store. Returns it, after the deletions that follow from it.
    pub(super) fn apply<K: Kind>(
        &mut self,
        store: &Store<K>,
        watch: usize,
        event: Event<K>,
    ) -> Vec<Event<K>> {
        let mut events = Vec::new();
        match &event {
            Event::Init => self.lists[watch].clear(),
            Event::InitApply(object) => drop(self.lists[watch].insert(Key::of(object))),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.lists[watch]);
                let is_gone = |key: &Key| covers(&self.covered[watch], key) && !listed.contains(key);
                let gone = store.with_keys(is_gone);
                events.extend(gone.iter().map(|object| Event::Delete(object.borrow().clone())));
            }
            Event::Apply(_) | Event::Delete(_) => {}
        }
        events.push(event);
        for event in &events {
            store.apply(event);
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::core::DeserializeGuard;

    use super::super::store::PackedKind;
    use super::*;

    type Object = DeserializeGuard<ConfigMap>;

    impl PackedKind for ConfigMap {}

    /// The store, and what fills it.
    struct Filled {
        store: Store<Object>,
        watches: MergedWatches,
    }

    fn object(namespace: &str, name: &str) -> Object {
        let metadata = ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        DeserializeGuard(Ok(ConfigMap { metadata, ..ConfigMap::default() }))
    }

    impl Filled {
        fn by(watches: &[Option<&str>]) -> Self {
            let watches = watches.iter().map(|watch| watch.map(str::to_owned)).collect();
            Self { store: Store::default(), watches: MergedWatches::new(watches) }
        }

        /// The watches of the namespaces `a` and `b`, with their first lists.
        fn with_lists() -> Self {
            let mut filled = Self::by(&[Some("a"), Some("b")]);
            filled.list(0, &[object("a", "one"), object("a", "two")]);
            filled.list(1, &[object("b", "one")]);
            filled
        }

        /// Returns what happened, in words.
        fn event(&mut self, watch: usize, event: Event<Object>) -> Vec<String> {
            let events = self.watches.apply(&self.store, watch, event);
            let word = |word: &str, object: &Object| format!("{word} {}", text(object));
            let words = events.iter().map(|event| match event {
                Event::Init => "init".to_owned(),
                Event::InitApply(object) => word("listed", object),
                Event::InitDone => "done".to_owned(),
                Event::Apply(object) => word("applied", object),
                Event::Delete(object) => word("deleted", object),
            });
            words.collect()
        }

        fn list(&mut self, watch: usize, objects: &[Object]) -> Vec<String> {
            self.event(watch, Event::Init);
            for object in objects {
                self.event(watch, Event::InitApply(object.clone()));
            }
            self.event(watch, Event::InitDone)
        }

        /// The stored objects, as `namespace/name`, sorted.
        fn names(&self) -> Vec<String> {
            let mut names = self.store.select(|one| Some(text(&one)));
            names.sort_unstable();
            names
        }
    }

    fn text(object: &Object) -> String {
        let key = Key::of(object);
        format!("{}/{}", key.namespace(), key.name())
    }

    #[test]
    fn list_of_one_namespace_keeps_objects_of_others() {
        let mut filled = Filled::with_lists();
        assert_eq!(filled.names(), ["a/one", "a/two", "b/one"]);
        let gone = filled.list(0, &[object("a", "two"), object("a", "three")]);
        assert_eq!(gone, ["deleted a/one", "done"]);
        assert_eq!(filled.names(), ["a/three", "a/two", "b/one"]);
        filled.list(1, &[]);
        assert_eq!(filled.names(), ["a/three", "a/two"]);
    }

    #[test]
    fn failed_list_of_a_namespace_removes_nothing() {
        let mut filled = Filled::with_lists();
        filled.event(0, Event::Init);
        filled.event(0, Event::InitApply(object("a", "two")));
        // The list fails and begins again, while the other watch continues.
        filled.event(0, Event::Init);
        filled.event(1, Event::Apply(object("b", "two")));
        filled.event(1, Event::Delete(object("b", "one")));
        assert_eq!(filled.names(), ["a/one", "a/two", "b/two"]);
        filled.event(0, Event::InitApply(object("a", "one")));
        filled.event(0, Event::InitDone);
        assert_eq!(filled.names(), ["a/one", "b/two"]);
    }

    #[test]
    fn list_replaces_objects_one_after_the_other() {
        for watch in [None, Some("a")] {
            let mut filled = Filled::by(&[watch]);
            assert_eq!(filled.event(0, Event::Init), ["init"]);
            assert_eq!(filled.event(0, Event::InitApply(object("a", "one"))), ["listed a/one"]);
            assert_eq!(filled.event(0, Event::InitDone), ["done"]);
            filled.event(0, Event::Init);
            filled.event(0, Event::InitApply(object("a", "two")));
            assert_eq!(filled.names(), ["a/one", "a/two"], "the list is incomplete");
            assert_eq!(filled.event(0, Event::InitDone), ["deleted a/one", "done"]);
            assert_eq!(filled.names(), ["a/two"]);
        }
    }

    #[test]
    fn watch_of_a_namespace_covers_it_and_its_objects() {
        let watch = Some("a".to_owned());
        assert!(covers(&watch, &Key::new("a", "one")));
        assert!(!covers(&watch, &Key::new("b", "a")));
        assert!(covers(&watch, &Key::new("", "a")), "a namespace lies in none");
        assert!(!covers(&watch, &Key::new("", "b")));
        assert!(covers(&None, &Key::new("b", "one")));
    }
}
