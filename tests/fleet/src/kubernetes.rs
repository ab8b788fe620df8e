//! An API server in memory: the resources in the store that the operator's watch would fill, their statuses, and the
//! ledgers.
//!
//! Its cache never lags, and no write fails except by a conflict. It records when each resource becomes Ready.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use stream_encryption_api::condition::{ConditionType, find};
use stream_encryption_api::ledger::{Owner, StreamLedger, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{
    KeyObjectReference, StreamEncryption, StreamEncryptionStatus,
};
use stream_encryption_core::controller::kube_api::{
    KubeApi, KubeError, LedgerPage, ReadFrom, ReconcileEvent, ReferencedKey,
};
use stream_encryption_operator::kubernetes::store::{Key, Store};
use stream_encryption_operator::kubernetes::watches::MaybeInvalidResource;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// How long a request to the API server takes.
const LATENCY: Duration = Duration::from_millis(4);

/// The API server.
pub struct FleetKube {
    store: Store<MaybeInvalidResource>,
    state: Mutex<State>,
    policies: HashMap<String, StreamEncryptionPolicySpec>,
    requests: AtomicU64,
    /// Notified when a resource becomes Ready.
    became_ready: Notify,
}

#[derive(Default)]
struct State {
    version: u64,
    ledgers: HashMap<String, StreamLedger>,
    ready: Vec<Ready>,
}

/// The first time at which a resource was Ready.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The namespace of the resource.
    pub namespace: String,
    /// The time.
    pub at: Instant,
}

impl FleetKube {
    /// Creates an API server without resources. Each namespace has one policy.
    #[must_use]
    pub fn new(policies: HashMap<String, StreamEncryptionPolicySpec>) -> Self {
        Self {
            store: Store::default(),
            state: Mutex::default(),
            policies,
            requests: AtomicU64::new(0),
            became_ready: Notify::new(),
        }
    }

    /// Creates a resource, and returns its key.
    pub fn create(&self, mut resource: StreamEncryption) -> Key {
        let version = self.state().next_version();
        resource.metadata.uid = Some(format!("uid-{version}"));
        resource.metadata.generation = Some(1);
        self.put(resource, version)
    }

    /// Returns the store of the resources.
    #[must_use]
    pub fn store(&self) -> Store<MaybeInvalidResource> {
        self.store.clone()
    }

    /// Returns the resources that have become Ready, in this order.
    #[must_use]
    pub fn ready(&self) -> Vec<Ready> {
        self.state().ready.clone()
    }

    /// Waits until as many resources have become Ready.
    pub async fn wait_for_ready(&self, number: usize) {
        while self.state().ready.len() < number {
            self.became_ready.notified().await;
        }
    }

    /// Returns the number of requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        sleep(LATENCY).await;
    }

    /// Returns the resource that was read as `read`; `None` if it does not exist.
    fn current(&self, read: &ObjectMeta) -> Result<Option<StreamEncryption>, KubeError> {
        let Some(known) = self.stored(read.namespace.as_deref(), read.name.as_deref()) else {
            return Ok(None);
        };
        let is_same = known.metadata.resource_version == read.resource_version;
        if is_same { Ok(Some(known)) } else { Err(KubeError::Conflict) }
    }

    fn stored(&self, namespace: Option<&str>, name: Option<&str>) -> Option<StreamEncryption> {
        self.store.get(&Key::new(namespace.unwrap_or_default(), name.unwrap_or_default()))?.0.ok()
    }

    /// Stores a resource, as its watch would.
    fn put(&self, mut resource: StreamEncryption, version: u64) -> Key {
        resource.metadata.resource_version = Some(version.to_string());
        let key = Key::of(&resource);
        self.store.apply(&Event::Apply(DeserializeGuard(Ok(resource))));
        key
    }
}

impl State {
    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }
}

fn is_ready(status: Option<&StreamEncryptionStatus>) -> bool {
    status
        .and_then(|status| find(&status.conditions, ConditionType::Ready))
        .is_some_and(|ready| ready.status == "True")
}

impl KubeApi for FleetKube {
    async fn resource(
        &self,
        namespace: &str,
        name: &str,
        from: ReadFrom,
    ) -> Result<Option<StreamEncryption>, KubeError> {
        if from == ReadFrom::ApiServer {
            self.request().await;
        }
        Ok(self.stored(Some(namespace), Some(name)))
    }

    async fn ledger(&self, name: &str, from: ReadFrom) -> Result<Option<StreamLedger>, KubeError> {
        if from == ReadFrom::ApiServer {
            self.request().await;
        }
        Ok(self.state().ledgers.get(name).cloned())
    }

    async fn ledgers(&self, _: Option<&str>) -> Result<LedgerPage, KubeError> {
        self.request().await;
        Ok(LedgerPage { ledgers: self.state().ledgers.values().cloned().collect(), next: None })
    }

    async fn create_ledger(&self, name: &str, spec: &StreamLedgerSpec) -> Result<StreamLedger, KubeError> {
        self.request().await;
        let mut state = self.state();
        if state.ledgers.contains_key(name) {
            return Err(KubeError::Conflict);
        }
        let mut ledger = StreamLedger::new(name, spec.clone());
        ledger.metadata.resource_version = Some(state.next_version().to_string());
        state.ledgers.insert(name.to_owned(), ledger.clone());
        Ok(ledger)
    }

    async fn replace_ledger(&self, ledger: &StreamLedger) -> Result<StreamLedger, KubeError> {
        self.request().await;
        let mut state = self.state();
        let name = ledger.metadata.name.clone().unwrap_or_default();
        let version = state.next_version().to_string();
        let known = state.ledgers.get_mut(&name).ok_or(KubeError::Conflict)?;
        if known.metadata.resource_version != ledger.metadata.resource_version {
            return Err(KubeError::Conflict);
        }
        known.spec = ledger.spec.clone();
        known.metadata.resource_version = Some(version);
        Ok(known.clone())
    }

    async fn delete_ledger(&self, ledger: &StreamLedger) -> Result<(), KubeError> {
        self.request().await;
        let name = ledger.metadata.name.as_deref().unwrap_or_default();
        self.state().ledgers.remove(name);
        Ok(())
    }

    async fn write_status(
        &self,
        read: &ObjectMeta,
        status: &StreamEncryptionStatus,
    ) -> Result<Option<String>, KubeError> {
        self.request().await;
        let Some(mut resource) = self.current(read)? else { return Ok(None) };
        let mut state = self.state();
        if is_ready(Some(status)) && !is_ready(resource.status.as_ref()) {
            let namespace = read.namespace.clone().unwrap_or_default();
            state.ready.push(Ready { namespace, at: Instant::now() });
            self.became_ready.notify_one();
        }
        resource.status = Some(status.clone());
        let version = state.next_version();
        self.put(resource, version);
        Ok(Some(version.to_string()))
    }

    async fn publish_event(&self, _: &Owner, _: &ReconcileEvent) -> Result<(), KubeError> {
        self.request().await;
        Ok(())
    }

    async fn set_finalizer(&self, read: &ObjectMeta, _: bool) -> Result<Option<String>, KubeError> {
        self.request().await;
        Ok(read.resource_version.clone())
    }

    async fn policies(
        &self,
        namespace: &str,
        from: ReadFrom,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, KubeError> {
        if from == ReadFrom::ApiServer {
            self.request().await;
        }
        Ok(self.policies.get(namespace).cloned().into_iter().collect())
    }

    async fn referenced_key(&self, _: &str, _: &KeyObjectReference) -> Result<ReferencedKey, KubeError> {
        Ok(ReferencedKey::NotReady)
    }
}
