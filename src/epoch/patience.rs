//! How long a writer waits for the flusher: a little before an epoch is folded, somewhat longer when that has happened too often
//! in a row, and never for ever.
//!
//! After [`super::fold`]'s limit a writer waits for its own pages, so that a commit is made at last. But the flusher may itself wait,
//! for a store that is gone; whoever waits for it then waits for the store. So a flusher that takes nothing for a while is not
//! waited for any longer, nor one that takes other things without end: the epoch is folded once more.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::epoch::Epochs;

/// The longest that a request waits for room before the sealed epoch is folded.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// A flusher that has taken nothing for this long waits for something else than the source's disk.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(1);
/// The longest that a request waits for its own pages, however busy the flusher is with others: at the speed of a disk that is
/// gigabytes.
pub(super) const OWN_PAGES_WAIT_MAX: Duration = Duration::from_secs(10);

/// The patience of one request.
pub(super) struct Patience {
    began: Instant,
    /// What the flusher had taken when it was last seen to move, and when that was.
    taken: u64,
    moved: Instant,
}

impl Patience {
    /// Begins to wait.
    pub(super) fn begin(epochs: &Epochs) -> Self {
        // Before the clock: what is taken in between counts as moving later.
        let taken = epochs.tally.taken.load(Ordering::Relaxed);
        let now = Instant::now();
        Self {
            began: now,
            taken,
            moved: now,
        }
    }

    /// When the first patience ends, after which the sealed epoch is folded where that is allowed.
    pub(super) fn until(&self) -> Instant {
        self.began + PATIENCE
    }

    /// Whether waiting on could be waiting for the store.
    pub(super) fn is_spent(&mut self, epochs: &Epochs) -> bool {
        // The clock first: a writer that was kept from running here has not seen the flusher stand still meanwhile.
        let now = Instant::now();
        let taken = epochs.tally.taken.load(Ordering::Relaxed);
        if taken != self.taken {
            self.taken = taken;
            self.moved = Instant::now();
        }
        let still = now.saturating_duration_since(self.moved);
        still >= STALLED_AFTER || now - self.began >= OWN_PAGES_WAIT_MAX
    }
}
