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
        let worked = self.begun.get().elapsed();
        if self.activity.is_none() || worked < WORK_MIN {
            return;
        }
        if let Some(rest) = self.after(worked) {
            thread::sleep(rest);
        }
        self.requests.set(self.requests_so_far());
        self.begun.set(Instant::now());
    }

    /// How long to rest after work of that length; `None` if there is no reason to.
    fn after(&self, worked: Duration) -> Option<Duration> {
        let activity = self.activity?;
        let are_at_work = self.requests_so_far() != self.requests.get();
        (are_at_work && !activity.is_hurried()).then(|| (worked * REST).min(REST_MAX))
    }

    fn requests_so_far(&self) -> u64 {
        self.activity.map_or(0, Activity::requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_where_programs_are_at_work_and_nobody_waits() {
        let activity = Activity::default();
        let rests = |gives_way, requests| {
            let rest = Rest::new(&activity, gives_way);
            (0..requests).for_each(|_| activity.note());
            rest.after(WORK_MIN)
        };
        assert_eq!(rests(true, 1), Some(WORK_MIN * REST));
        assert_eq!(rests(true, 0), None);
        assert_eq!(rests(false, 1), None);
        let hurry = activity.hurry();
        assert_eq!(rests(true, 1), None);
        drop(hurry);
        assert_eq!(rests(true, 1), Some(WORK_MIN * REST));
        let rest = Rest::new(&activity, true);
        activity.note();
        assert_eq!(rest.after(REST_MAX), Some(REST_MAX));
        rest.begun.set(rest.begun.get() - WORK_MIN);
        rest.take();
        assert_eq!(rest.after(REST_MAX), None, "it has rested for that");
    }
}
