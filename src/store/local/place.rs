//! Putting a file under its name in one step, durably: written (or linked) aside, fsync, then rename or link, then
//! fsync of the folder. Called by [`super`] on threads that may block.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::failpoint::{self, Point};
use crate::store::local::root::Root;
use crate::store::local::{parent, version_of};
use crate::store::{Body, Error, Kind, PutOutcome, Version, body};

/// Where files lie until they have their names.
const ASIDE: &str = ".tmp";

/// Whoever holds a lock on this file may compare an object and replace it.
const LOCK: &str = ".lock";

/// After this a file that lies aside belongs to nobody: one object of 64 MiB takes seconds even on a slow stick.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How often a write begins anew when folders vanish under it.
const ATTEMPTS_MAX: usize = 3;

/// Writes an object, replacing any of that name.
pub(super) fn replace(root: &Root, path: &Path, body: &Body, doing: &str) -> Result<(), Error> {
    let aside = Aside::write(root, body, doing)?;
    aside.rename(root, path).map_err(|e| fail(root, doing, e))
}

/// Writes an object unless there is one of that name.
pub(super) fn create(
    root: &Root,
    path: &Path,
    body: &Body,
    doing: &str,
) -> Result<PutOutcome, Error> {
    if path.exists() {
        return already_there(root, path, doing);
    }
    let aside = Aside::write(root, body, doing)?;
    match aside.link(root, path) {
        Ok(()) => Ok(PutOutcome::Done),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            already_there(root, path, doing)
        }
        Err(error) if cannot_link(&error) => create_locked(root, path, aside, doing),
        Err(error) => Err(fail(root, doing, error)),
    }
}

/// The same on a file system without hard links (FAT, some network ones): atomic among those who take the lock.
fn create_locked(root: &Root, path: &Path, aside: Aside, doing: &str) -> Result<PutOutcome, Error> {
    let _held = lock(root).map_err(|error| fail(root, doing, error))?;
    if path.exists() {
        return already_there(root, path, doing);
    }
    let renamed = aside.rename(root, path);
    renamed.map_err(|error| fail(root, doing, error))?;
    Ok(PutOutcome::Done)
}

/// Who is told that an object is there may rely on it: its writer may have died, or be, between giving the name and making it
/// durable.
fn already_there(root: &Root, path: &Path, doing: &str) -> Result<PutOutcome, Error> {
    sync_folder(&parent(path)).map_err(|error| fail(root, doing, error))?;
    Ok(PutOutcome::Refused)
}

/// Replaces an object if it is still of `version`: atomic among those who take the lock.
pub(super) fn exchange(
    root: &Root,
    path: &Path,
    body: &Body,
    version: &Version,
    doing: &str,
) -> Result<PutOutcome, Error> {
    let aside = Aside::write(root, body, doing)?;
    let _held = lock(root).map_err(|error| fail(root, doing, error))?;
    match fs::read(path) {
        Ok(bytes) if version_of(&bytes) == *version => {}
        Ok(_) => return Ok(PutOutcome::Refused),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PutOutcome::Refused),
        Err(error) => return Err(fail(root, doing, error)),
    }
    let renamed = aside.rename(root, path);
    renamed.map_err(|error| fail(root, doing, error))?;
    Ok(PutOutcome::Done)
}

/// Removes an object durably.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder(&parent(path))
}

/// Removes what writers that died have left. Losing this is harmless: such files are never listed, and the next
/// opening tries again.
pub(super) fn clear_stale_best_effort(root: &Root) {
    let Ok(entries) = fs::read_dir(root.path().join(ASIDE)) else {
        return;
    };
    let now = SystemTime::now();
    for entry in entries.flatten() {
        // The name holds when it was made; a linked file's own times are those of the file it was linked from.
        let name = entry.file_name();
        let made = name.to_str().and_then(|name| name.split('-').next());
        let Some(secs) = made.and_then(|made| made.parse().ok()) else {
            continue;
        };
        let age = now.duration_since(UNIX_EPOCH + Duration::from_secs(secs));
        if age.is_ok_and(|age| age > STALE_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A durable file without a name of its own yet; removed when dropped.
struct Aside(PathBuf);

impl Aside {
    fn write(root: &Root, body: &Body, doing: &str) -> Result<Self, Error> {
        let folder = root.path().join(ASIDE);
        ensure_folder(root, &folder).map_err(|error| fail(root, doing, error))?;
        let aside = Self(folder.join(fresh_name()));
        match body {
            Body::Bytes(bytes) => aside.write_bytes(bytes).map_err(|e| fail(root, doing, e))?,
            Body::File { path, len } => aside.take_file(root, path, *len, doing)?,
        }
        failpoint::reach(Point::StoreAside);
        Ok(aside)
    }

    fn write_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create_file()?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Links a finished file, or copies it where it lies on another file system.
    fn take_file(&self, root: &Root, path: &Path, len: u64, doing: &str) -> Result<(), Error> {
        let mut source = File::open(path).map_err(|error| body::unreadable(doing, error))?;
        let found = source.metadata().map_err(|e| body::unreadable(doing, e))?;
        if found.len() != len {
            return Err(body::wrong_len(doing, len, found.len()));
        }
        match fs::hard_link(path, &self.0) {
            Ok(()) => return Ok(()),
            Err(error) if cannot_link(&error) => {}
            Err(error) => return Err(fail(root, doing, error)),
        }
        let mut copy = || -> io::Result<u64> {
            let mut file = self.create_file()?;
            let copied = io::copy(&mut source, &mut file)?;
            file.sync_all()?;
            Ok(copied)
        };
        match copy().map_err(|error| fail(root, doing, error))? {
            copied if copied == len => Ok(()),
            copied => Err(body::wrong_len(doing, len, copied)),
        }
    }

    fn create_file(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.0)
    }

    /// Gives it the name `path`, whatever had it before.
    fn rename(&self, root: &Root, path: &Path) -> io::Result<()> {
        // When both names are of one file already (an object put again from the same spool file), rename leaves
        // both, and dropping this value removes the one aside.
        name(root, path, || fs::rename(&self.0, path))
    }

    /// Gives it the name `path` unless something has it.
    fn link(&self, root: &Root, path: &Path) -> io::Result<()> {
        name(root, path, || fs::hard_link(&self.0, path))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone already after a rename; left behind otherwise, it is cleared away at some later opening.
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs `step`, which gives a file the name `path`, making the folders on the way when they are missing, and makes
/// the name durable.
fn name(root: &Root, path: &Path, step: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let folder = parent(path);
    let mut attempt = 1;
    loop {
        match step() {
            Ok(()) => return sync_folder(&folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS_MAX => {
                ensure_folder(root, &folder)?;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes `folder` and what is missing between the root and it, durably. The root itself is never made.
fn ensure_folder(root: &Root, folder: &Path) -> io::Result<()> {
    if folder == root.path() || folder.is_dir() {
        return Ok(());
    }
    let above = parent(folder);
    ensure_folder(root, &above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(&above),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Waits for the lock; it is given back when the file is closed.
fn lock(root: &Root) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .append(true)
        .open(root.path().join(LOCK))?;
    file.lock()?;
    Ok(file)
}

/// A name that no other writer takes: when, who, and a count.
fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or(Duration::ZERO);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!(
        "{}-{:09}-{process}-{count}",
        now.as_secs(),
        now.subsec_nanos()
    )
}

/// Whether a failed link says that this file system, or this pair of them, has none.
fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::CrossesDevices | K::PermissionDenied | K::Unsupported | K::TooManyLinks
    )
}

/// Judges an error of a write. A missing folder on the way is the root's, or is being removed by somebody.
fn fail(root: &Root, doing: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return match root.check(doing) {
            Ok(()) => Error::new(Kind::Retry, doing, error.to_string()).because(error),
            Err(gone) => gone,
        };
    }
    Error::from_io(doing, error)
}
