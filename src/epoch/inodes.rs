//! Live inodes: one object for each inode that somebody has in hand, with the lock that orders its changes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::id::{EpochNo, FileId};
use crate::metrics::Durations;
use crate::source::Node;

/// Shards of the table: more than there will be FUSE threads, so that two of them seldom meet.
const SHARDS: usize = 32;

/// An inode of the source that the live side has in hand: its lock and the epoch it was last changed in.
pub struct LiveInode {
    node: Node,
    lock: RwLock<()>,
    /// The epoch whose predecessor's view of this inode is known to be preserved. Only a cache: 0 for an inode that
    /// was dropped from memory and looked up again costs one look into the change sets, never correctness.
    epoch: AtomicU64,
}

impl LiveInode {
    fn new(node: Node) -> Self {
        Self {
            node,
            lock: RwLock::new(()),
            epoch: AtomicU64::new(0),
        }
    }

    /// Its node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its number.
    pub fn id(&self) -> FileId {
        self.node.id
    }

    /// Whether it has been turned over to `epoch`. Stable while the lock is held in any way.
    pub(crate) fn is_in(&self, epoch: EpochNo) -> bool {
        self.epoch.load(Ordering::Acquire) == epoch.0
    }

    /// Turns it over to `epoch`; the caller holds the lock exclusively.
    pub(crate) fn enter(&self, epoch: EpochNo) {
        self.epoch.store(epoch.0, Ordering::Release);
    }

    /// Locks it for reading its contents.
    pub(crate) fn unchanged(&self) -> RwLockReadGuard<'_, ()> {
        self.lock.read()
    }

    /// Locks it for a change that may run beside others; notes how long that takes, if it has to wait.
    pub(crate) fn shared(&self, waits: &Durations) -> RwLockReadGuard<'_, ()> {
        self.lock.try_read().unwrap_or_else(|| {
            let began = Instant::now();
            let lock = self.lock.read();
            waits.note(began.elapsed());
            lock
        })
    }

    /// Locks it against everybody; notes how long that takes, if it has to wait.
    pub(crate) fn exclusive(&self, waits: &Durations) -> RwLockWriteGuard<'_, ()> {
        self.lock.try_write().unwrap_or_else(|| {
            let began = Instant::now();
            let lock = self.lock.write();
            waits.note(began.elapsed());
            lock
        })
    }

    /// Locks it against everybody unless that takes longer than `patience`.
    pub(crate) fn exclusive_within(&self, patience: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        self.lock.try_write_for(patience)
    }
}

/// All live inodes by number. Holds none of them: who has one in hand keeps it.
pub(crate) struct InodeTable {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    inodes: HashMap<FileId, Weak<LiveInode>>,
    /// Sweep the dead when the map reaches this size: twice what was alive after the last sweep.
    sweep_at: usize,
}

/// Dead entries are not worth a sweep below this.
const SWEEP_MIN: usize = 256;

impl InodeTable {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::default())),
        }
    }

    /// The live inode of a node; the same one for all who ask while anybody holds it.
    pub(crate) fn get(&self, node: &Node) -> Arc<LiveInode> {
        let mut shard = self.shards[node.id.0 as usize % SHARDS].lock();
        shard.sweep();
        match shard.inodes.entry(node.id) {
            Entry::Occupied(mut entry) => entry.get().upgrade().unwrap_or_else(|| {
                let inode = Arc::new(LiveInode::new(node.clone()));
                entry.insert(Arc::downgrade(&inode));
                inode
            }),
            Entry::Vacant(entry) => {
                let inode = Arc::new(LiveInode::new(node.clone()));
                entry.insert(Arc::downgrade(&inode));
                inode
            }
        }
    }
}

impl Shard {
    fn sweep(&mut self) {
        if self.inodes.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.inodes.retain(|_, inode| inode.strong_count() > 0);
            self.sweep_at = self.inodes.len() * 2;
        }
    }
}
