//! Which number the volume has given to which inode of the source: a map from file handle to [`FileId`] that
//! outlives the process.
//!
//! The map lies in sled and may be lost: it is then set aside and begins empty, and `reconcile` fills it from the tree of the
//! newest commit, which holds every inode's handle. What must never be lost is how far the numbers have
//! been given out; that lies in a file of its own ([`numbers`]). Called by [`super::Source`] only.

mod numbers;
mod storage;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use lru::LruCache;
use parking_lot::Mutex;

use self::numbers::Numbers;
use super::{Error, Handle};
use crate::id::FileId;

/// Answers kept in memory in front of sled, about 100 bytes each: a working set of files that are looked up again and again.
const RECENT_MAX: usize = 1 << 16;
/// Parts of that, each with a lock of its own, so that loop threads do not wait for each other.
const SHARDS: usize = 16;

/// The identity map.
pub(super) struct Identity {
    /// Handle to number.
    handles: sled::Tree,
    /// Number to (directory, name); see [`super::descriptors`].
    places: sled::Tree,
    recent: [Mutex<LruCache<Handle, FileId>>; SHARDS],
    hasher: RandomState,
    numbers: Numbers,
}

impl Identity {
    /// Opens the map in `dir`. No number below `next_id` is given out from now on. A damaged map is set aside and begins empty.
    pub(super) fn open(dir: &Path, next_id: FileId) -> Result<Self, Error> {
        let failed = |why: io::Error| Error::Identity {
            path: dir.display().to_string(),
            why: why.to_string(),
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let database = storage::open(dir)?;
        let tree = |name: &str| database.open_tree(name).map_err(|e| failed(e.into()));
        let shard = NonZeroUsize::new(RECENT_MAX / SHARDS).expect("more entries than shards");
        Ok(Self {
            handles: tree("handles")?,
            places: tree("places")?,
            recent: std::array::from_fn(|_| Mutex::new(LruCache::new(shard))),
            hasher: RandomState::new(),
            numbers: Numbers::open(dir, next_id).map_err(failed)?,
        })
    }

    /// See [`super::Source::knows_numbers`].
    pub(super) fn knows_numbers(dir: &Path) -> bool {
        numbers::is_whole(dir)
    }

    /// The number of `handle`: the known one, or a new one from the range of directory `near`.
    pub(super) fn number(&self, handle: &Handle, near: FileId) -> io::Result<FileId> {
        // The lock is held until the number is in the map, so that nobody gives out a second one.
        let mut recent = self.shard(handle);
        if let Some(&id) = recent.get(handle) {
            return Ok(id);
        }
        let id = match self.stored(handle)? {
            Some(id) => id,
            None => {
                let id = self.numbers.take(near)?;
                self.store(handle, id)?;
                id
            }
        };
        recent.put(handle.clone(), id);
        Ok(id)
    }

    /// The number of `handle` if it has one.
    pub(super) fn known(&self, handle: &Handle) -> io::Result<Option<FileId>> {
        let mut recent = self.shard(handle);
        if let Some(&id) = recent.get(handle) {
            return Ok(Some(id));
        }
        let id = self.stored(handle)?;
        if let Some(id) = id {
            recent.put(handle.clone(), id);
        }
        Ok(id)
    }

    /// Makes `id` the number of `handle`. `AlreadyExists` if it has been given another one since.
    pub(super) fn adopt(&self, id: FileId, handle: &Handle) -> io::Result<()> {
        self.numbers.keep_above(id)?;
        let mut recent = self.shard(handle);
        match self.stored(handle)? {
            Some(known) if known == id => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                self.store(handle, id)?;
                recent.put(handle.clone(), id);
                Ok(())
            }
        }
    }

    /// The inode no longer exists. Losing this is harmless: its handle never comes back.
    pub(super) fn forget_best_effort(&self, id: FileId, handle: &Handle) {
        self.shard(handle).pop(handle);
        let removed = self.handles.remove(&handle.0);
        let removed = removed.and_then(|_| self.places.remove(id.0.to_be_bytes()));
        if let Err(error) = removed {
            tracing::debug!(%id, %error, "identity of a removed inode stays in the map");
        }
    }

    /// See [`Numbers::bound`].
    pub(super) fn next_id(&self) -> FileId {
        self.numbers.bound()
    }

    /// Remembers where `id` was last seen.
    pub(super) fn remember_place(&self, id: FileId, dir: FileId, name: &[u8]) -> io::Result<()> {
        let mut place = dir.0.to_be_bytes().to_vec();
        place.extend_from_slice(name);
        let key = id.0.to_be_bytes();
        if self.places.get(key)?.as_deref() != Some(&place[..]) {
            self.places.insert(key, place)?;
        }
        Ok(())
    }

    /// Where `id` was last seen: (directory, name).
    pub(super) fn place(&self, id: FileId) -> io::Result<Option<(FileId, Vec<u8>)>> {
        let place = self.places.get(id.0.to_be_bytes())?;
        Ok(place.and_then(|place| {
            let (dir, name) = place.split_first_chunk()?;
            Some((FileId(u64::from_be_bytes(*dir)), name.to_vec()))
        }))
    }

    fn shard(&self, handle: &Handle) -> parking_lot::MutexGuard<'_, LruCache<Handle, FileId>> {
        let index = self.hasher.hash_one(handle) as usize % SHARDS;
        self.recent[index].lock()
    }

    fn stored(&self, handle: &Handle) -> io::Result<Option<FileId>> {
        let Some(value) = self.handles.get(&handle.0)? else {
            return Ok(None);
        };
        match value.as_ref().try_into() {
            Ok(bytes) => Ok(Some(FileId(u64::from_be_bytes(bytes)))),
            Err(_) => Err(io::Error::other("identity map: a number is not 8 bytes")),
        }
    }

    fn store(&self, handle: &Handle, id: FileId) -> io::Result<()> {
        self.handles.insert(&handle.0, &id.0.to_be_bytes())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
