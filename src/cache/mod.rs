//! Frames by address: plain in memory, encrypted on disk. Never fetches, never sees a key, never fails a reader.
//!
//! Only `repo` calls it; `daemon` and `cli` merely open one. What the disk cache gives back is *not* trusted: whoever
//! reads an entry decrypts it, which proves it, and drops it if that fails.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::buffers::{self, Buffers};
use crate::format::page::Page;
use crate::id::{BlockId, FrameNo, VolumeId};

mod memory;

mod disk;

use disk::DiskCache;
pub use disk::{Form, Spot};
use memory::ByteLru;

/// How large the caches may become.
#[derive(Clone, Debug)]
pub struct Options {
    /// Plain frames and decoded pages in memory, in bytes.
    pub memory_bytes: usize,
    /// Where encrypted frames lie; `None` for no disk cache.
    pub dir: Option<PathBuf>,
    /// Encrypted frames on disk, in bytes.
    pub disk_bytes: u64,
}

/// The share of the memory that decoded tree pages have to themselves: one part in four. Reading a large file through
/// would otherwise push out the pages that every lookup needs.
const PAGES_PART: usize = 4;

/// What a cached frame is found by. Volume ids are random, so one cache serves any number of repositories.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameKey {
    /// The volume.
    pub volume: VolumeId,
    /// The block the frame was written into.
    pub block: BlockId,
    /// The frame.
    pub frame: FrameNo,
}

impl FrameKey {
    fn of_block(&self) -> BlockKey {
        BlockKey {
            volume: self.volume,
            block: self.block,
        }
    }
}

/// What a block on disk is found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct BlockKey {
    volume: VolumeId,
    block: BlockId,
}

/// Both caches. Shared by all volumes and mounts of a process; cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Parts>);

struct Parts {
    plain: Mutex<ByteLru<FrameKey, Bytes>>,
    pages: Mutex<ByteLru<FrameKey, Arc<Page>>>,
    disk: Option<DiskCache>,
}

impl Cache {
    /// Opens the disk cache and makes an empty memory cache. A disk cache that cannot be opened is an error that the caller may turn into none.
    pub fn open(options: &Options) -> std::io::Result<Self> {
        let disk = match &options.dir {
            Some(dir) => Some(DiskCache::open(dir, options.disk_bytes)?),
            None => None,
        };
        Ok(Self::with(options.memory_bytes, disk))
    }

    /// Memory only.
    pub fn in_memory(bytes: usize) -> Self {
        Self::with(bytes, None)
    }

    fn with(bytes: usize, disk: Option<DiskCache>) -> Self {
        let for_pages = bytes / PAGES_PART;
        Self(Arc::new(Parts {
            plain: Mutex::new(ByteLru::new(bytes - for_pages)),
            pages: Mutex::new(ByteLru::new(for_pages)),
            disk,
        }))
    }

    /// A frame's plaintext, if it is in memory.
    pub fn plain(&self, key: &FrameKey) -> Option<Bytes> {
        self.0.plain.lock().get(key).cloned()
    }

    /// Keeps a frame's plaintext in memory; it may lie in a filled buffer.
    pub fn put_plain(&self, key: FrameKey, plaintext: Bytes) {
        let room = buffers::room_of(plaintext.len());
        self.0.plain.lock().put(key, plaintext, room);
    }

    /// A decoded page, if it is in memory.
    pub fn page(&self, key: &FrameKey) -> Option<Arc<Page>> {
        self.0.pages.lock().get(key).cloned()
    }

    /// Keeps a decoded page that stands for `bytes` bytes of memory.
    pub fn put_page(&self, key: FrameKey, page: Arc<Page>, bytes: usize) {
        self.0.pages.lock().put(key, page, bytes);
    }

    /// Whether there is a disk cache at all.
    pub fn has_disk(&self) -> bool {
        self.0.disk.is_some()
    }

    /// A frame as it was put, if it is on disk, in one of `buffers`. Unproven: the caller verifies it. Blocks on the disk.
    pub fn encrypted(&self, key: &FrameKey, spot: &Spot, buffers: &Buffers) -> Option<Vec<u8>> {
        let disk = self.0.disk.as_ref()?;
        disk.get(&key.of_block(), spot, buffers)
    }

    /// Bytes `part` of what [`Self::encrypted`] would give; of a frame that is cut, and beginning where a piece does.
    pub fn part_of_encrypted(
        &self,
        key: &FrameKey,
        spot: &Spot,
        part: Range<u64>,
    ) -> Option<Bytes> {
        let disk = self.0.disk.as_ref()?;
        disk.get_part(&key.of_block(), spot, part)
    }

    /// Whether a frame is on disk, so far as a look at its beginning can tell. Blocks on the disk.
    pub fn has_encrypted(&self, key: &FrameKey, spot: &Spot) -> bool {
        let disk = self.0.disk.as_ref();
        disk.is_some_and(|disk| disk.has(&key.of_block(), spot))
    }

    /// Keeps a frame on disk. Blocks on the disk; does nothing when that is full or gone.
    pub fn put_encrypted(&self, key: &FrameKey, spot: &Spot, frame: &[u8]) {
        if let Some(disk) = &self.0.disk {
            disk.put_best_effort(&key.of_block(), spot, frame);
        }
    }

    /// Forgets what the disk cache has of a frame, because it did not verify.
    pub fn drop_encrypted(&self, key: &FrameKey, spot: &Spot) {
        if let Some(disk) = &self.0.disk {
            disk.remove_best_effort(&key.of_block(), spot);
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("disk", &self.0.disk)
            .finish_non_exhaustive()
    }
}
