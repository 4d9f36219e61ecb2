//! An open directory of a snapshot: offsets that stay good for as long as it is open, however large the directory.
//!
//! The tree orders names by bytes and never changes, so the offset of a name is simply its number. A reader that goes
//! straight on costs one look-up a batch; one that jumps back (`seekdir`) is walked to its place again.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::format::entry::{Kind, NameEntry};
use crate::id::FileId;
use crate::repo::Error;
use crate::snapshot::tree_fs::TreeFs;

/// Names looked up at once: more than one reply of the kernel's page of 4 KiB holds, few enough to stay cheap.
const BATCH: usize = 128;

/// One entry as the kernel is to see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Inode number.
    pub id: FileId,
    /// Kind.
    pub kind: Kind,
    /// Name; `.` and `..` included.
    pub name: Vec<u8>,
    /// The offset from which reading goes on after this entry.
    pub next: u64,
}

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    id: FileId,
    reached: Mutex<Reached>,
}

/// How many names a reader has had, and the last of them.
#[derive(Clone, Debug, Default)]
struct Reached {
    names: u64,
    last: Option<Vec<u8>>,
}

/// `.` and `..` come before the names.
const DOTS: u64 = 2;

impl Directory {
    /// Opens directory `id`.
    pub fn new(id: FileId) -> Self {
        Self {
            id,
            reached: Mutex::default(),
        }
    }

    /// Some entries from `offset` on; none at the end.
    pub async fn read(&self, fs: &Arc<TreeFs>, offset: u64) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        if offset == 0 {
            listed.push(dot(self.id, b".", 1));
        }
        if offset <= 1 {
            listed.push(dot(fs.parent(self.id), b"..", DOTS));
        }
        let reached = self.walk_to(fs, offset.saturating_sub(DOTS)).await?;
        let Some(reached) = reached else {
            return Ok(listed);
        };
        let names = fs.names(self.id, reached.last.as_deref(), BATCH).await?;
        for (number, (name, NameEntry { id, kind })) in (reached.names..).zip(names) {
            listed.push(Listed {
                id,
                kind,
                name,
                next: number + 1 + DOTS,
            });
        }
        Ok(listed)
    }

    /// Remembers that the kernel took everything up to and including `entry`.
    pub fn took(&self, entry: &Listed) {
        if let Some(names) = entry.next.checked_sub(DOTS).filter(|&names| names > 0) {
            *self.reached.lock() = Reached {
                names,
                last: Some(entry.name.clone()),
            };
        }
    }

    /// The place after `names` names; `None` if the directory has fewer.
    async fn walk_to(&self, fs: &TreeFs, names: u64) -> Result<Option<Reached>, Error> {
        let known = self.reached.lock().clone();
        let mut at = if known.names <= names {
            known
        } else {
            Reached::default()
        };
        while at.names < names {
            let step = (names - at.names).min(BATCH as u64) as usize;
            let found = fs.names(self.id, at.last.as_deref(), step).await?;
            if found.len() < step {
                return Ok(None);
            }
            at = Reached {
                names: at.names + step as u64,
                last: found.into_iter().next_back().map(|(name, _)| name),
            };
        }
        Ok(Some(at))
    }
}

fn dot(id: FileId, name: &[u8], next: u64) -> Listed {
    Listed {
        id,
        kind: Kind::Dir,
        name: name.to_vec(),
        next,
    }
}
