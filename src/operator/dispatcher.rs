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
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use stream_encryption_api::condition::Reason;
use stream_encryption_core::controller::due_work::{AwsLimit, due_work};
use stream_encryption_core::controller::kube_api::{KubeApi, KubeError, ReadFrom};
use stream_encryption_core::controller::stream_api::StreamApi;
use stream_encryption_core::controller::{
    Context, Reconciled, TermEnd, reconcile_in_term, report_invalid_object,
};
use stream_encryption_core::model::schedule;
use stream_encryption_core::work_queue::{Lane, Work, WorkQueue};
use tokio::sync::SetOnce;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::aws::rate_limit::RateLimiter;
use crate::kubernetes::store::{Key, Store};
use crate::kubernetes::watches::MaybeInvalidResource;
use crate::metrics::{Metrics, ReconcileResult};

/// Number of concurrent reconciles of one AWS limit beyond its Describes per second. While some wait for responses, others
/// use the limit.
const EXTRA_PLACES: usize = 4;
/// How long a change that concerns all resources waits for further ones. A policy for each of many accounts may be applied
/// at the same time.
const ALL_AFTER: Duration = Duration::from_secs(1);

/// A change that leads to reconciles.
#[derive(Debug)]
pub enum Trigger {
    /// One resource, or what it depends on, has changed.
    One(Key),
    /// The resource with this uid was deleted.
    Deleted(String),
    /// The permissions of all resources may have changed.
    All,
}

/// The number of resources that are due and wait for a request to AWS, by lane. Clones share it.
#[derive(Clone, Default)]
pub struct Waiting(Arc<[AtomicUsize; Lane::ALL.len()]>);

impl Waiting {
    /// Returns the number of resources that wait in a lane.
    #[must_use]
    pub fn get(&self, lane: Lane) -> usize {
        self.0[lane as usize].load(Ordering::Relaxed)
    }

    fn set(&self, number: impl Fn(Lane) -> usize) {
        for lane in Lane::ALL {
            self.0[lane as usize].store(number(lane), Ordering::Relaxed);
        }
    }
}

/// What every reconcile needs. Clones share it.
pub struct Reconciler<A, R> {
    /// The context of the reconciles.
    pub context: Arc<Context<A, R>>,
    /// The resources, as the watches deliver them.
    pub resources: Store<MaybeInvalidResource>,
    /// Counts the reconciles.
    pub metrics: Metrics,
}

impl<A, R> Clone for Reconciler<A, R> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            resources: self.resources.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// Starts the reconciles of one term.
pub struct Dispatcher<A, R> {
    reconciler: Reconciler<A, R>,
    queue: WorkQueue<Key, AwsLimit>,
    waiting: Waiting,
    running: JoinSet<EndedReconcile>,
    /// When all resources become due, if a change concerns all of them.
    all_due: Option<Instant>,
    start: Instant,
}

/// A reconcile that has ended.
struct EndedReconcile {
    key: Key,
    /// The uid of the reconciled resource; `None` if there was nothing to reconcile.
    uid: Option<String>,
    /// The time until the next reconcile; `None` if only a change leads to one.
    wait: Option<Duration>,
    /// Whether AWS responds in the scope of the reconcile; `None` if the reconcile did not show that.
    response: Option<ScopeResponse>,
}

/// Whether AWS responds in a scope of the queue.
#[derive(Debug, PartialEq, Eq)]
struct ScopeResponse {
    scope: AwsLimit,
    responds: bool,
}

/// The outcome of a reconcile, or of the report of an invalid resource.
struct Outcome {
    /// The result for the metrics.
    result: ReconcileResult,
    /// The time until the next reconcile; `None` if only a change leads to one.
    wait: Option<Duration>,
    /// Whether AWS answered, as in [`Reconciled::answered`].
    answered: Option<bool>,
}

impl<A: StreamApi, R: KubeApi> Dispatcher<A, R> {
    /// Creates a dispatcher, with at most `concurrency` reconciles at a time. `limits` determines how many reconciles of
    /// one AWS limit run at a time; `waiting` is updated with the number of resources that wait.
    #[must_use]
    pub fn new(
        reconciler: Reconciler<A, R>,
        limits: RateLimiter,
        concurrency: u16,
        waiting: Waiting,
    ) -> Self {
        let concurrency = usize::from(concurrency);
        let queue = WorkQueue::new(concurrency, move |scope| places(scope, concurrency, &limits));
        Self { reconciler, queue, waiting, running: JoinSet::new(), all_due: None, start: Instant::now() }
    }

    /// Reconciles from the time at which `may_start` is set until `end` is cancelled. The triggers are polled
    /// from the beginning, because they fill the caches. At the end it waits until the running reconciles have ended. A
    /// reconcile that still waits for AWS ends at once, without a call.
    pub async fn run(
        mut self,
        mut triggers: BoxStream<'static, Trigger>,
        may_start: &SetOnce<()>,
        end: &CancellationToken,
    ) {
        let mut is_ordered = false;
        while !end.is_cancelled() {
            let is_started = may_start.initialized();
            if is_started {
                if !std::mem::replace(&mut is_ordered, true) {
                    self.schedule_oldest_first();
                }
                self.start_due(end);
            }
            let due = self.queue.next_due().map(|due| self.start + due);
            let due = due.into_iter().chain(self.all_due).min().filter(|_| is_started);
            tokio::select! {
                () = end.cancelled() => {}
                Some(trigger) = triggers.next() => self.trigger(trigger, is_started),
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = sleep_until(due) => {}
                () = may_start.wait(), if !is_started => {}
            }
        }
        self.waiting.set(|_| 0);
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended);
        }
    }

    /// Schedules the resources that are known before the first reconcile, those first whose streams were described longest
    /// ago. In the order of their names, the last ones would never be described if leaders changed often.
    fn schedule_oldest_first(&mut self) {
        let mut known = self.reconciler.resources.select(|resource| {
            let key = Key::of(&resource);
            let status = resource.0.ok()?.status;
            Some((status.and_then(|status| Some(status.last_describe_time?.0)), key))
        });
        known.sort_unstable();
        for (number, (_, key)) in (0..).zip(known) {
            self.queue.schedule(key, Duration::from_nanos(number));
        }
    }

    fn trigger(&mut self, trigger: Trigger, is_started: bool) {
        let now = self.start.elapsed();
        match trigger {
            Trigger::One(key) => {
                self.register_for_events(&key);
                self.queue.schedule(key, now);
            }
            Trigger::Deleted(uid) => self.reconciler.context.memory.evict(&uid),
            Trigger::All => {
                // Before the first reconcile, everything is due anyway.
                let pause = if is_started { ALL_AFTER } else { Duration::ZERO };
                self.all_due.get_or_insert(Instant::now() + pause);
            }
        }
    }

    /// Registers a changed resource for AWS's events, which may arrive before its reconcile.
    fn register_for_events(&self, key: &Key) {
        let Reconciler { context, resources, .. } = &self.reconciler;
        if context.config.receives_events()
            && let Some(resource) = resources.get(key).and_then(|resource| resource.0.ok())
        {
            context.memory.events.register_from_status(&resource);
        }
    }

    /// Starts as many reconciles as are due and may start.
    fn start_due(&mut self, end: &CancellationToken) {
        if self.all_due.take_if(|due| *due <= Instant::now()).is_some() {
            for key in self.reconciler.resources.keys() {
                self.queue.schedule(key, self.start.elapsed());
            }
        }
        let reconciler = &self.reconciler;
        let work = |key: &Key| work_or_evict(reconciler, key);
        while let Some(key) = self.queue.next(self.start.elapsed(), work) {
            self.running.spawn(reconcile_resource(reconciler.clone(), key, end.clone()));
        }
        self.waiting.set(|lane| waiting_for_aws(&self.queue, lane));
    }

    /// Evicts the memory of a resource that was deleted during its reconcile, which may have stored the memory again. Otherwise a
    /// user who creates and deletes resources would fill the memory until the next sweep.
    fn evict_if_deleted(&self, key: &Key, reconciled: Option<&str>) {
        let Reconciler { context, resources, .. } = &self.reconciler;
        let present = resources.get(key).and_then(|resource| resource.uid());
        if let Some(uid) = reconciled.filter(|uid| present.as_deref() != Some(*uid)) {
            context.memory.evict(uid);
        }
    }

    fn ended(&mut self, ended: Result<EndedReconcile, JoinError>) {
        match ended {
            Ok(EndedReconcile { key, uid, wait, response }) => {
                self.evict_if_deleted(&key, uid.as_deref());
                let now = self.start.elapsed();
                if let Some(ScopeResponse { scope, responds }) = response {
                    self.queue.record_response(&key, &scope, responds, now);
                }
                self.queue.end(key, wait.map(|wait| now + wait));
            }
            // Tasks are not cancelled, so it has panicked. The process ends, and the next one begins anew.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Returns the number of resources in a lane that wait for a request to AWS.
fn waiting_for_aws(queue: &WorkQueue<Key, AwsLimit>, lane: Lane) -> usize {
    queue.waiting(lane) - queue.waiting_in(&AwsLimit::NoRequest, lane)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Returns the maximum number of concurrent reconciles of one scope. Those that send no request leave half of all
/// places to those that do.
fn places(scope: &AwsLimit, concurrency: usize, limits: &RateLimiter) -> usize {
    match scope {
        AwsLimit::NoRequest => concurrency.div_ceil(2),
        AwsLimit::Describe(service, account, region) => {
            limits.describes_per_second(*service, account.as_ref(), region) + EXTRA_PLACES
        }
    }
}

/// Returns the work of a due resource; `None` if the resource no longer exists. If it does not exist or is invalid, no
/// reconcile will enter the calls that AWS's events report about it, so it is evicted from their inbox.
///
/// Here, and not when the watch reports the deletion: a reconcile of the resource that is running then would register the
/// resource again. The queue asks for the work of a resource only while no reconcile of it runs.
fn work_or_evict<A: StreamApi, R: KubeApi>(
    Reconciler { context, resources, .. }: &Reconciler<A, R>,
    key: &Key,
) -> Option<Work<AwsLimit>> {
    let resource = resources.get(key);
    if resource.as_ref().is_none_or(|resource| resource.0.is_err()) {
        context.memory.events.evict(&key.to_string());
    }
    Some(work_of(context, &resource?))
}

fn work_of<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    resource: &MaybeInvalidResource,
) -> Work<AwsLimit> {
    match &resource.0 {
        Ok(resource) => due_work(context, resource),
        Err(invalid) => Work {
            scope: AwsLimit::NoRequest,
            lane: Lane::Changed,
            namespace: invalid.metadata.namespace.clone().unwrap_or_default(),
        },
    }
}

/// Reconciles one resource, unless `end` is cancelled.
async fn reconcile_resource<A: StreamApi, R: KubeApi>(
    reconciler: Reconciler<A, R>,
    key: Key,
    end: CancellationToken,
) -> EndedReconcile {
    let Reconciler { context, resources, metrics } = &reconciler;
    // The term may have ended before the first poll of this task.
    let resource = resources.get(&key).filter(|_| !end.is_cancelled());
    let Some(resource) = resource else {
        return EndedReconcile { key, uid: None, wait: None, response: None };
    };
    let end = TermEnd::new(move || end.clone().cancelled_owned());
    let scope = work_of(context, &resource).scope;
    let begin = std::time::Instant::now();
    let Outcome { result, wait, answered } = reconcile_or_report(&resource, context, &end).await;
    metrics.reconciled(result, begin.elapsed());
    let answered = answered.filter(|_| scope != AwsLimit::NoRequest);
    let response = answered.map(|responds| ScopeResponse { scope, responds });
    EndedReconcile { key, uid: resource.uid(), wait, response }
}

/// Returns the reason that this process has reported last.
fn last_reason<A, R>(context: &Context<A, R>, resource: &MaybeInvalidResource) -> Option<Reason> {
    context.memory.scheduling_state(resource.0.as_ref().ok()?, context.clock.now()).1.reason
}

/// Reconciles a valid resource, or reports an invalid one.
async fn reconcile_or_report<A: StreamApi, R: KubeApi>(
    resource: &MaybeInvalidResource,
    context: &Context<A, R>,
    end: &TermEnd,
) -> Outcome {
    // On the heap: a future of this size would be copied into its task.
    let ended = match &resource.0 {
        Ok(resource) => Box::pin(reconcile_in_term(context, resource, end)).await.map(Some),
        Err(invalid) => {
            let read = &invalid.metadata;
            warn!(namespace = read.namespace, name = read.name, error = %invalid.error, "invalid resource");
            Box::pin(report_or_read(context, read, &invalid.error)).await.map(|()| None)
        }
    };
    match ended {
        Ok(Some(Reconciled { wake, is_outdated, answered })) => {
            let now = context.clock.now();
            let wait = schedule::after_reconcile(context.config.longest_drift_interval(), now, wake);
            let result = if is_outdated { ReconcileResult::conflict } else { ReconcileResult::ok };
            Outcome { result, wait: Some(wait.unsigned_abs()), answered }
        }
        Ok(None) => Outcome { result: ReconcileResult::ok, wait: None, answered: None },
        Err(error) => {
            let is_conflict = matches!(error, KubeError::Conflict);
            let result = if is_conflict { ReconcileResult::conflict } else { ReconcileResult::error };
            Outcome { result, wait: Some(after_error(context, resource, &error)), answered: None }
        }
    }
}

/// Reports an invalid resource. If the API server refuses the report, reads the resource: if it no longer exists and its watch
/// has failed, the read removes it from the cache. The report would otherwise be repeated, and the metrics would count the
/// resource, until the operator is restarted. The reconcile of a valid resource reads it anyway.
async fn report_or_read<A: StreamApi, R: KubeApi>(
    context: &Context<A, R>,
    read: &ObjectMeta,
    why: &str,
) -> Result<(), KubeError> {
    let reported = report_invalid_object(context, read, why).await;
    if matches!(reported, Err(KubeError::Rejected(_))) {
        let namespace = read.namespace.as_deref().unwrap_or_default();
        let name = read.name.as_deref().unwrap_or_default();
        // The resource is invalid, so the read of an existing one fails.
        let _ = context.kube.resource(namespace, name, ReadFrom::ApiServer).await;
    }
    reported
}

/// Returns the wait after a failed request to Kubernetes, which grows with the number of failures in succession. A
/// conflict is one of them: only invalid resources return it, and their metadata is that of the cache, which may be
/// behind for as long as its watch fails.
fn after_error<A, R>(
    context: &Context<A, R>,
    resource: &MaybeInvalidResource,
    error: &KubeError,
) -> Duration {
    if !matches!(error, KubeError::Conflict) {
        warn!(name = resource.name_any(), namespace = resource.namespace(), %error, "request to the API server failed");
    }
    let uid = resource.uid().unwrap_or_default();
    let failures = context.memory.count_failure(&uid);
    // While AWS may be changing the stream, the shorter wait applies after a refusal, too: the operator must see the end of the
    // change, even if it must not write the status or the finalizer.
    let follows_change = last_reason(context, resource).is_some_and(may_change_soon);
    let wait = match error {
        KubeError::Rejected(_) if !follows_change => schedule::after_kube_refusal(&uid, failures),
        _ => schedule::after_kube_error(&uid, failures),
    };
    wait.unsigned_abs()
}

/// Returns whether AWS is changing the stream, or may be, so that its state is another one soon.
fn may_change_soon(reason: Reason) -> bool {
    use Reason::{Disabling, Enabling, OutcomeUnknown, Settling, StreamUpdating, Verifying};
    matches!(reason, Disabling | Enabling | OutcomeUnknown | Settling | StreamUpdating | Verifying)
}

#[cfg(test)]
mod tests;
