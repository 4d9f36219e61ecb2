//! The live mount's behaviour, one method for each request, without any type of the FUSE crate: testable without a kernel.
//!
//! A request that changes something finds the inodes that it touches, takes them through [`Epochs`] (which locks them by id
//! and pins the epoch), looks the names up again, makes its system call on the source, and tells the guard which names have
//! changed. Requests that only look take no lock at all.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::handles::{Handles, OpenDir, OpenFile};
use super::inodes::{Inode, Inodes};
use super::write_back::WriteBack;
use crate::epoch::Epochs;
use crate::id::FileId;
use crate::journal::Journal;
use crate::source::{Node, Source, Stat};

mod attrs;
mod data;
mod listing;
mod names;
mod set_id;
mod xattrs;

#[cfg(test)]
mod tests;

pub use self::attrs::SetAttributes;
pub use self::data::{Copy, Opened, Write};
pub use self::listing::{Entry, EntryPlus};
pub use self::names::Rename;
pub use self::set_id::Asker;

/// Called after an fsync is durable here, before the program is told; its error becomes the fsync's.
pub type FsyncHook = Arc<dyn Fn(FileId) -> io::Result<()> + Send + Sync>;
/// Told of events that a policy may seal on. Must return at once: it runs inside a request.
pub type Notice = Arc<dyn Fn(Event) + Send + Sync>;

/// Tells the kernel that what it remembers of an inode's attributes is not true any more. Runs inside a request.
pub type Stale = Box<dyn Fn(FileId) + Send + Sync>;

/// Something that a policy may seal on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A program has made this inode durable.
    Fsync(FileId),
    /// The last reference to a handle that was open for writing is gone.
    Closed(FileId),
}

/// How the mount behaves.
#[derive(Clone)]
pub struct Options {
    /// How long the kernel may believe names and attributes without asking. We are told of everything that goes through the mount,
    /// so this is only how late a change made *beside* the mount can be seen.
    pub ttl: Duration,
    /// Who is told of events.
    pub notice: Option<Notice>,
    /// Hot mode: what fsync waits for beyond this machine's disk.
    pub on_fsync: Option<FsyncHook>,
}

/// Long enough that a build or `git status` asks for each name once.
const TTL: Duration = Duration::from_secs(5);
/// The same where the mount hides the source: then only who has had a file or directory of it open before, or a bind mount of it,
/// changes it beside the mount. So long that unpacking, building and then looking at a large tree asks for each name once.
const HIDDEN_TTL: Duration = Duration::from_secs(60);

impl Options {
    /// The usual for a mount over the source itself.
    pub fn over_itself() -> Self {
        Self {
            ttl: HIDDEN_TTL,
            ..Self::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: TTL,
            notice: None,
            on_fsync: None,
        }
    }
}

/// An inode as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Its number, here and in every snapshot.
    pub id: FileId,
    /// Its attributes.
    pub stat: Stat,
}

/// The operations.
pub struct Ops {
    epochs: Arc<Epochs>,
    source: Arc<Source>,
    journal: Arc<Journal>,
    inodes: Inodes,
    files: Handles<OpenFile>,
    dirs: Handles<OpenDir>,
    write_back: WriteBack,
    options: Options,
    stale: OnceLock<Stale>,
}

impl Ops {
    /// Operations on `source`, ordered by `epochs`.
    pub fn new(
        epochs: Arc<Epochs>,
        source: Arc<Source>,
        journal: Arc<Journal>,
        options: Options,
    ) -> Self {
        let root = epochs.inode(&source.root());
        Self {
            epochs,
            source,
            journal,
            inodes: Inodes::new(root),
            files: Handles::new(),
            dirs: Handles::new(),
            write_back: WriteBack::default(),
            options,
            stale: OnceLock::new(),
        }
    }

    /// The mount is there: from now on the kernel is told by `stale` of attributes that change otherwise than it expects.
    pub fn mounted(&self, stale: Stale) {
        // A second mount of the same operations does not exist.
        let _first = self.stale.set(stale);
    }

    /// How the mount behaves.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Inodes that the kernel knows.
    pub fn known_inodes(&self) -> usize {
        self.inodes.len()
    }

    /// The inode of a number that the kernel has been given; `ESTALE` if it has not.
    fn inode(&self, id: FileId) -> io::Result<Arc<Inode>> {
        self.epochs.activity().note();
        self.inodes
            .get(id)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))
    }

    /// What a program has open under a number; `EBADF` if it has nothing.
    fn file(&self, handle: u64) -> io::Result<Arc<OpenFile>> {
        self.epochs.activity().note();
        self.files.get(handle)
    }

    /// Counts a lookup: the kernel is about to be told of this inode.
    fn show(&self, node: &Node, stat: Stat) -> Shown {
        self.inodes.hold(self.epochs.inode(node)).notice(&stat);
        Shown { id: node.id, stat }
    }

    fn tell_stale(&self, id: FileId) {
        if let Some(stale) = self.stale.get() {
            stale(id);
        }
    }

    fn tell(&self, event: Event) {
        if let Some(notice) = &self.options.notice {
            notice(event);
        }
    }
}

fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
