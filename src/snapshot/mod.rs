//! The read-only front: a commit mounted as a file system, each request answered from the repository by a task.
//!
//! This file is only the FUSE adapter: it unpacks a request, asks [`tree_fs`] or [`directory`], replies. What is mounted
//! never changes, so the kernel may keep whatever it has been told. Mounted by the daemon.

pub mod tree_fs;

pub mod directory;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request, TimeOrNow,
};
use parking_lot::Mutex;

use crate::format::entry::{Contents, Inode};
use crate::fuse::attr;
use crate::fuse::bridge::Bridge;
use crate::id::FileId;
use crate::repo::Error;
use crate::snapshot::directory::{Directory, Listed};
use crate::snapshot::tree_fs::{Cursor, TreeFs};

/// How long the kernel may keep what it was told: a snapshot never changes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How far the kernel itself reads ahead in bytes, where it lets a mount choose: one frame.
const KERNEL_READ_AHEAD: u32 = 1 << 20;

/// File ids are never reused, so one generation serves for all.
const GENERATION: Generation = Generation(0);

/// Block size that `statfs` counts in.
const STATFS_BLOCK: u32 = 4096;

/// A snapshot as the kernel sees it.
pub struct Snapshot {
    fs: Arc<TreeFs>,
    bridge: Bridge,
    open: Mutex<HashMap<u64, Open>>,
    next_handle: AtomicU64,
}

/// What a file handle stands for.
#[derive(Clone)]
enum Open {
    File(Arc<Mutex<Cursor>>),
    Dir(Arc<Directory>),
}

impl Snapshot {
    /// Serves `fs`, answering through `bridge`.
    pub fn new(fs: Arc<TreeFs>, bridge: Bridge) -> Self {
        Self {
            fs,
            bridge,
            open: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    fn hold(&self, open: Open) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, open);
        FileHandle(number)
    }

    fn cursor(&self, handle: FileHandle) -> Option<Arc<Mutex<Cursor>>> {
        match self.open.lock().get(&handle.0) {
            Some(Open::File(cursor)) => Some(cursor.clone()),
            _ => None,
        }
    }

    fn directory(&self, handle: FileHandle) -> Option<Arc<Directory>> {
        match self.open.lock().get(&handle.0) {
            Some(Open::Dir(directory)) => Some(directory.clone()),
            _ => None,
        }
    }
}

/// Requests that are answered as a read-only disk answers.
macro_rules! refuse {
    ($($operation:ident($($argument:ty),*) -> $reply:ty;)*) => {
        $(fn $operation(&self, _request: &Request, $(_: $argument,)* reply: $reply) {
            reply.error(Errno::EROFS);
        })*
    };
}

impl Filesystem for Snapshot {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_POSIX_ACL,
        ];
        for flag in wanted {
            // What the kernel does not have we do without: each only saves round trips, or is checked elsewhere.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_readahead(KERNEL_READ_AHEAD);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (fs, name) = (self.fs.clone(), name.as_bytes().to_vec());
        self.bridge.answer(reply, move |reply| async move {
            let found = match fs.lookup(FileId(parent.0), &name).await {
                Ok(Some(entry)) => fs.inode(entry.id).await.map(|inode| (entry.id, inode)),
                Ok(None) => return reply.error(Errno::ENOENT),
                Err(error) => Err(error),
            };
            match found {
                Ok((id, inode)) => reply.entry(&FOREVER, &shown(id, &inode), GENERATION),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn getattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let fs = self.fs.clone();
        self.bridge.answer(reply, move |reply| async move {
            match fs.inode(FileId(ino.0)).await {
                Ok(inode) => reply.attr(&FOREVER, &shown(FileId(ino.0), &inode)),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = self.fs.clone();
        self.bridge.answer(reply, move |reply| async move {
            match fs.inode(FileId(ino.0)).await {
                Ok(inode) => reply.data(&inode.target),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn open(&self, _request: &Request, _ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        let handle = self.hold(Open::File(Arc::default()));
        reply.opened(
            handle,
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
        );
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (fs, cursor) = (self.fs.clone(), self.cursor(handle));
        let (id, len) = (FileId(ino.0), size as usize);
        self.bridge.answer(reply, move |reply| async move {
            let ahead = cursor.and_then(|cursor| cursor.lock().advance(offset, len as u64));
            if let Some(ahead) = ahead {
                let fs = fs.clone();
                tokio::spawn(async move { fs.fetch_best_effort(id, ahead).await });
            }
            match fs.read(id, offset, len).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let fs = self.fs.clone();
        self.bridge.answer(reply, move |reply| async move {
            match seek(&fs, FileId(ino.0), offset, whence == libc::SEEK_HOLE).await {
                Ok(Some(found)) => reply.offset(found as i64),
                Ok(None) => reply.error(Errno::ENXIO),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.open.lock().remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.hold(Open::Dir(Arc::new(Directory::new(FileId(ino.0)))));
        reply.opened(
            handle,
            FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        );
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let Some(directory) = self.directory(handle) else {
            return reply.error(Errno::EBADF);
        };
        let fs = self.fs.clone();
        self.bridge.answer(reply, move |mut reply| async move {
            let listed = match directory.read(&fs, offset).await {
                Ok(listed) => listed,
                Err(error) => return reply.error(errno(&error)),
            };
            for entry in &listed {
                let kind = attr::file_type(entry.kind);
                if reply.add(
                    INodeNo(entry.id.0),
                    entry.next,
                    kind,
                    OsStr::from_bytes(&entry.name),
                ) {
                    break;
                }
                directory.took(entry);
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let Some(directory) = self.directory(handle) else {
            return reply.error(Errno::EBADF);
        };
        let fs = self.fs.clone();
        self.bridge.answer(reply, move |mut reply| async move {
            let listed = match with_inodes(&fs, &directory, offset).await {
                Ok(listed) => listed,
                Err(error) => return reply.error(errno(&error)),
            };
            for (entry, inode) in &listed {
                let (ttl, shown) = match inode {
                    Some(inode) => (FOREVER, shown(entry.id, inode)),
                    // Asked for again, and then refused, as soon as anybody wants to know more than its kind.
                    None => (Duration::ZERO, attr::kind_alone(entry.id, entry.kind)),
                };
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(
                    INodeNo(entry.id.0),
                    entry.next,
                    name,
                    &ttl,
                    &shown,
                    GENERATION,
                ) {
                    break;
                }
                directory.took(entry);
            }
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.open.lock().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let totals = self.fs.totals();
        let blocks = totals.bytes.div_ceil(STATFS_BLOCK.into());
        reply.statfs(
            blocks,
            0,
            0,
            totals.files,
            0,
            STATFS_BLOCK,
            255,
            STATFS_BLOCK,
        );
    }

    fn getxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let (fs, name) = (self.fs.clone(), name.as_bytes().to_vec());
        self.bridge.answer(reply, move |reply| async move {
            match fs.xattrs(FileId(ino.0)).await {
                Ok(all) => match all.into_iter().find(|(have, _)| *have == name) {
                    Some((_, value)) => reply_sized(reply, size, &value),
                    None => reply.error(Errno::ENODATA),
                },
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = self.fs.clone();
        // As on a disk: others do not see that there are any.
        let hidden: &[u8] = if request.uid() == 0 { b"" } else { b"trusted." };
        self.bridge.answer(reply, move |reply| async move {
            match fs.xattrs(FileId(ino.0)).await {
                Ok(all) => {
                    let names: Vec<u8> = all
                        .iter()
                        .filter(|(name, _)| hidden.is_empty() || !name.starts_with(hidden))
                        .flat_map(|(name, _)| [name.as_slice(), b"\0"].concat())
                        .collect();
                    reply_sized(reply, size, &names);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    // The kernel refuses these itself, unless root has remounted the snapshot to be written to.
    refuse! {
        setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>, Option<TimeOrNow>, Option<SystemTime>,
            Option<FileHandle>, Option<SystemTime>, Option<SystemTime>, Option<SystemTime>, Option<BsdFileFlags>
        ) -> ReplyAttr;
        mknod(INodeNo, &OsStr, u32, u32, u32) -> ReplyEntry;
        mkdir(INodeNo, &OsStr, u32, u32) -> ReplyEntry;
        symlink(INodeNo, &OsStr, &Path) -> ReplyEntry;
        link(INodeNo, INodeNo, &OsStr) -> ReplyEntry;
        create(INodeNo, &OsStr, u32, u32, i32) -> ReplyCreate;
        unlink(INodeNo, &OsStr) -> ReplyEmpty;
        rmdir(INodeNo, &OsStr) -> ReplyEmpty;
        rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags) -> ReplyEmpty;
        setxattr(INodeNo, &OsStr, &[u8], i32, u32) -> ReplyEmpty;
        removexattr(INodeNo, &OsStr) -> ReplyEmpty;
    }
}

/// An inode as `stat` shows it. Holes are not told from data: counting them would take a look at every extent.
fn shown(id: FileId, inode: &Inode) -> FileAttr {
    attr::from_inode(id, inode, inode.size.div_ceil(512))
}

/// Some entries with their inodes; without where that is damaged, which must not hide the rest of the directory. Stops before one
/// that cannot be asked for, so that its error does not hide what comes before it.
async fn with_inodes(
    fs: &Arc<TreeFs>,
    directory: &Directory,
    offset: u64,
) -> Result<Vec<(Listed, Option<Arc<Inode>>)>, Error> {
    let mut listed = Vec::new();
    for entry in directory.read(fs, offset).await? {
        match fs.inode(entry.id).await {
            Ok(inode) => listed.push((entry, Some(inode))),
            Err(error) if error.is_damage() || matches!(error, Error::NotFound(_)) => {
                listed.push((entry, None));
            }
            Err(error) if listed.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(listed)
}

/// The next byte of data, or of a hole, from `offset` on (lseek(2)); `None` beyond the end of the file.
async fn seek(fs: &TreeFs, id: FileId, offset: u64, hole: bool) -> Result<Option<u64>, Error> {
    /// Looked at in one go: bounds the extents in memory for a file with millions of them.
    const STRETCH: u64 = 1 << 30;
    let size = fs.inode(id).await?.size;
    let mut at = offset;
    while at < size {
        let until = at.saturating_add(STRETCH).min(size);
        for extent in fs.extents(id, at..until).await? {
            if (extent.contents == Contents::Hole) == hole {
                return Ok(Some(extent.range.start.max(offset)));
            }
        }
        at = until;
    }
    // A file ends with a virtual hole.
    Ok((hole && offset < size).then_some(size))
}

/// Answers a question for a length (size 0) or for the bytes themselves (getxattr(2)).
fn reply_sized(reply: ReplyXattr, size: u32, value: &[u8]) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// The one place where a repository's error becomes the number that a program sees. What is behind it goes to the log,
/// since a number says little.
fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound(_) => Errno::ENOENT,
        other => {
            tracing::error!(error = %other, "read of the snapshot failed");
            Errno::EIO
        }
    }
}
