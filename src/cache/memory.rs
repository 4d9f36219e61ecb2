//! A least-recently-used map bounded by bytes. No locks, no I/O: [`super::Cache`] wraps it.

use std::hash::Hash;

use lru::LruCache;

/// What each entry costs beside its own bytes: its key, links and hash slot. Keeps many tiny entries within the bound.
const ENTRY_BYTES: usize = 128;

/// Values that together stand for at most so many bytes; the one not asked for the longest goes first.
pub(super) struct ByteLru<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl<K: Hash + Eq, V> ByteLru<K, V> {
    /// An empty one. With `bytes_max` 0 it keeps nothing.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            bytes_max,
        }
    }

    /// The value, which becomes the most recently used.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Keeps `value`, which stands for `bytes` bytes, and drops what no longer fits. What is larger than all the room
    /// is not kept, and pushes nothing out.
    pub(super) fn put(&mut self, key: K, value: V, bytes: usize) {
        let cost = bytes.saturating_add(ENTRY_BYTES);
        if cost > self.bytes_max {
            return;
        }
        if let Some((_, old)) = self.entries.put(key, (value, cost)) {
            self.bytes -= old;
        }
        self.bytes += cost;
        while self.bytes > self.bytes_max {
            let (_, (_, freed)) = self
                .entries
                .pop_lru()
                .expect("bytes are counted only for entries that are there");
            self.bytes -= freed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_the_bound_holds() {
        let mut lru = ByteLru::new(3 * (100 + ENTRY_BYTES));
        for key in 0..3 {
            lru.put(key, key, 100);
        }
        assert!(lru.get(&0).is_some());
        lru.put(3, 3, 100);
        assert_eq!(lru.get(&1), None);
        assert_eq!(lru.get(&0), Some(&0));
        assert_eq!(lru.bytes, 3 * (100 + ENTRY_BYTES));
    }

    #[test]
    fn replacing_counts_once_and_the_oversized_push_nothing_out() {
        let mut lru = ByteLru::new(1000);
        lru.put(1, "a", 100);
        lru.put(1, "b", 200);
        assert_eq!(lru.bytes, 200 + ENTRY_BYTES);
        lru.put(2, "c", 1000);
        lru.put(3, "d", usize::MAX);
        assert_eq!(lru.get(&2), None);
        assert_eq!(lru.get(&1), Some(&"b"));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut lru = ByteLru::new(0);
        lru.put(1, 1, 0);
        assert_eq!(lru.get(&1), None);
    }
}
