//! The plain directory, by descriptor and file handle only. A path string is used once, to open the root, before
//! anything is mounted over it; afterwards every access goes by descriptor, so a mount over the source never deadlocks.
//!
//! What is mounted *inside* the source is not crossed: such a place shows as an empty directory that cannot be changed.
//! `source` refuses nothing and has no opinion on what may be backed up; it is called by `mount`, `epoch`, `reconcile` and the
//! daemon. Nothing here writes to the source but `changes`, which `mount` calls for its users.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::clock::Timespec;
use crate::format::entry::Kind;
use crate::id::FileId;
use crate::sys;

mod identity;

mod descriptors;
mod handle;

mod changes;
mod listing;
mod xattrs;

#[cfg(test)]
mod tests;

pub use self::changes::{Caller, Unmade};
use self::descriptors::{Access, Descriptors};
use self::handle::Territory;
use self::identity::Identity;
pub use self::listing::{Listed, Listing};
pub use self::xattrs::VALUE_LEN_MAX as XATTR_LEN_MAX;

/// The kernel's file handle of an inode (type and bytes): inode number and generation, so never confused by reuse.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Handle(pub Box<[u8]>);

/// An inode of the source as the live side knows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// The volume's number for it.
    pub id: FileId,
    /// How the source's file system finds it.
    pub handle: Handle,
}

/// `stat` without the parts that differ between source and mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission bits 07777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Link count of the source.
    pub links: u32,
    /// Size in bytes.
    pub size: u64,
    /// 512-byte blocks in use.
    pub blocks: u64,
    /// Device number.
    pub rdev: u64,
    /// The file system it lies on, to notice submounts.
    pub dev: u64,
    /// Preferred I/O size.
    pub block_size: u32,
    /// Last change of contents.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Last access.
    pub atime: Timespec,
    /// Birth time where the file system has one.
    pub btime: Option<Timespec>,
}

impl Stat {
    /// What an open descriptor (O_PATH or not) leads to.
    pub fn of(fd: &impl AsFd) -> io::Result<Self> {
        Ok(sys::stat(fd)?.into())
    }
}

impl From<sys::Statx> for Stat {
    fn from(raw: sys::Statx) -> Self {
        Self {
            kind: match raw.mode & libc::S_IFMT {
                libc::S_IFDIR => Kind::Dir,
                libc::S_IFLNK => Kind::Symlink,
                libc::S_IFIFO => Kind::Fifo,
                libc::S_IFSOCK => Kind::Socket,
                libc::S_IFCHR => Kind::CharDevice,
                libc::S_IFBLK => Kind::BlockDevice,
                _ => Kind::File,
            },
            mode: (raw.mode & 0o7777) as u16,
            uid: raw.uid,
            gid: raw.gid,
            links: raw.links,
            size: raw.size,
            blocks: raw.blocks,
            rdev: raw.rdev,
            dev: raw.dev,
            block_size: raw.block_size,
            mtime: raw.mtime,
            ctime: raw.ctime,
            atime: raw.atime,
            btime: raw.btime,
        }
    }
}

/// An open source directory tree.
pub struct Source {
    root: Arc<OwnedFd>,
    root_node: Node,
    territory: Territory,
    descriptors: Descriptors,
    identity: Identity,
    /// Root: may create files for others.
    privileged: bool,
}

impl Source {
    /// The same as a user without privileges sees it: inodes are found by name alone.
    #[cfg(test)]
    pub(crate) fn open_by_name(
        dir: &Path,
        identity_dir: &Path,
        next_id: FileId,
    ) -> Result<Self, Error> {
        Self::open_with(dir, identity_dir, next_id, Some(Access::ByName))
    }

    /// Opens `dir` and the identity map in `identity_dir`. `next_id` is at least one more than the newest commit's ids.
    pub fn open(dir: &Path, identity_dir: &Path, next_id: FileId) -> Result<Self, Error> {
        Self::open_with(dir, identity_dir, next_id, None)
    }

    fn open_with(
        dir: &Path,
        identity_dir: &Path,
        next_id: FileId,
        access: Option<Access>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Open {
            path: dir.display().to_string(),
            source,
        };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let root = Arc::new(sys::open(dir, flags).map_err(failed)?);
        let (territory, handle) = Territory::of(&*root).map_err(failed)?;
        let access = access.unwrap_or_else(|| Descriptors::access_of(&root, &handle));
        Ok(Self {
            descriptors: Descriptors::new(Arc::clone(&root), access).map_err(failed)?,
            identity: Identity::open(identity_dir, next_id)?,
            root_node: Node {
                id: FileId::ROOT,
                handle,
            },
            root,
            territory,
            privileged: sys::effective_uid() == 0,
        })
    }

    /// Whether the map in `identity_dir` says by itself how far numbers have been given out. If not, only the newest commit can.
    pub fn knows_numbers(identity_dir: &Path) -> bool {
        Identity::knows_numbers(identity_dir)
    }

    /// The root: always [`FileId::ROOT`].
    pub fn root(&self) -> Node {
        self.root_node.clone()
    }

    /// A number never handed out before and never again, that all ids handed out so far are below.
    pub fn next_id(&self) -> FileId {
        self.identity.next_id()
    }

    /// The bound with which the numbers of this life began: no earlier life has handed out one above it.
    pub fn first_id(&self) -> FileId {
        self.identity.first_id()
    }

    /// The entry `name` of `dir`, not following symlinks: its number (handed out now if it is new) and its stat.
    /// `ENOENT` if there is none, `EINVAL` for what cannot be a name.
    pub fn lookup(&self, dir: &Node, name: &[u8]) -> io::Result<(Node, Stat)> {
        let (node, stat, fd) = self.find(dir, name)?;
        if !node.handle.is_submount() {
            self.descriptors.keep(node.id, Arc::new(fd));
        }
        Ok((node, stat))
    }

    /// The same for a walk over many entries: their descriptors are not kept.
    pub fn lookup_in_passing(&self, dir: &Node, name: &[u8]) -> io::Result<(Node, Stat)> {
        self.find(dir, name).map(|(node, stat, _)| (node, stat))
    }

    /// The node of an entry without its stat: the cheapest question that can be asked of a name.
    pub fn entry(&self, dir: &Node, name: &[u8]) -> io::Result<Node> {
        check_name(name)?;
        not_in_submount(dir)?;
        let handle = self.territory.handle(&*self.path_fd(dir)?, name)?;
        let node = self.number(handle, dir.id)?;
        self.seen(dir, name, &node);
        Ok(node)
    }

    /// The node of an open descriptor (O_PATH or not).
    pub fn identify(&self, fd: &OwnedFd) -> io::Result<(Node, Stat)> {
        self.identify_near(fd, FileId::ROOT)
    }

    /// The number known for a handle, without handing one out. `None` too if the map cannot be read.
    pub fn known(&self, handle: &Handle) -> Option<FileId> {
        if *handle == self.root_node.handle {
            return Some(FileId::ROOT);
        }
        self.identity
            .known(handle)
            .inspect_err(|error| tracing::error!(%error, "read the identity map"))
            .ok()
            .flatten()
    }

    /// Tells the identity map that `handle` is `id` (from a commit's tree, when the map was lost).
    /// `AlreadyExists` if the inode has been given another number since.
    pub fn adopt(&self, id: FileId, handle: &Handle) -> io::Result<()> {
        if id == FileId::ROOT || *handle == self.root_node.handle {
            return Ok(());
        }
        self.identity.adopt(id, handle)
    }

    /// Whether the identity map holds what a commit's tree could tell it: [`Self::end_adoption`] was called since it was new or lost.
    /// False too if the map cannot be read.
    pub fn has_adopted(&self) -> bool {
        self.identity
            .has_adopted()
            .inspect_err(|error| tracing::error!(%error, "read the identity map"))
            .unwrap_or(false)
    }

    /// All numbers of a tree have been adopted, or there is none. Outlives whatever was adopted.
    pub fn end_adoption(&self) -> io::Result<()> {
        self.identity.end_adoption()
    }

    /// The inode is gone for good.
    pub fn forget_identity_best_effort(&self, node: &Node) {
        self.descriptors.unpin(node.id);
        self.identity.forget_best_effort(node.id, &node.handle);
    }

    /// An O_PATH descriptor of a node. `ESTALE` if it no longer exists, `EXDEV` for a submount.
    pub fn path_fd(&self, node: &Node) -> io::Result<Arc<OwnedFd>> {
        self.descriptors.get(node, &self.territory, &self.identity)
    }

    /// Opens a node for I/O with these `O_*` flags. `O_NOATIME` is left out where it is not permitted.
    pub fn open_node(&self, node: &Node, flags: i32) -> io::Result<File> {
        let open = |flags| {
            self.descriptors
                .open(node, flags, &self.territory, &self.identity)
                .map(File::from)
        };
        match open(flags) {
            Err(error)
                if error.raw_os_error() == Some(libc::EPERM) && flags & libc::O_NOATIME != 0 =>
            {
                open(flags & !libc::O_NOATIME)
            }
            opened => opened,
        }
    }

    /// Stats a node.
    pub fn stat(&self, node: &Node) -> io::Result<Stat> {
        if node.handle.is_submount() {
            return self.submount_stat();
        }
        Stat::of(&*self.path_fd(node)?)
    }

    /// Target of a symlink.
    pub fn read_link(&self, node: &Node) -> io::Result<Vec<u8>> {
        sys::read_link(&*self.path_fd(node)?)
    }

    /// All names of a directory but `.` and `..`.
    pub fn read_dir(&self, node: &Node) -> io::Result<Vec<Vec<u8>>> {
        let mut listing = self.open_dir(node)?;
        let mut names = Vec::new();
        while let Some(entry) = listing.next_entry()? {
            if entry.name != b"." && entry.name != b".." {
                names.push(entry.name);
            }
        }
        Ok(names)
    }

    /// A directory to be read piece by piece.
    pub fn open_dir(&self, node: &Node) -> io::Result<Listing> {
        if node.handle.is_submount() {
            return Ok(Listing::new(None));
        }
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let fd = self
            .descriptors
            .open(node, flags, &self.territory, &self.identity)?;
        Ok(Listing::new(Some(fd)))
    }

    /// The stretches of `range` that are not holes (SEEK_DATA), in order. All of it where the file system cannot tell.
    pub fn data_ranges(&self, file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let start = match sys::seek(file, at as i64, libc::SEEK_DATA) {
                Ok(start) => start,
                // No data from here to the end of the file.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => break,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    let len = file.metadata()?.len();
                    found.push(at..range.end.min(len.max(at)));
                    break;
                }
                Err(error) => return Err(error),
            };
            if start >= range.end {
                break;
            }
            let end = match sys::seek(file, start as i64, libc::SEEK_HOLE) {
                Ok(end) => end.min(range.end),
                // Cut off since: what is left is a hole.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => break,
                Err(error) => return Err(error),
            };
            found.push(start..end);
            at = end;
        }
        found.retain(|stretch| !stretch.is_empty());
        Ok(found)
    }

    /// `syncfs` of the source's file system.
    pub fn sync_filesystem(&self) -> io::Result<()> {
        sys::sync_filesystem(&*self.root)
    }

    /// Free bytes for this user on the source's file system.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = self.filesystem()?;
        Ok(stat.available.saturating_mul(stat.fragment.into()))
    }

    /// What statvfs(3) says of the source's file system.
    pub fn filesystem(&self) -> io::Result<sys::Statvfs> {
        sys::statvfs(&*self.root)
    }

    /// `node` is seen as `name` in `dir`, or is about to be: a name that is remembered before it is given is never missed.
    /// Needed only where inodes are found by name; free elsewhere.
    pub fn remember(&self, dir: &Node, name: &[u8], node: &Node) {
        if self.descriptors.access() == Access::ByName {
            self.identity.places().remember(node.id, dir.id, name);
        }
    }

    /// `node` is not `name` in `dir` any more (or never became it). Free where inodes are found by handle.
    pub fn forget_name(&self, dir: &Node, name: &[u8], node: &Node) {
        if self.descriptors.access() == Access::ByName {
            let places = self.identity.places();
            places.forget_best_effort(node.id, dir.id, name);
        }
    }

    /// Whether an inode that could not be found may well be there: it has been seen under names that have not been taken from
    /// it through us. Where inodes are found by handle, what is not found is gone.
    pub fn may_be_elsewhere(&self, node: &Node) -> bool {
        self.descriptors.access() == Access::ByName
            && !self.identity.places().of(node.id).is_empty()
    }

    /// Why the volume cannot take note of what it should, if that is so: for `status`.
    pub fn trouble(&self) -> Option<String> {
        self.identity.trouble()
    }

    fn find(&self, dir: &Node, name: &[u8]) -> io::Result<(Node, Stat, OwnedFd)> {
        check_name(name)?;
        not_in_submount(dir)?;
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let fd = sys::open_at(&*self.path_fd(dir)?, name, flags, 0)?;
        let (node, stat) = self.identify_near(&fd, dir.id)?;
        self.seen(dir, name, &node);
        Ok((node, stat, fd))
    }

    /// A name was looked at and leads to `node`. One that was held for want of a name can be let go.
    fn seen(&self, dir: &Node, name: &[u8], node: &Node) {
        if self.descriptors.access() == Access::ByName {
            self.remember(dir, name, node);
            if self.descriptors.is_pinned(node.id) {
                self.descriptors.unpin(node.id);
            }
        }
    }

    fn identify_near(&self, fd: &impl AsFd, near: FileId) -> io::Result<(Node, Stat)> {
        let node = self.number(self.territory.handle(fd, b"")?, near)?;
        let stat = if node.handle.is_submount() {
            self.submount_stat()?
        } else {
            sys::stat(fd)?.into()
        };
        Ok((node, stat))
    }

    fn number(&self, handle: Handle, near: FileId) -> io::Result<Node> {
        if handle == self.root_node.handle {
            return Ok(self.root());
        }
        let id = self.identity.number(&handle, near)?;
        Ok(Node { id, handle })
    }

    /// What a place shows where something else is mounted.
    fn submount_stat(&self) -> io::Result<Stat> {
        Ok(Stat {
            mode: 0o555,
            links: 2,
            size: 0,
            blocks: 0,
            ..sys::stat(&*self.root)?.into()
        })
    }
}

/// Nothing is found where something else is mounted.
fn not_in_submount(dir: &Node) -> io::Result<()> {
    if dir.handle.is_submount() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    Ok(())
}

/// A single component: nothing that would lead out of the directory.
fn check_name(name: &[u8]) -> io::Result<()> {
    let wrong = matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, b'/' | 0));
    if wrong {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(())
}

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be opened.
    #[error("open source directory {path}: {source}")]
    Open {
        /// where
        path: String,
        /// why
        source: io::Error,
    },
    /// Identity map.
    #[error("identity map {path}: {why}")]
    Identity {
        /// where
        path: String,
        /// why
        why: String,
    },
}
