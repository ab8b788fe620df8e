//! The sources of a term: the watches with the caches that they fill, and the changes that wake resources.
//!
//! The policies and the ledgers have one watch each, which everything in the process shares. The resources, the labels
//! of the namespaces and the key objects of each provider have one watch each too, or one for each watched namespace.
//! The key objects are not cached: their changes only wake resources. This module only reads.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, select_all};
use futures_util::{Stream, StreamExt as _};
use kube::core::Selector;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use tokio::sync::Notify;
use tracing::debug;

use super::dispatcher::Trigger;
use crate::kubernetes::caches::{Cache, Caches};
use crate::kubernetes::change_detector::ChangeDetector;
use crate::kubernetes::keys::KeyObject;
use crate::kubernetes::ledgers::MaybeInvalidLedger;
use crate::kubernetes::policies::NamespaceLabels;
use crate::kubernetes::store::{Key, Store};
use crate::kubernetes::watches::MaybeInvalidResource;
use crate::kubernetes::{keys, ledgers, policies, watches};

/// Number of drift intervals after which the watches list everything again, in case that they lost a change.
const RELIST_INTERVALS: u32 = 6;

/// The pause before changes of key objects and of namespaces are looked up, together with those that follow meanwhile: users
/// can change these objects any number of times.
const CHANGES_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of changes that are looked up together. A list of key objects is one change.
const MAX_CHANGES: usize = 4096;

/// The scope of the watches.
pub(super) struct WatchScope {
    pub(super) client: Client,
    /// The watched namespaces; empty for all namespaces.
    pub(super) namespaces: Vec<String>,
    /// Selects the resources by their labels; `None` for all resources.
    pub(super) selector: Option<Selector>,
    /// The namespace of the ledgers.
    pub(super) ledger_namespace: String,
    /// The interval between two checks for drift.
    pub(super) drift_interval: Duration,
    /// Whether a default policy is set, which is not stored in the cluster.
    pub(super) has_default_policy: bool,
}

impl WatchScope {
    /// Returns whether the scope holds every resource of the cluster.
    pub(super) fn is_everything(&self) -> bool {
        self.namespaces.is_empty() && self.selector.is_none()
    }

    /// Returns one watch of everything, or one for each watched namespace.
    fn each<S>(&self, watch: impl Fn(Option<&str>) -> S) -> Vec<(Option<String>, S)> {
        if self.namespaces.is_empty() {
            return vec![(None, watch(None))];
        }
        self.namespaces.iter().map(|namespace| (Some(namespace.clone()), watch(Some(namespace)))).collect()
    }
}

impl fmt::Display for WatchScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespaces = self.namespaces.join(", ");
        f.write_str(if namespaces.is_empty() { "all namespaces" } else { &namespaces })?;
        self.selector.as_ref().map_or(Ok(()), |selector| write!(f, ", resources with {selector}"))
    }
}

/// The caches of a term, and the streams that fill them and wake resources.
pub(super) struct Sources {
    /// The caches. Each is filled while its stream below is polled.
    pub(super) caches: Caches,
    /// The changes that lead to reconciles.
    pub(super) triggers: BoxStream<'static, Trigger>,
    /// The events of the ledgers, which wake no resource.
    pub(super) ledgers: BoxStream<'static, watcher::Result<Event<MaybeInvalidLedger>>>,
    /// Notified of every change of the resources, the policies and the namespaces.
    pub(super) changed: Arc<Notify>,
}

impl Sources {
    /// Returns the sources of a term. No request is sent before a stream is polled.
    pub(super) fn watch(scope: &WatchScope) -> Self {
        let (client, selector) = (&scope.client, scope.selector.as_ref());
        let changed = Arc::new(Notify::new());
        let relist_every = scope.drift_interval.saturating_mul(RELIST_INTERVALS);
        let events = scope
            .each(|namespace| watches::resources(client.clone(), namespace, selector, relist_every).boxed());
        let (resources_cache, resources) = Cache::of(events, "StreamEncryptions", &changed);
        let events = policies::events(client.clone(), relist_every);
        let (policies_cache, policies) =
            Cache::of(vec![(None, events)], "StreamEncryptionPolicies", &changed);
        let events = scope
            .each(|namespace| policies::namespace_events(client.clone(), namespace, relist_every).boxed());
        let (namespaces_cache, namespaces) = Cache::of(events, "namespaces", &changed);
        // The reconciles work without this watch: an RBAC role of an earlier version does not allow it.
        let events = ledgers::events(client.clone(), &scope.ledger_namespace, relist_every);
        // `changed` wakes the task that writes the statuses of policies. They do not depend on ledgers, so the ledgers
        // notify nothing.
        let (ledgers_cache, ledgers) = Cache::of(vec![(None, events)], "StreamLedgers", &Arc::default());
        let store = resources_cache.store();
        let keys = scope.each(|namespace| keys::changes(client, namespace).boxed());
        let keys = select_all(keys.into_iter().map(|(_, changes)| changes));
        let triggers: [BoxStream<'static, Trigger>; 4] = [
            changed_resources(resources).boxed(),
            resources_in_namespace(changed_namespaces(namespaces), store.clone()).map(Trigger::One).boxed(),
            resources_using_key(keys, store).map(Trigger::One).boxed(),
            policies::spec_changes(policies, scope.has_default_policy).map(|()| Trigger::All).boxed(),
        ];
        Self {
            triggers: select_all(triggers).boxed(),
            ledgers: ledgers.boxed(),
            caches: Caches {
                resources: resources_cache,
                policies: policies_cache,
                namespaces: namespaces_cache,
                ledgers: ledgers_cache,
            },
            changed,
        }
    }
}

/// Returns a stream of the resources that have changed or were deleted. The cache logs the errors of their watch.
fn changed_resources(
    events: impl Stream<Item = watcher::Result<Event<MaybeInvalidResource>>> + Send + 'static,
) -> impl Stream<Item = Trigger> + Send + 'static {
    let mut detector = ChangeDetector::of_resources();
    events.flat_map(move |event| {
        let mut triggers = Vec::new();
        if let Ok(event) = event {
            if let Event::Delete(resource) = &event {
                triggers.extend(resource.uid().map(Trigger::Deleted));
            }
            triggers.extend(detector.observe(&event).into_iter().map(Trigger::One));
        }
        futures_util::stream::iter(triggers)
    })
}

/// Returns a stream of the name of every namespace that appears, changes its labels or is deleted.
fn changed_namespaces(
    events: impl Stream<Item = watcher::Result<Event<NamespaceLabels>>> + Send + 'static,
) -> impl Stream<Item = String> + Send + 'static {
    let mut detector = ChangeDetector::of_namespaces();
    events.flat_map(move |event| {
        let changed = event.map(|event| detector.observe(&event)).unwrap_or_default();
        futures_util::stream::iter(changed.into_iter().map(|namespace| namespace.name().to_owned()))
    })
}

/// Returns a stream of the resources that reference a changed key object. The changes of a second are looked up together, and
/// beside the dispatcher.
fn resources_using_key(
    changes: impl Stream<Item = Vec<KeyObject>> + Send + 'static,
    store: Store<MaybeInvalidResource>,
) -> impl Stream<Item = Key> + Send + 'static {
    let found = changes.ready_chunks(MAX_CHANGES).then(move |batch| {
        let (objects, store) = (batch.concat(), store.clone());
        async move {
            tokio::time::sleep(CHANGES_PAUSE).await;
            let find = move || {
                let found = users_of(&objects, &store, |resource| store.get(resource));
                debug!(keys = objects.len(), users = found.len(), "key objects changed");
                found
            };
            let found = tokio::task::spawn_blocking(find).await;
            found.unwrap_or_else(|error| resume_unwind(error.into_panic()))
        }
    });
    found.flat_map(futures_util::stream::iter)
}

/// Returns those of the resources that reference one of these key objects. `get` unpacks a resource. It is called once
/// for each resource in the namespaces of the key objects, however many key objects have changed.
fn users_of(
    changed: &[KeyObject],
    store: &Store<MaybeInvalidResource>,
    get: impl Fn(&Key) -> Option<MaybeInvalidResource>,
) -> Vec<Key> {
    let namespaces: BTreeSet<&str> = changed.iter().map(|object| object.key.namespace()).collect();
    let changed: HashSet<(&str, &Key)> = changed.iter().map(|object| (object.group, &object.key)).collect();
    let mut users: Vec<Key> = namespaces.into_iter().flat_map(|namespace| store.keys_in(namespace)).collect();
    users.retain(|resource| {
        let spec = get(resource).and_then(|resource| resource.0.ok()).map(|resource| resource.spec);
        spec.and_then(|spec| spec.key?.object_ref).is_some_and(|reference| {
            changed.contains(&(&*reference.group, &Key::new(resource.namespace(), &reference.name)))
        })
    });
    users
}

/// Returns a stream of the resources in a changed namespace: other policies may select the namespace now. A namespace that
/// changes several times within a second counts once.
fn resources_in_namespace(
    changes: impl Stream<Item = String> + Send + 'static,
    store: Store<MaybeInvalidResource>,
) -> impl Stream<Item = Key> + Send + 'static {
    let batches = changes.ready_chunks(MAX_CHANGES).then(async |batch| {
        tokio::time::sleep(CHANGES_PAUSE).await;
        batch.into_iter().collect::<BTreeSet<String>>()
    });
    batches.flat_map(move |namespaces| {
        let resources: Vec<Key> = namespaces.iter().flat_map(|namespace| store.keys_in(namespace)).collect();
        futures_util::stream::iter(resources)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use axum::Router;
    use axum::http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::test_log::Log;

    fn resource(namespace: &str, name: &str, object_ref: &Value) -> MaybeInvalidResource {
        let resource = json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": name, "namespace": namespace, "uid": name},
            "spec": {
                "stream": {"service": "Kinesis", "name": name},
                "key": {"type": "CUSTOMER_MANAGED_CMK", "objectRef": object_ref},
            },
        });
        serde_json::from_value(resource).unwrap()
    }

    #[test]
    fn changed_key_objects_unpack_each_resource_once() {
        let (group, other_group) = ("kms.services.k8s.aws", "kms.aws.m.upbound.io");
        let to = |group: &str, name: &str| json!({"group": group, "kind": "Key", "name": name});
        let store = Store::default();
        for (namespace, name, object_ref) in [
            ("data", "user", to(group, "orders")),
            ("data", "second-user", to(other_group, "events")),
            ("data", "other-key", to(group, "invoices")),
            ("data", "other-group", to(other_group, "orders")),
            ("web", "other-namespace", to(group, "orders")),
        ] {
            store.apply(&Event::Apply(resource(namespace, name, &object_ref)));
        }
        let object = |group, name| KeyObject { group, key: Key::new("data", name) };
        let changed = [object(group, "orders"), object(other_group, "events"), object(group, "unused")];
        let unpacked = RefCell::new(Vec::new());
        let users = users_of(&changed, &store, |key| {
            unpacked.borrow_mut().push(key.name().to_owned());
            store.get(key)
        });
        assert_eq!(users, ["second-user", "user"].map(|name| Key::new("data", name)));
        assert_eq!(unpacked.into_inner(), ["other-group", "other-key", "second-user", "user"]);
    }

    #[tokio::test]
    async fn deleted_resource_is_named_by_its_uid_and_reconciled() {
        let orders = resource("data", "orders", &Value::Null);
        let events = [Event::Apply(orders.clone()), Event::Delete(orders)].map(Ok);
        let triggers = changed_resources(futures_util::stream::iter(events));
        let triggers: Vec<String> = triggers.map(|trigger| format!("{trigger:?}")).collect().await;
        let changed = format!("{:?}", Trigger::One(Key::new("data", "orders")));
        let deleted = format!("{:?}", Trigger::Deleted("orders".to_owned()));
        assert_eq!(triggers, [changed.clone(), deleted, changed]);
    }

    #[tokio::test(start_paused = true)]
    async fn key_object_that_changes_often_wakes_once_a_second() {
        let (group, store) = ("kms.services.k8s.aws", Store::default());
        let object_ref = json!({"group": group, "kind": "Key", "name": "orders"});
        store.apply(&Event::Apply(resource("data", "user", &object_ref)));
        let change = || vec![KeyObject { group, key: Key::new("data", "orders") }];
        let changes = futures_util::stream::repeat_with(change).take(5_000);
        let begin = tokio::time::Instant::now();
        let woken: Vec<Key> = resources_using_key(changes, store).collect().await;
        assert_eq!((woken.len(), begin.elapsed().as_secs()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn namespace_that_changes_often_wakes_once_a_second() {
        let store = Store::default();
        store.apply(&Event::Apply(resource("data", "user", &Value::Null)));
        let changes = futures_util::stream::repeat_with(|| "data".to_owned()).take(5_000);
        let woken: Vec<Key> = resources_in_namespace(changes, store).collect().await;
        assert_eq!(woken.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_watch_is_logged_once_a_minute_with_its_namespace() {
        let failures = futures_util::stream::repeat_with(|| Err(watcher::Error::NoResourceVersion));
        let failures = failures.then(async |failure| {
            tokio::time::sleep(Duration::from_secs(3)).await;
            failure
        });
        let (log, _guard) = Log::capture();
        let watches = vec![(Some("data".to_owned()), failures)];
        let (_, events) = Cache::of(watches, "StreamEncryptions", &Arc::default());
        let polled = changed_resources(events).for_each(|_| std::future::ready(()));
        let _ = tokio::time::timeout(Duration::from_secs(122), polled).await;
        let lines = log.lines_with("failed to watch StreamEncryptions");
        assert_eq!(lines.len(), 2, "{}", log.text());
        assert!(lines[0].contains("data"), "{}", log.text());
    }

    #[tokio::test(start_paused = true)]
    async fn forbidden_watch_of_keys_is_logged_once_a_minute() {
        let server = Router::new().fallback(|| async { (StatusCode::FORBIDDEN, "no") });
        let (log, _guard) = Log::capture();
        let changes = keys::changes(&Client::new(server, "default"), Some("data"));
        let polled = changes.for_each(|_| std::future::ready(()));
        let _ = tokio::time::timeout(Duration::from_mins(10), polled).await;
        for group in ["kms.services.k8s.aws", "kms.aws.m.upbound.io"] {
            let lines = log.lines_with(&format!("failed to watch keys.{group}"));
            assert!((7..=10).contains(&lines.len()), "{}", log.text());
            assert!(lines[0].contains("data") && lines[0].contains("not allowed"), "{}", log.text());
        }
    }
}
