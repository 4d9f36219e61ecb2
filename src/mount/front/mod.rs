//! The adapter: one method for each request of the kernel. Unpacks, calls [`ops`], replies; decides nothing.
//!
//! `capabilities` says what is agreed with the kernel at the beginning, `words` translates.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use self::capabilities::ClearsSetId;
use self::words::{
    asker, attributes, cache_flags, caller, empty, id, nothing, time, written, xattr,
};
use super::ops::{self, Ops, Options, SetAttributes, Shown};
use crate::epoch::Epochs;
use crate::fuse::attr;
use crate::fuse::errno::errno;
use crate::fuse::session::{self, Session};
use crate::journal::Journal;
use crate::source::Source;

mod capabilities;

mod words;

/// Numbers are never used twice, so there is only one generation of each.
const GENERATION: Generation = Generation(0);

/// [`fuser::Notifier::inval_inode`]: a negative offset concerns attributes alone and leaves the page cache as it is, so that it waits for
/// nobody and may be sent by a thread that is answering a request.
const ATTRIBUTES_ALONE: i64 = -1;

/// How far the kernel reads ahead: its largest request. A disk of more than 1 GB/s is two thirds as fast with the kernel's own 128 KiB. Not
/// further, since as much is read around what a program maps and touches.
const READ_AHEAD_KIB: u32 = 1024;

/// The live mount of one source.
pub struct Live {
    ops: Arc<Ops>,
    /// Who says which writes take set-id bits away.
    set_id: ClearsSetId,
}

impl Live {
    /// Serves `source`; every change goes through `epochs`.
    pub fn new(
        epochs: Arc<Epochs>,
        source: Arc<Source>,
        journal: Arc<Journal>,
        options: Options,
    ) -> Self {
        Self {
            ops: Arc::new(Ops::new(epochs, source, journal, options)),
            set_id: ClearsSetId::Untold,
        }
    }

    /// Mounts it ([`session::mount`]).
    pub fn mount(
        self,
        place: &Path,
        options: &session::Options,
    ) -> Result<Session, session::Error> {
        let ops = self.ops();
        let session = session::mount(self, place, options)?;
        session.read_ahead_best_effort(READ_AHEAD_KIB);
        let notifier = session.notifier();
        ops.mounted(Box::new(move |id| {
            // It fails if the kernel has forgotten the inode, and with it the attributes.
            let _forgotten = notifier.inval_inode(INodeNo(id.0), ATTRIBUTES_ALONE, 0);
        }));
        Ok(session)
    }

    /// The operations, for whoever wants to look at their counters while the mount runs.
    pub fn ops(&self) -> Arc<Ops> {
        Arc::clone(&self.ops)
    }

    fn entry(&self, shown: io::Result<Shown>, reply: ReplyEntry) {
        match shown {
            Ok(shown) => reply.entry(&self.ops.options().ttl, &attributes(&shown), GENERATION),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn attr(&self, shown: io::Result<Shown>, reply: ReplyAttr) {
        match shown {
            Ok(shown) => reply.attr(&self.ops.options().ttl, &attributes(&shown)),
            Err(error) => reply.error(errno(&error)),
        }
    }
}

thread_local! {
    /// What this thread reads into; as large as its largest read so far, which is bounded by the largest request.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Filesystem for Live {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.set_id = capabilities::agree(config)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.ops.lookup(id(parent), name.as_bytes()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                reply.entry(&self.ops.options().ttl, &nothing(), GENERATION);
            }
            shown => self.entry(shown, reply),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.ops.forget(id(ino), lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.attr(self.ops.attributes(id(ino), fh.map(|fh| fh.0)), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttributes {
            mode,
            uid,
            gid,
            size,
            atime: time(atime),
            mtime: time(mtime),
        };
        let handle = fh.map(|fh| fh.0);
        let shown = self
            .ops
            .set_attributes(id(ino), handle, &set, &asker(request));
        self.attr(shown, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.ops.read_link(id(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let caller = caller(request, umask);
        let made = self
            .ops
            .make_node(id(parent), name.as_bytes(), mode, rdev.into(), &caller);
        self.entry(made, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let caller = caller(request, umask);
        let made = self
            .ops
            .make_dir(id(parent), name.as_bytes(), mode, &caller);
        self.entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.ops.unlink(id(parent), name.as_bytes()), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.ops.remove_dir(id(parent), name.as_bytes()), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (name, target) = (name.as_bytes(), target.as_os_str().as_bytes());
        let caller = caller(request, 0);
        let made = self.ops.make_symlink(id(parent), name, target, &caller);
        self.entry(made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let asked = ops::Rename {
            from: (id(parent), name.as_bytes()),
            to: (id(new_parent), new_name.as_bytes()),
            flags: flags.bits(),
        };
        empty(self.ops.rename(asked), reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.ops.link(id(ino), id(new_parent), new_name.as_bytes());
        self.entry(linked, reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.ops.open(id(ino), flags.0, &asker(request)) {
            Ok(open) => reply.opened(FileHandle(open.handle), cache_flags(open.keep_cache)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (parent, name) = (id(parent), name.as_bytes());
        let (caller, asker) = (caller(request, umask), asker(request));
        let created = self.ops.create(parent, name, mode, flags, &caller, &asker);
        match created {
            Ok((shown, open)) => reply.created(
                &self.ops.options().ttl,
                &attributes(&shown),
                GENERATION,
                FileHandle(open.handle),
                cache_flags(open.keep_cache),
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match self.ops.read(fh.0, offset, &mut buffer[..size]) {
                Ok(read) => reply.data(&buffer[..read]),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Of a write from the page cache the writer is not known, and none is told to clear.
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let told = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let untold = self.set_id == ClearsSetId::Untold && !from_cache && request.uid() != 0;
        let write = ops::Write {
            handle: fh.0,
            offset,
            data,
            flags: flags.0,
            clears_set_id: (told || untold).then(|| asker(request)),
        };
        written(self.ops.write(write), reply);
        self.ops.begin_write_back(fh.0);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Everything is on the source already. The kernel remembers this answer and does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.ops.release(fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        if self.ops.options().on_fsync.is_none() {
            return empty(self.ops.sync(fh.0, data_only), reply);
        }
        // Hot mode waits for the store, perhaps for long: not on a loop thread, since a few waiting programs would then keep
        // everybody from reading and writing. One thread for each program that waits. If there is none to be had, the reply is
        // dropped, which the program sees as a failed fsync.
        let ops = self.ops();
        let waiting = std::thread::Builder::new().name("fsync".to_owned());
        if let Err(error) = waiting.spawn(move || empty(ops.sync(fh.0, data_only), reply)) {
            tracing::error!(%error, "no thread for an fsync that waits for the store");
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.ops.open_dir(id(ino)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.ops.list(fh.0, offset, |entry| {
            let name = OsStr::from_bytes(&entry.name);
            let kind = attr::file_type(entry.kind);
            reply.add(INodeNo(entry.id.0), entry.next, kind, name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let ttl = self.ops.options().ttl;
        let listed = self.ops.list_plus(fh.0, offset, |entry| {
            let name = OsStr::from_bytes(&entry.name);
            let attr = attributes(&entry.shown);
            reply.add(attr.ino, entry.next, name, &ttl, &attr, GENERATION)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.ops.release_dir(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.ops.sync_dir(fh.0), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.ops.filesystem() {
            Ok(fs) => reply.statfs(
                fs.blocks,
                fs.free,
                fs.available,
                fs.files,
                fs.files_free,
                fs.block_size,
                fs.name_len_max,
                fs.fragment,
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (name, asker) = (name.as_bytes(), asker(request));
        let set = self.ops.set_xattr(id(ino), name, value, flags, &asker);
        empty(set, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        xattr(self.ops.xattr(id(ino), name.as_bytes()), room, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, room: u32, reply: ReplyXattr) {
        let names = self.ops.xattr_names(id(ino), &asker(request));
        xattr(names, room, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.ops.remove_xattr(id(ino), name.as_bytes()), reply);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let asker = asker(request);
        let done = self.ops.allocate(fh.0, mode, offset, length, &asker);
        empty(done, reply);
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.ops.seek(fh.0, offset, whence) {
            Ok(found) => reply.offset(found as i64),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copy = ops::Copy {
            from: (from.0, from_offset),
            to: (to.0, to_offset),
            len: length,
            asker: asker(request),
        };
        written(self.ops.copy_range(copy), reply);
    }
}
