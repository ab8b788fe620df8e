//! One process of the operator, as its driver runs it: a watch that fills a cache, a queue, and at most one
//! reconcile per resource at a time.
//!
//! Only this part is a copy: in the operator, `src/operator/dispatcher.rs` and the work queue do this. The reconcile
//! itself is the operator's own [`reconcile`].

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::kube_api::KubeError;
use stream_encryption_core::controller::memory::Memory;
use stream_encryption_core::controller::trigger::trigger_hash;
use stream_encryption_core::controller::{Config, Context, NoMetrics, ledger_gc, reconcile};
use stream_encryption_core::model::schedule;

use crate::environment::{Event, Process, REGION, Scene, State};
use crate::plan::Plan;
use crate::ports::{Aws, Cluster};
use crate::store::{Change, Name, name_of};
use crate::transport::Link;
use crate::wiring::Parts;

/// The kind of a task, and its result.
#[derive(Debug)]
pub enum Outcome {
    /// The reconcile of a resource.
    Visited(Result<Timestamp, KubeError>),
    /// The cleanup of expired ledgers.
    Retired,
}

/// A task in progress.
pub struct Task {
    /// The process that runs it.
    pub process: Process,
    /// The resource that it reconciles, if any.
    pub name: Option<Name>,
    /// The operator's own code.
    pub future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

/// A process of the operator.
pub struct Replica<P: Parts> {
    /// The replica and its life.
    pub process: Process,
    operator: Arc<Context<P::Aws, P::KubeApi>>,
    /// The number of changes that the watch has delivered.
    pub told: usize,
    queue: BTreeMap<Name, Queued>,
}

#[derive(Clone, Debug, Default)]
struct Queued {
    due: Option<Timestamp>,
    running: bool,
}

impl<P: Parts> Replica<P> {
    /// Starts a process.
    pub fn boot(scene: &Arc<Scene>, process: Process, plan: &Plan, parts: &P) -> Self {
        let operator = Arc::new(context(scene, process, plan, parts));
        Self { process, operator, told: 0, queue: BTreeMap::new() }
    }

    /// Relists: the cache holds the state after the first `upto` changes, and every resource that differs from
    /// the cache's former state is reconciled.
    pub fn list(&mut self, scene: &Scene, upto: usize) {
        let state = &mut *scene.state();
        let mut listed = BTreeMap::new();
        for Change { resource, deleted } in &state.store.changes()[..upto] {
            if *deleted {
                listed.remove(&name_of(resource));
            } else {
                listed.insert(name_of(resource), resource.clone());
            }
        }
        self.told = upto;
        let cache = &mut state.replicas[self.process.replica].caches.resources;
        let former = std::mem::replace(cache, listed.clone());
        for (name, resource) in listed {
            if is_news(former.get(&name), &resource) {
                self.enqueue(state, name);
            }
        }
    }

    /// Makes a reconcile due now.
    fn enqueue(&mut self, state: &mut State, name: Name) {
        let now = state.now;
        self.queue.entry(name.clone()).or_default().due = Some(now);
        state.agenda.add(now, Event::Due { process: self.process, name });
    }

    /// Delivers all changes up to this one; the first `lost` of them are lost.
    pub fn watch(&mut self, scene: &Scene, upto: usize, lost: &mut u32) {
        let state = &mut *scene.state();
        let upto = upto.min(state.store.changes().len());
        for at in self.told..upto {
            let Change { resource, deleted } = state.store.changes()[at].clone();
            let name = name_of(&resource);
            // Without this condition a new resource could never be discovered; no API server is known to lose
            // such a change.
            let cache = &mut state.replicas[self.process.replica].caches.resources;
            if *lost > 0 && cache.contains_key(&name) {
                *lost -= 1;
                continue;
            }
            if deleted {
                cache.remove(&name);
            } else {
                let former = cache.insert(name.clone(), resource.clone());
                if is_news(former.as_ref(), &resource) {
                    self.enqueue(state, name);
                }
            }
        }
        self.told = self.told.max(upto);
    }

    /// Schedules every resource, after a change that may concern each of them.
    pub fn visit_all(&mut self, scene: &Scene) {
        let state = &mut *scene.state();
        let names: Vec<Name> =
            state.replicas[self.process.replica].caches.resources.keys().cloned().collect();
        for name in names {
            self.enqueue(state, name);
        }
    }

    /// Starts a reconcile that is due, unless the same resource is being reconciled; then it starts
    /// afterwards.
    pub fn visit(&mut self, scene: &Scene, name: &Name, now: Timestamp) -> Option<Task> {
        let queued = self.queue.get_mut(name)?;
        if queued.running || queued.due.is_none_or(|due| due > now) {
            return None;
        }
        queued.due = None;
        let cached = scene.state().replicas[self.process.replica].caches.resources.get(name).cloned();
        let Some(resource) = cached else {
            self.queue.remove(name);
            return None;
        };
        queued.running = true;
        let operator = self.operator.clone();
        Some(Task {
            process: self.process,
            name: Some(name.clone()),
            future: Box::pin(async move { Outcome::Visited(reconcile(&operator, &resource).await) }),
        })
    }

    /// Defers a reconcile that cannot begin because the process is paused.
    pub fn hold(&mut self, scene: &Scene, name: &Name, until: Timestamp) {
        let queued = self.queue.entry(name.clone()).or_default();
        queued.running = false;
        queued.due = Some(until);
        scene.state().agenda.add(until, Event::Due { process: self.process, name: name.clone() });
    }

    /// Schedules the requeue after a reconcile.
    pub fn visited(&mut self, scene: &Scene, name: &Name, outcome: &Result<Timestamp, KubeError>) {
        let mut state = scene.state();
        let now = state.now;
        let wait = match outcome {
            Ok(wake) => schedule::after_reconcile(
                self.operator.config.drift_interval,
                self.operator.clock.now(),
                *wake,
            ),
            Err(error) => {
                state.story.tell(now, || format!("operator {}: {error}", self.process.replica));
                SignedDuration::from_secs(4)
            }
        };
        let queued = self.queue.entry(name.clone()).or_default();
        queued.running = false;
        let back = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        let due = queued.due.map_or(back, |due| due.min(back)).max(now);
        queued.due = Some(due);
        state.agenda.add(due, Event::Due { process: self.process, name: name.clone() });
    }

    /// Returns whether a reconcile would start now.
    pub fn is_due(&self, name: &Name, now: Timestamp) -> bool {
        self.queue.get(name).is_some_and(|queued| !queued.running && queued.due.is_some_and(|due| due <= now))
    }

    /// Shows the state of the process between two reconciles.
    pub fn show(&self, uids: &[&str], add: &mut dyn FnMut(&dyn Debug)) {
        add(&(self.process, self.told, &self.queue, self.operator.memory.change_times()));
        for uid in uids {
            add(&self.operator.memory.last_of(uid));
        }
    }

    /// Starts the cleanup of expired ledgers.
    pub fn retire(&self) -> Task {
        let operator = self.operator.clone();
        let future = Box::pin(async move {
            // A failed cleanup is retried an hour later.
            let _ = ledger_gc::collect_expired(&operator).await;
            Outcome::Retired
        });
        Task { process: self.process, name: None, future }
    }
}

/// Creates the context of a process that has just started.
#[allow(clippy::missing_panics_doc, reason = "the region is a constant")]
pub fn context<P: Parts>(
    scene: &Arc<Scene>,
    process: Process,
    plan: &Plan,
    parts: &P,
) -> Context<P::Aws, P::KubeApi> {
    let link = Link { scene: scene.clone(), process };
    Context {
        aws: parts.aws(Aws::new(link.clone())),
        records: parts.records(Cluster::new(link)),
        clock: parts.clock(scene.clock_of(process.replica)),
        decide: parts.decide(),
        config: Config { region: REGION.parse().expect("a region"), drift_interval: plan.drift_interval },
        memory: Memory::default(),
        metrics: Box::new(NoMetrics),
    }
}

/// Returns whether a change of a resource leads to a reconcile, as the operator's watch decides.
fn is_news(former: Option<&Arc<StreamEncryption>>, resource: &StreamEncryption) -> bool {
    former.is_none_or(|former| trigger_hash(&former.metadata, "") != trigger_hash(&resource.metadata, ""))
}
