//! O_PATH descriptors of inodes: a bounded number kept, the rest found again.
//!
//! With CAP_DAC_READ_SEARCH an inode is found by its file handle alone. Without it (an ordinary user, or a file system
//! without handles) it is found by walking from the root through the names that it and its directories have been seen under, and the
//! handle proves at each step that the right one was found, so that a rename on the way can lead nowhere wrong. An inode that
//! has lost the last name that is known cannot always be found at all, so its descriptor is pinned.

use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::handle::Territory;
use super::identity::{Identity, Place};
use super::{Handle, Node};
use crate::id::FileId;
use crate::sys;

/// Descriptors kept at most, even where the system would allow more: a directory and its files in use, many times over.
const KEPT_MAX: u64 = 4096;
/// And at least, however tight the limit is.
const KEPT_MIN: u64 = 64;
/// The part of the process's descriptors used here; the rest is for files that programs have open, and for the flusher.
const SHARE: u64 = 4;
/// Levels walked from the root: a path of PATH_MAX bytes has at most half as many components.
const DEPTH_MAX: usize = libc::PATH_MAX as usize / 2;
/// Walks tried for one inode in a round: each learns of one more name to avoid.
const WALKS_MAX: usize = 256;
/// Opening for reference only; a symlink is itself.
const BY_REFERENCE: i32 = libc::O_PATH | libc::O_NOFOLLOW;

/// How inodes are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// open_by_handle_at(2).
    ByHandle,
    /// Remembered names.
    ByName,
}

/// The descriptors.
pub(super) struct Descriptors {
    root: Arc<OwnedFd>,
    access: Access,
    kept: Mutex<LruCache<FileId, Arc<OwnedFd>>>,
    pinned: Mutex<HashMap<FileId, Arc<OwnedFd>>>,
    pinned_max: usize,
    /// Shared by what moves or takes names, exclusive for whoever must not be passed by any of that.
    renames: RwLock<()>,
}

impl Descriptors {
    /// `root` stays open for good, and stands for the mount in open_by_handle_at(2).
    pub(super) fn new(root: Arc<OwnedFd>, access: Access) -> io::Result<Self> {
        let share = sys::open_files_max()? / SHARE;
        let kept = usize::try_from(share.clamp(KEPT_MIN, KEPT_MAX)).unwrap_or(usize::MAX);
        Ok(Self {
            root,
            access,
            kept: Mutex::new(LruCache::new(NonZeroUsize::new(kept).expect("at least 64"))),
            pinned: Mutex::new(HashMap::new()),
            pinned_max: kept,
            renames: RwLock::new(()),
        })
    }

    /// Finds out whether handles can be opened here.
    pub(super) fn access_of(root: &OwnedFd, handle: &Handle) -> Access {
        let opened = handle
            .for_kernel()
            .map(|(kind, bytes)| sys::open_handle(root, kind, bytes, BY_REFERENCE));
        match opened {
            Some(Ok(_)) => Access::ByHandle,
            _ => Access::ByName,
        }
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// A descriptor of `node`. `ESTALE` if the inode is gone, or not where it was last seen; `EXDEV` for a submount.
    pub(super) fn get(
        &self,
        node: &Node,
        territory: &Territory,
        identity: &Identity,
    ) -> io::Result<Arc<OwnedFd>> {
        if node.id == FileId::ROOT {
            return Ok(Arc::clone(&self.root));
        }
        if node.handle.is_submount() {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        if let Some(fd) = self.at_hand(node.id) {
            return Ok(fd);
        }
        let fd = match self.access {
            Access::ByHandle => Arc::new(self.open_handle(&node.handle, BY_REFERENCE)?),
            Access::ByName => self.walk(node.id, territory, identity)?,
        };
        self.keep(node.id, Arc::clone(&fd));
        Ok(fd)
    }

    /// Opens `node` for I/O.
    pub(super) fn open(
        &self,
        node: &Node,
        flags: i32,
        territory: &Territory,
        identity: &Identity,
    ) -> io::Result<OwnedFd> {
        let direct = self.access == Access::ByHandle
            && node.id != FileId::ROOT
            && !node.handle.is_submount();
        if direct {
            match self.open_handle(&node.handle, flags) {
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {}
                opened => return opened,
            }
        }
        sys::reopen(&*self.get(node, territory, identity)?, flags)
    }

    /// Keeps a descriptor for later.
    pub(super) fn keep(&self, id: FileId, fd: Arc<OwnedFd>) {
        // What falls out is closed after the lock is free.
        let _fallen = self.kept.lock().push(id, fd);
    }

    /// Lets go of a descriptor that would keep a removed inode's space in use.
    pub(super) fn drop_kept(&self, id: FileId) {
        let _closed = self.kept.lock().pop(&id);
    }

    /// Holds the inode until [`Self::unpin`]: its last name goes. With too many of them it is let go instead, and
    /// found again only as long as somebody has it open.
    pub(super) fn pin(&self, id: FileId, fd: Arc<OwnedFd>) {
        self.drop_kept(id);
        let mut pinned = self.pinned.lock();
        if pinned.len() < self.pinned_max {
            pinned.insert(id, fd);
        }
    }

    /// Lets go of a pinned inode.
    pub(super) fn unpin(&self, id: FileId) {
        let closed = self.pinned.lock().remove(&id);
        drop(closed);
        self.drop_kept(id);
    }

    /// To be held while something gets another name or loses one, and not while descriptors are asked for. The new name is remembered
    /// before, the old one forgotten after.
    pub(super) fn renaming(&self) -> RwLockReadGuard<'_, ()> {
        self.renames.read()
    }

    fn at_hand(&self, id: FileId) -> Option<Arc<OwnedFd>> {
        if let Some(fd) = self.kept.lock().get(&id) {
            return Some(Arc::clone(fd));
        }
        self.pinned.lock().get(&id).cloned()
    }

    fn open_handle(&self, handle: &Handle, flags: i32) -> io::Result<OwnedFd> {
        let (kind, bytes) = handle
            .for_kernel()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        sys::open_handle(&*self.root, kind, bytes, flags)
    }

    /// Whether an inode is held because no name of it is known.
    pub(super) fn is_pinned(&self, id: FileId) -> bool {
        self.pinned.lock().contains_key(&id)
    }

    /// From the nearest directory at hand down to `id`, by any of the names that each has been seen under. `ESTALE` if none is
    /// right, any other error if it may be there and cannot be reached.
    fn walk(
        &self,
        id: FileId,
        territory: &Territory,
        identity: &Identity,
    ) -> io::Result<Arc<OwnedFd>> {
        let beside_renames = self.walk_round(id, territory, identity);
        match beside_renames {
            // Something on the way may have been renamed to and fro while we went by. Now nothing is, through the mount at least.
            Err(Lost::Everywhere(_)) => {
                let _nothing_moves = self.renames.write();
                self.walk_round(id, territory, identity)
            }
            known => known,
        }
        .map_err(io::Error::from)
    }

    /// Tries every way there is, each once.
    fn walk_round(
        &self,
        id: FileId,
        territory: &Territory,
        identity: &Identity,
    ) -> Result<Arc<OwnedFd>, Lost> {
        let mut wrong = HashSet::new();
        let (mut denied, mut may_have_moved) = (None, false);
        for _ in 0..WALKS_MAX {
            match self.trail(id, identity, &wrong) {
                Ok((from, trail)) => match self.follow(from, trail, territory, identity) {
                    Ok(found) => return Ok(found),
                    Err(Astray::At(step)) => {
                        wrong.insert(step);
                        may_have_moved = true;
                    }
                    Err(Astray::Denied(step, error)) => {
                        wrong.insert(step);
                        denied = Some(error);
                    }
                    Err(Astray::Failed(error)) => return Err(Lost::Failed(error)),
                },
                Err(Some(step)) => drop(wrong.insert(step)),
                Err(None) => break,
            }
        }
        let is_denied = denied.is_some();
        let error = denied.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ESTALE));
        // No name at all may mean as well that one was given and another taken while they were listed.
        Err(match is_denied && !may_have_moved {
            true => Lost::Failed(error),
            false => Lost::Everywhere(error),
        })
    }

    /// The way up from `id` to a directory at hand: that, and the steps down from it, the last one first. Without a way: the step
    /// that must not be tried again, or nothing if no name of `id` itself is left.
    fn trail(
        &self,
        id: FileId,
        identity: &Identity,
        wrong: &HashSet<Step>,
    ) -> Result<(Arc<OwnedFd>, Vec<Step>), Option<Step>> {
        let mut trail: Vec<Step> = Vec::new();
        // Names that are no longer true could lead in a circle.
        let mut passed = HashSet::from([id]);
        let mut at = id;
        loop {
            if at == FileId::ROOT {
                return Ok((Arc::clone(&self.root), trail));
            }
            if let Some(fd) = self.at_hand(at) {
                return Ok((fd, trail));
            }
            let usable = |place: &Place| {
                trail.len() < DEPTH_MAX
                    && !passed.contains(&place.0)
                    && !wrong.contains(&(at, place.clone()))
            };
            let Some(place) = identity.places().of(at).into_iter().find(usable) else {
                return Err(trail.pop());
            };
            let parent = place.0;
            passed.insert(parent);
            trail.push((at, place));
            at = parent;
        }
    }

    /// Goes down a trail and proves each step.
    fn follow(
        &self,
        mut dir: Arc<OwnedFd>,
        trail: Vec<Step>,
        territory: &Territory,
        identity: &Identity,
    ) -> Result<Arc<OwnedFd>, Astray> {
        for step in trail.into_iter().rev() {
            let (id, (_, name)) = &step;
            let fd = match sys::open_at(&*dir, name, BY_REFERENCE, 0) {
                Ok(fd) => fd,
                Err(error) => return Err(Astray::because(step, error)),
            };
            let handle = territory.handle(&fd, b"").map_err(Astray::Failed)?;
            if identity.known(&handle).map_err(Astray::Failed)? != Some(*id) {
                return Err(Astray::At(step));
            }
            dir = Arc::new(fd);
            self.keep(*id, Arc::clone(&dir));
        }
        Ok(dir)
    }
}

/// A step down: to an inode, by a name in a directory.
type Step = (FileId, Place);

/// Why no way led to an inode.
enum Lost {
    /// It is under none of its names, as far as can be seen.
    Everywhere(io::Error),
    /// It may not be reached, or nothing can be said of it.
    Failed(io::Error),
}

impl From<Lost> for io::Error {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Everywhere(error) | Lost::Failed(error) => error,
        }
    }
}

/// Why a trail did not lead to its end.
enum Astray {
    /// This step leads nowhere, or to somebody else.
    At(Step),
    /// This step may be right, and we may not take it.
    Denied(Step, io::Error),
    /// Nothing can be said of the inode: out of descriptors, or a broken disk.
    Failed(io::Error),
}

impl Astray {
    fn because(step: Step, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ELOOP) => Self::At(step),
            Some(libc::EACCES | libc::EPERM) => Self::Denied(step, error),
            _ => Self::Failed(error),
        }
    }
}
