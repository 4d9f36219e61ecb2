//! A stretch of a file on its way through the chunker: read in at the back, cut off at the front, in one buffer that serves
//! file after file. Knows nothing of chunks.

use std::ops::Range;

use crate::flusher::capture::Reader;
use crate::flusher::error::Error;
use crate::id::FileId;

/// Room for a few reads, so that what is left of one is seldom moved to make room for the next.
const WINDOW_LEN: usize = 4 << 20;

/// Bytes that were read and not yet used.
#[derive(Default)]
pub(crate) struct Window {
    buffer: Vec<u8>,
    held: Range<usize>,
}

impl Window {
    /// What it holds.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.held.clone()]
    }

    /// Cuts `len` bytes off the front.
    pub(crate) fn advance(&mut self, len: usize) {
        self.held.start += len;
    }

    /// Forgets what it holds.
    pub(crate) fn clear(&mut self) {
        self.held = 0..0;
    }

    /// Reads `range` of a file in at the back. A file that ends before it was cut from outside the mount since its seal: it is
    /// never filled up with zeros, but an error, so that the epoch is folded and sealed again.
    pub(crate) fn read(
        &mut self,
        id: FileId,
        range: Range<u64>,
        reader: &dyn Reader,
    ) -> Result<(), Error> {
        let len = (range.end - range.start) as usize;
        let room = self.room(len);
        match reader.read(room, range.start)? == len {
            true => self.held.end += len,
            false => {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                return Err(Error::Source { id, source });
            }
        }
        Ok(())
    }

    /// The `len` bytes behind what it holds.
    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.held.end + len > self.buffer.len() {
            self.buffer.copy_within(self.held.clone(), 0);
            self.held = 0..self.held.len();
        }
        let needed = self.held.end + len;
        if needed > self.buffer.len() {
            self.buffer.resize(needed.max(WINDOW_LEN), 0);
        }
        &mut self.buffer[self.held.end..needed]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte `n` of the file is `n % 251`; it ends at 10 MiB.
    struct Pattern;

    impl Reader for Pattern {
        fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
            let len = buffer
                .len()
                .min((10u64 << 20).saturating_sub(offset) as usize);
            for (byte, at) in buffer[..len].iter_mut().zip(offset..) {
                *byte = (at % 251) as u8;
            }
            Ok(len)
        }

        fn skip_hole(&self, range: Range<u64>) -> Result<u64, Error> {
            Ok(range.start)
        }
    }

    #[test]
    fn what_goes_in_at_the_back_comes_out_at_the_front() {
        let mut window = Window::default();
        let (mut read, mut used) = (0u64, 0u64);
        while read < 10 << 20 {
            let end = (read + (700 << 10)).min(10 << 20);
            window.read(FileId(1), read..end, &Pattern).unwrap();
            read = end;
            let now = window.bytes().len() / 3;
            for (&byte, at) in window.bytes()[..now].iter().zip(used..) {
                assert_eq!(byte, (at % 251) as u8);
            }
            window.advance(now);
            used += now as u64;
        }
        assert_eq!(window.bytes().len() as u64, read - used);
        window.clear();
        assert!(window.bytes().is_empty());
    }

    #[test]
    fn a_file_that_ends_early_is_an_error_and_adds_nothing() {
        let mut window = Window::default();
        let end = 10u64 << 20;
        let error = window
            .read(FileId(7), end - 1..end + 1, &Pattern)
            .unwrap_err();
        assert!(matches!(error, Error::Source { id: FileId(7), .. }));
        assert!(window.bytes().is_empty());
    }
}
