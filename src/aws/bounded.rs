//! Fixed-size second-chance cache: when it is full, it evicts the oldest entry that was not read since it was
//! last queued for eviction.
//!
//! It holds values that can be obtained again: a client, a session, an immutable response of AWS. Its size is
//! fixed, so that user-supplied names cannot increase memory use without bound. It does no I/O, and holds its
//! lock for a lookup only.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A map of at most `limit` entries.
pub(super) struct BoundedCache<K, V> {
    limit: usize,
    entries: Mutex<Entries<K, V>>,
}

struct Entries<K, V> {
    by_key: HashMap<K, Entry<V>>,
    /// The keys in the order in which they may be evicted.
    eviction_queue: VecDeque<K>,
}

struct Entry<V> {
    value: V,
    /// Whether the entry was read since it was last queued for eviction.
    recently_used: bool,
}

impl<K: Clone + Eq + Hash, V: Clone> BoundedCache<K, V> {
    /// Creates an empty map of at most `limit` entries.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: Mutex::new(Entries { by_key: HashMap::new(), eviction_queue: VecDeque::new() }),
        }
    }

    /// Returns the value of `key`.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.lock();
        let entry = entries.by_key.get_mut(key)?;
        entry.recently_used = true;
        Some(entry.value.clone())
    }

    /// Inserts `value`, in place of another entry if the map is full.
    pub(super) fn put(&self, key: K, value: V) {
        let mut entries = self.lock();
        if let Some(entry) = entries.by_key.get_mut(&key) {
            entry.value = value;
            return;
        }
        if entries.by_key.len() >= self.limit {
            entries.evict_one();
        }
        entries.by_key.insert(key.clone(), Entry { value, recently_used: false });
        entries.eviction_queue.push_back(key);
    }

    /// Returns the value of `key`, which is created and inserted if it is missing.
    pub(super) fn get_or_put_with(&self, key: &K, make: impl FnOnce() -> V) -> V {
        self.get(key).unwrap_or_else(|| {
            let value = make();
            self.put(key.clone(), value.clone());
            value
        })
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash, V> Entries<K, V> {
    /// Evicts the first entry that was not read. The entries before it are queued again, behind the rest.
    fn evict_one(&mut self) {
        while let Some(key) = self.eviction_queue.pop_front() {
            match self.by_key.get_mut(&key) {
                Some(entry) if entry.recently_used => {
                    entry.recently_used = false;
                    self.eviction_queue.push_back(key);
                }
                _ => {
                    self.by_key.remove(&key);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_entry_is_evicted_for_new_entry() {
        let map = BoundedCache::new(2);
        map.put("a", 1);
        map.put("b", 2);
        map.put("a", 3);
        map.put("c", 4);
        assert_eq!([map.get(&"a"), map.get(&"b"), map.get(&"c")], [None, Some(2), Some(4)]);
    }

    #[test]
    fn entry_in_use_survives_a_hundred_insertions() {
        let map = BoundedCache::new(3);
        map.put(0, "in use");
        for key in 1..=100 {
            assert_eq!(map.get(&0), Some("in use"));
            map.put(key, "not");
            assert!(map.lock().by_key.len() <= 3);
        }
        let entries = map.lock();
        assert_eq!((entries.by_key.len(), entries.eviction_queue.len()), (3, 3));
    }

    #[test]
    fn full_map_of_entries_in_use_accepts_new_entry() {
        let map = BoundedCache::new(2);
        for key in ["a", "b"] {
            map.put(key, key);
            map.get(&key);
        }
        map.put("c", "c");
        assert_eq!([map.get(&"a"), map.get(&"b"), map.get(&"c")], [None, Some("b"), Some("c")]);
    }

    #[test]
    fn missing_value_is_created_once() {
        let map = BoundedCache::new(2);
        assert_eq!(map.get_or_put_with(&"a", || 1), 1);
        assert_eq!(map.get_or_put_with(&"a", || 2), 1);
    }
}
