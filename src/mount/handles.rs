//! What programs have open: numbers given to the kernel, and the files and directories behind them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::inodes::Inode;
use super::write_back::Run;
use crate::source::Listing;

/// Parts of the table, each with a lock of its own: reads and writes on different handles should not meet.
const SHARDS: usize = 16;

/// An open file.
pub(super) struct OpenFile {
    pub(super) inode: Arc<Inode>,
    /// Without O_APPEND, which would make the kernel ignore where a write belongs, and without O_DIRECT, which would demand
    /// alignment that requests do not have.
    pub(super) file: File,
    pub(super) writable: bool,
    pub(super) run: Mutex<Run>,
}

/// An open directory.
pub(super) struct OpenDir {
    pub(super) inode: Arc<Inode>,
    pub(super) listing: Mutex<Listing>,
}

/// Numbers and what is behind them.
pub(super) struct Handles<T> {
    next: AtomicU64,
    shards: [RwLock<HashMap<u64, Arc<T>>>; SHARDS],
}

impl<T> Handles<T> {
    pub(super) fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
            shards: std::array::from_fn(|_| RwLock::default()),
        }
    }

    /// Gives `open` a number that no other has or ever had.
    pub(super) fn insert(&self, open: T) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.shard(number).write().insert(number, Arc::new(open));
        number
    }

    /// `EBADF` if the kernel was never given that number, or has released it.
    pub(super) fn get(&self, number: u64) -> io::Result<Arc<T>> {
        let found = self.shard(number).read().get(&number).cloned();
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// Takes it back.
    pub(super) fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.shard(number).write().remove(&number)
    }

    fn shard(&self, number: u64) -> &RwLock<HashMap<u64, Arc<T>>> {
        &self.shards[number as usize % SHARDS]
    }
}
