//! The journal made durable once a second, so that a kill or a power cut forgets no more than that of its records. Those that something
//! depends on do not wait for this (`epoch/intent.rs`, fsync). Costs nothing while nothing is owed.
//!
//! On a thread of its own, since the disk may take its time. Started and stopped by `writing.rs`, before the journal is closed.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::journal::Journal;

/// What may be lost of unsynced records. Shorter costs writers more waiting for the disk, longer makes scans after a crash miss more.
const INTERVAL: Duration = Duration::from_secs(1);

/// The running thread. Dropping this ends it, after the write that is under way.
pub(super) struct Spilling {
    /// Never sent on: its end is the sign.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Spilling {
    /// Starts it. `told` hears how each attempt went; after a failure there is no other, since the journal refuses from then on.
    pub(super) fn start(
        journal: Arc<Journal>,
        told: impl Fn(&io::Result<()>) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    let synced = journal.sync();
                    told(&synced);
                    if synced.is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Spilling {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that syncs the journal panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EpochNo, FileId};

    #[test]
    fn what_nobody_syncs_becomes_durable_within_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::open(dir.path()).unwrap().0);
        journal.record(FileId(5), 0, EpochNo(1)).unwrap();
        assert!(journal.owes(FileId(5)));
        let (tell, told) = mpsc::channel();
        let spilling = Spilling::start(journal.clone(), move |synced| {
            let _ = tell.send(synced.is_ok());
        })
        .unwrap();
        assert_eq!(told.recv(), Ok(true));
        assert!(!journal.owes(FileId(5)));
        drop(spilling);
        // It may have synced once more before that.
        while told.try_recv().is_ok() {}
        let gone = Err(mpsc::TryRecvError::Disconnected);
        assert_eq!(told.try_recv(), gone, "the thread is gone");
    }
}
