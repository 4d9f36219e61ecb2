//! The one door through which time enters, so that tests can hold it still.
//!
//! Safety never depends on what a wall clock says; time is for people and for pacing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// RFC 3339 in UTC with milliseconds. A stamp beyond the calendar, which only a broken clock can write, becomes its end.
    pub fn to_rfc3339(self) -> String {
        let millis = i64::try_from(self.0).ok();
        millis
            .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
            .unwrap_or(jiff::Timestamp::MAX)
            .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
            .to_string()
    }
}

/// A time as file systems keep it: whole seconds (negative before 1970) and nanoseconds counted forward from them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Timespec {
    /// Seconds since 1970, rounded down.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// Where time is read.
pub trait Clock: Send + Sync {
    /// Now, by the wall clock.
    fn now(&self) -> Stamp;
    /// How long the machine has been running, asleep or awake. It goes on whatever the wall clock is set to.
    fn since_boot(&self) -> Duration;
}

/// The machine's own clock: `sys` reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock that stands still until it is told otherwise.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: AtomicU64,
    /// Milliseconds since a machine was started whose clock this is.
    running: AtomicU64,
}

impl ManualClock {
    /// Stands at `at`.
    pub fn new(at: Stamp) -> Self {
        Self {
            wall: AtomicU64::new(at.0),
            running: AtomicU64::new(0),
        }
    }

    /// The wall clock is set to `at`, forward or back: no time passes.
    pub fn set(&self, at: Stamp) {
        self.wall.store(at.0, Ordering::SeqCst);
    }

    /// Time passes, as for a machine that was asleep.
    pub fn pass(&self, time: Duration) {
        let millis = time.as_millis() as u64;
        self.wall.fetch_add(millis, Ordering::SeqCst);
        self.running.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Stamp {
        Stamp(self.wall.load(Ordering::SeqCst))
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.running.load(Ordering::SeqCst))
    }
}
