//! Who is served next: by urgency, then namespace after namespace, then in the order of arrival.
//!
//! Pure: it knows no time and no limit.

use std::collections::{HashMap, VecDeque};

use super::super::port::Urgency;
use crate::model::principal::Principal;

/// Every urgency, the most urgent first.
pub(super) const URGENCIES: [Urgency; 3] = [Urgency::Call, Urgency::Changing, Urgency::Drift];

/// How soon a request must go, and for whom: the order in which the pacer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How soon.
    pub urgency: Urgency,
    /// The namespace that it is for; namespaces of the same urgency take turns.
    pub namespace: String,
}

impl Turn {
    /// The turn of a principal's request.
    #[must_use]
    pub fn of(by: &Principal, urgency: Urgency) -> Self {
        Self { urgency, namespace: by.namespace.clone() }
    }
}

/// Those who wait.
pub(super) struct Queue<T> {
    /// One line for each urgency, the most urgent first.
    lines: [Line<T>; URGENCIES.len()],
}

/// Those who wait with the same urgency.
struct Line<T> {
    /// The namespaces that wait, each once, the next to be served first.
    turns: VecDeque<String>,
    waiting: HashMap<String, VecDeque<T>>,
}

impl<T> Queue<T> {
    /// Nobody.
    pub(super) fn new() -> Self {
        Self { lines: URGENCIES.map(|_| Line { turns: VecDeque::new(), waiting: HashMap::new() }) }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.turns.is_empty())
    }

    /// Lets `one` wait for its turn.
    pub(super) fn push(&mut self, turn: &Turn, one: T) {
        let line = &mut self.lines[turn.urgency as usize];
        let waiting = line.waiting.entry(turn.namespace.clone()).or_default();
        if waiting.is_empty() {
            line.turns.push_back(turn.namespace.clone());
        }
        waiting.push_back(one);
    }

    /// The next in turn.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.lines.iter_mut().find_map(Line::pop)
    }
}

impl<T> Line<T> {
    fn pop(&mut self) -> Option<T> {
        let namespace = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(urgency: Urgency, namespace: &str) -> Turn {
        Turn { urgency, namespace: namespace.to_owned() }
    }

    fn all(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn calls_go_before_looks_at_changing_streams_and_those_before_looks_for_drift() {
        let mut queue = Queue::new();
        queue.push(&turn(Urgency::Drift, "a"), 1);
        queue.push(&turn(Urgency::Changing, "a"), 2);
        queue.push(&turn(Urgency::Call, "b"), 3);
        queue.push(&turn(Urgency::Drift, "b"), 4);
        assert_eq!(all(&mut queue), [3, 2, 1, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_namespace_with_a_thousand_requests_takes_turns_with_one_that_has_one() {
        let mut queue = Queue::new();
        for request in 0..1000 {
            queue.push(&turn(Urgency::Drift, "crowd"), request);
        }
        queue.push(&turn(Urgency::Drift, "lone"), 1000);
        assert_eq!(queue.pop(), Some(0));
        assert_eq!(queue.pop(), Some(1000));
        assert_eq!(queue.pop(), Some(1));
    }

    #[test]
    fn within_a_namespace_the_first_to_come_is_the_first_served() {
        let mut queue = Queue::new();
        for request in 0..4 {
            queue.push(&turn(Urgency::Changing, "a"), request);
        }
        assert_eq!(all(&mut queue), [0, 1, 2, 3]);
    }

    #[test]
    fn a_namespace_that_comes_back_waits_behind_those_that_waited_longer() {
        let mut queue = Queue::new();
        queue.push(&turn(Urgency::Drift, "a"), 1);
        queue.push(&turn(Urgency::Drift, "b"), 2);
        assert_eq!(queue.pop(), Some(1));
        queue.push(&turn(Urgency::Drift, "a"), 3);
        assert_eq!(all(&mut queue), [2, 3]);
    }
}
