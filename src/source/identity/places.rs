//! Where inodes have been seen: every name that has come by, for finding them again where handles cannot be opened.
//!
//! A hint, not a truth: a name may be another inode's by now, so whoever follows one proves what it leads to. Several are kept
//! for each inode, since any of them may go while the others stay. Nothing here fails: what cannot be written is kept in
//! memory, within bounds.

use std::collections::{BTreeSet, HashSet};

use parking_lot::Mutex;

use crate::id::FileId;

/// Names looked at for one inode. One with more is found by the first few that are still true.
const LOOKED_AT_MAX: usize = 64;
/// Names kept in memory while the map cannot be written; more are let go, and found again by the next listing or scan.
const UNWRITTEN_MAX: usize = 1 << 16;

/// A directory, and a name in it.
pub(in crate::source) type Place = (FileId, Vec<u8>);

/// Every name of every inode that has come by.
pub(in crate::source) struct Places {
    /// The key is number, directory, name; there is no value.
    names: sled::Tree,
    /// What could not be written, by key.
    unwritten: Mutex<BTreeSet<Vec<u8>>>,
}

impl Places {
    pub(super) fn new(names: sled::Tree) -> Self {
        Self {
            names,
            unwritten: Mutex::default(),
        }
    }

    /// `id` is seen as `name` in `dir`.
    pub(in crate::source) fn remember(&self, id: FileId, dir: FileId, name: &[u8]) {
        let key = key(id, dir, name);
        let known = self.names.contains_key(&key);
        let written = known.and_then(|known| match known {
            true => Ok(()),
            false => self.names.insert(&key, &[]).map(drop),
        });
        if let Err(error) = written {
            tracing::debug!(%id, %error, "a name is kept in memory alone");
            let mut unwritten = self.unwritten.lock();
            if unwritten.len() < UNWRITTEN_MAX {
                unwritten.insert(key);
            }
        }
    }

    /// `id` is not `name` in `dir` any more. Losing this is harmless: the name leads nowhere, or to somebody else.
    pub(in crate::source) fn forget_best_effort(&self, id: FileId, dir: FileId, name: &[u8]) {
        let key = key(id, dir, name);
        self.unwritten.lock().remove(&key);
        if let Err(error) = self.names.remove(&key) {
            tracing::debug!(%id, %error, "a name that is gone stays in the map");
        }
    }

    /// The inode is gone.
    pub(super) fn forget_all_best_effort(&self, id: FileId) {
        for (dir, name) in self.of(id) {
            self.forget_best_effort(id, dir, &name);
        }
    }

    /// Where `id` has been seen: at most [`LOOKED_AT_MAX`] places; none if it never was, or its last name is gone.
    pub(in crate::source) fn of(&self, id: FileId) -> Vec<Place> {
        let prefix = id.0.to_be_bytes();
        let written = self.names.scan_prefix(prefix).keys().map_while(Result::ok);
        let written = written.take(LOOKED_AT_MAX).map(|key| key.to_vec());
        let mut keys: HashSet<Vec<u8>> = written.collect();
        let unwritten = self.unwritten.lock();
        let from = unwritten.range(prefix.to_vec()..);
        keys.extend(from.take_while(|key| key.starts_with(&prefix)).cloned());
        keys.iter().filter_map(|key| place(key)).collect()
    }
}

fn key(id: FileId, dir: FileId, name: &[u8]) -> Vec<u8> {
    [&id.0.to_be_bytes()[..], &dir.0.to_be_bytes(), name].concat()
}

fn place(key: &[u8]) -> Option<Place> {
    let (_id, rest) = key.split_first_chunk::<8>()?;
    let (dir, name) = rest.split_first_chunk()?;
    Some((FileId(u64::from_be_bytes(*dir)), name.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_remembered_until_it_goes() {
        let database = sled::Config::new().temporary(true).open().expect("opens");
        let places = Places::new(database.open_tree("names").expect("made"));
        assert_eq!(places.of(FileId(9)), []);
        for name in [&b"one"[..], b"two", b"two"] {
            places.remember(FileId(9), FileId(1), name);
        }
        // The next number, and one whose bytes begin alike.
        places.remember(FileId(10), FileId(1), b"other");
        let mut all = places.of(FileId(9));
        all.sort();
        assert_eq!(
            all,
            [(FileId(1), b"one".to_vec()), (FileId(1), b"two".to_vec())]
        );
        places.forget_best_effort(FileId(9), FileId(1), b"one");
        assert_eq!(places.of(FileId(9)), [(FileId(1), b"two".to_vec())]);
        places.forget_all_best_effort(FileId(9));
        assert_eq!(places.of(FileId(9)), []);
        assert_eq!(places.of(FileId(10)).len(), 1);
    }
}
