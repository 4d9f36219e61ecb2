//! The one place of these tests where time passes: for the process to come to a random instant, and while something is waited for
//! that only another process's files or answers tell. Never in place of such an answer.

use std::time::{Duration, Instant};

/// How often it is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Goes on after so long: what is to be met at a random instant is met then.
pub(crate) fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// Looks until `found` gives something, for so long at most.
pub(crate) fn within<T>(patience: Duration, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + patience;
    loop {
        match found() {
            None if Instant::now() < until => let_pass(LOOK_EVERY),
            found => return found,
        }
    }
}
