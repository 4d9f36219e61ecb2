//! The plain directory, by descriptor and file handle only. A path string is used once, to open the root, before
//! anything is mounted over it; afterwards every access goes by descriptor, so a mount over the source never deadlocks.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use crate::clock::Timespec;
use crate::format::entry::Kind;
use crate::id::FileId;

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
    /// Times.
    pub mtime: Timespec,
    /// Times.
    pub ctime: Timespec,
    /// Times.
    pub atime: Timespec,
    /// Birth time where the file system has one.
    pub btime: Option<Timespec>,
}

/// An open source directory tree.
pub struct Source {/* root O_PATH descriptor, mount descriptor for handles, privileged?, identity, descriptor cache */}

impl Source {
    /// Opens `dir` and the identity map in `identity_dir`. `next_id` is at least one more than the newest commit's ids.
    pub fn open(_dir: &Path, _identity_dir: &Path, _next_id: FileId) -> Result<Self, Error> {
        todo!()
    }
    /// The root: always [`FileId::ROOT`].
    pub fn root(&self) -> Node {
        todo!()
    }
    /// A number never handed out before and never again, that all ids handed out so far are below.
    pub fn next_id(&self) -> FileId {
        todo!()
    }
    /// The entry `name` of `dir`, not following symlinks: its number (handed out now if it is new) and its stat.
    pub fn lookup(&self, _dir: &Node, _name: &[u8]) -> io::Result<(Node, Stat)> {
        todo!()
    }
    /// The node of an open descriptor (O_PATH or not).
    pub fn identify(&self, _fd: &OwnedFd) -> io::Result<(Node, Stat)> {
        todo!()
    }
    /// The number known for a handle, without handing one out.
    pub fn known(&self, _handle: &Handle) -> Option<FileId> {
        todo!()
    }
    /// Tells the identity map that `handle` is `id` (from a commit's tree, when the map was lost).
    pub fn adopt(&self, _id: FileId, _handle: &Handle) -> io::Result<()> {
        todo!()
    }
    /// The inode is gone for good.
    pub fn forget_identity_best_effort(&self, _node: &Node) {
        todo!()
    }
    /// An O_PATH descriptor of a node. `ESTALE` if it no longer exists.
    pub fn path_fd(&self, _node: &Node) -> io::Result<Arc<OwnedFd>> {
        todo!()
    }
    /// Opens a node for I/O with these `O_*` flags.
    pub fn open_node(&self, _node: &Node, _flags: i32) -> io::Result<File> {
        todo!()
    }
    /// Stats a node.
    pub fn stat(&self, _node: &Node) -> io::Result<Stat> {
        todo!()
    }
    /// Every xattr a tree keeps (user, trusted, security, system.posix_acl_*), sorted by name. Empty where unsupported.
    pub fn xattrs(&self, _node: &Node) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        todo!()
    }
    /// Target of a symlink.
    pub fn read_link(&self, _node: &Node) -> io::Result<Vec<u8>> {
        todo!()
    }
    /// All names of a directory but `.` and `..`.
    pub fn read_dir(&self, _node: &Node) -> io::Result<Vec<Vec<u8>>> {
        todo!()
    }
    /// The stretches of `range` that are not holes (SEEK_DATA), in order.
    pub fn data_ranges(&self, _file: &File, _range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        todo!()
    }
    /// `syncfs` of the source's file system.
    pub fn sync_filesystem(&self) -> io::Result<()> {
        todo!()
    }
    /// Free bytes for this user on the source's file system.
    pub fn free_bytes(&self) -> io::Result<u64> {
        todo!()
    }
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
