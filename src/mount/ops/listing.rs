//! Directories read entry by entry. Offsets are the source's own, so they stay good while the directory changes.

use std::io;

use super::{Ops, Shown};
use crate::format::entry::Kind;
use crate::id::FileId;
use crate::mount::handles::OpenDir;
use crate::source::{Listed, Listing, Node};
use crate::sys;

/// An entry of a plain listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name; `.` and `..` are among them.
    pub name: Vec<u8>,
    /// Its number; for `..` that of the directory itself, since the kernel knows better.
    pub id: FileId,
    /// Its kind.
    pub kind: Kind,
    /// Where to go on after it.
    pub next: u64,
}

/// An entry with the attributes of its inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryPlus {
    /// Its name; `.` and `..` are among them.
    pub name: Vec<u8>,
    /// Its inode; for `..` the directory itself.
    pub shown: Shown,
    /// Where to go on after it.
    pub next: u64,
}

impl Ops {
    /// Opens a directory; its handle.
    pub fn open_dir(&self, id: FileId) -> io::Result<u64> {
        let inode = self.inode(id)?;
        let listing = self.source.open_dir(inode.node())?.into();
        Ok(self.dirs.insert(OpenDir { inode, listing }))
    }

    /// Hands entries from `offset` on to `take` until that says that it is full (the entry is then not taken) or there are no more.
    pub fn list(
        &self,
        handle: u64,
        offset: u64,
        mut take: impl FnMut(&Entry) -> bool,
    ) -> io::Result<()> {
        let open = self.dirs.get(handle)?;
        let dir = open.inode.node();
        each_entry(&open, offset, |listed| {
            let (id, kind) = match self.identify(dir, &listed) {
                Ok(found) => found,
                Err(error) if is_gone(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            Ok(take(&Entry {
                name: listed.name,
                id,
                kind,
                next: listed.next,
            }))
        })
    }

    /// Number and kind of an entry; not every file system says the kind in its directories.
    fn identify(&self, dir: &Node, listed: &Listed) -> io::Result<(FileId, Kind)> {
        if is_dot(&listed.name) {
            return Ok((dir.id, Kind::Dir));
        }
        match listed.kind {
            Some(kind) => Ok((self.source.entry(dir, &listed.name)?.id, kind)),
            None => {
                let (node, stat) = self.source.lookup_in_passing(dir, &listed.name)?;
                Ok((node.id, stat.kind))
            }
        }
    }

    /// The same with attributes. Each entry taken counts as one lookup, but `.` and `..` do not.
    pub fn list_plus(
        &self,
        handle: u64,
        offset: u64,
        mut take: impl FnMut(&EntryPlus) -> bool,
    ) -> io::Result<()> {
        let open = self.dirs.get(handle)?;
        let dir = open.inode.node();
        each_entry(&open, offset, |listed| {
            let dot = is_dot(&listed.name);
            let shown = if dot {
                Shown {
                    id: dir.id,
                    stat: self.source.stat(dir)?,
                }
            } else {
                match self.source.lookup_in_passing(dir, &listed.name) {
                    Ok((node, stat)) => self.show(&node, stat),
                    Err(error) if is_gone(&error) => return Ok(false),
                    Err(error) => return Err(error),
                }
            };
            let id = shown.id;
            let full = take(&EntryPlus {
                name: listed.name,
                shown,
                next: listed.next,
            });
            if full && !dot {
                self.forget(id, 1);
            }
            Ok(full)
        })
    }

    /// Closes a directory.
    pub fn release_dir(&self, handle: u64) {
        self.dirs.remove(handle);
    }

    /// Returns when the directory's entries are durable.
    pub fn sync_dir(&self, handle: u64) -> io::Result<()> {
        let open = self.dirs.get(handle)?;
        if let Some(fd) = open.listing.lock().fd() {
            sys::sync(&fd)?;
        }
        if self.journal.owes(open.inode.id()) {
            self.journal.sync()?;
        }
        Ok(())
    }
}

/// Calls `each` for entries from `offset` on until it returns true, and leaves that entry unread.
fn each_entry(
    open: &OpenDir,
    offset: u64,
    mut each: impl FnMut(Listed) -> io::Result<bool>,
) -> io::Result<()> {
    let listing: &mut Listing = &mut open.listing.lock();
    listing.go_to(offset)?;
    let mut begun = false;
    while let Some(listed) = listing.next_entry()? {
        match each(listed) {
            Ok(false) => begun = true,
            Ok(true) => {
                listing.unread();
                break;
            }
            // What was taken has been counted, so it must be sent; the next request meets the error again.
            Err(_) if begun => {
                listing.unread();
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Removed since it was listed.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}
