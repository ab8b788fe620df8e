//! Kubernetes: the port [`KubeApi`] on the API server, and the caches of its watches. Only four files write.
//!
//! `resources` writes the status and the finalizer of resources. `policy_status` writes the status of policies, with
//! the function of `resources`. `events` writes events, `ledgers` the operator's ledgers. Every request has a deadline,
//! except for watches and the lists with which they begin: their connections may be silent for at most 79 s, `early_end`
//! limits the response to a watch, and `page_retry` each page. Of a reconcile, this module repeats only the write of a
//! ledger (`ledgers`): the next reconcile sends any other request, with the state at that time. Otherwise only the pages
//! of the lists of watches are requested again (`page_retry`), and the requests of a person's command (`refusal_retry`).

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Api;
use stream_encryption_api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, LedgerPage, ReadFrom, ReconcileEvent, ReferencedKey,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::warn;

use caches::{Caches, NotCurrent};
use events::Recorder;
use policies::MaybeInvalidPolicy;
pub use policies::UnappliedObjects;
pub(crate) use request::{is_missing_object, strict};
use shared_read::SharedRead;
use store::Key;
pub(crate) use trimmed::Unmanaged;

pub mod caches;
pub mod change_detector;
pub mod connection;
pub mod early_end;
mod event_budget;
mod events;
mod generations;
pub mod keys;
pub mod ledgers;
mod merged_watches;
pub mod page_retry;
pub mod policies;
pub mod policy_status;
mod presence;
pub mod refusal_retry;
mod request;
mod resources;
mod retry;
mod shared_read;
pub mod store;
mod trimmed;
pub mod valid_text;
pub mod watches;
mod wrapped;

/// Access to the API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    ledgers: Api<StreamLedger>,
    ledger_namespace: Arc<str>,
    /// The watched namespaces; empty for all.
    watched: Arc<[String]>,
    caches: Arc<Mutex<Option<Caches>>>,
    default_policy: Option<StreamEncryptionPolicySpec>,
    unapplied: Arc<UnappliedObjects>,
    /// Reads the live policies, with those that are not applied yet.
    policies: Arc<SharedRead<Vec<MaybeInvalidPolicy>>>,
    recorder: Arc<Recorder>,
    large_object_permits: Arc<Semaphore>,
}

/// The tokens of pages that come from the cache begin so. Those of the API server are encoded as base64, without colons.
const CACHED: &str = "cache:";

/// The limit of concurrent requests for objects that users write is at least this. Each object may have 1.5 MB, and many
/// more reconciles run at a time. Without a limit, each of them could hold such an object in memory.
const MIN_LARGE_OBJECT_PERMITS: usize = 8;
/// With more concurrent reconciles, one such request may run for every four of them. The memory that large objects may
/// take grows with the number of reconciles that an administrator allows.
const RECONCILES_PER_LARGE_OBJECT_REQUEST: usize = 4;

impl Cluster {
    /// Creates access with ledgers in the namespace `ledger_namespace`. The default policy is treated like
    /// one that is stored in the cluster.
    #[must_use]
    pub fn new(
        client: Client,
        ledger_namespace: &str,
        default_policy: Option<StreamEncryptionPolicySpec>,
    ) -> Self {
        if let Some(error) = default_policy.as_ref().and_then(policies::selector_error) {
            warn!(error, "invalid default policy, allowing nothing");
        }
        let ledgers = Api::namespaced(client.clone(), ledger_namespace);
        let recorder = Arc::new(Recorder::new(client.clone()));
        Self {
            client,
            ledgers,
            ledger_namespace: ledger_namespace.into(),
            watched: Arc::default(),
            caches: Arc::default(),
            default_policy,
            unapplied: Arc::default(),
            policies: Arc::default(),
            recorder,
            large_object_permits: Arc::new(Semaphore::new(MIN_LARGE_OBJECT_PERMITS)),
        }
    }

    /// Returns the same access, whose [`ledgers`](KubeApi::ledgers) omits the ledgers of owners outside these
    /// namespaces: the operator may be unable to look up such an owner. An empty list stands for all namespaces.
    #[must_use]
    pub fn watching(self, namespaces: &[String]) -> Self {
        Self { watched: namespaces.into(), ..self }
    }

    /// Returns the same access to a cluster as it would be once these objects are applied.
    #[must_use]
    pub fn with_unapplied(self, unapplied: UnappliedObjects) -> Self {
        Self { unapplied: unapplied.into(), policies: Arc::default(), ..self }
    }

    /// Returns the same access for so many concurrent reconciles.
    #[must_use]
    pub fn for_reconciles(self, concurrency: u16) -> Self {
        let permits =
            (usize::from(concurrency) / RECONCILES_PER_LARGE_OBJECT_REQUEST).max(MIN_LARGE_OBJECT_PERMITS);
        Self { large_object_permits: Arc::new(Semaphore::new(permits)), ..self }
    }

    /// Sets the caches that reads may use; `None` while nothing fills them.
    pub fn use_caches(&self, caches: Option<Caches>) {
        *self.caches.lock().unwrap_or_else(PoisonError::into_inner) = caches;
    }

    /// Returns the number of watches of each kind that are not current, as [`Caches::watches_not_current`] does; `None` while
    /// nothing fills the caches.
    #[must_use]
    pub fn watches_not_current(&self) -> Option<Vec<(&'static str, usize)>> {
        Some(self.caches()?.watches_not_current())
    }

    /// Returns the caches that reads may use; `None` while nothing fills them.
    fn caches(&self) -> Option<Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads from the caches; `None` if the source of the read does not permit them, or if they are not current.
    fn cached<T>(&self, from: ReadFrom, read: impl FnOnce(&Caches) -> Result<T, NotCurrent>) -> Option<T> {
        if from == ReadFrom::ApiServer {
            return None;
        }
        read(&self.caches()?).ok()
    }

    /// Returns a page of the ledgers from the cache; `None` if it is not current. `after` is the last key of the page before.
    fn cached_ledgers(&self, after: Option<&str>) -> Option<LedgerPage> {
        let after = after.map(|path| Key::of_path(path.into()));
        let (ledgers, last) = self.cached(ReadFrom::Cache, |caches| caches.ledgers(after.as_ref()))?;
        Some(LedgerPage { ledgers, next: last.map(|key| format!("{CACHED}{key}")) })
    }

    /// Removes a resource that a write has not found from the cache, if its watch does not work, as
    /// [`resource`](KubeApi::resource) does. The operator only writes an invalid resource, and does not read it before.
    fn remove_missing(&self, missing: &ObjectMeta) {
        let namespace = missing.namespace.as_deref().unwrap_or_default();
        let name = missing.name.as_deref().unwrap_or_default();
        if let (Some(caches), Some(uid)) = (self.caches(), &missing.uid)
            && caches.unwatched_uid(namespace, name).is_some()
        {
            caches.remove_resource(namespace, name, uid);
        }
    }

    /// Acquires a permit for a read of an object that users write. It is held during the whole request: no webhook can
    /// delay a read, in contrast to a write (`request::send_then_acquire`).
    async fn acquire_large_object_permit(&self) -> Result<SemaphorePermit<'_>, KubeError> {
        match tokio::time::timeout(request::DEADLINE, self.large_object_permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(KubeError::Unavailable(format!(
                "too many requests for objects that users write are running or waiting, for more than {} s",
                request::DEADLINE.as_secs()
            ))),
        }
    }
}

impl KubeApi for Cluster {
    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        if let Some(cached) = self.cached(from, |caches| caches.resource(namespace, name)) {
            return Ok(cached);
        }
        let caches = self.caches();
        let unwatched = caches.as_ref().and_then(|caches| caches.unwatched_uid(namespace, name));
        let _permit = self.acquire_large_object_permit().await?;
        let found = resources::read(&self.client, namespace, name).await?;
        if found.is_none()
            && let (Some(caches), Some(uid)) = (caches, unwatched)
        {
            // The watch may fail for good, for example because the operator's Role was deleted with the namespace. The metrics
            // would count the resource until the operator is restarted.
            caches.remove_resource(namespace, name, &uid);
        }
        Ok(found)
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        if let Some(cached) = self.cached(from, |caches| caches.ledger(&self.ledger_namespace, name)) {
            return Ok(cached);
        }
        ledgers::read(&self.ledgers, name).await
    }

    async fn ledgers(&self, after: Option<&str>) -> Result<LedgerPage, KubeError> {
        // All pages of one list come from the same source.
        let cached = match after.map(|token| token.strip_prefix(CACHED)) {
            None => self.cached_ledgers(None),
            Some(Some(key)) => {
                // Without requests, the whole list would be one step of its task. The lease must be renewed meanwhile.
                tokio::task::yield_now().await;
                let ended = || KubeError::Unavailable("the caches are no longer filled".to_owned());
                Some(self.cached_ledgers(Some(key)).ok_or_else(ended)?)
            }
            Some(None) => None,
        };
        let mut page = match cached {
            Some(page) => page,
            None => ledgers::page(self.client.clone(), &self.ledger_namespace, after).await?,
        };
        if !self.watched.is_empty() {
            page.ledgers.retain(|ledger| self.watched.contains(&ledger.spec.owner.namespace));
        }
        Ok(page)
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        ledgers::create(&self.ledgers, name, spec).await
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        ledgers::replace(&self.ledgers, ledger).await
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        ledgers::delete(&self.ledgers, ledger).await
    }

    async fn write_status(
        &self,
        metadata: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        let permits = &self.large_object_permits;
        let written =
            resources::write_status::<StreamEncryption>(&self.client, permits, metadata, status).await?;
        if written.is_none() {
            self.remove_missing(metadata);
        }
        Ok(written)
    }

    async fn publish_event(&self, resource: &Owner, event: &ReconcileEvent) -> Result<(), KubeError> {
        self.recorder.publish(resource, event).await
    }

    async fn set_finalizer(&self, metadata: &ObjectMeta, present: bool) -> Result<Option<String>, KubeError> {
        let permits = &self.large_object_permits;
        let written = resources::set_finalizer(&self.client, permits, metadata, present).await?;
        if written.is_none() {
            self.remove_missing(metadata);
        }
        Ok(written)
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        let default = self.default_policy.as_ref();
        if let Some(cached) = self.cached(from, |caches| caches.policies(default, namespace)) {
            return Ok(cached);
        }
        // One list for all reconciles that are about to change a stream: the API server answers only about a hundred
        // such lists per second.
        let (client, unapplied) = (self.client.clone(), self.unapplied.clone());
        let listed = self.policies.read(move || policies::list(client, unapplied)).await?;
        policies::live_in_namespace(&self.client, &listed, default, &self.unapplied, namespace).await
    }

    async fn referenced_key(
        &self,
        namespace: &str,
        reference: &KeyObjectReference,
    ) -> Result<ReferencedKey, KubeError> {
        let _permit = self.acquire_large_object_permit().await?;
        keys::referenced_key(&self.client, namespace, reference).await
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use axum::http::{StatusCode, Uri};
    use futures_util::{Stream, StreamExt as _, stream};
    use kube::core::{DeserializeGuard, Status};
    use kube::runtime::watcher::{Error, Event, Result};
    use serde_json::json;

    use super::caches::Cache;
    use super::store::Kind;
    use super::watches::MaybeInvalidResource;
    use super::*;

    /// Returns a cache without a watch of its own, and the events of `watch`.
    fn cache<K: Kind + Send + Sync + 'static>(
        watch: impl Stream<Item = Result<Event<K>>> + Send + 'static,
    ) -> (Cache<K>, impl Stream<Item = Result<Event<K>>>) {
        Cache::of(vec![(None, watch)], "ledgers", &Arc::default())
    }

    /// Returns caches that hold nothing, and that nothing fills.
    pub(super) fn no_caches() -> Caches {
        Caches {
            resources: cache(stream::empty()).0,
            policies: cache(stream::empty()).0,
            namespaces: cache(stream::empty()).0,
            ledgers: cache(stream::empty()).0,
        }
    }

    fn forbidden() -> Error {
        Error::WatchError(Box::new(Status::failure("forbidden", "Forbidden").with_code(403)))
    }

    fn ledger(name: &str) -> StreamLedger {
        let owner = json!({"namespace": "data", "name": "orders", "uid": "1"});
        let mut ledger = StreamLedger::new(
            name,
            serde_json::from_value(json!({"streamARN": "arn", "owner": owner})).unwrap(),
        );
        ledger.metadata.namespace = Some("operator".to_owned());
        ledger
    }

    /// Returns the names of the ledgers in a page.
    fn names(page: &LedgerPage) -> Vec<&str> {
        page.ledgers.iter().filter_map(|ledger| ledger.metadata.name.as_deref()).collect()
    }

    /// The API server has two other ledgers than the cache, on two pages.
    #[tokio::test]
    async fn pages_of_one_list_have_one_source() {
        let server = Router::new().fallback(async |request: Request| {
            let is_second = request.uri().query().unwrap_or_default().contains("continue=");
            let (name, next) = if is_second { ("last-listed", "") } else { ("first-listed", "2") };
            json!({
                "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamLedgerList",
                "metadata": {"continue": next}, "items": [ledger(name)],
            })
            .to_string()
        });
        let cluster = Cluster::new(Client::new(server, "operator"), "operator", None);
        let (send, events) = tokio::sync::mpsc::unbounded_channel();
        let watch = stream::unfold(events, |mut events| async { Some((events.recv().await?, events)) });
        let (ledgers, changes) = cache(watch);
        let mut changes = std::pin::pin!(changes);
        cluster.use_caches(Some(Caches { ledgers, ..no_caches() }));
        let cached: Vec<String> = (10..=60).map(|number| format!("ledger-{number}")).collect();
        send.send(Ok(Event::Init)).unwrap();
        for name in &cached {
            send.send(Ok(Event::InitApply(DeserializeGuard(Ok(ledger(name)))))).unwrap();
            changes.next().await;
        }
        let listed = cluster.ledgers(None).await.unwrap();
        assert_eq!(names(&listed), ["first-listed"], "the first list of the watch is not complete");

        send.send(Ok(Event::InitDone)).unwrap();
        while !matches!(changes.next().await, Some(Ok(Event::InitDone))) {}
        let listed = cluster.ledgers(listed.next.as_deref()).await.unwrap();
        assert_eq!((names(&listed), listed.next.as_deref()), (vec!["last-listed"], None));
        let first = cluster.ledgers(None).await.unwrap();

        send.send(Err(forbidden())).unwrap();
        while !matches!(changes.next().await, Some(Err(_))) {}
        let second = cluster.ledgers(first.next.as_deref()).await.unwrap();
        assert_eq!([names(&first), names(&second)], [&cached[..50], &cached[50..]]);
        assert_eq!(second.next, None);
        assert_eq!(names(&cluster.ledgers(None).await.unwrap()), ["first-listed"]);

        cluster.use_caches(None);
        let ended = cluster.ledgers(first.next.as_deref()).await;
        assert!(matches!(ended, Err(KubeError::Unavailable(_))), "{ended:?}");
    }

    /// Returns a cache with this resource. Its watch fails after the list if `watch_fails`.
    async fn cache_of(resource: MaybeInvalidResource, watch_fails: bool) -> Cache<MaybeInvalidResource> {
        let list = [Event::Init, Event::InitApply(resource), Event::InitDone].map(Ok);
        let failure = watch_fails.then(|| Err(forbidden()));
        let (resources, changes) = cache(stream::iter(list.into_iter().chain(failure)));
        changes.for_each(|_| std::future::ready(())).await;
        resources
    }

    /// Returns a response of the API server that names the object `data`.
    fn refusal(code: StatusCode, reason: &str) -> (StatusCode, String) {
        let status = json!({
            "kind": "Status", "status": "Failure", "reason": reason, "code": code.as_u16(), "message": "no",
            "details": {"name": "data"},
        });
        (code, status.to_string())
    }

    fn resource(uid: &str) -> MaybeInvalidResource {
        let resource = json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data", "uid": uid},
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
        });
        serde_json::from_value(resource).unwrap()
    }

    /// The namespace was deleted, and the operator's Role with it.
    #[tokio::test]
    async fn missing_resource_is_removed_from_cache_if_its_watch_fails() {
        for (watch_fails, is_created_again, from, stays) in [
            (true, false, ReadFrom::Cache, false),
            (true, false, ReadFrom::ApiServer, false),
            (true, true, ReadFrom::Cache, true),
            (false, false, ReadFrom::ApiServer, true),
        ] {
            let resources = cache_of(resource("1"), watch_fails).await;
            let (store, listed) = (resources.store(), resources.store());
            let server = Router::new().fallback(async move |uri: Uri| {
                if is_created_again {
                    listed.apply(&Event::InitApply(resource("2")));
                }
                let is_namespace = uri.path() == "/api/v1/namespaces/data";
                if is_namespace {
                    refusal(StatusCode::NOT_FOUND, "NotFound")
                } else {
                    refusal(StatusCode::FORBIDDEN, "Forbidden")
                }
            });
            let cluster = Cluster::new(Client::new(server, "operator"), "operator", None);
            cluster.use_caches(Some(Caches { resources, ..no_caches() }));
            let found = cluster.resource("data", "orders", from).await;
            assert!(matches!(found, Ok(None)), "{found:?}");
            let case = (watch_fails, is_created_again, from);
            assert_eq!(store.keys().len(), usize::from(stays), "{case:?}");
        }
    }

    #[tokio::test]
    async fn resource_not_found_by_a_write_is_removed_from_cache() {
        let invalid: MaybeInvalidResource = serde_json::from_value(json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "spec": 7,
            "metadata": {"name": "orders", "namespace": "data", "uid": "1"},
        }))
        .unwrap();
        for (watch_fails, uid, writes_status, stays) in [
            (true, "1", true, false),
            (true, "1", false, false),
            (true, "2", true, true),
            (false, "1", true, true),
        ] {
            let resources = cache_of(invalid.clone(), watch_fails).await;
            let store = resources.store();
            let server = Router::new().fallback(async || refusal(StatusCode::NOT_FOUND, "NotFound"));
            let cluster = Cluster::new(Client::new(server, "operator"), "operator", None);
            cluster.use_caches(Some(Caches { resources, ..no_caches() }));
            let metadata = ObjectMeta {
                name: Some("orders".to_owned()),
                namespace: Some("data".to_owned()),
                uid: Some(uid.to_owned()),
                ..ObjectMeta::default()
            };
            let written = if writes_status {
                cluster.write_status(&metadata, &StreamEncryptionStatus::default()).await
            } else {
                cluster.set_finalizer(&metadata, false).await
            };
            assert_eq!(written, Ok(None));
            let case = (watch_fails, uid, writes_status);
            assert_eq!(store.keys().len(), usize::from(stays), "{case:?}");
        }
    }
}
