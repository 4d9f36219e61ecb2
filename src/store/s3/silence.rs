//! How long a connection may be silent before it is given up: before the answer, and within a body in either direction.
//!
//! There is no limit of time for a whole body: a slow line is no broken one, nor is one that we hold back ourselves to keep to a limit
//! ([`crate::store::pace`]). What counts is whether anything moves. Used by `line.rs`, which carries each request.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an answer may take whatever the request's size: name look-up, connecting, a slow server.
const ANSWER: Duration = Duration::from_secs(10);
/// How much of a body may lie in buffers between us and the server (Linux lets a socket grow to 4 MiB), moving without our seeing it.
const BUFFERED_MAX: u64 = 4 << 20;
/// The slowest that it moves there, bytes a second. A slower line has smaller buffers: what lies in them comes from what it has taken.
const SLOWEST: u64 = 100_000;
/// How long the next step of an answer's body may take.
const NEXT_STEP: Duration = Duration::from_secs(20);

/// The limits of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    /// Between two steps of the request's body, and from the last one to the answer.
    pub(super) asking: Duration,
    /// Between two steps of the answer's body.
    pub(super) answering: Duration,
}

impl Limits {
    /// What a request may take that sends `len` bytes.
    pub(super) fn for_body(len: u64) -> Self {
        let in_buffers = len.min(BUFFERED_MAX);
        Self {
            asking: ANSWER + Duration::from_millis(in_buffers * 1000 / SLOWEST),
            answering: NEXT_STEP,
        }
    }
}

/// Nothing has moved for too long.
#[derive(Debug)]
pub(super) struct Silence(pub(super) Duration);

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {} s", self.0.as_secs_f64().ceil())
    }
}

impl std::error::Error for Silence {}

/// When something has moved last.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Instant,
    /// We ourselves keep it from moving.
    held: bool,
}

impl Activity {
    /// It moves now.
    pub(super) fn now() -> Self {
        Self {
            state: Mutex::new(State {
                last: Instant::now(),
                held: false,
            }),
        }
    }

    /// Something has moved.
    pub(super) fn moved(&self) {
        let mut state = self.state.lock();
        (state.last, state.held) = (Instant::now(), false);
    }

    /// Nothing moves until [`Activity::moved`] says so, and that is right.
    pub(super) fn held(&self) {
        self.state.lock().held = true;
    }

    /// Returns when nothing has moved for `limit`.
    pub(super) async fn silent(&self, limit: Duration) -> Silence {
        loop {
            // Looked at once: what is held back is not silent, however long this thread takes from here on.
            let now = Instant::now();
            let until = {
                let state = self.state.lock();
                match state.held {
                    true => now + limit,
                    false => state.last + limit,
                }
            };
            if until <= now {
                return Silence(limit);
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_buffers_has_time_to_travel_and_no_more() {
        assert_eq!(Limits::for_body(0).asking, ANSWER);
        let small = Limits::for_body(SLOWEST).asking;
        assert_eq!(small, ANSWER + Duration::from_secs(1));
        let block = Limits::for_body(64 << 20).asking;
        assert_eq!(block, Limits::for_body(u64::MAX).asking);
        assert!(block < Duration::from_secs(120), "{block:?}");
    }

    #[tokio::test]
    async fn silence_is_noticed_unless_we_hold_it_back_ourselves() {
        let limit = Duration::from_millis(20);
        let activity = Activity::now();
        assert_eq!(activity.silent(limit).await.0, limit);
        activity.held();
        let waited = tokio::time::timeout(limit * 10, activity.silent(limit)).await;
        assert!(waited.is_err(), "held back");
        activity.moved();
        activity.silent(limit).await;
    }
}
