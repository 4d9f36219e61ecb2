//! Names in directories: making, linking, renaming and removing them.
//!
//! Called by `source`, for what a user asked for on the source, and by `restore` in its target.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::{c_string, checked, proc_path};

/// mkdirat(2).
pub fn make_dir(dir: &impl AsFd, name: &[u8], mode: u32) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: `name` is NUL-terminated.
    checked(unsafe { libc::mkdirat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// mknodat(2): `mode` holds the type too.
pub fn make_node(dir: &impl AsFd, name: &[u8], mode: u32, rdev: u64) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: `name` is NUL-terminated.
    checked(unsafe { libc::mknodat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode, rdev) }).map(drop)
}

/// symlinkat(2).
pub fn make_symlink(dir: &impl AsFd, name: &[u8], target: &[u8]) -> io::Result<()> {
    let (name, target) = (c_string(name)?, c_string(target)?);
    // SAFETY: both are NUL-terminated.
    checked(unsafe { libc::symlinkat(target.as_ptr(), dir.as_fd().as_raw_fd(), name.as_ptr()) })
        .map(drop)
}

/// linkat(2): another name for the inode of `fd`, also of a symlink.
pub fn make_link(fd: &impl AsFd, dir: &impl AsFd, name: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: both strings are NUL-terminated.
    checked(unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            proc_path(fd).as_ptr(),
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    })
    .map(drop)
}

/// unlinkat(2) of anything but a directory.
pub fn remove_file(dir: &impl AsFd, name: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: `name` is NUL-terminated.
    checked(unsafe { libc::unlinkat(dir.as_fd().as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

/// unlinkat(2) of an empty directory.
pub fn remove_dir(dir: &impl AsFd, name: &[u8]) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: `name` is NUL-terminated.
    checked(unsafe { libc::unlinkat(dir.as_fd().as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) })
        .map(drop)
}

/// renameat2(2) with its `RENAME_*` flags.
pub fn rename(
    from_dir: &impl AsFd,
    from: &[u8],
    to_dir: &impl AsFd,
    to: &[u8],
    flags: u32,
) -> io::Result<()> {
    let (from, to) = (c_string(from)?, c_string(to)?);
    // SAFETY: both names are NUL-terminated.
    checked(unsafe {
        libc::renameat2(
            from_dir.as_fd().as_raw_fd(),
            from.as_ptr(),
            to_dir.as_fd().as_raw_fd(),
            to.as_ptr(),
            flags,
        )
    })
    .map(drop)
}
