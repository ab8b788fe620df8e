//! Publishes events. Two events with different notes are two objects, the name of the resource may have any length, and
//! a lost event is logged.
//!
//! The recorder of kube-runtime treats two events that differ only in their note as the same one, and
//! increments the count of the first. It also names an event after its resource, which leaves no room if the
//! name is long. This file does both differently.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde_json::json;
use stream_encryption_api::FIELD_MANAGER;
use stream_encryption_api::ledger::Owner;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::{KubeError, ReconcileEvent};
use tracing::{debug, warn};

use super::event_budget::EventBudgets;
use super::request::{none_if_missing, with_timeout};

/// Maximum length of an event's note, in bytes: the API server rejects a longer one.
const LONGEST_NOTE: usize = 1024;
/// Maximum length of an object's name.
const LONGEST_NAME: usize = 253;
/// Time for which a repeated event counts as the same one, as in client-go.
const SERIES: SignedDuration = SignedDuration::from_mins(6);

/// Publishes events, and caches those of the last minutes, so that a repeated one increments a count instead
/// of creating another event.
pub(super) struct Recorder {
    client: Client,
    published: Mutex<HashMap<u64, Published>>,
    budgets: EventBudgets,
    /// Whether a lost event was logged as a warning since an event was last published.
    loss_reported: AtomicBool,
}

/// An event that was published.
#[derive(Clone)]
struct Published {
    name: String,
    count: i32,
    last: Timestamp,
}

impl Recorder {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            published: Mutex::default(),
            budgets: EventBudgets::default(),
            loss_reported: AtomicBool::new(false),
        }
    }

    /// Publishes an event. A new event of a resource that has had too many is lost without a request. The first failure after a
    /// success is logged as a warning, further failures only at debug level.
    pub(super) async fn publish(
        &self,
        resource: &Owner,
        happening: &ReconcileEvent,
    ) -> Result<(), KubeError> {
        let published = self.try_publish(resource, happening).await;
        let (namespace, name) = (&resource.namespace, &resource.name);
        let (reason, note) = (&happening.reason, &happening.note);
        match &published {
            Ok(()) => self.loss_reported.store(false, Ordering::Relaxed),
            Err(error) if !self.loss_reported.swap(true, Ordering::Relaxed) => {
                warn!(
                    namespace, name, reason, note, %error,
                    "an event was lost; further losses are counted, and reported at debug level only"
                );
            }
            Err(error) => debug!(namespace, name, reason, note, %error, "event was not published"),
        }
        published
    }

    async fn try_publish(&self, resource: &Owner, happening: &ReconcileEvent) -> Result<(), KubeError> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &resource.namespace);
        let now = Timestamp::now();
        let key = key(resource, happening);
        let known = {
            let mut published = self.published();
            let is_current = |event: &Published| event.last + SERIES > now;
            // Only before the table grows: after a burst, each visit of all events takes long.
            if published.len() == published.capacity() {
                published.retain(|_, event| is_current(event));
            }
            published.get(&key).filter(|event| is_current(event)).cloned()
        };
        if let Some(Published { name, count, .. }) = known {
            let count = count.saturating_add(1);
            let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
            let patched =
                none_if_missing(api.patch(&name, &PatchParams::default(), &Patch::Merge(&series))).await?;
            if patched.is_some() {
                self.published().insert(key, Published { name, count, last: now });
                return Ok(());
            }
        }
        if !self.budgets.take(resource) {
            return Err(KubeError::Rejected("the resource has had too many events".to_owned()));
        }
        let event = event(resource, happening, now);
        with_timeout(api.create(&PostParams::default(), &event)).await?;
        let name = event.metadata.name.unwrap_or_default();
        self.published().insert(key, Published { name, count: 1, last: now });
        Ok(())
    }

    fn published(&self) -> MutexGuard<'_, HashMap<u64, Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the identity of an event: a hash of everything that a reader sees of it, including the note.
fn key(resource: &Owner, happening: &ReconcileEvent) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&resource.namespace, &resource.name, &resource.uid).hash(&mut hasher);
    (happening.warning, &happening.reason, happening.action, &happening.note).hash(&mut hasher);
    hasher.finish()
}

fn event(resource: &Owner, happening: &ReconcileEvent, now: Timestamp) -> Event {
    let note = &happening.note[..happening.note.floor_char_boundary(LONGEST_NOTE)];
    Event {
        metadata: ObjectMeta {
            namespace: Some(resource.namespace.clone()),
            name: Some(name(&resource.name, now)),
            ..ObjectMeta::default()
        },
        action: Some(happening.action.to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(note.to_owned()),
        reason: Some(happening.reason.clone()),
        regarding: Some(ObjectReference {
            api_version: Some(StreamEncryption::api_version(&()).into_owned()),
            kind: Some(StreamEncryption::kind(&()).into_owned()),
            namespace: Some(resource.namespace.clone()),
            name: Some(resource.name.clone()),
            uid: Some(resource.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(FIELD_MANAGER.to_owned()),
        type_: Some(if happening.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

/// Returns the name of an event: that of its resource, shortened to leave room, and the time. A shortened
/// name must not end with a separator.
fn name(resource: &str, now: Timestamp) -> String {
    let suffix = format!(".{:x}", now.as_nanosecond());
    let room = LONGEST_NAME.saturating_sub(suffix.len());
    let cut = &resource[..resource.floor_char_boundary(room)];
    format!("{}{suffix}", cut.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use axum::Router;
    use axum::extract::Request;
    use axum::http::Method;
    use stream_encryption_core::model::object::is_dns_subdomain;

    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "data".to_owned(), name: name.to_owned(), uid: "uid-1".to_owned() }
    }

    fn happening(note: &str) -> ReconcileEvent {
        ReconcileEvent {
            warning: true,
            reason: "SpecInvalid".to_owned(),
            action: "Reconcile",
            note: note.to_owned(),
        }
    }

    #[test]
    fn event_note_is_truncated_at_a_character_boundary() {
        for (note, kept) in [
            ("short".to_owned(), "short".to_owned()),
            ("ü".repeat(1000), "ü".repeat(512)),
            ("€".repeat(1000), "€".repeat(341)),
            ("x".repeat(1025), "x".repeat(1024)),
            (String::new(), String::new()),
        ] {
            let event = event(&owner("orders"), &happening(&note), Timestamp::UNIX_EPOCH);
            assert_eq!(event.note, Some(kept));
        }
    }

    #[test]
    fn event_name_is_valid_for_every_length_of_resource_name() {
        let now: Timestamp = "2026-11-26T02:00:00.123456789Z".parse().unwrap();
        for length in 1..=253 {
            // A separator at the position where the name may be cut; no name begins with one.
            let separators: &[&str] = if length == 1 { &[""] } else { &["", "-", "."] };
            for separator in separators {
                let text: String = "a".repeat(length);
                let cut = 236.min(length);
                let resource = format!("{}{separator}{}", &text[..cut - 1], &text[cut - 1..]);
                let resource = &resource[..resource.len().min(253)];
                let event = event(&owner(resource), &happening("note"), now);
                let name = event.metadata.name.unwrap();
                assert!(is_dns_subdomain(&name), "{length}: {name}");
                assert_eq!(event.regarding.unwrap().name.as_deref(), Some(resource));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn resource_with_many_events_costs_no_other_one_its_event() {
        let created = Arc::new(AtomicUsize::new(0));
        let count = created.clone();
        // The response is the object of the request.
        let server = Router::new().fallback(async move |request: Request| {
            count.fetch_add(usize::from(request.method() == Method::POST), Ordering::Relaxed);
            request.into_body()
        });
        let recorder = Recorder::new(Client::new(server, "default"));
        let mut lost = 0;
        for number in 0..200 {
            let published = recorder.publish(&owner("orders"), &happening(&number.to_string())).await;
            lost += usize::from(published.is_err());
        }
        assert_eq!((lost, created.load(Ordering::Relaxed)), (175, 25));
        recorder.publish(&owner("orders"), &happening("0")).await.expect("it counts as the first event");
        recorder.publish(&owner("other"), &happening("0")).await.expect("another resource");
        assert_eq!(created.load(Ordering::Relaxed), 26);
        tokio::time::sleep(Duration::from_mins(5)).await;
        recorder.publish(&owner("orders"), &happening("later")).await.expect("one every five minutes");
    }

    #[test]
    fn different_note_is_a_different_event() {
        let of = |note: &str| key(&owner("orders"), &happening(note));
        assert_ne!(of("encrypted with key/2222"), of("encrypted with key/4444"));
        assert_eq!(of("encrypted with key/2222"), of("encrypted with key/2222"));
    }
}
