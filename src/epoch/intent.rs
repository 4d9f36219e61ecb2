//! Intents: before existing bytes change, the journal learns where. It decides alone how little that costs.

use std::ops::{Range, RangeInclusive};

use crate::epoch::Epochs;
use crate::id::EpochNo;
use crate::journal::{LOGICAL_BLOCK_LEN, LogicalBlock, WHOLE_FILE};
use crate::source::Node;

/// A change that spans more logical blocks than this is noted as one of the whole file.
const BLOCKS_MAX: u64 = 64;

impl Epochs {
    /// Notes that `range` of an existing file is about to change. After a crash the journal may narrow the comparison of a
    /// large file to the blocks that it knows of, so for such a file the note
    /// reaches the kernel before the write does, also where another writer has made it a moment ago.
    ///
    /// A journal that fails is latched: it says so to fsync and status, and no write fails because of it.
    pub(super) fn intend(&self, node: &Node, range: &Range<u64>, epoch: EpochNo) {
        if range.start >= range.end {
            return;
        }
        let mut unwritten = false;
        for block in blocks_of(range) {
            match self.journal.record(node.id, block, epoch) {
                Ok(missing) => unwritten |= missing,
                Err(_latched) => return,
            }
        }
        if unwritten && (range.end > LOGICAL_BLOCK_LEN || self.is_large(node)) {
            let _latched = self.journal.write_out();
        }
    }

    /// Not only larger than a logical block: a file cut to exactly one may have been larger, and its records are then
    /// believed for what lay beyond.
    fn is_large(&self, node: &Node) -> bool {
        // Unreadable: better one flush too many.
        let stat = self.origin.stat(node);
        stat.map_or(true, |stat| stat.size >= LOGICAL_BLOCK_LEN)
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
