//! Names: looking them up, making, linking, renaming and removing them.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::data::file_flags;
use super::{Asker, Opened, Ops, Shown, os_error};
use crate::epoch::{Guard, LiveInode};
use crate::format::entry::{Kind, NameEntry};
use crate::id::FileId;
use crate::mount::handles::OpenFile;
use crate::mount::inodes::Inode;
use crate::source::{Caller, Node, Stat, Unmade};

/// How often a name may turn out to be another inode once its lock is held. The kernel lets only one request at a time
/// change a directory of the mount, so only somebody who changes the source beside it can cause even one repetition.
const RETRIES_MAX: usize = 16;

/// What `rename` is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    /// Directory and name now.
    pub from: (FileId, &'a [u8]),
    /// Directory and name afterwards.
    pub to: (FileId, &'a [u8]),
    /// `RENAME_*` of renameat2(2).
    pub flags: u32,
}

/// A name whose removal is under way.
struct Going {
    node: Node,
    /// It is the inode's last.
    last: bool,
}

impl Ops {
    /// The inode behind a name. Counts as one lookup until it is forgotten.
    pub fn lookup(&self, dir: FileId, name: &[u8]) -> io::Result<Shown> {
        let dir = self.inode(dir)?;
        let (node, stat) = self.source.lookup(dir.node(), name)?;
        Ok(self.show(&node, stat))
    }

    /// The kernel no longer knows an inode from this many lookups.
    pub fn forget(&self, id: FileId, lookups: u64) {
        if let Some(inode) = self.inodes.forget(id, lookups)
            && inode.is_unnamed()
        {
            self.source.forget_identity_best_effort(inode.node());
        }
    }

    /// Creates and opens a regular file. Without `O_EXCL` one that exists already is opened instead.
    pub fn create(
        &self,
        dir: FileId,
        name: &[u8],
        mode: u32,
        flags: i32,
        caller: &Caller,
        asker: &Asker,
    ) -> io::Result<(Shown, Opened)> {
        let parent = self.inode(dir)?;
        let created = self.make(&parent, name, |dir| {
            self.source
                .create_file(dir, name, file_flags(flags), mode, caller)
                .map(|(file, node, stat)| (node, stat, file))
        });
        match created {
            Ok((inode, stat, file)) => {
                let opened = self.opened(inode, file, &stat, flags);
                let id = opened.id;
                Ok((Shown { id, stat }, opened))
            }
            Err(error)
                if error.raw_os_error() == Some(libc::EEXIST) && flags & libc::O_EXCL == 0 =>
            {
                // Somebody beside the mount was faster.
                let found = self.lookup(dir, name)?;
                let opened = self.open(found.id, flags, asker);
                Ok((
                    found.clone(),
                    opened.inspect_err(|_| self.forget(found.id, 1))?,
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// Creates a directory.
    pub fn make_dir(
        &self,
        dir: FileId,
        name: &[u8],
        mode: u32,
        caller: &Caller,
    ) -> io::Result<Shown> {
        self.make_plain(dir, name, |dir| {
            self.source.create_dir(dir, name, mode, caller)
        })
    }

    /// Creates a file, pipe, socket or device, by the type in `mode`.
    pub fn make_node(
        &self,
        dir: FileId,
        name: &[u8],
        mode: u32,
        rdev: u64,
        caller: &Caller,
    ) -> io::Result<Shown> {
        self.make_plain(dir, name, |dir| {
            self.source.create_node(dir, name, mode, rdev, caller)
        })
    }

    /// Creates a symlink.
    pub fn make_symlink(
        &self,
        dir: FileId,
        name: &[u8],
        target: &[u8],
        caller: &Caller,
    ) -> io::Result<Shown> {
        self.make_plain(dir, name, |dir| {
            self.source.create_symlink(dir, name, target, caller)
        })
    }

    /// Gives an inode another name.
    pub fn link(&self, id: FileId, dir: FileId, name: &[u8]) -> io::Result<Shown> {
        let (inode, parent) = (self.inode(id)?, self.inode(dir)?);
        let (node, parent) = (inode.node(), parent);
        let touched = [inode.live(), parent.live()];
        let mut guard = self.epochs.change(&touched)?;
        let before = self.source.stat(node)?;
        self.source.remember(parent.node(), name, node);
        if let Err(error) = self.source.link(node, parent.node(), name) {
            if error.raw_os_error() != Some(libc::EEXIST) {
                self.source.forget_name(parent.node(), name, node);
            }
            return Err(error);
        }
        guard.name(parent.live(), name, Some(entry(node, &before)));
        // The link is there: that its inode cannot be looked at again is no reason to say otherwise.
        let stat = self.source.stat(node).unwrap_or_else(|_| Stat {
            links: before.links + 1,
            ..before
        });
        drop(guard);
        Ok(self.show(node, stat))
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, dir: FileId, name: &[u8]) -> io::Result<()> {
        self.remove(dir, name, |dir| self.source.remove_file(dir, name))
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, dir: FileId, name: &[u8]) -> io::Result<()> {
        self.remove(dir, name, |dir| self.source.remove_dir(dir, name))
    }

    /// Renames, replaces, exchanges or leaves a whiteout.
    pub fn rename(&self, asked: Rename<'_>) -> io::Result<()> {
        let (from_dir, to_dir) = (self.inode(asked.from.0)?, self.inode(asked.to.0)?);
        for _ in 0..RETRIES_MAX {
            let from = self.source.entry(from_dir.node(), asked.from.1)?;
            let to = self.entry_if_any(to_dir.node(), asked.to.1)?;
            let moved = self.epochs.inode(&from);
            let met = to.as_ref().map(|node| self.epochs.inode(node));
            let mut touched = vec![from_dir.live(), to_dir.live(), &moved];
            touched.extend(met.as_ref());
            let guard = self.epochs.change(&touched)?;
            let unchanged = self.entry_if_any(from_dir.node(), asked.from.1)?.as_ref()
                == Some(&from)
                && self.entry_if_any(to_dir.node(), asked.to.1)? == to;
            if unchanged {
                return self.rename_locked(guard, (&from_dir, &to_dir), &asked, from, met.as_ref());
            }
        }
        Err(os_error(libc::EBUSY))
    }

    fn rename_locked(
        &self,
        mut guard: Guard<'_>,
        (from_dir, to_dir): (&Inode, &Inode),
        asked: &Rename<'_>,
        from: Node,
        met: Option<&Arc<LiveInode>>,
    ) -> io::Result<()> {
        let rename = || {
            let (from_dir, to_dir) = (from_dir.node(), to_dir.node());
            self.source
                .rename(from_dir, asked.from.1, to_dir, asked.to.1, asked.flags)
        };
        let exchange = asked.flags & libc::RENAME_EXCHANGE != 0;
        let same = met.is_some_and(|met| met.id() == from.id);
        if same {
            // Two names of one inode: POSIX has it that nothing happens.
            return rename();
        }
        // Learnt now: right after the call an inode that is found by its name is not where it was last seen.
        let moved = self.entry_of(&from)?;
        let exchanged = match met {
            Some(met) if exchange => Some(self.entry_of(met.node())?),
            _ => None,
        };
        let going = match met {
            Some(met) if !exchange => {
                let name = (to_dir.node(), asked.to.1);
                Some(self.begin_removal(&mut guard, met, name)?)
            }
            _ => None,
        };
        // What is found by name must be found under the new one from the very moment on when it has it.
        let met = met.map(|met| met.node());
        self.source.remember(to_dir.node(), asked.to.1, &from);
        if let (Some(met), Some(_)) = (met, exchanged) {
            self.source.remember(from_dir.node(), asked.from.1, met);
        }
        let renamed = rename();
        if let Some(going) = going {
            self.end_removal(going, (to_dir.node(), asked.to.1), renamed.is_ok());
        }
        if let Err(error) = renamed {
            self.source.forget_name(to_dir.node(), asked.to.1, &from);
            if let (Some(met), Some(_)) = (met, exchanged) {
                self.source.forget_name(from_dir.node(), asked.from.1, met);
            }
            return Err(error);
        }
        guard.name(to_dir.live(), asked.to.1, Some(moved));
        self.source
            .forget_name(from_dir.node(), asked.from.1, &from);
        if let (Some(met), Some(_)) = (met, exchanged) {
            self.source.forget_name(to_dir.node(), asked.to.1, met);
        }
        // With a whiteout first gone and then made, so that removing it, too, leaves a trace of the name that was there.
        guard.name(from_dir.live(), asked.from.1, exchanged);
        if asked.flags & libc::RENAME_WHITEOUT != 0 {
            self.whiteout(&mut guard, from_dir, asked.from.1);
        }
        Ok(())
    }

    /// What the rename has left behind at the old name.
    fn whiteout(&self, guard: &mut Guard<'_>, dir: &Inode, name: &[u8]) {
        match self.source.lookup(dir.node(), name) {
            Ok((node, stat)) => {
                guard.created(&self.epochs.inode(&node));
                guard.name(dir.live(), name, Some(entry(&node, &stat)));
            }
            Err(error) => guard.owe(dir.live(), name, &error),
        }
    }

    fn entry_of(&self, node: &Node) -> io::Result<NameEntry> {
        Ok(entry(node, &self.source.stat(node)?))
    }

    fn make_plain(
        &self,
        dir: FileId,
        name: &[u8],
        create: impl FnOnce(&Node) -> Result<(Node, Stat), Unmade>,
    ) -> io::Result<Shown> {
        let parent = self.inode(dir)?;
        let (inode, stat, ()) = self.make(&parent, name, |dir| {
            create(dir).map(|(node, stat)| (node, stat, ()))
        })?;
        let id = inode.id();
        Ok(Shown { id, stat })
    }

    /// Makes a new inode under the guard of its directory. Counts a lookup.
    fn make<T>(
        &self,
        parent: &Inode,
        name: &[u8],
        create: impl FnOnce(&Node) -> Result<(Node, Stat, T), Unmade>,
    ) -> io::Result<(Arc<Inode>, Stat, T)> {
        let touched = [parent.live()];
        let mut guard = self.epochs.change(&touched)?;
        let (node, stat, more) = match create(parent.node()) {
            Ok(made) => made,
            Err(Unmade::Refused(error)) => return Err(error),
            Err(Unmade::Unknown(error)) => {
                // There is nothing to show to the program. What stands there is looked up again.
                guard.owe(parent.live(), name, &error);
                return Err(error);
            }
        };
        let inode = self.inodes.hold(self.epochs.inode(&node));
        guard.created(inode.live());
        guard.name(parent.live(), name, Some(entry(&node, &stat)));
        drop(guard);
        inode.notice(&stat);
        Ok((inode, stat, more))
    }

    fn remove(
        &self,
        dir: FileId,
        name: &[u8],
        remove: impl Fn(&Node) -> io::Result<()>,
    ) -> io::Result<()> {
        let parent = self.inode(dir)?;
        for _ in 0..RETRIES_MAX {
            let node = self.source.entry(parent.node(), name)?;
            let live = self.epochs.inode(&node);
            let touched = [parent.live(), &live];
            let mut guard = self.epochs.change(&touched)?;
            if self.source.entry(parent.node(), name)? != node {
                continue;
            }
            let place = (parent.node(), name);
            let going = self.begin_removal(&mut guard, &live, place)?;
            let removed = remove(parent.node());
            self.end_removal(going, place, removed.is_ok());
            removed?;
            guard.name(parent.live(), name, None);
            return Ok(());
        }
        Err(os_error(libc::EBUSY))
    }

    /// Before a name goes: if it is the last, the inode stays within reach of the sealed epoch and of programs that have it open.
    fn begin_removal(
        &self,
        guard: &mut Guard<'_>,
        inode: &Arc<LiveInode>,
        (dir, name): (&Node, &[u8]),
    ) -> io::Result<Going> {
        let node = inode.node().clone();
        let last = match self.source.stat(&node) {
            Ok(stat) => stat.kind == Kind::Dir || stat.links <= 1,
            Err(error) => return Err(error),
        };
        if last {
            guard.unlinking(inode)?;
            self.source.keep_unnamed(&node)?;
        } else {
            self.source.keep_if_nameless(&node, dir, name)?;
        }
        Ok(Going { node, last })
    }

    /// After the system call.
    fn end_removal(&self, going: Going, (dir, name): (&Node, &[u8]), gone: bool) {
        if gone {
            self.source.forget_name(dir, name, &going.node);
        }
        if !going.last {
            return;
        }
        if !gone {
            self.source.release(&going.node);
        } else if !self.inodes.unnamed(going.node.id) {
            self.source.forget_identity_best_effort(&going.node);
        }
    }

    fn entry_if_any(&self, dir: &Node, name: &[u8]) -> io::Result<Option<Node>> {
        match self.source.entry(dir, name) {
            Ok(node) => Ok(Some(node)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Registers an open file with its inode.
    pub(super) fn opened(
        &self,
        inode: Arc<Inode>,
        file: std::fs::File,
        stat: &Stat,
        flags: i32,
    ) -> Opened {
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let keep_cache = inode.opened(stat, writable);
        let id = inode.id();
        let handle = self.files.insert(OpenFile {
            inode,
            file,
            writable,
            run: Mutex::default(),
        });
        Opened {
            id,
            handle,
            keep_cache,
        }
    }
}

fn entry(node: &Node, stat: &Stat) -> NameEntry {
    NameEntry {
        id: node.id,
        kind: stat.kind,
    }
}
