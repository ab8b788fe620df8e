//! Generations of the objects in a watch: a change of any of them is reported. Changes of the status and of
//! the metadata do not change the generation, and are ignored.

use std::collections::HashMap;

use kube::Resource;
use kube::runtime::watcher::Event;

/// The generations that a watch has returned, by uid.
#[derive(Default)]
pub(super) struct Generations {
    known: HashMap<String, Option<i64>>,
    /// The generations in the list that is in progress.
    listed: HashMap<String, Option<i64>>,
}

impl Generations {
    /// Processes an event. Returns whether an object has appeared, changed its generation or been deleted. A
    /// list is compared with the known generations once it is complete.
    pub(super) fn changed<K: Resource>(&mut self, event: &Event<K>) -> bool {
        let entry = |object: &K| {
            let meta = object.meta();
            (meta.uid.clone().unwrap_or_default(), meta.generation)
        };
        match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(object) => {
                self.listed.extend([entry(object)]);
                false
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let changed = listed != self.known;
                self.known = listed;
                changed
            }
            Event::Apply(object) => {
                let (uid, generation) = entry(object);
                self.known.insert(uid, generation) != Some(generation)
            }
            Event::Delete(object) => self.known.remove(&entry(object).0).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn object(uid: &str, generation: i64) -> Namespace {
        let metadata =
            ObjectMeta { uid: Some(uid.to_owned()), generation: Some(generation), ..ObjectMeta::default() };
        Namespace { metadata, ..Namespace::default() }
    }

    #[test]
    fn status_update_is_no_change_of_a_generation() {
        let mut generations = Generations::default();
        for (event, changed) in [
            (Event::Init, false),
            (Event::InitApply(object("a", 1)), false),
            (Event::InitDone, true),
            (Event::Apply(object("a", 1)), false),
            (Event::Apply(object("a", 2)), true),
            (Event::Apply(object("b", 1)), true),
            (Event::Delete(object("b", 1)), true),
            (Event::Delete(object("b", 1)), false),
            (Event::Init, false),
            (Event::InitApply(object("a", 2)), false),
            (Event::InitDone, false),
            // A change for which no event arrived, then a deletion.
            (Event::Init, false),
            (Event::InitApply(object("a", 3)), false),
            (Event::InitDone, true),
            (Event::Init, false),
            (Event::InitDone, true),
        ] {
            assert_eq!(generations.changed(&event), changed, "{event:?}");
        }
    }
}
