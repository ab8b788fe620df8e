//! Caches of fixed size, for values that can be obtained again: a client, a session, an immutable response of AWS.
//!
//! Users choose the names by which these are found, and must not determine the memory.

use std::hash::Hash;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, UnitWeighter};

/// Returns a cache of at most `limit` entries. It has one shard: of several shards, a full one would evict
/// entries while others have room. One lock suffices, because it is held for a lookup only.
pub(super) fn cache<K: Clone + Eq + Hash, V: Clone>(limit: usize) -> Cache<K, V> {
    let mut options = OptionsBuilder::new();
    options.shards(1).estimated_items_capacity(limit).weight_capacity(limit as u64);
    let options = options.build().unwrap_or_else(|error| unreachable!("both capacities are set: {error}"));
    Cache::with_options(options, UnitWeighter, DefaultHashBuilder::default(), DefaultLifecycle::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_holds_almost_its_limit_and_never_more() {
        let cache = cache(4096);
        for key in 0..3900 {
            cache.insert(key, ());
        }
        assert_eq!(cache.len(), 3900, "nothing is evicted before the cache is full");
        for key in 3900..10_000 {
            cache.insert(key, ());
        }
        assert!((3900..=4096).contains(&cache.len()), "{}", cache.len());
    }
}
