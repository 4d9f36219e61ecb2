//! The journal: which file and which logical block has been touched since its last commit, made durable in sled.
//!
//! A hint that widens the comparison after a crash. It never decides alone that something is unchanged.

use std::io;
use std::path::Path;

use crate::id::{EpochNo, FileId};

/// A logical block: a 64 MiB aligned stretch of a file, by number.
pub type LogicalBlock = u32;
/// Length of a logical block in bytes.
pub const LOGICAL_BLOCK_LEN: u64 = 64 << 20;

/// How the last life of this journal ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LastStop {
    /// There was none: a new volume on this machine.
    New,
    /// Everything was in order.
    Clean,
    /// Killed or crashed; the same boot, so the page cache survived.
    Crashed,
    /// The machine went down in between.
    Rebooted,
    /// The database could not be opened and was set aside here.
    SetAside(String),
}

/// An open journal.
pub struct Journal {/* sled, marker file, in-memory not-durable set */}

impl Journal {
    /// Opens it; never fails because of damage: an unusable database is set aside.
    pub fn open(_dir: &Path) -> io::Result<(Self, LastStop)> {
        todo!()
    }
    /// Notes that `block` of `id` is about to change in `epoch`. Cheap when already noted.
    pub fn record(&self, _id: FileId, _block: LogicalBlock, _epoch: EpochNo) -> io::Result<()> {
        todo!()
    }
    /// Whether `id` has records that are not durable yet.
    pub fn owes(&self, _id: FileId) -> bool {
        todo!()
    }
    /// Makes all records so far durable (group commit: concurrent callers share one).
    pub fn sync(&self) -> io::Result<()> {
        todo!()
    }
    /// Everything recorded up to and including `epoch` may go: verified in the store and safe on the source's disk.
    pub fn forget(&self, _epoch: EpochNo) -> io::Result<()> {
        todo!()
    }
    /// All records: for reconcile and `debug journal`.
    pub fn records(&self) -> io::Result<Vec<(FileId, LogicalBlock, EpochNo)>> {
        todo!()
    }
    /// Writes the clean-stop marker after a last sync.
    pub fn close_clean(&self) -> io::Result<()> {
        todo!()
    }
    /// An error after which nothing pretends to be recorded, if one has happened.
    pub fn latched(&self) -> Option<String> {
        todo!()
    }
}
