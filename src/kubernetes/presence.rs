//! Whether a watch has any objects: reported when the first list is complete, and whenever it changes.

use std::collections::HashSet;

use kube::Resource;
use kube::runtime::watcher::Event;

/// The objects that a watch has returned.
#[derive(Default)]
pub(super) struct Presence {
    uids: HashSet<String>,
    /// The presence that was reported last; `None` before the first list is complete.
    any: Option<bool>,
}

impl Presence {
    /// Processes an event. Returns whether there is any object now, if that has changed.
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
            // A deletion for which no event arrived.
            (Event::Init, None),
            (Event::InitDone, Some(false)),
        ] {
            assert_eq!(presence.observe(&event), news, "{event:?}");
        }
    }
}
