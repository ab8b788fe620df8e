//! One term: the watches and the work queue, from the time at which this replica may reconcile until the
//! term's token is cancelled. Each resource is passed to [`stream_encryption_core::controller::reconcile`], as many at a time
//! as there are [`Places`], and is requeued at the time that the reconcile returns.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::{Client, ResourceExt};
use stream_encryption_core::controller::kube_api::{KubeApi, KubeError};
use stream_encryption_core::controller::stream_api::StreamApi;
use stream_encryption_core::controller::{Context, ledger_gc, reconcile, report_invalid_object};
use stream_encryption_core::model::schedule;
use tokio::sync::{Notify, SetOnce};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Shared;
use super::places::Places;
use super::policy_statuses::PolicyStatuses;
use crate::aws::Aws;
use crate::kubernetes::caches::{Cache, Caches};
use crate::kubernetes::keys::KeyObject;
use crate::kubernetes::watches::Guarded;
use crate::kubernetes::{Cluster, keys, ledgers, policies, watches};
use crate::metrics::ReconcileResult;

/// Interval at which expired ledgers are deleted and the memory of deleted resources is evicted.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_hours(1);

/// How long the first reconciles wait for the first lists of all caches.
const FIRST_LISTS: Duration = Duration::from_secs(10);
/// Number of drift intervals after which the watches list everything again, in case that they lost a change.
const RELIST_INTERVALS: u32 = 6;

/// The scope of the watches, and the concurrency.
pub(super) struct Watch {
    pub(super) client: Client,
    /// The URL of the API server.
    pub(super) server: String,
    /// The only watched namespace; `None` for all namespaces.
    pub(super) namespace: Option<String>,
    /// The namespace of the ledgers.
    pub(super) ledger_namespace: String,
    /// The interval between two checks for drift.
    pub(super) drift_interval: Duration,
    /// Maximum number of concurrent reconciles.
    pub(super) concurrency: u16,
    /// Whether a default policy is set, which is not stored in the cluster.
    pub(super) has_default_policy: bool,
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
        let namespace = self.namespace.as_deref();
        let changed = Arc::new(Notify::new());
        let relist_every = self.drift_interval.saturating_mul(RELIST_INTERVALS);
        let events = watches::resources(self.client.clone(), namespace, relist_every);
        let (resources_cache, resources) = Cache::of(events, "StreamEncryptions", &changed);
        let events = policies::events(self.client.clone(), relist_every, EverySeconds(3));
        let (policies_cache, policies) = Cache::of(events, "StreamEncryptionPolicies", &changed);
        let events =
            policies::namespace_events(self.client.clone(), namespace, relist_every, EverySeconds(3));
        let (namespaces_cache, namespaces) = Cache::of(events, "namespaces", &changed);
        // The reconciles work without this watch: a role of an earlier version does not allow it.
        let again = EverySeconds(30);
        let events = ledgers::events(self.client.clone(), &self.ledger_namespace, relist_every, again);
        // No number in the statuses of policies depends on ledgers.
        let (ledgers_cache, ledgers) = Cache::of(events, "StreamLedgers", &Arc::default());
        let caches = Caches {
            resources: resources_cache,
            policies: policies_cache,
            namespaces: namespaces_cache,
            ledgers: ledgers_cache,
        };
        let (store, listed) = (caches.resources.store(), caches.resources.listed());
        let resources = watches::changes(resources.modify(watches::drop_content))
            .predicate_filter(watches::trigger, watches::remembered());
        let controller = Controller::for_stream(resources, store.clone())
            // No limit: every due resource starts, and waits for one of the permits.
            .with_config(controller::Config::default().concurrency(0))
            .trigger_backoff(EverySeconds(3));
        let key_changes = resources_using_key(keys::changes(&self.client, namespace), store.clone());
        let policy_changes = policies::spec_changes(policies, self.has_default_policy);
        let namespaces = policies::namespace_changes(namespaces, namespace);
        let namespace_changes = resources_in_namespace(namespaces, store.clone());
        let statuses = PolicyStatuses {
            client: self.client.clone(),
            policies: caches.policies.store(),
            namespaces: caches.namespaces.store(),
            resources: store.clone(),
            listed: [listed.clone(), caches.policies.listed(), caches.namespaces.listed()],
            changed,
        };
        info!(watching = self.namespace.as_deref().unwrap_or("all namespaces"), "controller started");
        shared.metrics.leads(true);
        shared.set_store(Some(store.clone()));
        let ledgers = tokio::spawn(ledgers.for_each(|_| std::future::ready(())));
        let housekeeping = tokio::spawn(housekeeping(shared.clone(), store.clone(), listed.clone()));
        let keeps_statuses = self.namespace.is_none();
        let context = shared.clone();
        let policy_statuses = tokio::spawn(async move {
            if keeps_statuses {
                statuses.keep_current(&context.operator).await;
            }
        });
        let caches_are_filled = Arc::new(SetOnce::new());
        let filling = tokio::spawn(wait_for_first_lists(caches.listed(), caches_are_filled.clone()));
        shared.operator.records.use_caches(Some(caches));
        let term = TaskContext {
            shared: shared.clone(),
            caches_are_filled,
            places: Places::new(self.concurrency),
            resources: store.clone(),
            end: end.clone(),
        };
        let work = controller
            .reconcile_on(key_changes)
            .reconcile_on(namespace_changes)
            .reconcile_all_on(policy_changes)
            .graceful_shutdown_on(end.clone().cancelled_owned())
            .run(visit, error_policy, Arc::new(term))
            .for_each(|result| async move {
                match result {
                    // `error_policy` logs the failure of a reconcile; a deleted object is not an error.
                    Ok(_)
                    | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {
                    }
                    Err(controller::Error::QueueError(error)) => {
                        let cause = watches::explain(&error, "StreamEncryptions");
                        error!(server = self.server, cause, "failed to watch StreamEncryptions");
                    }
                    Err(error @ controller::Error::RunnerError(_)) => error!(%error, "work queue failed"),
                }
            });
        tokio::select! {
            () = work => {}
            () = ended_before_the_first_list(&end, &listed) => {}
        }
        housekeeping.abort();
        policy_statuses.abort();
        ledgers.abort();
        filling.abort();
        shared.operator.records.use_caches(None);
        shared.set_store(None);
        shared.metrics.leads(false);
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
    let wake = match &resource.0 {
        Ok(resource) => Box::pin(reconcile(context, resource)).await?,
        Err(invalid) => {
            let read = &invalid.metadata;
            warn!(namespace = read.namespace, name = read.name, error = %invalid.error, "invalid resource");
            report_invalid_object(context, read, &invalid.error).await?;
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

/// Returns a stream of the resources that reference a changed key object.
fn resources_using_key(
    changes: impl Stream<Item = KeyObject> + Send + 'static,
    store: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    changes.flat_map(move |key| {
        let uses = |resource: &Guarded| {
            let reference = resource.0.as_ref().ok()?.spec.key.as_ref()?.object_ref.as_ref()?;
            (reference.name == key.name
                && reference.group == key.group
                && resource.namespace().as_deref() == Some(&key.namespace))
            .then(|| ObjectRef::from_obj(resource))
        };
        let found: Vec<_> = store.state().iter().filter_map(|resource| uses(resource)).collect();
        debug!(namespace = key.namespace, key = key.name, users = found.len(), "key object changed");
        futures_util::stream::iter(found)
    })
}

/// Returns a stream of the resources in a changed namespace: other policies may select the namespace now.
fn resources_in_namespace(
    changes: impl Stream<Item = String> + Send + 'static,
    store: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    changes.flat_map(move |namespace| {
        let lies_in = |resource: &Arc<Guarded>| resource.namespace().as_deref() == Some(&namespace);
        let found: Vec<_> = store
            .state()
            .iter()
            .filter(|one| lies_in(one))
            .map(|one| ObjectRef::from_obj(one.as_ref()))
            .collect();
        futures_util::stream::iter(found)
    })
}

/// A constant delay in seconds before a failed watch is restarted. The delay is short because the CRDs may
/// just have been installed or the API server restarted, and the requests of one operator are no load.
struct EverySeconds(u64);

impl Iterator for EverySeconds {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(self.0))
    }
}

impl Backoff for EverySeconds {
    fn reset(&mut self) {}
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
