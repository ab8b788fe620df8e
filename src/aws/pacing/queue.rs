//! Who is served next: namespaces in rounds, and within a round by urgency.
//!
//! In each round every namespace that waits is served once, the one with the most urgent request first. So an urgent request goes
//! before all that are less urgent, but no namespace gets more than its share by what it calls urgent. Pure: it knows no time and
//! no limit.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::super::port::Urgency;
use crate::model::principal::Principal;

/// Every urgency, the most urgent first.
pub(super) const URGENCIES: [Urgency; 3] = [Urgency::Call, Urgency::Changing, Urgency::Drift];

/// How soon a request must go, and for whom: the order in which the pacer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How soon.
    pub urgency: Urgency,
    /// The namespace that it is for; namespaces take turns.
    pub namespace: String,
}

impl Turn {
    /// The turn of a principal's request.
    #[must_use]
    pub fn of(by: &Principal, urgency: Urgency) -> Self {
        Self { urgency, namespace: by.namespace.clone() }
    }
}

/// The requests that wait.
pub(super) struct Queue<T> {
    /// The namespaces in the order of their next turns.
    order: BTreeMap<Place, String>,
    waiting: HashMap<String, Waiting<T>>,
    /// The present round.
    round: u64,
    /// The last round in which each namespace was served, for those that were served in the present round or a later one.
    served: HashMap<String, u64>,
    /// How many places have been given.
    places: u64,
}

/// The place of a namespace among all: the round of its next turn, its most urgent request, and since when it waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    round: u64,
    urgency: Urgency,
    number: u64,
}

/// The requests of one namespace, and its place. There is at least one.
struct Waiting<T> {
    place: Place,
    by_urgency: [VecDeque<T>; URGENCIES.len()],
}

impl<T> Waiting<T> {
    /// The urgency of the most urgent request.
    fn urgency(&self) -> Option<Urgency> {
        URGENCIES.into_iter().find(|urgency| !self.by_urgency[*urgency as usize].is_empty())
    }
}

impl<T> Queue<T> {
    /// An empty queue.
    pub(super) fn new() -> Self {
        Self { order: BTreeMap::new(), waiting: HashMap::new(), round: 0, served: HashMap::new(), places: 0 }
    }

    /// Returns whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Lets `one` wait for its turn.
    pub(super) fn push(&mut self, turn: &Turn, one: T) {
        let Turn { urgency, namespace } = turn;
        if let Some(waiting) = self.waiting.get_mut(namespace) {
            waiting.by_urgency[*urgency as usize].push_back(one);
            if *urgency < waiting.place.urgency {
                self.order.remove(&waiting.place);
                waiting.place.urgency = *urgency;
                self.order.insert(waiting.place, namespace.clone());
            }
            return;
        }
        let round = self.served.get(namespace).map_or(self.round, |served| served + 1);
        let place = self.place(round, *urgency);
        let mut waiting = Waiting { place, by_urgency: URGENCIES.map(|_| VecDeque::new()) };
        waiting.by_urgency[*urgency as usize].push_back(one);
        self.order.insert(place, namespace.clone());
        self.waiting.insert(namespace.clone(), waiting);
    }

    /// Takes out the next in turn.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (Place { round, urgency, .. }, namespace) = self.order.pop_first()?;
        if round > self.round {
            self.round = round;
            self.served.clear();
        }
        let waiting = self.waiting.get_mut(&namespace)?;
        let next = waiting.by_urgency[urgency as usize].pop_front();
        let then = waiting.urgency();
        self.served.insert(namespace.clone(), round);
        if let Some(urgency) = then {
            let place = self.place(round + 1, urgency);
            if let Some(waiting) = self.waiting.get_mut(&namespace) {
                waiting.place = place;
            }
            self.order.insert(place, namespace);
        } else {
            self.waiting.remove(&namespace);
        }
        if self.order.is_empty() {
            // No namespace waits that could have been wronged.
            self.served.clear();
        }
        next
    }

    fn place(&mut self, round: u64, urgency: Urgency) -> Place {
        self.places += 1;
        Place { round, urgency, number: self.places }
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
        queue.push(&turn(Urgency::Drift, "a"), 2);
        queue.push(&turn(Urgency::Changing, "a"), 3);
        queue.push(&turn(Urgency::Call, "b"), 4);
        queue.push(&turn(Urgency::Drift, "b"), 5);
        queue.push(&turn(Urgency::Drift, "c"), 6);
        assert_eq!(all(&mut queue), [4, 3, 6, 5, 1, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn urgent_requests_of_one_namespace_take_turns_with_any_of_others() {
        let mut queue = Queue::new();
        for request in 0..100 {
            queue.push(&turn(Urgency::Changing, "crowd"), request);
        }
        queue.push(&turn(Urgency::Drift, "lone"), 100);
        queue.push(&turn(Urgency::Drift, "other"), 200);
        queue.push(&turn(Urgency::Drift, "lone"), 101);
        assert_eq!(all(&mut queue)[..6], [0, 100, 200, 1, 101, 2]);
    }

    /// Also one that has never more than one request, and sends the next as soon as that is served.
    #[test]
    fn urgent_request_that_comes_again_at_once_is_served_once_a_round() {
        let mut queue = Queue::new();
        for request in 0..3 {
            queue.push(&turn(Urgency::Drift, "lone"), request);
        }
        queue.push(&turn(Urgency::Drift, "other"), 10);
        let mut served = Vec::new();
        queue.push(&turn(Urgency::Changing, "busy"), 99);
        while let Some(one) = queue.pop() {
            served.push(one);
            if one == 99 && served.len() < 8 {
                queue.push(&turn(Urgency::Changing, "busy"), 99);
            }
        }
        assert_eq!(served, [99, 0, 10, 99, 1, 99, 2, 99]);
    }

    #[test]
    fn namespace_that_comes_new_waits_for_nothing_but_the_round_under_way() {
        let mut queue = Queue::new();
        for request in 0..10 {
            queue.push(&turn(Urgency::Changing, "a"), request);
            queue.push(&turn(Urgency::Changing, "b"), 100 + request);
        }
        for _ in 0..7 {
            queue.pop();
        }
        queue.push(&turn(Urgency::Drift, "new"), 1000);
        assert_eq!((queue.pop(), queue.pop()), (Some(103), Some(1000)));
    }

    #[test]
    fn queue_keeps_no_namespace_that_does_not_wait() {
        let mut queue = Queue::new();
        for namespace in 0..1000 {
            queue.push(&turn(Urgency::Drift, &namespace.to_string()), namespace);
        }
        assert_eq!(all(&mut queue).len(), 1000);
        assert!(queue.waiting.is_empty() && queue.served.is_empty());
    }
}
