//! Extended attributes of the source's inodes, those that hold ACLs and capabilities included.

use std::io;
use std::os::fd::AsFd;

use super::{Node, Source};
use crate::sys;

/// What Linux allows for one value (XATTR_SIZE_MAX).
pub const VALUE_LEN_MAX: usize = 64 << 10;
/// What Linux allows for the names of one inode (XATTR_LIST_MAX).
const NAMES_LEN_MAX: usize = 64 << 10;
/// Nearly every value and list fits this; larger ones cost a second call.
const USUAL_LEN: usize = 1 << 10;
/// What a tree keeps. Everything else in `system.` is the file system's own business.
const KEPT: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];

impl Source {
    /// Every xattr a tree keeps (user, trusted, security, system.posix_acl_*), sorted by name. Empty where unsupported.
    pub fn xattrs(&self, node: &Node) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if node.handle.is_submount() {
            return Ok(Vec::new());
        }
        Self::xattrs_of(&*self.path_fd(node)?)
    }

    /// The same of an open descriptor; cheaper than of an O_PATH one.
    pub fn xattrs_of(fd: &impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let names = match list(fd) {
            Ok(names) => names,
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for name in names.split(|&byte| byte == 0) {
            if !KEPT.iter().any(|kept| name.starts_with(kept)) {
                continue;
            }
            match get(fd, name) {
                Ok(value) => all.push((name.to_vec(), value)),
                // Removed since it was listed.
                Err(error) if error.raw_os_error() == Some(libc::ENODATA) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort();
        Ok(all)
    }

    /// The value of one; `ENODATA` if there is none.
    pub fn xattr(&self, node: &Node, name: &[u8]) -> io::Result<Vec<u8>> {
        if node.handle.is_submount() {
            return Err(io::Error::from_raw_os_error(libc::ENODATA));
        }
        get(&*self.path_fd(node)?, name)
    }

    /// All names as listxattr(2) gives them, each ended by NUL.
    pub fn xattr_names(&self, node: &Node) -> io::Result<Vec<u8>> {
        if node.handle.is_submount() {
            return Ok(Vec::new());
        }
        list(&*self.path_fd(node)?)
    }

    /// Sets one, with setxattr(2)'s flags.
    pub fn set_xattr(&self, node: &Node, name: &[u8], value: &[u8], flags: i32) -> io::Result<()> {
        sys::set_xattr(&*self.path_fd(node)?, name, value, flags)
    }

    /// Removes one; `ENODATA` if there is none.
    pub fn remove_xattr(&self, node: &Node, name: &[u8]) -> io::Result<()> {
        sys::remove_xattr(&*self.path_fd(node)?, name)
    }
}

fn get(fd: &impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    read(VALUE_LEN_MAX, |value| sys::get_xattr(fd, name, value))
}

fn list(fd: &impl AsFd) -> io::Result<Vec<u8>> {
    read(NAMES_LEN_MAX, |names| sys::list_xattrs(fd, names))
}

/// Calls `call` with the usual room, and with as much as there can be if that was too little.
fn read(
    len_max: usize,
    mut call: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Vec<u8>> {
    let mut usual = [0; USUAL_LEN];
    match call(&mut usual) {
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {
            let mut value = vec![0; len_max];
            let len = call(&mut value)?;
            value.truncate(len);
            value.shrink_to_fit();
            Ok(value)
        }
        len => Ok(usual[..len?].to_vec()),
    }
}
