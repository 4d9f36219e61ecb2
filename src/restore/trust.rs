//! Whether a restore may take what lies in its target for restored.
//!
//! A file gets its name before its bytes are on the disk, since waiting for each would take longer than the restore. A power cut
//! can therefore leave files of the right size and time that hold zeros. A marker in the target, there from before the first file until
//! all is on the disk, says during which boot of the machine that was written. Once a power cut has been seen nothing is kept until
//! a restore of everything has come to its end without a failure: no time of a file tells for certain on which side of the cut it was written.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use crate::path::RepoPath;
use crate::sys::{self, SetTime};

/// The marker's name in the target. Like all names that a restore uses while it works it begins with `.rewindfs-restoring`.
const MARKER: &[u8] = b".rewindfs-restoring";
const NEW_MARKER: &[u8] = b".rewindfs-restoring.new";
/// Longer than any marker.
const MARKER_LEN_MAX: u64 = 1024;
/// Its second line after a power cut.
const DOUBTED: &str = "doubted";

/// A target that is being restored into. One restore at a time: a lock that ends with it.
pub(super) struct Trust {
    root: File,
    /// What it was before its owner was let write into it.
    mode: u32,
    keeps: bool,
}

impl Trust {
    /// Puts the marker into `root`, durably, or leaves that of an earlier run in force. `WouldBlock` if another restore is under way.
    pub(super) fn begin(root: File) -> io::Result<Self> {
        match root.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let why = "another restore into this directory is under way";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
            }
            // A file system without locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mode = let_owner_write(&root)?;
        // Where the kernel does not say, nothing is known to have been written since.
        let boot = sys::boot_id().unwrap_or_default();
        let found = read(&root)?;
        let keeps = match &found {
            None => true,
            Some(found) => !boot.is_empty() && found.boot == boot && !found.doubted,
        };
        if found.is_none() || !keeps {
            let doubted = !keeps;
            Marker { boot, doubted }.put(&root)?;
        }
        Ok(Self { root, mode, keeps })
    }

    /// Whether what is there may be kept, if it looks right.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// All has been written: makes it durable and takes the marker away, unless what a power cut has left may still be there because not `all`
    /// was restored. The directory keeps its times, and its mode.
    pub(super) fn end(self, all: bool) -> io::Result<()> {
        let root = &self.root;
        if let Err(lost) = sys::sync_filesystem(root) {
            // The kernel tells of it once, and of which file it does not.
            let (boot, doubted) = (String::new(), true);
            Marker { boot, doubted }.put(root)?;
            return Err(lost);
        }
        let before = sys::stat(root)?;
        if self.keeps || all {
            let mode = let_owner_write(root)?;
            remove(root, MARKER)?;
            if mode & 0o700 != 0o700 {
                sys::set_mode(root, mode)?;
            }
        }
        if before.mode & 0o7777 == self.mode | 0o700 && before.mode & 0o7777 != self.mode {
            sys::set_mode(root, self.mode)?;
        }
        // Only its owner may, and nobody else could have restored them.
        let _ = sys::set_times(root, SetTime::To(before.atime), SetTime::To(before.mtime));
        sys::sync(root)
    }
}

/// Whether a restore uses this name itself, in which case it cannot be restored.
pub(super) fn is_reserved(path: &RepoPath) -> bool {
    let at_root = path.parent().is_some_and(|parent| parent.is_root());
    at_root
        && path
            .name()
            .is_some_and(|name| name == MARKER || name == NEW_MARKER)
}

/// Returns the mode that it had.
fn let_owner_write(root: &File) -> io::Result<u32> {
    let mode = sys::stat(root)?.mode & 0o7777;
    if mode & 0o700 != 0o700 {
        sys::set_mode(root, mode | 0o700)?;
    }
    Ok(mode)
}

/// What the marker says.
struct Marker {
    boot: String,
    doubted: bool,
}

impl Marker {
    fn put(&self, root: &impl AsFd) -> io::Result<()> {
        remove(root, NEW_MARKER)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let mut file = File::from(sys::open_at(root, NEW_MARKER, flags, 0o600)?);
        let doubted = if self.doubted { DOUBTED } else { "" };
        file.write_all(format!("boot {}\n{doubted}\n", self.boot).as_bytes())?;
        file.sync_all()?;
        sys::rename(root, NEW_MARKER, root, MARKER, 0)?;
        sys::sync(root)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let boot = lines.next()?.strip_prefix("boot ")?.to_owned();
        let doubted = !lines.next()?.is_empty();
        Some(Self { boot, doubted })
    }
}

/// `None` if there is none. One that cannot be understood is of no boot: a power cut may have left it so.
fn read(root: &impl AsFd) -> io::Result<Option<Marker>> {
    let opened = sys::open_at(root, MARKER, libc::O_RDONLY | libc::O_NOFOLLOW, 0);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let why = "a restore of another user has not come to its end here (.rewindfs-restoring is his): choose another directory";
            return Err(io::Error::new(error.kind(), why));
        }
        other => File::from(other?),
    };
    let mut bytes = Vec::new();
    file.take(MARKER_LEN_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(Marker::parse(&text).unwrap_or(Marker {
        boot: String::new(),
        doubted: true,
    })))
}

fn remove(root: &impl AsFd, name: &[u8]) -> io::Result<()> {
    match sys::remove_file(root, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::clock::Timespec;

    fn begin(at: &Path) -> Trust {
        Trust::begin(File::open(at).unwrap()).unwrap()
    }

    fn has_marker(at: &Path) -> bool {
        at.join(".rewindfs-restoring").exists()
    }

    #[test]
    fn nothing_is_kept_after_a_power_cut_until_all_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(begin(at).keeps(), "no restore has been cut short here");
        assert!(begin(at).keeps(), "the machine stayed up");
        for left in [
            "boot 1234\n\n",
            "boot 1234\ndoubted\n",
            "boot 1234",
            "",
            "\0\0\0\0",
        ] {
            fs::write(at.join(".rewindfs-restoring"), left).unwrap();
            assert!(!begin(at).keeps(), "{left:?}");
            assert!(
                !begin(at).keeps(),
                "the machine stayed up, but has been cut"
            );
            let part = begin(at);
            part.end(false).unwrap();
            assert!(has_marker(at) && !begin(at).keeps(), "{left:?}");
            begin(at).end(true).unwrap();
            assert!(!has_marker(at));
            assert!(begin(at).keeps());
            begin(at).end(false).unwrap();
            assert!(!has_marker(at), "nothing was ever in doubt");
        }
    }

    #[test]
    fn the_directory_is_left_as_it_was_restored() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        let time = Timespec { secs: 77, nanos: 5 };
        let state = || {
            let stat = sys::stat(&root).unwrap();
            (stat.mode & 0o7777, stat.mtime)
        };
        // As it was before, and as what is restored gives it.
        sys::set_mode(&root, 0o500).unwrap();
        let part = begin(dir.path());
        sys::set_times(&root, SetTime::To(time), SetTime::To(time)).unwrap();
        part.end(false).unwrap();
        assert_eq!(state(), (0o500, time));
        let whole = begin(dir.path());
        sys::set_mode(&root, 0o750).unwrap();
        sys::set_times(&root, SetTime::To(time), SetTime::To(time)).unwrap();
        whole.end(true).unwrap();
        assert_eq!(state(), (0o750, time));
    }

    #[test]
    fn one_restore_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = begin(dir.path());
        let second = Trust::begin(File::open(dir.path()).unwrap());
        assert_eq!(second.err().unwrap().kind(), io::ErrorKind::WouldBlock);
        first.end(true).unwrap();
        begin(dir.path()).end(true).unwrap();
    }

    #[test]
    fn the_marks_names_cannot_be_restored_at_the_root_alone() {
        let at = |path: &str| is_reserved(&RepoPath::parse(path.as_bytes()).unwrap());
        assert!(at(".rewindfs-restoring") && at(".rewindfs-restoring.new"));
        assert!(!at("docs/.rewindfs-restoring") && !at(".rewindfs"));
    }
}
