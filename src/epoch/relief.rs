//! When the open change set becomes too large for memory: first its page bitmaps become whole logical blocks, and if that is not
//! enough it is dropped, and a scan of everything is owed. Coarser, slower, and always correct.
//!
//! It comes to this only while no epoch can be sealed for long: the store is gone for a week, or the spool is full.
//! A request that is under way while the set is dropped says what it changes once more when it is done ([`super::Guard`]), so that
//! the scan, which may have gone by in between, misses nothing.

use std::sync::atomic::Ordering;

use crate::epoch::Epochs;
use crate::epoch::seal::parity;
use crate::id::EpochNo;

/// How often the open change set had been dropped when something was taken of it. What was copied ahead before a drop says nothing
/// after it: what has changed since, and would hide it, is not known any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drops(u64);

/// What a scan may have found before it waits, in bytes of memory: about 60,000 new files with their names. It takes three times as much
/// again to capture them, and the next of them are found meanwhile.
const SCAN_BYTES: u64 = 22 << 20;

impl Epochs {
    /// After a change was recorded in `epoch`, which the caller has pinned.
    pub(super) fn relieve(&self, epoch: EpochNo) {
        let set = &self.sets[parity(epoch)];
        let memory = set.memory();
        if memory <= self.changes_bytes / 2 || (memory <= self.changes_bytes && set.is_coarse()) {
            return;
        }
        // A sealed set must stay as it is. Whoever seals just now is not waited for: the next request comes by here too.
        let Some(_sealing) = self.sealing.try_lock() else {
            return;
        };
        if self.current() != epoch {
            return;
        }
        if !set.is_coarse() {
            set.coarsen();
        }
        if set.memory() > self.changes_bytes {
            set.forget();
            self.drops.fetch_add(1, Ordering::SeqCst);
            // At last: a scan that pays for it may begin at once, and what it marks must stay.
            self.owe_everything(epoch, "more has changed than can be kept in memory");
        }
    }

    /// How often it has come to that. Stands still while the caller holds the lock that seals take.
    pub(super) fn drops(&self) -> Drops {
        Drops(self.drops.load(Ordering::SeqCst))
    }

    /// Whether so much has changed that anything more only brings the set nearer to being dropped.
    pub fn is_crowded(&self) -> bool {
        self.set(self.current()).memory() > self.changes_bytes / 4 * 3
    }

    /// Whether a scan should wait until what it has found is sealed, and the flusher should seal it. What the last seal has put off because
    /// the scan had not looked at it does not count: no seal takes it before.
    pub fn is_enough_for_a_scan(&self) -> bool {
        let memory = self.set(self.current()).memory();
        let found = memory.saturating_sub(self.put_off.load(Ordering::Relaxed));
        found > SCAN_BYTES.min(self.changes_bytes / 4 * 3)
    }
}
