//! A shield around a file system: a handler that panics answers `EIO` and its loop thread lives on.
//!
//! Without it a panic ends the thread, and after the last one the mount. The reply lies in the handler's arguments, so
//! unwinding drops it, and a dropped reply is an `EIO`. Also tells when the kernel has let go of the file system.

use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::{Condvar, Mutex};

/// Set once, when the kernel has let go of the file system or its last loop thread has ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    /// Waits for it.
    pub(super) fn wait(&self) {
        let mut ended = self.ended.lock();
        while !*ended {
            self.changed.wait(&mut ended);
        }
    }

    /// Whether it has happened.
    pub(super) fn has(&self) -> bool {
        *self.ended.lock()
    }

    fn set(&self) {
        *self.ended.lock() = true;
        self.changed.notify_all();
    }
}

/// `inner` behind the shield.
pub(super) struct Shield<F> {
    inner: F,
    ended: Arc<Ended>,
}

impl<F> Shield<F> {
    pub(super) fn new(inner: F, ended: Arc<Ended>) -> Self {
        Self { inner, ended }
    }
}

/// Runs a handler; says which one panicked. State behind it is shared behind locks that do not poison, and a handler leaves
/// nothing half done in memory that a later one relies on, so going on is sound.
fn shielded<T>(operation: &'static str, handler: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(handler))
        .inspect_err(|_| tracing::error!(operation, "a FUSE handler panicked; answered EIO"))
        .ok()
}

macro_rules! forward {
    ($($operation:ident($($argument:ident: $kind:ty),*);)*) => {
        $(fn $operation(&self, request: &Request, $($argument: $kind),*) {
            shielded(stringify!($operation), || self.inner.$operation(request, $($argument),*));
        })*
    };
}

impl<F: Filesystem> Filesystem for Shield<F> {
    fn init(&mut self, request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        shielded("init", || self.inner.init(request, config))
            .unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::EIO)))
    }

    fn destroy(&mut self) {
        shielded("destroy", || self.inner.destroy());
        self.ended.set();
    }

    forward! {
        lookup(parent: INodeNo, name: &OsStr, reply: ReplyEntry);
        forget(ino: INodeNo, lookups: u64);
        getattr(ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr);
        setattr(
            ino: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
            atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>,
            fh: Option<FileHandle>, crtime: Option<SystemTime>, chgtime: Option<SystemTime>,
            bkuptime: Option<SystemTime>, flags: Option<BsdFileFlags>, reply: ReplyAttr
        );
        readlink(ino: INodeNo, reply: ReplyData);
        mknod(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry);
        mkdir(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry);
        unlink(parent: INodeNo, name: &OsStr, reply: ReplyEmpty);
        rmdir(parent: INodeNo, name: &OsStr, reply: ReplyEmpty);
        symlink(parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry);
        rename(
            parent: INodeNo, name: &OsStr, new_parent: INodeNo, new_name: &OsStr,
            flags: RenameFlags, reply: ReplyEmpty
        );
        link(ino: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry);
        open(ino: INodeNo, flags: OpenFlags, reply: ReplyOpen);
        read(
            ino: INodeNo, fh: FileHandle, offset: u64, size: u32, flags: OpenFlags,
            owner: Option<LockOwner>, reply: ReplyData
        );
        write(
            ino: INodeNo, fh: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags,
            flags: OpenFlags, owner: Option<LockOwner>, reply: ReplyWrite
        );
        flush(ino: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty);
        release(
            ino: INodeNo, fh: FileHandle, flags: OpenFlags, owner: Option<LockOwner>, flush: bool,
            reply: ReplyEmpty
        );
        fsync(ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty);
        opendir(ino: INodeNo, flags: OpenFlags, reply: ReplyOpen);
        readdir(ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory);
        readdirplus(ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus);
        releasedir(ino: INodeNo, fh: FileHandle, flags: OpenFlags, reply: ReplyEmpty);
        fsyncdir(ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty);
        statfs(ino: INodeNo, reply: ReplyStatfs);
        setxattr(
            ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32, reply: ReplyEmpty
        );
        getxattr(ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr);
        listxattr(ino: INodeNo, size: u32, reply: ReplyXattr);
        removexattr(ino: INodeNo, name: &OsStr, reply: ReplyEmpty);
        access(ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty);
        create(
            parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate
        );
        getlk(
            ino: INodeNo, fh: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32,
            pid: u32, reply: ReplyLock
        );
        setlk(
            ino: INodeNo, fh: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32,
            pid: u32, sleep: bool, reply: ReplyEmpty
        );
        bmap(ino: INodeNo, block_size: u32, index: u64, reply: ReplyBmap);
        ioctl(
            ino: INodeNo, fh: FileHandle, flags: IoctlFlags, command: u32, input: &[u8],
            output_size: u32, reply: ReplyIoctl
        );
        poll(
            ino: INodeNo, fh: FileHandle, notifier: PollNotifier, events: PollEvents,
            flags: PollFlags, reply: ReplyPoll
        );
        fallocate(
            ino: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty
        );
        lseek(ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek);
        copy_file_range(
            from: INodeNo, from_fh: FileHandle, from_offset: u64, to: INodeNo, to_fh: FileHandle,
            to_offset: u64, length: u64, flags: CopyFileRangeFlags, reply: ReplyWrite
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_contained() {
        assert_eq!(shielded("test", || 7), Some(7));
        let none: Option<()> = shielded("test", || panic!("on purpose"));
        assert_eq!(none, None);
    }
}
