//! Looking: attributes of inodes and file systems, symlinks' targets, directory entries, and where data lies.
//!
//! Nothing here follows a symlink or changes anything but an open file's own position.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use super::{c_string, checked, checked_len};
use crate::clock::Timespec;

/// What statx(2) says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statx {
    /// Type and permission bits.
    pub mode: u32,
    /// Link count.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes in use.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub block_size: u32,
    /// Device number of a device file.
    pub rdev: u64,
    /// Device number of the file system.
    pub dev: u64,
    /// The mount through which it was reached; 0 where the kernel does not say (before 5.8).
    pub mount_id: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of contents.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Birth, where the file system knows it.
    pub btime: Option<Timespec>,
}

/// statx(2) of `fd` itself.
pub fn stat(fd: &impl AsFd) -> io::Result<Statx> {
    statx(fd, c"")
}

/// statx(2) of `name` in `dir`, not following a symlink.
pub fn stat_at(dir: &impl AsFd, name: &[u8]) -> io::Result<Statx> {
    statx(dir, &c_string(name)?)
}

fn statx(dir: &impl AsFd, name: &CStr) -> io::Result<Statx> {
    let mut raw = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;
    // SAFETY: `name` is NUL-terminated and `raw` is valid for writing one statx.
    checked(unsafe {
        libc::statx(
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            flags,
            mask,
            raw.as_mut_ptr(),
        )
    })?;
    // SAFETY: all-zero is a valid statx, and the call has filled in what it knows.
    let raw = unsafe { raw.assume_init() };
    let has = |bit: libc::c_uint| raw.stx_mask & bit != 0;
    Ok(Statx {
        mode: raw.stx_mode.into(),
        links: raw.stx_nlink,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        ino: raw.stx_ino,
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        block_size: raw.stx_blksize,
        rdev: libc::makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
        dev: libc::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        mount_id: if has(libc::STATX_MNT_ID) {
            raw.stx_mnt_id
        } else {
            0
        },
        atime: timespec(&raw.stx_atime),
        mtime: timespec(&raw.stx_mtime),
        ctime: timespec(&raw.stx_ctime),
        btime: has(libc::STATX_BTIME).then(|| timespec(&raw.stx_btime)),
    })
}

fn timespec(raw: &libc::statx_timestamp) -> Timespec {
    Timespec {
        secs: raw.tv_sec,
        nanos: raw.tv_nsec,
    }
}

/// What statvfs(3) says. Blocks are of `fragment` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statvfs {
    /// Preferred I/O size in bytes.
    pub block_size: u32,
    /// Bytes of the blocks counted here.
    pub fragment: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free ones.
    pub free: u64,
    /// Free ones for users without privileges.
    pub available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Longest name in bytes.
    pub name_len_max: u32,
}

/// fstatvfs(3).
pub fn statvfs(fd: &impl AsFd) -> io::Result<Statvfs> {
    let mut raw = MaybeUninit::<libc::statvfs64>::zeroed();
    // SAFETY: `raw` is valid for writing one statvfs.
    checked(unsafe { libc::fstatvfs64(fd.as_fd().as_raw_fd(), raw.as_mut_ptr()) })?;
    // SAFETY: all-zero is a valid statvfs, and the call has filled it.
    let raw = unsafe { raw.assume_init() };
    Ok(Statvfs {
        block_size: u32::try_from(raw.f_bsize).unwrap_or(u32::MAX),
        fragment: u32::try_from(raw.f_frsize).unwrap_or(u32::MAX),
        blocks: raw.f_blocks,
        free: raw.f_bfree,
        available: raw.f_bavail,
        files: raw.f_files,
        files_free: raw.f_ffree,
        name_len_max: u32::try_from(raw.f_namemax).unwrap_or(u32::MAX),
    })
}

/// Target of the symlink that `fd` (O_PATH) is.
pub fn read_link(fd: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut target = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the empty name is NUL-terminated, and `target` is valid for writing its whole length.
    let len = checked_len(unsafe {
        libc::readlinkat(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_mut_ptr().cast(),
            target.len(),
        )
    })?;
    target.truncate(len);
    Ok(target)
}

/// getdents64(2): fills `buffer` with raw entries, returns how many bytes; 0 at the end.
pub fn read_entries(dir: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is valid for writing its whole length.
    let result = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            dir.as_fd().as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    checked_len(result as isize)
}

/// lseek(2).
pub fn seek(fd: &impl AsFd, to: i64, whence: i32) -> io::Result<u64> {
    // SAFETY: takes plain numbers.
    let result = unsafe { libc::lseek(fd.as_fd().as_raw_fd(), to, whence) };
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}
