//! Content-defined chunking with a gear table derived from a repository key. Pure. FORMAT.md, "Chunks".
//!
//! Where a file is cut depends on what it holds and on the key, not on where it holds it: so a byte inserted at the front moves the
//! cuts along, and the chunks behind it are found again by their content ids. Somebody without the key cannot tell where a known file
//! would be cut. Used by the flusher for new and rewritten files; ids are [`VolumeKeys::content_id`](crate::crypto::VolumeKeys::content_id)'s.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::format::frame::FRAME_PLAIN_MAX;

/// No chunk but a file's last is shorter, in bytes.
pub const CHUNK_LEN_MIN: usize = 128 << 10;
/// What chunks' lengths gather around, in bytes. Smaller ones find more again in an edited file, and cost a tree entry each:
/// at this length an edit costs about a chunk, and a terabyte two million entries.
pub const CHUNK_LEN_AVERAGE: usize = 512 << 10;
/// No chunk is longer, in bytes: one fits one frame.
pub const CHUNK_LEN_MAX: usize = FRAME_PLAIN_MAX;

/// A keyed gear table: decides where to cut. Cheap to share, costly to make.
pub struct Gear {
    gear: Box<[u64; 256]>,
    /// The same, each word shifted left by one, for the bytes at even places.
    shifted: Box<[u64; 256]>,
    masks: (u64, u64),
}

impl Gear {
    /// From [`VolumeKeys::gear`](crate::crypto::VolumeKeys::gear).
    pub fn new(gear: Box<[u64; 256]>) -> Self {
        let shifted = Box::new(gear.map(|word| word << 1));
        let masks = select_masks(CHUNK_LEN_AVERAGE, Normalization::Level1);
        Self {
            gear,
            shifted,
            masks,
        }
    }

    /// Length of the chunk that `data` begins with. Give it at least [`CHUNK_LEN_MAX`] bytes, or all that is left
    /// of the file: otherwise it cuts where more data would not have. 0 only if `data` is empty.
    pub fn cut(&self, data: &[u8]) -> usize {
        let (strict, loose) = self.masks;
        let (_, len) = cut_gear(
            data,
            CHUNK_LEN_MIN,
            CHUNK_LEN_AVERAGE,
            CHUNK_LEN_MAX,
            strict,
            loose,
            strict << 1,
            loose << 1,
            &*self.gear,
            &*self.shifted,
        );
        len
    }
}

#[cfg(test)]
mod tests;
