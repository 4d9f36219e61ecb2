//! The disk cache: one file for each frame, as it lies in the store or cut into pieces. Only [`super::Cache`] calls it.
//!
//! Any number of processes share one directory without talking to each other: entries appear by rename, so a name holds
//! a whole entry or none; whoever finds a shard over its share removes the entries not used the longest, and somebody else's
//! having removed them first is no error. The directory may be deleted at any time, also while it is in use. Nothing
//! is synced: a file that a power cut left torn does not verify and is dropped by the reader.
//!
//! File names are a hash of the frame's address. They say nothing of names or contents. Who has both this directory
//! and the store can tell which frames were read, but the ciphertext in the files would tell him that anyway, so that a key
//! for the names would hide nothing.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::buffers::Buffers;
use crate::cache::FrameKey;
use crate::clock::{Clock, SystemClock};

/// Directories that entries are spread over. Each is kept within its share by a scan of itself alone, so no index of
/// all entries is held in memory; 16 keep such a scan near 0.1 s with a million entries, and let even a cache of 16 MiB hold the
/// largest frame.
const SHARDS: usize = 16;
/// An eviction makes room down to this part of the share, in tenths, so that the next one is some time away.
const EVICT_TO_TENTHS: u64 = 9;
/// A shard is measured again after this part of its share has been put, since other processes put too.
const RESCAN_PART: u64 = 8;
/// Puts that are passed over after one failed, so that a full disk is not asked for each frame again.
const PAUSE_PUTS: u32 = 256;
/// An entry's time of use is refreshed at most this often: a read should not cost a write.
const TOUCH_AFTER: Duration = Duration::from_secs(300);
/// A temporary file this old belongs to a process that died.
const STALE_AFTER: Duration = Duration::from_secs(3600);
/// What temporary files end with; entries have no dot.
const TEMPORARY: &str = ".tmp";
/// Separates these names from every other use of BLAKE3 in the program.
const NAME_CONTEXT: &str = "rewindfs/1/disk-cache-name";

/// Encrypted frames in a directory.
#[derive(Debug)]
pub(super) struct DiskCache {
    dir: PathBuf,
    shard_bytes_max: u64,
    shards: [Mutex<Shard>; SHARDS],
    pause: AtomicU32,
}

/// What is known of a shard's size without looking.
#[derive(Debug, Default)]
struct Shard {
    measured: Option<u64>,
    put_since: u64,
}

/// An entry as a scan finds it.
struct Entry {
    used: SystemTime,
    len: u64,
    path: PathBuf,
}

impl DiskCache {
    /// Makes `dir` (readable by its owner alone) if it is not there.
    pub(super) fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let cache = Self {
            dir: dir.join("frames-v1"),
            shard_bytes_max: bytes_max / SHARDS as u64,
            shards: Default::default(),
            pause: AtomicU32::new(0),
        };
        (0..SHARDS).try_for_each(|shard| make_dir(&cache.shard_dir(shard)))?;
        Ok(cache)
    }

    /// The entry, if it is there and `len` bytes long, in one of `buffers`.
    pub(super) fn get(&self, key: &FrameKey, len: u32, buffers: &Buffers) -> Option<Vec<u8>> {
        self.read(key, len, 0..len.into(), |len| buffers.take_filled(len))
    }

    /// Bytes `range` of the entry, if it is there and `len` bytes long.
    pub(super) fn get_part(&self, key: &FrameKey, len: u32, range: Range<u64>) -> Option<Vec<u8>> {
        self.read(key, len, range, |len| vec![0; len])
    }

    fn read(
        &self,
        key: &FrameKey,
        len: u32,
        range: Range<u64>,
        buffer: impl FnOnce(usize) -> Vec<u8>,
    ) -> Option<Vec<u8>> {
        let file = File::open(self.path(key)).ok()?;
        let meta = file.metadata().ok()?;
        if meta.len() != u64::from(len) || range.end > meta.len() {
            return None;
        }
        let mut bytes = buffer(usize::try_from(range.end.checked_sub(range.start)?).ok()?);
        file.read_exact_at(&mut bytes, range.start).ok()?;
        touch_best_effort(&file, meta.modified().ok());
        Some(bytes)
    }

    /// Whether the entry is there and `len` bytes long.
    pub(super) fn has(&self, key: &FrameKey, len: u32) -> bool {
        fs::metadata(self.path(key)).is_ok_and(|meta| meta.len() == u64::from(len))
    }

    /// Keeps an entry. Losing it is harmless, it can be fetched again: so a full or read-only disk only pauses this.
    pub(super) fn put_best_effort(&self, key: &FrameKey, frame: &[u8]) {
        let len = frame.len() as u64;
        if len > self.shard_bytes_max || self.paused() {
            return;
        }
        match self.write(key, frame) {
            Ok(()) => self.account(shard_of(&name(key)), len),
            Err(error) => {
                tracing::debug!(%error, "disk cache takes nothing for a while");
                self.pause.store(PAUSE_PUTS, Ordering::Relaxed);
            }
        }
    }

    /// Removes an entry that did not verify. If that fails it will fail to verify again: harmless.
    pub(super) fn remove_best_effort(&self, key: &FrameKey) {
        let _ = fs::remove_file(self.path(key));
    }

    fn paused(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.pause
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
    }

    fn write(&self, key: &FrameKey, frame: &[u8]) -> io::Result<()> {
        let name = name(key);
        let dir = self.shard_dir(shard_of(&name));
        let unique = u64::from_le_bytes(crate::crypto::random());
        let temporary = dir.join(format!("{unique:016x}{TEMPORARY}"));
        let mut file = match File::create_new(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir(&dir)?;
                File::create_new(&temporary)?
            }
            opened => opened?,
        };
        let written = file
            .write_all(frame)
            .and_then(|()| fs::rename(&temporary, dir.join(name)));
        if written.is_err() {
            // What is left of it is removed by a later scan if not now.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Counts what was put, and makes room when the shard is, or may be, over its share.
    fn account(&self, shard: usize, len: u64) {
        let mut known = self.shards[shard].lock();
        known.put_since += len;
        let may_be_over = match known.measured {
            None => true,
            Some(measured) => {
                measured + known.put_since > self.shard_bytes_max
                    || known.put_since > self.shard_bytes_max / RESCAN_PART
            }
        };
        if may_be_over {
            known.measured = Some(self.evict_best_effort(shard));
            known.put_since = 0;
        }
    }

    /// Brings a shard within its share, oldest use first; gives the bytes that stay. An entry that cannot be removed is counted as staying.
    fn evict_best_effort(&self, shard: usize) -> u64 {
        let mut entries = scan(&self.shard_dir(shard));
        let mut bytes: u64 = entries.iter().map(|entry| entry.len).sum();
        if bytes <= self.shard_bytes_max {
            return bytes;
        }
        entries.sort_unstable_by_key(|entry| entry.used);
        let wanted = self.shard_bytes_max / 10 * EVICT_TO_TENTHS;
        for entry in entries {
            if bytes <= wanted {
                break;
            }
            match fs::remove_file(&entry.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                _ => bytes -= entry.len,
            }
        }
        bytes
    }

    fn path(&self, key: &FrameKey) -> PathBuf {
        let name = name(key);
        self.shard_dir(shard_of(&name)).join(name)
    }

    fn shard_dir(&self, shard: usize) -> PathBuf {
        self.dir.join(format!("{shard:x}"))
    }
}

/// All entries of a shard; removes temporary files of the dead on the way.
fn scan(dir: &Path) -> Vec<Entry> {
    let Ok(listing) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let now = now();
    let mut entries = Vec::new();
    for entry in listing.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let used = meta.modified().unwrap_or(UNIX_EPOCH);
        let temporary = entry
            .file_name()
            .as_encoded_bytes()
            .ends_with(TEMPORARY.as_bytes());
        if temporary && now.duration_since(used).is_ok_and(|age| age > STALE_AFTER) {
            let _ = fs::remove_file(entry.path());
        } else if !temporary {
            entries.push(Entry {
                used,
                len: meta.len(),
                path: entry.path(),
            });
        }
    }
    entries
}

/// Marks an entry as used now. If it cannot, the entry is merely evicted earlier.
fn touch_best_effort(file: &File, used: Option<SystemTime>) {
    let now = now();
    let recent =
        used.is_some_and(|used| now.duration_since(used).is_ok_and(|age| age < TOUCH_AFTER));
    if !recent {
        let _ = file.set_times(FileTimes::new().set_modified(now));
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
fn name(key: &FrameKey) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(NAME_CONTEXT);
    hasher.update(&key.volume.0);
    hasher.update(&key.block.to_bytes());
    hasher.update(&key.frame.0.to_le_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The shard of an entry: its name's first digit.
fn shard_of(name: &str) -> usize {
    let digit = name.as_bytes()[0];
    usize::from(if digit.is_ascii_digit() {
        digit - b'0'
    } else {
        digit - b'a' + 10
    })
}

#[cfg(test)]
mod tests;
