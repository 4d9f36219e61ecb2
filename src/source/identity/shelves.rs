//! The numbers of neighbouring inodes in one record, a shelf.
//!
//! sled holds at most sixteen records in a page, and some 200 bytes of memory for each page whatever its cache may hold: with a record for
//! each inode that was more than everything else in a first backup of a million files. File systems give neighbours in a
//! directory neighbouring numbers, so that whoever looks at one file after the other finds most of them on the shelf that he has just had.

use std::io;
use std::ops::Range;

use parking_lot::{Mutex, MutexGuard};

use super::Handle;
use crate::id::FileId;

/// Low bits of an inode's number that neighbours on a shelf may differ in.
const NEIGHBOURS: u32 = 0x0f;
/// Where the number stands in a handle of the kernel: after four bytes for the type, its low byte first (ext4, XFS, btrfs, f2fs).
const NUMBER: Range<usize> = 4..8;
/// Where it stands in a handle of ours ([`Handle::for_kernel`] gives none).
const NUMBER_OF_OURS: Range<usize> = 12..16;
/// Entries of a shelf. On file systems whose handles have something else in that place a shelf would have no end: what comes
/// then gets a record of its own.
const SHELF_MAX: usize = 64;

/// The first byte of a shelf's key, and of that of an inode with a record of its own.
const SHELF: u8 = 0;
const ALONE: u8 = 1;

/// The first byte of a shelf: whether there have been inodes for which it had no room.
const HAD_ROOM: u8 = 0;
const OVERFLOWED: u8 = 1;

/// Locks of shelves.
const LOCKS: usize = 64;

/// All of them.
pub(super) struct Shelves {
    tree: sled::Tree,
    /// By neighbourhood: whoever changes a shelf is alone at it.
    locks: [Mutex<()>; LOCKS],
}

/// What all handles of a shelf have in common, and few others.
fn neighbourhood(handle: &Handle) -> u32 {
    number(handle).unwrap_or_default() & !NEIGHBOURS
}

/// The inode's number or its low half, if the handle is so long.
fn number(handle: &Handle) -> Option<u32> {
    let place = match handle.for_kernel() {
        Some(_) => NUMBER,
        None => NUMBER_OF_OURS,
    };
    let bytes = handle.0.get(place)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// The key of its shelf. The high byte of the number comes first, so that neighbouring shelves are neighbours, too.
fn shelf_of(handle: &Handle) -> Vec<u8> {
    match number(handle) {
        Some(_) => {
            let number = neighbourhood(handle).to_be_bytes();
            [&[SHELF], &handle.0[..4], &number].concat()
        }
        None => [&[SHELF], &*handle.0].concat(),
    }
}

/// The key of a record of its own.
fn alone(handle: &Handle) -> Vec<u8> {
    [&[ALONE], &*handle.0].concat()
}

impl Shelves {
    pub(super) fn new(tree: sled::Tree) -> Self {
        Self {
            tree,
            locks: std::array::from_fn(|_| Mutex::new(())),
        }
    }

    fn lock(&self, handle: &Handle) -> MutexGuard<'_, ()> {
        let shelf = neighbourhood(handle) / (NEIGHBOURS + 1);
        self.locks[shelf as usize % LOCKS].lock()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The number of `handle` if it has one.
    pub(super) fn get(&self, handle: &Handle) -> io::Result<Option<FileId>> {
        let Some(value) = self.tree.get(shelf_of(handle))? else {
            return Ok(None);
        };
        let shelf = Shelf::parse(&value)?;
        match shelf.find(handle)? {
            None if shelf.overflowed => match self.tree.get(alone(handle))? {
                Some(number) => id(&number).map(Some),
                None => Ok(None),
            },
            found => Ok(found.map(|(_, id)| id)),
        }
    }

    /// Makes `id` the number of `handle`.
    pub(super) fn insert(&self, handle: &Handle, id: FileId) -> io::Result<()> {
        let _alone = self.lock(handle);
        let key = shelf_of(handle);
        let value = self.tree.get(&key)?;
        let shelf = match &value {
            Some(value) => Shelf::parse(value)?,
            None => Shelf::EMPTY,
        };
        if let Some((at, _)) = shelf.find(handle)? {
            self.tree.insert(key, shelf.changed(at, id))?;
            return Ok(());
        }
        let has_room = shelf.entries().count() < SHELF_MAX;
        if let Some(value) = shelf.with(handle, id).filter(|_| has_room) {
            self.tree.insert(key, value)?;
            return Ok(());
        }
        self.tree.insert(alone(handle), &id.0.to_be_bytes())?;
        if !shelf.overflowed {
            self.tree.insert(key, shelf.as_overflowed())?;
        }
        Ok(())
    }

    /// Takes it away.
    pub(super) fn remove(&self, handle: &Handle) -> io::Result<()> {
        let _alone = self.lock(handle);
        let key = shelf_of(handle);
        let Some(value) = self.tree.get(&key)? else {
            return Ok(());
        };
        let shelf = Shelf::parse(&value)?;
        match shelf.find(handle)? {
            Some((at, _)) => match shelf.without(at) {
                Some(value) => self.tree.insert(key, value)?,
                None => self.tree.remove(key)?,
            },
            None if shelf.overflowed => self.tree.remove(alone(handle))?,
            None => None,
        };
        Ok(())
    }
}

/// A shelf as it is stored: [`HAD_ROOM`] or [`OVERFLOWED`], then for each inode the handle's length, the handle, the number.
struct Shelf<'a> {
    overflowed: bool,
    entries: &'a [u8],
}

impl<'a> Shelf<'a> {
    const EMPTY: Self = Self {
        overflowed: false,
        entries: &[],
    };

    fn parse(value: &'a [u8]) -> io::Result<Self> {
        match value.split_first() {
            Some((&flag @ (HAD_ROOM | OVERFLOWED), entries)) => Ok(Self {
                overflowed: flag == OVERFLOWED,
                entries,
            }),
            _ => Err(damaged()),
        }
    }

    /// Where each entry lies, its handle and its number; ends at one that cannot be read.
    fn entries(&self) -> impl Iterator<Item = io::Result<(Range<usize>, &'a [u8], FileId)>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let rest = self.entries.get(at..).filter(|rest| !rest.is_empty())?;
            let entry = entry(rest);
            let begin = at;
            at = match &entry {
                Ok((handle, _)) => at + 1 + handle.len() + 8,
                Err(_) => self.entries.len(),
            };
            Some(entry.map(|(handle, id)| (begin..at, handle, id)))
        })
    }

    fn find(&self, handle: &Handle) -> io::Result<Option<(Range<usize>, FileId)>> {
        for entry in self.entries() {
            let (at, found, id) = entry?;
            if *found == *handle.0 {
                return Ok(Some((at, id)));
            }
        }
        Ok(None)
    }

    fn flag(&self) -> u8 {
        match self.overflowed {
            true => OVERFLOWED,
            false => HAD_ROOM,
        }
    }

    /// `None` if the handle is longer than any that a kernel gives.
    fn with(&self, handle: &Handle, id: FileId) -> Option<Vec<u8>> {
        let len = u8::try_from(handle.0.len()).ok()?;
        let parts = [
            &[self.flag()],
            self.entries,
            &[len],
            &handle.0,
            &id.0.to_be_bytes(),
        ];
        Some(parts.concat())
    }

    fn changed(&self, at: Range<usize>, id: FileId) -> Vec<u8> {
        let (before, after) = (&self.entries[..at.end - 8], &self.entries[at.end..]);
        [&[self.flag()], before, &id.0.to_be_bytes(), after].concat()
    }

    fn as_overflowed(&self) -> Vec<u8> {
        [&[OVERFLOWED], self.entries].concat()
    }

    /// `None` if nothing is left of it that must be remembered.
    fn without(&self, at: Range<usize>) -> Option<Vec<u8>> {
        let (before, after) = (&self.entries[..at.start], &self.entries[at.end..]);
        let is_needed = self.overflowed || !before.is_empty() || !after.is_empty();
        is_needed.then(|| [&[self.flag()], before, after].concat())
    }
}

/// The first entry of what lies there.
fn entry(bytes: &[u8]) -> io::Result<(&[u8], FileId)> {
    let (&len, rest) = bytes.split_first().ok_or_else(damaged)?;
    let (handle, rest) = rest.split_at_checked(len.into()).ok_or_else(damaged)?;
    let number = rest.get(..8).ok_or_else(damaged)?;
    Ok((handle, id(number)?))
}

fn id(bytes: &[u8]) -> io::Result<FileId> {
    let bytes = bytes.try_into().map_err(|_| damaged())?;
    Ok(FileId(u64::from_be_bytes(bytes)))
}

fn damaged() -> io::Error {
    io::Error::other("identity map: a record has another shape")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelves() -> Shelves {
        let database = sled::Config::new().temporary(true).open().expect("opens");
        Shelves::new(database.open_tree("numbers").expect("a tree"))
    }

    /// As ext4 makes them.
    fn numbered(number: u32) -> Handle {
        Handle(
            [&[1, 0, 0, 0][..], &number.to_le_bytes(), &[9; 4]]
                .concat()
                .into(),
        )
    }

    #[test]
    fn neighbours_share_a_shelf_and_neighbouring_shelves_are_neighbours() {
        let shelf = |number| shelf_of(&numbered(number));
        assert_eq!(shelf(0x120), shelf(0x12f));
        assert!(shelf(0x1ff) < shelf(0x200) && shelf(0x200) < shelf(0x10000));
        let short = Handle(Box::from(*b"short"));
        assert_eq!(shelf_of(&short), *b"\0short");
        // Without handles of the kernel's own: device, number, birth.
        let ours = |number: u64| {
            let parts = [
                &(-1i32).to_le_bytes()[..],
                &[5; 8],
                &number.to_le_bytes(),
                &[7; 12],
            ];
            shelf_of(&Handle(parts.concat().into()))
        };
        assert_eq!(ours(0x120), ours(0x12f));
        assert_ne!(ours(0x120), ours(0x130));
    }

    #[test]
    fn what_stands_on_a_shelf_is_found_until_it_is_taken_away() {
        let shelves = shelves();
        let all = 0x100..0x140;
        for number in all.clone() {
            assert_eq!(shelves.get(&numbered(number)).expect("read"), None);
            let id = FileId(number.into());
            shelves.insert(&numbered(number), id).expect("written");
        }
        assert_eq!(shelves.tree.len(), 4);
        for number in all.clone() {
            let id = Some(FileId(number.into()));
            assert_eq!(shelves.get(&numbered(number)).expect("read"), id);
            shelves.remove(&numbered(number)).expect("removed");
            shelves
                .remove(&numbered(number))
                .expect("nothing to remove");
            assert_eq!(shelves.get(&numbered(number)).expect("read"), None);
        }
        assert!(shelves.is_empty());
    }

    #[test]
    fn a_shelf_has_an_end_and_what_comes_then_is_found_as_well() {
        let shelves = shelves();
        let handle = |number: u32| {
            let parts = [&[1, 0, 0, 0][..], &[0; 4], &number.to_le_bytes()];
            Handle(parts.concat().into())
        };
        let all = 0..3 * SHELF_MAX as u32;
        for number in all.clone() {
            let id = FileId(u64::from(number) + 7);
            shelves.insert(&handle(number), id).expect("written");
        }
        assert_eq!(shelves.tree.len(), 1 + 2 * SHELF_MAX);
        // Room on the shelf again does not hide who had found none.
        for number in 0..SHELF_MAX as u32 {
            shelves.remove(&handle(number)).expect("removed");
        }
        for number in all {
            let id = FileId(u64::from(number) + 7);
            let there = (number >= SHELF_MAX as u32).then_some(id);
            assert_eq!(shelves.get(&handle(number)).expect("read"), there);
            shelves.remove(&handle(number)).expect("removed");
            assert_eq!(shelves.get(&handle(number)).expect("read"), None);
        }
    }

    #[test]
    fn a_number_can_be_changed_and_the_longest_handle_be_kept() {
        let shelves = shelves();
        for number in 1..4 {
            let id = FileId(number.into());
            shelves.insert(&numbered(number), id).expect("written");
        }
        shelves.insert(&numbered(2), FileId(9)).expect("changed");
        let long = Handle([&[1, 0, 0, 0, 1, 0, 0, 0][..], &[7; 300]].concat().into());
        shelves.insert(&long, FileId(8)).expect("written");
        for (handle, id) in [
            (numbered(1), 1),
            (numbered(2), 9),
            (numbered(3), 3),
            (long, 8),
        ] {
            let found = shelves.get(&handle).expect("read");
            assert_eq!(found, Some(FileId(id)));
        }
    }

    #[test]
    fn a_damaged_shelf_is_an_error() {
        let shelves = shelves();
        shelves.insert(&numbered(1), FileId(5)).expect("written");
        let key = shelf_of(&numbered(1));
        let whole = shelves.tree.get(&key).expect("read").expect("there");
        for cut in 0..whole.len() {
            shelves.tree.insert(&key, &whole[..cut]).expect("written");
            let found = shelves.get(&numbered(1));
            assert!(found.is_err() || cut == 1, "{cut}: {found:?}");
        }
    }
}
