//! The due resources of one scope, and how many of it are running.
//!
//! New and changed resources alternate with those that the operator follows: new streams are encrypted early, and
//! their changes are confirmed at the same rate. Checks for drift use at most half of the places and start when
//! nothing else waits; while something waits, every fourth start is one of them. Among the checks, those that an event
//! of AWS has caused precede, but every fourth is another one: whoever can forge events cannot end the others. Pure.

use std::collections::HashMap;

use super::Lane;
use crate::model::drift_turns::DriftTurns;
use crate::model::fair_queue::FairQueue;

/// The due resources of one scope.
pub(super) struct ScopeQueue<K> {
    places: usize,
    lanes: [LaneQueue<K>; Lane::ALL.len()],
    running: usize,
    running_checks: usize,
    running_by_namespace: HashMap<String, usize>,
    /// The lane of the last start that was not a check for drift.
    last: Lane,
    check_turns: DriftTurns,
    /// The turns of the checks without an event, among all checks.
    drift_turns: DriftTurns,
    /// The counter of the last turn of the scope among the scopes.
    pub(super) turn: u64,
    /// The place of the scope among those that can start a resource.
    pub(super) startable_as: Option<(usize, u64)>,
}

/// One lane. Items of resources that have left it stay in `items`, are skipped at their turn, and are never
/// in `waiting`.
struct LaneQueue<K> {
    items: FairQueue<(K, u64)>,
    waiting: usize,
}

impl<K> ScopeQueue<K> {
    /// Creates a queue with this many places. `turn` is the turn from which the scope waits for its first one.
    pub(super) fn new(places: usize, turn: u64) -> Self {
        Self {
            places: places.max(1),
            lanes: Lane::ALL.map(|_| LaneQueue { items: FairQueue::default(), waiting: 0 }),
            running: 0,
            running_checks: 0,
            running_by_namespace: HashMap::new(),
            last: Lane::InProgress,
            check_turns: DriftTurns::default(),
            drift_turns: DriftTurns::default(),
            turn,
            startable_as: None,
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Returns whether nothing waits and nothing is running.
    pub(super) fn is_unused(&self) -> bool {
        self.running == 0 && Lane::ALL.iter().all(|lane| !self.waits(*lane))
    }

    /// Returns whether a resource may start now.
    pub(super) fn can_start(&self) -> bool {
        self.next_lane().is_some()
    }

    /// Returns whether a resource of a namespace that `is_meant` waits in a lane that has a place, in a scope that
    /// [can start](Self::can_start) a resource.
    pub(super) fn can_start_one_of(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        let waits = |lane: &Lane| self.waits(*lane) && self.lanes[*lane as usize].items.has_one_of(&is_meant);
        Lane::ALL.iter().filter(|lane| !lane.is_check() || self.has_place_for_check()).any(waits)
    }

    pub(super) fn push(&mut self, lane: Lane, namespace: &str, item: (K, u64)) {
        let queue = &mut self.lanes[lane as usize];
        queue.items.push(namespace, item);
        queue.waiting += 1;
    }

    /// Records that a resource has left a lane without a start.
    pub(super) fn withdraw(&mut self, lane: Lane) {
        self.lanes[lane as usize].waiting -= 1;
    }

    /// Starts the next resource, and returns its key. `is_current` returns whether an item is still that of its
    /// resource. Returns `None` if no resource may start.
    pub(super) fn next(&mut self, is_current: impl Fn(&K, u64) -> bool) -> Option<K> {
        let lane = self.next_lane()?;
        let by_namespace = &self.running_by_namespace;
        let queue = &mut self.lanes[lane as usize];
        let (namespace, key) = loop {
            let has = |namespace: &str| by_namespace.get(namespace).copied().unwrap_or(0);
            let (namespace, (key, ticket)) = queue.items.pop_least(has)?;
            if is_current(&key, ticket) {
                break (namespace, key);
            }
        };
        queue.waiting -= 1;
        if lane.is_check() {
            self.check_turns.record_drift();
            self.running_checks += 1;
        } else {
            self.check_turns.record_other(self.waits(Lane::Event) || self.waits(Lane::Drift));
            self.last = lane;
        }
        match lane {
            Lane::Event => self.drift_turns.record_other(self.waits(Lane::Drift)),
            Lane::Drift => self.drift_turns.record_drift(),
            Lane::Changed | Lane::InProgress => {}
        }
        self.running += 1;
        *self.running_by_namespace.entry(namespace).or_default() += 1;
        Some(key)
    }

    /// Records that a resource is no longer running.
    pub(super) fn end(&mut self, lane: Lane, namespace: &str) {
        self.running -= 1;
        if lane.is_check() {
            self.running_checks -= 1;
        }
        if let Some(running) = self.running_by_namespace.get_mut(namespace) {
            *running -= 1;
            if *running == 0 {
                self.running_by_namespace.remove(namespace);
            }
        }
    }

    fn next_lane(&self) -> Option<Lane> {
        if self.running >= self.places {
            return None;
        }
        let in_turn = match self.last {
            Lane::Changed => [Lane::InProgress, Lane::Changed],
            Lane::InProgress | Lane::Event | Lane::Drift => [Lane::Changed, Lane::InProgress],
        };
        let other = in_turn.into_iter().find(|lane| self.waits(*lane));
        let has_place = self.has_place_for_check();
        let waiting = |lane| Some(lane).filter(|lane| has_place && self.waits(*lane));
        let check = self.drift_turns.next(waiting(Lane::Event), waiting(Lane::Drift));
        self.check_turns.next(other, check)
    }

    fn has_place_for_check(&self) -> bool {
        self.running_checks < (self.places / 2).max(1)
    }

    /// Returns the number of resources that wait in a lane.
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        self.lanes[lane as usize].waiting
    }

    fn waits(&self, lane: Lane) -> bool {
        self.waiting(lane) > 0
    }
}
