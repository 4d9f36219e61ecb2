//! The walk: directory by directory, names and inodes of the source beside those of the tree. What differs is looked at
//! again under its locks and marked. Memory grows with the directories still to be visited, not with the files.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::epoch::LiveInode;
use crate::format::entry::{Inode, Kind, NameEntry};
use crate::id::FileId;
use crate::path::RepoPath;
use crate::reconcile::compare::{Verdict, verdict};
use crate::reconcile::{Error, Parts, Progress, Summary, Trust, UNREADABLE_MAX};
use crate::repo::tree::{Pages, Tree};
use crate::source::{Node, Stat};

/// Names read from the tree at once.
const NAMES_AT_ONCE: usize = 1024;

/// Scans the whole source and marks what differs. The caller holds back commits (but incomplete ones) until it returns; on
/// an error it must not let them go.
pub fn run<P: Pages + Clone>(
    parts: &Parts<P>,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Summary, Error> {
    let mut scan = Scan {
        parts,
        progress,
        stop,
        pending: VecDeque::new(),
        visited: HashSet::new(),
        summary: Summary::default(),
    };
    parts.epochs.watch_moves();
    let root = parts.source.root();
    let stat = parts.source.stat(&root)?;
    scan.inode(&root, &RepoPath::root(), &stat)?;
    scan.pending.push_back((root, RepoPath::root()));
    scan.walk()?;
    // What was moved while it was being scanned may have left a place not yet visited for one that had been.
    while let Some(moved) = parts.epochs.take_moved(true) {
        for node in moved {
            scan.moved(node)?;
        }
        scan.walk()?;
    }
    Ok(scan.summary)
}

struct Scan<'a, P> {
    parts: &'a Parts<P>,
    progress: &'a Progress,
    stop: &'a AtomicBool,
    pending: VecDeque<(Node, RepoPath)>,
    visited: HashSet<FileId>,
    summary: Summary,
}

impl<P: Pages + Clone> Scan<'_, P> {
    fn walk(&mut self) -> Result<(), Error> {
        while let Some((dir, path)) = self.pending.pop_front() {
            if self.visited.insert(dir.id) {
                self.directory(&dir, &path)?;
            }
        }
        Ok(())
    }

    /// An inode that a user moved or linked meanwhile.
    fn moved(&mut self, node: Node) -> Result<(), Error> {
        let stat = match self.parts.source.stat(&node) {
            Ok(stat) => stat,
            Err(error) => return self.pass_over(&RepoPath::root(), &error),
        };
        self.inode(&node, &RepoPath::root(), &stat)?;
        if stat.kind == Kind::Dir {
            self.pending.push_back((node, RepoPath::root()));
        }
        Ok(())
    }

    /// Compares a directory's names with the tree's, both in byte order.
    fn directory(&mut self, dir: &Node, path: &RepoPath) -> Result<(), Error> {
        let mut names = match self.parts.source.read_dir(dir) {
            Ok(names) => names,
            // What is mounted inside the source is not part of it.
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => return Ok(()),
            Err(error) => return self.pass_over(path, &error),
        };
        names.sort_unstable();
        let mut known = KnownNames::of(self.parts.tree.as_ref(), dir.id);
        for name in names {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            while let Some(missing) = known.take_before(&self.parts.runtime, &name)? {
                self.missing(dir, &missing)?;
            }
            let entry = known.take(&self.parts.runtime, &name)?;
            self.name(dir, path, &name, entry)?;
        }
        while let Some(missing) = known.take_next(&self.parts.runtime)? {
            self.missing(dir, &missing)?;
        }
        Ok(())
    }

    /// A name that the source has; `known` is what the tree has there.
    fn name(
        &mut self,
        dir: &Node,
        path: &RepoPath,
        name: &[u8],
        known: Option<NameEntry>,
    ) -> Result<(), Error> {
        let (node, stat) = match self.parts.source.lookup_in_passing(dir, name) {
            Ok(found) => found,
            Err(error) => return self.pass_over(&path.join(name), &error),
        };
        self.progress.scanned.fetch_add(1, Ordering::Relaxed);
        self.summary.scanned += 1;
        let same_name = known.is_some_and(|entry| entry.id == node.id && entry.kind == stat.kind);
        if same_name {
            self.inode(&node, &path.join(name), &stat)?;
        } else {
            self.mark_name(dir, path, name, &node)?;
        }
        if stat.kind == Kind::Dir {
            self.pending.push_back((node, path.join(name)));
        }
        Ok(())
    }

    /// An inode under a name that both agree on (or that needs no saying).
    fn inode(&mut self, node: &Node, path: &RepoPath, stat: &Stat) -> Result<(), Error> {
        let old = self.old(node.id)?;
        if self.verdict(old.as_ref(), node, stat) == Verdict::Same {
            return Ok(());
        }
        let live = self.parts.epochs.inode(node);
        let inodes = [&live];
        let mut guard = self.parts.epochs.change(&inodes)?;
        if let Err(error) = self.mark_contents(&mut guard, &live, old.as_ref()) {
            return self.pass_over(path, &error);
        }
        self.marked();
        Ok(())
    }

    /// A name that differs: whatever it points to now, looked up again under the locks of both.
    fn mark_name(
        &mut self,
        dir: &Node,
        path: &RepoPath,
        name: &[u8],
        found: &Node,
    ) -> Result<(), Error> {
        let parent = self.parts.epochs.inode(dir);
        let mut node = found.clone();
        loop {
            let old = self.old(node.id)?;
            let child = self.parts.epochs.inode(&node);
            let inodes = [&parent, &child];
            let mut guard = self.parts.epochs.change(&inodes)?;
            let (now, stat) = match self.parts.source.lookup_in_passing(dir, name) {
                Ok(now) => now,
                Err(error) => return self.pass_over(&path.join(name), &error),
            };
            if now != node {
                node = now;
                continue;
            }
            let entry = NameEntry {
                id: node.id,
                kind: stat.kind,
            };
            guard.name(&parent, name, Some(entry));
            if let Err(error) = self.mark_contents(&mut guard, &child, old.as_ref()) {
                return self.pass_over(&path.join(name), &error);
            }
            self.marked();
            return Ok(());
        }
    }

    /// A name that the tree has and the source has not, looked up again under the directory's lock.
    fn missing(&mut self, dir: &Node, name: &[u8]) -> Result<(), Error> {
        let parent = self.parts.epochs.inode(dir);
        let inodes = [&parent];
        let mut guard = self.parts.epochs.change(&inodes)?;
        // A request may have removed it and said so already: saying it again does no harm.
        match self.parts.source.lookup_in_passing(dir, name) {
            Err(error) if is_gone(&error) => {
                guard.name(&parent, name, None);
                self.marked();
                Ok(())
            }
            Err(error) => self.pass_over(&RepoPath::root().join(name), &error),
            // Made meanwhile, by a request that has said so itself.
            Ok(_) => Ok(()),
        }
    }

    /// Marks contents if they may differ, from a stat under the lock.
    fn mark_contents(
        &self,
        guard: &mut crate::epoch::Guard<'_>,
        live: &Arc<LiveInode>,
        old: Option<&Inode>,
    ) -> io::Result<()> {
        let stat = self.parts.source.stat(live.node())?;
        if stat.kind != Kind::File {
            return Ok(());
        }
        match old {
            None => guard.discovered(live, stat.size),
            Some(old) if self.verdict(Some(old), live.node(), &stat) == Verdict::Contents => {
                let end = stat.size.max(old.size);
                if end > 0 {
                    guard.dirty(live, 0..end)?;
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn verdict(&self, old: Option<&Inode>, node: &Node, stat: &Stat) -> Verdict {
        let doubted = self.parts.trust == Trust::Nothing || self.parts.intents.has(node.id);
        old.map_or(Verdict::Contents, |old| {
            verdict(old, stat, &node.handle, doubted)
        })
    }

    fn old(&self, id: FileId) -> Result<Option<Inode>, Error> {
        match &self.parts.tree {
            Some(tree) => Ok(self.parts.runtime.block_on(tree.inode(id))?),
            None => Ok(None),
        }
    }

    fn marked(&mut self) {
        self.summary.marked += 1;
        self.progress.marked.fetch_add(1, Ordering::Relaxed);
    }

    /// What cannot be read is named, and stays as it last was; it must not keep everything else from being backed up. What is
    /// gone was removed by a request that has said so itself.
    fn pass_over(&mut self, path: &RepoPath, error: &io::Error) -> Result<(), Error> {
        if is_gone(error) {
            return Ok(());
        }
        tracing::warn!(%path, %error, "cannot be read, so it is not backed up");
        if self.summary.unreadable.len() < UNREADABLE_MAX {
            self.summary
                .unreadable
                .push((path.clone(), error.to_string()));
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

/// The names that the tree has for one directory, in byte order, read piece by piece.
struct KnownNames<'a, P> {
    tree: Option<&'a Tree<P>>,
    dir: FileId,
    ready: VecDeque<(Vec<u8>, NameEntry)>,
    after: Option<Vec<u8>>,
}

impl<'a, P: Pages + Clone> KnownNames<'a, P> {
    fn of(tree: Option<&'a Tree<P>>, dir: FileId) -> Self {
        Self {
            tree,
            dir,
            ready: VecDeque::new(),
            after: None,
        }
    }

    fn peek(
        &mut self,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Option<&(Vec<u8>, NameEntry)>, Error> {
        if self.ready.is_empty()
            && let Some(tree) = self.tree
        {
            let names =
                runtime.block_on(tree.names(self.dir, self.after.as_deref(), NAMES_AT_ONCE))?;
            match names.last() {
                Some((last, _)) => self.after = Some(last.clone()),
                None => self.tree = None,
            }
            self.ready.extend(names);
        }
        Ok(self.ready.front())
    }

    fn take_next(&mut self, runtime: &tokio::runtime::Handle) -> Result<Option<Vec<u8>>, Error> {
        self.peek(runtime)?;
        Ok(self.ready.pop_front().map(|(name, _)| name))
    }

    /// The next name if it comes before `name`.
    fn take_before(
        &mut self,
        runtime: &tokio::runtime::Handle,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        match self.peek(runtime)? {
            Some((next, _)) if next.as_slice() < name => self.take_next(runtime),
            _ => Ok(None),
        }
    }

    /// What the tree has for `name`, if that is the next.
    fn take(
        &mut self,
        runtime: &tokio::runtime::Handle,
        name: &[u8],
    ) -> Result<Option<NameEntry>, Error> {
        match self.peek(runtime)? {
            Some((next, entry)) if next == name => {
                let entry = *entry;
                self.ready.pop_front();
                Ok(Some(entry))
            }
            _ => Ok(None),
        }
    }
}
