//! Contents of an open file: its room, copies within the kernel, and making it durable.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use super::{checked, checked_len, offset};

/// The number of cachestat(2), the same everywhere; the C library has no function for it.
const CACHESTAT: libc::c_long = 451;

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

/// sync_file_range(2) with `SYNC_FILE_RANGE_WRITE`: what is dirty in `range` sets out for the disk. Waits for none of it to get there, but for
/// what the file system needs to send it: places on the disk, and room in its queue. Makes nothing durable.
pub fn begin_write_back(fd: &impl AsFd, range: &Range<u64>) -> io::Result<()> {
    let (start, end) = (offset(range.start)?, offset(range.end)?);
    // No length would mean the rest of the file.
    if start >= end {
        return Ok(());
    }
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: takes plain numbers.
    let begun =
        unsafe { libc::sync_file_range(fd, start, end - start, libc::SYNC_FILE_RANGE_WRITE) };
    checked(begun).map(drop)
}

/// Whether an error of [`begin_write_back`] may mean that bytes are lost of which a later fsync will not tell again; the others say that the
/// file system cannot do that.
pub fn is_lost_write(error: &io::Error) -> bool {
    let lost = [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EUCLEAN];
    error
        .raw_os_error()
        .is_some_and(|code| lost.contains(&code))
}

/// cachestat(2): how many bytes in pages of `range` the system has in memory, so that reading them does not ask the disk. `ENOSYS` before
/// Linux 6.5.
pub fn bytes_in_memory(fd: &impl AsFd, range: &Range<u64>) -> io::Result<u64> {
    cachestat(fd, range).map(|counted| counted[0])
}

/// The same of those that are to be written and have not set out for the disk, for tests.
#[cfg(test)]
pub fn dirty_bytes(fd: &impl AsFd, range: &Range<u64>) -> io::Result<u64> {
    cachestat(fd, range).map(|counted| counted[1])
}

/// `struct cachestat`, in bytes: in memory, dirty, being written, and two more.
fn cachestat(fd: &impl AsFd, range: &Range<u64>) -> io::Result<[u64; 5]> {
    // `struct cachestat_range`, and counts of pages.
    let asked = [range.start, range.end.saturating_sub(range.start)];
    let mut counted = [0_u64; 5];
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel reads two numbers there and writes five here.
    let done = unsafe { libc::syscall(CACHESTAT, fd, asked.as_ptr(), counted.as_mut_ptr(), 0) };
    checked_len(done as isize)?;
    // SAFETY: takes a number.
    let page_len = checked_len(unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as isize)?;
    Ok(counted.map(|pages| pages * page_len as u64))
}

/// posix_fadvise(2) with `POSIX_FADV_DONTNEED`, for tests: what has reached the disk of the file leaves memory, where the file system heeds that.
#[cfg(test)]
pub fn forget_pages(fd: &impl AsFd) {
    // SAFETY: takes plain numbers.
    unsafe { libc::posix_fadvise(fd.as_fd().as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}
