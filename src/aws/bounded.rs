//! A small map that forgets its oldest entry when it is full.
//!
//! It holds what can be had again (a client, an answer of AWS that never changes), so that names which users write can
//! never make the operator grow. It does no I/O and holds its lock for a look-up only.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// A map of at most `limit` entries.
pub(super) struct Bounded<K, V> {
    limit: usize,
    entries: Mutex<Entries<K, V>>,
}

struct Entries<K, V> {
    by_key: HashMap<K, V>,
    oldest_first: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V: Clone> Bounded<K, V> {
    /// An empty map of at most `limit` entries.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::new(Entries { by_key: HashMap::new(), oldest_first: VecDeque::new() }) }
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_key.get(key).cloned()
    }

    /// Puts `value` in, in the place of the oldest entry when the map is full.
    pub(super) fn put(&self, key: K, value: V) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_key.insert(key.clone(), value).is_some() {
            return;
        }
        entries.oldest_first.push_back(key);
        if entries.by_key.len() > self.limit
            && let Some(oldest) = entries.oldest_first.pop_front()
        {
            entries.by_key.remove(&oldest);
        }
    }

    /// The value of `key`, made and put in where it is missing.
    pub(super) fn get_or_put_with(&self, key: &K, make: impl FnOnce() -> V) -> V {
        self.get(key).unwrap_or_else(|| {
            let value = make();
            self.put(key.clone(), value.clone());
            value
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entry_makes_room_for_a_new_one() {
        let map = Bounded::new(2);
        map.put("a", 1);
        map.put("b", 2);
        map.put("a", 3);
        map.put("c", 4);
        assert_eq!([map.get(&"a"), map.get(&"b"), map.get(&"c")], [None, Some(2), Some(4)]);
    }

    #[test]
    fn a_value_is_made_once() {
        let map = Bounded::new(2);
        assert_eq!(map.get_or_put_with(&"a", || 1), 1);
        assert_eq!(map.get_or_put_with(&"a", || 2), 1);
    }
}
