//! Write-back begun early: when a file is written from end to end, its first part sets out for the disk while the next is written, so that
//! fsync finds little left to do.
//!
//! A program that writes through a mount waits while its bytes are copied twice more than they would be without, and the disk has nothing to
//! do meanwhile. The kernel by itself would let the disk wait until the program asks, or for half a minute. What is removed or written over within
//! that time was sent in vain, as was what had been captured of it.

use std::io;
use std::ops::Range;

use parking_lot::Mutex;

use super::handles::OpenFile;
use crate::sys;

/// What has been written in order before any of it sets out, and then each time. Less of it would leave the disk smaller pieces, and most files are
/// smaller.
const STEP: u64 = 8 << 20;
/// A page is sent when it is full: it would be sent again.
const PAGE_LEN: u64 = 4096;

/// Where a handle is written in order, what of that has not been sent on its way, and what went wrong with the rest.
#[derive(Debug, Default)]
pub(super) struct Run {
    pending: Range<u64>,
    lost: Option<io::Error>,
}

impl Run {
    /// Takes note of a write.
    pub(super) fn advance(&mut self, written: Range<u64>) {
        match written.start == self.pending.end {
            true => self.pending.end = written.end,
            false => self.pending = written,
        }
    }

    /// Whether bytes may be lost that an fsync of this handle would have lost, and said so. Once.
    pub(super) fn take_lost(&mut self) -> io::Result<()> {
        self.lost.take().map_or(Ok(()), Err)
    }

    fn is_due(&self) -> bool {
        self.pending.end - self.pending.start >= STEP
    }

    /// What is to set out now, once.
    fn take(&mut self) -> Option<Range<u64>> {
        if !self.is_due() {
            return None;
        }
        let end = self.pending.end / PAGE_LEN * PAGE_LEN;
        let due = self.pending.start..end;
        self.pending.start = end;
        Some(due)
    }
}

/// Sees to it that a disk with a full queue holds up one thread at most.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    turn: Mutex<()>,
}

impl WriteBack {
    /// Sends what is due of `open` on its way; while another thread does so for any file, it stays due.
    pub(super) fn begin(&self, open: &OpenFile) {
        if !open.run.lock().is_due() {
            return;
        }
        let Some(_turn) = self.turn.try_lock() else {
            return;
        };
        let Some(due) = open.run.lock().take() else {
            return;
        };
        match sys::begin_write_back(&open.file, &due) {
            Err(error) if sys::is_lost_write(&error) => open.run.lock().lost = Some(error),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_written_in_order_sets_out_once() {
        let mut run = Run::default();
        let mut due = Vec::new();
        for at in 0..33 {
            run.advance(at * MIB..(at + 1) * MIB);
            due.extend(run.take());
        }
        let expected: Vec<_> = (0..4).map(|n| n * STEP..(n + 1) * STEP).collect();
        assert_eq!(due, expected);
        // Not the page that is being filled.
        run.advance(33 * MIB..41 * MIB + 77);
        assert_eq!(run.take(), Some(4 * STEP..41 * MIB));
        run.advance(41 * MIB + 77..49 * MIB);
        assert_eq!(run.take(), Some(41 * MIB..49 * MIB));
    }

    #[test]
    fn what_is_written_here_and_there_does_not() {
        let mut run = Run::default();
        for at in (0..100).rev() {
            run.advance(at * MIB..(at + 1) * MIB);
            assert_eq!(run.take(), None);
        }
        // One request is never that long, but then it would be.
        run.advance(0..2 * STEP);
        assert_eq!(run.take(), Some(0..2 * STEP));
    }

    #[test]
    fn what_was_lost_on_its_way_is_told_once() {
        let mut run = Run::default();
        assert!(run.take_lost().is_ok());
        run.lost = Some(io::ErrorKind::StorageFull.into());
        assert!(run.take_lost().is_err());
        assert!(run.take_lost().is_ok());
    }
}
