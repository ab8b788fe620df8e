//! The dispatcher: starts the reconciles of due resources in the order of the [`WorkQueue`], each as a task of its
//! own, and schedules each resource again at the time that its reconcile returns.
//!
//! kube's `Controller` has a queue, too, but it starts due resources in no particular order, or all of them at once. It
//! then holds a future for each one that waits, and polls all of them whenever one ends. Here a resource that waits is
//! an entry of the queue, and at most `concurrency` reconciles exist. This file must never reconcile a resource twice
//! at the same time, nor start a reconcile after the end of its term.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use stream_encryption_core::controller::due_work::{Scope, due_work};
use stream_encryption_core::controller::kube_api::KubeError;
use stream_encryption_core::controller::{Context, reconcile, report_invalid_object};
use stream_encryption_core::model::schedule;
use stream_encryption_core::work_queue::{Lane, Work, WorkQueue};
use tokio::sync::SetOnce;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Shared;
use crate::aws::Aws;
use crate::aws::rate_limit::RateLimiter;
use crate::kubernetes::Cluster;
use crate::kubernetes::watches::Guarded;
use crate::metrics::ReconcileResult;

/// Number of reconciles of one AWS limit that may exist beside those whose request is permitted within a second:
/// enough to keep the limit used while others wait for responses.
const PLACES_BESIDE_A_SECOND: usize = 4;

/// The name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    namespace: String,
    name: String,
}

/// A change that leads to reconciles.
#[derive(Debug)]
pub(super) enum Trigger {
    /// One resource, or what it depends on, has changed.
    One(Name),
    /// The permissions of all resources may have changed.
    All,
}

impl Name {
    /// Returns the name of a resource.
    pub(super) fn of(resource: &Guarded) -> Self {
        Self { namespace: resource.namespace().unwrap_or_default(), name: resource.name_any() }
    }

    fn reference(&self) -> ObjectRef<Guarded> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

/// The number of resources that are due and wait, by lane. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<[AtomicUsize; Lane::ALL.len()]>);

impl Waiting {
    /// Returns the number of resources that wait in a lane.
    pub(super) fn get(&self, lane: Lane) -> usize {
        self.0[lane as usize].load(Ordering::Relaxed)
    }

    fn set(&self, number: impl Fn(Lane) -> usize) {
        for lane in Lane::ALL {
            self.0[lane as usize].store(number(lane), Ordering::Relaxed);
        }
    }
}

/// Starts the reconciles of one term.
pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    resources: Store<Guarded>,
    queue: WorkQueue<Arc<Name>, Scope>,
    running: JoinSet<(Arc<Name>, Option<Duration>)>,
    start: Instant,
}

impl Dispatcher {
    /// Creates a dispatcher of the resources in `resources`, with at most `concurrency` reconciles at a time.
    pub(super) fn new(shared: Arc<Shared>, resources: Store<Guarded>, concurrency: u16) -> Self {
        let concurrency = usize::from(concurrency);
        let limits = shared.operator.aws.rate_limiter().clone();
        let queue = WorkQueue::new(concurrency, move |scope| places(scope, concurrency, &limits));
        Self { shared, resources, queue, running: JoinSet::new(), start: Instant::now() }
    }

    /// Reconciles from the time at which `caches_are_filled` is set until `end` is cancelled. The triggers are polled
    /// from the beginning, because they fill the caches. Reconciles that are running are finished first.
    pub(super) async fn run(
        mut self,
        mut triggers: BoxStream<'static, Trigger>,
        caches_are_filled: &SetOnce<()>,
        end: &CancellationToken,
    ) {
        while !end.is_cancelled() {
            let may_start = caches_are_filled.initialized();
            if may_start {
                self.start_due();
            }
            let due = self.queue.next_due().filter(|_| may_start).map(|due| self.start + due);
            tokio::select! {
                () = end.cancelled() => {}
                Some(trigger) = triggers.next() => self.trigger(trigger),
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = sleep_until(due) => {}
                () = caches_are_filled.wait(), if !may_start => {}
            }
        }
        self.shared.waiting.set(|_| 0);
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended);
        }
    }

    fn trigger(&mut self, trigger: Trigger) {
        let now = self.start.elapsed();
        match trigger {
            Trigger::One(name) => self.queue.schedule(Arc::new(name), now),
            Trigger::All => {
                for resource in self.resources.state() {
                    self.queue.schedule(Arc::new(Name::of(&resource)), now);
                }
            }
        }
    }

    /// Starts as many reconciles as are due and may start.
    fn start_due(&mut self) {
        let (shared, resources) = (&self.shared, &self.resources);
        let work =
            |name: &Arc<Name>| Some(work(&shared.operator, resources.get(&name.reference())?.as_ref()));
        while let Some(name) = self.queue.next(self.start.elapsed(), work) {
            let reconciled = reconcile_resource(self.shared.clone(), self.resources.clone(), name);
            self.running.spawn(reconciled);
        }
        self.shared.waiting.set(|lane| self.queue.waiting(lane));
    }

    fn ended(&mut self, ended: Result<(Arc<Name>, Option<Duration>), JoinError>) {
        match ended {
            Ok((name, wait)) => self.queue.end(name, wait.map(|wait| self.start.elapsed() + wait)),
            // Tasks are not cancelled, so it has panicked. The process ends, and the next one begins anew.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Returns the maximum number of concurrent reconciles of one scope. Those that send no request leave half of all
/// places to those that do.
fn places(scope: &Scope, concurrency: usize, limits: &RateLimiter) -> usize {
    match scope {
        Scope::NoRequest => concurrency.div_ceil(2),
        Scope::Describe(service, account, region) => {
            limits.describes_per_second(*service, account.as_ref(), region) + PLACES_BESIDE_A_SECOND
        }
    }
}

fn work(operator: &Context<Aws, Cluster>, resource: &Guarded) -> Work<Scope> {
    match &resource.0 {
        Ok(resource) => due_work(operator, resource),
        Err(invalid) => Work {
            scope: Scope::NoRequest,
            lane: Lane::New,
            namespace: invalid.metadata.namespace.clone().unwrap_or_default(),
        },
    }
}

/// Reconciles one resource, and returns its name and the time until the next reconcile; `None` if only a change leads
/// to one.
async fn reconcile_resource(
    shared: Arc<Shared>,
    resources: Store<Guarded>,
    name: Arc<Name>,
) -> (Arc<Name>, Option<Duration>) {
    let Some(resource) = resources.get(&name.reference()) else { return (name, None) };
    let begin = std::time::Instant::now();
    let reconciled = reconcile_or_report(&resource, &shared.operator).await;
    let result = match &reconciled {
        Ok(_) => ReconcileResult::ok,
        Err(KubeError::Conflict) => ReconcileResult::conflict,
        Err(_) => ReconcileResult::error,
    };
    shared.metrics.reconciled(result, begin.elapsed());
    (name, reconciled.unwrap_or_else(|error| Some(after_error(&resource, &error))))
}

async fn reconcile_or_report(
    resource: &Guarded,
    context: &Context<Aws, Cluster>,
) -> Result<Option<Duration>, KubeError> {
    let wake = match &resource.0 {
        // On the heap: a future of this size would be copied into its task.
        Ok(resource) => Box::pin(reconcile(context, resource)).await?,
        Err(invalid) => {
            let read = &invalid.metadata;
            warn!(namespace = read.namespace, name = read.name, error = %invalid.error, "invalid resource");
            Box::pin(report_invalid_object(context, read, &invalid.error)).await?;
            return Ok(None);
        }
    };
    let wait = schedule::after_reconcile(context.config.drift_interval, context.clock.now(), wake);
    Ok(Some(wait.unsigned_abs()))
}

/// Returns the wait after a conflict or a failed request to Kubernetes: short, but not the same for all resources.
fn after_error(resource: &Guarded, error: &KubeError) -> Duration {
    if matches!(error, KubeError::Conflict) {
        return schedule::AFTER_CONFLICT.unsigned_abs();
    }
    warn!(name = resource.name_any(), namespace = resource.namespace(), %error, "request to the API server failed");
    schedule::after_kube_error(&resource.uid().unwrap_or_default()).unsigned_abs()
}
