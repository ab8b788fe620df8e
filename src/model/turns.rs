//! Who is next of those who wait: the namespaces that have the least, one after the other, and within one in the order of arrival. So
//! a namespace with thousands of requests keeps no other waiting. It knows no time and no limit.

use std::collections::{HashMap, VecDeque};

/// Those who wait, each for a namespace.
#[derive(Debug)]
pub struct Turns<T> {
    /// The namespaces that wait, each once, the next to be served first.
    namespaces: VecDeque<String>,
    waiting: HashMap<String, VecDeque<T>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { namespaces: VecDeque::new(), waiting: HashMap::new() }
    }
}

impl<T> Turns<T> {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Lets `one` wait for a turn of this namespace.
    pub fn push(&mut self, namespace: &str, one: T) {
        let waiting = self.waiting.entry(namespace.to_owned()).or_default();
        if waiting.is_empty() {
            self.namespaces.push_back(namespace.to_owned());
        }
        waiting.push_back(one);
    }

    /// Takes out the next in turn of the namespaces that have the least, as `has` counts it.
    pub fn pop_least(&mut self, has: impl Fn(&str) -> usize) -> Option<T> {
        let turns = self.namespaces.iter().enumerate();
        let (turn, _) = turns.min_by_key(|(turn, namespace)| (has(namespace), *turn))?;
        let namespace = self.namespaces.remove(turn)?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.namespaces.push_back(namespace);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next in turn, where all namespaces have the same.
    fn pop(turns: &mut Turns<u32>) -> Option<u32> {
        turns.pop_least(|_| 0)
    }

    fn all(turns: &mut Turns<u32>) -> Vec<u32> {
        std::iter::from_fn(|| pop(turns)).collect()
    }

    #[test]
    fn namespace_that_has_less_is_served_first() {
        let mut turns = Turns::default();
        for request in 0..3 {
            turns.push("rich", request);
            turns.push("poor", 10 + request);
            turns.push("poor too", 20 + request);
        }
        let has = |namespace: &str| usize::from(namespace == "rich");
        let served: Vec<u32> = std::iter::from_fn(|| turns.pop_least(has)).collect();
        assert_eq!(served, [10, 20, 11, 21, 12, 22, 0, 1, 2]);
    }

    #[test]
    fn a_namespace_with_a_thousand_requests_takes_turns_with_one_that_has_one() {
        let mut turns = Turns::default();
        for request in 0..1000 {
            turns.push("crowd", request);
        }
        turns.push("lone", 1000);
        assert_eq!(pop(&mut turns), Some(0));
        assert_eq!(pop(&mut turns), Some(1000));
        assert_eq!(pop(&mut turns), Some(1));
    }

    #[test]
    fn within_a_namespace_the_first_to_come_is_the_first_served() {
        let mut turns = Turns::default();
        for request in 0..4 {
            turns.push("a", request);
        }
        assert!(!turns.is_empty());
        assert_eq!(all(&mut turns), [0, 1, 2, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn a_namespace_that_comes_back_waits_behind_those_that_waited_longer() {
        let mut turns = Turns::default();
        turns.push("a", 1);
        turns.push("b", 2);
        assert_eq!(pop(&mut turns), Some(1));
        turns.push("a", 3);
        assert_eq!(all(&mut turns), [2, 3]);
    }
}
