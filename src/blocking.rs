//! Work that waits for a disk, wanted by code that must not wait: a runtime needs its threads for others.
//!
//! Handing work to another thread and taking the answer back are two wake-ups, tens of microseconds each, more than it takes to read a page
//! that the system has in memory. So whoever drives a future on a thread that may wait says so ([`where_waiting_is_fine`]; a FUSE
//! loop thread does), and [`run`] then does the work there and then.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Puts back what was so before, also when a panic passes.
struct Before(bool);

impl Drop for Before {
    fn drop(&mut self) {
        MAY_WAIT.set(self.0);
    }
}

/// Does `drive`, in which futures are polled on a thread that nobody else needs meanwhile.
pub fn where_waiting_is_fine<T>(drive: impl FnOnce() -> T) -> T {
    let _before = Before(MAY_WAIT.replace(true));
    drive()
}

/// What comes out of `work`: done on this thread where it may wait, else on one of the runtime's threads for such. `None` if it
/// panicked, or the runtime has ended.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match MAY_WAIT.get() {
        true => catch_unwind(AssertUnwindSafe(work)).ok(),
        false => tokio::task::spawn_blocking(work).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn it_is_done_here_only_where_waiting_is_fine() {
        let here = thread::current().id();
        let elsewhere = run(|| thread::current().id()).await;
        assert!(elsewhere.is_some_and(|id| id != here));
        let at_once = where_waiting_is_fine(|| run(|| thread::current().id()).now_or_never());
        assert_eq!(at_once, Some(Some(here)));
        let panicked = where_waiting_is_fine(|| run(|| panic!("a bug")).now_or_never());
        assert_eq!(panicked, Some(None::<()>));
        let after = run(|| thread::current().id()).await;
        assert!(after.is_some_and(|id| id != here));
    }

    #[tokio::test]
    async fn a_panic_leaves_no_leave_to_wait() {
        let panicked = std::panic::catch_unwind(|| where_waiting_is_fine(|| panic!("a bug")));
        assert!(panicked.is_err());
        assert!(!MAY_WAIT.get());
    }
}
