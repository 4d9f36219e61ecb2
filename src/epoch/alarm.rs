//! Wakes the flusher when the open epoch has grown enough. Costs a writer one load while nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Nobody waits.
const NEVER: u64 = u64::MAX;

/// What the flusher sleeps on.
pub(crate) struct Alarm {
    /// Ring when this many dirty bytes are reached.
    at_bytes: AtomicU64,
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        Self {
            at_bytes: AtomicU64::new(NEVER),
            rung: Mutex::new(false),
            ring: Condvar::new(),
        }
    }

    /// A change was recorded; the open epoch now holds `bytes` dirty ones.
    pub(crate) fn changed(&self, bytes: u64) {
        let at = self.at_bytes.load(Ordering::SeqCst);
        if at != NEVER && bytes >= at && self.at_bytes.swap(NEVER, Ordering::SeqCst) != NEVER {
            self.wake();
        }
    }

    /// Ends a sleep, whatever it waits for; one that begins later is ended at once.
    pub(crate) fn wake(&self) {
        *self.rung.lock() = true;
        self.ring.notify_all();
    }

    /// Sleeps until [`Self::changed`] is told of `bytes`, `already` says so, somebody wakes it, or time is up.
    pub(crate) fn sleep(&self, bytes: u64, timeout: Duration, already: impl Fn() -> bool) {
        let until = Instant::now() + timeout;
        self.at_bytes.store(bytes, Ordering::SeqCst);
        if !already() {
            let mut rung = self.rung.lock();
            while !*rung && !self.ring.wait_until(&mut rung, until).timed_out() {}
        }
        self.at_bytes.store(NEVER, Ordering::SeqCst);
        *self.rung.lock() = false;
    }
}
