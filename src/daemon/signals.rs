//! SIGTERM and SIGINT: the first asks for an orderly stop, the second ends the process at once.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Error;
use crate::fuse::session::Session;

/// Both signals, caught from the moment this is made.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to catch them. Must be called within a runtime.
    pub fn catch() -> Result<Self, Error> {
        let catch = |kind| signal(kind).map_err(Error::io("catch", "signals"));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// Waits for the next of them: [`Error::Interrupted`] or [`Error::Terminated`].
    pub async fn next(&mut self) -> Error {
        tokio::select! {
            _ = self.interrupt.recv() => Error::Interrupted,
            _ = self.terminate.recv() => Error::Terminated,
        }
    }
}

/// Waits until the mount is gone, by whomever; or until a signal asks for it, which is then returned.
pub async fn until_unmounted(session: &Arc<Session>, signals: &mut Signals) -> Option<Error> {
    let waiting = session.clone();
    tokio::select! {
        // A panic of the waiting thread means the same: there is nothing left to wait for.
        _ = tokio::task::spawn_blocking(move || waiting.wait()) => None,
        signal = signals.next() => Some(signal),
    }
}
