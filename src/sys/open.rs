//! Opening inodes: by path, by name in a directory, by another descriptor, and by file handle. Every descriptor made here is
//! closed by exec(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{c_string, checked, owned, proc_path};

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
