//! What the kernel says is mounted: `/proc/self/mountinfo` (proc_pid_mountinfo(5)), read without touching the mounts
//! themselves, so that a dead one can be looked at.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::sys;

/// A process that is being killed closes its channels to the kernel one after the other, and takes the requests that are under way in each
/// with it: so often at most a look can be one of them.
const ABORTED_MAX: usize = 1000;

/// One line of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Unique among the mounts of this moment.
    pub id: u64,
    /// `major:minor`, one per mounted FUSE file system.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// `fuse.rewindfs` for ours.
    pub kind: String,
    /// What is mounted, as whoever mounted it has named it.
    pub source: String,
}

impl Entry {
    /// Whether it is one of ours, alive or dead.
    pub fn is_ours(&self) -> bool {
        self.kind == super::session::KIND
    }
}

/// Everything that this process sees mounted, a later mount behind those that it may lie over.
pub fn all() -> io::Result<Vec<Entry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|&byte| byte == b'\n')
        .filter_map(parse)
        .collect())
}

/// The mount in which `path` (absolute, without symlinks) lies: the last one of those at its nearest directory.
pub fn containing(path: &Path) -> io::Result<Option<Entry>> {
    let within = all()?
        .into_iter()
        .filter(|entry| path.starts_with(&entry.mountpoint));
    Ok(within.max_by_key(|entry| entry.mountpoint.components().count()))
}

/// The uppermost mount exactly at `mountpoint` (absolute, without symlinks), if there is one.
pub fn uppermost(mountpoint: &Path) -> io::Result<Option<Entry>> {
    let mut all = all()?.into_iter();
    Ok(all.rfind(|entry| entry.mountpoint == mountpoint))
}

/// What is at `path`, from the file system there and not from what the kernel remembers of it: for as long as attributes may
/// be cached a dead mount looks alive to stat(2), while statfs(2) always asks. `ENOTCONN` where it is dead.
pub fn look(path: &Path) -> io::Result<Metadata> {
    let mut aborted = 0;
    loop {
        match look_once(path) {
            Err(error) if is_dying(&error) && aborted < ABORTED_MAX => aborted += 1,
            looked => return looked,
        }
    }
}

/// Whether a request was under way when its process died. Those that come when it is dead are answered with `ENOTCONN`.
fn is_dying(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECONNABORTED)
}

fn look_once(path: &Path) -> io::Result<Metadata> {
    let place = sys::open(path, libc::O_PATH)?;
    sys::statvfs(&place)?;
    std::fs::metadata(path)
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext4 /dev/sda rw`; `None` for a line of another shape.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = String::from_utf8_lossy(fields.nth(1)?).into_owned();
    let mountpoint = unescape(fields.nth(1)?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (fields.next()?, fields.next()?);
    Some(Entry {
        id,
        device,
        mountpoint: PathBuf::from(OsString::from_vec(mountpoint)),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(escaped) => {
                plain.push(escaped);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

/// An absolute path without symlinks for a mount point that may be dead: its parent is resolved, its own name is taken
/// as it is where it cannot be.
pub(super) fn absolute(mountpoint: &Path) -> io::Result<PathBuf> {
    if let Ok(resolved) = mountpoint.canonicalize() {
        return Ok(resolved);
    }
    let absolute = std::path::absolute(mountpoint)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(absolute),
    }
}

/// Whether `path` can be an argument of a command that splits at NUL.
pub(super) fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = b"36 35 0:52 / /mnt/my\\040docs\\134x rw,noatime master:1 - fuse.rewindfs docs rw,user_id=0";
        let entry = parse(line).expect("a line as the kernel writes it");
        assert_eq!(entry.id, 36);
        assert_eq!(entry.device, "0:52");
        assert_eq!(entry.mountpoint, Path::new("/mnt/my docs\\x"));
        assert_eq!(entry.kind, "fuse.rewindfs");
        assert_eq!(entry.source, "docs");
    }

    #[test]
    fn other_shapes_are_passed_over() {
        for line in [
            &b""[..],
            b"x",
            b"36 35 0:52 / /mnt",
            b"36 35 0:52 / /mnt rw -",
        ] {
            assert_eq!(parse(line), None);
        }
    }

    #[test]
    fn the_root_is_mounted_and_nonsense_is_not() {
        let root = uppermost(Path::new("/proc")).expect("mountinfo can be read");
        assert_eq!(root.map(|entry| entry.kind).as_deref(), Some("proc"));
        let none = uppermost(Path::new("/no/such/place")).expect("mountinfo can be read");
        assert_eq!(none, None);
    }
}
