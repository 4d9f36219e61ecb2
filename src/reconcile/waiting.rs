//! Waiting for the repository on a thread that somebody may want back: a store that hangs holds up neither the end of a mount nor a
//! shutdown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle as Runtime;

use crate::reconcile::Error;
use crate::repo;

/// How often it is looked whether the thread is wanted back: soon enough for a person, and no work beside a request.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How a scan waits. Outside of the runtime.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    /// Where what is waited for runs.
    pub runtime: &'a Runtime,
    /// Set when there is no use in it any more.
    pub stop: &'a AtomicBool,
}

impl Waiting<'_> {
    /// What the repository answers; [`Error::Stopped`] soon after the scan was asked to stop.
    pub(super) fn wait_for<T>(
        self,
        answer: impl Future<Output = Result<T, repo::Error>>,
    ) -> Result<T, Error> {
        let answer = self.unless_stopped(answer).ok_or(Error::Stopped)?;
        Ok(answer?)
    }

    /// What comes out of `work`; `None` soon after there was no use in it any more.
    pub fn unless_stopped<T>(self, work: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => return Some(done),
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        if self.stop.load(Ordering::Relaxed) {
                            return None;
                        }
                    }
                }
            }
        })
    }
}
