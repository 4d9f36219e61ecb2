//! The walk of a scan: which directories are still to be visited, handed out to as many threads as may work at once. Depth first, so that no
//! more wait than the paths under way have neighbours: memory grows with them and with the directories, not with the files.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::AtomicBool;
use std::thread;

use parking_lot::{Condvar, Mutex};

use crate::id::FileId;
use crate::path::RepoPath;
use crate::reconcile::scan::Scan;
use crate::reconcile::{Error, Parts, Progress, Summary};
use crate::repo::tree::Pages;
use crate::source::Node;

/// Threads of a scan at most: the programs that use the mount come first.
const THREADS_MAX: usize = 4;

/// Scans the whole source and marks what differs. The caller holds back commits (but incomplete ones) until it returns; on
/// an error it must not let them go. Blocks on the source and on the tree: to be called on a thread of its own, outside of
/// the runtime.
pub fn run<P: Pages + Clone>(
    parts: &Parts<P>,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Summary, Error> {
    let walk = Walk::default();
    let mut first = Scan::new(parts, &walk, progress, stop);
    let mut others: Vec<_> = (1..threads())
        .map(|_| Scan::new(parts, &walk, progress, stop))
        .collect();
    parts.epochs.watch_moves();
    first.root()?;
    walk.to_its_end(&mut first, &mut others)?;
    // What was moved while it was being scanned may have left a place not yet visited for one that had been.
    while let Some(moved) = parts.epochs.take_moved(true) {
        for node in moved {
            first.moved(node)?;
        }
        walk.to_its_end(&mut first, &mut others)?;
    }
    let mut summary = first.into_summary();
    others
        .into_iter()
        .for_each(|other| summary.add(other.into_summary()));
    if summary.missed {
        parts.epochs.spare_earlier_doubts();
    }
    Ok(summary)
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX))
}

/// The directories of a scan. Shared by its threads.
#[derive(Default)]
pub(super) struct Walk {
    state: Mutex<State>,
    /// There is one more to visit, or nothing left to wait for.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// To be visited, the next one last.
    pending: Vec<(Node, RepoPath)>,
    /// Visited, or being visited.
    visited: HashSet<FileId>,
    /// How many are being visited: each may lead to more.
    busy: usize,
    /// Why the scan ends early.
    failed: Option<Error>,
}

impl Walk {
    /// A directory is to be visited, unless it has been.
    pub(super) fn visit_later(&self, dir: Node, path: RepoPath) {
        let mut state = self.state.lock();
        if !state.visited.contains(&dir.id) {
            state.pending.push((dir, path));
            self.changed.notify_one();
        }
    }

    /// Visits what is pending and all that this leads to.
    fn to_its_end<P: Pages + Clone>(
        &self,
        first: &mut Scan<'_, P>,
        others: &mut [Scan<'_, P>],
    ) -> Result<(), Error> {
        thread::scope(|scope| {
            for scan in others {
                let builder = thread::Builder::new().name("reconcile".into());
                // Where there is no thread to be had, fewer do it.
                let _spawned = builder.spawn_scoped(scope, || self.work(scan));
            }
            self.work(first);
        });
        match self.state.lock().failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn work<P: Pages + Clone>(&self, scan: &mut Scan<'_, P>) {
        while let Some((dir, path, _visit)) = self.next() {
            if let Err(error) = scan.directory(&dir, &path) {
                self.state.lock().failed.get_or_insert(error);
            }
        }
    }

    /// The next directory, once there is one; `None` when there will be no more.
    fn next(&self) -> Option<(Node, RepoPath, Visit<'_>)> {
        let mut state = self.state.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            match state.pending.pop() {
                Some((dir, path)) if state.visited.insert(dir.id) => {
                    state.busy += 1;
                    return Some((dir, path, Visit(self)));
                }
                Some(_) => {}
                None if state.busy == 0 => return None,
                None => self.changed.wait(&mut state),
            }
        }
    }
}

/// A directory is being visited, until this is dropped.
struct Visit<'a>(&'a Walk);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        if thread::panicking() {
            let error = || io::Error::other("a thread of it panicked").into();
            state.failed.get_or_insert_with(error);
        }
        drop(state);
        self.0.changed.notify_all();
    }
}
