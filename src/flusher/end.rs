//! The end of a flusher: what is left is sealed as far as the spool has room for it, uploaded for as long as somebody is willing to wait,
//! and the volume is let go of. Whatever stays behind lies in the spool, or is owed by the journal to the next life.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::epoch::ChangeSize;
use crate::flusher::error::Error;
use crate::flusher::flow::{Flow, TICK, mark, reaches};
use crate::flusher::handle::Stopped;
use crate::flusher::progress::Who;

/// Seals tried: with nobody writing any more the first succeeds; each of the others needs another fold. Those that leave out another file
/// are not counted for [`LEAVE_OUT_MAX`].
const LAST_SEALS: usize = 5;
/// A disk that cannot be read may take long to say so for each file.
const LEAVE_OUT_MAX: Duration = Duration::from_secs(30);
/// The longest that somebody who does not wait for the store waits until it has taken the lease back.
const RELEASE_MAX: Duration = Duration::from_secs(5);

impl Flow {
    /// Seals what is left, uploads for as long as `patience` lasts, and stops.
    pub(super) fn end(
        mut self,
        patience: Duration,
        reply: Option<oneshot::Sender<Stopped>>,
        uploading: JoinHandle<()>,
    ) {
        let deadline = Instant::now() + patience;
        self.wait_for_room(deadline);
        let mut tries = LAST_SEALS;
        let leave_out_until = deadline.max(Instant::now() + LEAVE_OUT_MAX);
        while tries > 0 {
            let size = self.epochs.open_size();
            let open = size != ChangeSize::default();
            let owed = open || !self.waiters.is_empty();
            // Never more than the spool has room for: the journal owes the rest.
            let spool = self.spool.used_bytes().saturating_add(size.bytes);
            self.copying = spool > self.options.spool_bytes;
            let may = self.has_room() && !self.progress.is_fenced() && !self.would_spoil();
            if !owed || !may {
                break;
            }
            let sealed = self.seal();
            let done = sealed.is_ok();
            let store_fails = matches!(sealed, Err(Error::Repository(_)));
            let is_mended = self.settle(sealed);
            tries -= usize::from(!is_mended || Instant::now() >= leave_out_until);
            // What was left out stays open, however often it is tried; and a store that does not answer takes its time each time.
            if (done && self.inexact) || store_fails {
                break;
            }
        }
        let captured = self.epochs.open_size() == ChangeSize::default();
        let published = self.wait_published(deadline);
        if let Some(epoch) = self.last_epoch {
            let synced = self
                .source
                .sync_filesystem()
                .and_then(|()| self.forgetting.synced(epoch));
            if let Err(error) = synced {
                let message = format!("syncfs of the source: {error}");
                self.progress.failed(Who::Source, message, self.clock.now());
            }
        }
        self.stop.send_replace(true);
        if let Err(error) = self.runtime.block_on(uploading) {
            self.progress
                .failed(Who::Uploader, error.to_string(), self.clock.now());
        }
        if published && captured {
            self.release_lease_best_effort(patience.max(RELEASE_MAX));
        }
        self.progress.stop("the mount is being stopped", false);
        let folds = self.epochs.counters().folds;
        let status = self.progress.status(
            self.clock.now(),
            self.epochs.open_size(),
            self.spool.used_bytes(),
            folds,
        );
        let stopped = Stopped {
            published: published && captured,
            captured,
            status,
        };
        // Whoever waits may open the same source and journal at once: nothing of them may be in hand here any more.
        drop(self);
        if let Some(reply) = reply {
            // Nobody listening any more is no reason not to stop.
            drop(reply.send(stopped));
        }
    }

    /// Waits until what is open fits the spool, as long as what is there may still go up.
    fn wait_for_room(&self, deadline: Instant) {
        loop {
            let used = self.spool.used_bytes();
            let needed = used.saturating_add(self.epochs.open_size().bytes);
            let fits = self.has_room() && needed <= self.options.spool_bytes;
            let is_over = Instant::now() >= deadline || self.progress.is_fenced();
            if fits || used == 0 || is_over {
                return;
            }
            std::thread::sleep(TICK);
        }
    }

    /// Lets others write at once. Where it fails they wait until the lease has run out, and nothing is lost.
    fn release_lease_best_effort(&self, patience: Duration) {
        let released = async { tokio::time::timeout(patience, self.right.release()).await };
        match self.runtime.block_on(released) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(%error, "the lease could not be given back; it runs out by itself");
            }
            Err(_) => tracing::info!("the lease was not given back in time; it runs out by itself"),
        }
    }

    /// Whether the newest captured commit is in the store, at the latest at `deadline`.
    fn wait_published(&self, deadline: Instant) -> bool {
        let target = self.base.as_ref().map(mark);
        let mut published = self.progress.watch();
        let reached = published.wait_for(|p| p.stopped.is_some() || reaches(p, target));
        let waited = async {
            tokio::time::timeout_at(deadline.into(), reached)
                .await
                .is_ok()
        };
        self.runtime.block_on(waited) && reaches(&self.progress.watch().borrow(), target)
    }
}
