//! A small source in memory that remembers everything that was ever done to it, and in which epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::clock::Timespec;
use crate::epoch::origin::{Contents, Origin};
use crate::epoch::{CopyAhead, Epochs, Options};
use crate::format::entry::Kind;
use crate::id::{EpochNo, FileId};
use crate::journal::Journal;
use crate::source::{Handle, Node, Stat};

/// Directories that always exist.
pub(super) const DIRS: [FileId; 3] = [FileId(1), FileId(2), FileId(3)];

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct FakeInode {
    pub(super) data: Vec<u8>,
    pub(super) mode: u16,
    /// Stands for the times: counts every change.
    pub(super) version: i64,
    pub(super) links: u32,
}

/// One thing that happens to the source at one instant.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Write {
        id: FileId,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        id: FileId,
        len: u64,
    },
    Mode {
        id: FileId,
        mode: u16,
    },
    Create {
        dir: FileId,
        name: Vec<u8>,
        id: FileId,
    },
    Link {
        dir: FileId,
        name: Vec<u8>,
        id: FileId,
    },
    Unlink {
        dir: FileId,
        name: Vec<u8>,
    },
    Rename {
        from: (FileId, Vec<u8>),
        to: (FileId, Vec<u8>),
    },
}

/// A whole source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct State {
    pub(super) inodes: BTreeMap<FileId, FakeInode>,
    pub(super) names: BTreeMap<FileId, BTreeMap<Vec<u8>, FileId>>,
    /// Unlinked, but readable through an open descriptor.
    dead: BTreeMap<FileId, FakeInode>,
}

impl State {
    fn with_dirs() -> Self {
        let mut state = Self::default();
        for dir in DIRS {
            let inode = FakeInode {
                links: 2,
                ..FakeInode::default()
            };
            state.inodes.insert(dir, inode);
            state.names.insert(dir, BTreeMap::new());
        }
        state
    }

    fn touch(&mut self, id: FileId) -> &mut FakeInode {
        let inode = self.inodes.entry(id).or_default();
        inode.version += 1;
        inode
    }

    fn unlink(&mut self, dir: FileId, name: &[u8]) {
        let gone = self.names.get_mut(&dir).unwrap().remove(name);
        let Some(id) = gone else { return };
        let inode = self.touch(id);
        inode.links -= 1;
        if inode.links == 0 {
            let inode = self.inodes.remove(&id).unwrap();
            self.dead.insert(id, inode);
        }
    }

    pub(super) fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Write { id, at, bytes } => {
                let (start, end) = (*at as usize, *at as usize + bytes.len());
                let data = &mut self.touch(*id).data;
                data.resize(data.len().max(end), 0);
                data[start..end].copy_from_slice(bytes);
            }
            Effect::Truncate { id, len } => self.touch(*id).data.resize(*len as usize, 0),
            Effect::Mode { id, mode } => self.touch(*id).mode = *mode,
            Effect::Create { dir, name, id } | Effect::Link { dir, name, id } => {
                self.touch(*id).links += 1;
                self.touch(*dir);
                self.names.get_mut(dir).unwrap().insert(name.clone(), *id);
            }
            Effect::Unlink { dir, name } => {
                self.unlink(*dir, name);
                self.touch(*dir);
            }
            Effect::Rename { from, to } => {
                let id = self
                    .names
                    .get_mut(&from.0)
                    .unwrap()
                    .remove(&from.1)
                    .unwrap();
                self.unlink(to.0, &to.1);
                self.names.get_mut(&to.0).unwrap().insert(to.1.clone(), id);
                self.touch(id);
                self.touch(from.0);
                self.touch(to.0);
            }
        }
    }
}

/// The source, and its diary.
pub(super) struct FakeSource {
    pub(super) now: Mutex<(State, Vec<(EpochNo, Effect)>)>,
    /// What the diary begins with.
    before: Mutex<State>,
    pub(super) broken: AtomicBool,
    /// The disk is whole, but one file cannot be read, for this reason.
    pub(super) denied: Mutex<Option<(FileId, i32)>>,
    /// Being created: the kernel shows a new name to nobody until its creation was answered.
    pub(super) hidden: Mutex<BTreeSet<FileId>>,
}

pub(super) fn node(id: FileId) -> Node {
    Node {
        id,
        handle: Handle(id.0.to_le_bytes().into()),
    }
}

impl FakeSource {
    pub(super) fn new() -> Arc<Self> {
        let now = Mutex::new((State::with_dirs(), Vec::new()));
        Arc::new(Self {
            now,
            before: Mutex::new(State::with_dirs()),
            broken: AtomicBool::new(false),
            denied: Mutex::new(None),
            hidden: Mutex::default(),
        })
    }

    pub(super) fn apply(&self, epoch: EpochNo, effect: Effect) {
        let mut now = self.now.lock();
        now.0.apply(&effect);
        now.1.push((epoch, effect));
    }

    /// The source at the end of `epoch`. Epochs are asked for in order, so the diary up to there is not needed again.
    pub(super) fn at(&self, epoch: EpochNo) -> State {
        let mut before = self.before.lock();
        let diary = std::mem::take(&mut self.now.lock().1);
        let (old, new): (Vec<_>, Vec<_>) = diary.into_iter().partition(|(done, _)| *done <= epoch);
        self.now.lock().1.splice(0..0, new);
        for (_, effect) in &old {
            before.apply(effect);
        }
        before.dead.clear();
        before.clone()
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.now.lock().0)
    }

    fn inode(&self, id: FileId) -> io::Result<FakeInode> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        if let Some((denied, errno)) = *self.denied.lock()
            && denied == id
        {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let stale = || io::Error::from(io::ErrorKind::StaleNetworkFileHandle);
        self.look(|state| state.inodes.get(&id).cloned())
            .ok_or_else(stale)
    }
}

impl FakeInode {
    fn stat(&self, id: FileId) -> Stat {
        let time = Timespec {
            secs: self.version,
            nanos: 0,
        };
        Stat {
            kind: if DIRS.contains(&id) {
                Kind::Dir
            } else {
                Kind::File
            },
            mode: self.mode,
            uid: 0,
            gid: 0,
            links: self.links,
            size: self.data.len() as u64,
            blocks: 0,
            rdev: 0,
            dev: 0,
            block_size: 4096,
            mtime: time,
            ctime: time,
            atime: time,
            btime: None,
        }
    }

    fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        vec![(b"user.mode".to_vec(), self.mode.to_le_bytes().to_vec())]
    }
}

pub(super) struct Fake(pub(super) Arc<FakeSource>);

impl Origin for Fake {
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn stat(&self, node: &Node) -> io::Result<Stat> {
        Ok(self.0.inode(node.id)?.stat(node.id))
    }

    fn xattrs(&self, node: &Node) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(self.0.inode(node.id)?.xattrs())
    }

    fn read_link(&self, node: &Node) -> io::Result<Vec<u8>> {
        self.0.inode(node.id).map(|inode| inode.data)
    }

    fn open(&self, node: &Node) -> io::Result<Arc<dyn Contents>> {
        self.0.inode(node.id)?;
        Ok(Arc::new(OpenFile(Arc::clone(&self.0), node.id)))
    }
}

struct OpenFile(Arc<FakeSource>, FileId);

impl OpenFile {
    fn look<T>(&self, look: impl FnOnce(&FakeInode) -> T) -> io::Result<T> {
        if self.0.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(self.0.look(|state| {
            let inode = state
                .inodes
                .get(&self.1)
                .or_else(|| state.dead.get(&self.1));
            look(inode.expect("an open file stays readable"))
        }))
    }

    fn data<T>(&self, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        self.look(|inode| look(&inode.data))
    }
}

impl Contents for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.data(|data| {
            let from = data.get(offset as usize..).unwrap_or_default();
            let len = from.len().min(buffer.len());
            buffer[..len].copy_from_slice(&from[..len]);
            len
        })
    }

    fn stat(&self) -> io::Result<Stat> {
        self.look(|inode| inode.stat(self.1))
    }

    fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.look(FakeInode::xattrs)
    }

    /// Pages of zeros count as holes.
    fn data_ranges(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.data(|data| {
            let end = range.end.min(data.len() as u64);
            let pages = (range.start / 4096..end.div_ceil(4096)).filter(|page| {
                let start = *page as usize * 4096;
                data[start..data.len().min(start + 4096)]
                    .iter()
                    .any(|byte| *byte != 0)
            });
            let bytes =
                pages.map(|page| (page * 4096).max(range.start)..(page * 4096 + 4096).min(end));
            bytes.collect()
        })
    }
}

/// A source in memory with epochs over it and a real journal.
pub(super) struct World {
    pub(super) source: Arc<FakeSource>,
    pub(super) epochs: Arc<Epochs>,
    pub(super) journal: Arc<Journal>,
    /// The journal's.
    pub(super) dir: tempfile::TempDir,
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _new) = Journal::open(dir.path()).unwrap();
        let journal = Arc::new(journal);
        let source = FakeSource::new();
        let origin = Arc::new(Fake(Arc::clone(&source)));
        let epochs = Epochs::with_origin(origin, Arc::clone(&journal), options);
        Self {
            source,
            epochs,
            journal,
            dir,
        }
    }
}

pub(super) const ROOMY: Options = Options {
    preserve_bytes: 64 << 20,
    kept_files: 64,
    changes_bytes: 64 << 20,
};
/// Room for two pages and one descriptor.
pub(super) const TIGHT: Options = Options {
    preserve_bytes: 8192,
    kept_files: 1,
    changes_bytes: 64 << 20,
};

/// What a copy ahead reads in `range`.
pub(super) fn read_ahead(copy: &CopyAhead, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let read = copy.read(&mut bytes, range.start).unwrap();
    bytes.truncate(read);
    bytes
}
