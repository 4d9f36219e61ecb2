//! Contents of an open file: its room, copies within the kernel, and making it durable.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::{checked, checked_len, offset};

/// fallocate(2) with its `FALLOC_FL_*` flags.
pub fn allocate(fd: &impl AsFd, mode: i32, start: u64, len: u64) -> io::Result<()> {
    let (start, len) = (offset(start)?, offset(len)?);
    // SAFETY: takes plain numbers.
    checked(unsafe { libc::fallocate64(fd.as_fd().as_raw_fd(), mode, start, len) }).map(drop)
}

/// copy_file_range(2) at explicit offsets; how many bytes were copied.
pub fn copy_range(
    from: &impl AsFd,
    from_start: u64,
    to: &impl AsFd,
    to_start: u64,
    len: usize,
) -> io::Result<usize> {
    let (mut from_start, mut to_start) = (offset(from_start)?, offset(to_start)?);
    // SAFETY: both offsets are valid for reading and writing for the length of the call.
    checked_len(unsafe {
        libc::copy_file_range(
            from.as_fd().as_raw_fd(),
            &raw mut from_start,
            to.as_fd().as_raw_fd(),
            &raw mut to_start,
            len,
            0,
        )
    })
}

/// fsync(2), of a directory too.
pub fn sync(fd: &impl AsFd) -> io::Result<()> {
    // SAFETY: takes a number.
    checked(unsafe { libc::fsync(fd.as_fd().as_raw_fd()) }).map(drop)
}

/// syncfs(2): everything written to the file system of `fd` so far reaches its disk.
pub fn sync_filesystem(fd: &impl AsFd) -> io::Result<()> {
    // SAFETY: takes a number.
    checked(unsafe { libc::syncfs(fd.as_fd().as_raw_fd()) }).map(drop)
}
