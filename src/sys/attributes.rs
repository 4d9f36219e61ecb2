//! Attributes of an inode: setting mode, owner, times and size; reading and setting extended attributes.
//!
//! All of it by descriptor, O_PATH ones too, so that it concerns that inode whatever it is called meanwhile.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::{c_string, checked, checked_len, offset, proc_path};
use crate::clock::Timespec;

/// chmod(2) of the inode of `fd` (O_PATH too).
pub fn set_mode(fd: &impl AsFd, mode: u32) -> io::Result<()> {
    // SAFETY: the path is NUL-terminated.
    checked(unsafe { libc::chmod(proc_path(fd).as_ptr(), mode & 0o7777) }).map(drop)
}

/// fchownat(2) of the inode of `fd` (O_PATH too); `None` leaves an id as it is.
pub fn set_owner(fd: &impl AsFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    // SAFETY: the empty name is NUL-terminated.
    checked(unsafe {
        libc::fchownat(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            uid.unwrap_or(u32::MAX),
            gid.unwrap_or(u32::MAX),
            libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW,
        )
    })
    .map(drop)
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// Leave it.
    Keep,
    /// The kernel's clock.
    Now,
    /// This.
    To(Timespec),
}

/// utimensat(2) of the inode of `fd` (O_PATH and symlinks too).
pub fn set_times(fd: &impl AsFd, atime: SetTime, mtime: SetTime) -> io::Result<()> {
    let raw = |time| match time {
        SetTime::Keep => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        },
        SetTime::Now => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_NOW,
        },
        SetTime::To(time) => libc::timespec {
            tv_sec: time.secs,
            tv_nsec: time.nanos.into(),
        },
    };
    let times = [raw(atime), raw(mtime)];
    // SAFETY: the empty name is NUL-terminated and `times` holds the two that are read.
    checked(unsafe {
        libc::utimensat(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            times.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// truncate(2) of the inode of `fd` (O_PATH too).
pub fn truncate(fd: &impl AsFd, len: u64) -> io::Result<()> {
    let len = offset(len)?;
    // SAFETY: the path is NUL-terminated.
    checked(unsafe { libc::truncate(proc_path(fd).as_ptr(), len) }).map(drop)
}

/// getxattr(2) of the inode of `fd` (O_PATH too) into `value`; the value's length where that is empty.
pub fn get_xattr(fd: &impl AsFd, name: &[u8], value: &mut [u8]) -> io::Result<usize> {
    let name = c_string(name)?;
    let (raw, room, len) = (fd.as_fd().as_raw_fd(), value.as_mut_ptr(), value.len());
    directly_or_by_path(
        // SAFETY: the name is NUL-terminated, and `value` is valid for writing its whole length.
        || unsafe { libc::fgetxattr(raw, name.as_ptr(), room.cast(), len) },
        // SAFETY: the same, and the path is NUL-terminated.
        || unsafe { libc::getxattr(proc_path(fd).as_ptr(), name.as_ptr(), room.cast(), len) },
    )
}

/// listxattr(2) of the inode of `fd` (O_PATH too) into `names`, each ended by NUL; their length where that is empty.
pub fn list_xattrs(fd: &impl AsFd, names: &mut [u8]) -> io::Result<usize> {
    let (raw, room, len) = (fd.as_fd().as_raw_fd(), names.as_mut_ptr(), names.len());
    directly_or_by_path(
        // SAFETY: `names` is valid for writing its whole length.
        || unsafe { libc::flistxattr(raw, room.cast(), len) },
        // SAFETY: the same, and the path is NUL-terminated.
        || unsafe { libc::listxattr(proc_path(fd).as_ptr(), room.cast(), len) },
    )
}

/// A call on a descriptor, or, since the kernel refuses that for O_PATH ones with `EBADF`, on its path under /proc. That costs
/// a walk of four names, several times the call itself.
fn directly_or_by_path(
    directly: impl FnOnce() -> isize,
    by_path: impl FnOnce() -> isize,
) -> io::Result<usize> {
    match checked_len(directly()) {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => checked_len(by_path()),
        done => done,
    }
}

/// setxattr(2) of the inode of `fd` (O_PATH too) with its `XATTR_*` flags.
pub fn set_xattr(fd: &impl AsFd, name: &[u8], value: &[u8], flags: i32) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: both strings are NUL-terminated, and `value` is valid for reading its whole length.
    checked(unsafe {
        libc::setxattr(
            proc_path(fd).as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    })
    .map(drop)
}

/// removexattr(2) of the inode of `fd` (O_PATH too).
pub fn remove_xattr(fd: &impl AsFd, name: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: both strings are NUL-terminated.
    checked(unsafe { libc::removexattr(proc_path(fd).as_ptr(), name.as_ptr()) }).map(drop)
}
