//! Which files of an earlier run a restore may take for restored: those of one that ended, and those of one that was cut short while the
//! machine stayed up.
//!
//! A file gets its name before its bytes are on the disk, since waiting for each would take longer than the restore. A power cut
//! can therefore leave files of the right size and time that hold zeros. A marker in the target, there from before the first file until
//! all is on the disk, says during which boot of the machine that was written, and, once a power cut has been seen, which files are older
//! than it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use crate::clock::Timespec;
use crate::sys::{self, SetTime, Statx};

/// The marker's name in the target. Like all names that a restore uses while it works it begins with `.rewindfs-restoring`.
const MARKER: &[u8] = b".rewindfs-restoring";
const NEW_MARKER: &[u8] = b".rewindfs-restoring.new";
/// Longer than any marker.
const MARKER_LEN_MAX: u64 = 1024;

/// What lies in a target and may be kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trust {
    /// What was changed last before this is not; `None` trusts everything.
    since: Option<Timespec>,
}

impl Trust {
    /// Puts the marker into `root`, durably, or leaves that of an earlier run in force.
    pub(super) fn begin(root: &impl AsFd) -> io::Result<Self> {
        // Where the kernel does not say, nothing is known to have been written since.
        let boot = sys::boot_id().unwrap_or_default();
        let found = read(root)?;
        if let Some(Marker { boot: of, since }) = &found
            && *of == boot
            && !boot.is_empty()
        {
            return Ok(Self { since: *since });
        }
        // Made first: what is there now is older than it, by the clock of the file system that tells the times of both.
        let mut file = create(root, NEW_MARKER)?;
        let since = match found {
            None => None,
            Some(_) => Some(sys::stat(&file)?.ctime),
        };
        file.write_all(Marker { boot, since }.text().as_bytes())?;
        file.sync_all()?;
        sys::rename(root, NEW_MARKER, root, MARKER, 0)?;
        sys::sync(root)?;
        Ok(Self { since })
    }

    /// Whether what is `there` may be kept, if it looks right.
    pub(super) fn covers(&self, there: &Statx) -> bool {
        self.since.is_none_or(|since| there.ctime >= since)
    }

    /// Takes the marker away again, when all is on the disk. `root` keeps its mode and its times.
    pub(super) fn end(root: &impl AsFd) -> io::Result<()> {
        let before = sys::stat(root)?;
        let mode = before.mode & 0o7777;
        // Restored, it may not let its owner write into it.
        sys::set_mode(root, mode | 0o700)?;
        sys::remove_file(root, MARKER)?;
        sys::set_mode(root, mode)?;
        sys::set_times(root, SetTime::To(before.atime), SetTime::To(before.mtime))
    }
}

/// What the marker says.
struct Marker {
    boot: String,
    since: Option<Timespec>,
}

impl Marker {
    fn text(&self) -> String {
        let since = self
            .since
            .map(|Timespec { secs, nanos }| format!("since {secs} {nanos}\n"));
        format!("boot {}\n{}", self.boot, since.unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let boot = lines.next()?.strip_prefix("boot ")?.to_owned();
        let since = match lines.next() {
            None => None,
            Some(line) => {
                let (secs, nanos) = line.strip_prefix("since ")?.split_once(' ')?;
                Some(Timespec {
                    secs: secs.parse().ok()?,
                    nanos: nanos.parse().ok()?,
                })
            }
        };
        Some(Self { boot, since })
    }
}

/// `None` if there is none. One that cannot be understood is of no boot: a power cut may have left it so.
fn read(root: &impl AsFd) -> io::Result<Option<Marker>> {
    let opened = sys::open_at(root, MARKER, libc::O_RDONLY | libc::O_NOFOLLOW, 0);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => File::from(other?),
    };
    let mut bytes = Vec::new();
    file.take(MARKER_LEN_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(Marker::parse(&text).unwrap_or(Marker {
        boot: String::new(),
        since: None,
    })))
}

fn create(root: &impl AsFd, name: &[u8]) -> io::Result<File> {
    match sys::remove_file(root, name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    Ok(File::from(sys::open_at(root, name, flags, 0o600)?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn begin(at: &Path) -> Trust {
        Trust::begin(&File::open(at).unwrap()).unwrap()
    }

    fn stat(at: &Path) -> Statx {
        sys::stat(&File::open(at).unwrap()).unwrap()
    }

    fn marker(at: &Path) -> String {
        fs::read_to_string(at.join(".rewindfs-restoring")).unwrap()
    }

    /// A file made now, by the clock that the file system's times are told by.
    fn made(at: &Path, name: &str) -> Statx {
        fs::write(at.join(name), b"").unwrap();
        stat(&at.join(name))
    }

    /// Waits until the file system's clock has gone on.
    fn made_later(at: &Path, name: &str, than: &Statx) -> Statx {
        loop {
            let later = made(at, name);
            if later.ctime > than.ctime {
                return later;
            }
            fs::remove_file(at.join(name)).unwrap();
        }
    }

    #[test]
    fn what_was_there_before_a_power_cut_is_not_kept_until_a_restore_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let own = made(at, "of the person");
        assert!(begin(at).covers(&own), "no restore has been cut short here");
        let cut = made_later(at, "cut", &own);
        let again = begin(at);
        assert!(
            again.covers(&cut) && again.covers(&own),
            "the machine stayed up"
        );

        for damaged in ["boot 1234\n", "boot 1234\nsince 1 2\n", "", "\0\0\0\0"] {
            fs::write(at.join(".rewindfs-restoring"), damaged).unwrap();
            made_later(at, "tick", &cut);
            let after = begin(at);
            assert!(!after.covers(&cut) && !after.covers(&own), "{damaged:?}");
            let new = made_later(at, "new", &stat(&at.join("tick")));
            assert!(after.covers(&new));
            // Nor by the next run, however that of now ends.
            assert_eq!(begin(at), after);
            fs::remove_file(at.join("new")).unwrap();
        }

        let root = File::open(at).unwrap();
        let time = Timespec { secs: 77, nanos: 5 };
        sys::set_mode(&root, 0o500).unwrap();
        sys::set_times(&root, SetTime::To(time), SetTime::To(time)).unwrap();
        Trust::end(&root).unwrap();
        let left = sys::stat(&root).unwrap();
        assert_eq!((left.mtime, left.mode & 0o7777), (time, 0o500));
        sys::set_mode(&root, 0o700).unwrap();
        assert!(begin(at).covers(&cut));
        assert!(marker(at).starts_with("boot "));
    }
}
