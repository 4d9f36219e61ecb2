//! Intents: before existing bytes change, the journal learns where. It decides alone how little that costs.

use std::ops::{Range, RangeInclusive};

use crate::epoch::Epochs;
use crate::id::EpochNo;
use crate::journal::{Durability, LOGICAL_BLOCK_LEN, LogicalBlock, WHOLE_FILE};
use crate::source::Node;

/// A change that spans more logical blocks than this is noted as one of the whole file.
const BLOCKS_MAX: u64 = 64;

impl Epochs {
    /// Notes that `range` of an existing file is about to change, and bytes in `written` are written where others lie; as durably as
    /// that asks for:
    ///
    /// - Bytes written over in place may reach the disk long before their times do. If power fails in between, nothing but the
    ///   journal tells that file from what the last commit has. So the note is on its disk before they are written.
    /// - After a crash the journal may narrow the comparison of a large file to the blocks that it knows of. So for such a file
    ///   the note is with the kernel before the request is.
    ///
    /// Who needs that waits for it also where another writer has made the note a moment ago. It is kept until its block has been
    /// quiet for minutes, so few wait.
    ///
    /// A journal that fails is latched: it says so to fsync and status, and no write fails because of it.
    pub(super) fn intend(
        &self,
        node: &Node,
        range: &Range<u64>,
        written: &Range<u64>,
        epoch: EpochNo,
    ) {
        let Some(durability) = self.note(node, range, epoch) else {
            return;
        };
        let _latched =
            if durability < Durability::Disk && self.must_be_on_disk(node, written, epoch) {
                self.journal.sync()
            } else if durability < Durability::Kernel && self.is_in_large(node, range) {
                self.journal.write_out()
            } else {
                Ok(())
            };
    }

    /// `written` is about to be written over: what [`Self::intend`] would have to wait for is done now, while nothing is locked. It
    /// is asked again there, since a note may be forgotten in between.
    pub fn forewarn(&self, node: &Node, written: &Range<u64>) {
        let epoch = self.current();
        if self.must_be_on_disk(node, written, epoch)
            && self.note(node, written, epoch) < Some(Durability::Disk)
        {
            let _latched = self.journal.sync();
        }
    }

    /// Notes what is about to change, or what a scan doubts. Where the notes stand, at least; `None` if nothing was to be noted, or the
    /// journal refuses.
    pub(super) fn note(
        &self,
        node: &Node,
        range: &Range<u64>,
        epoch: EpochNo,
    ) -> Option<Durability> {
        if range.is_empty() {
            return None;
        }
        let mut least = Durability::Disk;
        for block in blocks_of(range) {
            least = least.min(self.journal.record(node.id, block, epoch).ok()?);
        }
        Some(least)
    }

    /// Whether there are bytes in `written` that the last commit may have, and no note of that is on the disk.
    fn must_be_on_disk(&self, node: &Node, written: &Range<u64>, epoch: EpochNo) -> bool {
        let is_on_disk = |block| self.journal.is_on_disk(node.id, block, epoch);
        if written.is_empty()
            || self.set(epoch).is_fresh(node.id)
            || blocks_of(written).all(is_on_disk)
        {
            return false;
        }
        // Unreadable: better one wait too many.
        let stat = self.origin.stat(node);
        stat.map_or(true, |stat| written.start < stat.size)
    }

    /// Not only larger than a logical block: a file cut to exactly one may have been larger, and its records are then
    /// believed for what lay beyond.
    fn is_in_large(&self, node: &Node, range: &Range<u64>) -> bool {
        // Unreadable: better one flush too many.
        let is_large = || {
            let stat = self.origin.stat(node);
            stat.map_or(true, |stat| stat.size >= LOGICAL_BLOCK_LEN)
        };
        range.end > LOGICAL_BLOCK_LEN || is_large()
    }
}

/// Where bytes are written over when a file is cut to `len`: the rest of what the file system gives a file at once, which becomes zeros and
/// may be written again at once. How much that is does not matter; nothing is left of a file that is cut to nothing.
pub fn written_by_cut(len: u64) -> Range<u64> {
    match len {
        0 => 0..0,
        _ => len..len.saturating_add(1),
    }
}

/// The logical blocks of a range that is not empty.
fn blocks_of(range: &Range<u64>) -> RangeInclusive<LogicalBlock> {
    let (first, last) = (
        range.start / LOGICAL_BLOCK_LEN,
        (range.end - 1) / LOGICAL_BLOCK_LEN,
    );
    let numbers = LogicalBlock::try_from(first)
        .ok()
        .zip(LogicalBlock::try_from(last).ok());
    match numbers {
        Some((first, last)) if u64::from(last - first) < BLOCKS_MAX && last < WHOLE_FILE => {
            first..=last
        }
        _ => WHOLE_FILE..=WHOLE_FILE,
    }
}
