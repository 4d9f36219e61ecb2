//! Large buffers, used again.
//!
//! Giving each one back to the system and asking for another costs a page fault for every 4 KiB: a quarter of the CPU time of a
//! first backup of large files, and of reading one from a store. What comes back is to hold nothing but ciphertext; behind the shorter
//! one of a compressed frame the rest of the buffer still holds plaintext, which is never written anywhere and goes with its owner
//! at the latest.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers that wait to be used again, the latest last: it is still in the processor's caches.
pub struct Buffers {
    kept: Mutex<Vec<Vec<u8>>>,
    kept_max: usize,
}

impl Buffers {
    /// None yet, and never more than `kept_max` (at least one) that wait.
    pub fn new(kept_max: usize) -> Self {
        Self {
            kept: Mutex::default(),
            kept_max,
        }
    }

    /// An empty one with room for `capacity` bytes and less than twice as many: one that was given back, or a new one.
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        let mut kept = self.kept.lock();
        let fits = |buffer: &Vec<u8>| (capacity..2 * capacity).contains(&buffer.capacity());
        match kept.iter().rposition(fits) {
            Some(at) => kept.swap_remove(at),
            None => Vec::with_capacity(capacity),
        }
    }

    /// Gives one back.
    pub fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.kept.lock();
        // The one that fitted nobody for the longest time makes room.
        if kept.len() == self.kept_max {
            kept.remove(0);
        }
        kept.push(buffer);
    }

    /// Gives one back that nobody else holds.
    pub fn give_bytes(&self, bytes: Bytes) {
        if let Ok(buffer) = bytes.try_into_mut() {
            self.give(buffer.into());
        }
    }

    /// The bytes in `buffer`, which comes back when nobody holds them any more.
    pub fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent {
            buffer,
            owner: self.clone(),
        })
    }
}

impl fmt::Debug for Buffers {
    /// Without what stands in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

struct Lent {
    buffer: Vec<u8>,
    owner: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.owner.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT_MAX: usize = 4;

    #[test]
    fn a_buffer_is_used_again_where_it_fits_and_nobody_holds_it() {
        let buffers = Buffers::new(KEPT_MAX);
        let bytes = Bytes::from(vec![7; 1000]);
        let place = bytes.as_ptr();
        let held = bytes.clone();
        buffers.give_bytes(bytes);
        assert_eq!(buffers.kept.lock().len(), 0, "somebody holds it");
        buffers.give_bytes(held);
        for other in [1001, 500] {
            assert!(buffers.take(other).capacity() >= other);
            assert_eq!(buffers.kept.lock().len(), 1, "it is no good for {other}");
        }
        let buffer = buffers.take(600);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, 1000));
        assert!(buffer.is_empty());
    }

    #[test]
    fn what_was_lent_comes_back_with_its_last_part() {
        let buffers = Arc::new(Buffers::new(KEPT_MAX));
        let lent = buffers.lend(vec![7; 1000]);
        let part = lent.slice(10..20);
        drop(lent);
        assert_eq!(buffers.kept.lock().len(), 0);
        assert_eq!(part, [7; 10][..]);
        drop(part);
        assert_eq!(buffers.kept.lock().len(), 1);
    }

    #[test]
    fn no_more_are_kept_than_are_used() {
        let buffers = Buffers::new(KEPT_MAX);
        for len in 0..3 * KEPT_MAX {
            buffers.give(Vec::with_capacity(1000 + len));
        }
        assert_eq!(buffers.kept.lock().len(), KEPT_MAX);
        let latest = 1000 + 3 * KEPT_MAX - 1;
        assert_eq!(buffers.take(latest).capacity(), latest);
    }
}
