//! Request queue: round-robin across namespaces, and by priority within a round.
//!
//! Each round serves every waiting namespace once, the one with the most urgent request first; within a
//! namespace, the most urgent request is first. No namespace gets more than its share by the priority of its
//! requests. Pure: the queue depends neither on time nor on a limit.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::principal::Principal;

/// Every priority, the most urgent first.
pub(super) const PRIORITIES: [Priority; 3] = [Priority::Call, Priority::Changing, Priority::Drift];

/// The priority and namespace of a request, which determine the order in which the rate limiter serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueKey {
    /// The priority.
    pub priority: Priority,
    /// The namespace that the request is for; namespaces take turns.
    pub namespace: String,
}

impl QueueKey {
    /// Returns the queue key of a principal's request.
    #[must_use]
    pub fn of(principal: &Principal, priority: Priority) -> Self {
        Self { priority, namespace: principal.namespace.clone() }
    }
}

/// The waiting requests.
pub(super) struct Queue<T> {
    /// The waiting namespaces, in the order in which they are served.
    order: BTreeMap<QueuePosition, String>,
    waiting: HashMap<String, Waiting<T>>,
    /// The current round.
    round: u64,
    /// The namespaces that were served in the current round; their next turn is in the next round.
    served_this_round: HashSet<String>,
    /// The number of places assigned so far.
    positions: u64,
}

/// The place of a namespace in the queue: the round of its next turn, the priority of its most urgent
/// request, and a sequence number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct QueuePosition {
    round: u64,
    priority: Priority,
    number: u64,
}

/// The requests of one namespace, at least one, and its place.
struct Waiting<T> {
    position: QueuePosition,
    by_priority: [VecDeque<T>; PRIORITIES.len()],
}

impl<T> Waiting<T> {
    /// Returns the priority of the most urgent request.
    fn priority(&self) -> Option<Priority> {
        PRIORITIES.into_iter().find(|priority| !self.by_priority[*priority as usize].is_empty())
    }
}

impl<T> Queue<T> {
    /// Creates an empty queue.
    pub(super) fn new() -> Self {
        Self {
            order: BTreeMap::new(),
            waiting: HashMap::new(),
            round: 0,
            served_this_round: HashSet::new(),
            positions: 0,
        }
    }

    /// Returns whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds `one` to the queue.
    pub(super) fn push(&mut self, queue_key: &QueueKey, one: T) {
        let QueueKey { priority, namespace } = queue_key;
        if let Some(waiting) = self.waiting.get_mut(namespace) {
            waiting.by_priority[*priority as usize].push_back(one);
            if *priority < waiting.position.priority {
                self.order.remove(&waiting.position);
                waiting.position.priority = *priority;
                self.order.insert(waiting.position, namespace.clone());
            }
            return;
        }
        let round = self.round + u64::from(self.served_this_round.contains(namespace));
        let position = self.position(round, *priority);
        let mut waiting = Waiting { position, by_priority: PRIORITIES.map(|_| VecDeque::new()) };
        waiting.by_priority[*priority as usize].push_back(one);
        self.order.insert(position, namespace.clone());
        self.waiting.insert(namespace.clone(), waiting);
    }

    /// Removes and returns the request that is next in turn.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (QueuePosition { round, priority, .. }, namespace) = self.order.pop_first()?;
        if round > self.round {
            self.round = round;
            self.served_this_round.clear();
        }
        let waiting = self.waiting.get_mut(&namespace)?;
        let next = waiting.by_priority[priority as usize].pop_front();
        let then = waiting.priority();
        self.served_this_round.insert(namespace.clone());
        if let Some(priority) = then {
            let position = self.position(round + 1, priority);
            if let Some(waiting) = self.waiting.get_mut(&namespace) {
                waiting.position = position;
            }
            self.order.insert(position, namespace);
        } else {
            self.waiting.remove(&namespace);
        }
        if self.order.is_empty() {
            // No waiting namespace is left that could be treated unfairly.
            self.served_this_round.clear();
        }
        next
    }

    fn position(&mut self, round: u64, priority: Priority) -> QueuePosition {
        self.positions += 1;
        QueuePosition { round, priority, number: self.positions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_key(priority: Priority, namespace: &str) -> QueueKey {
        QueueKey { priority, namespace: namespace.to_owned() }
    }

    fn all(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn calls_precede_changing_streams_and_drift_checks() {
        let mut queue = Queue::new();
        queue.push(&queue_key(Priority::Drift, "a"), 1);
        queue.push(&queue_key(Priority::Drift, "a"), 2);
        queue.push(&queue_key(Priority::Changing, "a"), 3);
        queue.push(&queue_key(Priority::Call, "b"), 4);
        queue.push(&queue_key(Priority::Drift, "b"), 5);
        queue.push(&queue_key(Priority::Drift, "c"), 6);
        assert_eq!(all(&mut queue), [4, 3, 6, 5, 1, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn urgent_requests_take_turns_with_other_namespaces() {
        let mut queue = Queue::new();
        for request in 0..100 {
            queue.push(&queue_key(Priority::Changing, "crowd"), request);
        }
        queue.push(&queue_key(Priority::Drift, "lone"), 100);
        queue.push(&queue_key(Priority::Drift, "other"), 200);
        queue.push(&queue_key(Priority::Drift, "lone"), 101);
        assert_eq!(all(&mut queue)[..6], [0, 100, 200, 1, 101, 2]);
    }

    /// The busy namespace never has more than one request, and sends the next one as soon as that is served.
    #[test]
    fn repeated_urgent_request_is_served_once_a_round() {
        let mut queue = Queue::new();
        for request in 0..3 {
            queue.push(&queue_key(Priority::Drift, "lone"), request);
        }
        queue.push(&queue_key(Priority::Drift, "other"), 10);
        let mut served = Vec::new();
        queue.push(&queue_key(Priority::Changing, "busy"), 99);
        while let Some(one) = queue.pop() {
            served.push(one);
            if one == 99 && served.len() < 8 {
                queue.push(&queue_key(Priority::Changing, "busy"), 99);
            }
        }
        assert_eq!(served, [99, 0, 10, 99, 1, 99, 2, 99]);
    }

    #[test]
    fn new_namespace_waits_only_for_the_current_round() {
        let mut queue = Queue::new();
        for request in 0..10 {
            queue.push(&queue_key(Priority::Changing, "a"), request);
            queue.push(&queue_key(Priority::Changing, "b"), 100 + request);
        }
        for _ in 0..7 {
            queue.pop();
        }
        queue.push(&queue_key(Priority::Drift, "new"), 1000);
        assert_eq!((queue.pop(), queue.pop()), (Some(103), Some(1000)));
    }

    #[test]
    fn queue_keeps_only_waiting_namespaces() {
        let mut queue = Queue::new();
        for namespace in 0..1000 {
            queue.push(&queue_key(Priority::Drift, &namespace.to_string()), namespace);
        }
        assert_eq!(all(&mut queue).len(), 1000);
        assert!(queue.waiting.is_empty() && queue.served_this_round.is_empty());
    }
}
