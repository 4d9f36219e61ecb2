//! Extended attributes, ACLs among them. The kernel has checked what the caller may do.

use std::io;

use super::{Asker, Ops};
use crate::id::FileId;
use crate::mount::inodes::Inode;

/// Setting it changes the permission bits too.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// Names that only root is shown, here as on a disk.
const HIDDEN: &[u8] = b"trusted.";

impl Ops {
    /// The value of one; `ENODATA` if there is none.
    pub fn xattr(&self, id: FileId, name: &[u8]) -> io::Result<Vec<u8>> {
        self.source.xattr(self.inode(id)?.node(), name)
    }

    /// All names that `asker` may see, each ended by NUL.
    pub fn xattr_names(&self, id: FileId, asker: &Asker) -> io::Result<Vec<u8>> {
        let mut names = self.source.xattr_names(self.inode(id)?.node())?;
        if asker.uid != 0 {
            names = names
                .split_inclusive(|&byte| byte == 0)
                .filter(|name| !name.starts_with(HIDDEN))
                .collect::<Vec<_>>()
                .concat();
        }
        Ok(names)
    }

    /// Sets one, with setxattr(2)'s flags.
    pub fn set_xattr(
        &self,
        id: FileId,
        name: &[u8],
        value: &[u8],
        flags: i32,
        asker: &Asker,
    ) -> io::Result<()> {
        self.change_xattr(id, |inode| {
            self.source.set_xattr(inode.node(), name, value, flags)?;
            match name == ACCESS_ACL {
                true => self.clear_set_group_id_after_acl(inode, asker),
                false => Ok(()),
            }
        })
    }

    /// Removes one; `ENODATA` if there is none.
    pub fn remove_xattr(&self, id: FileId, name: &[u8]) -> io::Result<()> {
        self.change_xattr(id, |inode| self.source.remove_xattr(inode.node(), name))
    }

    fn change_xattr(
        &self,
        id: FileId,
        change: impl FnOnce(&Inode) -> io::Result<()>,
    ) -> io::Result<()> {
        let inode = self.inode(id)?;
        let touched = [inode.live()];
        let _guard = self.epochs.change(&touched)?;
        change(&inode)
    }
}
