//! Every call into libc, behind safe functions: the only unsafe code.
//!
//! Thin on purpose: a function here makes one system call (or a group that cannot be taken apart), turns its result into
//! `io::Result`, and holds no opinion. Called by `source`, `mount`, `fuse` and whoever needs what the standard library lacks.
//! `EINTR` is passed on where the call can be interrupted half done, and never happens where it cannot.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::clock::Timespec;

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

// --- the process -------------------------------------------------------------------------------------------------

/// The user whom this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: takes no arguments, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// Time since the machine was started, that during which it slept included: for what must not seem younger than it is.
pub fn since_boot() -> std::time::Duration {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `now` is valid for writing one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, now.as_mut_ptr()) };
    debug_assert_eq!(result, 0, "every kernel since 2.6.39 has this clock");
    // SAFETY: all-zero is a valid timespec, and the call has filled it.
    let now = unsafe { now.assume_init() };
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    std::time::Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanos)
}

/// How many descriptors this process may have open.
pub fn open_files_max() -> io::Result<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `limit` is valid for writing one rlimit.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and has filled it.
    Ok(unsafe { limit.assume_init() }.rlim_cur)
}

/// Raises the limit of open descriptors to the most that this process may have without more rights, and returns that. For processes that
/// never call select(2), which cannot bear numbers above 1023.
pub fn raise_open_files_max() -> io::Result<u64> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `limit` is valid for writing one rlimit.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) })?;
    // SAFETY: the call succeeded and has filled it.
    let mut limit = unsafe { limit.assume_init() };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for reading one rlimit.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// umount2(2); `lazily` takes the mount out of the tree even while it is in use. Does not follow a symlink.
pub fn unmount(place: &Path, lazily: bool) -> io::Result<()> {
    let place = c_string(place.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: `place` is a NUL-terminated string that outlives the call.
    checked(unsafe { libc::umount2(place.as_ptr(), flags) }).map(drop)
}

// --- acting as somebody else -------------------------------------------------------------------------------------

/// The kernel's version 3 of capability sets: two 32-bit halves of each set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Argument of capget(2) and capset(2), which libc does not declare.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// See [`CapabilityHeader`].
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

thread_local! {
    /// The umask of this thread once it has one of its own.
    static THREAD_UMASK: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Runs `work` on this thread with files belonging to `uid` and `gid` when they are created, and restores the daemon's own ids.
///
/// Capabilities are kept: the kernel has checked the caller's rights before it sent the request, and we know only one of
/// the caller's groups. Raw calls, because libc's own change every thread of the process. `EOVERFLOW` for an id that does not
/// exist here, `EPERM` where root may not do this (a container). Only for a process that is root; others need not.
pub fn as_owner<T>(uid: u32, gid: u32, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if uid == 0 && gid == 0 {
        return work();
    }
    if uid == u32::MAX || gid == u32::MAX {
        return Err(io::Error::from_raw_os_error(libc::EOVERFLOW));
    }
    /// Goes back to root, also when `work` panics. Gives the file capabilities back with it.
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: takes plain numbers; becoming root again is always permitted to a process whose real id it is.
            unsafe {
                libc::syscall(libc::SYS_setfsuid, 0);
                libc::syscall(libc::SYS_setfsgid, 0);
            }
        }
    }
    let mut sets = capabilities()?;
    let _back = Back;
    // SAFETY: takes plain numbers and changes only this thread's file system ids. An id that is none changes nothing, and
    // the answer is always the id as it was: that is the only way to learn whether the change was permitted.
    let (now_uid, now_gid) = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        (
            libc::syscall(libc::SYS_setfsuid, u32::MAX),
            libc::syscall(libc::SYS_setfsgid, u32::MAX),
        )
    };
    if (now_uid, now_gid) != (i64::from(uid), i64::from(gid)) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    if uid != 0 {
        // Leaving root has taken the file capabilities out of the effective set; what it was before is put back.
        set_capabilities(&mut sets)?;
    }
    work()
}

fn capabilities() -> io::Result<[CapabilityHalf; 2]> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut sets = [CapabilityHalf::default(); 2];
    // SAFETY: version 3 reads one header and writes exactly two halves; both are valid for that.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    checked(result as libc::c_int)?;
    Ok(sets)
}

fn set_capabilities(sets: &mut [CapabilityHalf; 2]) -> io::Result<()> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    // SAFETY: version 3 reads one header and exactly two halves; pid 0 is this thread only.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    checked(result as libc::c_int).map(drop)
}

/// Gives this thread the umask `mask`, and no other: it gets file system state of its own at the first call.
/// The kernel then applies it just as natively: not where the parent has a default ACL.
pub fn set_thread_umask(mask: u32) -> io::Result<()> {
    THREAD_UMASK.with(|current| {
        if current.get() == Some(mask) {
            return Ok(());
        }
        if current.get().is_none() {
            // SAFETY: takes a number; afterwards umask and working directory are no longer shared with other threads.
            checked(unsafe { libc::unshare(libc::CLONE_FS) })?;
        }
        // SAFETY: takes a number and cannot fail.
        unsafe { libc::umask(mask & 0o777) };
        current.set(Some(mask));
        Ok(())
    })
}

// --- looking -----------------------------------------------------------------------------------------------------

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

// --- opening -----------------------------------------------------------------------------------------------------

/// open(2) by path.
pub fn open(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is NUL-terminated.
    owned(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })
}

/// openat(2).
pub fn open_at(dir: &impl AsFd, name: &[u8], flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let name = c_string(name)?;
    // SAFETY: `name` is NUL-terminated; `mode` is what a variadic openat expects after O_CREAT and ignores otherwise.
    owned(unsafe {
        libc::openat(
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            flags | libc::O_CLOEXEC,
            mode,
        )
    })
}

/// Opens the inode of `fd` (O_PATH too) anew with other flags.
pub fn reopen(fd: &impl AsFd, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the path is NUL-terminated.
    owned(unsafe { libc::open(proc_path(fd).as_ptr(), flags | libc::O_CLOEXEC) })
}

/// Room for the handle of any file system (MAX_HANDLE_SZ).
const HANDLE_LEN_MAX: usize = 128;

/// `struct file_handle` with its room.
#[repr(C)]
struct RawHandle {
    len: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; HANDLE_LEN_MAX],
}

/// A file handle of name_to_handle_at(2), and the mount through which it was reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileHandle {
    /// Its type.
    pub kind: i32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The mount.
    pub mount_id: u64,
}

/// The handle of `name` in `dir`, not following a symlink; of `dir` itself where `name` is empty.
/// `EOPNOTSUPP` if the file system has none.
pub fn handle_at(dir: &impl AsFd, name: &[u8]) -> io::Result<FileHandle> {
    let name = c_string(name)?;
    let mut raw = RawHandle {
        len: HANDLE_LEN_MAX as libc::c_uint,
        kind: 0,
        bytes: [0; HANDLE_LEN_MAX],
    };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `raw` begins with the fields of `file_handle` and has the room for bytes that `len` says.
    checked(unsafe {
        libc::name_to_handle_at(
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    })?;
    let bytes = raw.bytes.get(..raw.len as usize).unwrap_or(&raw.bytes);
    Ok(FileHandle {
        kind: raw.kind,
        bytes: bytes.to_vec(),
        mount_id: u64::from(mount_id.unsigned_abs()),
    })
}

/// open_by_handle_at(2) on the file system of `mount`. `ESTALE` if the inode is gone, `EPERM` without CAP_DAC_READ_SEARCH,
/// `EINVAL` for bytes that are no handle.
pub fn open_handle(mount: &impl AsFd, kind: i32, bytes: &[u8], flags: i32) -> io::Result<OwnedFd> {
    let mut raw = RawHandle {
        len: 0,
        kind,
        bytes: [0; HANDLE_LEN_MAX],
    };
    let Some(room) = raw.bytes.get_mut(..bytes.len()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    room.copy_from_slice(bytes);
    raw.len = bytes.len() as libc::c_uint;
    // SAFETY: `raw` begins with the fields of `file_handle` and holds as many bytes as `len` says.
    owned(unsafe {
        libc::open_by_handle_at(
            mount.as_fd().as_raw_fd(),
            (&raw mut raw).cast(),
            flags | libc::O_CLOEXEC,
        )
    })
}

// --- names -------------------------------------------------------------------------------------------------------

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

// --- attributes --------------------------------------------------------------------------------------------------

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
    // SAFETY: both strings are NUL-terminated, and `value` is valid for writing its whole length.
    checked_len(unsafe {
        libc::getxattr(
            proc_path(fd).as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    })
}

/// listxattr(2) of the inode of `fd` (O_PATH too) into `names`, each ended by NUL; their length where that is empty.
pub fn list_xattrs(fd: &impl AsFd, names: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the path is NUL-terminated, and `names` is valid for writing its whole length.
    checked_len(unsafe {
        libc::listxattr(
            proc_path(fd).as_ptr(),
            names.as_mut_ptr().cast(),
            names.len(),
        )
    })
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

// --- contents ----------------------------------------------------------------------------------------------------

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

#[cfg(test)]
mod tests;
