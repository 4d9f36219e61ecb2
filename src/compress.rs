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
/// From this length in bytes on a payload is sampled first: most of what is long is media and archives, which do not shrink, and finding
/// that out by compressing all of it took a tenth of the CPU time of a first backup. The price: what would shrink by a few parts in a hundred, or
/// only because it repeats itself far apart, stays plain.
const SAMPLED_LEN_MIN: usize = 256 << 10;
/// Samples, spread evenly. One that shrinks is enough for all to be compressed.
const SAMPLES: usize = 8;
const SAMPLE_LEN: usize = 8 << 10;

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
/// saves too little.
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
    /// `None` where that saves too little, as far as samples of a long payload tell.
    fn compress(&mut self, plain: &[u8]) -> Option<&[u8]> {
        let mut samples = plain.chunks_exact((plain.len() / SAMPLES).max(SAMPLE_LEN));
        let is_short = plain.len() < SAMPLED_LEN_MIN;
        let shrinks = |sample: &[u8]| self.shrink(&sample[..SAMPLE_LEN]).is_some();
        if !(is_short || samples.any(shrinks)) {
            return None;
        }
        let len = self.shrink(plain)?;
        Some(&self.buffer[..len])
    }

    /// Length of what `plain` was compressed to, in the buffer. `None` also if zstd fails: an uncompressed payload is always right.
    fn shrink(&mut self, plain: &[u8]) -> Option<usize> {
        let room = plain.len() - plain.len().div_ceil(SAVING_MIN);
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let room = &mut self.buffer[..room];
        self.compressor.compress_to_buffer(plain, room).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn packed(plain: &[u8]) -> Option<Vec<u8>> {
        let front = 28;
        let mut buffer = [&vec![7; front], plain].concat();
        let shrank = in_place(&mut buffer, front, Compression::default());
        assert_eq!(buffer[..front], vec![7; front]);
        let payload = buffer.split_off(front);
        match shrank {
            true => Some(payload),
            false => {
                assert_eq!(payload, plain);
                None
            }
        }
    }

    #[test]
    fn what_does_not_shrink_stays_as_it_is_and_what_does_comes_back() {
        for len in [0, 1, 1000, SAMPLED_LEN_MIN - 1, SAMPLED_LEN_MIN, 1 << 20] {
            assert_eq!(packed(&noise(len)), None, "{len}");
        }
        for len in [
            1000,
            SAMPLED_LEN_MIN - 1,
            SAMPLED_LEN_MIN,
            SAMPLED_LEN_MIN + 1,
            1 << 20,
        ] {
            let plain = b"as it was in the beginning ".repeat(len / 27 + 1)[..len].to_vec();
            let payload = packed(&plain).unwrap();
            assert!(payload.len() < len / 4, "{len}");
            let back = decompress(&payload, len, Vec::with_capacity(len));
            assert_eq!(back, Some(plain), "{len}");
        }
    }

    #[test]
    fn what_shrinks_between_two_samples_alone_stays_plain() {
        let len = SAMPLED_LEN_MIN;
        let mut plain = noise(len);
        plain[SAMPLE_LEN..len / SAMPLES].fill(0);
        assert_eq!(packed(&plain), None);
        assert!(
            packed(&plain[..len - 1]).is_some(),
            "too short to be sampled"
        );
    }

    /// Wherever it lies, if it is as long as what lies between two samples.
    #[test]
    fn an_eighth_that_shrinks_is_found_among_noise() {
        for len in [SAMPLED_LEN_MIN, SAMPLED_LEN_MIN + 5, 1 << 20] {
            let part = len / SAMPLES + SAMPLE_LEN;
            for at in (0..len - part).step_by(len / 16) {
                let mut plain = noise(len);
                plain[at..at + part].fill(0);
                let payload = packed(&plain).expect("it shrinks");
                assert!(payload.len() < len - len / 10, "{len} {at}");
                let back = decompress(&payload, len, Vec::with_capacity(len));
                assert_eq!(back, Some(plain), "{len} {at}");
            }
        }
    }
}
