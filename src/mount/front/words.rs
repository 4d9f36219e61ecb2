//! Between the FUSE crate's words and ours: what a request brings, and how an answer is said.

use std::io;
use std::time::SystemTime;

use fuser::{
    Errno, FileAttr, FopenFlags, INodeNo, ReplyEmpty, ReplyWrite, ReplyXattr, Request, TimeOrNow,
};

use crate::fuse::attr;
use crate::fuse::errno::errno;
use crate::id::FileId;
use crate::mount::ops::{Asker, Shown};
use crate::source::Caller;
use crate::sys::SetTime;

/// What a program sees of an inode.
pub(super) fn attributes(shown: &Shown) -> FileAttr {
    let stat = &shown.stat;
    FileAttr {
        ino: INodeNo(shown.id.0),
        size: stat.size,
        blocks: stat.blocks,
        atime: attr::system_time(stat.atime),
        mtime: attr::system_time(stat.mtime),
        ctime: attr::system_time(stat.ctime),
        crtime: stat.btime.map_or(SystemTime::UNIX_EPOCH, attr::system_time),
        kind: attr::file_type(stat.kind),
        perm: stat.mode,
        nlink: stat.links,
        uid: stat.uid,
        gid: stat.gid,
        rdev: attr::device(stat.rdev),
        blksize: stat.block_size,
        flags: 0,
    }
}

/// Attributes of no inode: the kernel may remember for a while that the name does not exist.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(super) fn empty(done: io::Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn written(count: io::Result<usize>, reply: ReplyWrite) {
    match count {
        // At most WRITE_LEN_MAX, or 16 MiB of a copy.
        Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
        Err(error) => reply.error(errno(&error)),
    }
}

/// The two-step protocol of xattrs: first how long, then what.
pub(super) fn xattr(value: io::Result<Vec<u8>>, room: u32, reply: ReplyXattr) {
    match value {
        // At most 64 KiB.
        Ok(value) if room == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > room as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn caller(request: &Request, umask: u32) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        umask,
    }
}

pub(super) fn asker(request: &Request) -> Asker {
    Asker {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

pub(super) fn id(ino: INodeNo) -> FileId {
    FileId(ino.0)
}

pub(super) fn time(asked: Option<TimeOrNow>) -> SetTime {
    match asked {
        None => SetTime::Keep,
        Some(asked) => attr::requested_time_or_now(asked).map_or(SetTime::Now, SetTime::To),
    }
}

pub(super) fn cache_flags(keep: bool) -> FopenFlags {
    if keep {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::empty()
    }
}
