//! How long one request is kept by preserving: from when it finds that something of the sealed epoch is needed until it may go on,
//! be that with the old bytes read or, where there was no room for them, with the epoch folded or the flusher waited for.

use std::time::Instant;

use crate::metrics::Durations;

/// The delay of one request; noted when dropped, if there was any.
pub(super) struct Delay<'a> {
    durations: &'a Durations,
    began: Option<Instant>,
}

impl<'a> Delay<'a> {
    /// None so far.
    pub(super) fn none(durations: &'a Durations) -> Self {
        Self {
            durations,
            began: None,
        }
    }

    /// Something is needed. The first time counts.
    pub(super) fn begin(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }
}

impl Drop for Delay<'_> {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            self.durations.note(began.elapsed());
        }
    }
}
