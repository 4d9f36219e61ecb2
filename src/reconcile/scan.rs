//! What a scan does with a directory: its names and inodes beside those of the tree. A name that differs is looked up again under its
//! directory's lock; what an inode holds needs no lock to be doubted. `walk` hands the directories out to several threads, each of
//! which is a [`Scan`].
//!
//! Why nothing is missed while programs go on: whatever a program changes it says itself, in its own epoch. What it moves to
//! where the walk has been already is remembered and looked at in the end. And what the walk says under a directory's lock
//! is true at that moment, so it is never older than what a program has said before.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::epoch::{Guard, LiveInode};
use crate::failpoint::{self, Point};
use crate::format::entry::{Inode, Kind, NameEntry};
use crate::id::FileId;
use crate::path::RepoPath;
use crate::reconcile::compare::{self, Verdict};
use crate::reconcile::known::{KnownInodes, KnownNames};
use crate::reconcile::waiting::Waiting;
use crate::reconcile::walk::Walk;
use crate::reconcile::{Error, Parts, Progress, Summary, Trust, UNREADABLE_MAX};
use crate::repo::tree::Pages;
use crate::source::{Node, Stat};

use std::sync::Arc;

/// Stretches of data that are marked one by one in a new sparse file; one with more is marked as a whole.
const STRETCHES_MAX: usize = 4096;

/// Between looks at an epoch that holds enough, until it is sealed.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);

/// One thread of a scan.
pub(super) struct Scan<'a, P> {
    parts: &'a Parts<P>,
    walk: &'a Walk,
    progress: &'a Progress,
    stop: &'a AtomicBool,
    inodes: KnownInodes,
    summary: Summary,
}

impl<'a, P: Pages + Clone> Scan<'a, P> {
    /// One that has seen nothing yet.
    pub(super) fn new(
        parts: &'a Parts<P>,
        walk: &'a Walk,
        progress: &'a Progress,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            parts,
            walk,
            progress,
            stop,
            inodes: KnownInodes::default(),
            summary: Summary::default(),
        }
    }

    /// What it has found so far.
    pub(super) fn into_summary(self) -> Summary {
        self.summary
    }

    /// The inode of the source's root, and all below it later. What was written before anybody watched is brought to its disk first: no
    /// record says what it is, and after a power cut it could have its times and not its bytes.
    pub(super) fn root(&mut self) -> Result<(), Error> {
        self.parts.source.sync_filesystem()?;
        let root = self.parts.source.root();
        let stat = self.parts.source.stat(&root)?;
        self.inode(&root, &stat)?;
        self.walk.visit_later(root, RepoPath::root());
        Ok(())
    }

    /// An inode that a user moved or linked meanwhile.
    pub(super) fn moved(&mut self, node: Node) -> Result<(), Error> {
        let known = self.parts.tree.is_some();
        let stat = match self.parts.source.stat(&node) {
            Ok(stat) => stat,
            Err(error) if self.parts.source.may_be_elsewhere(&node) => {
                let error = io::Error::other(format!("not found where it was last seen: {error}"));
                return self.pass_over(&RepoPath::root(), &error, known);
            }
            Err(error) => return self.pass_over(&RepoPath::root(), &error, known),
        };
        self.inode(&node, &stat)?;
        if stat.kind == Kind::Dir {
            self.walk.visit_later(node, RepoPath::root());
        }
        Ok(())
    }

    /// Compares a directory's names with the tree's, both in byte order.
    pub(super) fn directory(&mut self, dir: &Node, path: &RepoPath) -> Result<(), Error> {
        failpoint::reach(Point::Scan);
        let parts = self.parts;
        let mut known = KnownNames::of(parts.tree.as_ref(), self.waiting(), dir.id);
        let mut names = match self.parts.source.read_dir(dir) {
            Ok(names) => names,
            // What is mounted inside the source is not part of it.
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => return Ok(()),
            Err(error) => {
                let known = known.take_next()?.is_some();
                return self.pass_over(path, &error, known);
            }
        };
        names.sort_unstable();
        let parent = parts.epochs.inode(dir);
        for name in names {
            self.stop_if_asked()?;
            while let Some(missing) = known.take_before(&name)? {
                self.stop_if_asked()?;
                self.missing(&parent, path, &missing)?;
            }
            let entry = known.take(&name)?;
            self.name(&parent, path, &name, entry)?;
        }
        while let Some(missing) = known.take_next()? {
            self.stop_if_asked()?;
            self.missing(&parent, path, &missing)?;
        }
        Ok(())
    }

    /// A name that the source has; `known` is what the tree has there.
    fn name(
        &mut self,
        parent: &Arc<LiveInode>,
        path: &RepoPath,
        name: &[u8],
        known: Option<NameEntry>,
    ) -> Result<(), Error> {
        self.summary.scanned += 1;
        self.progress.scanned.fetch_add(1, Ordering::Relaxed);
        // Without anything to compare it with, it is looked up only once.
        if let Some(known) = known {
            match self.parts.source.lookup_in_passing(parent.node(), name) {
                Ok((node, stat)) if (known.id, known.kind) == (node.id, stat.kind) => {
                    self.inode(&node, &stat)?;
                    self.visit_later(node, &stat, path, name);
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return self.pass_over(&path.join(name), &error, true),
            }
        }
        self.different(parent, path, name, known.is_some())
    }

    /// A name that the tree has and the source had not when the directory was read.
    fn missing(
        &mut self,
        parent: &Arc<LiveInode>,
        path: &RepoPath,
        name: &[u8],
    ) -> Result<(), Error> {
        self.different(parent, path, name, true)
    }

    /// A name that may differ: whatever it points to now, under the directory's lock. `known`: the tree has it.
    fn different(
        &mut self,
        parent: &Arc<LiveInode>,
        path: &RepoPath,
        name: &[u8],
        known: bool,
    ) -> Result<(), Error> {
        let inodes = [parent];
        // What the tree says of the inode is read without the lock: that may have to wait for the store.
        let mut ready: Option<(FileId, Option<Arc<Inode>>)> = None;
        loop {
            let mut guard = self.parts.epochs.change(&inodes)?;
            let found = self.parts.source.lookup_in_passing(parent.node(), name);
            let (node, stat) = match found {
                Ok(found) => found,
                Err(error) if is_gone(&error) => {
                    // A request may have said so already: saying it again does no harm.
                    if known {
                        guard.name(parent, name, None);
                        self.marked();
                    }
                    return Ok(());
                }
                Err(error) => return self.pass_over(&path.join(name), &error, known),
            };
            let old = match ready.take().filter(|(id, _)| *id == node.id) {
                Some((_, old)) => old,
                None if self.parts.tree.is_none() => None,
                None => {
                    drop(guard);
                    ready = Some((node.id, self.old(node.id)?));
                    continue;
                }
            };
            let entry = NameEntry {
                id: node.id,
                kind: stat.kind,
            };
            guard.name(parent, name, Some(entry));
            if known {
                // The epoch may believe that a request made this name. Its removal must not pass without a trace.
                guard.known_name(parent, name);
            }
            self.contents(&mut guard, &node, &stat, old.as_deref());
            guard.seen(&node);
            drop(guard);
            self.marked();
            self.visit_later(node, &stat, path, name);
            return Ok(());
        }
    }

    fn visit_later(&self, node: Node, stat: &Stat, path: &RepoPath, name: &[u8]) {
        if stat.kind == Kind::Dir {
            self.walk.visit_later(node, path.join(name));
        }
    }

    /// An inode under a name that both agree on, or that a request has told of.
    fn inode(&mut self, node: &Node, stat: &Stat) -> Result<(), Error> {
        let old = self.old(node.id)?;
        let differs = self.verdict(old.as_deref(), node, stat) != Verdict::Same;
        // No lock, only a place in the open epoch: what changes from now on is marked by who changes it.
        let mut guard = self.parts.epochs.change(&[])?;
        if differs {
            self.contents(&mut guard, node, stat, old.as_deref());
        }
        guard.seen(node);
        drop(guard);
        if differs {
            self.marked();
        }
        Ok(())
    }

    /// Marks an inode that differs from what the tree has, and its contents if those may.
    fn contents(&self, guard: &mut Guard<'_>, node: &Node, stat: &Stat, old: Option<&Inode>) {
        let Some(old) = old else {
            let data = self.data_of(node, stat);
            return guard.discovered(node, &data);
        };
        let ranges = match self.verdict(Some(old), node, stat) {
            Verdict::Contents => match self.parts.trust {
                Trust::Covered { until } if stat.ctime < until => {
                    compare::doubtful(old, stat, &node.handle, self.parts.intents.blocks(node.id))
                }
                _ => compare::whole(old, stat),
            },
            Verdict::Same | Verdict::Attributes => Vec::new(),
        };
        guard.suspected(node, &ranges);
    }

    /// Where a new file has data. Holes need no capture: no commit has anything in their place.
    fn data_of(&self, node: &Node, stat: &Stat) -> Vec<Range<u64>> {
        if stat.kind != Kind::File || stat.size == 0 {
            return Vec::new();
        }
        let all = 0..stat.size;
        let sparse = stat.blocks.saturating_mul(512) < stat.size;
        let stretches = sparse.then(|| {
            let file = self
                .parts
                .source
                .open_node(node, libc::O_RDONLY | libc::O_NOATIME)?;
            self.parts.source.data_ranges(&file, all.clone())
        });
        match stretches {
            Some(Ok(stretches)) if stretches.len() <= STRETCHES_MAX => stretches,
            // Too many of them, or it cannot be read: then the flusher says so.
            _ => vec![all; 1],
        }
    }

    fn verdict(&self, old: Option<&Inode>, node: &Node, stat: &Stat) -> Verdict {
        let doubted = self.parts.trust == Trust::Nothing || self.parts.intents.has(node.id);
        old.map_or(Verdict::Contents, |old| {
            compare::verdict(old, stat, &node.handle, doubted)
        })
    }

    fn old(&mut self, id: FileId) -> Result<Option<Arc<Inode>>, Error> {
        match &self.parts.tree {
            Some(tree) => {
                let waiting = self.waiting();
                self.inodes.get(tree, waiting, id)
            }
            None => Ok(None),
        }
    }

    /// Goes on when there is room for what it may find, unless it is asked to stop.
    fn stop_if_asked(&self) -> Result<(), Error> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            if !self.parts.epochs.is_enough_for_a_scan() {
                return Ok(());
            }
            std::thread::park_timeout(CROWDED_PAUSE);
        }
    }

    fn waiting(&self) -> Waiting<'a> {
        Waiting {
            runtime: &self.parts.runtime,
            stop: self.stop,
        }
    }

    fn marked(&mut self) {
        self.summary.marked += 1;
        self.progress.marked.fetch_add(1, Ordering::Relaxed);
    }

    /// What cannot be read is named, and stays as it last was; it must not keep everything else from being backed up. `known`: the commit has
    /// it, or something below it.
    fn pass_over(&mut self, path: &RepoPath, error: &io::Error, known: bool) -> Result<(), Error> {
        if is_gone(error) {
            // Removed meanwhile, by a request that has said so itself.
            return Ok(());
        }
        tracing::warn!(%path, %error, "cannot be read, so it is not backed up");
        self.summary.missed |= known;
        if self.summary.unreadable.len() < UNREADABLE_MAX {
            let unreadable = (path.clone(), error.to_string());
            self.summary.unreadable.push(unreadable);
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ESTALE | libc::ENOTDIR)
    )
}
