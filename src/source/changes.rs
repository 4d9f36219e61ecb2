//! The system calls that change the source: each is one that a user has asked for, made on the same inode.
//!
//! Only `mount` calls these, under the guard of an epoch. New inodes belong to the caller and get the caller's umask, both applied by
//! the kernel itself, so that set-group-id directories and default ACLs work as they do natively.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use super::descriptors::Access;
use super::identity::Reserved;
use super::{Node, Source, Stat, check_name};
use crate::sys::{self, SetTime};

/// For whom something is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Owner of what is created.
    pub uid: u32,
    /// Its group, unless the directory says otherwise.
    pub gid: u32,
    /// Permissions that are not given, unless the directory has a default ACL.
    pub umask: u32,
}

/// Why there is no node to something that was to be created.
#[derive(Debug, thiserror::Error)]
pub enum Unmade {
    /// It was not created.
    #[error(transparent)]
    Refused(#[from] io::Error),
    /// It was, and then could not be looked at; perhaps somebody beside the mount has removed it at once. Its name has to be looked
    /// up again.
    #[error("created, but not found afterwards: {0}")]
    Unknown(io::Error),
}

impl Source {
    /// Creates a regular file, which must not exist, and opens it with `flags`.
    pub fn create_file(
        &self,
        dir: &Node,
        name: &[u8],
        flags: i32,
        mode: u32,
        caller: &Caller,
    ) -> Result<(File, Node, Stat), Unmade> {
        check_name(name)?;
        let reserved = self.identity.reserve(dir.id)?;
        let dir_fd = self.path_fd(dir)?;
        let flags = flags | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let fd = self.as_caller(caller, || sys::open_at(&*dir_fd, name, flags, mode))?;
        let (node, stat) = self.made(dir, name, (&fd, b""), reserved)?;
        Ok((File::from(fd), node, stat))
    }

    /// Creates a directory.
    pub fn create_dir(
        &self,
        dir: &Node,
        name: &[u8],
        mode: u32,
        caller: &Caller,
    ) -> Result<(Node, Stat), Unmade> {
        self.create(dir, name, caller, |dir| sys::make_dir(dir, name, mode))
    }

    /// Creates a file, pipe, socket or device, by the type in `mode`.
    pub fn create_node(
        &self,
        dir: &Node,
        name: &[u8],
        mode: u32,
        rdev: u64,
        caller: &Caller,
    ) -> Result<(Node, Stat), Unmade> {
        self.create(dir, name, caller, |dir| {
            sys::make_node(dir, name, mode, rdev)
        })
    }

    /// Creates a symlink.
    pub fn create_symlink(
        &self,
        dir: &Node,
        name: &[u8],
        target: &[u8],
        caller: &Caller,
    ) -> Result<(Node, Stat), Unmade> {
        self.create(dir, name, caller, |dir| {
            sys::make_symlink(dir, name, target)
        })
    }

    fn create(
        &self,
        dir: &Node,
        name: &[u8],
        caller: &Caller,
        make: impl FnOnce(&OwnedFd) -> io::Result<()>,
    ) -> Result<(Node, Stat), Unmade> {
        check_name(name)?;
        let reserved = self.identity.reserve(dir.id)?;
        let dir_fd = self.path_fd(dir)?;
        self.as_caller(caller, || make(&dir_fd))?;
        self.made(dir, name, (&dir_fd, name), reserved)
    }

    /// The node of what has just been made. Needs neither a descriptor nor room on the disk of the identity map.
    fn made(
        &self,
        dir: &Node,
        name: &[u8],
        (at, path): (&OwnedFd, &[u8]),
        reserved: Reserved,
    ) -> Result<(Node, Stat), Unmade> {
        let found = self.territory.handle(at, path);
        let found = found.and_then(|handle| Ok((handle, sys::stat_at(at, path)?)));
        let (handle, stat) = found.map_err(Unmade::Unknown)?;
        let id = self.identity.settle(&handle, reserved);
        let node = Node { id, handle };
        self.remember(dir, name, &node);
        Ok((node, stat.into()))
    }

    /// Gives `node` another name.
    pub fn link(&self, node: &Node, dir: &Node, name: &[u8]) -> io::Result<()> {
        check_name(name)?;
        sys::make_link(&*self.path_fd(node)?, &*self.path_fd(dir)?, name)
    }

    /// Removes a name of anything but a directory.
    pub fn remove_file(&self, dir: &Node, name: &[u8]) -> io::Result<()> {
        check_name(name)?;
        let dir = self.path_fd(dir)?;
        let _renaming = self.descriptors.renaming();
        sys::remove_file(&*dir, name)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, dir: &Node, name: &[u8]) -> io::Result<()> {
        check_name(name)?;
        sys::remove_dir(&*self.path_fd(dir)?, name)
    }

    /// Renames, with renameat2(2)'s flags.
    pub fn rename(
        &self,
        from_dir: &Node,
        from: &[u8],
        to_dir: &Node,
        to: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let (from_fd, to_fd) = (self.path_fd(from_dir)?, self.path_fd(to_dir)?);
        let _renaming = self.descriptors.renaming();
        sys::rename(&*from_fd, from, &*to_fd, to, flags)
    }

    /// Sets permission bits (07777). `EOPNOTSUPP` for a symlink.
    pub fn set_mode(&self, node: &Node, mode: u32) -> io::Result<()> {
        sys::set_mode(&*self.path_fd(node)?, mode)
    }

    /// Sets owner and group where given; the kernel clears set-id bits as it does for any chown.
    pub fn set_owner(&self, node: &Node, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        sys::set_owner(&*self.path_fd(node)?, uid, gid)
    }

    /// Sets times.
    pub fn set_times(&self, node: &Node, atime: SetTime, mtime: SetTime) -> io::Result<()> {
        sys::set_times(&*self.path_fd(node)?, atime, mtime)
    }

    /// Sets the size.
    pub fn truncate(&self, node: &Node, len: u64) -> io::Result<()> {
        sys::truncate(&*self.path_fd(node)?, len)
    }

    /// Empties the file as open(2) with `O_TRUNC` does: its times change even if it is empty already.
    pub fn empty(&self, node: &Node) -> io::Result<()> {
        self.open_node(node, libc::O_WRONLY | libc::O_TRUNC)
            .map(drop)
    }

    /// `name` in `dir` is about to be taken from `node`, which has others that we may not have seen: then it is kept reachable
    /// until one of them is. Free where inodes are found by handle. To be called *before* the name goes.
    pub fn keep_if_nameless(&self, node: &Node, dir: &Node, name: &[u8]) -> io::Result<()> {
        if self.descriptors.access() == Access::ByHandle {
            return Ok(());
        }
        let going = (dir.id, name.to_vec());
        let others = self.identity.places().of(node.id);
        if others.iter().all(|place| *place == going) {
            self.keep_unnamed(node)?;
        }
        Ok(())
    }

    /// The last name of `node` is gone but a program may still use it: keeps it reachable until [`Self::release`].
    /// To be called *before* the name goes, with what [`Self::path_fd`] gave.
    pub fn keep_unnamed(&self, node: &Node) -> io::Result<()> {
        let fd = self.path_fd(node)?;
        self.descriptors.pin(node.id, fd);
        Ok(())
    }

    /// Nobody uses the unnamed inode any more: its space may go.
    pub fn release(&self, node: &Node) {
        self.descriptors.unpin(node.id);
    }

    fn as_caller<T>(&self, caller: &Caller, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        sys::set_thread_umask(caller.umask)?;
        if self.privileged {
            sys::as_owner(caller.uid, caller.gid, work)
        } else {
            work()
        }
    }
}
