//! Extended attributes, ACLs among them. The kernel has checked what the caller may do.

use std::io;

use super::Ops;
use crate::id::FileId;

/// Setting it changes the permission bits too.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

impl Ops {
    /// The value of one; `ENODATA` if there is none.
    pub fn xattr(&self, id: FileId, name: &[u8]) -> io::Result<Vec<u8>> {
        self.source.xattr(self.inode(id)?.node(), name)
    }

    /// All names, each ended by NUL.
    pub fn xattr_names(&self, id: FileId) -> io::Result<Vec<u8>> {
        self.source.xattr_names(self.inode(id)?.node())
    }

    /// Sets one, with setxattr(2)'s flags.
    pub fn set_xattr(&self, id: FileId, name: &[u8], value: &[u8], flags: i32) -> io::Result<()> {
        self.change_xattr(id, name, |ops, node| {
            ops.source.set_xattr(node, name, value, flags)
        })
    }

    /// Removes one; `ENODATA` if there is none.
    pub fn remove_xattr(&self, id: FileId, name: &[u8]) -> io::Result<()> {
        self.change_xattr(id, name, |ops, node| ops.source.remove_xattr(node, name))
    }

    fn change_xattr(
        &self,
        id: FileId,
        name: &[u8],
        change: impl FnOnce(&Self, &crate::source::Node) -> io::Result<()>,
    ) -> io::Result<()> {
        let inode = self.inode(id)?;
        let touched = [inode.live()];
        let _guard = self.epochs.change(&touched)?;
        change(self, inode.node())?;
        if name == ACCESS_ACL {
            inode.notice(&self.source.stat(inode.node())?);
        }
        Ok(())
    }
}
