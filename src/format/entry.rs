//! What the tree holds: inodes, names, xattrs, extents and history, and where contents lie.

use std::ops::Range;

use crate::clock::{Stamp, Timespec};
use crate::id::{BlockId, ContentId, Era, FileId, FrameNo, Seq, SessionId, Tag};

mod inode;

mod place;

mod extent;

mod history;

pub use history::LABEL_MAX;

#[cfg(test)]
mod tests;

/// Bytes that are none of what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(
    /// What they should be.
    pub &'static str,
);

/// What an extent or a page pointer holds: a byte offset inside the plaintext of one frame. Never changes,
/// whatever object the frame lies in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// The block the frame was written into.
    pub block: BlockId,
    /// The frame.
    pub frame: FrameNo,
    /// Offset in the frame's plaintext in bytes.
    pub inner: u32,
}

/// Where the frame lay when the address was written. A hint: reading falls back to the block's directory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hint {
    /// Offset of the frame in its object in bytes.
    pub offset: u64,
    /// Length of the frame in its object in bytes.
    pub len: u32,
    /// For small data that rides inside a commit: that commit, since its object is named by more than its block.
    pub commit: Option<CommitName>,
}

/// An address with its hint.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// What is meant.
    pub at: Address,
    /// Where it was.
    pub hint: Hint,
}

/// All that a commit's object name holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CommitName {
    /// Era, compared first.
    pub era: Era,
    /// Time within the era; strictly increasing there.
    pub stamp: Stamp,
    /// Sequence number.
    pub seq: Seq,
    /// The writer's session.
    pub session: SessionId,
}

/// The kind of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = 1,
    /// A directory.
    Dir = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A socket.
    Socket = 5,
    /// A character device.
    CharDevice = 6,
    /// A block device.
    BlockDevice = 7,
}

/// An inode of the tree, everything `stat` would say but its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky (07777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that the tree has for it. For a directory, the source's own link count.
    pub links: u32,
    /// Size in bytes (of a symlink: of its target).
    pub size: u64,
    /// Device number for device files, else 0.
    pub rdev: u64,
    /// Last change of contents.
    pub mtime: Timespec,
    /// Last change of the inode; of the source, for comparing.
    pub ctime: Timespec,
    /// Last access as known at the seal; not part of any promise.
    pub atime: Timespec,
    /// Birth time where the source has one.
    pub btime: Option<Timespec>,
    /// Target of a symlink; empty otherwise.
    pub target: Vec<u8>,
    /// The source's file handle, for recognising the inode when it is mounted again.
    pub handle: Vec<u8>,
    /// Timestamps were too young to tell changes apart when they were read: never trust them.
    pub racy: bool,
    /// The file is overwritten in place: cut at fixed offsets, never by content.
    pub in_place: bool,
    /// Fields that a newer version wrote, kept as they are: (type, bytes).
    pub unknown: Vec<(u16, Vec<u8>)>,
}

/// What a directory entry points to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameEntry {
    /// The inode.
    pub id: FileId,
    /// Its kind.
    pub kind: Kind,
}

/// What lies in a stretch of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contents {
    /// Nothing: reads as zeros.
    Hole,
    /// Bytes beginning at `place`; all of them in that one frame.
    Data {
        /// The first byte.
        place: Place,
        /// Present where the stretch is exactly one whole content-defined chunk.
        content: Option<ContentId>,
    },
}

/// A stretch of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Bytes of the file, end exclusive.
    pub range: Range<u64>,
    /// What they are.
    pub contents: Contents,
}

/// One commit in its volume's history, as later commits remember it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    /// Its name.
    pub name: CommitName,
    /// Tag of its first frame.
    pub tag: Tag,
    /// Wall time at the seal.
    pub wall: Stamp,
    /// What it held.
    pub totals: Totals,
    /// The name a person gave it; empty if none.
    pub label: String,
    /// Published while the first scan was still going on: not an exact moment.
    pub incomplete: bool,
    /// Removed by condemnation `n`; `None` while kept.
    pub forgotten: Option<u64>,
}

/// Counts that `snapshots` and `status` show. Bytes throughout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Inodes that are not directories.
    pub files: u64,
    /// Sum of the sizes of regular files.
    pub bytes: u64,
    /// Plain bytes of contents this commit added.
    pub added: u64,
    /// The same after compression.
    pub compressed: u64,
    /// Bytes of objects it put into the store, itself included where known.
    pub stored: u64,
}

/// One change to the tree. A list of them is applied in order; later wins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Create or replace an inode.
    PutInode(FileId, Box<Inode>),
    /// Remove an inode with its xattrs and extents.
    DropInode(FileId),
    /// Create or replace a name.
    PutName {
        /// Directory.
        dir: FileId,
        /// Name in it.
        name: Vec<u8>,
        /// What it points to.
        entry: NameEntry,
    },
    /// Remove a name.
    DropName {
        /// Directory.
        dir: FileId,
        /// Name in it.
        name: Vec<u8>,
    },
    /// Replace all xattrs of an inode (names with namespace prefix; values at most 64 KiB).
    SetXattrs(FileId, Vec<(Vec<u8>, Vec<u8>)>),
    /// Replace a stretch of a file; hides what older changes say of it.
    PutExtent(FileId, Extent),
    /// Remember a commit.
    PutHistory(HistoryEntry),
}
