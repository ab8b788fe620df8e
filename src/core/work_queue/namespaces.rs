//! How many places each namespace has, over all scopes, and which namespaces have less than their share.
//!
//! Only namespaces with a resource that is due or running are in memory. Pure.

use std::collections::HashMap;

/// The part of all places that is every namespace's share, if an equal part is not more.
const LEAST_SHARE: usize = 4;

/// The resources of each namespace that are due or running.
pub(super) struct Namespaces {
    concurrency: usize,
    counts: HashMap<String, Count>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    waiting: usize,
    running: usize,
}

impl Count {
    fn lacks(self, share: usize) -> bool {
        self.waiting > 0 && self.running < share
    }
}

impl Namespaces {
    /// Creates the counts of a queue with this many places in all.
    pub(super) fn new(concurrency: usize) -> Self {
        Self { concurrency, counts: HashMap::new() }
    }

    /// Records that a resource is due.
    pub(super) fn record_due(&mut self, namespace: &str) {
        self.counts.entry(namespace.to_owned()).or_default().waiting += 1;
    }

    /// Records that a due resource waits no longer, without a start.
    pub(super) fn record_withdrawal(&mut self, namespace: &str) {
        self.change(namespace, |count| count.waiting -= 1);
    }

    /// Records that a due resource has been started.
    pub(super) fn record_start(&mut self, namespace: &str) {
        self.change(namespace, |count| {
            count.waiting -= 1;
            count.running += 1;
        });
    }

    /// Records that a running resource has ended.
    pub(super) fn record_end(&mut self, namespace: &str) {
        self.change(namespace, |count| count.running -= 1);
    }

    /// Returns whether resources of a namespace wait, and it has less than its share of the places: an equal part of them, at
    /// least a quarter.
    pub(super) fn lacks_share(&self, namespace: &str) -> bool {
        let share = self.share();
        self.counts.get(namespace).is_some_and(|count| count.lacks(share))
    }

    /// Returns whether this is true of any namespace.
    pub(super) fn one_lacks_share(&self) -> bool {
        let share = self.share();
        self.counts.values().any(|count| count.lacks(share))
    }

    /// Returns the number of resources that are due, and that of those that are running.
    #[cfg(test)]
    pub(super) fn totals(&self) -> (usize, usize) {
        let sum = |of: fn(&Count) -> usize| self.counts.values().map(of).sum();
        (sum(|count| count.waiting), sum(|count| count.running))
    }

    fn share(&self) -> usize {
        let equal = self.concurrency / self.counts.len().max(1);
        equal.max(self.concurrency / LEAST_SHARE).max(1)
    }

    fn change(&mut self, namespace: &str, change: impl FnOnce(&mut Count)) {
        let Some(count) = self.counts.get_mut(namespace) else { return };
        change(count);
        if *count == Count::default() {
            self.counts.remove(namespace);
        }
    }
}
