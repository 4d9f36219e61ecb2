//! The folder itself: is it still the one that was opened?
//!
//! When a disk is unplugged, its mount point is left behind as an empty folder on another disk. Reading there would
//! say that every object is missing, and writing would fill the wrong disk. So a folder is known by device and inode
//! number, and by a mark inside it when these change because the disk was plugged in again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::store::{Error, Kind};

/// The file that marks a folder as a store.
const MARK: &str = ".store";

/// An opened folder.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// Device and inode number when it was last found to be right.
    identity: Mutex<(u64, u64)>,
    /// What its mark said; `None` for a folder that has none (one that was not made by us, or copied without dot files).
    mark: Option<Vec<u8>>,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let doing = format!("open the folder {}", path.display());
        let path =
            std::path::absolute(path).map_err(|error| Error::from_io(doing.clone(), error))?;
        let identity = identify(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::new(Kind::Missing, &*doing, absent(&path)).because(error)
            }
            _ => Error::from_io(&*doing, error),
        })?;
        let mark = read_mark(&path).map_err(|error| Error::from_io(&*doing, error))?;
        Ok(Self {
            path,
            identity: Mutex::new(identity),
            mark,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the folder is there and is the one that was opened. [`Kind::Retry`] otherwise: the disk may come
    /// back.
    pub(super) fn check(&self, doing: &str) -> Result<(), Error> {
        let found = match identify(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(Kind::Retry, doing, absent(&self.path)).because(error));
            }
            Err(error) => return Err(Error::from_io(doing, error)),
        };
        let mut known = self.identity.lock();
        if *known == found {
            return Ok(());
        }
        let mark = read_mark(&self.path).map_err(|error| Error::from_io(doing, error))?;
        if self.mark.is_some() && mark == self.mark {
            *known = found;
            return Ok(());
        }
        let message = format!(
            "the folder {} is no longer the one that was opened; mount its disk again",
            self.path.display()
        );
        Err(Error::new(Kind::Retry, doing, message))
    }
}

/// Marks the folder `path` unless it is marked already.
pub(super) fn mark(path: &Path) -> io::Result<()> {
    if read_mark(path)?.is_some() {
        return Ok(());
    }
    // It only has to differ from other folders that may be mounted at the same place.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (device, inode) = identify(path)?;
    let text = format!(
        "{:x}-{device:x}-{inode:x}-{:x}\n",
        now.map_or(0, |since| since.as_nanos()),
        std::process::id()
    );
    fs::write(path.join(MARK), text)?;
    fs::File::open(path.join(MARK))?.sync_all()?;
    fs::File::open(path)?.sync_all()
}

fn identify(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    match found.is_dir() {
        true => Ok((found.dev(), found.ino())),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

fn read_mark(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path.join(MARK)) {
        Ok(mark) => Ok(Some(mark)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn absent(path: &Path) -> String {
    format!(
        "there is no folder {}; if it lies on a disk of its own, is that mounted?",
        path.display()
    )
}
