//! One term: the watches and the queue, from when this replica may work until it is told to end. It hands each resource to
//! [`crate::controller::reconcile`], as many at a time as there are [`Places`], and comes back when that says.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::places::Places;
use super::{Context, Shared};
use crate::api::stream_encryption::StreamEncryption;
use crate::aws::Streams;
use crate::controller::records::{AFTER_CONFLICT, RecordError, Records};
use crate::controller::{Operator, malformed, reconcile, retire};
use crate::kubernetes::{keys, policies, watches};
use crate::metrics::Ended;

/// A resource whose content may not be what its schema says: one such object must not stop the watch of all others.
pub(super) type Guarded = DeserializeGuard<StreamEncryption>;

/// How often ledgers are looked through for those that may be retired.
const RETIRE_EVERY: Duration = Duration::from_hours(1);

/// What is watched, and how much is done at a time.
pub(super) struct Watch {
    pub(super) client: Client,
    /// The URL of the API server.
    pub(super) server: String,
    /// Only this namespace, or all.
    pub(super) namespace: Option<String>,
    /// How many resources to work on at a time.
    pub(super) concurrency: u16,
    /// Whether a policy counts that is not in the cluster.
    pub(super) has_default_policy: bool,
}

/// What the visits of one term have in common.
struct Term {
    shared: Arc<Shared>,
    places: Places,
    resources: Store<Guarded>,
    /// Cancelled when no visit shall begin any more.
    end: CancellationToken,
}

impl Watch {
    /// Works until `end`; calls in flight are finished first.
    pub(super) async fn serve(&self, shared: Arc<Shared>, end: CancellationToken) {
        // What was remembered of a term before is older than what another replica may have said since.
        shared.operator.memory.retain(|_| false);
        let (store, writer) = reflector::store();
        let listed = Arc::new(SetOnce::new());
        let resources = watches::resources(self.client.clone(), self.namespace.as_deref())
            .reflect(writer)
            .inspect_ok(notify_at_first_list(listed.clone()))
            .applied_objects();
        let controller = Controller::for_stream(resources, store.clone())
            // As many as are due; those beyond the places wait for one.
            .with_config(controller::Config::default().concurrency(0))
            .trigger_backoff(EverySeconds(3));
        let changes = keys::changes(self.client.clone(), self.namespace.as_deref());
        let key_changes = users_of(changes, store.clone());
        let policy_changes = policies::changes(self.client.clone(), self.has_default_policy, EverySeconds(3));
        let namespaces =
            policies::namespace_changes(self.client.clone(), self.namespace.as_deref(), EverySeconds(3));
        let namespace_changes = all_in(namespaces, store.clone());
        info!(watching = self.namespace.as_deref().unwrap_or("all namespaces"), "works");
        shared.metrics.leads(true);
        shared.has(Some(store.clone()));
        let housekeeping = tokio::spawn(keep_house(shared.clone(), store.clone(), listed.clone()));
        let term = Term {
            shared: shared.clone(),
            places: Places::new(self.concurrency),
            resources: store.clone(),
            end: end.clone(),
        };
        let work = controller
            .reconcile_on(key_changes)
            .reconcile_on(namespace_changes)
            .reconcile_all_on(policy_changes)
            .graceful_shutdown_on(end.clone().cancelled_owned())
            .run(visit, failed, Arc::new(term))
            .for_each(|result| async move {
                match result {
                    // What failed in a visit is told in `failed`; an object that is gone is no error.
                    Ok(_)
                    | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {
                    }
                    Err(controller::Error::QueueError(error)) => {
                        let cause = watches::explain(&error);
                        error!(server = self.server, cause, "cannot watch StreamEncryptions");
                    }
                    Err(error @ controller::Error::RunnerError(_)) => error!(%error, "the queue failed"),
                }
            });
        tokio::select! {
            () = work => {}
            () = ended_before_the_first_list(&end, &listed) => {}
        }
        housekeeping.abort();
        shared.has(None);
        shared.metrics.leads(false);
    }
}

/// Returns if `end` comes before the resources were ever listed. The controller would wait for that list for ever, and without
/// it nothing is in flight.
async fn ended_before_the_first_list(end: &CancellationToken, listed: &SetOnce<()>) {
    end.cancelled().await;
    if listed.initialized() {
        std::future::pending::<()>().await;
    }
}

/// Sets `listed` when the resources have been listed for the first time, and the store holds them.
///
/// The store itself can be awaited by the Controller only: of several tasks that wait until it is ready, kube wakes the last.
fn notify_at_first_list<K>(listed: Arc<SetOnce<()>>) -> impl FnMut(&watcher::Event<K>) {
    move |event| {
        if matches!(event, watcher::Event::InitDone) {
            // It is set already where this is a later list.
            let _ = listed.set(());
        }
    }
}

/// One visit of one resource, in its turn.
async fn visit(resource: Arc<Guarded>, term: Arc<Term>) -> Result<Action, RecordError> {
    let namespace = resource.namespace().unwrap_or_default();
    let _place = tokio::select! {
        biased;
        () = term.end.cancelled() => return Ok(Action::await_change()),
        place = term.places.take(&namespace) => place,
    };
    // It may have changed while it waited, or be gone.
    let Some(resource) = term.resources.get(&ObjectRef::from_obj(&*resource)) else {
        return Ok(Action::await_change());
    };
    let shared = &term.shared;
    let begin = Instant::now();
    let visited = visit_uncounted(&resource, &shared.operator).await;
    let ended = match &visited {
        Ok(_) => Ended::ok,
        Err(RecordError::Conflict) => Ended::conflict,
        Err(_) => Ended::error,
    };
    shared.metrics.reconciled(ended, begin.elapsed());
    visited
}

async fn visit_uncounted(resource: &Guarded, context: &Context) -> Result<Action, RecordError> {
    let wake = match &resource.0 {
        Ok(resource) => Box::pin(reconcile(context, resource)).await?,
        Err(invalid) => {
            let read = &invalid.metadata;
            warn!(namespace = read.namespace, name = read.name, error = %invalid.error, "a resource cannot be read");
            malformed(context, read, &invalid.error).await?;
            return Ok(Action::await_change());
        }
    };
    Ok(Action::requeue(context.rules.wait(context.clock.now(), wake).unsigned_abs()))
}

/// Somebody else wrote first, or Kubernetes could not be asked: again soon, but not all resources at once.
#[allow(clippy::needless_pass_by_value, reason = "kube's signature")]
fn failed(resource: Arc<Guarded>, error: &RecordError, _: Arc<Term>) -> Action {
    if matches!(error, RecordError::Conflict) {
        return Action::requeue(AFTER_CONFLICT.unsigned_abs());
    }
    warn!(name = resource.name_any(), namespace = resource.namespace(), %error, "Kubernetes could not be asked");
    let spread = u64::from(resource.uid().unwrap_or_default().bytes().fold(0_u8, u8::wrapping_add));
    Action::requeue(Duration::from_millis(3000 + spread * 20))
}

/// The resources whose key is the object that changed.
fn users_of(
    changes: impl Stream<Item = (String, String)> + Send + 'static,
    store: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    changes.flat_map(move |(namespace, name)| {
        let uses = |resource: &Guarded| {
            let reference = resource.0.as_ref().ok()?.spec.key.as_ref()?.reference.as_ref()?;
            (reference.name == name && resource.namespace().as_deref() == Some(&namespace))
                .then(|| ObjectRef::from_obj(resource))
        };
        let found: Vec<_> = store.state().iter().filter_map(|resource| uses(resource)).collect();
        debug!(namespace, key = name, users = found.len(), "a key object changed");
        futures_util::stream::iter(found)
    })
}

/// The resources of a namespace that changed: other policies may select it now.
fn all_in(
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

/// How long to wait before a broken watch is begun again. Short and always the same: the definitions may just have been
/// installed, or the API server been restarted, and one operator asking is no load.
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

/// Reports readiness when the first list is complete; then does the housekeeping.
async fn keep_house(shared: Arc<Shared>, store: Store<Guarded>, listed: Arc<SetOnce<()>>) {
    listed.wait().await;
    shared.readiness.reached();
    housekeeping(&shared.operator, &store).await;
}

/// Retires ledgers and evicts the memory of deleted resources: now, and then every hour.
async fn housekeeping<A: Streams, R: Records>(operator: &Operator<A, R>, store: &Store<Guarded>) {
    let mut every = tokio::time::interval(RETIRE_EVERY);
    loop {
        every.tick().await;
        if let Err(error) = retire::retire(operator).await {
            warn!(%error, "the ledgers could not be looked through");
        }
        let alive: HashSet<String> = store.state().iter().filter_map(|resource| resource.uid()).collect();
        operator.memory.retain(|uid| alive.contains(uid));
    }
}

#[cfg(test)]
mod tests;
