//! The caches of the watches: the resources, the policies, the labels of the namespaces, and the ledgers.
//!
//! A cache may lag behind the API server, and its reader must be able to tolerate that. A cache is not read before its
//! first list is complete, nor while its watch fails: nothing would show how old it is. The reader then reads from the
//! API server. A cache may have several watches, one for each watched namespace. An object is read from it while the
//! watch of its namespace works; a read of all objects requires that all of them work. This module sends no request; a
//! namespace that cannot be listed must never delay the others without limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use kube::Resource as _;
use kube::runtime::watcher;
use stream_encryption_api::ledger::StreamLedger;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::StreamEncryption;
use tokio::sync::{Notify, SetOnce};
use tokio::time::Instant;
use tracing::warn;

use super::ledgers::MaybeInvalidLedger;
use super::merged_watches::{MergedWatches, WatchedNamespace, covers};
use super::policies::{self, MaybeInvalidPolicy, NamespaceLabels};
use super::store::{Key, Kind, Store};
use super::watches::{self, MaybeInvalidResource};
use crate::telemetry::Warnings;

/// How long a cache is not read after its watch has failed. Longer than the pause before the restart (at most 30 s) and the
/// time in which a watch must get a response (110 s) together: a restart that hangs has failed again by then, and the cache
/// stays unread.
const DISTRUSTED: Duration = Duration::from_mins(3);

/// Number of ledgers in one page of a list from the cache. All of them together would need much more memory than the cache.
const LEDGER_PAGE_SIZE: usize = 50;

/// The caches of one term.
#[derive(Clone)]
pub struct Caches {
    /// The resources.
    pub resources: Cache<MaybeInvalidResource>,
    /// The policies.
    pub policies: Cache<MaybeInvalidPolicy>,
    /// The namespaces, with their labels.
    pub namespaces: Cache<NamespaceLabels>,
    /// The ledgers.
    pub ledgers: Cache<MaybeInvalidLedger>,
}

/// The cache of one kind.
pub struct Cache<K: Kind> {
    store: Store<K>,
    watches: Arc<Watches>,
    /// The objects that a reader has removed since the last event.
    removed: Arc<Mutex<Vec<K>>>,
}

impl<K: Kind> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), watches: self.watches.clone(), removed: self.removed.clone() }
    }
}

/// The watches that fill a cache.
struct Watches {
    /// The plural of the kind, for messages and metrics.
    kind: &'static str,
    /// One watch of everything, or one for each watched namespace.
    conditions: Vec<(WatchedNamespace, WatchCondition)>,
    /// Set when no first list is awaited any more.
    first_lists_settled: Arc<SetOnce<()>>,
}

/// The cache cannot be read now: it holds no complete list, or its watch has failed recently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotCurrent;

/// Whether a watch works.
#[derive(Default)]
struct WatchCondition {
    /// Set when its first list is complete.
    listed: SetOnce<()>,
    /// Set when its first list is no longer awaited, because it has failed.
    skipped: SetOnce<()>,
    failure: Mutex<Failure>,
}

/// The last failure of a watch.
#[derive(Clone, Copy, Default)]
struct Failure {
    distrust: Option<Distrust>,
    warnings: Warnings,
}

/// How long a cache is not read after its watch has failed.
#[derive(Clone, Copy)]
enum Distrust {
    /// For [`DISTRUSTED`] after the failure. A watch without changes returns no events, so the time since its last failure is
    /// the only sign that it works again.
    Since(Instant),
    /// Until the list that has begun after the failure is complete, however long a page of it takes. Until then, most objects in
    /// the cache are as old as the failure.
    UntilListed,
}

impl Caches {
    /// Returns the flag of each cache, as [`Cache::first_lists_settled`] does.
    #[must_use]
    pub fn first_lists_settled(&self) -> [Arc<SetOnce<()>>; 4] {
        let Self { resources, policies, namespaces, ledgers } = self;
        [
            resources.first_lists_settled(),
            policies.first_lists_settled(),
            namespaces.first_lists_settled(),
            ledgers.first_lists_settled(),
        ]
    }

    /// Returns the number of watches of each kind that are not current: their first list is not complete, they have failed in
    /// the last `DISTRUSTED`, or their list after a failure is not complete. The kind is its plural, as in the log.
    #[must_use]
    pub fn watches_not_current(&self) -> Vec<(&'static str, usize)> {
        let Self { resources, policies, namespaces, ledgers } = self;
        [&resources.watches, &policies.watches, &namespaces.watches, &ledgers.watches]
            .map(|watches| (watches.kind, watches.not_current()))
            .to_vec()
    }

    /// Returns a resource; `None` if it does not exist. An invalid one is not returned, as if the cache were not
    /// current: the API server's response tells what is wrong.
    pub(super) fn resource(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<StreamEncryption>, NotCurrent> {
        let cached = self.resources.get(&Key::new(namespace, name))?;
        cached.map(|resource| resource.0.map_err(|_| NotCurrent)).transpose()
    }

    /// Returns the uid of a stored resource whose watch does not work; `None` if the watch works, and will report the deletion.
    pub(super) fn unwatched_uid(&self, namespace: &str, name: &str) -> Option<String> {
        let key = Key::new(namespace, name);
        let stored = if self.resources.is_current(&key) { None } else { self.resources.store.get(&key) };
        stored?.meta().uid.clone()
    }

    /// Removes a resource that no longer exists. Another resource of the same name stays: a list has delivered it meanwhile.
    /// The events of the cache return the deletion before the next event of a watch.
    pub(super) fn remove_resource(&self, namespace: &str, name: &str, uid: &str) {
        let is_gone = |stored: &MaybeInvalidResource| stored.meta().uid.as_deref() == Some(uid);
        let removed = self.resources.store.remove_if(&Key::new(namespace, name), is_gone);
        self.resources.removed.lock().unwrap_or_else(PoisonError::into_inner).extend(removed);
    }

    /// Returns a ledger, as [`Caches::resource`] does.
    pub(super) fn ledger(&self, namespace: &str, name: &str) -> Result<Option<StreamLedger>, NotCurrent> {
        let cached = self.ledgers.get(&Key::new(namespace, name))?;
        cached.map(|ledger| ledger.0.map_err(|_| NotCurrent)).transpose()
    }

    /// Returns a page of the ledgers, in the order of the keys: the first one, or the one after the key `after`. It lacks
    /// invalid ledgers. A list that has begun goes on even if the watch fails: its reader must tolerate old ledgers anyway.
    pub(super) fn ledgers(
        &self,
        after: Option<&Key>,
    ) -> Result<(Vec<StreamLedger>, Option<Key>), NotCurrent> {
        let store = if after.is_none() { self.ledgers.current_store()? } else { &self.ledgers.store };
        let (page, last) = store.page(after, LEDGER_PAGE_SIZE);
        Ok((page.into_iter().filter_map(|ledger| ledger.0.ok()).collect(), last))
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
            let namespace = self.namespaces.get(&Key::new("", namespace))?.ok_or(NotCurrent)?;
            namespace.metadata.labels.clone()
        } else {
            None
        };
        Ok(policies::selecting(policies, labels.as_ref()))
    }
}

impl<K: Kind + Send + 'static> Cache<K> {
    /// Creates the cache that `watches` fill, each with the namespace that it covers, and returns the events
    /// after their effect on the cache, with the deletions that follow from a list or that a reader has found. A single watch
    /// without a namespace covers everything. `changed` is notified of every change. `kind` is the plural of the kind, for
    /// messages and metrics.
    pub fn of<S>(
        watches: Vec<(Option<String>, S)>,
        kind: &'static str,
        changed: &Arc<Notify>,
    ) -> (Self, impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + use<K, S>)
    where
        S: Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    {
        let store = Store::default();
        let (covered, events): (Vec<WatchedNamespace>, Vec<S>) = watches.into_iter().unzip();
        let mut merged = MergedWatches::new(covered.clone());
        let watches = Arc::new(Watches::new(kind, covered));
        let removed = Arc::new(Mutex::new(Vec::new()));
        let cache = Self { store: store.clone(), watches: watches.clone(), removed: removed.clone() };
        let changed = changed.clone();
        let numbered = |(watch, events): (usize, S)| events.map(move |event| (watch, event)).boxed();
        let all = stream::select_all(events.into_iter().enumerate().map(numbered));
        let events = all.flat_map(move |(watch, event)| {
            let effects = match event {
                Ok(event) => {
                    let news = WatchNews::of(&event);
                    // Without an effect on the store, which may hold the object again.
                    let removed =
                        std::mem::take(&mut *removed.lock().unwrap_or_else(PoisonError::into_inner));
                    let removed = removed.into_iter().map(watcher::Event::Delete);
                    let events = merged.apply(&store, watch, event);
                    watches.record_event(watch, news);
                    changed.notify_one();
                    removed.chain(events).map(Ok).collect()
                }
                Err(error) => {
                    watches.record_failure(watch, &error);
                    vec![Err(error)]
                }
            };
            stream::iter(effects)
        });
        (cache, events)
    }

    /// Returns the store, for readers that need all objects whatever the condition of the watch is.
    #[must_use]
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Returns a flag that is set when no first list is awaited any more. A single watch is awaited until its first
    /// list is complete. Of several watches, one that fails after another one has been listed is no longer awaited.
    #[must_use]
    pub fn first_lists_settled(&self) -> Arc<SetOnce<()>> {
        self.watches.first_lists_settled.clone()
    }

    /// Returns whether everything that is watched has been listed once. A namespace that cannot be listed prevents it.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.watches.conditions.iter().all(|(_, condition)| condition.listed.initialized())
    }

    /// Returns an object; `None` if it does not exist.
    fn get(&self, key: &Key) -> Result<Option<K::Read>, NotCurrent> {
        if self.is_current(key) { Ok(self.store.get(key)) } else { Err(NotCurrent) }
    }

    /// Returns whether the watch that covers an object works.
    fn is_current(&self, key: &Key) -> bool {
        // An object that no watch covers is not known.
        let watch = self.watches.conditions.iter().find(|(watched, _)| covers(watched, key));
        watch.is_some_and(|(_, condition)| condition.is_current())
    }

    /// Returns all objects.
    fn all(&self) -> Result<Vec<K::Read>, NotCurrent> {
        self.current_store().map(|store| store.select(Some))
    }

    /// Returns the store if all watches work.
    fn current_store(&self) -> Result<&Store<K>, NotCurrent> {
        if self.watches.not_current() == 0 { Ok(&self.store) } else { Err(NotCurrent) }
    }
}

/// What an event says about its watch.
#[derive(Clone, Copy)]
enum WatchNews {
    /// A list has begun, and may still fail.
    Listing,
    /// A list is complete.
    Listed,
    /// An object has changed.
    Changed,
}

impl WatchNews {
    fn of<K>(event: &watcher::Event<K>) -> Self {
        match event {
            watcher::Event::Init | watcher::Event::InitApply(_) => Self::Listing,
            watcher::Event::InitDone => Self::Listed,
            watcher::Event::Apply(_) | watcher::Event::Delete(_) => Self::Changed,
        }
    }
}

impl Watches {
    fn new(kind: &'static str, covered: Vec<WatchedNamespace>) -> Self {
        let conditions = covered.into_iter().map(|watched| (watched, WatchCondition::default())).collect();
        Self { kind, conditions, first_lists_settled: Arc::default() }
    }

    /// Returns the number of watches that are not current.
    fn not_current(&self) -> usize {
        self.conditions.iter().filter(|(_, condition)| !condition.is_current()).count()
    }

    /// Processes an event of a watch.
    fn record_event(&self, watch: usize, news: WatchNews) {
        self.conditions[watch].1.record_event(news);
        self.set_first_lists_settled();
    }

    /// Processes a failure of a watch. Its first list is not awaited any more if another watch has been listed. Before
    /// that, the API server itself may be unavailable, and the next attempt may list everything.
    fn record_failure(&self, watch: usize, error: &watcher::Error) {
        let (namespace, condition) = &self.conditions[watch];
        condition.record_failure(self.kind, namespace.as_deref(), error);
        if self.conditions.iter().any(|(_, condition)| condition.listed.initialized()) {
            // The flag is already set if this is a later failure.
            let _ = condition.skipped.set(());
            self.set_first_lists_settled();
        }
    }

    /// Sets the flag if no first list is awaited any more. The flag may be set already.
    fn set_first_lists_settled(&self) {
        if self.conditions.iter().all(|(_, condition)| condition.is_not_awaited()) {
            let _ = self.first_lists_settled.set(());
        }
    }
}

impl WatchCondition {
    /// Returns whether its first list is complete, or no longer awaited.
    fn is_not_awaited(&self) -> bool {
        self.listed.initialized() || self.skipped.initialized()
    }

    fn record_event(&self, news: WatchNews) {
        match news {
            WatchNews::Listing => {
                let mut failure = self.failure();
                if failure.is_distrusted() {
                    failure.distrust = Some(Distrust::UntilListed);
                }
                return;
            }
            // The flag is already set if this is a later list.
            WatchNews::Listed => drop(self.listed.set(())),
            WatchNews::Changed => {}
        }
        self.failure().distrust = None;
    }

    /// Processes a failure, and logs it at most once a minute. `namespace` is that of the watch; `None` if it watches
    /// all.
    fn record_failure(&self, kind: &str, namespace: Option<&str>, error: &watcher::Error) {
        let mut failure = self.failure();
        failure.distrust = Some(Distrust::Since(Instant::now()));
        if failure.warnings.take_due() {
            let cause = watches::explain(error, kind);
            warn!(
                namespace,
                cause, "failed to watch {kind}, reading from the API server instead of the cache"
            );
        }
    }

    /// Returns whether the cache holds a complete list, and the watch has not failed recently.
    fn is_current(&self) -> bool {
        self.listed.initialized() && !self.failure().is_distrusted()
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn is_distrusted(&self) -> bool {
        match self.distrust {
            None => false,
            Some(Distrust::Since(failed)) => failed.elapsed() < DISTRUSTED,
            Some(Distrust::UntilListed) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use watcher::Event;

    use super::super::early_end::RESPONSE_TIMEOUT;
    use super::super::watches::WatchBackoff;
    use super::*;

    fn failure() -> watcher::Error {
        watcher::Error::WatchError(Box::new(Status::failure("forbidden", "Forbidden").with_code(403)))
    }

    #[tokio::test(start_paused = true)]
    async fn cache_is_read_only_after_list_and_while_watch_works() {
        let condition = WatchCondition::default();
        let no_object = |event: &Event<()>| condition.record_event(WatchNews::of(event));
        assert!(!condition.is_current(), "nothing has been listed");
        no_object(&Event::Init);
        no_object(&Event::InitApply(()));
        assert!(!condition.is_current(), "the list is incomplete");
        no_object(&Event::InitDone);
        assert!(condition.is_current());
        condition.record_failure("policies", None, &failure());
        assert!(!condition.is_current(), "the watch has failed");
        no_object(&Event::Init);
        assert!(!condition.is_current(), "a new list has begun");
        tokio::time::advance(DISTRUSTED / 2).await;
        no_object(&Event::InitApply(()));
        // One page takes longer.
        tokio::time::advance(DISTRUSTED * 2).await;
        assert!(!condition.is_current(), "most of the list is still missing");
        no_object(&Event::InitDone);
        assert!(condition.is_current(), "the new list is complete");
        condition.record_failure("policies", None, &failure());
        tokio::time::advance(DISTRUSTED).await;
        assert!(condition.is_current(), "the watch goes on, without a list and without changes");
    }

    #[test]
    fn cache_is_unread_until_a_hanging_restart_fails() {
        let until_restart = WatchBackoff::default().take(1000).max().unwrap();
        assert!(DISTRUSTED > until_restart + RESPONSE_TIMEOUT);
    }

    fn namespace(name: &str) -> NamespaceLabels {
        let mut namespace = NamespaceLabels::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace
    }

    /// The role of the operator is missing in the namespace `b`.
    #[tokio::test(start_paused = true)]
    async fn namespace_that_cannot_be_listed_blocks_no_other() {
        let list = [Ok(Event::Init), Ok(Event::InitApply(namespace("a"))), Ok(Event::InitDone)];
        let failures = stream::repeat_with(|| Err(failure())).then(async |failed| {
            tokio::time::sleep(Duration::from_secs(3)).await;
            failed
        });
        let watches = vec![
            (Some("a".to_owned()), stream::iter(list).boxed()),
            (Some("b".to_owned()), failures.boxed()),
        ];
        let (cache, events) = Cache::of(watches, "namespaces", &Arc::default());
        let polled = tokio::time::timeout(Duration::from_secs(4), events.collect::<Vec<_>>());
        assert!(polled.await.is_err(), "the watch of b is restarted");
        assert!(cache.first_lists_settled().initialized());
        let get = |name: &str| cache.get(&Key::new("", name)).map(|found| found.is_some());
        assert_eq!(get("a"), Ok(true));
        assert_eq!(get("b"), Err(NotCurrent), "it may exist");
        assert_eq!(get("c"), Err(NotCurrent), "it is not watched");
        assert!(cache.all().is_err(), "they are not all known");
        assert_eq!(cache.watches.not_current(), 1, "it is reported");
    }

    /// The API server is unavailable, and then returns the lists.
    #[tokio::test(start_paused = true)]
    async fn failed_lists_are_awaited_until_one_is_complete() {
        let watches = Watches::new("namespaces", vec![Some("a".to_owned()), Some("b".to_owned())]);
        for watch in [0, 1] {
            watches.record_failure(watch, &failure());
        }
        watches.record_event(0, WatchNews::Listed);
        assert!(!watches.first_lists_settled.initialized(), "b is listed next");
        watches.record_event(1, WatchNews::Listed);
        assert!(watches.first_lists_settled.initialized());
    }

    #[tokio::test(start_paused = true)]
    async fn list_of_a_single_watch_is_awaited_if_it_fails() {
        let watches = Watches::new("StreamEncryptions", vec![None]);
        for _ in 0..3 {
            watches.record_failure(0, &failure());
            watches.record_event(0, WatchNews::Listing);
        }
        assert!(!watches.first_lists_settled.initialized());
        watches.record_event(0, WatchNews::Listed);
        assert!(watches.first_lists_settled.initialized());
    }
}
