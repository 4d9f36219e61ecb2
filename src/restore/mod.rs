//! Restore: a snapshot, or parts of it, written to a plain directory.
//!
//! [`plan`] walks the snapshot and decides; [`contents`] reads each frame once and writes what it holds; [`target`] makes
//! the names and attributes. A file appears under its name only when it is whole, so an interrupted restore can simply be run
//! again: what is there already, with the same size and time, is kept. While one batch of files is being filled the next is planned and
//! made. Called by the command line.

pub mod plan;

mod contents;

mod target;

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
use crate::restore::contents::Pending;
use crate::restore::plan::{Item, Step, Walk};
use crate::restore::target::{Dir, Target, Xattrs};

/// Files of a batch, and directories whose attributes and links wait for it: each has one descriptor.
const ENTRIES_OF_BATCH: u64 = 512;
/// Both are open for two batches at once, and together they may take up half of the descriptors that there are.
const DESCRIPTORS_PART: u64 = 8;
/// Steps between which others get their turn, since making files does not wait for anything.
const STEPS_OF_TURN: usize = 32;
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
    let descriptors = crate::sys::open_files_max().map_err(failed)?;
    let mut work = Restore {
        reading: Reading {
            tree: volume.tree(commit),
            blocks: volume.blocks(),
            progress,
            stop,
        },
        place: target,
        target: Target::open(target).map_err(failed)?,
        entries_of_batch: ENTRIES_OF_BATCH.min(descriptors / DESCRIPTORS_PART) as usize,
        dirs: HashMap::new(),
        linked: HashMap::new(),
        batch: Batch::default(),
        summary: Summary::default(),
    };
    work.all(paths).await?;
    work.target.sync().map_err(failed)?;
    Ok(work.summary)
}

/// What all of a restore reads from and is told by.
#[derive(Clone)]
struct Reading<'a> {
    tree: Tree<Arc<Blocks>>,
    blocks: &'a Arc<Blocks>,
    progress: &'a Progress,
    stop: &'a AtomicBool,
}

impl Reading<'_> {
    fn go_on(&self) -> Result<(), Error> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// A restore under way.
struct Restore<'a> {
    reading: Reading<'a>,
    place: &'a Path,
    target: Target,
    entries_of_batch: usize,
    /// Directories entered and not yet left.
    dirs: HashMap<RepoPath, Arc<Dir>>,
    /// The first name of each file with several.
    linked: HashMap<FileId, RepoPath>,
    /// The batch that is being made.
    batch: Batch,
    summary: Summary,
}

/// Files made and not yet filled, and what has to wait until they are.
#[derive(Default)]
struct Batch {
    files: Vec<Arc<Pending>>,
    bytes: u64,
    deferred: Vec<Deferred>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.deferred.is_empty()
    }

    /// Takes away what is not finished. What cannot be taken away has a name that says what it is, and is written over next time.
    fn abandon_best_effort(&self) {
        for file in &self.files {
            let _ = file.abandon();
        }
    }
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
        let mut filling = Batch::default();
        loop {
            let reading = self.reading.clone();
            let fill = contents::fill(&reading, &filling.files);
            let (filled, planned) = futures::join!(fill, self.make_batch(&mut walk));
            if filled.is_err() || planned.is_err() {
                filling.abandon_best_effort();
                self.batch.abandon_best_effort();
            }
            filled.and(planned)?;
            let done = std::mem::replace(&mut filling, std::mem::take(&mut self.batch));
            if let Err(error) = self.settle(done).await {
                filling.abandon_best_effort();
                return Err(error);
            }
            if filling.is_empty() {
                return Ok(());
            }
        }
    }

    /// Carries out steps until there is a batch to be filled; less, or nothing, at the end.
    async fn make_batch(&mut self, walk: &mut Walk) -> Result<(), Error> {
        loop {
            let steps = walk.next_batch(STEPS_OF_TURN).await?;
            if steps.is_empty() {
                return Ok(());
            }
            for step in steps {
                self.reading.go_on()?;
                self.carry_out(step).await?;
            }
            if self.batch.files.len() >= self.entries_of_batch
                || self.batch.deferred.len() >= self.entries_of_batch
                || self.batch.bytes >= BYTES_AT_ONCE
            {
                return Ok(());
            }
            tokio::task::yield_now().await;
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
                    self.batch.deferred.push(Deferred::Leave { item, dir });
                }
            }
            Step::Make(item) => self.make(item).await?,
            Step::Unreadable { path, error } => self.fail(path, error),
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
                let link = Deferred::Link { item, first, dir };
                self.batch.deferred.push(link);
                return Ok(());
            }
            self.linked.insert(item.id, item.path.clone());
        }
        let made = match dir.holds(&item) {
            Ok(true) => {
                self.summary.kept += 1;
                let entries = &self.reading.progress.entries;
                entries.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Ok(false) if item.inode.kind == Kind::File => dir.make_file(&item).map(Some),
            Ok(false) => self.make_special(&item, &dir).await?.map(|()| None),
            Err(error) => Err(error),
        };
        match made {
            Ok(Some(file)) => {
                self.batch.bytes = self.batch.bytes.saturating_add(item.inode.size);
                let pending = Pending::new(item, dir, file);
                self.batch.files.push(Arc::new(pending));
            }
            Ok(None) => self.wrote(0),
            Err(error) => self.fail(item.path, error),
        }
        Ok(())
    }

    /// A symlink, pipe, socket or device. The inner error concerns this entry only.
    async fn make_special(&self, item: &Item, dir: &Dir) -> Result<io::Result<()>, Error> {
        let xattrs = xattrs(&self.reading.tree, item.id).await?;
        Ok(dir.make_special(item, xattrs))
    }

    /// Counts the files of a batch that has been filled, and does what had to wait for them.
    async fn settle(&mut self, batch: Batch) -> Result<(), Error> {
        for file in batch.files {
            match file.outcome() {
                Ok(()) => self.wrote(file.item.inode.size),
                Err(error) => self.fail(file.item.path.clone(), error),
            }
        }
        for deferred in batch.deferred {
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
                    match dir.finish(&item, xattrs(&self.reading.tree, item.id).await?) {
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
        self.reading
            .progress
            .entries
            .fetch_add(1, Ordering::Relaxed);
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
