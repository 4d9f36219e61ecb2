//! Write-back begun early: when a file is written from end to end, its first part sets out for the disk while the next is written, so that
//! fsync finds little left to do.
//!
//! A program that writes through a mount waits while its bytes are copied once more than they would be without, and the disk has nothing to do
//! meanwhile. The kernel by itself would let it wait until the program asks, or for half a minute. Nothing is written to the disk in vain but what is
//! removed within seconds: before each commit the source's file system is synced.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::handles::OpenFile;
use crate::sys;

/// What has been written in order before any of it sets out, and then each time. Less of it would leave the disk smaller pieces, and most files are
/// smaller.
const STEP: u64 = 8 << 20;

/// Where a handle is written in order, and what of that has not been sent on its way.
#[derive(Debug, Default)]
pub(super) struct Run {
    pending: Range<u64>,
}

impl Run {
    /// Takes note of a write.
    pub(super) fn advance(&mut self, written: Range<u64>) {
        match written.start == self.pending.end {
            true => self.pending.end = written.end,
            false => self.pending = written,
        }
    }

    /// What is to set out now, once.
    fn take(&mut self) -> Option<Range<u64>> {
        let pending = self.pending.clone();
        let is_enough = pending.end - pending.start >= STEP;
        is_enough.then(|| {
            self.pending.start = pending.end;
            pending
        })
    }
}

/// Sees to it that a disk with a full queue holds up one thread at most.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    is_busy: AtomicBool,
}

impl WriteBack {
    /// Sends what is due of `open` on its way; while another thread is doing so for any file, it stays due.
    pub(super) fn begin_best_effort(&self, open: &OpenFile) {
        if self.is_busy.swap(true, Ordering::Acquire) {
            return;
        }
        let due = open.run.lock().take();
        if let Some(due) = due {
            // Whatever fails here is said by fsync.
            let _ = sys::begin_write_back(&open.file, &due);
        }
        self.is_busy.store(false, Ordering::Release);
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
    }

    #[test]
    fn what_is_written_here_and_there_does_not() {
        let mut run = Run::default();
        for at in (0..100).rev() {
            run.advance(at * MIB..(at + 1) * MIB);
            assert_eq!(run.take(), None);
        }
        // One request is never that long, but then it would be.
        run.advance(0..STEP);
        assert_eq!(run.take(), Some(0..STEP));
    }
}
