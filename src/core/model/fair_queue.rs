//! Queue that is fair among namespaces.
//!
//! Namespaces take turns. The caller may prefer those that use the least of something, such as the fewest permits: then
//! namespaces that use as much as each other take turns. Within a namespace, items keep their order of arrival. A namespace
//! with thousands of requests therefore delays no other. The queue has neither a clock nor a limit.

use std::collections::{HashMap, VecDeque};

/// Waiting items, each of a namespace.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// The namespaces with waiting items, each once, in the order of their turns: the order decides among
    /// namespaces that hold the same number of permits.
    namespaces: VecDeque<String>,
    waiting: HashMap<String, VecDeque<T>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { namespaces: VecDeque::new(), waiting: HashMap::new() }
    }
}

impl<T> FairQueue<T> {
    /// Returns whether no item is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Returns whether an item of a namespace that `is_meant` is waiting.
    pub fn has_one_of(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        self.namespaces.iter().any(|namespace| is_meant(namespace))
    }

    /// Adds an item of this namespace.
    pub fn push(&mut self, namespace: &str, one: T) {
        let waiting = self.waiting.entry(namespace.to_owned()).or_default();
        if waiting.is_empty() {
            self.namespaces.push_back(namespace.to_owned());
        }
        waiting.push_back(one);
    }

    /// Removes and returns the next item of the namespace whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_at(0).map(|(_, one)| one)
    }

    /// Removes and returns the next item that `is_wanted`. Removes the other items before it, which use up no turns.
    pub fn pop_wanted(&mut self, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        while let Some(namespace) = self.namespaces.front() {
            let waiting = self.waiting.get_mut(namespace)?;
            let unwanted = waiting.iter().take_while(|one| !is_wanted(one)).count();
            waiting.drain(..unwanted);
            if !waiting.is_empty() {
                return self.pop();
            }
            self.waiting.remove(namespace);
            self.namespaces.pop_front();
        }
        None
    }

    /// Removes and returns the next item of the namespace that holds the fewest permits; `has` returns the
    /// number of permits of a namespace. Returns the namespace, too.
    pub fn pop_least(&mut self, has: impl Fn(&str) -> usize) -> Option<(String, T)> {
        let mut least: Option<(usize, usize)> = None;
        for (turn, namespace) in self.namespaces.iter().enumerate() {
            let held = has(namespace);
            if least.is_none_or(|(fewest, _)| held < fewest) {
                least = Some((held, turn));
            }
            // With many namespaces, one of the first holds none as a rule.
            if held == 0 {
                break;
            }
        }
        self.pop_at(least?.1)
    }

    fn pop_at(&mut self, turn: usize) -> Option<(String, T)> {
        let namespace = self.namespaces.remove(turn)?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.namespaces.push_back(namespace.clone());
        }
        next.map(|next| (namespace, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(turns: &mut FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn namespace_with_fewest_permits_is_served_first() {
        let mut turns = FairQueue::default();
        for request in 0..3 {
            turns.push("rich", request);
            turns.push("poor", 10 + request);
            turns.push("poor too", 20 + request);
        }
        let has = |namespace: &str| usize::from(namespace == "rich");
        let served: Vec<u32> = std::iter::from_fn(|| turns.pop_least(has)).map(|(_, one)| one).collect();
        assert_eq!(served, [10, 20, 11, 21, 12, 22, 0, 1, 2]);
    }

    #[test]
    fn busy_namespace_alternates_with_quiet_one() {
        let mut turns = FairQueue::default();
        for request in 0..1000 {
            turns.push("crowd", request);
        }
        turns.push("lone", 1000);
        assert_eq!(turns.pop(), Some(0));
        assert_eq!(turns.pop(), Some(1000));
        assert_eq!(turns.pop(), Some(1));
    }

    #[test]
    fn unwanted_items_use_up_no_turns() {
        let mut turns = FairQueue::default();
        for (namespace, one) in [("a", 1), ("a", 2), ("a", 30), ("b", 40), ("b", 5), ("c", 6), ("a", 50)] {
            turns.push(namespace, one);
        }
        let served: Vec<u32> = std::iter::from_fn(|| turns.pop_wanted(|one| *one >= 10)).collect();
        assert_eq!(served, [30, 40, 50]);
        assert!(turns.is_empty());
    }

    #[test]
    fn items_of_one_namespace_are_served_in_order() {
        let mut turns = FairQueue::default();
        for request in 0..4 {
            turns.push("a", request);
        }
        assert!(!turns.is_empty());
        assert_eq!(all(&mut turns), [0, 1, 2, 3]);
        assert!(turns.is_empty());
    }

    #[test]
    fn returning_namespace_queues_behind_waiting_ones() {
        let mut turns = FairQueue::default();
        turns.push("a", 1);
        turns.push("b", 2);
        assert_eq!(turns.pop(), Some(1));
        turns.push("a", 3);
        assert_eq!(all(&mut turns), [2, 3]);
    }
}
