//! When the journal may forget an epoch: its commit is verified in the store *and* its bytes are safe on the source's disk.
//!
//! The second half needs a `syncfs` of the source begun after the epoch drained. Epochs are published and synced in
//! order, so two numbers say it all.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::failpoint::{self, Point};
use crate::flusher::Error;
use crate::id::{EpochNo, FileId, Seq};
use crate::journal::{Journal, WHOLE_FILE};

/// How far each condition holds.
pub(crate) struct Forgetting {
    journal: Arc<Journal>,
    upto: Mutex<Upto>,
}

/// Records on their way to the journal's disk. Whoever drops this waits for them as well.
pub(crate) struct Noting(Option<JoinHandle<()>>);

impl Noting {
    /// Returns when they are there.
    pub(crate) fn wait(mut self) -> Result<(), Error> {
        let joined = self.0.take().map_or(Ok(()), JoinHandle::join);
        joined.map_err(|_| Error::StageLost("journal"))
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        // A panic has been said aloud where it was.
        drop(self.0.take().map(JoinHandle::join));
    }
}

#[derive(Default)]
struct Upto {
    published: Option<EpochNo>,
    /// The newest commit among those.
    commit: Option<Seq>,
    synced: Option<EpochNo>,
    forgotten: Option<EpochNo>,
}

impl Forgetting {
    /// Nothing may be forgotten yet.
    pub(crate) fn new(journal: Arc<Journal>) -> Self {
        let upto = Mutex::default();
        Self { journal, upto }
    }

    /// A file that was made in `epoch` is being captured: until its bytes are safe on the source's disk, power may fail and leave
    /// it there with new times and old bytes. A journal that fails has said so to fsync and status, and no commit waits for it.
    pub(crate) fn owe(&self, id: FileId, epoch: EpochNo) {
        let _latched = self.journal.record(id, WHOLE_FILE, epoch);
    }

    /// Begins to bring to the journal's disk what was recorded before. A commit must not be found after a power cut without the records
    /// of what it holds: a file that came back with its new times and old bytes would look just like the commit. A journal that
    /// fails has said so, and no commit waits for it.
    pub(crate) fn make_durable(&self) -> Noting {
        let journal = Arc::clone(&self.journal);
        let sync = move || drop(journal.sync());
        let spawned = thread::Builder::new()
            .name("journal-sync".into())
            .spawn(sync.clone());
        if spawned.is_err() {
            sync();
        }
        Noting(spawned.ok())
    }

    /// A file is left out of commits, or held back as it was: what is forgotten of it is in none of them.
    pub(crate) fn left_out(&self) {
        if let Err(error) = self.journal.take_cover_back() {
            tracing::error!(%error, "the journal's word about its mount could not be taken back");
        }
    }

    /// All up to `epoch` are verified in the store, in commit `seq`.
    pub(crate) fn published(&self, epoch: EpochNo, seq: Seq) -> std::io::Result<()> {
        self.advance(|upto| {
            upto.published = upto.published.max(Some(epoch));
            upto.commit = upto.commit.max(Some(seq));
        })
    }

    /// A `syncfs` begun after `epoch` had drained has returned.
    pub(crate) fn synced(&self, epoch: EpochNo) -> std::io::Result<()> {
        self.advance(|upto| upto.synced = upto.synced.max(Some(epoch)))
    }

    fn advance(&self, change: impl FnOnce(&mut Upto)) -> std::io::Result<()> {
        let mut upto = self.upto.lock();
        change(&mut upto);
        let both = upto.published.min(upto.synced);
        if let Some(epoch) = both.filter(|_| both > upto.forgotten) {
            failpoint::reach(Point::Forget);
            if let Some(commit) = upto.commit {
                self.journal.raise_cover(commit)?;
            }
            self.journal.forget(epoch)?;
            upto.forgotten = both;
        }
        Ok(())
    }
}
