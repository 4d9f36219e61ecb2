//! The epoch number and the pins of the requests in flight: what makes a seal an instant that nobody waits for.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::id::EpochNo;

/// The number of the open epoch, and how many requests are at work in it and in the one before.
pub(crate) struct Pins {
    epoch: AtomicU64,
    /// By the parity of the epoch: two are enough, since an epoch is sealed only when the one before is finished.
    in_flight: [AtomicU64; 2],
    drained: Condvar,
    lock: Mutex<()>,
}

/// A request at work in an epoch. While it lives, that epoch's change set is not final.
pub(crate) struct Pin<'a> {
    pins: &'a Pins,
    epoch: EpochNo,
}

impl Pins {
    /// Epoch 1 is open.
    pub(crate) fn new() -> Self {
        Self {
            epoch: AtomicU64::new(1),
            in_flight: [AtomicU64::new(0), AtomicU64::new(0)],
            drained: Condvar::new(),
            lock: Mutex::new(()),
        }
    }

    /// The open epoch.
    pub(crate) fn current(&self) -> EpochNo {
        EpochNo(self.epoch.load(Ordering::SeqCst))
    }

    /// Joins the open epoch. The caller holds the locks of all inodes that it will change.
    pub(crate) fn pin(&self) -> Pin<'_> {
        loop {
            let epoch = self.current();
            let pin = self.join(epoch);
            // A seal in between may already have seen nobody in flight: then this request belongs to the next epoch.
            if self.current() == epoch {
                return pin;
            }
        }
    }

    fn join(&self, epoch: EpochNo) -> Pin<'_> {
        self.in_flight[parity(epoch)].fetch_add(1, Ordering::SeqCst);
        Pin { pins: self, epoch }
    }

    /// Opens the next epoch. From here on new requests belong to it.
    pub(crate) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until no request of `epoch`, which must not be the open one, is at work.
    pub(crate) fn wait_drained(&self, epoch: EpochNo) {
        let mut lock = self.lock.lock();
        while self.in_flight[parity(epoch)].load(Ordering::SeqCst) != 0 {
            self.drained.wait(&mut lock);
        }
    }
}

impl Pin<'_> {
    /// The epoch that the request belongs to.
    pub(crate) fn epoch(&self) -> EpochNo {
        self.epoch
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let left = self.pins.in_flight[parity(self.epoch)].fetch_sub(1, Ordering::SeqCst) - 1;
        // Either this sees the advanced number, or the sealer (who advances first) sees the count at zero.
        if left == 0 && self.pins.current() != self.epoch {
            let _lock = self.pins.lock.lock();
            self.pins.drained.notify_all();
        }
    }
}

/// Which half of a pair belongs to an epoch.
pub(crate) fn parity(epoch: EpochNo) -> usize {
    (epoch.0 % 2) as usize
}
