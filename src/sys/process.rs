//! The process and the machine that it runs on: its user, its limits, the time since boot, and unmounting.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{c_string, checked};
use crate::clock::{Clock, Stamp, SystemClock};

/// The user whom this process acts as.
pub fn effective_uid() -> u32 {
    // SAFETY: takes no arguments, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// The groups of a process or thread beside its own one, by `/proc` (proc_pid_status(5)). An error if there is none, or it is
/// hidden from us.
pub fn groups_of(pid: u32) -> io::Result<Vec<u32>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let groups = line.unwrap_or_default().split_whitespace();
    Ok(groups.filter_map(|group| group.parse().ok()).collect())
}

/// The kernel's random name for this boot of the machine (random(4)).
pub fn boot_id() -> io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Time since the machine was started, that during which it slept included: for what must not seem younger than it is.
pub fn since_boot() -> Duration {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `now` is valid for writing one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, now.as_mut_ptr()) };
    debug_assert_eq!(result, 0, "every kernel since 2.6.39 has this clock");
    // SAFETY: all-zero is a valid timespec, and the call has filled it.
    let now = unsafe { now.assume_init() };
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanos)
}

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Stamp(since.unwrap_or(Duration::ZERO).as_millis() as u64)
    }

    fn since_boot(&self) -> Duration {
        since_boot()
    }
}

/// This thread gives way to others from now on (setpriority(2)): for work in the background that holds no lock which somebody waits for. It
/// needs no right; a failure changes nothing.
pub fn give_way() {
    /// One part in ten of what a thread gets that does not give way, where both want all of a core.
    const NICE: libc::c_int = 10;
    // SAFETY: takes plain numbers; 0 is the calling thread.
    if unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } < NICE {
        // SAFETY: as above.
        let _as_before = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    }
}

/// Asks the allocator to give large buffers back to the system as soon as they are freed. glibc stops doing so by itself after a few of
/// them, and then holds on to some 40 MiB in the pools of its threads. Nothing happens where there is another allocator.
pub fn give_large_buffers_back() {
    #[cfg(target_env = "gnu")]
    {
        /// Frames are encrypted in buffers of about a megabyte, smaller ones are reused soon.
        const LARGE: libc::c_int = 512 << 10;
        // SAFETY: takes two numbers and sets a parameter of the allocator; a failure changes nothing.
        let _as_before = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}

/// Asks the system to back `memory`, which nobody has touched yet, with huge pages: tens of megabytes are then had for a few dozen page
/// faults instead of one for every 4 KiB. Where it declines, everything is as if nobody had asked.
pub fn back_by_huge_pages_best_effort<T>(memory: &mut [MaybeUninit<T>]) {
    /// What the call takes as its beginning: a multiple of the page size, of which no machine has a larger one.
    const ALIGNMENT: usize = 64 << 10;
    let bytes = size_of_val(memory);
    let start = memory.as_mut_ptr().cast::<u8>();
    let before = start.align_offset(ALIGNMENT);
    if before < bytes {
        // SAFETY: the range lies within `memory`, of which the advice changes neither address nor contents.
        let _declined = unsafe {
            libc::madvise(
                start.add(before).cast(),
                bytes - before,
                libc::MADV_HUGEPAGE,
            )
        };
    }
}

/// Ends this process as `kill -9` does: nothing is written, given back or told.
pub fn die() {
    // SAFETY: takes a number and touches no memory.
    unsafe { libc::raise(libc::SIGKILL) };
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
