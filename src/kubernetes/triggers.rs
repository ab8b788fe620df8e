//! Which resources are to be reconciled because they have changed themselves, according to the events of their watches.
//!
//! It compares and remembers a hash of each resource ([`trigger_hash`]), nothing else: the reconcile reads the resource from
//! the cache. The resources of a list are returned when the list is complete, because reconciles do not use the cache
//! before.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kube::Resource as _;
use kube::runtime::watcher::Event;
use stream_encryption_core::controller::trigger::trigger_hash;

use super::store::Key;
use super::watches::MaybeInvalidResource;

/// What is known of the resources.
#[derive(Default)]
pub struct Triggers {
    hashes: HashMap<Key, u64>,
    /// The changed resources of the lists that are not complete.
    listed: Vec<Key>,
}

impl Triggers {
    /// Processes an event after its effect on the cache. Returns the resources that are to be reconciled now.
    ///
    /// A deleted resource is forgotten: if only its labels did not match for a while, it returns unchanged, and must be
    /// reconciled then.
    pub fn observe(&mut self, event: &Event<MaybeInvalidResource>) -> Vec<Key> {
        match event {
            Event::Init => Vec::new(),
            Event::InitApply(resource) => {
                let changed = self.changed(resource);
                self.listed.extend(changed);
                Vec::new()
            }
            Event::InitDone => std::mem::take(&mut self.listed),
            Event::Apply(resource) => self.changed(resource).into_iter().collect(),
            Event::Delete(resource) => {
                let key = Key::of(resource);
                self.hashes.remove(&key);
                vec![key]
            }
        }
    }

    fn changed(&mut self, resource: &MaybeInvalidResource) -> Option<Key> {
        let error = resource.0.as_ref().err().map_or("", |invalid| &invalid.error);
        let mut hasher = DefaultHasher::new();
        // Another resource of the same name has another uid.
        (&resource.meta().uid, trigger_hash(resource.meta(), error)).hash(&mut hasher);
        let (key, hash) = (Key::of(resource), hasher.finish());
        (self.hashes.insert(key.clone(), hash) != Some(hash)).then_some(key)
    }
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

    fn names(triggers: &mut Triggers, events: &[Event<MaybeInvalidResource>]) -> Vec<String> {
        events.iter().flat_map(|event| triggers.observe(event)).map(|key| key.name().to_owned()).collect()
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
        assert_eq!(names(&mut Triggers::default(), &events), ["moved", "other", "moved", "moved"]);
    }

    #[test]
    fn resource_created_again_is_reconciled_again() {
        let events = ["1", "1", "2"].map(|uid| Event::Apply(resource("orders", uid)));
        assert_eq!(names(&mut Triggers::default(), &events), ["orders", "orders"]);
    }

    #[test]
    fn listed_resources_are_returned_when_list_is_complete() {
        let mut triggers = Triggers::default();
        let [one, two] = ["one", "two"].map(|name| resource(name, name));
        let list = |objects: &[&MaybeInvalidResource]| {
            let objects = objects.iter().map(|object| Event::InitApply(MaybeInvalidResource::clone(object)));
            [Event::Init].into_iter().chain(objects).collect::<Vec<_>>()
        };
        // The list fails, and begins again.
        assert!(names(&mut triggers, &list(&[&one])).is_empty());
        assert!(names(&mut triggers, &list(&[&one, &two])).is_empty());
        assert_eq!(names(&mut triggers, &[Event::InitDone]), ["one", "two"]);
        assert!(names(&mut triggers, &list(&[&one, &two])).is_empty());
        assert!(names(&mut triggers, &[Event::InitDone]).is_empty(), "nothing has changed");
    }
}
