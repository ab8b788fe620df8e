//! Request queue: more urgent requests before checks for drift, and namespaces take turns.
//!
//! A queue holds requests of one operation, and orders them by `Priority`. For example, a Describe of a stream that may be
//! changing (`Changing`) precedes one that only detects drift (`Drift`). In the queue of `AssumeRole`, a request has the
//! priority of the request that needs the role: one for a Start or Stop (`Call`) precedes those for Describes.
//!
//! Every fourth request is a check for drift if one waits, so endless requests of one namespace do not hold up the checks of
//! others. Among requests of the same priority, namespaces take turns. Pure: the queue depends neither on time nor on a limit.

use stream_encryption_core::controller::stream_api::Priority;
use stream_encryption_core::model::drift_turns::DriftTurns;
use stream_encryption_core::model::fair_queue::FairQueue;
use stream_encryption_core::model::principal::Principal;

/// Every priority, the most urgent first.
pub(super) const PRIORITIES: [Priority; 3] = [Priority::Call, Priority::Changing, Priority::Drift];

/// The priority and namespace of a request, which determine its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueKey {
    /// The priority.
    pub priority: Priority,
    /// The namespace that the request is for; namespaces take turns.
    pub namespace: String,
}

impl QueueKey {
    /// Returns the queue key of a request. `principal` names the role of the request, and the resource that it is for.
    #[must_use]
    pub fn of(principal: &Principal, priority: Priority) -> Self {
        Self { priority, namespace: principal.namespace.clone() }
    }
}

/// The waiting requests.
pub(super) struct Queue<T> {
    by_priority: [FairQueue<T>; PRIORITIES.len()],
    /// The turns of the checks for drift among the other requests.
    drift_turns: DriftTurns,
}

impl<T> Queue<T> {
    /// Creates an empty queue.
    pub(super) fn new() -> Self {
        Self { by_priority: PRIORITIES.map(|_| FairQueue::default()), drift_turns: DriftTurns::default() }
    }

    /// Returns whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.by_priority.iter().all(FairQueue::is_empty)
    }

    /// Adds `one` to the queue.
    pub(super) fn push(&mut self, queue_key: &QueueKey, one: T) {
        self.by_priority[queue_key.priority as usize].push(&queue_key.namespace, one);
    }

    /// Returns the priority of the next request; `None` if no request waits. Requests that detect drift are left out
    /// unless `permits_drift`.
    pub(super) fn next(&self, permits_drift: bool) -> Option<Priority> {
        let waits = |priority: &Priority| !self.by_priority[*priority as usize].is_empty();
        let drift = Some(Priority::Drift).filter(|drift| permits_drift && waits(drift));
        let other = [Priority::Call, Priority::Changing].into_iter().find(waits);
        self.drift_turns.next(other, drift)
    }

    /// Returns the next request of this priority that `is_wanted`. Removes it and the unwanted ones before it. If the
    /// request then receives its permit, the caller must call [`count_granted`](Self::count_granted).
    pub(super) fn pop(&mut self, priority: Priority, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        self.by_priority[priority as usize].pop_wanted(is_wanted)
    }

    /// Counts a request that was permitted: after three others, a check for drift that waits is next.
    pub(super) fn count_granted(&mut self, priority: Priority) {
        if priority == Priority::Drift {
            self.drift_turns.record_drift();
        } else {
            let drift_waits = !self.by_priority[Priority::Drift as usize].is_empty();
            self.drift_turns.record_other(drift_waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_key(priority: Priority, namespace: &str) -> QueueKey {
        QueueKey { priority, namespace: namespace.to_owned() }
    }

    fn all(queue: &mut Queue<u32>) -> Vec<u32> {
        let next = || {
            let priority = queue.next(true)?;
            let request = queue.pop(priority, |_| true);
            queue.count_granted(priority);
            request
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn calls_precede_changing_streams_and_drift_checks() {
        let mut queue = Queue::new();
        queue.push(&queue_key(Priority::Drift, "a"), 1);
        queue.push(&queue_key(Priority::Drift, "a"), 2);
        queue.push(&queue_key(Priority::Changing, "a"), 3);
        queue.push(&queue_key(Priority::Call, "b"), 4);
        queue.push(&queue_key(Priority::Drift, "b"), 5);
        assert_eq!(all(&mut queue), [4, 3, 1, 5, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn every_fourth_request_detects_drift_if_one_waits() {
        let mut queue = Queue::new();
        for request in 0..8 {
            queue.push(&queue_key(Priority::Changing, "crowd"), request);
        }
        for request in 100..104 {
            queue.push(&queue_key(Priority::Drift, "lone"), request);
        }
        assert_eq!(all(&mut queue), [0, 1, 2, 100, 3, 4, 5, 101, 6, 7, 102, 103]);
    }

    #[test]
    fn drift_is_left_out_while_its_share_is_used_up() {
        let mut queue = Queue::new();
        queue.push(&queue_key(Priority::Drift, "a"), 1);
        assert_eq!(queue.next(false), None);
        queue.push(&queue_key(Priority::Changing, "a"), 2);
        assert_eq!(queue.next(false), Some(Priority::Changing));
    }

    #[test]
    fn namespaces_take_turns_at_the_same_priority() {
        let mut queue = Queue::new();
        for request in 0..100 {
            queue.push(&queue_key(Priority::Changing, "crowd"), request);
        }
        queue.push(&queue_key(Priority::Changing, "lone"), 100);
        queue.push(&queue_key(Priority::Changing, "other"), 200);
        queue.push(&queue_key(Priority::Changing, "lone"), 101);
        assert_eq!(all(&mut queue)[..6], [0, 100, 200, 1, 101, 2]);
    }
}
