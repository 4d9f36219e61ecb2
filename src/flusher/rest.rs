//! A first backup has as much to read as there is, and programs go on meanwhile: they come first. Whoever reads for it rests after each
//! piece of work during which the mount had requests to answer, four times as long as that took, so that a fifth of the machine and of its disk
//! is left to it at most. Nobody rests while somebody waits for the end.
//!
//! Only where it copies ahead, so that no request waits for what rests here; only before there is an exact moment, since later on what
//! programs write is captured as fast as they write it, or moments would grow coarser; and not where programs write faster than this
//! copies.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use crate::epoch::Activity;

/// Shorter work is not looked at by itself: a pause takes at least so long anyway.
const WORK_MIN: Duration = Duration::from_millis(2);
/// How long it rests, as a multiple of the work before.
const REST: u32 = 4;
/// The longest rest: what took longer than a quarter of it had to wait itself, for the disk most likely.
const REST_MAX: Duration = Duration::from_millis(200);

/// The rests of one run.
pub(crate) struct Rest<'a> {
    /// Absent where there are none.
    activity: Option<&'a Activity>,
    begun: Cell<Instant>,
    requests: Cell<u64>,
}

impl<'a> Rest<'a> {
    /// Of a run that begins now and is to give way to programs, if `gives_way`.
    pub(crate) fn new(activity: &'a Activity, gives_way: bool) -> Self {
        Self {
            activity: gives_way.then_some(activity),
            begun: Cell::new(Instant::now()),
            requests: Cell::new(activity.requests()),
        }
    }

    /// Whether there are any.
    pub(crate) fn is_wanted(&self) -> bool {
        self.activity.is_some()
    }

    /// Rests, if it is time to.
    pub(crate) fn take(&self) {
        let Some(activity) = self.activity else {
            return;
        };
        let worked = self.begun.get().elapsed();
        if worked < WORK_MIN {
            return;
        }
        if activity.requests() != self.requests.get() && !activity.is_hurried() {
            thread::sleep((worked * REST).min(REST_MAX));
        }
        self.requests.set(activity.requests());
        self.begun.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rests(activity: &Activity, gives_way: bool, requests: u64) -> bool {
        let rest = Rest::new(activity, gives_way);
        let worked = WORK_MIN * 10;
        let ago = Instant::now().checked_sub(worked).unwrap();
        rest.begun.set(ago);
        (0..requests).for_each(|_| activity.note());
        rest.take();
        ago.elapsed() >= worked * (1 + REST)
    }

    #[test]
    fn it_rests_where_programs_are_at_work_and_nobody_waits() {
        let activity = Activity::default();
        assert!(rests(&activity, true, 1));
        assert!(!rests(&activity, true, 0));
        assert!(!rests(&activity, false, 1));
        let hurry = activity.hurry();
        assert!(!rests(&activity, true, 1));
        drop(hurry);
        assert!(rests(&activity, true, 1));
    }
}
