//! Epochs: every change belongs to exactly one, and a seal ends one without anybody waiting.
//!
//! A request locks the inodes that it touches (in order of file id), *then* pins the current epoch. That order makes a
//! seal a consistent cut: if B finished before A was issued, B's epoch is not later than A's.
//! The front (`mount`) and `reconcile` change things only through a guard made here.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::format::entry::{Kind, NameEntry};
use crate::id::{EpochNo, FileId};
use crate::journal::Journal;
use crate::source::{Node, Source, Stat};

/// How large things may become.
#[derive(Clone, Debug)]
pub struct Options {
    /// Preserved bytes held for the flusher; beyond it a writer waits at most 100 ms, then the epoch is folded.
    pub preserve_bytes: usize,
    /// Unlinked files kept open for the sealed epoch.
    pub kept_files: usize,
}

/// An inode of the source that the live side has in hand: its lock and the epoch it was last changed in.
pub struct LiveInode {/* node, RwLock<epoch>, kernel lookups */}

impl LiveInode {
    /// Its node.
    pub fn node(&self) -> &Node {
        todo!()
    }
    /// Its number.
    pub fn id(&self) -> FileId {
        todo!()
    }
}

/// The live side's shared state.
pub struct Epochs {/* epoch number, inflight[2], sets[2], inodes, preserve buffer, source, journal, counters */}

/// Attributes as they stood at the seal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// stat
    pub stat: Stat,
    /// Xattrs by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Target of a symlink.
    pub target: Vec<u8>,
}

impl Epochs {
    /// Starts with epoch 1 open and nothing sealed.
    pub fn new(_source: Arc<Source>, _journal: Arc<Journal>, _options: Options) -> Arc<Self> {
        todo!()
    }
    /// The live inode of a node; the same one for all who ask while anybody holds it.
    pub fn inode(&self, _node: &Node) -> Arc<LiveInode> {
        todo!()
    }
    /// The epoch that is open now.
    pub fn current(&self) -> EpochNo {
        todo!()
    }

    /// For a plain write of `range` into `inode` (also punch-hole, zero-range within the file): shared when the inode already
    /// belongs to the open epoch and nothing of `range` is still needed by the sealed one, else exclusive; preserves what is needed.
    /// On return the range is marked dirty, and recorded in the journal where the file existed before. Perform the system call,
    /// then drop the guard.
    pub fn write<'a>(
        &'a self,
        _inode: &'a Arc<LiveInode>,
        _range: Range<u64>,
    ) -> io::Result<Guard<'a>> {
        todo!()
    }
    /// For everything else: takes all `inodes` exclusively in order of id, pins, and preserves their attributes (a touched
    /// inode is marked changed). Sizes, names, ranges are then told to the guard.
    pub fn change<'a>(&'a self, _inodes: &'a [&'a Arc<LiveInode>]) -> io::Result<Guard<'a>> {
        todo!()
    }

    /// Dirty bytes of the open epoch (page-rounded) and changed inodes and names in it.
    pub fn open_size(&self) -> ChangeSize {
        todo!()
    }
    /// Ends the open epoch; `None` if it has no changes. Must not be called while a sealed epoch is unfinished. Waits, off
    /// every request's path, until the requests of the old epoch are done.
    pub fn seal(&self) -> Option<Sealed> {
        todo!()
    }
    /// Takes dirty data of the open epoch for copying ahead, at most `bytes_max` of it from one file: the ranges are no longer
    /// dirty (a write during or after the copy marks them again, and then they are captured again).
    pub fn copy_ahead(&self, _bytes_max: u64) -> Option<CopyAhead> {
        todo!()
    }
    /// Inodes touched by neither epoch may be dropped from memory once the kernel has forgotten them.
    pub fn counters(&self) -> Counters {
        todo!()
    }
}

/// How much an epoch holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChangeSize {
    /// Dirty bytes.
    pub bytes: u64,
    /// Touched inodes.
    pub inodes: u64,
    /// Changed names.
    pub names: u64,
}

/// What `status` and metrics show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Epochs folded into the next.
    pub folds: u64,
    /// Bytes that writers preserved.
    pub preserved_bytes: u64,
    /// Longest wait of a request for an older one on the same inode, microseconds.
    pub wait_max_us: u64,
}

/// The right to change some inodes within one epoch. Dropping it unpins and unlocks.
pub struct Guard<'a> {
    _epochs: &'a Epochs,
}

impl Guard<'_> {
    /// The epoch the change belongs to.
    pub fn epoch(&self) -> EpochNo {
        todo!()
    }
    /// The inode was just created: all of it is new, nothing of it is in any commit; no journal intent is owed.
    pub fn created(&mut self, _inode: &Arc<LiveInode>) {
        todo!()
    }
    /// The size goes from `old_len` to `new_len` (truncate, O_TRUNC, fallocate): marks what is cut off or gained,
    /// preserves what the sealed epoch needs of it (or folds). Call it before the system call.
    pub fn resize(
        &mut self,
        _inode: &Arc<LiveInode>,
        _old_len: u64,
        _new_len: u64,
    ) -> io::Result<()> {
        todo!()
    }
    /// A range is about to change under an exclusive guard.
    pub fn dirty(&mut self, _inode: &Arc<LiveInode>, _range: Range<u64>) -> io::Result<()> {
        todo!()
    }
    /// `name` of `dir` now points to `entry` (after the system call succeeded).
    pub fn name(&mut self, _dir: &Arc<LiveInode>, _name: &[u8], _entry: Option<NameEntry>) {
        todo!()
    }
    /// The last name of `inode` is about to go: keeps it readable for the sealed epoch if that still needs it.
    pub fn unlinking(&mut self, _inode: &Arc<LiveInode>) -> io::Result<()> {
        todo!()
    }
    /// What the open epoch says of a name: `None` if nothing, `Some(None)` if removed. For reconcile.
    pub fn recorded_name(&self, _dir: &Arc<LiveInode>, _name: &[u8]) -> Option<Option<NameEntry>> {
        todo!()
    }
    /// Whether the open epoch has a record of the inode.
    pub fn recorded_inode(&self, _inode: &Arc<LiveInode>) -> bool {
        todo!()
    }
}

/// A sealed epoch: what the flusher captures from. Dropping it unfinished folds it back.
pub struct Sealed {/* Arc<Epochs>, set */}

/// The epoch was folded into the open one: stop capturing, nothing of it is needed any more.
#[derive(Debug)]
pub struct Folded;

/// Why capturing stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Folded into the next epoch.
    #[error("epoch was folded into the next")]
    Folded,
    /// The source could not be read.
    #[error("read {id}: {source}")]
    Io {
        /// which
        id: FileId,
        /// why
        source: io::Error,
    },
}

/// What a sealed epoch says of one inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedInode {
    /// Its node.
    pub node: Node,
    /// Created, or its contents replaced, in this epoch: cut by content.
    pub fresh: bool,
    /// Dirty ranges in order, page-rounded, may reach beyond the size: what lies there is gone.
    pub dirty: Vec<Range<u64>>,
}

impl Sealed {
    /// Its number.
    pub fn epoch(&self) -> EpochNo {
        todo!()
    }
    /// Every touched inode, in order of id.
    pub fn inodes(&self) -> Vec<SealedInode> {
        todo!()
    }
    /// Every changed name: (directory, name, what it points to now; `None` if removed), in order.
    pub fn names(&self) -> Vec<(FileId, Vec<u8>, Option<NameEntry>)> {
        todo!()
    }
    /// Attributes as at the seal: preserved by a writer, or read now under the inode's lock. `None` if the inode was gone
    /// already at the seal (it has no name in the tree any more).
    pub fn attributes(&self, _id: FileId) -> Result<Option<Attributes>, CaptureError> {
        todo!()
    }
    /// Adds clean ranges to what is captured, for consolidation; false if the inode has already been changed again.
    pub fn also_needs(&self, _id: FileId, _ranges: &[Range<u64>]) -> bool {
        todo!()
    }
    /// The bytes of `range` (at most 1 MiB) exactly as at the seal; shorter where the file ended. They are no longer needed afterwards.
    pub fn take(&self, _id: FileId, _range: Range<u64>) -> Result<Bytes, CaptureError> {
        todo!()
    }
    /// Everything is captured: what was preserved is freed and the next seal may come.
    pub fn finish(self) {
        todo!()
    }
}

/// Ranges of one file of the open epoch, to be copied before the seal.
pub struct CopyAhead {
    /// What to copy.
    pub inode: SealedInode, /* and the way to read */
}

impl CopyAhead {
    /// The bytes of `range` as they are now, perhaps torn by a concurrent write, which then has marked them again.
    pub fn read(&self, _range: Range<u64>) -> io::Result<Bytes> {
        todo!()
    }
    /// The file's size now.
    pub fn size(&self) -> io::Result<u64> {
        todo!()
    }
    /// The copy failed: the ranges are dirty again.
    pub fn give_back(self) {
        todo!()
    }
}

/// Used by docs.
pub type KindOf = Kind;
