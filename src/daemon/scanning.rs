//! The scan of a live mount: reconcile on a thread of its own, tried again while the repository cannot be read, and the flusher
//! held back until it has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle as Runtime;

use crate::flusher;
use crate::reconcile::{self, Parts, Progress};
use crate::repo::tree::Pages;

/// Between attempts while the repository cannot be read; at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A scan under way, or ended.
pub(super) struct Scanning {
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Scanning {
    /// Starts it. The flusher has been told to hold; it is let go when the scan has ended well.
    pub(super) fn start<P: Pages + Clone + 'static>(
        parts: Parts<P>,
        flusher: flusher::Handle,
        expected: u64,
    ) -> std::io::Result<Self> {
        let progress = Arc::new(Progress::default());
        progress.expected.store(expected, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (progress, stop) = (progress.clone(), stop.clone());
            std::thread::Builder::new()
                .name("reconcile".to_owned())
                .spawn(move || scan(&parts, &flusher, &progress, &stop))?
        };
        Ok(Self {
            progress,
            stop,
            thread,
        })
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Ends it where it stands. What it has not looked at is looked at by the next mount.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the scan panicked; the next mount scans again");
        }
    }
}

fn scan<P: Pages + Clone>(
    parts: &Parts<P>,
    flusher: &flusher::Handle,
    progress: &Progress,
    stop: &AtomicBool,
) {
    let mut pause = PAUSE_MIN;
    while !stop.load(Ordering::Relaxed) {
        progress.scanned.store(0, Ordering::Relaxed);
        match reconcile::run(parts, progress, stop) {
            Ok(summary) => {
                tracing::info!(
                    scanned = summary.scanned,
                    marked = summary.marked,
                    unreadable = summary.unreadable.len(),
                    "compared with the newest snapshot"
                );
                release(&parts.runtime, flusher);
                break;
            }
            Err(reconcile::Error::Stopped) => break,
            Err(error) => {
                tracing::warn!(%error, "the scan is tried again");
                std::thread::park_timeout(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
    progress.ended.store(true, Ordering::Relaxed);
}

fn release(runtime: &Runtime, flusher: &flusher::Handle) {
    if let Err(error) = runtime.block_on(flusher.hold(false)) {
        // It has stopped, and with it the mount.
        tracing::info!(%error, "the scan ended after the mount");
    }
}
