//! The bounded room for what writers preserve: bytes of memory, and descriptors of unlinked files.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A budget that is given out and comes back.
pub(crate) struct Buffer {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    used: usize,
    /// Counts everything that could let a waiting writer go on.
    events: u64,
}

/// A part of the budget; returns it when dropped.
pub(crate) struct Hold {
    buffer: Arc<Buffer>,
    amount: usize,
}

impl Buffer {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// A part of the budget; `None` if there is not that much left.
    pub(crate) fn hold(self: &Arc<Self>, amount: usize) -> Option<Hold> {
        let mut state = self.state.lock();
        if state.used.saturating_add(amount) > self.limit {
            return None;
        }
        state.used += amount;
        Some(self.given(amount))
    }

    fn given(self: &Arc<Self>, amount: usize) -> Hold {
        let buffer = Arc::clone(self);
        Hold { buffer, amount }
    }

    /// Something has changed that a waiting writer may look at: pages were taken, an epoch ended.
    pub(crate) fn nudge(&self) {
        self.state.lock().events += 1;
        self.changed.notify_all();
    }

    /// Events so far: look first, then check, then wait for a change since.
    pub(crate) fn events(&self) -> u64 {
        self.state.lock().events
    }

    /// Waits until something happened since `events`; false if `until` came first.
    pub(crate) fn wait(&self, events: u64, until: Instant) -> bool {
        let mut state = self.state.lock();
        while state.events == events {
            if self.changed.wait_until(&mut state, until).timed_out() {
                return state.events != events;
            }
        }
        true
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.state.lock().used
    }
}

impl Hold {
    /// Cuts off a part of it.
    pub(crate) fn split(&mut self, amount: usize) -> Self {
        debug_assert!(amount <= self.amount);
        self.amount -= amount;
        self.buffer.given(amount)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.buffer.state.lock();
        state.used -= self.amount;
        state.events += 1;
        drop(state);
        self.buffer.changed.notify_all();
    }
}
