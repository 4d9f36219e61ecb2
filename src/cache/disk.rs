//! The disk cache: one sparse file for each block, with what has been read of it and holes between. Only [`super::Cache`] calls it.
//!
//! Any number of processes share one directory without talking to each other: all write the same bytes of a frame to the same place, where
//! its address says that it lies in the object. A frame's beginning is written last, so that until then it is not there. What a power cut left torn
//! does not verify and is dropped by the reader. Nothing is synced.
//!
//! Whoever finds the directory over its bound removes the blocks not used the longest, and somebody else's having removed them first is
//! no error. The directory may be deleted at any time, also while it is in use; the room of the blocks that a mount has open is then free
//! within a second of its next reading any of them, or when it ends.
//!
//! Were there a file for each frame, finding and opening it would take half as long again as the page that is wanted from it, and 60 bytes
//! take as much room as 4 KiB.
//!
//! File names are a hash of the block's address. They say nothing of names or contents. Who has both this directory
//! and the store can tell which frames were read, but the ciphertext in the files would tell him that anyway, so that a key
//! for the names would hide nothing.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::buffers::{Buffers, PAGE_LEN};
use crate::cache::BlockKey;
use crate::clock::{Clock, SystemClock};
use crate::crypto::random;

mod file;

use file::BlockFile;
pub use file::{Form, Spot};

/// Where blocks lie, in the directory that was given.
const DIR: &str = "blocks-v1";
/// Where earlier versions kept frames. They are of no use any more.
const DIR_BEFORE: &str = "frames-v1";
/// Files kept open, with two descriptors each: of as many blocks as the cache holds by default.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// An eviction makes room down to this part of the bound, in tenths, so that the next one is some time away.
const EVICT_TO_TENTHS: u64 = 9;
/// The directory is measured again after this part of the bound has been put, since other processes put too.
const RESCAN_PART: u64 = 16;
/// Nothing longer than this part of the bound is kept.
const ENTRY_PART: u64 = 8;
/// Puts that are passed over after one failed, so that a full disk is not asked for each frame again.
const PAUSE_PUTS: u32 = 256;
/// In what `stat` counts the room of a file, in bytes.
const STAT_BLOCK_LEN: u64 = 512;
/// How far behind its beginning a file is written to in order to see whether the disk keeps holes.
const PROBE_AT: u64 = 8 << 20;
/// Separates these names from every other use of BLAKE3 in the program.
const NAME_CONTEXT: &str = "rewindfs/1/disk-cache-block";

/// Encrypted frames in a directory.
#[derive(Debug)]
pub(super) struct DiskCache {
    dir: PathBuf,
    bytes_max: u64,
    size: Mutex<Size>,
    open: Mutex<LruCache<BlockKey, Arc<BlockFile>>>,
    pause: AtomicU32,
}

/// What is known of the directory's size without looking.
#[derive(Debug, Default)]
struct Size {
    measured: Option<u64>,
    put_since: u64,
}

/// A block as a scan finds it.
struct Entry {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl DiskCache {
    /// Makes `dir` (readable by its owner alone) if it is not there. `Unsupported` where files have no holes: each block would take up all its
    /// room at once.
    pub(super) fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let cache = Self {
            dir: dir.join(DIR),
            bytes_max,
            size: Mutex::default(),
            open: Mutex::new(LruCache::new(OPEN_MAX)),
            pause: AtomicU32::new(0),
        };
        make_dir(&cache.dir)?;
        probe(&cache.dir)?;
        clear_best_effort(dir.join(DIR_BEFORE));
        Ok(cache)
    }

    /// The frame, if it is there, in one of `buffers`.
    pub(super) fn get(&self, key: &BlockKey, spot: &Spot, buffers: &Buffers) -> Option<Vec<u8>> {
        let range = spot.range()?;
        self.file(key)?.read(&range, |len| buffers.take_filled(len))
    }

    /// Bytes `part` of the frame, if it is there. They begin where a page does.
    pub(super) fn get_part(&self, key: &BlockKey, spot: &Spot, part: Range<u64>) -> Option<Bytes> {
        let all = spot.range()?;
        let range = all.start.checked_add(part.start)?..all.start.checked_add(part.end)?;
        match range.end <= all.end {
            true => self.file_of_late(key, now())?.read_pages(&range),
            false => None,
        }
    }

    /// Whether the frame is there, so far as its beginning can tell.
    pub(super) fn has(&self, key: &BlockKey, spot: &Spot) -> bool {
        let found = spot.range().zip(self.file(key));
        found.is_some_and(|(range, file)| file.has(&range))
    }

    /// Keeps a frame. Losing it is harmless, it can be fetched again: so a full or read-only disk only pauses this.
    pub(super) fn put_best_effort(&self, key: &BlockKey, spot: &Spot, frame: &[u8]) {
        let len = frame.len() as u64;
        let Some(range) = spot.range() else { return };
        let fits = len == u64::from(spot.len) && len <= self.bytes_max / ENTRY_PART;
        if !fits || self.paused() {
            return;
        }
        match self.write(key, &range, frame) {
            Ok(()) => self.account(&range),
            Err(error) => {
                tracing::debug!(%error, "disk cache takes nothing for a while");
                self.pause.store(PAUSE_PUTS, Ordering::Relaxed);
            }
        }
    }

    /// Removes a frame that did not verify. If that fails it will fail to verify again: harmless.
    pub(super) fn remove_best_effort(&self, key: &BlockKey, spot: &Spot) {
        if let Some((range, file)) = spot.range().zip(self.file(key)) {
            file.clear_best_effort(&range);
        }
    }

    fn paused(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.pause
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }

    fn write(&self, key: &BlockKey, range: &Range<u64>, frame: &[u8]) -> io::Result<()> {
        let file = match self.file(key) {
            Some(file) if file.is_writable => file,
            _ => self.make(key)?,
        };
        // What a full disk has taken of it does not verify.
        file.write(frame, range.start)
            .inspect_err(|_| file.clear_best_effort(range))
    }

    /// The block's file, if there is one. Marks it as used.
    fn file(&self, key: &BlockKey) -> Option<Arc<BlockFile>> {
        let kept = self.open.lock().get(key).cloned();
        if let Some(file) = kept {
            if file.touch(now()) {
                return Some(file);
            }
            // Removed by somebody, and so may be others, whose room is free only when nobody has them open.
            let mut open = self.open.lock();
            let removed = std::mem::replace(&mut *open, LruCache::new(OPEN_MAX));
            drop(open);
            drop(removed);
        }
        let path = self.path(key);
        let opened = match options().read(true).write(true).open(&path) {
            // Another user's, or a disk that has become read-only.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                BlockFile::new(options().read(true).open(&path).ok()?, false)
            }
            opened => BlockFile::new(opened.ok()?, true),
        };
        let file = self.keep(key, opened);
        file.touch(now());
        Some(file)
    }

    /// The same without looking again at one that was looked at a moment ago.
    fn file_of_late(&self, key: &BlockKey, now: SystemTime) -> Option<Arc<BlockFile>> {
        let kept = self.open.lock().get(key).cloned();
        kept.filter(|file| file.was_touched_lately(now))
            .or_else(|| self.file(key))
    }

    fn make(&self, key: &BlockKey) -> io::Result<Arc<BlockFile>> {
        let mut options = options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let path = self.path(key);
        let file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir(&self.dir)?;
                options.open(&path)?
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs::remove_file(&path)?;
                options.open(&path)?
            }
            opened => opened?,
        };
        Ok(self.keep(key, BlockFile::new(file, true)))
    }

    fn keep(&self, key: &BlockKey, file: BlockFile) -> Arc<BlockFile> {
        let file = Arc::new(file);
        let fallen = self.open.lock().push(*key, file.clone());
        // Closed when the lock is free.
        drop(fallen);
        file
    }

    /// Counts what was put, and makes room when the directory is, or may be, over its bound.
    fn account(&self, range: &Range<u64>) {
        const PAGE: u64 = PAGE_LEN as u64;
        let mut known = self.size.lock();
        known.put_since += range.end.next_multiple_of(PAGE) - range.start / PAGE * PAGE;
        let may_be_over = match known.measured {
            None => true,
            Some(measured) => {
                measured + known.put_since > self.bytes_max
                    || known.put_since > self.bytes_max / RESCAN_PART
            }
        };
        if may_be_over {
            known.measured = Some(self.evict_best_effort());
            known.put_since = 0;
        }
    }

    /// Brings the directory within its bound, oldest use first; gives the bytes that stay. A block that cannot be removed is counted as
    /// staying.
    fn evict_best_effort(&self) -> u64 {
        let mut entries = scan(&self.dir);
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        if bytes <= self.bytes_max {
            return bytes;
        }
        entries.sort_unstable_by_key(|entry| entry.used);
        let wanted = self.bytes_max / 10 * EVICT_TO_TENTHS;
        for entry in entries {
            if bytes <= wanted {
                break;
            }
            match remove(&entry.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                _ => bytes -= entry.bytes,
            }
        }
        bytes
    }

    fn path(&self, key: &BlockKey) -> PathBuf {
        self.dir.join(name(key))
    }
}

/// All blocks.
fn scan(dir: &Path) -> Vec<Entry> {
    let Ok(listing) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let entries = listing.flatten().filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        Some(Entry {
            used: meta.modified().unwrap_or(UNIX_EPOCH),
            bytes: meta.blocks() * STAT_BLOCK_LEN,
            path: entry.path(),
        })
    });
    entries.collect()
}

/// Removes a block and empties it, in this order: whoever has it open writes to it no more once it has no name, and would hold its room.
fn remove(path: &Path) -> io::Result<()> {
    let file = options().write(true).open(path);
    fs::remove_file(path)?;
    if let Ok(file) = file {
        // Of somebody else's, who has it open, the room stays his for as long.
        let _ = file.set_len(0);
    }
    Ok(())
}

/// How every block is opened: what is no file of ours leads nowhere, and nobody waits for it.
fn options() -> fs::OpenOptions {
    let mut options = File::options();
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// `Unsupported` if files in `dir` have no holes. Where that cannot be told, because the disk is full, say, they are taken to have some.
fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!("{:016x}.probe", u64::from_le_bytes(random())));
    let meta = options()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|file| {
            file.write_all_at(b"x", PROBE_AT)?;
            file.metadata()
        });
    let _ = fs::remove_file(&path);
    match meta {
        Ok(meta) if meta.blocks() * STAT_BLOCK_LEN >= PROBE_AT / 2 => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "files have no holes there",
        )),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it, beside everything else: it may hold a million files. What is left is removed the next time.
fn clear_best_effort(dir: PathBuf) {
    if dir.exists() {
        let _started = std::thread::Builder::new().spawn(move || fs::remove_dir_all(dir));
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(SystemClock.now().0)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// 32 hexadecimal digits.
fn name(key: &BlockKey) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(NAME_CONTEXT);
    hasher.update(&key.volume.0);
    hasher.update(&key.block.to_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests;
