//! Runs the reconcile of a live mount on a thread of its own: again after a failure, until it has been through once. Until
//! then the flusher publishes nothing but incomplete commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::Error;
use super::status;
use crate::flusher;
use crate::reconcile::{self, Parts, Summary};
use crate::repo::tree::Pages;

/// Pauses after a failed scan grow from one second up to this: most often the store is out of reach.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A reconcile under way, or over.
pub(super) struct Reconciling {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and those who ask share.
#[derive(Default)]
pub(super) struct Shared {
    progress: reconcile::Progress,
    stop: AtomicBool,
    trouble: Mutex<Option<String>>,
}

impl Shared {
    /// How far it has come; `None` when it is over.
    pub(super) fn progress(&self) -> Option<status::Progress> {
        let progress = &self.progress;
        let over = progress.ended.load(Ordering::Relaxed);
        (!over).then(|| status::Progress {
            scanned: progress.scanned.load(Ordering::Relaxed),
            expected: progress.expected.load(Ordering::Relaxed),
            differing: progress.marked.load(Ordering::Relaxed),
        })
    }

    /// What is wrong with it.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

impl Reconciling {
    /// Starts it. The flusher holds back commits already, and is let go when the scan has succeeded.
    pub(super) fn start<P>(parts: Parts<P>, flusher: flusher::Handle) -> Result<Self, Error>
    where
        P: Pages + Clone + Send + Sync + 'static,
    {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("reconcile".into()).spawn({
            let shared = shared.clone();
            move || until_done(&parts, &flusher, &shared)
        });
        let thread = thread.map_err(Error::io("start", "the reconcile thread"))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What can be asked of it.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Ends it, if it is not over yet; the next mount begins it anew. Blocks until the thread has stopped.
    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().take() {
            thread.thread().unpark();
            // A panic has been logged by its hook; commits stay held back, and the next mount scans again.
            let _ = thread.join();
        }
    }
}

fn until_done<P: Pages + Clone>(parts: &Parts<P>, flusher: &flusher::Handle, shared: &Shared) {
    let mut pause = Duration::from_secs(1);
    loop {
        match reconcile::run(parts, &shared.progress, &shared.stop) {
            Ok(summary) => {
                told(&summary, shared);
                // The flusher may have stopped meanwhile; then there is nothing to let go.
                let _ = parts.runtime.block_on(flusher.hold(false));
                shared.progress.ended.store(true, Ordering::Relaxed);
                return;
            }
            Err(reconcile::Error::Stopped) => return,
            Err(error) => {
                tracing::warn!("reconcile: {error}; trying again in {pause:?}");
                *shared.trouble.lock() = Some(error.to_string());
            }
        }
        thread::park_timeout(pause);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn told(summary: &Summary, shared: &Shared) {
    tracing::info!(
        scanned = summary.scanned,
        differing = summary.marked,
        "compared the source with the newest commit"
    );
    for (path, why) in &summary.unreadable {
        tracing::warn!("{path} cannot be read and stays in snapshots as it last was: {why}");
    }
    *shared.trouble.lock() = summary.unreadable.first().map(|(path, why)| {
        let more = match summary.unreadable.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more; the log names them)"),
        };
        format!("{path} cannot be read and stays in snapshots as it last was: {why}{more}")
    });
}
