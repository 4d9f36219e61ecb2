//! Reconcile: the source compared with the newest commit, in the background of every live mount, since the source may have been
//! changed while nothing was mounted. A first backup is nothing but this against an empty tree.
//!
//! It only ever says "this is what the source holds now": under the same locks and guards as a user's request, after
//! looking again. So it can run beside live changes and beside incomplete commits, and saying a thing twice does no harm.
//! `compare` decides (pure), `known` reads the tree (and `waiting` waits for it), `walk` hands directories out to threads, `scan` looks
//! at each and marks, `pay` looks at single names again. The flusher does the rest. Started by the daemon on a thread of its own.

mod compare;

mod waiting;

mod known;

mod scan;

mod walk;

mod pay;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::runtime::Handle as Runtime;

use crate::clock::Timespec;
use crate::epoch::Epochs;
use crate::id::{EpochNo, FileId};
use crate::journal::{ANY_FILE, LastStop, LogicalBlock, WHOLE_FILE};
use crate::path::RepoPath;
use crate::repo::tree::{Pages, Tree};
use crate::source::{Handle, Source};

pub use pay::pay_names;
pub use waiting::Waiting;
pub use walk::run;

/// Inodes asked for at once when numbers are taken from a tree.
const INODES_AT_ONCE: usize = 4096;

/// How far the marks of the last mount can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// The dead mount was found where it had been: nothing could reach the source without the journal knowing. Large files
    /// are compared only where it has records; for all else as [`Self::Stat`].
    Covered {
        /// When the dead mount was taken off, by the clock that the source's file system goes by. What was changed since, perhaps before
        /// the new mount was there, is compared as a whole.
        until: Timespec,
    },
    /// Size and times tell what may have changed, and the journal's records what must be compared whatever they tell.
    Stat,
    /// The journal was lost and the machine may have been down since: contents are compared, whatever anything tells.
    Nothing,
}

impl Trust {
    /// What the way in which the last mount ended lets us believe.
    pub fn after(stop: &LastStop) -> Self {
        match stop {
            // Without a journal of its own, a machine may have lost power since the last commit and nothing would tell.
            LastStop::SetAside(_) | LastStop::New => Self::Nothing,
            LastStop::Clean | LastStop::Crashed | LastStop::Rebooted => Self::Stat,
        }
    }

    /// The same where the dead mount of a life that had been compared to its end was taken off its place at `until`.
    pub fn after_dead_mount(stop: &LastStop, until: Timespec) -> Self {
        match stop {
            LastStop::Crashed => Self::Covered { until },
            other => Self::after(other),
        }
    }
}

/// What a scan works with.
pub struct Parts<P> {
    /// The source.
    pub source: Arc<Source>,
    /// Where differences are marked.
    pub epochs: Arc<Epochs>,
    /// The tree of the newest commit; `None` for a volume without any.
    pub tree: Option<Tree<P>>,
    /// Files that the journal has records of.
    pub intents: Intents,
    /// How far marks can be believed.
    pub trust: Trust,
    /// Where tree pages are fetched.
    pub runtime: Runtime,
}

/// The journal's records by file: whatever `stat` says, their contents are compared.
#[derive(Clone, Debug, Default)]
pub struct Intents(HashMap<FileId, Vec<LogicalBlock>>);

impl FromIterator<(FileId, LogicalBlock, EpochNo)> for Intents {
    fn from_iter<I: IntoIterator<Item = (FileId, LogicalBlock, EpochNo)>>(records: I) -> Self {
        let mut blocks: HashMap<FileId, Vec<LogicalBlock>> = HashMap::new();
        for (id, block, _epoch) in records {
            blocks.entry(id).or_default().push(block);
        }
        Self(blocks)
    }
}

impl Intents {
    fn has(&self, id: FileId) -> bool {
        self.0.contains_key(&id) || self.0.contains_key(&ANY_FILE)
    }

    fn blocks(&self, id: FileId) -> &[LogicalBlock] {
        match self.0.contains_key(&ANY_FILE) {
            true => &[WHOLE_FILE],
            false => self.0.get(&id).map_or(&[], Vec::as_slice),
        }
    }
}

/// How far a scan has come, for `status`.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries looked at.
    pub scanned: AtomicU64,
    /// Entries that the newest commit holds: about how many there will be. 0 if there is no commit.
    pub expected: AtomicU64,
    /// Entries that differed.
    pub marked: AtomicU64,
    /// Set when it has ended, well or not.
    pub ended: AtomicBool,
}

/// What a scan found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Entries looked at.
    pub scanned: u64,
    /// Entries that differed from the commit.
    pub marked: u64,
    /// What could not be looked at, and why: it stays in snapshots as it last was. At most [`UNREADABLE_MAX`].
    pub unreadable: Vec<(RepoPath, String)>,
    /// Whether the commit knows anything of that, so that there is something to be compared as soon as it can be looked at.
    pub missed: bool,
}

impl Summary {
    /// What another thread of the same scan found.
    fn add(&mut self, other: Self) {
        self.scanned += other.scanned;
        self.marked += other.marked;
        self.missed |= other.missed;
        self.unreadable.extend(other.unreadable);
        self.unreadable.truncate(UNREADABLE_MAX);
    }
}

/// Unreadable entries that are remembered by name; the log has all.
pub const UNREADABLE_MAX: usize = 100;

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree could not be read.
    #[error("compare with the newest snapshot: {0}")]
    Repository(#[from] crate::repo::Error),
    /// The source could not be read at all.
    #[error("scan the source: {0}")]
    Source(#[from] io::Error),
    /// Asked to stop.
    #[error("the scan was stopped")]
    Stopped,
}

/// Takes over the numbers of a tree if the source's identity map is new or was lost; goes on where an earlier call was given up, which
/// may happen at any time. To be called before anything is mounted where that can be: a number handed out meanwhile stays. Returns how
/// many were taken over.
pub async fn adopt_numbers<P: Pages + Clone>(
    source: &Source,
    tree: &Tree<P>,
) -> Result<u64, Error> {
    let mut adopted = 0;
    let mut after = None;
    if source.has_adopted() {
        return Ok(0);
    }
    loop {
        let inodes = tree.inodes(after, INODES_AT_ONCE).await?;
        let Some((last, _)) = inodes.last() else {
            source.end_adoption()?;
            return Ok(adopted);
        };
        after = Some(*last);
        for (id, inode) in inodes {
            let handle = Handle(inode.handle.into());
            if id == FileId::ROOT || handle.0.is_empty() || source.known(&handle).is_some() {
                continue;
            }
            match source.adopt(id, &handle) {
                Ok(()) => adopted += 1,
                // Two inodes of one handle: the tree remembers a file that is long gone. It will be found missing.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
