//! One store for several watches, each of one namespace: the events of all watches become those of one watch.
//!
//! kube's store replaces all of its objects when a list is complete, so the list of one namespace would remove the
//! objects of the others. Here a list only changes what its own namespace holds: its objects are applied as they
//! arrive, and the objects that it lacks are deleted when it is complete. This module only reads; it never delays
//! one namespace because another one cannot be listed.

use std::collections::HashSet;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;

/// The objects of one watch: those in a namespace, or the namespace itself. `None` is the only watch of its kind,
/// and covers everything.
pub(super) type Part = Option<String>;

/// Returns whether a watch covers an object.
pub(super) fn covers<K: Resource<DynamicType = ()>>(part: &Part, object: &ObjectRef<K>) -> bool {
    part.as_deref().is_none_or(|namespace| object.namespace.as_deref().unwrap_or(&object.name) == namespace)
}

/// The state of the watches that fill one store.
pub(super) struct Parts<K>
where
    K: Resource<DynamicType = ()> + 'static,
{
    covered: Vec<Part>,
    /// The objects of the list that each watch has begun.
    lists: Vec<HashSet<ObjectRef<K>>>,
    has_begun: bool,
}

impl<K> Parts<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    pub(super) fn new(covered: Vec<Part>) -> Self {
        let lists = covered.iter().map(|_| HashSet::new()).collect();
        Self { covered, lists, has_begun: false }
    }

    /// Returns the events for `store` that follow from an event of one watch. The events of a single watch are
    /// returned as they are.
    pub(super) fn merge(&mut self, store: &Store<K>, part: usize, event: Event<K>) -> Vec<Event<K>> {
        if self.covered.len() == 1 {
            return vec![event];
        }
        let mut events = Vec::new();
        if !self.has_begun {
            // kube reads the store only after a list. This one is empty.
            self.has_begun = true;
            events.extend([Event::Init, Event::InitDone]);
        }
        match event {
            Event::Init => self.lists[part].clear(),
            Event::InitApply(object) => {
                self.lists[part].insert(ObjectRef::from_obj(&object));
                events.push(Event::Apply(object));
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.lists[part]);
                let is_gone = |object: &K| {
                    let object = ObjectRef::from_obj(object);
                    covers(&self.covered[part], &object) && !listed.contains(&object)
                };
                let gone = store.state_filter(is_gone);
                events.extend(gone.into_iter().map(|object| Event::Delete(K::clone(&object))));
            }
            Event::Apply(_) | Event::Delete(_) => events.push(event),
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::ResourceExt as _;
    use kube::runtime::reflector::{self, store::Writer};

    use super::*;

    /// The store, and what fills it.
    struct Filled {
        store: Store<ConfigMap>,
        writer: Writer<ConfigMap>,
        parts: Parts<ConfigMap>,
    }

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    impl Filled {
        /// The watches of the namespaces `a` and `b`, with their first lists.
        fn with_lists() -> Self {
            let (store, writer) = reflector::store();
            let parts = Parts::new(vec![Some("a".to_owned()), Some("b".to_owned())]);
            let mut filled = Self { store, writer, parts };
            filled.list(0, &[object("a", "one"), object("a", "two")]);
            filled.list(1, &[object("b", "one")]);
            filled
        }

        fn event(&mut self, part: usize, event: Event<ConfigMap>) -> Vec<Event<ConfigMap>> {
            let events = self.parts.merge(&self.store, part, event);
            for event in &events {
                self.writer.apply_watcher_event(event);
            }
            events
        }

        fn list(&mut self, part: usize, objects: &[ConfigMap]) -> Vec<Event<ConfigMap>> {
            self.event(part, Event::Init);
            for object in objects {
                self.event(part, Event::InitApply(object.clone()));
            }
            self.event(part, Event::InitDone)
        }

        /// The stored objects, as `namespace/name`, sorted.
        fn names(&self) -> Vec<String> {
            let name =
                |one: &ConfigMap| format!("{}/{}", one.namespace().unwrap_or_default(), one.name_any());
            let mut names: Vec<String> = self.store.state().iter().map(|one| name(one)).collect();
            names.sort_unstable();
            names
        }
    }

    #[test]
    fn list_of_one_namespace_keeps_objects_of_others() {
        let mut filled = Filled::with_lists();
        assert_eq!(filled.names(), ["a/one", "a/two", "b/one"]);
        let gone = filled.list(0, &[object("a", "two"), object("a", "three")]);
        assert!(matches!(&gone[..], [Event::Delete(gone)] if *gone == object("a", "one")), "{gone:?}");
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
    fn events_of_a_single_watch_are_unchanged() {
        let (store, _writer) = reflector::store::<ConfigMap>();
        for part in [None, Some("a".to_owned())] {
            let mut parts = Parts::new(vec![part]);
            for event in [Event::Init, Event::InitApply(object("a", "one")), Event::InitDone] {
                let expected = format!("{:?}", [&event]);
                assert_eq!(format!("{:?}", parts.merge(&store, 0, event)), expected);
            }
        }
    }

    #[test]
    fn watch_of_a_namespace_covers_it_and_its_objects() {
        let part = Some("a".to_owned());
        assert!(covers(&part, &ObjectRef::from_obj(&object("a", "one"))));
        assert!(!covers(&part, &ObjectRef::from_obj(&object("b", "a"))));
        assert!(covers(&part, &ObjectRef::<Namespace>::new("a")));
        assert!(!covers(&part, &ObjectRef::<Namespace>::new("b")));
        assert!(covers(&None, &ObjectRef::from_obj(&object("b", "one"))));
    }
}
