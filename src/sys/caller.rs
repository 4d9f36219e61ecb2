//! Acting as somebody else for the length of one call: owner and umask of what a program creates through the mount.
//!
//! All of it concerns the calling thread alone. Called by `source`.

use std::cell::Cell;
use std::io;

use super::checked;

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
