//! The scan of a live mount: reconcile on a thread of its own, tried again while the repository cannot be read, and the flusher
//! held back until it has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle as Runtime;

use super::link::Trouble;
use crate::clock::{Clock, Stamp, SystemClock};
use crate::epoch::{Debt, Epochs};
use crate::flusher;
use crate::reconcile::{self, Parts, Progress, Summary};
use crate::repo::tree::Pages;

/// Between attempts while the repository cannot be read; at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What can be seen of a scan while it runs. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Sight {
    /// How far it has come.
    pub(super) progress: Arc<Progress>,
    stuck: Arc<Mutex<Option<Trouble>>>,
    left_out: Arc<Mutex<Option<Trouble>>>,
}

impl Sight {
    /// Why it does not get on, and since when.
    pub(super) fn stuck(&self) -> Option<Trouble> {
        self.stuck.lock().clone()
    }

    /// What it could not look at, and since when that is known.
    pub(super) fn left_out(&self) -> Option<Trouble> {
        self.left_out.lock().clone()
    }

    /// Says why it does not get on.
    pub(super) fn fail(&self, why: String) {
        tracing::warn!("the scan does not get on: {why}");
        note(&self.stuck, Some(why));
    }

    fn went_on(&self) {
        note(&self.stuck, None);
    }

    /// Says what a scan that has come to its end could not look at.
    fn has_seen(&self, summary: &Summary) {
        self.went_on();
        note(&self.left_out, unreadable(summary));
    }
}

/// What is wrong now. Since when is known from before where something was.
fn note(trouble: &Mutex<Option<Trouble>>, why: Option<String>) {
    let mut trouble = trouble.lock();
    let since = trouble.as_ref().map(|before| before.since);
    *trouble = why.map(|message| Trouble {
        message,
        since: since.unwrap_or_else(now),
    });
}

fn now() -> Stamp {
    SystemClock.now()
}

/// A scan under way, or ended; then what has come to be owed meanwhile is looked at again.
pub(super) struct Scanning {
    sight: Sight,
    epochs: Arc<Epochs>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What everything is compared with from now on: called on the scan's own thread, may wait for the store until it is told to stop.
pub(super) type Renew<P> = Box<dyn Fn(&AtomicBool) -> anyhow::Result<Parts<P>> + Send>;

impl Scanning {
    /// Starts it. The flusher has been told to hold; it is let go when the scan has ended well. `through` is called before that if
    /// nothing had to be passed over.
    pub(super) fn start<P: Pages + Clone + 'static>(
        parts: Parts<P>,
        renew: Renew<P>,
        flusher: flusher::Handle,
        expected: u64,
        sight: Sight,
        through: Box<dyn FnOnce() + Send>,
    ) -> std::io::Result<Self> {
        let epochs = parts.epochs.clone();
        sight.progress.expected.store(expected, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (sight, stop) = (sight.clone(), stop.clone());
            std::thread::Builder::new()
                .name("reconcile".to_owned())
                .spawn(move || {
                    scan(&parts, &flusher, &sight, &stop, through);
                    pay(parts, &renew, &sight, &stop);
                })?
        };
        Ok(Self {
            sight,
            epochs,
            stop,
            thread,
        })
    }

    /// Ends it where it stands. What it has not looked at is looked at by the next mount. Returns whether it had been
    /// through, and nothing is owed.
    pub(super) fn stop(self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the scan panicked; the next mount scans again");
        }
        self.sight.progress.ended.load(Ordering::Relaxed) && !self.epochs.is_owing()
    }
}

fn scan<P: Pages + Clone>(
    parts: &Parts<P>,
    flusher: &flusher::Handle,
    sight: &Sight,
    stop: &AtomicBool,
    through: Box<dyn FnOnce() + Send>,
) {
    let progress = &*sight.progress;
    let mut pause = PAUSE_MIN;
    // What came to be owed while the repository was awaited is paid by this scan: nothing has been published yet. Later debts are not,
    // even where it is tried again.
    parts.epochs.begin_rescan();
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
                sight.has_seen(&summary);
                if summary.unreadable.is_empty() {
                    through();
                }
                release(&parts.runtime, flusher);
                progress.ended.store(true, Ordering::Relaxed);
                return;
            }
            Err(reconcile::Error::Stopped) => return,
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(error) => {
                sight.fail(error.to_string());
                std::thread::park_timeout(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// For as long as the mount lives: looks again at what could not be noted, and at everything when the changes of an epoch had
/// to be forgotten.
fn pay<P: Pages + Clone>(mut parts: Parts<P>, renew: &Renew<P>, sight: &Sight, stop: &AtomicBool) {
    let mut pause = PAUSE_MIN;
    while !stop.load(Ordering::Relaxed) {
        let paid = match parts.epochs.debt() {
            // Unparked when something is owed; the time limit is for nothing but a notice that got lost.
            None => {
                std::thread::park_timeout(PAUSE_MAX);
                continue;
            }
            Some(Debt::Names(names)) => {
                reconcile::pay_names(&parts.source, &parts.epochs, &names).map_err(Into::into)
            }
            Some(Debt::Everything) => pay_everything(&mut parts, renew, sight, stop),
        };
        match paid {
            Ok(()) => {
                pause = PAUSE_MIN;
                sight.went_on();
            }
            // Whoever asked for it has woken this thread already, and does not do so again.
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(error) => {
                sight.fail(error.to_string());
                std::thread::park_timeout(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn pay_everything<P: Pages + Clone>(
    parts: &mut Parts<P>,
    renew: &Renew<P>,
    sight: &Sight,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    sight.progress.ended.store(false, Ordering::Relaxed);
    parts.epochs.begin_rescan();
    *parts = renew(stop)?;
    sight.progress.scanned.store(0, Ordering::Relaxed);
    let summary = reconcile::run(parts, &sight.progress, stop)?;
    sight.has_seen(&summary);
    sight.progress.ended.store(true, Ordering::Relaxed);
    Ok(())
}

/// Says what a scan could not look at.
fn unreadable(summary: &Summary) -> Option<String> {
    for (path, why) in &summary.unreadable {
        tracing::warn!("{path} cannot be read and stays in snapshots as it last was: {why}");
    }
    let (path, why) = summary.unreadable.first()?;
    let more = match summary.unreadable.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more, which the log names)"),
    };
    Some(format!(
        "{path} cannot be read and stays in snapshots as it last was: {why}{more}"
    ))
}

fn release(runtime: &Runtime, flusher: &flusher::Handle) {
    if let Err(error) = runtime.block_on(flusher.hold(false)) {
        // It has stopped, and with it the mount.
        tracing::info!(%error, "the scan ended after the mount");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::*;
    use crate::epoch;
    use crate::id::FileId;
    use crate::journal::Journal;
    use crate::reconcile::{Intents, Trust};
    use crate::repo::blocks::Blocks;
    use crate::source::Source;

    /// More names than are owed one by one.
    const NAMES: usize = 5000;

    /// A mount was ended while everything was scanned once more. The scan stopped at once, but that was taken for a failure after which
    /// to pause: the program waited for a minute after its last word, and `status` told of trouble that there was not.
    #[test]
    fn a_scan_that_was_asked_to_stop_is_not_tried_again() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("file"), b"to be looked at").unwrap();
        let source = Source::open(dir.path(), &state.path().join("identity"), FileId(2));
        let source = Arc::new(source.unwrap());
        let (journal, _new) = Journal::open(&state.path().join("journal")).unwrap();
        let options = epoch::Options {
            preserve_bytes: 1 << 20,
            kept_files: 16,
            changes_bytes: 64 << 20,
        };
        let epochs = Epochs::new(Arc::clone(&source), Arc::new(journal), options);
        let root = epochs.inode(&source.root());
        let dirs = [&root];
        let mut guard = epochs.change(&dirs).unwrap();
        for number in 0..NAMES {
            let name = number.to_string();
            guard.owe(&root, name.as_bytes(), &io::Error::other("a test"));
        }
        drop(guard);
        assert_eq!(epochs.debt(), Some(Debt::Everything));

        let runtime = runtime.handle().clone();
        let parts = move || Parts::<Arc<Blocks>> {
            source: Arc::clone(&source),
            epochs: Arc::clone(&epochs),
            tree: None,
            intents: Intents::default(),
            trust: Trust::Stat,
            runtime: runtime.clone(),
        };
        let (sight, stop) = (Sight::default(), Arc::new(AtomicBool::new(false)));
        let first = parts();
        let renew: Renew<Arc<Blocks>> = {
            let stop = Arc::clone(&stop);
            Box::new(move |_| {
                // The end comes during the scan.
                stop.store(true, Ordering::Relaxed);
                Ok(parts())
            })
        };
        pay(first, &renew, &sight, &stop);
        assert!(sight.stuck().is_none());
    }
}
