//! Restore: a snapshot, or parts of it, written to a plain directory.
//!
//! [`plan`] walks the snapshot and decides; [`contents`] reads each frame once and writes what it holds; [`target`] makes
//! the names and attributes. A file appears under its name only when it is whole, so an interrupted restore can simply be run
//! again: what is there already, with the same size and time, is kept, unless [`trust`] says that a power cut may have emptied it.
//! Called by the command line.

pub mod plan;

mod contents;

mod target;

mod trust;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::format::commit::Commit;
use crate::format::entry::Kind;
use crate::id::FileId;
use crate::path::RepoPath;
use crate::repo::Volume;
use crate::repo::blocks::Blocks;
use crate::repo::tree::Tree;
use crate::restore::contents::{Pending, Reading};
use crate::restore::plan::{Item, Step, Walk};
use crate::restore::target::{Applied, Dir, Target, Xattrs};

/// Steps planned at once: bounds what is in memory of a directory with millions of entries.
const STEPS_AT_ONCE: usize = 1024;
/// Files gathered before they are filled in the order in which their contents lie in the store. Small ones of that many share GETs.
const FILES_AT_ONCE: usize = 2048;
/// Contents gathered likewise: so much is filled without a pause, and can be lost when a restore is interrupted.
const BYTES_AT_ONCE: u64 = 1 << 30;
/// Directories whose attributes and links wait, each open: far under the usual limit of 1024 descriptors.
const DEFERRED_AT_ONCE: usize = 256;

/// Why a restore could not go on at all. What concerns one file only is a [`Failure`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] crate::repo::Error),
    /// The target directory.
    #[error("restore into {path}: {source}", path = path.display())]
    Target {
        /// which
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// Asked to stop.
    #[error("interrupted; run the same command again to go on")]
    Interrupted,
}

/// A restore that came to an early end.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Cut {
    /// Why.
    pub error: Error,
    /// What had been done until then.
    pub summary: Summary,
}

/// Something that could not be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What.
    pub path: RepoPath,
    /// Why.
    pub why: String,
}

/// What a restore did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Entries written: files, directories, links and the rest.
    pub written: u64,
    /// Entries that were there already.
    pub kept: u64,
    /// Bytes of contents written.
    pub bytes: u64,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// How far a restore has come, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries done.
    pub entries: AtomicU64,
    /// Bytes of contents written.
    pub bytes: AtomicU64,
}

/// Restores `paths` of `commit` (everything when empty) into `target`, which is made if it is missing. Damage is passed over and
/// listed in the summary. Set `stop` to end early.
pub async fn run(
    volume: &Volume,
    commit: &Commit,
    paths: &[RepoPath],
    target: &Path,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Summary, Cut> {
    let mut summary = Summary::default();
    let done = async {
        let failed = |source| Error::Target {
            path: target.to_owned(),
            source,
        };
        let mut work = Restore {
            reading: Reading {
                tree: volume.tree(commit),
                blocks: volume.blocks(),
                written: &progress.bytes,
                stop,
                room: contents::room(),
            },
            place: target,
            target: Target::open(target).map_err(failed)?,
            dirs: HashMap::new(),
            linked: HashMap::new(),
            nameless: HashMap::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            deferred: Vec::new(),
            summary: &mut summary,
            progress,
        };
        let done = work.all(paths).await;
        if done.is_err() {
            work.abandon_best_effort();
        }
        done?;
        let all = paths.is_empty() && work.summary.failures.is_empty();
        work.target.end(all).map_err(failed)
    };
    match done.await {
        Ok(()) => Ok(summary),
        Err(error) => Err(Cut { error, summary }),
    }
}

/// A restore under way.
struct Restore<'a> {
    reading: Reading<'a>,
    place: &'a Path,
    target: Target,
    /// Directories entered and not yet left.
    dirs: HashMap<RepoPath, Arc<Dir>>,
    /// The first name of each file with several.
    linked: HashMap<FileId, RepoPath>,
    /// Those of them that did not get it, and why: what lies there is something older.
    nameless: HashMap<FileId, String>,
    /// Files to be made and filled.
    pending: Vec<Arc<Pending>>,
    /// The sum of their sizes.
    pending_bytes: u64,
    /// What has to wait until they are.
    deferred: Vec<Deferred>,
    summary: &'a mut Summary,
    progress: &'a Progress,
}

enum Deferred {
    Link {
        item: Item,
        first: RepoPath,
        dir: Arc<Dir>,
    },
    Leave {
        item: Item,
        dir: Arc<Dir>,
    },
}

impl Restore<'_> {
    async fn all(&mut self, paths: &[RepoPath]) -> Result<(), Error> {
        // What is asked for by path may lie in the target itself; a whole restore enters that as the volume's root.
        let root = RepoPath::root();
        let dir = self
            .target
            .make_dir(None, &root)
            .map_err(|source| Error::Target {
                path: self.place.to_owned(),
                source,
            })?;
        self.dirs.insert(root, Arc::new(dir));
        let mut walk = Walk::begin(self.reading.tree.clone(), paths).await?;
        loop {
            let steps = walk.next_batch(STEPS_AT_ONCE).await?;
            if steps.is_empty() {
                return self.write_pending().await;
            }
            for step in steps {
                self.reading.go_on()?;
                self.carry_out(step).await?;
            }
        }
    }

    /// Takes away what is not finished. What cannot be taken away has a name that says what it is, and is written over next time.
    fn abandon_best_effort(&mut self) {
        for file in std::mem::take(&mut self.pending) {
            match file.outcome() {
                Some(outcome) => self.made(&file.item, file.item.inode.size, outcome),
                None => drop(file.abandon()),
            }
        }
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Enter(path) | Step::Make(Item { path, .. }) if trust::is_reserved(&path) => {
                self.fail(path, "a restore keeps its own mark under this name");
            }
            Step::Enter(path) => match self.target.make_dir(self.parent(&path), &path) {
                Ok(dir) => {
                    self.dirs.insert(path, Arc::new(dir));
                }
                Err(error) => self.fail(path, error),
            },
            Step::Leave { path, item } => {
                if let (Some(dir), Some(item)) = (self.dirs.remove(&path), item) {
                    self.deferred.push(Deferred::Leave { item, dir });
                }
            }
            Step::Make(item) => self.make(item).await?,
            Step::Unreadable { path, error } => self.fail(path, error),
        }
        if self.pending.len() >= FILES_AT_ONCE
            || self.pending_bytes >= BYTES_AT_ONCE
            || self.deferred.len() >= DEFERRED_AT_ONCE
        {
            self.write_pending().await?;
        }
        Ok(())
    }

    async fn make(&mut self, item: Item) -> Result<(), Error> {
        let Some(dir) = self.parent(&item.path).cloned() else {
            self.fail(item.path, "its directory could not be made");
            return Ok(());
        };
        if item.inode.links > 1 {
            if let Some(first) = self.linked.get(&item.id).cloned() {
                self.deferred.push(Deferred::Link { item, first, dir });
                return Ok(());
            }
            self.linked.insert(item.id, item.path.clone());
        }
        match self.target.holds(&dir, &item) {
            Ok(true) => {
                self.summary.kept += 1;
                self.progress.entries.fetch_add(1, Ordering::Relaxed);
            }
            Ok(false) if item.inode.kind == Kind::File => {
                self.pending_bytes = self.pending_bytes.saturating_add(item.inode.size);
                self.pending.push(Arc::new(Pending::new(item, dir)));
            }
            Ok(false) => {
                let made = self.make_special(&item, &dir).await?;
                self.made(&item, 0, made);
            }
            Err(error) => self.made(&item, 0, Err(error)),
        }
        Ok(())
    }

    /// A symlink, pipe, socket or device. The inner errors concern this entry only.
    async fn make_special(&self, item: &Item, dir: &Dir) -> Result<io::Result<Applied>, Error> {
        let xattrs = xattrs(&self.reading.tree, item.id).await?;
        Ok(dir.make_special(item, xattrs))
    }

    /// Notes how something came out that has its name, or else has none.
    fn made(&mut self, item: &Item, bytes: u64, outcome: io::Result<Applied>) {
        match outcome {
            Ok(Ok(())) => self.wrote(bytes),
            Ok(Err(attribute)) => self.fail(item.path.clone(), attribute),
            Err(error) => {
                if item.inode.links > 1 {
                    self.nameless.insert(item.id, error.to_string());
                }
                self.fail(item.path.clone(), error);
            }
        }
    }

    /// Makes and fills files, then does what had to wait for them.
    async fn write_pending(&mut self) -> Result<(), Error> {
        contents::fill(&self.reading, &self.pending).await?;
        self.pending_bytes = 0;
        for file in std::mem::take(&mut self.pending) {
            let outcome = file.outcome().unwrap_or_else(|| {
                // A thread that panicked, or a runtime that is shutting down.
                drop(file.abandon());
                Err(io::Error::other("it was not finished"))
            });
            self.made(&file.item, file.item.inode.size, outcome);
        }
        for deferred in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Link { item, first, dir } => self.link(&item, &first, &dir),
                Deferred::Leave { item, dir } => {
                    match dir.finish(&item, xattrs(&self.reading.tree, item.id).await?) {
                        Ok(()) => self.wrote(0),
                        Err(error) => self.fail(item.path, error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Another name of a file that has its `first`, or has none for a reason that this one shares.
    fn link(&mut self, item: &Item, first: &RepoPath, dir: &Dir) {
        match self.nameless.get(&item.id) {
            Some(why) => self.fail(item.path.clone(), why.clone()),
            None => match self.target.link(first, dir, item) {
                Ok(()) => self.wrote(0),
                Err(error) => self.fail(item.path.clone(), error),
            },
        }
    }

    fn parent(&self, path: &RepoPath) -> Option<&Arc<Dir>> {
        self.dirs.get(&path.parent()?)
    }

    fn wrote(&mut self, bytes: u64) {
        self.summary.written += 1;
        self.summary.bytes += bytes;
        self.progress.entries.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&mut self, path: RepoPath, why: impl ToString) {
        self.summary.failures.push(Failure {
            path,
            why: why.to_string(),
        });
    }
}

/// The xattrs of an inode. That they are damaged concerns this inode only; a store that cannot be reached ends the run.
async fn xattrs(tree: &Tree<Arc<Blocks>>, id: FileId) -> Result<Xattrs, Error> {
    match tree.xattrs(id).await {
        Ok(xattrs) => Ok(Ok(xattrs)),
        Err(error) if error.is_damage() => Ok(Err(io::Error::other(error))),
        Err(error) => Err(error.into()),
    }
}
