//! Restore: a snapshot, or parts of it, written to a plain directory.
//!
//! [`plan`] walks the snapshot and decides; [`contents`] reads each frame once and writes what it holds; [`target`] makes
//! the names and attributes. A file appears under its name only when it is whole, so an interrupted restore can simply be run
//! again: what is there already, with the same size and time, is kept. Called by the command line.

pub mod plan;

mod contents;

mod target;

use std::collections::{HashMap, VecDeque};
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
use crate::restore::contents::Pending;
use crate::restore::plan::{Item, Step, Walk};
use crate::restore::target::{Dir, Target, Xattrs};

/// Steps planned at once: bounds what is in memory of a directory with millions of entries.
const STEPS_AT_ONCE: usize = 1024;
/// Files open for writing at once, far under the usual limit of 1024 descriptors.
const FILES_AT_ONCE: usize = 256;
/// Directories whose attributes and links wait, each open: with the files above still far under that limit.
const DEFERRED_AT_ONCE: usize = 256;
/// Contents gathered before they are fetched in the order in which they lie in the store.
const BYTES_AT_ONCE: u64 = 256 << 20;

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
) -> Result<Summary, Error> {
    let failed = |source| Error::Target {
        path: target.to_owned(),
        source,
    };
    let mut work = Restore {
        volume,
        commit,
        place: target,
        target: Target::open(target).map_err(failed)?,
        dirs: HashMap::new(),
        linked: HashMap::new(),
        pending: VecDeque::new(),
        deferred: Vec::new(),
        summary: Summary::default(),
        progress,
    };
    let done = work.all(paths, stop).await;
    if done.is_err() {
        work.abandon_best_effort();
    }
    done?;
    work.target.sync().map_err(failed)?;
    Ok(work.summary)
}

/// A restore under way.
struct Restore<'a> {
    volume: &'a Volume,
    commit: &'a Commit,
    place: &'a Path,
    target: Target,
    /// Directories entered and not yet left.
    dirs: HashMap<RepoPath, Arc<Dir>>,
    /// The first name of each file with several.
    linked: HashMap<FileId, RepoPath>,
    /// Files made and not yet filled.
    pending: VecDeque<Pending>,
    /// What has to wait until they are.
    deferred: Vec<Deferred>,
    summary: Summary,
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
    async fn all(&mut self, paths: &[RepoPath], stop: &AtomicBool) -> Result<(), Error> {
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
        let mut walk = Walk::begin(self.volume.tree(self.commit), paths).await?;
        loop {
            let steps = walk.next_batch(STEPS_AT_ONCE).await?;
            if steps.is_empty() {
                return self.write_pending().await;
            }
            for step in steps {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                self.carry_out(step).await?;
            }
        }
    }

    /// Takes away what is not finished. What cannot be taken away has a name that says what it is, and is written over next time.
    fn abandon_best_effort(&mut self) {
        for file in self.pending.drain(..) {
            let _ = file.abandon();
        }
    }

    async fn carry_out(&mut self, step: Step) -> Result<(), Error> {
        match step {
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
        let bytes: u64 = self.pending.iter().map(|file| file.item.inode.size).sum();
        if self.pending.len() >= FILES_AT_ONCE
            || bytes >= BYTES_AT_ONCE
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
        let made = match dir.holds(&item) {
            Ok(true) => {
                self.summary.kept += 1;
                self.progress.entries.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Ok(false) if item.inode.kind == Kind::File => dir.make_file(&item).map(Some),
            Ok(false) => self.make_special(&item, &dir).await?.map(|()| None),
            Err(error) => Err(error),
        };
        match made {
            Ok(Some(file)) => self.pending.push_back(Pending::new(item, dir, file)),
            Ok(None) => self.wrote(0),
            Err(error) => self.fail(item.path, error),
        }
        Ok(())
    }

    /// A symlink, pipe, socket or device. The inner error concerns this entry only.
    async fn make_special(&self, item: &Item, dir: &Dir) -> Result<io::Result<()>, Error> {
        let xattrs = xattrs(&self.volume.tree(self.commit), item.id).await?;
        Ok(dir.make_special(item, xattrs))
    }

    /// Fills the files that have been made, then does what had to wait for them.
    async fn write_pending(&mut self) -> Result<(), Error> {
        let tree = self.volume.tree(self.commit);
        contents::write(
            &tree,
            self.volume.blocks(),
            self.pending.make_contiguous(),
            &self.progress.bytes,
        )
        .await?;
        // One by one: those that are still waiting when the run has to end are taken away.
        while let Some(next) = self.pending.front() {
            let xattrs = xattrs(&tree, next.item.id).await?;
            let Some(file) = self.pending.pop_front() else {
                break;
            };
            match file.finish(xattrs) {
                Ok(()) => self.wrote(file.item.inode.size),
                Err(error) => self.fail(file.item.path, error),
            }
        }
        for deferred in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Link { item, first, dir } => {
                    match self.target.link(&first, &dir, &item) {
                        Ok(()) => self.wrote(0),
                        Err(error) => {
                            let why = self.why_not(&first).unwrap_or_else(|| error.to_string());
                            self.fail(item.path, why);
                        }
                    }
                }
                Deferred::Leave { item, dir } => {
                    match dir.finish(&item, xattrs(&tree, item.id).await?) {
                        Ok(()) => self.wrote(0),
                        Err(error) => self.fail(item.path, error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Why `path` could not be restored, if it could not: its other names say the same.
    fn why_not(&self, path: &RepoPath) -> Option<String> {
        let failure = self
            .summary
            .failures
            .iter()
            .find(|failure| failure.path == *path)?;
        Some(failure.why.clone())
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
