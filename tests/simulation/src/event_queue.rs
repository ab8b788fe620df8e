//! The event queue, ordered by time; entries of the same time keep their insertion order.
//!
//! It does not interpret the events. The same entries always come out in the same order.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// The future entries, by their time and their number.
#[derive(Debug)]
pub struct EventQueue<E> {
    entries: BTreeMap<(Timestamp, u64), E>,
    inserted: u64,
}

/// A scheduled entry.
#[derive(Clone, Debug)]
pub struct Entry<E> {
    key: (Timestamp, u64),
    pub event: E,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), inserted: 0 }
    }
}

impl<E> EventQueue<E> {
    /// Schedules `event` at this time.
    pub fn add(&mut self, at: Timestamp, event: E) {
        self.inserted += 1;
        self.entries.insert((at, self.inserted), event);
    }

    /// Removes and returns the next entry, if it is not after `end`.
    pub fn next_until(&mut self, end: Timestamp) -> Option<(Timestamp, E)> {
        let next = self.entries.first_entry().filter(|next| next.key().0 <= end)?;
        let ((at, _), event) = next.remove_entry();
        Some((at, event))
    }

    /// Returns the time of the next entry.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes and returns every entry that is not after `end`, in their order.
    pub fn take_until(&mut self, end: Timestamp) -> Vec<Entry<E>> {
        let later = self.entries.split_off(&(end, u64::MAX));
        let taken = std::mem::replace(&mut self.entries, later);
        taken.into_iter().map(|(key, event)| Entry { key, event }).collect()
    }

    /// Puts an entry back; it keeps its time and its order.
    pub fn put_back(&mut self, entry: Entry<E>) {
        self.entries.insert(entry.key, entry.event);
    }

    /// Returns every entry, in their order.
    pub fn entries(&self) -> impl Iterator<Item = (Timestamp, &E)> {
        self.entries.iter().map(|((at, _), event)| (*at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_ordered_by_time_then_insertion() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut queue = EventQueue::default();
        for (second, event) in [(3, 'd'), (1, 'a'), (2, 'b'), (2, 'c')] {
            queue.add(at(second), event);
        }
        let order: Vec<char> =
            std::iter::from_fn(|| queue.next_until(at(2))).map(|(_, event)| event).collect();
        assert_eq!(order, ['a', 'b', 'c']);
    }
}
