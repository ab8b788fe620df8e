//! The agenda: what happens when, in the order of time, and for the same moment in the order of being written down.
//!
//! It knows nothing of what happens. The same entries come out in the same order, always.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use jiff::Timestamp;

/// Entries to come.
#[derive(Debug)]
pub struct Agenda<E> {
    entries: BinaryHeap<Entry<E>>,
    written: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Timestamp,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { entries: BinaryHeap::new(), written: 0 }
    }

    /// Writes down that `event` happens at this time.
    pub fn add(&mut self, at: Timestamp, event: E) {
        self.written += 1;
        self.entries.push(Entry { at, number: self.written, event });
    }

    /// The next entry, if it is not after `end`.
    pub fn next_until(&mut self, end: Timestamp) -> Option<(Timestamp, E)> {
        let next = self.entries.peek()?;
        if next.at > end {
            return None;
        }
        self.entries.pop().map(|entry| (entry.at, entry.event))
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self::new()
    }
}

// The heap gives the greatest first, so the earliest is the greatest.
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
    fn what_is_earlier_comes_first_and_of_the_same_moment_what_was_written_first() {
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
