//! The work queue: which resources are due, and which of them is reconciled next.
//!
//! A resource that waits is an entry of this queue and nothing else: no task, no copy of the resource. Each AWS limit
//! (a *scope*: one service in one account and region) takes no more than its places, and a free place goes to the scope
//! with the fewest running. Within a scope, changes precede checks for drift ([`Lane`]), and namespaces take turns.
//!
//! Users can name any number of regions, and each is a scope. So that nobody takes all places with many scopes, each namespace
//! has a share of the places. While a namespace with less than its share waits, a free place goes to a scope in which such a
//! namespace waits and can start. The namespaces of that scope take turns, so the place may go to one that has its share. If
//! there is no such scope, the place goes to any scope.
//!
//! If AWS does not respond in some scopes, each of their reconciles takes until its requests time out. Such scopes share half of
//! all places, so that they cannot stop the others.
//!
//! Pure: it has no clock and starts nothing. Times are durations since an arbitrary start. It must never start a
//! resource twice at the same time, nor lose one that was scheduled.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::mem;
use std::time::Duration;

mod namespaces;
mod scope;

use namespaces::Namespaces;
use scope::ScopeQueue;

/// Maximum number of resources whose work is determined between two starts. The caller does nothing else meanwhile.
const BATCH: usize = 256;

/// How long a scope without running resources is remembered as unresponsive.
const UNRESPONSIVE_FOR: Duration = Duration::from_hours(1);

/// Why a resource is due. The first two lanes alternate, and precede the last two, of which `Event` precedes `Drift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// It has changed since its stream was described, as a new resource has; or it needs no Describe.
    Changed,
    /// AWS is changing its stream, or it cannot be changed yet.
    InProgress,
    /// An event of AWS reports that something has happened to its stream or its key. Without the event, at most a check for
    /// drift would be due.
    Event,
    /// Its stream was as it should be, and is described again to detect drift.
    Drift,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 4] = [Self::Changed, Self::InProgress, Self::Event, Self::Drift];

    /// Returns whether the lane is served after changes.
    fn is_check(self) -> bool {
        matches!(self, Self::Event | Self::Drift)
    }
}

/// The properties of a due resource that determine its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work<S> {
    /// The limit of AWS for which it waits.
    pub scope: S,
    /// Why it is due.
    pub lane: Lane,
    /// Its namespace.
    pub namespace: String,
}

/// The resources, by key, with the time at which each is due.
pub struct WorkQueue<K, S> {
    /// Maximum number of resources that are reconciled at the same time.
    concurrency: usize,
    /// Returns the maximum number for one scope.
    places: Box<dyn Fn(&S) -> usize + Send>,
    entries: HashMap<K, Entry<S>>,
    timers: BTreeSet<(Duration, K)>,
    scopes: HashMap<S, ScopeQueue<K>>,
    /// The scopes that can start a resource: the one with the fewest running resources first, then the one whose
    /// turn was longest ago.
    startable: BTreeSet<(usize, u64, S)>,
    /// The scopes in which AWS did not respond to the last request, with the time of that request.
    unresponsive: HashMap<S, Duration>,
    /// Those of the unresponsive scopes that can start a resource, in the same order.
    unresponsive_startable: BTreeSet<(usize, u64, S)>,
    /// Number of resources that are running in unresponsive scopes.
    running_unresponsive: usize,
    namespaces: Namespaces,
    /// Due resources that were scheduled again, so that they may be more urgent now.
    rescheduled: Vec<K>,
    running: usize,
    waiting: [usize; Lane::ALL.len()],
    /// Counts turns and tickets.
    counter: u64,
}

/// The state of one resource. Most resources are neither due nor running, so what only these have is boxed.
enum Entry<S> {
    /// It is due at this time.
    Scheduled(Duration),
    /// It is due. The ticket tells its item in the queue of its scope from earlier ones.
    Due { work: Box<Work<S>>, ticket: u64 },
    /// It is reconciled now, and is due again at `again` if it was scheduled meanwhile.
    Running { work: Box<Work<S>>, again: Option<Duration> },
}

impl<K, S> WorkQueue<K, S>
where
    K: Clone + Ord + Hash,
    S: Clone + Ord + Hash,
{
    /// Creates an empty queue. At most `concurrency` resources run at a time, and at most `places` of a scope.
    #[must_use]
    pub fn new(concurrency: usize, places: impl Fn(&S) -> usize + Send + 'static) -> Self {
        Self {
            concurrency,
            places: Box::new(places),
            entries: HashMap::new(),
            timers: BTreeSet::new(),
            scopes: HashMap::new(),
            startable: BTreeSet::new(),
            unresponsive: HashMap::new(),
            unresponsive_startable: BTreeSet::new(),
            running_unresponsive: 0,
            namespaces: Namespaces::new(concurrency),
            rescheduled: Vec::new(),
            running: 0,
            waiting: [0; Lane::ALL.len()],
            counter: 0,
        }
    }

    /// Schedules a resource at a time. An earlier time at which it is already due remains. A resource that is
    /// running is due again once it has ended.
    pub fn schedule(&mut self, key: K, at: Duration) {
        match self.entries.get_mut(&key) {
            Some(Entry::Scheduled(due)) if *due <= at => {}
            Some(Entry::Scheduled(due)) => {
                self.timers.remove(&(*due, key.clone()));
                *due = at;
                self.timers.insert((at, key));
            }
            Some(Entry::Due { .. }) => self.rescheduled.push(key),
            Some(Entry::Running { again, .. }) => *again = Some(again.map_or(at, |other| other.min(at))),
            None => {
                self.entries.insert(key.clone(), Entry::Scheduled(at));
                self.timers.insert((at, key));
            }
        }
    }

    /// Starts the next resource, if one may start at `now`, and returns its key. `work` returns the scope,
    /// the lane and the namespace of a due resource; `None` if it no longer exists. It is called for a limited number of due
    /// resources. While others remain, [`next_due`](Self::next_due) returns a time that has passed.
    pub fn next(&mut self, now: Duration, work: impl Fn(&K) -> Option<Work<S>>) -> Option<K> {
        self.enqueue_due(now, &work);
        if self.running >= self.concurrency {
            return None;
        }
        let scope = self.next_scope()?.clone();
        let entries = &mut self.entries;
        let is_current = |key: &K, ticket: u64| matches!(entries.get(key), Some(Entry::Due { ticket: current, .. }) if *current == ticket);
        let key = self.scopes.get_mut(&scope)?.next(is_current)?;
        if let Some(Entry::Due { work, .. }) = self.entries.remove(&key) {
            self.waiting[work.lane as usize] -= 1;
            self.namespaces.record_start(&work.namespace);
            self.entries.insert(key.clone(), Entry::Running { work, again: None });
        }
        self.running += 1;
        self.running_unresponsive += usize::from(self.unresponsive.contains_key(&scope));
        self.counter += 1;
        self.update_startable(&scope, Some(self.counter));
        Some(key)
    }

    /// Records whether AWS has responded to the request of a running resource in this scope, whose reconcile ends at `now`. Has
    /// no effect if the resource was started in another scope.
    pub fn record_response(&mut self, key: &K, scope: &S, responds: bool, now: Duration) {
        match self.entries.get(key) {
            Some(Entry::Running { work, .. }) if work.scope == *scope => {}
            _ => return,
        }
        let running = |scope: &S| self.scopes.get(scope).map_or(0, ScopeQueue::running);
        if responds {
            if self.unresponsive.remove(scope).is_some() {
                self.running_unresponsive -= running(scope);
            }
        } else {
            self.unresponsive.retain(|other, at| running(other) > 0 || *at + UNRESPONSIVE_FOR > now);
            if self.unresponsive.insert(scope.clone(), now).is_none() {
                self.running_unresponsive += running(scope);
            }
        }
        self.update_startable(scope, None);
    }

    /// Records that the reconcile of a resource has ended, and schedules the next one at `again`; with `None`, only
    /// a change leads to another one.
    pub fn end(&mut self, key: K, again: Option<Duration>) {
        let Some(Entry::Running { work, again: meanwhile }) = self.entries.remove(&key) else { return };
        self.running -= 1;
        self.running_unresponsive -= usize::from(self.unresponsive.contains_key(&work.scope));
        self.namespaces.record_end(&work.namespace);
        if let Some(scope) = self.scopes.get_mut(&work.scope) {
            scope.end(work.lane, &work.namespace);
        }
        self.update_startable(&work.scope, None);
        if let Some(at) = [again, meanwhile].into_iter().flatten().min() {
            self.schedule(key, at);
        }
    }

    /// Returns the next time at which [`next`](Self::next) has something to do; `None` if nothing is scheduled.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        if !self.rescheduled.is_empty() {
            return Some(Duration::ZERO);
        }
        self.timers.first().map(|(due, _)| *due)
    }

    /// Returns the number of resources that are running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Returns the number of resources that are due in a lane and have not been started.
    #[must_use]
    pub fn waiting(&self, lane: Lane) -> usize {
        self.waiting[lane as usize]
    }

    /// Returns the number of these resources of one scope.
    #[must_use]
    pub fn waiting_in(&self, scope: &S, lane: Lane) -> usize {
        self.scopes.get(scope).map_or(0, |queue| queue.waiting(lane))
    }

    /// Moves the next due resources to their scopes, up to [`BATCH`].
    fn enqueue_due(&mut self, now: Duration, work: &impl Fn(&K) -> Option<Work<S>>) {
        for _ in 0..BATCH {
            if self.timers.first().is_none_or(|(due, _)| *due > now) {
                break;
            }
            let Some((_, key)) = self.timers.pop_first() else { break };
            match work(&key) {
                Some(work) => self.enqueue(key, work),
                None => drop(self.entries.remove(&key)),
            }
        }
        let later = self.rescheduled.split_off(self.rescheduled.len().min(BATCH));
        for key in mem::replace(&mut self.rescheduled, later) {
            self.advance(key, work);
        }
    }

    fn enqueue(&mut self, key: K, work: Work<S>) {
        self.counter += 1;
        // A scope that begins anew waits behind those that have had no turn since.
        let (ticket, turn, scope) = (self.counter, self.counter, work.scope.clone());
        let places = &self.places;
        let queue = self.scopes.entry(scope.clone()).or_insert_with(|| ScopeQueue::new(places(&scope), turn));
        queue.push(work.lane, &work.namespace, (key.clone(), ticket));
        self.namespaces.record_due(&work.namespace);
        self.waiting[work.lane as usize] += 1;
        self.entries.insert(key, Entry::Due { work: Box::new(work), ticket });
        self.update_startable(&scope, None);
    }

    /// Moves a due resource that was scheduled again, if it is more urgent now or belongs to another scope.
    /// Otherwise it keeps its turn.
    fn advance(&mut self, key: K, work: &impl Fn(&K) -> Option<Work<S>>) {
        let Some(Entry::Due { work: old, .. }) = self.entries.get(&key) else { return };
        let new = work(&key);
        if new.as_ref().is_some_and(|new| new.scope == old.scope && new.lane >= old.lane) {
            return;
        }
        let (scope, lane) = (old.scope.clone(), old.lane);
        self.namespaces.record_withdrawal(&old.namespace);
        self.entries.remove(&key);
        self.waiting[lane as usize] -= 1;
        if let Some(queue) = self.scopes.get_mut(&scope) {
            queue.withdraw(lane);
        }
        self.update_startable(&scope, None);
        if let Some(new) = new {
            self.enqueue(key, new);
        }
    }

    /// Returns the scope that gets the next place: the first in which a namespace waits that lacks its share of the places,
    /// otherwise the first. The search is linear in the number of scopes, but only while a namespace has its share and another
    /// one waits.
    fn next_scope(&self) -> Option<&S> {
        let lacks_share = |namespace: &str| self.namespaces.lacks_share(namespace);
        let serves = |(_, _, scope): &&(usize, u64, S)| {
            self.scopes.get(scope).is_some_and(|queue| queue.can_start_one_of(lacks_share))
        };
        let has_place = self.running_unresponsive < (self.concurrency / 2).max(1);
        let mut unresponsive = self.unresponsive_startable.iter().filter(|_| has_place);
        let first = self.startable.first().into_iter().chain(unresponsive.clone().next()).min()?;
        let (_, _, scope) = if serves(&first) || !self.namespaces.one_lacks_share() {
            first
        } else {
            self.startable.iter().find(serves).or_else(|| unresponsive.find(serves)).unwrap_or(first)
        };
        Some(scope)
    }

    /// Updates whether a scope can start a resource. `turn` is the counter of the turn that the scope has
    /// just had; `None` if it had none.
    fn update_startable(&mut self, scope: &S, turn: Option<u64>) {
        let Some(queue) = self.scopes.get_mut(scope) else { return };
        if let Some((running, turn)) = queue.startable_as.take() {
            let place = (running, turn, scope.clone());
            if !self.startable.remove(&place) {
                self.unresponsive_startable.remove(&place);
            }
        }
        queue.turn = turn.unwrap_or(queue.turn);
        if queue.is_unused() {
            self.scopes.remove(scope);
        } else if queue.can_start() {
            queue.startable_as = Some((queue.running(), queue.turn));
            let is_unresponsive = self.unresponsive.contains_key(scope);
            let startable =
                if is_unresponsive { &mut self.unresponsive_startable } else { &mut self.startable };
            startable.insert((queue.running(), queue.turn, scope.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
