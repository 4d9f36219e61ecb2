//! Whether programs use the mount at this moment, and whether anybody waits for what is done in the background: what that goes by.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Told by the mount and by who waits; looked at by the flusher.
#[derive(Debug, Default)]
pub struct Activity {
    requests: AtomicU64,
    hurried: AtomicBool,
}

impl Activity {
    /// A request is being answered. Costs it one addition.
    pub fn note(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there have been.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Somebody waits.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Nobody waits any more.
    pub fn take_time(&self) {
        self.hurried.store(false, Ordering::Relaxed);
    }

    /// Whether somebody waits.
    pub fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Relaxed)
    }
}
