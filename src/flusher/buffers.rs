//! Buffers of frames, used again as long as a pipeline runs.
//!
//! Giving each one back to the system and asking for another costs a page fault for every 4 KiB, which is a quarter of the CPU time of a
//! first backup of large files. What comes back holds ciphertext; behind the shorter one of a compressed frame the rest of the buffer
//! still holds plaintext, which is never written anywhere and goes with the pipeline at the latest.

use bytes::Bytes;
use parking_lot::Mutex;

use crate::flusher::encrypt::BATCH_FRAMES;

/// Kept at most: what comes back while one batch is being filled and another is on its way.
const KEPT_MAX: usize = 2 * BATCH_FRAMES;

/// Buffers that wait to be used again, the latest last: it is still in the processor's caches.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// One with room for `capacity` bytes and less than twice as many: one that was given back, or a new one. What stands in it
    /// means nothing.
    pub(crate) fn take(&self, capacity: usize) -> Vec<u8> {
        let mut kept = self.0.lock();
        let fits = |buffer: &Vec<u8>| (capacity..2 * capacity).contains(&buffer.capacity());
        match kept.iter().rposition(fits) {
            Some(at) => kept.swap_remove(at),
            None => Vec::with_capacity(capacity),
        }
    }

    /// Gives one back that nobody else holds.
    pub(crate) fn give(&self, bytes: Bytes) {
        let mut kept = self.0.lock();
        if kept.len() < KEPT_MAX
            && let Ok(buffer) = bytes.try_into_mut()
        {
            kept.push(buffer.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_where_it_fits_and_nobody_holds_it() {
        let buffers = Buffers::default();
        let bytes = Bytes::from(vec![7; 1000]);
        let place = bytes.as_ptr();
        let held = bytes.clone();
        buffers.give(bytes);
        assert_eq!(buffers.0.lock().len(), 0, "somebody holds it");
        buffers.give(held);
        for other in [1001, 500] {
            assert!(buffers.take(other).capacity() >= other);
            assert_eq!(buffers.0.lock().len(), 1, "it is no good for {other}");
        }
        let buffer = buffers.take(600);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, 1000));
    }

    #[test]
    fn no_more_are_kept_than_are_used() {
        let buffers = Buffers::default();
        for _ in 0..3 * KEPT_MAX {
            buffers.give(Bytes::from(vec![7; 1000]));
        }
        assert_eq!(buffers.0.lock().len(), KEPT_MAX);
    }
}
