//! One term: the work queue and the tasks beside it, from the time at which this replica may reconcile until the
//! term's token is cancelled. Each resource is passed to [`reconcile`], as many at a time as there are [`Places`],
//! and is requeued at the time that the reconcile returns.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::ResourceExt;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use stream_encryption_core::controller::kube_api::{KubeApi, KubeError};
use stream_encryption_core::controller::stream_api::StreamApi;
use stream_encryption_core::controller::{Context, ledger_gc, reconcile, report_invalid_object};
use stream_encryption_core::model::schedule;
use tokio::sync::SetOnce;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Shared;
use super::places::Places;
use super::policy_statuses::PolicyStatuses;
use super::sources::{EverySeconds, Scope, Sources};
use crate::aws::Aws;
use crate::kubernetes::Cluster;
use crate::kubernetes::watches::{self, Guarded};
use crate::metrics::ReconcileResult;

/// Interval at which expired ledgers are deleted and the memory of deleted resources is evicted.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_hours(1);

/// How long the first reconciles wait for the first lists of all caches.
const FIRST_LISTS: Duration = Duration::from_secs(10);

/// What one term reconciles, and how much of it at a time.
pub(super) struct Watch {
    pub(super) scope: Scope,
    /// The URL of the API server.
    pub(super) server: String,
    /// Maximum number of concurrent reconciles.
    pub(super) concurrency: u16,
}

/// State shared by the reconciles of one term.
struct TaskContext {
    shared: Arc<Shared>,
    places: Places,
    resources: Store<Guarded>,
    /// Set when the reconciles may begin.
    caches_are_filled: Arc<SetOnce<()>>,
    /// Cancelled when no further reconcile may start.
    end: CancellationToken,
}

impl Watch {
    /// Reconciles until `end` is cancelled; calls in flight are finished first.
    pub(super) async fn run(&self, shared: Arc<Shared>, end: CancellationToken) {
        // The memory of an earlier term is older than the statuses that another replica may have written
        // since.
        shared.operator.memory.retain(|_| false);
        let sources = Sources::watch(&self.scope);
        let (store, listed) = (sources.caches.resources.store(), sources.caches.resources.listed());
        let statuses = PolicyStatuses::new(self.scope.client.clone(), &sources);
        info!(watching = self.scope.namespace.as_deref().unwrap_or("all namespaces"), "controller started");
        shared.metrics.leads(true);
        shared.set_store(Some(store.clone()));
        let caches_are_filled = Arc::new(SetOnce::new());
        let mut background = JoinSet::new();
        background.spawn(sources.ledgers.for_each(|_| std::future::ready(())));
        background.spawn(housekeeping(shared.clone(), store.clone(), listed.clone()));
        background.spawn(wait_for_first_lists(sources.caches.listed(), caches_are_filled.clone()));
        if self.scope.namespace.is_none() {
            let context = shared.clone();
            background.spawn(async move { statuses.keep_current(&context.operator).await });
        }
        shared.operator.records.use_caches(Some(sources.caches));
        let term = TaskContext {
            shared: shared.clone(),
            caches_are_filled,
            places: Places::new(self.concurrency),
            resources: store.clone(),
            end: end.clone(),
        };
        let work = Controller::for_stream(sources.resources, store)
            // No limit: every due resource starts, and waits for one of the permits.
            .with_config(controller::Config::default().concurrency(0))
            .trigger_backoff(EverySeconds(3))
            .reconcile_on(sources.of_changed_keys)
            .reconcile_on(sources.of_changed_namespaces)
            .reconcile_all_on(sources.policy_changes)
            .graceful_shutdown_on(end.clone().cancelled_owned())
            .run(visit, error_policy, Arc::new(term))
            .for_each(|result| async move { self.log_queue_error(result) });
        tokio::select! {
            () = work => {}
            () = ended_before_the_first_list(&end, &listed) => {}
        }
        drop(background);
        shared.operator.records.use_caches(None);
        shared.set_store(None);
        shared.metrics.leads(false);
    }

    /// Logs an error of the queue. `error_policy` logs the failure of a reconcile, and a deleted object is no error.
    fn log_queue_error<T>(&self, result: Result<T, controller::Error<KubeError, watcher::Error>>) {
        match result {
            Ok(_) | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
            Err(controller::Error::QueueError(error)) => {
                let cause = watches::explain(&error, "StreamEncryptions");
                error!(server = self.server, cause, "failed to watch StreamEncryptions");
            }
            Err(error @ controller::Error::RunnerError(_)) => error!(%error, "work queue failed"),
        }
    }
}

/// Returns if `end` is cancelled before the first list of the resources is complete, otherwise never. The
/// Controller would wait for that list indefinitely, and without the list no call is in flight.
async fn ended_before_the_first_list(end: &CancellationToken, listed: &SetOnce<()>) {
    end.cancelled().await;
    if listed.initialized() {
        std::future::pending::<()>().await;
    }
}

/// Sets `filled` when the first list of each cache is complete, or after [`FIRST_LISTS`]: until then each
/// reconcile would read from the API server instead of the caches.
async fn wait_for_first_lists(listed: [Arc<SetOnce<()>>; 4], filled: Arc<SetOnce<()>>) {
    let lists = async {
        for listed in listed {
            listed.wait().await;
        }
    };
    // A watch that the role does not permit never has a list.
    let _ = tokio::time::timeout(FIRST_LISTS, lists).await;
    // Nobody else sets it.
    let _ = filled.set(());
}

/// Reconciles one resource once a permit is available, and counts the result.
async fn visit(resource: Arc<Guarded>, term: Arc<TaskContext>) -> Result<Action, KubeError> {
    let namespace = resource.namespace().unwrap_or_default();
    let place = async {
        term.caches_are_filled.wait().await;
        term.places.take(&namespace).await
    };
    let _place = tokio::select! {
        biased;
        () = term.end.cancelled() => return Ok(Action::await_change()),
        place = place => place,
    };
    // The resource may have changed or been deleted while it waited for the permit.
    let Some(resource) = term.resources.get(&ObjectRef::from_obj(&*resource)) else {
        return Ok(Action::await_change());
    };
    let shared = &term.shared;
    let begin = Instant::now();
    let visited = visit_uncounted(&resource, &shared.operator).await;
    let ended = match &visited {
        Ok(_) => ReconcileResult::ok,
        Err(KubeError::Conflict) => ReconcileResult::conflict,
        Err(_) => ReconcileResult::error,
    };
    shared.metrics.reconciled(ended, begin.elapsed());
    visited
}

async fn visit_uncounted(resource: &Guarded, context: &Context<Aws, Cluster>) -> Result<Action, KubeError> {
    // On the heap: a resource that waits for its permit must not use the memory of a reconcile.
    let wake = match &resource.0 {
        Ok(resource) => Box::pin(reconcile(context, resource)).await?,
        Err(invalid) => {
            let read = &invalid.metadata;
            warn!(namespace = read.namespace, name = read.name, error = %invalid.error, "invalid resource");
            Box::pin(report_invalid_object(context, read, &invalid.error)).await?;
            return Ok(Action::await_change());
        }
    };
    let wait = schedule::after_reconcile(context.config.drift_interval, context.clock.now(), wake);
    Ok(Action::requeue(wait.unsigned_abs()))
}

/// Requeues a resource after a conflict or a failed request to Kubernetes: soon, but not all resources at
/// once.
#[allow(clippy::needless_pass_by_value, reason = "kube's signature")]
fn error_policy(resource: Arc<Guarded>, error: &KubeError, _: Arc<TaskContext>) -> Action {
    if matches!(error, KubeError::Conflict) {
        return Action::requeue(schedule::AFTER_CONFLICT.unsigned_abs());
    }
    warn!(name = resource.name_any(), namespace = resource.namespace(), %error, "request to the API server failed");
    Action::requeue(schedule::after_kube_error(&resource.uid().unwrap_or_default()).unsigned_abs())
}

/// Reports readiness when the first list is complete, then runs the housekeeping.
async fn housekeeping(shared: Arc<Shared>, store: Store<Guarded>, listed: Arc<SetOnce<()>>) {
    listed.wait().await;
    shared.readiness.reached();
    repeat_housekeeping(&shared.operator, &store).await;
}

/// Deletes expired ledgers and evicts the memory of deleted resources: now, and then every hour.
async fn repeat_housekeeping<A: StreamApi, R: KubeApi>(operator: &Context<A, R>, store: &Store<Guarded>) {
    let mut every = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    loop {
        every.tick().await;
        if let Err(error) = ledger_gc::collect_expired(operator).await {
            warn!(%error, "failed to list ledgers");
        }
        let alive: HashSet<String> = store.state().iter().filter_map(|resource| resource.uid()).collect();
        operator.memory.retain(|uid| alive.contains(uid));
    }
}

#[cfg(test)]
mod tests;
