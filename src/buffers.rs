//! Large buffers, used again.
//!
//! Giving each one back to the system and asking for another costs a page fault for every 4 KiB: a quarter of the CPU time of a
//! first backup of large files, and of reading one from a store. What comes back to buffers for ciphertext is to hold nothing else; behind
//! the shorter one of a compressed frame the rest of the buffer still holds plaintext, which is never written anywhere and goes with its
//! owner at the latest, as does what is left in buffers for plaintext.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller ones are left to the allocator, which keeps them itself.
const KEPT_LEN_MIN: usize = 64 << 10;

/// What a disk reads and writes as one, and where memory begins that it may write to by itself.
pub const PAGE_LEN: usize = 4096;

/// Makes room in `buffer` for `len` bytes that begin at a page, whatever they are, and gives where they begin in it.
pub fn align(buffer: &mut Vec<u8>, len: usize) -> usize {
    let room = len.saturating_add(PAGE_LEN);
    if buffer.len() < room {
        buffer.resize(room, 0);
    }
    // It is allowed to say that it cannot tell.
    match buffer.as_ptr().align_offset(PAGE_LEN) {
        begin if begin < PAGE_LEN => begin,
        _ => 0,
    }
}

/// What a filled buffer of `len` bytes may take up.
pub fn room_of(len: usize) -> usize {
    len + len / 4
}

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
        match self.find(capacity..2 * capacity) {
            Some(mut buffer) => {
                buffer.clear();
                buffer
            }
            None => Vec::with_capacity(capacity),
        }
    }

    /// One of `len` bytes, whatever they are, with room for [`room_of`] that many at most: for who writes over all of them and keeps it
    /// long.
    pub fn take_filled(&self, len: usize) -> Vec<u8> {
        match self.find(len..room_of(len) + 1) {
            Some(mut buffer) => {
                buffer.resize(len, 0);
                buffer
            }
            None => vec![0; len],
        }
    }

    fn find(&self, capacity: Range<usize>) -> Option<Vec<u8>> {
        let mut kept = self.kept.lock();
        let at = kept
            .iter()
            .rposition(|buffer| capacity.contains(&buffer.capacity()))?;
        Some(kept.swap_remove(at))
    }

    /// Gives one back.
    pub fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() < KEPT_LEN_MIN {
            return;
        }
        let mut kept = self.kept.lock();
        // The one that fitted nobody for the longest time makes room, and is let go of where nobody waits for it.
        let useless = (kept.len() == self.kept_max).then(|| kept.remove(0));
        kept.push(buffer);
        drop(kept);
        drop(useless);
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
    const LEN: usize = 1 << 20;

    #[test]
    fn a_buffer_is_used_again_where_it_fits_and_nobody_holds_it() {
        let buffers = Buffers::new(KEPT_MAX);
        let bytes = Bytes::from(vec![7; LEN]);
        let place = bytes.as_ptr();
        let held = bytes.clone();
        buffers.give_bytes(bytes);
        assert_eq!(buffers.kept.lock().len(), 0, "somebody holds it");
        buffers.give_bytes(held);
        for other in [LEN + 1, LEN / 2] {
            assert!(buffers.take(other).capacity() >= other);
            assert_eq!(buffers.kept.lock().len(), 1, "it is no good for {other}");
        }
        let buffer = buffers.take(LEN / 2 + 1);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, LEN));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_filled_one_is_as_long_as_was_asked_for_and_hardly_larger() {
        let buffers = Buffers::new(KEPT_MAX);
        let (fits, does_not) = (LEN - LEN / 8, LEN / 2);
        for len in [fits, does_not, LEN] {
            buffers.give(vec![7; LEN]);
            let buffer = buffers.take_filled(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.capacity() == LEN, len != does_not);
        }
        buffers.give(Vec::with_capacity(LEN));
        let grown = buffers.take_filled(LEN);
        assert_eq!((grown.len(), grown.capacity()), (LEN, LEN));
    }

    #[test]
    fn what_was_lent_comes_back_with_its_last_part() {
        let buffers = Arc::new(Buffers::new(KEPT_MAX));
        let lent = buffers.lend(vec![7; LEN]);
        let part = lent.slice(10..20);
        drop(lent);
        assert_eq!(buffers.kept.lock().len(), 0);
        assert_eq!(part, [7; 10][..]);
        drop(part);
        assert_eq!(buffers.kept.lock().len(), 1);
    }

    #[test]
    fn no_more_are_kept_than_are_used_and_no_small_ones() {
        let buffers = Buffers::new(KEPT_MAX);
        for len in 0..3 * KEPT_MAX {
            buffers.give(Vec::with_capacity(LEN + len));
        }
        buffers.give(Vec::with_capacity(100));
        assert_eq!(buffers.kept.lock().len(), KEPT_MAX);
        let latest = LEN + 3 * KEPT_MAX - 1;
        assert_eq!(buffers.take(latest).capacity(), latest);
    }
}
