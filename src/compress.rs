//! Compression of one frame's payload. Each direction is a pure function; contexts are kept per thread, since making
//! one costs more than compressing a small frame. Called by [`crate::format::frame`] only.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

/// How a repository compresses; chosen at `init`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    Off,
    /// Zstandard at this level (default 1).
    Zstd(i8),
}

impl Default for Compression {
    /// Zstandard 1: on binaries within 4 % of level 3 at twice its speed.
    fn default() -> Self {
        Self::Zstd(1)
    }
}

/// A payload must shrink by one part in this many, or it stays plain: less is not worth decompressing at every read.
const SAVING_MIN: usize = 64;

/// A thread's compressor with the level it is set to, and the buffer it writes to.
struct Scratch {
    level: i8,
    compressor: Compressor<'static>,
    buffer: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses what stands in `buffer` from `front` on, in its place; says whether it did. It stays as it is where compression is off, or
/// saves too little. Incompressible input is recognised by zstd itself, at several GB/s.
pub(crate) fn in_place(buffer: &mut Vec<u8>, front: usize, compression: Compression) -> bool {
    let Compression::Zstd(level) = compression else {
        return false;
    };
    SCRATCH.with_borrow_mut(|scratch| {
        let scratch = scratch_at(scratch, level);
        let Some(compressed) = scratch.and_then(|s| s.compress(&buffer[front..])) else {
            return false;
        };
        buffer.truncate(front);
        buffer.extend_from_slice(compressed);
        true
    })
}

fn scratch_at(scratch: &mut Option<Scratch>, level: i8) -> Option<&mut Scratch> {
    if scratch.as_ref().is_none_or(|s| s.level != level) {
        *scratch = Compressor::new(level.into())
            .ok()
            .map(|compressor| Scratch {
                level,
                compressor,
                buffer: Vec::new(),
            });
    }
    scratch.as_mut()
}

impl Scratch {
    /// `None` also if zstd fails: an uncompressed payload is always right.
    fn compress(&mut self, plain: &[u8]) -> Option<&[u8]> {
        let room = plain.len() - plain.len().div_ceil(SAVING_MIN);
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let room = &mut self.buffer[..room];
        let len = self.compressor.compress_to_buffer(plain, room).ok()?;
        Some(&self.buffer[..len])
    }
}

/// Decompresses to exactly `plain_len` bytes into `plain`, which is empty and has room for them; `None` if the payload is anything else.
/// Nothing is allocated.
pub(crate) fn decompress(payload: &[u8], plain_len: usize, mut plain: Vec<u8>) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::new().ok()?);
        }
        let decompressor = slot.as_mut()?;
        let len = decompressor
            .decompress_to_buffer(payload, &mut plain)
            .ok()?;
        (len == plain_len && plain.len() == plain_len).then_some(plain)
    })
}
