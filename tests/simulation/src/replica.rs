//! One process of the operator, as its driver runs it: a watch that fills a cache, a queue, and at most one
//! reconcile per resource at a time.
//!
//! Only this module is a copy: in the operator, `src/operator/dispatcher.rs` and the work queue have this
//! task. The reconcile itself is the operator's own [`reconcile_in_term`].

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::change_hash::change_hash;
use stream_encryption_core::controller::event_inbox::ResourceName;
use stream_encryption_core::controller::kube_api::KubeError;
use stream_encryption_core::controller::ledger_gc::LedgerGc;
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::{
    Config, Context, NoMetrics, Reconciled, TermEnd, reconcile_in_term,
};
use stream_encryption_core::model::aws_event::AwsEvent;
use stream_encryption_core::model::schedule;

use crate::environment::{Environment, Event, Process, REGION, State};
use crate::plan::Plan;
use crate::ports::{AwsPort, KubernetesPort};
use crate::store::{Change, Name, name_of};
use crate::transport::Transport;
use crate::wiring::Wiring;

/// The interval between two checks for drift while events arrive: short enough that a status shows the expiry of all
/// calls before the convergence check.
const DRIFT_INTERVAL_WITH_EVENTS: SignedDuration = SignedDuration::from_hours(6);

/// The kind of a task, and its result.
#[derive(Debug)]
pub enum TaskOutcome {
    /// The reconcile of a resource.
    Reconciled(Result<Reconciled, KubeError>),
    /// The cleanup of expired ledgers.
    LedgersCollected,
}

/// A task in progress.
pub struct Task {
    /// The process that runs it.
    pub process: Process,
    /// The resource that it reconciles, if any.
    pub name: Option<Name>,
    /// The operator's own code.
    pub future: Pin<Box<dyn Future<Output = TaskOutcome> + Send>>,
}

/// A process of the operator.
pub struct Replica<P: Wiring> {
    /// The replica and its incarnation.
    pub process: Process,
    operator: Arc<Context<P::StreamApi, P::KubeApi>>,
    /// The number of changes that the watch has delivered.
    pub delivered: usize,
    queue: BTreeMap<Name, Queued>,
}

/// The state of a resource in the queue.
#[derive(Clone, Debug, Default)]
struct Queued {
    due: Option<Timestamp>,
    is_running: bool,
}

impl<P: Wiring> Replica<P> {
    /// Starts a process.
    pub fn boot(environment: &Arc<Environment>, process: Process, plan: &Plan, wiring: &P) -> Self {
        let operator = Arc::new(context(environment, process, plan, wiring));
        Self { process, operator, delivered: 0, queue: BTreeMap::new() }
    }

    /// Relists: the cache holds the state after the first `up_to` changes, and every resource that differs
    /// from the cache's previous state is reconciled.
    pub fn list(&mut self, environment: &Environment, up_to: usize) {
        let state = &mut *environment.state();
        let mut resources = BTreeMap::new();
        for Change { resource, deleted } in &state.store.changes()[..up_to] {
            if *deleted {
                resources.remove(&name_of(resource));
            } else {
                resources.insert(name_of(resource), resource.clone());
            }
        }
        self.delivered = up_to;
        let cache = &mut state.replicas[self.process.replica].caches.resources;
        let previous = std::mem::replace(cache, resources.clone());
        if self.operator.config.receives_events() {
            for resource in resources.values() {
                self.operator.memory.events.register_from_status(resource);
            }
        }
        for (name, resource) in resources {
            if triggers_reconcile(previous.get(&name), &resource) {
                self.enqueue(state, name);
            }
        }
    }

    /// Makes a reconcile due now.
    fn enqueue(&mut self, state: &mut State, name: Name) {
        let now = state.now;
        self.queue.entry(name.clone()).or_default().due = Some(now);
        state.events.add(now, Event::Due { process: self.process, name });
    }

    /// Delivers all changes up to this one; the first `drops` of them are lost.
    pub fn deliver(&mut self, environment: &Environment, up_to: usize, drops: &mut u32) {
        let state = &mut *environment.state();
        let up_to = up_to.min(state.store.changes().len());
        for at in self.delivered..up_to {
            let Change { resource, deleted } = state.store.changes()[at].clone();
            let name = name_of(&resource);
            // Without this condition a new resource could never be discovered; no API server is known to lose
            // such a change.
            let cache = &mut state.replicas[self.process.replica].caches.resources;
            if *drops > 0 && cache.contains_key(&name) {
                *drops -= 1;
                continue;
            }
            if deleted {
                cache.remove(&name);
            } else {
                let previous = cache.insert(name.clone(), resource.clone());
                if triggers_reconcile(previous.as_ref(), &resource) {
                    self.enqueue(state, name);
                }
            }
        }
        self.delivered = self.delivered.max(up_to);
    }

    /// Schedules every resource, after a change that may affect each of them.
    pub fn enqueue_all(&mut self, environment: &Environment) {
        let state = &mut *environment.state();
        let names: Vec<Name> =
            state.replicas[self.process.replica].caches.resources.keys().cloned().collect();
        for name in names {
            self.enqueue(state, name);
        }
    }

    /// Receives an event of AWS, and schedules the resources that it concerns.
    pub fn receive(&mut self, environment: &Environment, event: &AwsEvent) {
        let Context { memory, clock, .. } = &*self.operator;
        let age = Duration::try_from(clock.now().duration_since(event.time)).unwrap_or_default();
        let due = memory.events.receive(event, clock.monotonic(), age);
        self.enqueue_named(environment, &due);
    }

    /// Schedules the resources whose events no longer arrive.
    pub fn find_silent(&mut self, environment: &Environment) {
        for silent in self.operator.memory.events.find_silent(self.operator.clock.monotonic()) {
            self.enqueue_named(environment, &silent.resources);
        }
    }

    /// Returns whether a reconcile still needs this event.
    pub fn holds(&self, event: &AwsEvent) -> bool {
        self.operator.memory.events.holds(event)
    }

    fn enqueue_named(&mut self, environment: &Environment, names: &[ResourceName]) {
        let state = &mut *environment.state();
        for name in names.iter().filter_map(|name| name.split_once('/')) {
            self.enqueue(state, (name.0.to_owned(), name.1.to_owned()));
        }
    }

    /// Starts a reconcile that is due, unless the same resource is being reconciled; then it starts
    /// afterwards.
    pub fn start_reconcile(
        &mut self,
        environment: &Environment,
        name: &Name,
        now: Timestamp,
    ) -> Option<Task> {
        let queued = self.queue.get_mut(name)?;
        if queued.is_running || queued.due.is_none_or(|due| due > now) {
            return None;
        }
        queued.due = None;
        let cached = environment.state().replicas[self.process.replica].caches.resources.get(name).cloned();
        let Some(resource) = cached else {
            self.queue.remove(name);
            return None;
        };
        queued.is_running = true;
        let operator = self.operator.clone();
        Some(Task {
            process: self.process,
            name: Some(name.clone()),
            future: Box::pin(async move {
                TaskOutcome::Reconciled(reconcile_in_term(&operator, &resource, &TermEnd::default()).await)
            }),
        })
    }

    /// Defers a reconcile that cannot begin because the process is paused.
    pub fn defer(&mut self, environment: &Environment, name: &Name, until: Timestamp) {
        let queued = self.queue.entry(name.clone()).or_default();
        queued.is_running = false;
        queued.due = Some(until);
        environment.state().events.add(until, Event::Due { process: self.process, name: name.clone() });
    }

    /// Schedules the requeue after a reconcile.
    pub fn requeue(
        &mut self,
        environment: &Environment,
        name: &Name,
        result: &Result<Reconciled, KubeError>,
    ) {
        let mut state = environment.state();
        let now = state.now;
        let wait = match result {
            Ok(reconciled) => schedule::after_reconcile(
                self.operator.config.longest_drift_interval(),
                self.operator.clock.now(),
                reconciled.wake,
            ),
            Err(error) => {
                state.trace.record(now, || format!("operator {}: {error}", self.process.replica));
                SignedDuration::from_secs(4)
            }
        };
        let queued = self.queue.entry(name.clone()).or_default();
        queued.is_running = false;
        let requeue_at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        let due = queued.due.map_or(requeue_at, |due| due.min(requeue_at)).max(now);
        queued.due = Some(due);
        state.events.add(due, Event::Due { process: self.process, name: name.clone() });
    }

    /// Returns whether a reconcile would start now.
    pub fn is_due(&self, name: &Name, now: Timestamp) -> bool {
        self.queue
            .get(name)
            .is_some_and(|queued| !queued.is_running && queued.due.is_some_and(|due| due <= now))
    }

    /// Adds the state of the process between two reconciles.
    pub fn add_to_fingerprint(&self, uids: &[&str], add: &mut dyn FnMut(&dyn Debug)) {
        add(&(self.process, self.delivered, &self.queue, self.operator.memory.change_times()));
        for uid in uids {
            add(&self.operator.memory.recall_with_expired(uid));
        }
    }

    /// Starts the cleanup of expired ledgers.
    pub fn collect_ledgers(&self) -> Task {
        let operator = self.operator.clone();
        let future = Box::pin(async move {
            // A failed cleanup is retried an hour later.
            let _ = LedgerGc::default().collect_expired(&operator).await;
            TaskOutcome::LedgersCollected
        });
        Task { process: self.process, name: None, future }
    }
}

/// Creates the context of a process that has just started.
#[allow(clippy::missing_panics_doc, reason = "the region is a constant")]
pub fn context<P: Wiring>(
    environment: &Arc<Environment>,
    process: Process,
    plan: &Plan,
    wiring: &P,
) -> Context<P::StreamApi, P::KubeApi> {
    let transport = Transport { environment: environment.clone(), process };
    Context {
        aws: wiring.stream_api(AwsPort::new(transport.clone())),
        kube: wiring.kube_api(KubernetesPort::new(transport)),
        clock: wiring.clock(environment.clock(process.replica)),
        decide: wiring.decide(),
        config: Config {
            region: REGION.parse().expect("a region"),
            drift_interval: plan.drift_interval,
            drift_interval_with_events: plan.events.map(|_| DRIFT_INTERVAL_WITH_EVENTS),
        },
        memory: Memory::default(),
        metrics: Box::new(NoMetrics),
    }
}

/// Returns whether a change of a resource leads to a reconcile, as the operator's watch decides.
fn triggers_reconcile(previous: Option<&Arc<StreamEncryption>>, resource: &StreamEncryption) -> bool {
    previous.is_none_or(|previous| change_hash(&previous.metadata, "") != change_hash(&resource.metadata, ""))
}
