//! Who is served next: by urgency, and with the same urgency namespace after namespace.
//!
//! Pure: it knows no time and no limit.

use super::super::port::Urgency;
use crate::model::principal::Principal;
use crate::model::turns::Turns;

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

/// Those who wait: a line for each urgency, the most urgent first.
pub(super) struct Queue<T>([Turns<T>; URGENCIES.len()]);

impl<T> Queue<T> {
    /// Nobody.
    pub(super) fn new() -> Self {
        Self(URGENCIES.map(|_| Turns::default()))
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Turns::is_empty)
    }

    /// Lets `one` wait for its turn.
    pub(super) fn push(&mut self, turn: &Turn, one: T) {
        self.0[turn.urgency as usize].push(&turn.namespace, one);
    }

    /// The next in turn.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.0.iter_mut().find_map(Turns::pop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_go_before_looks_at_changing_streams_and_those_before_looks_for_drift() {
        let turn = |urgency, namespace: &str| Turn { urgency, namespace: namespace.to_owned() };
        let mut queue = Queue::new();
        queue.push(&turn(Urgency::Drift, "a"), 1);
        queue.push(&turn(Urgency::Drift, "a"), 2);
        queue.push(&turn(Urgency::Changing, "a"), 3);
        queue.push(&turn(Urgency::Call, "b"), 4);
        queue.push(&turn(Urgency::Drift, "b"), 5);
        let served: Vec<u32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(served, [4, 3, 1, 5, 2]);
        assert!(queue.is_empty());
    }
}
