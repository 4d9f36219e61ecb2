//! Which number the volume has given to which inode of the source: a map from file handle to [`FileId`] that
//! outlives the process.
//!
//! The map lies in sled and may be lost: it is then set aside and begins empty, and `reconcile` fills it from the tree of the
//! newest commit, which holds every inode's handle. What must never be lost is how far the numbers have
//! been given out; that lies in a file of its own ([`numbers`]). Called by [`super::Source`] only.

mod numbers;

mod places;

mod shelves;

mod storage;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use lru::LruCache;
use parking_lot::Mutex;

use self::numbers::Numbers;
pub(super) use self::places::Place;
use self::places::Places;
use self::shelves::Shelves;
use super::{Error, Handle};
use crate::id::FileId;

/// Answers kept in memory in front of sled, about 100 bytes each: a working set of files that are looked up again and again.
const RECENT_MAX: usize = 1 << 16;
/// Parts of that, each with a lock of its own, so that loop threads do not wait for each other.
const SHARDS: usize = 16;

/// Numbers kept in memory alone, while the map cannot be written: about 10 MiB. With more of them nothing new is created.
const UNWRITTEN_MAX: usize = 1 << 16;

/// What maps handles to numbers.
const HANDLES: &str = "shelves";
/// What earlier versions have left: a record for each handle, as it is, or with its bytes 4 to 8 reversed.
const HANDLES_BEFORE: &str = "handles";
const HANDLES_BY_PLACE: &str = "handles-by-place";

/// Says that everything has been adopted.
const ADOPTED: &[u8] = b"adopted";

/// The identity map.
pub(super) struct Identity {
    /// Handle to number.
    shelves: Shelves,
    /// Holds [`ADOPTED`] or nothing. In the database of the numbers, so that it is lost with them, and never without them.
    marks: sled::Tree,
    /// Where inodes have been seen.
    places: Places,
    recent: [Mutex<Recent>; SHARDS],
    hasher: RandomState,
    numbers: Numbers,
    unwritten: Mutex<Unwritten>,
    /// Stands for a full disk: sled offers no way to fill one in a test.
    #[cfg(test)]
    broken: std::sync::atomic::AtomicBool,
}

/// A part of the answers kept in memory.
struct Recent {
    numbers: LruCache<Handle, FileId>,
    /// The map was empty when it was opened, and nothing has fallen out since: what is not here is not in the map either, and a first
    /// backup need not ask it for every file.
    complete: bool,
}

impl Recent {
    fn put(&mut self, handle: &Handle, id: FileId) {
        if let Some((fallen, _)) = self.numbers.push(handle.clone(), id) {
            self.complete &= fallen == *handle;
        }
    }

    fn forget(&mut self, handle: &Handle) {
        self.numbers.pop(handle);
    }
}

/// What could not be written: known for as long as this process lives.
#[derive(Default)]
struct Unwritten {
    numbers: HashMap<Handle, FileId>,
    /// Why, at first.
    why: Option<String>,
}

/// A number put by for an inode that is about to be created.
pub(super) struct Reserved(FileId);

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
        let shelves = Shelves::new(tree(HANDLES)?);
        move_over(&database, &shelves).map_err(failed)?;
        let recent = || Recent {
            numbers: LruCache::new(shard),
            complete: shelves.is_empty(),
        };
        Ok(Self {
            recent: std::array::from_fn(|_| Mutex::new(recent())),
            shelves,
            marks: tree("marks")?,
            places: Places::new(tree("names")?),
            hasher: RandomState::new(),
            numbers: Numbers::open(dir, next_id).map_err(failed)?,
            unwritten: Mutex::default(),
            #[cfg(test)]
            broken: Default::default(),
        })
    }

    /// See [`super::Source::knows_numbers`].
    pub(super) fn knows_numbers(dir: &Path) -> bool {
        numbers::is_whole(dir)
    }

    /// Puts a number by for an inode that is about to be created in directory `near`, so that [`Self::settle`] cannot fail.
    pub(super) fn reserve(&self, near: FileId) -> io::Result<Reserved> {
        let unwritten = self.unwritten.lock();
        if let Some(why) = &unwritten.why
            && unwritten.numbers.len() >= UNWRITTEN_MAX
        {
            return Err(io::Error::other(why.clone()));
        }
        drop(unwritten);
        self.numbers.take(near).map(Reserved)
    }

    /// The number of an inode that has just been created: `reserved`, unless somebody has seen it already. A map that cannot be
    /// written is no reason to fail: the number is then known to this process alone, and [`Self::trouble`] says so.
    pub(super) fn settle(&self, handle: &Handle, reserved: Reserved) -> FileId {
        let mut recent = self.shard(handle);
        // Unreadable: nobody else can have been given a number for it either.
        let seen = self.find(handle, &mut recent).ok().flatten();
        let id = seen.unwrap_or(reserved.0);
        if seen.is_none()
            && let Err(error) = self.store(handle, id)
        {
            let mut unwritten = self.unwritten.lock();
            unwritten.numbers.insert(handle.clone(), id);
            unwritten.why.get_or_insert_with(|| {
                tracing::error!(%error, "the identity map cannot be written; new files get other numbers after a restart");
                format!("the map of file numbers cannot be written: {error}")
            });
        }
        recent.put(handle, id);
        id
    }

    /// Why numbers are not written any more, if that is so.
    pub(super) fn trouble(&self) -> Option<String> {
        self.unwritten.lock().why.clone()
    }

    /// Where inodes have been seen.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// The number of `handle`: the known one, or a new one from the range of directory `near`.
    pub(super) fn number(&self, handle: &Handle, near: FileId) -> io::Result<FileId> {
        // The lock is held until the number is in the map, so that nobody gives out a second one.
        let mut recent = self.shard(handle);
        if let Some(id) = self.find(handle, &mut recent)? {
            return Ok(id);
        }
        let id = self.numbers.take(near)?;
        self.store(handle, id)?;
        recent.put(handle, id);
        Ok(id)
    }

    /// The number of `handle` if it has one.
    pub(super) fn known(&self, handle: &Handle) -> io::Result<Option<FileId>> {
        let mut recent = self.shard(handle);
        self.find(handle, &mut recent)
    }

    /// Makes `id` the number of `handle`. `AlreadyExists` if it has been given another one since.
    pub(super) fn adopt(&self, id: FileId, handle: &Handle) -> io::Result<()> {
        self.numbers.keep_above(id)?;
        let mut recent = self.shard(handle);
        match self.find(handle, &mut recent)? {
            Some(known) if known == id => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                self.store(handle, id)?;
                recent.put(handle, id);
                Ok(())
            }
        }
    }

    /// See [`super::Source::has_adopted`].
    pub(super) fn has_adopted(&self) -> io::Result<bool> {
        Ok(self.marks.contains_key(ADOPTED)?)
    }

    /// See [`super::Source::end_adoption`]. sled recovers a prefix of what was written, so no number adopted before is missing where this
    /// is found.
    pub(super) fn end_adoption(&self) -> io::Result<()> {
        self.marks.insert(ADOPTED, &[])?;
        Ok(())
    }

    /// The inode no longer exists. Losing this is harmless: its handle never comes back.
    pub(super) fn forget_best_effort(&self, id: FileId, handle: &Handle) {
        self.shard(handle).forget(handle);
        self.unwritten.lock().numbers.remove(handle);
        self.places.forget_all_best_effort(id);
        if let Err(error) = self.shelves.remove(handle) {
            tracing::debug!(%id, %error, "identity of a removed inode stays in the map");
        }
    }

    /// See [`Numbers::bound`].
    pub(super) fn next_id(&self) -> FileId {
        self.numbers.bound()
    }

    /// See [`super::Source::first_id`].
    pub(super) fn first_id(&self) -> FileId {
        self.numbers.first()
    }

    fn shard(&self, handle: &Handle) -> parking_lot::MutexGuard<'_, Recent> {
        let index = self.hasher.hash_one(handle) as usize % SHARDS;
        self.recent[index].lock()
    }

    /// The number of `handle` if it has one, from memory or from the map.
    fn find(&self, handle: &Handle, recent: &mut Recent) -> io::Result<Option<FileId>> {
        if let Some(&id) = recent.numbers.get(handle) {
            return Ok(Some(id));
        }
        if recent.complete {
            return Ok(None);
        }
        let id = self.stored(handle)?;
        if let Some(id) = id {
            recent.put(handle, id);
        }
        Ok(id)
    }

    fn stored(&self, handle: &Handle) -> io::Result<Option<FileId>> {
        if let Some(&id) = self.unwritten.lock().numbers.get(handle) {
            return Ok(Some(id));
        }
        self.shelves.get(handle)
    }

    fn store(&self, handle: &Handle, id: FileId) -> io::Result<()> {
        #[cfg(test)]
        if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.shelves.insert(handle, id)
    }
}

/// Brings over what an earlier version has left. May be broken off at any time: what is there already stays.
fn move_over(database: &sled::Db, shelves: &Shelves) -> io::Result<()> {
    let as_it_is = |handle: &[u8]| Handle(handle.into());
    let by_place = |handle: &[u8]| {
        let mut handle = handle.to_vec();
        if let Some(number) = handle.get_mut(4..8) {
            number.reverse();
        }
        Handle(handle.into())
    };
    move_tree_over(database, shelves, HANDLES_BEFORE, as_it_is)?;
    move_tree_over(database, shelves, HANDLES_BY_PLACE, by_place)
}

fn move_tree_over(
    database: &sled::Db,
    shelves: &Shelves,
    name: &str,
    handle: impl Fn(&[u8]) -> Handle,
) -> io::Result<()> {
    let mut names = database.tree_names().into_iter();
    if !names.any(|found| found == name.as_bytes()) {
        return Ok(());
    }
    for entry in &database.open_tree(name)? {
        let (key, number) = entry?;
        let handle = handle(&key);
        // One of another shape was of no use there either: its inode is given a number anew.
        if let Ok(number) = (&*number).try_into()
            && shelves.get(&handle)?.is_none()
        {
            shelves.insert(&handle, FileId(u64::from_be_bytes(number)))?;
        }
    }
    // No record of the old kind may go before the new ones are there.
    database.flush()?;
    database.drop_tree(name)?;
    Ok(())
}

#[cfg(test)]
mod tests;
