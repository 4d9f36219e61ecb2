//! Every call into libc, behind safe functions: the only unsafe code.
//!
//! Thin on purpose: a function here makes one system call (or one that cannot be taken apart), turns its result into
//! `io::Result`, and holds no opinion. Called by `source`, `mount`, `fuse` and whoever needs what the standard library lacks.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `-1` as the error it stands for.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Bytes as a C string; `EINVAL` if they hold a NUL, which no name can.
fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The user whom this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: takes no arguments, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// umount2(2); `lazily` takes the mount out of the tree even while it is in use. Does not follow a symlink.
pub fn unmount(place: &Path, lazily: bool) -> io::Result<()> {
    let place = c_string(place.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazily { libc::MNT_DETACH } else { 0 };
    // SAFETY: `place` is a NUL-terminated string that outlives the call.
    checked(unsafe { libc::umount2(place.as_ptr(), flags) }).map(drop)
}
