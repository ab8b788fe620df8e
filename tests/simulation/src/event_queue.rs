//! The event queue, ordered by time; entries of the same time keep their insertion order.
//!
//! It does not interpret the events. The same entries always come out in the same order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use jiff::Timestamp;

/// The future entries.
#[derive(Debug)]
pub struct Agenda<E> {
    entries: BinaryHeap<Entry<E>>,
    written: u64,
}

/// A scheduled entry.
#[derive(Clone, Debug)]
pub struct Entry<E> {
    at: Timestamp,
    number: u64,
    pub event: E,
}

impl<E> Agenda<E> {
    /// Creates an empty queue.
    pub fn new() -> Self {
        Self { entries: BinaryHeap::new(), written: 0 }
    }

    /// Schedules `event` at this time.
    pub fn add(&mut self, at: Timestamp, event: E) {
        self.written += 1;
        self.entries.push(Entry { at, number: self.written, event });
    }

    /// Removes and returns the next entry, if it is not after `end`.
    pub fn next_until(&mut self, end: Timestamp) -> Option<(Timestamp, E)> {
        let next = self.entries.peek()?;
        if next.at > end {
            return None;
        }
        self.entries.pop().map(|entry| (entry.at, entry.event))
    }

    /// Returns the time of the next entry.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.entries.peek().map(|entry| entry.at)
    }

    /// Removes and returns every entry that is not after `end`, in their order.
    pub fn take_until(&mut self, end: Timestamp) -> Vec<Entry<E>> {
        let mut taken = Vec::new();
        while self.entries.peek().is_some_and(|next| next.at <= end) {
            taken.extend(self.entries.pop());
        }
        taken
    }

    /// Puts an entry back; it keeps its time and its place.
    pub fn put_back(&mut self, entry: Entry<E>) {
        self.entries.push(entry);
    }

    /// Returns every entry, in their order.
    pub fn entries(&self) -> Vec<(Timestamp, &E)> {
        let mut all: Vec<&Entry<E>> = self.entries.iter().collect();
        all.sort_by_key(|entry| (entry.at, entry.number));
        all.into_iter().map(|entry| (entry.at, &entry.event)).collect()
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self::new()
    }
}

// The heap returns the greatest entry first, so the earliest entry is the greatest.
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_ordered_by_time_then_insertion() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut agenda = Agenda::new();
        for (second, event) in [(3, 'd'), (1, 'a'), (2, 'b'), (2, 'c')] {
            agenda.add(at(second), event);
        }
        let order: Vec<char> =
            std::iter::from_fn(|| agenda.next_until(at(2))).map(|(_, event)| event).collect();
        assert_eq!(order, ['a', 'b', 'c']);
    }
}
