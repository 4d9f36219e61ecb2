//! The inodes that the kernel knows: one for each number it has been given and not yet forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Timespec;
use crate::epoch::LiveInode;
use crate::format::entry::Kind;
use crate::id::FileId;
use crate::source::{Node, Stat};

/// Parts of the table, each with a lock of its own: more than there are loop threads.
const SHARDS: usize = 32;
/// Set-user-id and set-group-id.
const SET_ID_BITS: u16 = 0o6000;

/// An inode that the kernel knows.
pub(super) struct Inode {
    live: Arc<LiveInode>,
    /// How often the kernel has been told of it, less what it has forgotten. Changed under the shard's lock.
    lookups: AtomicU64,
    /// May have set-id bits, so that a write has to look. Wrong only towards "may".
    set_id: AtomicBool,
    /// Its last name is gone.
    unnamed: AtomicBool,
    /// Only for files that have been opened: most are looked at and never opened.
    contents: Mutex<Option<Box<Contents>>>,
}

/// What the kernel's page cache holds of a file.
#[derive(Default)]
struct Contents {
    /// The file as it was when nothing but what went through us can have changed it since.
    seen: Option<Version>,
    /// Handles open for writing: while there are any, the page cache and the file change together.
    writers: u32,
}

/// Two versions of a file that differ in contents differ in this.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    mtime: Timespec,
    size: u64,
}

impl Version {
    fn of(stat: &Stat) -> Self {
        Self {
            mtime: stat.mtime,
            size: stat.size,
        }
    }
}

impl Inode {
    fn new(live: Arc<LiveInode>, lookups: u64) -> Self {
        Self {
            live,
            lookups: AtomicU64::new(lookups),
            set_id: AtomicBool::new(false),
            unnamed: AtomicBool::new(false),
            contents: Mutex::new(None),
        }
    }

    pub(super) fn live(&self) -> &Arc<LiveInode> {
        &self.live
    }

    pub(super) fn node(&self) -> &Node {
        self.live.node()
    }

    pub(super) fn id(&self) -> FileId {
        self.live.id()
    }

    /// Whether a write by an ordinary user may have to take set-id bits away.
    pub(super) fn may_have_set_id(&self) -> bool {
        self.set_id.load(Ordering::Acquire)
    }

    /// Takes note of a stat.
    pub(super) fn notice(&self, stat: &Stat) {
        let set_id = stat.kind == Kind::File && stat.mode & SET_ID_BITS != 0;
        if self.set_id.load(Ordering::Relaxed) != set_id {
            self.set_id.store(set_id, Ordering::Release);
        }
    }

    /// A handle is opened. True if the kernel may keep what it has cached: nobody but us has changed the file since.
    pub(super) fn opened(&self, stat: &Stat, writable: bool) -> bool {
        let mut contents = self.contents.lock();
        let contents = contents.get_or_insert_default();
        let now = Version::of(stat);
        let unchanged = contents.writers > 0 || contents.seen == Some(now);
        contents.seen = Some(now);
        contents.writers += u32::from(writable);
        unchanged
    }

    /// A handle open for writing is closed; `stat` is the file afterwards, if that could be learnt.
    pub(super) fn closed_writer(&self, stat: Option<&Stat>) {
        if let Some(contents) = self.contents.lock().as_mut() {
            contents.writers = contents.writers.saturating_sub(1);
            contents.seen = stat.map(Version::of);
        }
    }

    /// A request of ours has changed the file from `before` to `after` without a handle. What the kernel has cached stays good
    /// only if it was good before.
    pub(super) fn changed(&self, before: &Stat, after: &Stat) {
        self.notice(after);
        if let Some(contents) = self.contents.lock().as_mut()
            && contents.seen == Some(Version::of(before))
        {
            contents.seen = Some(Version::of(after));
        }
    }
}

/// The table.
pub(super) struct Inodes {
    shards: [Mutex<HashMap<FileId, Arc<Inode>>>; SHARDS],
}

impl Inodes {
    /// Knows the root, which is never forgotten.
    pub(super) fn new(root: Arc<LiveInode>) -> Self {
        let inodes = Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        };
        let root = Arc::new(Inode::new(root, u64::MAX / 2));
        inodes.shard(root.id()).lock().insert(root.id(), root);
        inodes
    }

    /// The inode of a number; `None` if the kernel does not know it.
    pub(super) fn get(&self, id: FileId) -> Option<Arc<Inode>> {
        self.shard(id).lock().get(&id).cloned()
    }

    /// The kernel is about to be told of this inode once more.
    pub(super) fn hold(&self, live: Arc<LiveInode>) -> Arc<Inode> {
        let mut shard = self.shard(live.id()).lock();
        let inode = shard
            .entry(live.id())
            .or_insert_with(|| Arc::new(Inode::new(live, 0)));
        inode.lookups.fetch_add(1, Ordering::Relaxed);
        Arc::clone(inode)
    }

    /// The kernel forgets `lookups` times. The inode, if it was for the last time.
    pub(super) fn forget(&self, id: FileId, lookups: u64) -> Option<Arc<Inode>> {
        if id == FileId::ROOT {
            return None;
        }
        let mut shard = self.shard(id).lock();
        let inode = shard.get(&id)?;
        let left = inode
            .lookups
            .load(Ordering::Relaxed)
            .saturating_sub(lookups);
        inode.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return None;
        }
        shard.remove(&id)
    }

    /// The last name of `id` is gone. False if the kernel does not know it, so that no forget will come.
    pub(super) fn unnamed(&self, id: FileId) -> bool {
        match self.shard(id).lock().get(&id) {
            Some(inode) => {
                inode.unnamed.store(true, Ordering::Relaxed);
                true
            }
            None => false,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, id: FileId) -> &Mutex<HashMap<FileId, Arc<Inode>>> {
        &self.shards[id.0 as usize % SHARDS]
    }
}

impl Inode {
    /// Whether its last name is gone.
    pub(super) fn is_unnamed(&self) -> bool {
        self.unnamed.load(Ordering::Relaxed)
    }
}
