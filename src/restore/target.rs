//! The directory that is being restored into: names and attributes, by descriptor only.
//!
//! No name is ever followed through a symlink, so nothing that lies in the target already can lead a restore out of it.
//! Files and symlinks are made under a temporary name and renamed when they are whole.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::format::entry::{Inode, Kind};
use crate::path::RepoPath;
use crate::restore::plan::Item;
use crate::restore::trust::Trust;
use crate::sys::{self, SetTime};

/// Extended attributes of an inode as (name, value), or why they cannot be read.
pub(super) type Xattrs = io::Result<Vec<(Vec<u8>, Vec<u8>)>>;

/// What became of the attributes of something that has its name.
pub(super) type Applied = io::Result<()>;

/// Begins the name of what is not finished yet; the file id follows.
const UNFINISHED: &str = ".rewindfs-restoring-";
/// The bits of a mode that make a program run as its owner and its group.
const SET_ID_BITS: u32 = libc::S_ISUID | libc::S_ISGID;

/// The target's root.
pub(super) struct Target {
    root: OwnedFd,
    trust: Trust,
}

/// A directory in the target.
pub(super) struct Dir {
    fd: OwnedFd,
}

impl Target {
    /// Opens `path`, making it where it is missing, and marks it as being restored into.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let root = sys::open(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let trust = Trust::begin(File::from(root.try_clone()?))?;
        Ok(Self { root, trust })
    }

    /// Whether `item` is in `dir` already: the same kind, size and modification time. What has no such marks is made again.
    pub(super) fn holds(&self, dir: &Dir, item: &Item) -> io::Result<bool> {
        if item.inode.kind != Kind::File {
            return Ok(false);
        }
        let there = match sys::stat_at(&dir.fd, name_of(item)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let same = there.mode & libc::S_IFMT == libc::S_IFREG
            && there.size == item.inode.size
            && there.mtime == item.inode.mtime;
        Ok(same && self.trust.keeps())
    }

    /// Makes directory `path` in `parent`, or opens it where it is there already. The volume's root is the target itself.
    pub(super) fn make_dir(
        &self,
        parent: Option<&std::sync::Arc<Dir>>,
        path: &RepoPath,
    ) -> io::Result<Dir> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let Some(name) = path.name() else {
            let fd = sys::reopen(&self.root, libc::O_RDONLY | libc::O_DIRECTORY)?;
            return Ok(Dir { fd });
        };
        let parent = parent.map_or(&self.root, |dir| &dir.fd);
        match sys::make_dir(parent, name, 0o700) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let fd = sys::open_at(parent, name, flags, 0)?;
        // One that an earlier run has finished already may not let its owner write into it.
        let mode = sys::stat(&fd)?.mode & 0o7777;
        if mode & 0o700 != 0o700 {
            sys::set_mode(&fd, mode | 0o700)?;
        }
        Ok(Dir { fd })
    }

    /// Gives the file at `first` the name of `item` in `dir` too.
    pub(super) fn link(&self, first: &RepoPath, dir: &Dir, item: &Item) -> io::Result<()> {
        let mut at = sys::reopen(&self.root, libc::O_PATH | libc::O_DIRECTORY)?;
        for component in first.components() {
            at = sys::open_at(&at, component, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        }
        dir.put_in_place(item, |unfinished| sys::make_link(&at, &dir.fd, unfinished))
    }

    /// Makes all that was written durable. `all`: everything was to be restored, and was.
    pub(super) fn end(self, all: bool) -> io::Result<()> {
        self.trust.end(all)
    }
}

impl Dir {
    /// Makes a file under a temporary name, of its full size and empty.
    pub(super) fn make_file(&self, item: &Item) -> io::Result<File> {
        let unfinished = unfinished(item);
        self.remove_unfinished(&unfinished)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = File::from(sys::open_at(&self.fd, &unfinished, flags, 0o600)?);
        file.set_len(item.inode.size)?;
        Ok(file)
    }

    /// Opens it again.
    pub(super) fn open_file(&self, item: &Item) -> io::Result<File> {
        let flags = libc::O_WRONLY | libc::O_NOFOLLOW;
        let unfinished = unfinished(item);
        Ok(File::from(sys::open_at(&self.fd, &unfinished, flags, 0)?))
    }

    /// Gives a filled file its attributes and its name. It gets its name even where an attribute cannot be set: its contents are
    /// whole. Without a name, it is taken away.
    pub(super) fn finish_file(
        &self,
        item: &Item,
        file: &File,
        xattrs: Xattrs,
    ) -> io::Result<Applied> {
        let applied = apply(file, &item.inode, xattrs);
        let unfinished = unfinished(item);
        let named =
            name_of(item).and_then(|name| sys::rename(&self.fd, &unfinished, &self.fd, name, 0));
        if let Err(error) = named {
            // Why it has no name says more than that the rest of it is still there.
            let _ = self.remove_unfinished(&unfinished);
            return Err(error);
        }
        Ok(applied)
    }

    /// Takes away a file that could not be filled.
    pub(super) fn abandon(&self, item: &Item) -> io::Result<()> {
        self.remove_unfinished(&unfinished(item))
    }

    /// Makes a symlink, pipe, socket or device with its attributes; it is there even where an attribute cannot be set.
    pub(super) fn make_special(&self, item: &Item, xattrs: Xattrs) -> io::Result<Applied> {
        let inode = &item.inode;
        self.put_in_place(item, |unfinished| {
            match inode.kind {
                Kind::Symlink => sys::make_symlink(&self.fd, unfinished, &inode.target)?,
                kind => sys::make_node(&self.fd, unfinished, file_type(kind) | 0o600, inode.rdev)?,
            }
            let fd = sys::open_at(&self.fd, unfinished, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            Ok(apply(&fd, inode, xattrs))
        })
    }

    /// Gives the directory itself its attributes, when nothing more will be made in it.
    pub(super) fn finish(&self, item: &Item, xattrs: Xattrs) -> io::Result<()> {
        apply(&self.fd, &item.inode, xattrs)
    }

    /// Makes something under a temporary name and renames it to `item`'s.
    fn put_in_place<T>(
        &self,
        item: &Item,
        make: impl FnOnce(&[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        let unfinished = unfinished(item);
        self.remove_unfinished(&unfinished)?;
        let made = make(&unfinished)?;
        sys::rename(&self.fd, &unfinished, &self.fd, name_of(item)?, 0)?;
        // Renaming one name of an inode to another of the same does nothing and leaves both (rename(2)).
        self.remove_unfinished(&unfinished)?;
        Ok(made)
    }

    fn remove_unfinished(&self, unfinished: &[u8]) -> io::Result<()> {
        match sys::remove_file(&self.fd, unfinished) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn name_of(item: &Item) -> io::Result<&[u8]> {
    item.path
        .name()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))
}

fn unfinished(item: &Item) -> Vec<u8> {
    format!("{UNFINISHED}{}", item.id).into_bytes()
}

/// Owner first, since a change of owner takes set-id bits and capabilities away; times last, since all else changes them.
/// Owners and the attributes that only root may set are left out for anybody else, as every copying program does.
///
/// Each is tried, whatever became of those before; the first error is given. The modification time is then left as it is, so that
/// a later run does not take the file for done (see [`Target::holds`]).
fn apply(fd: &impl AsFd, inode: &Inode, xattrs: Xattrs) -> Applied {
    let root = sys::effective_uid() == 0;
    // `and` keeps the first error, and its argument has been carried out by then.
    let mut done = Ok(());
    if root {
        done = done.and(sys::set_owner(fd, Some(inode.uid), Some(inode.gid)));
    }
    let may_set =
        |name: &[u8]| root || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
    match xattrs {
        Ok(xattrs) => {
            for (name, value) in xattrs.iter().filter(|(name, _)| may_set(name)) {
                done = done.and(sys::set_xattr(fd, name, value, 0));
            }
        }
        Err(error) => done = done.and(Err(error)),
    }
    if inode.kind != Kind::Symlink {
        done = done.and(set_mode(fd, inode));
    }
    done =
        done.and_then(|()| sys::set_times(fd, SetTime::To(inode.atime), SetTime::To(inode.mtime)));
    done.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("it is there, but not all its attributes: {error}"),
        )
    })
}

/// Set-id bits only where the owner and the group are those that they were meant for: a program must not run as somebody else
/// than it did. On a directory they mean no such thing.
fn set_mode(fd: &impl AsFd, inode: &Inode) -> io::Result<()> {
    let owned = inode.kind == Kind::Dir
        || sys::stat(fd).is_ok_and(|there| (there.uid, there.gid) == (inode.uid, inode.gid));
    let mode = u32::from(inode.mode);
    sys::set_mode(fd, if owned { mode } else { mode & !SET_ID_BITS })
}

/// The `S_IF*` bits of a kind.
fn file_type(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Dir => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
        Kind::Fifo => libc::S_IFIFO,
        Kind::Socket => libc::S_IFSOCK,
        Kind::CharDevice => libc::S_IFCHR,
        Kind::BlockDevice => libc::S_IFBLK,
    }
}

#[cfg(test)]
mod tests;
