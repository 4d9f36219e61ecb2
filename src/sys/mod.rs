//! Every call into libc, behind safe functions: the only unsafe code.
//!
//! Thin on purpose: a function here makes one system call (or a group that cannot be taken apart), turns its result into
//! `io::Result`, and holds no opinion. Called by `source`, `mount`, `fuse` and whoever needs what the standard library lacks.
//! `EINTR` is passed on where the call can be interrupted half done, and never happens where it cannot.
//! One file for each idea; everyone names what they need as `sys::…`, wherever it stands.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

mod process;

mod caller;

mod look;

mod open;

mod names;

mod attributes;

mod contents;

#[cfg(test)]
mod tests;

pub use self::attributes::{
    SetTime, get_xattr, list_xattrs, remove_xattr, set_mode, set_owner, set_times, set_xattr,
    truncate,
};
pub use self::caller::{as_owner, set_thread_umask};
pub use self::contents::{
    allocate, begin_write_back, bytes_in_memory, copy_range, is_lost_write, sync, sync_filesystem,
};
#[cfg(test)]
pub use self::contents::{dirty_bytes, forget_pages};
pub use self::look::{Statvfs, Statx, read_entries, read_link, seek, stat, stat_at, statvfs};
pub use self::names::{
    make_dir, make_link, make_node, make_symlink, remove_dir, remove_file, rename,
};
pub use self::open::{FileHandle, handle_at, open, open_at, open_handle, reopen};
pub use self::process::{
    back_by_huge_pages_best_effort, boot_id, die, effective_uid, give_large_buffers_back, give_way,
    groups_of, open_files_max, raise_open_files_max, since_boot, unmount,
};

/// `-1` as the error it stands for.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// The same for calls that return a length.
fn checked_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Bytes as a C string; `EINVAL` if they hold a NUL, which no name can.
fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// An offset or length as the kernel takes it; `EFBIG` beyond what a file can have.
fn offset(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// A path that leads to exactly the inode of `fd`, even an O_PATH one or a symlink: for calls that take no such descriptor.
fn proc_path(fd: &impl AsFd) -> CString {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    CString::new(path).expect("digits and slashes hold no NUL")
}

/// A new descriptor as its owner.
fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = checked(result)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
