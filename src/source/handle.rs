//! What an inode of the source is recognised by, whatever it is called and whichever number it once had.
//!
//! Where the file system has handles (name_to_handle_at(2)), that is the handle: inode number and generation, so a number that
//! is used again is somebody else. Where it has none, number and birth time stand in. A place where something else
//! is mounted inside the source gets a handle of its own kind: it is not crossed, only shown as an empty directory.

use std::io;
use std::os::fd::AsFd;

use super::Handle;
use crate::sys::{self, Statx};

/// Stands where a kernel's handle type would: inode number and birth time. Kernel types are never negative.
const BY_NUMBER: i32 = -1;
/// The root of another mount inside the source.
const SUBMOUNT: i32 = -2;

impl Handle {
    fn new(kind: i32, bytes: &[&[u8]]) -> Self {
        let mut all = kind.to_le_bytes().to_vec();
        bytes.iter().for_each(|part| all.extend_from_slice(part));
        Self(all.into())
    }

    fn by_number(kind: i32, stat: &Statx) -> Self {
        let born = stat.btime.unwrap_or_default();
        Self::new(
            kind,
            &[
                &stat.dev.to_le_bytes(),
                &stat.ino.to_le_bytes(),
                &born.secs.to_le_bytes(),
                &born.nanos.to_le_bytes(),
            ],
        )
    }

    fn kind(&self) -> Option<i32> {
        self.0.first_chunk().copied().map(i32::from_le_bytes)
    }

    /// The kernel's own handle, (type, bytes), if it is one.
    pub(super) fn for_kernel(&self) -> Option<(i32, &[u8])> {
        let kind = self.kind().filter(|&kind| kind >= 0)?;
        Some((kind, self.0.get(4..)?))
    }

    /// Whether something else is mounted there.
    pub(super) fn is_submount(&self) -> bool {
        self.kind() == Some(SUBMOUNT)
    }
}

/// The mount through which the source is seen: what is reached through another one is not part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Territory {
    mount_id: u64,
    dev: u64,
}

impl Territory {
    /// That of the source's root, and the root's own handle.
    pub(super) fn of(root: &impl AsFd) -> io::Result<(Self, Handle)> {
        let stat = sys::stat(root)?;
        let mut territory = Self {
            mount_id: stat.mount_id,
            dev: stat.dev,
        };
        if let Ok(handle) = sys::handle_at(root, b"") {
            territory.mount_id = handle.mount_id;
        }
        let handle = territory.handle(root, b"")?;
        Ok((territory, handle))
    }

    /// The handle of `name` in `dir`, or of `dir` itself where that is empty. Does not follow a symlink.
    pub(super) fn handle(&self, dir: &impl AsFd, name: &[u8]) -> io::Result<Handle> {
        match sys::handle_at(dir, name) {
            Ok(handle) if handle.mount_id == self.mount_id => {
                Ok(Handle::new(handle.kind, &[&handle.bytes]))
            }
            Ok(_) => self.handle_by_number(dir, name),
            Err(error) if has_no_handles(&error) => self.handle_by_number(dir, name),
            Err(error) => Err(error),
        }
    }

    fn handle_by_number(&self, dir: &impl AsFd, name: &[u8]) -> io::Result<Handle> {
        let stat = if name.is_empty() {
            sys::stat(dir)?
        } else {
            sys::stat_at(dir, name)?
        };
        let ours = match stat.mount_id {
            0 => stat.dev == self.dev,
            id => id == self.mount_id,
        };
        let kind = if ours { BY_NUMBER } else { SUBMOUNT };
        Ok(Handle::by_number(kind, &stat))
    }
}

/// `EOPNOTSUPP` says that the file system has none; `ENOSYS` and `EPERM` (a sandbox) that we may not ask.
fn has_no_handles(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM)
    )
}
