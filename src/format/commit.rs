//! The body of a commit: frame 0 of a block of class commit.

use crate::clock::Stamp;
use crate::format::entry::{CommitName, Place, Totals};
use crate::id::{Generation, Tag};

/// A published epoch, decoded and authenticated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Its name.
    pub name: CommitName,
    /// Tag of the commit before it; `None` for a volume's first.
    pub previous: Option<(CommitName, Tag)>,
    /// Wall clock at the seal (the stamp in `name` may run ahead of it within an era).
    pub wall: Stamp,
    /// Generation of its writer.
    pub generation: Generation,
    /// Condemnations its writer had seen.
    pub condemned_seen: u64,
    /// The tree.
    pub tree: TreeRoot,
    /// Counts.
    pub totals: Totals,
    /// Host that wrote it.
    pub host: String,
    /// Source directory on that host.
    pub source: Vec<u8>,
    /// Name a person gave it; empty if none.
    pub label: String,
    /// Published during a first scan: not an exact moment.
    pub incomplete: bool,
    /// The next file id never handed out when this was sealed.
    pub next_file_id: u64,
}

/// The three layers of one commit's tree, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TreeRoot {
    /// The base: a copy-on-write B+tree.
    pub base: Option<PageRoot>,
    /// Sorted runs over it, oldest first, at most [`RUNS_MAX`].
    pub runs: Vec<PageRoot>,
    /// The newest changes themselves: encoded sorted entries (`format::page`), at most [`INLINE_MAX`] bytes.
    pub inline: Vec<u8>,
}

/// The root page of a base or a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageRoot {
    /// Where its root page lies.
    pub place: Place,
    /// Levels: 1 means that the root is a leaf.
    pub height: u8,
    /// Entries in all leaves.
    pub entries: u64,
    /// Plain bytes of all leaf pages.
    pub bytes: u64,
}

/// The most runs that lie over a base.
pub const RUNS_MAX: usize = 4;
/// The most bytes of inline changes.
pub const INLINE_MAX: usize = 16 << 10;
/// The most small data in bytes that rides inside a commit object.
pub const SMALL_DATA_MAX: usize = 1 << 20;
