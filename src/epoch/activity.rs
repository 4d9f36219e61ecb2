//! Whether programs use the mount at this moment, and whether anybody waits for what is done in the background: what that goes by.

use std::sync::atomic::{AtomicU64, Ordering};

/// Told by the mount and by who waits; looked at by the flusher.
#[derive(Debug, Default)]
pub struct Activity {
    requests: AtomicU64,
    waiting: AtomicU64,
}

/// Somebody waits, for as long as this is held.
#[derive(Debug)]
pub struct Hurry<'a>(&'a Activity);

impl Activity {
    /// A request is being answered; may be said several times of one. Costs it one addition.
    pub fn note(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that has been said: where this moves, programs are at work.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Somebody waits from now on.
    pub fn hurry(&self) -> Hurry<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Hurry(self)
    }

    /// Whether anybody waits.
    pub fn is_hurried(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
