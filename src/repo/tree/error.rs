//! What can go wrong in a tree, beyond what its pages' source reports.

use crate::format::entry::{Address, Malformed};
use crate::format::page;

/// A failed tree operation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An authentic page does not hang together with its neighbours.
    #[error("tree page {}/{} does not fit the tree: {why}", .at.block.number, .at.frame)]
    Structure {
        /// The page.
        at: Address,
        /// What is wrong.
        why: &'static str,
    },
    /// The commit's inline changes cannot be read.
    #[error("inline changes: {0}")]
    Inline(#[from] page::Error),
    /// An entry cannot be read.
    #[error("tree entry: {0}")]
    Entry(#[from] Malformed),
    /// The root names more layers than the format allows.
    #[error("a tree of {0} runs, more than the format allows")]
    TooManyRuns(usize),
    /// A change cannot be put into any tree. Nothing of its list has been applied.
    #[error("cannot store {what} of inode {id}: {why}")]
    Refused {
        /// The kind of thing.
        what: &'static str,
        /// The inode.
        id: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}
