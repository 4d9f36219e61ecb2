//! The numbers themselves: no [`FileId`] is ever given out twice, whatever is lost.
//!
//! A small file holds a bound that is raised, and made durable, before any number below it is given out. A
//! directory takes its children's numbers from a range of its own, so that a listing reads neighbouring pages of the tree.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lru::LruCache;
use parking_lot::Mutex;

use crate::id::FileId;

/// Where the bound stands.
const FILE: &str = "next-id";
/// Numbers made ready by one fsync: an untar of as many files waits for the disk once.
const BATCH: u64 = 1 << 16;
/// Numbers for one directory. What it does not use is never used: 2^64 is enough to be generous.
const PER_DIRECTORY: u64 = 64;
/// Directories that have a range at hand; one that has lost its range takes a new one.
const DIRECTORIES_MAX: usize = 4096;
/// How far to jump when the file is damaged: more than any process can have given out since the newest commit.
const LEAP: u64 = 1 << 40;
/// Numbers below this are not for children: 0 is nothing, 1 the root.
const FIRST: u64 = 16;

/// Gives out numbers.
pub(super) struct Numbers {
    path: PathBuf,
    /// Numbers below it belong to earlier lives; all given out in this one are above.
    first: u64,
    state: Mutex<State>,
}

struct State {
    /// Durable: every number given out is below it. Itself never given out.
    bound: u64,
    /// Ready and not yet in any directory's range.
    ready: Range<u64>,
    directories: LruCache<FileId, Range<u64>>,
}

impl Numbers {
    /// Goes on where the file in `dir` ends, or at `next_id` if that is further.
    pub(super) fn open(dir: &Path, next_id: FileId) -> io::Result<Self> {
        let path = dir.join(FILE);
        let bound = match read(&path) {
            Ok(Some(bound)) => bound.max(next_id.0),
            Ok(None) => next_id.0,
            Err(Damaged) => {
                tracing::warn!(path = %path.display(), "damaged; numbers go on far above any in use");
                next_id.0.saturating_add(LEAP)
            }
        };
        let bound = bound.max(FIRST);
        if !path.exists() {
            // From now on its absence means that it was lost, and not that no file has been given a number yet.
            write(&path, bound)?;
        }
        let capacity = NonZeroUsize::new(DIRECTORIES_MAX).expect("a constant above zero");
        Ok(Self {
            path,
            first: bound,
            state: Mutex::new(State {
                bound,
                ready: 0..0,
                directories: LruCache::new(capacity),
            }),
        })
    }

    /// A number never given out before, from the range of directory `near`.
    pub(super) fn take(&self, near: FileId) -> io::Result<FileId> {
        let mut state = self.state.lock();
        if let Some(range) = state.directories.get_mut(&near)
            && let Some(number) = range.next()
        {
            return Ok(FileId(number));
        }
        if state.ready.is_empty() {
            self.raise(&mut state, BATCH)?;
        }
        let start = state.ready.start;
        let end = (start + PER_DIRECTORY).min(state.ready.end);
        state.ready.start = end;
        state.directories.put(near, start + 1..end);
        Ok(FileId(start))
    }

    /// A number that is above all given out so far and is itself never given out.
    pub(super) fn bound(&self) -> FileId {
        FileId(self.state.lock().bound)
    }

    /// The bound as it was when this life began.
    pub(super) fn first(&self) -> FileId {
        FileId(self.first)
    }

    /// Sees to it that `id`, which came from a commit, is not given out again.
    pub(super) fn keep_above(&self, id: FileId) -> io::Result<()> {
        if id.0 < self.first {
            return Ok(());
        }
        // It may be among those that are ready: none of them is given out any more.
        let mut state = self.state.lock();
        state.bound = state.bound.max(id.0);
        state.directories.clear();
        self.raise(&mut state, BATCH)
    }

    /// Raises the bound by `count`, durably, and makes the numbers between ready.
    fn raise(&self, state: &mut State, count: u64) -> io::Result<()> {
        let full = || io::Error::other("all file numbers are used up");
        let start = state.bound.checked_add(1).ok_or_else(full)?;
        let bound = start.checked_add(count).ok_or_else(full)?;
        write(&self.path, bound)?;
        state.bound = bound;
        state.ready = start..bound;
        Ok(())
    }
}

/// Whether the file in `dir` is there and says something that can be believed.
pub(super) fn is_whole(dir: &Path) -> bool {
    matches!(read(&dir.join(FILE)), Ok(Some(_)))
}

/// The file is there and says nothing that can be believed.
#[derive(Debug)]
struct Damaged;

/// 8 bytes little-endian and their complement; `None` if there is no file.
fn read(path: &Path) -> Result<Option<u64>, Damaged> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(Damaged),
    };
    let (Some(value), Some(complement)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return Err(Damaged);
    };
    let (value, complement) = (u64::from_le_bytes(*value), u64::from_le_bytes(*complement));
    if bytes.len() != 16 || value != !complement {
        return Err(Damaged);
    }
    Ok(Some(value))
}

/// Replaces the file; durable on return.
fn write(path: &Path, bound: u64) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&bound.to_le_bytes())?;
    file.write_all(&(!bound).to_le_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_number_comes_twice_over_many_lives() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut seen = HashSet::new();
        for life in 0..5 {
            let numbers = Numbers::open(dir.path(), FileId(2)).expect("opens");
            for near in 0..200 {
                for _ in 0..life * 50 + 1 {
                    let id = numbers.take(FileId(near)).expect("taken");
                    assert!(seen.insert(id), "{id} came twice");
                    assert!(id < numbers.bound() && id.0 >= FIRST);
                }
            }
            assert!(
                seen.insert(numbers.bound()) || life == 0,
                "the bound was given out"
            );
        }
    }

    #[test]
    fn children_of_a_directory_are_neighbours() {
        let dir = tempfile::tempdir().expect("a directory");
        let numbers = Numbers::open(dir.path(), FileId(2)).expect("opens");
        let first = numbers.take(FileId(1)).expect("taken");
        numbers.take(FileId(77)).expect("taken");
        assert_eq!(numbers.take(FileId(1)).expect("taken"), FileId(first.0 + 1));
    }

    #[test]
    fn a_commits_numbers_are_not_given_out_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let numbers = Numbers::open(dir.path(), FileId(1_000_000)).expect("opens");
        assert!(numbers.take(FileId(1)).expect("taken") > FileId(1_000_000));
        numbers.keep_above(FileId(9_000_000)).expect("kept");
        assert!(numbers.take(FileId(1)).expect("taken") > FileId(9_000_000));
        assert!(numbers.take(FileId(2)).expect("taken") > FileId(9_000_000));
    }

    #[test]
    fn a_damaged_file_makes_numbers_leap_rather_than_repeat() {
        let dir = tempfile::tempdir().expect("a directory");
        let before = Numbers::open(dir.path(), FileId(2)).expect("opens");
        let before = before.take(FileId(1)).expect("taken");
        assert!(is_whole(dir.path()));
        for damage in [&b""[..], b"short", &[7; 16], &[0; 17]] {
            std::fs::write(dir.path().join("next-id"), damage).expect("damaged");
            assert!(!is_whole(dir.path()));
            let numbers = Numbers::open(dir.path(), FileId(2)).expect("opens");
            assert!(numbers.take(FileId(1)).expect("taken").0 > before.0 + BATCH);
        }
    }

    #[test]
    fn numbers_run_out_with_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let numbers = Numbers::open(dir.path(), FileId(u64::MAX - 5)).expect("opens");
        assert!(numbers.take(FileId(1)).is_err());
    }
}
