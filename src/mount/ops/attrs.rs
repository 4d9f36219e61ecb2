//! Attributes: reading and setting them, and the file system's own numbers.

use std::io;

use super::{Asker, Ops, Shown};
use crate::epoch::written_by_cut;
use crate::id::FileId;
use crate::source::Stat;
use crate::sys::{self, SetTime, Statvfs};

/// What is to be set; everything else stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetAttributes {
    /// Permission bits 07777.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: SetTime,
    /// Last change of contents.
    pub mtime: SetTime,
}

impl Default for SetAttributes {
    fn default() -> Self {
        Self {
            mode: None,
            uid: None,
            gid: None,
            size: None,
            atime: SetTime::Keep,
            mtime: SetTime::Keep,
        }
    }
}

impl Ops {
    /// Attributes of an inode, or of the open file where there is one.
    pub fn attributes(&self, id: FileId, handle: Option<u64>) -> io::Result<Shown> {
        let inode = self.inode(id)?;
        let open = handle.and_then(|handle| self.files.get(handle).ok());
        let stat = match open {
            Some(open) if open.inode.id() == id => sys::stat(&open.file).map(Stat::from)?,
            _ => self.source.stat(inode.node())?,
        };
        inode.notice(&stat);
        Ok(Shown { id, stat })
    }

    /// Sets attributes for `asker`, whose right to do so the kernel has checked.
    pub fn set_attributes(
        &self,
        id: FileId,
        handle: Option<u64>,
        set: &SetAttributes,
        asker: &Asker,
    ) -> io::Result<Shown> {
        let inode = self.inode(id)?;
        let node = inode.node();
        if let Some(size) = set.size {
            self.epochs.forewarn(node, &written_by_cut(size));
        }
        let touched = [inode.live()];
        let mut guard = self.epochs.change(&touched)?;
        let before = self.source.stat(node)?;
        // Held to the end, so that what was set can be shown: there may be no other descriptor to be had.
        let fd = self.source.path_fd(node)?;
        let chowned = set.uid.is_some() || set.gid.is_some();
        // chown(2) of neither owner nor group, which takes set-id bits away all the same. The kernel does not say who may.
        let empty = *set == SetAttributes::default();
        if chowned || (empty && (asker.keeps_set_id() || asker.uid == before.uid)) {
            self.source.set_owner(node, set.uid, set.gid)?;
            self.clear_set_id(&inode, &before, asker)?;
        }
        if let Some(size) = set.size {
            guard.resize(inode.live(), before.size, size)?;
            // By the handle where it can: the file may allow writing to nobody any more, or have no name.
            match handle.and_then(|handle| self.files.get(handle).ok()) {
                Some(open) if open.writable && open.inode.id() == id => open.file.set_len(size)?,
                // What opens with O_TRUNC looks like this. On an empty file, too, that counts as a change of contents: unlike truncate(2).
                _ if size == 0 => self.source.empty(node)?,
                _ => self.source.truncate(node, size)?,
            }
            if size == 0 && before.size > 0 {
                guard.emptied(inode.live());
            }
            self.clear_set_id(&inode, &before, asker)?;
        }
        if let Some(mode) = set.mode {
            self.source.set_mode(node, mode)?;
        }
        if set.atime != SetTime::Keep || set.mtime != SetTime::Keep {
            self.source.set_times(node, set.atime, set.mtime)?;
        }
        let stat = sys::stat(&*fd).map(Stat::from)?;
        inode.changed(&before, &stat);
        Ok(Shown { id, stat })
    }

    /// Target of a symlink.
    pub fn read_link(&self, id: FileId) -> io::Result<Vec<u8>> {
        self.source.read_link(self.inode(id)?.node())
    }

    /// The source's file system.
    pub fn filesystem(&self) -> io::Result<Statvfs> {
        self.source.filesystem()
    }
}
