//! One process of the operator, as its driver runs it: a watch that fills a cache, a queue, and one visit at a time for each resource.
//!
//! This is the one part of the operator that the simulation has of its own: `src/operator.rs` hands these things to
//! kube-runtime. What a visit does is the operator's own [`reconcile`].

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use stream_encryption_operator::api::stream_encryption::StreamEncryption;
use stream_encryption_operator::controller::memory::Memory;
use stream_encryption_operator::controller::records::RecordError;
use stream_encryption_operator::controller::{Operator, Rules, reconcile, retire};

use crate::link::Link;
use crate::parts::Parts;
use crate::plan::Plan;
use crate::ports::{Aws, Cluster};
use crate::scene::{Event, Process, REGION, Scene};
use crate::store::{Change, Name, name_of};

/// What a task was about, and what came of it.
#[derive(Debug)]
pub enum Outcome {
    /// A visit of a resource.
    Visited(Result<Timestamp, RecordError>),
    /// A look for ledgers to retire.
    Retired,
}

/// A task under way.
pub struct Task {
    /// Whose.
    pub process: Process,
    /// Which resource it visits, if it does.
    pub name: Option<Name>,
    /// The operator's own code.
    pub future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

/// A process.
pub struct Replica<P: Parts> {
    /// Which life of which replica.
    pub process: Process,
    operator: Arc<Operator<P::Aws, P::Records>>,
    cache: BTreeMap<Name, Arc<StreamEncryption>>,
    /// How many changes it has been told.
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
    #[allow(clippy::missing_panics_doc, reason = "the region is a constant")]
    pub fn boot(scene: &Arc<Scene>, process: Process, plan: &Plan, parts: &P) -> Self {
        let link = Link { scene: scene.clone(), process };
        let operator = Arc::new(Operator {
            aws: parts.aws(Aws::new(link.clone())),
            records: parts.records(Cluster::new(link)),
            clock: parts.clock(scene.clock_of(process.replica)),
            decide: parts.decide(),
            rules: Rules { region: REGION.parse().expect("a region"), drift_interval: plan.drift_interval },
            memory: Memory::default(),
        });
        Self { process, operator, cache: BTreeMap::new(), told: 0, queue: BTreeMap::new() }
    }

    /// A list: the cache holds what was true after the first `upto` changes, and everything is visited.
    pub fn list(&mut self, scene: &Scene, upto: usize) {
        let mut state = scene.state();
        let changes = &state.store.changes()[..upto];
        self.cache.clear();
        for Change { resource, deleted } in changes {
            if *deleted {
                self.cache.remove(&name_of(resource));
            } else {
                self.cache.insert(name_of(resource), resource.clone());
            }
        }
        self.told = upto;
        state.replicas[self.process.replica].told = upto;
        let now = state.now;
        for name in self.cache.keys() {
            let queued = self.queue.entry(name.clone()).or_default();
            queued.due = Some(now);
            state.agenda.add(now, Event::Due { process: self.process, name: name.clone() });
        }
    }

    /// The watch tells all changes up to this one; the first `lost` of them get lost.
    pub fn watch(&mut self, scene: &Scene, upto: usize, lost: &mut u32) {
        let mut state = scene.state();
        let upto = upto.min(state.store.changes().len());
        for at in self.told..upto {
            let Change { resource, deleted } = state.store.changes()[at].clone();
            let name = name_of(&resource);
            // A resource that was never told of could be found by nobody; no API server is known to lose that.
            if *lost > 0 && self.cache.contains_key(&name) {
                *lost -= 1;
                continue;
            }
            if deleted {
                self.cache.remove(&name);
            } else {
                self.cache.insert(name.clone(), resource);
                let now = state.now;
                self.queue.entry(name.clone()).or_default().due = Some(now);
                state.agenda.add(now, Event::Due { process: self.process, name });
            }
        }
        self.told = self.told.max(upto);
        state.replicas[self.process.replica].told = self.told;
    }

    /// Every resource is to be visited: something has changed that may concern each.
    pub fn visit_all(&mut self, scene: &Scene) {
        let mut state = scene.state();
        let now = state.now;
        for name in self.cache.keys() {
            self.queue.entry(name.clone()).or_default().due = Some(now);
            state.agenda.add(now, Event::Due { process: self.process, name: name.clone() });
        }
    }

    /// A visit that is due, unless one of the same resource is under way: then it follows that one.
    pub fn visit(&mut self, name: &Name, now: Timestamp, parts: &P) -> Option<Task> {
        let queued = self.queue.get_mut(name)?;
        if queued.running || queued.due.is_none_or(|due| due > now) {
            return None;
        }
        queued.due = None;
        let Some(resource) = self.cache.get(name) else {
            self.queue.remove(name);
            return None;
        };
        queued.running = true;
        let (operator, resource) = (self.operator.clone(), parts.cached(resource));
        Some(Task {
            process: self.process,
            name: Some(name.clone()),
            future: Box::pin(async move { Outcome::Visited(reconcile(&operator, &resource).await) }),
        })
    }

    /// A visit that could not begin, because the process stands still, begins when it goes on.
    pub fn hold(&mut self, scene: &Scene, name: &Name, until: Timestamp) {
        let queued = self.queue.entry(name.clone()).or_default();
        queued.running = false;
        queued.due = Some(until);
        scene.state().agenda.add(until, Event::Due { process: self.process, name: name.clone() });
    }

    /// A visit has ended, and asks to be back.
    pub fn visited(&mut self, scene: &Scene, name: &Name, outcome: &Result<Timestamp, RecordError>) {
        let mut state = scene.state();
        let now = state.now;
        let wait = match outcome {
            Ok(wake) => self.operator.rules.wait(self.operator.clock.now(), *wake),
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

    /// Looks for ledgers to retire.
    #[must_use]
    pub fn retire(&self) -> Task {
        let operator = self.operator.clone();
        let future = Box::pin(async move {
            // What goes wrong is tried again an hour later.
            let _ = retire::retire(&operator).await;
            Outcome::Retired
        });
        Task { process: self.process, name: None, future }
    }
}
