//! One term: the dispatcher and the tasks beside it, from the time at which this replica may reconcile until the
//! term's token is cancelled. Reconciles that run at that time may end their work; they read from the API server, because
//! the caches are no longer filled.

use std::collections::HashSet;
use std::future::Future;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::select_all;
use kube::ResourceExt as _;
use stream_encryption_core::controller::Context;
use stream_encryption_core::controller::kube_api::KubeApi;
use stream_encryption_core::controller::ledger_gc::LedgerGc;
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::stream_api::StreamApi;
use tokio::sync::SetOnce;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Shared;
use super::aws_events;
use super::dispatcher::{Dispatcher, Reconciler};
use super::policy_statuses::PolicyStatusWriter;
use super::sources::{Sources, WatchScope};
use crate::aws::EventQueue;
use crate::kubernetes::store::Store;
use crate::kubernetes::watches::MaybeInvalidResource;

/// The pause after a cleanup of the ledgers.
const CLEANUP_INTERVAL: Duration = Duration::from_hours(1);

/// The time between two sweeps of the memory.
const SWEEP_INTERVAL: Duration = Duration::from_mins(5);

/// How long the first cleanup waits for the first list of the ledgers.
const FIRST_LIST_OF_LEDGERS: Duration = Duration::from_mins(10);

/// How long the first reconciles wait for the first lists of the resources. A list of 50,000 takes a minute.
const FIRST_LIST_OF_RESOURCES: Duration = Duration::from_mins(2);

/// How long the first reconciles wait for the first lists of all other caches.
const FIRST_LISTS: Duration = Duration::from_secs(10);

/// What one term reconciles, and how much of it at a time.
pub(super) struct Term {
    pub(super) scope: WatchScope,
    /// The queue of AWS's events.
    pub(super) queue: Option<EventQueue>,
    /// Maximum number of concurrent reconciles.
    pub(super) concurrency: u16,
}

impl Term {
    /// Reconciles until `end` is cancelled. Then stops everything beside the reconciles, and waits until the running
    /// reconciles have ended. A reconcile that still waits for AWS ends at once, without a call.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>, end: CancellationToken) {
        // The memory of an earlier term is older than the statuses that another replica may have written
        // since.
        shared.context.memory.retain(|_| false);
        shared.context.memory.events.clear();
        let sources = Sources::watch(&self.scope);
        let resources = sources.caches.resources.clone();
        // These flags are set when each first list is complete or no longer awaited. A single watch is awaited until its list is
        // complete. Of several watches, one that fails is no longer awaited once another one is listed.
        let (store, settled) = (resources.store(), resources.first_lists_settled());
        let ledgers_settled = sources.caches.ledgers.first_lists_settled();
        let policy_statuses = PolicyStatusWriter::new(self.scope.client.clone(), &sources);
        info!(watching = %self.scope, "controller started");
        shared.metrics.leads(true);
        let may_start = Arc::new(SetOnce::new());
        let mut background = JoinSet::new();
        background.spawn(sources.ledgers.for_each(|_| std::future::ready(())));
        background.spawn(report_listed(shared.clone(), store.clone(), settled.clone()));
        let lists = [settled.clone(), ledgers_settled];
        background.spawn(clean_up_ledgers(shared.context.clone(), lists));
        background.spawn(sweep_memory(shared.context.clone(), store.clone(), settled.clone()));
        background.spawn(wait_for_first_lists(
            settled.clone(),
            sources.caches.first_lists_settled(),
            may_start.clone(),
        ));
        if self.scope.is_everything() {
            let shared = shared.clone();
            background.spawn(async move { policy_statuses.keep_current(&shared.context).await });
        }
        shared.context.kube.use_caches(Some(sources.caches));
        let limits = shared.context.aws.rate_limiter().clone();
        let reconciler = Reconciler {
            context: shared.context.clone(),
            resources: store.clone(),
            metrics: shared.metrics.clone(),
        };
        let dispatcher = Dispatcher::new(reconciler, limits, self.concurrency, shared.waiting.clone());
        let triggers = match &self.queue {
            Some(queue) => {
                let (receiver, events) = aws_events::receiver(queue.clone(), shared.clone(), resources);
                // On the heap: a future of this size would be copied into its task.
                background.spawn(Box::pin(receiver));
                select_all([sources.triggers, events.boxed()]).boxed()
            }
            None => sources.triggers,
        };
        let stop_caches = || {
            shared.context.kube.use_caches(None);
            shared.set_store(None);
        };
        run_until_end(dispatcher.run(triggers, &may_start, &end), background, stop_caches, &end).await;
        shared.metrics.leads(false);
    }
}

/// Runs the `reconciles` and the `background` tasks until `end` is cancelled. Then another replica takes over the work
/// of the tasks, and nothing fills the caches any more, so it stops the tasks and calls `stop_caches`, before it waits
/// until the `reconciles` have ended. The tasks stop first, because one of them publishes a cache.
///
/// A task that panics ends the process, as a reconcile that panics does: without one of them, drift would remain
/// undetected for as long as the term lasts.
async fn run_until_end(
    reconciles: impl Future<Output = ()>,
    mut background: JoinSet<()>,
    stop_caches: impl FnOnce(),
    end: &CancellationToken,
) {
    let tasks = async {
        loop {
            tokio::select! {
                () = end.cancelled() => break,
                Some(ended) = background.join_next() => {
                    if let Err(error) = ended {
                        resume_unwind(error.into_panic());
                    }
                }
            }
        }
        background.shutdown().await;
        stop_caches();
    };
    tokio::join!(reconciles, tasks);
}

/// Sets `may_start` when the first list of each cache is complete, or after [`FIRST_LISTS`]: until then each
/// reconcile would read from the API server instead of the caches. The list of the resources may take longer: while it is
/// incomplete, the streams that were described longest ago are not known.
async fn wait_for_first_lists(
    resources: Arc<SetOnce<()>>,
    listed: [Arc<SetOnce<()>>; 4],
    may_start: Arc<SetOnce<()>>,
) {
    let _ = tokio::time::timeout(FIRST_LIST_OF_RESOURCES, resources.wait()).await;
    let lists = async {
        for listed in listed {
            listed.wait().await;
        }
    };
    // The list of a cache with only one watch is always awaited. It never comes if the RBAC role does not permit the watch.
    let _ = tokio::time::timeout(FIRST_LISTS, lists).await;
    // Nobody else sets it.
    let _ = may_start.set(());
}

/// Records the list for the readiness, and publishes the store for the metrics, when the resources are listed. Not earlier: a leader that
/// cannot list the resources must not export that there are none.
async fn report_listed(shared: Arc<Shared>, store: Store<MaybeInvalidResource>, resources: Arc<SetOnce<()>>) {
    resources.wait().await;
    shared.set_store(Some(store));
    shared.readiness.record_list();
}

/// Waits for the list of the resources, and for that of the ledgers, which the cleanup would otherwise request a second time.
/// Then cleans up the ledgers.
async fn clean_up_ledgers<A: StreamApi, R: KubeApi>(
    context: Arc<Context<A, R>>,
    [resources, ledgers]: [Arc<SetOnce<()>>; 2],
) {
    resources.wait().await;
    // The list may never be complete, for example because of too many ledgers.
    let _ = tokio::time::timeout(FIRST_LIST_OF_LEDGERS, ledgers.wait()).await;
    repeat_cleanup(&context).await;
}

/// Deletes expired ledgers: now, and then every hour.
async fn repeat_cleanup<A: StreamApi, R: KubeApi>(context: &Context<A, R>) {
    let mut ledgers = LedgerGc::default();
    loop {
        if let Err(error) = ledgers.collect_expired(context).await {
            warn!(%error, "failed to clean up ledgers");
        }
        // The pause follows even a cleanup that has taken hours.
        tokio::time::sleep(CLEANUP_INTERVAL).await;
    }
}

/// Waits for the list of the resources, without which all of them would count as deleted. Then sweeps the memory.
async fn sweep_memory<A: StreamApi, R: KubeApi>(
    context: Arc<Context<A, R>>,
    store: Store<MaybeInvalidResource>,
    resources: Arc<SetOnce<()>>,
) {
    resources.wait().await;
    repeat_sweep(&context, &store).await;
}

/// Evicts the memory of deleted resources: now, and then every few minutes. The dispatcher evicts a resource as soon as a watch
/// reports its deletion; the sweep finds one whose deletion no watch has reported. A task of its own, because a cleanup of the
/// ledgers may take hours. It does not touch the inbox of AWS's events: the dispatcher evicts a deleted resource from
/// the inbox when the resource is next due (`work_or_evict`).
async fn repeat_sweep<A: StreamApi, R: KubeApi>(
    context: &Arc<Context<A, R>>,
    store: &Store<MaybeInvalidResource>,
) {
    loop {
        let (context, store) = (context.clone(), store.clone());
        // Of many resources, this takes more than a second, in which this thread would run nothing else.
        let swept = tokio::task::spawn_blocking(move || evict_deleted(&context.memory, &store)).await;
        swept.unwrap_or_else(|error| resume_unwind(error.into_panic()));
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// Evicts the resources that are not in the store.
fn evict_deleted(memory: &Memory, store: &Store<MaybeInvalidResource>) {
    let alive: HashSet<String> = store.select(|resource| resource.uid()).into_iter().collect();
    memory.retain(|uid| alive.contains(uid));
}

#[cfg(test)]
mod tests;
