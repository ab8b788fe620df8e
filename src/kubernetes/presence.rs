//! Whether there is any object of a watch: told when its first list is complete, and whenever that changes.

use std::collections::HashSet;

use kube::Resource;
use kube::runtime::watcher::Event;

/// The objects that a watch has shown.
#[derive(Default)]
pub(super) struct Presence {
    uids: HashSet<String>,
    /// Whether there was any when it was last told; `None` before the first list is complete.
    any: Option<bool>,
}

impl Presence {
    /// Counts an event; returns whether there is any object now, if that is news.
    pub(super) fn observe<K: Resource>(&mut self, event: &Event<K>) -> Option<bool> {
        let uid = |object: &K| object.meta().uid.clone().unwrap_or_default();
        match event {
            Event::Init => {
                self.uids.clear();
                return None;
            }
            Event::InitApply(object) => {
                self.uids.insert(uid(object));
                return None;
            }
            Event::InitDone => {}
            Event::Apply(object) => {
                self.uids.insert(uid(object));
            }
            Event::Delete(object) => {
                self.uids.remove(&uid(object));
            }
        }
        let any = !self.uids.is_empty();
        (self.any.replace(any) != Some(any)).then_some(any)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn object(uid: &str) -> Namespace {
        Namespace {
            metadata: ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() },
            ..Namespace::default()
        }
    }

    #[test]
    fn presence_is_reported_after_first_list_and_when_it_changes() {
        let mut presence = Presence::default();
        for (event, news) in [
            (Event::Init, None),
            (Event::InitDone, Some(false)),
            (Event::Apply(object("a")), Some(true)),
            (Event::Apply(object("b")), None),
            (Event::Apply(object("a")), None),
            (Event::Delete(object("a")), None),
            (Event::Delete(object("b")), Some(false)),
            (Event::Delete(object("b")), None),
            (Event::Init, None),
            (Event::InitApply(object("c")), None),
            (Event::InitDone, Some(true)),
            // A deletion that no event told of.
            (Event::Init, None),
            (Event::InitDone, Some(false)),
        ] {
            assert_eq!(presence.observe(&event), news, "{event:?}");
        }
    }
}
