//! A store in a folder: a disk, a USB stick, a network file system. One file per object, its path the key.
//!
//! A file is written aside, made durable, and then put under its name in one step, so that no reader and no power
//! loss ever sees a part of it. `place` does that; `walk` lists; `root` knows whether the folder is still the
//! one that was opened. What begins with a dot belongs to the store itself and is never an object.

mod place;
mod root;
mod walk;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::id::ObjectKey;
use crate::store::local::root::Root;
use crate::store::{
    Body, Condition, Error, Kind, LIST_LIMIT_MAX, Listing, ObjectStore, PutOutcome, Version, names,
};

/// A folder that holds objects.
#[derive(Debug)]
pub struct Local {
    root: Arc<Root>,
}

impl Local {
    /// Makes the folder `path`, with its parents, and marks it as ours; one that is there already is only marked.
    pub fn create(path: &Path) -> Result<(), Error> {
        let doing = format!("create the folder {}", path.display());
        fs::create_dir_all(path).map_err(|error| Error::from_io(&*doing, error))?;
        root::mark(path).map_err(|error| Error::from_io(&*doing, error))
    }

    /// Opens the folder `path`, and clears away what writers that died have left half done. [`Kind::Missing`] if
    /// there is no such folder: it is never created here, since it may be a disk that is not plugged in.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let root = Root::open(path)?;
        place::clear_stale_best_effort(&root);
        Ok(Self {
            root: Arc::new(root),
        })
    }

    /// Runs `work` on a thread that may block; `verb` and `key` say in errors what it was.
    async fn run<T: Send + 'static>(
        &self,
        verb: &str,
        key: &ObjectKey,
        work: impl FnOnce(&Root, &Path, &str) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let doing = format!("{verb} {key} in {}", self.root.path().display());
        names::check(&doing, key)?;
        let file = self.root.path().join(key.as_str());
        let root = Arc::clone(&self.root);
        blocking(move || work(&root, &file, &doing)).await
    }
}

#[async_trait]
impl ObjectStore for Local {
    fn describe(&self) -> String {
        self.root.path().display().to_string()
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        self.run("put", key, move |root, file, doing| {
            root.check(doing)?;
            place::replace(root, file, &body, doing)
        })
        .await
    }

    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error> {
        self.run("put", key, move |root, file, doing| {
            root.check(doing)?;
            match condition {
                Condition::Absent => place::create(root, file, &body, doing),
                Condition::Is(version) => place::exchange(root, file, &body, &version, doing),
            }
        })
        .await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        self.run("get", key, move |root, file, doing| {
            read_range(file, range).map_err(|error| judge(root, doing, error))
        })
        .await
    }

    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error> {
        self.run("get", key, move |root, file, doing| {
            let read = read_range(file, 0..len_max.saturating_add(1));
            let bytes = read.map_err(|error| judge(root, doing, error))?;
            if bytes.len() as u64 > len_max {
                let len = fs::metadata(file).map_or(bytes.len() as u64, |found| found.len());
                return Err(Error::too_long(doing, len, len_max));
            }
            let version = version_of(&bytes);
            Ok((bytes, version))
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error> {
        let limit = limit.clamp(1, LIST_LIMIT_MAX);
        let root = Arc::clone(&self.root);
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        blocking(move || {
            let doing = format!("list {prefix}* in {}", root.path().display());
            // An empty folder must mean that there is nothing, never that the disk is gone.
            root.check(&doing)?;
            let after = after.as_ref().map_or("", ObjectKey::as_str);
            walk::list(root.path(), &prefix, after, limit)
                .map_err(|error| judge(&root, &doing, error))
        })
        .await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.run("delete", key, |root, file, doing| {
            root.check(doing)?;
            match place::remove(file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done.map_err(|error| judge(root, doing, error)),
            }
        })
        .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        self.run("head", key, |root, file, doing| match fs::metadata(file) {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Ok(None),
            Err(error) => match judge(root, doing, error) {
                missing if missing.kind == Kind::Missing => Ok(None),
                other => Err(other),
            },
        })
        .await
    }
}

/// The version of an object with these contents. Contents say more than times do: a file system's clock may tick
/// slower than two writes follow each other.
fn version_of(bytes: &[u8]) -> Version {
    Version(blake3::hash(bytes).to_hex().to_string())
}

/// Reads `range` of a file, shorter if it ends earlier.
fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        // A folder between keys: no object of that name.
        return Err(io::ErrorKind::NotFound.into());
    }
    let end = range.end.min(found.len());
    let len = end.saturating_sub(range.start);
    let mut bytes = Vec::with_capacity(len as usize);
    if len > 0 {
        file.seek(SeekFrom::Start(range.start))?;
        file.take(len).read_to_end(&mut bytes)?;
    }
    Ok(bytes.into())
}

/// Judges an error of a read or a removal: a missing object is only called missing while the folder is there.
fn judge(root: &Root, doing: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => match root.check(doing) {
            Ok(()) => Error::new(Kind::Missing, doing, "no such object").because(error),
            Err(gone) => gone,
        },
        _ => Error::from_io(doing, error),
    }
}

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(stopped) => Err(
                Error::new(Kind::Retry, "use a folder", "the program is stopping").because(stopped),
            ),
        },
    }
}

/// Where a file that `path` names lies: its folder.
fn parent(path: &Path) -> PathBuf {
    path.parent()
        .expect("an object's path has the store's root in front")
        .to_path_buf()
}

#[cfg(test)]
mod tests;
