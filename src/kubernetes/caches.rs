//! The caches of the watches: the resources, the policies, the labels of the namespaces, and the ledgers.
//!
//! A cache may lag behind the API server, and its reader must be able to tolerate that. A cache is not read
//! before its first list is complete, nor while its watch fails: nobody would notice how old it is. The reader
//! then asks the API server. This module only reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use kube::Resource;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::StreamEncryption;
use tokio::sync::{Notify, SetOnce};
use tokio::time::Instant;
use tracing::warn;

use super::ledgers::GuardedLedger;
use super::policies::{self, GuardedPolicy, NamespaceLabels};
use super::watches::{self, Guarded};

/// How long a cache is not read after its watch has failed. A failed watch is restarted after 30 seconds at most.
/// If it fails again within this time, the cache stays unread. A restart that hangs fails after the connection's
/// read timeout.
const DISTRUSTED: Duration = Duration::from_mins(2);
/// Minimum time between two warnings about the same watch.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// The caches of one term.
#[derive(Clone)]
pub struct Caches {
    /// The resources.
    pub resources: Cache<Guarded>,
    /// The policies.
    pub policies: Cache<GuardedPolicy>,
    /// The namespaces, with their labels.
    pub namespaces: Cache<NamespaceLabels>,
    /// The ledgers.
    pub ledgers: Cache<GuardedLedger>,
}

/// The cache of one watch.
pub struct Cache<K>
where
    K: Resource<DynamicType = ()> + 'static,
{
    store: Store<K>,
    condition: Arc<WatchCondition>,
}

impl<K> Clone for Cache<K>
where
    K: Resource<DynamicType = ()> + 'static,
{
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), condition: self.condition.clone() }
    }
}

/// The cache cannot be read now: it holds no complete list, or its watch has failed recently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotCurrent;

/// Whether a watch works.
#[derive(Default)]
struct WatchCondition {
    listed: Arc<SetOnce<()>>,
    failure: Mutex<Failure>,
}

/// The last failure of a watch.
#[derive(Clone, Copy, Default)]
struct Failure {
    failed_at: Option<Instant>,
    warned_at: Option<Instant>,
}

impl Caches {
    /// Returns the flags that are set when the first list of each cache is complete.
    #[must_use]
    pub fn listed(&self) -> [Arc<SetOnce<()>>; 4] {
        [self.resources.listed(), self.policies.listed(), self.namespaces.listed(), self.ledgers.listed()]
    }

    /// Returns a resource; `None` if it does not exist. An invalid one is not returned, as if the cache were not
    /// current: the API server's response tells what is wrong.
    pub(super) fn resource(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<StreamEncryption>, NotCurrent> {
        let cached = self.resources.get(&ObjectRef::new(name).within(namespace))?;
        cached.map(|resource| resource.0.clone().map_err(|_| NotCurrent)).transpose()
    }

    /// Returns a ledger, as [`Caches::resource`] does.
    pub(super) fn ledger(&self, namespace: &str, name: &str) -> Result<Option<StreamLedger>, NotCurrent> {
        let cached = self.ledgers.get(&ObjectRef::new(name).within(namespace))?;
        cached.map(|ledger| ledger.0.clone().map_err(|_| NotCurrent)).transpose()
    }

    /// Returns the policies that select a namespace, and `default` if it does.
    pub(super) fn policies(
        &self,
        default: Option<&StreamEncryptionPolicySpec>,
        namespace: &str,
    ) -> Result<Vec<StreamEncryptionPolicySpec>, NotCurrent> {
        let mut stored = self.policies.all()?;
        // As the API server lists them.
        stored.sort_by(|one, other| one.meta().name.cmp(&other.meta().name));
        let policies = policies::candidates(default, stored.iter().map(AsRef::as_ref));
        let labels = if policies::depend_on_labels(&policies) {
            // A namespace that the cache does not hold may be new.
            let namespace = self.namespaces.get(&ObjectRef::new(namespace))?.ok_or(NotCurrent)?;
            namespace.metadata.labels.clone().unwrap_or_default()
        } else {
            BTreeMap::new()
        };
        Ok(policies::selecting(policies, &labels))
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    /// Creates the cache that `events` fill, and returns the events after their effect on the cache. `changed`
    /// is notified of every change. `kind` is the plural of the kind, for messages.
    pub fn of(
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
        kind: &'static str,
        changed: &Arc<Notify>,
    ) -> (Self, impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static) {
        let (store, writer) = reflector::store();
        let condition = Arc::new(WatchCondition::default());
        let (worked, failed, changed) = (condition.clone(), condition.clone(), changed.clone());
        let events = events
            .reflect(writer)
            .inspect_ok(move |event| {
                worked.works(event);
                changed.notify_one();
            })
            .inspect_err(move |error| failed.fails(kind, error));
        (Self { store, condition }, events)
    }

    /// Returns the store, for readers that need all objects whatever the condition of the watch is.
    #[must_use]
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Returns a flag that is set when the first list is complete and the store holds its objects.
    ///
    /// Nobody may await the store itself: of several tasks that wait until a store is ready, kube wakes only the
    /// last one.
    #[must_use]
    pub fn listed(&self) -> Arc<SetOnce<()>> {
        self.condition.listed.clone()
    }

    /// Returns an object; `None` if it does not exist.
    fn get(&self, name: &ObjectRef<K>) -> Result<Option<Arc<K>>, NotCurrent> {
        if self.condition.is_current() { Ok(self.store.get(name)) } else { Err(NotCurrent) }
    }

    /// Returns all objects.
    fn all(&self) -> Result<Vec<Arc<K>>, NotCurrent> {
        if self.condition.is_current() { Ok(self.store.state()) } else { Err(NotCurrent) }
    }
}

impl WatchCondition {
    fn works<K>(&self, event: &watcher::Event<K>) {
        match event {
            // A list has begun, and may still fail.
            watcher::Event::Init | watcher::Event::InitApply(_) => return,
            // The flag is already set if this is a later list.
            watcher::Event::InitDone => drop(self.listed.set(())),
            watcher::Event::Apply(_) | watcher::Event::Delete(_) => {}
        }
        self.failure().failed_at = None;
    }

    fn fails(&self, kind: &str, error: &watcher::Error) {
        let now = Instant::now();
        let mut failure = self.failure();
        failure.failed_at = Some(now);
        if failure.warned_at.is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY) {
            failure.warned_at = Some(now);
            let cause = watches::explain(error, kind);
            warn!(kind, cause, "failed to watch, reading from the API server instead of the cache");
        }
    }

    /// Returns whether the cache holds a complete list, and the watch has not failed recently. A watch without
    /// changes returns no events, so the time since its last failure is the only sign that it works again.
    fn is_current(&self) -> bool {
        let failed_at = self.failure().failed_at;
        self.listed.initialized() && failed_at.is_none_or(|failed| failed.elapsed() >= DISTRUSTED)
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use watcher::Event;

    use super::*;

    fn failure() -> watcher::Error {
        watcher::Error::WatchError(Box::new(Status::failure("forbidden", "Forbidden").with_code(403)))
    }

    #[tokio::test(start_paused = true)]
    async fn cache_is_read_only_after_list_and_while_watch_works() {
        let condition = WatchCondition::default();
        let no_object = |event: &Event<()>| condition.works(event);
        assert!(!condition.is_current(), "nothing has been listed");
        no_object(&Event::Init);
        no_object(&Event::InitApply(()));
        assert!(!condition.is_current(), "the list is incomplete");
        no_object(&Event::InitDone);
        assert!(condition.is_current());
        condition.fails("policies", &failure());
        assert!(!condition.is_current(), "the watch has failed");
        no_object(&Event::Init);
        assert!(!condition.is_current(), "a new list has begun");
        no_object(&Event::InitDone);
        assert!(condition.is_current(), "the new list is complete");
        condition.fails("policies", &failure());
        tokio::time::advance(DISTRUSTED).await;
        assert!(condition.is_current(), "the watch goes on, without a list and without changes");
    }
}
