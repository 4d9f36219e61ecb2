//! A source in a temporary directory, and a volume in memory.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

use crate::epoch::{Attributes, Epochs, Options, Sealed};
use crate::format::commit::TreeRoot;
use crate::format::entry::{Address, Change, Hint, Inode, Kind, Place};
use crate::format::page::Page;
use crate::id::{BlockClass, BlockId, FileId, FrameNo, SessionId};
use crate::journal::Journal;
use crate::path::RepoPath;
use crate::reconcile::{Error, Intents, Parts, Progress, Summary, Trust, run};
use crate::repo;
use crate::repo::tree::{PageSink, Pages, Tree};
use crate::source::{Node, Source};

/// Tree pages, behind a gate that can be shut.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pages: Arc<Mutex<HashMap<u32, Vec<u8>>>>,
    gate: Arc<Gate>,
}

/// Holds up readers of pages.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    waiting: u32,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        while state.shut {
            self.changed.wait(&mut state);
        }
        state.waiting -= 1;
    }

    pub(super) fn open(&self) {
        self.state.lock().shut = false;
        self.changed.notify_all();
    }

    /// Until somebody stands before it.
    pub(super) fn wait_for_reader(&self, patience: Duration) {
        let mut state = self.state.lock();
        while state.waiting == 0 {
            let late = self.changed.wait_for(&mut state, patience).timed_out();
            assert!(!late, "nobody reads a page");
        }
    }
}

#[async_trait]
impl Pages for Memory {
    async fn page(&self, place: &Place) -> Result<Arc<Page>, repo::Error> {
        self.gate.pass();
        let bytes = self.pages.lock()[&place.at.frame.0].clone();
        Ok(Arc::new(Page::decode(bytes).unwrap()))
    }
}

impl PageSink for Memory {
    fn put(&mut self, page: Vec<u8>) -> Result<Place, repo::Error> {
        let mut pages = self.pages.lock();
        let number = pages.len() as u32;
        pages.insert(number, page);
        let block = BlockId {
            key_epoch: 0,
            class: BlockClass::Tree,
            session: SessionId([0; 8]),
            number: 0,
        };
        let at = Address {
            block,
            frame: FrameNo(number),
            inner: 0,
        };
        let hint = Hint {
            offset: 0,
            len: 0,
            commit: None,
        };
        Ok(Place { at, hint })
    }
}

/// A source with epochs over it, and its last commit.
pub(super) struct Scene {
    pub(super) source: Arc<Source>,
    pub(super) epochs: Arc<Epochs>,
    pub(super) tree: Option<Tree<Memory>>,
    pub(super) intents: Intents,
    pub(super) stop: AtomicBool,
    pub(super) runtime: tokio::runtime::Runtime,
    memory: Memory,
    contents: HashMap<FileId, Vec<u8>>,
    /// Bytes captured of each inode by the last commit.
    captured: HashMap<FileId, u64>,
    dir: TempDir,
    state: TempDir,
}

fn epochs(source: &Arc<Source>, state: &TempDir, changes_bytes: u64) -> Arc<Epochs> {
    let (journal, _stop) = Journal::open(&state.path().join("journal")).unwrap();
    let options = Options {
        preserve_bytes: 1 << 20,
        kept_files: 16,
        changes_bytes,
    };
    Epochs::new(Arc::clone(source), Arc::new(journal), options)
}

fn source(dir: &TempDir, state: &TempDir) -> Arc<Source> {
    let identity = state.path().join("identity");
    Arc::new(Source::open(dir.path(), &identity, FileId(2)).unwrap())
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with_memory(64 << 20)
    }

    /// An epoch with more changes than fit these bytes forgets them.
    pub(super) fn with_memory(changes_bytes: u64) -> Self {
        let (dir, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let source = source(&dir, &state);
        Self {
            epochs: epochs(&source, &state, changes_bytes),
            source,
            tree: None,
            intents: Intents::default(),
            stop: AtomicBool::new(false),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            memory: Memory::default(),
            contents: HashMap::new(),
            captured: HashMap::new(),
            dir,
            state,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Lets the file system's clock go on: what is changed from now on has another change time than what was changed before. On many a
    /// kernel that clock moves a few times a millisecond at best, and a hundred times a second at worst.
    pub(super) fn let_times_move(&self) {
        let probe = self.state.path().join("probe");
        let touched = || {
            fs::write(&probe, b"x").unwrap();
            let meta = fs::metadata(&probe).unwrap();
            (meta.ctime(), meta.ctime_nsec())
        };
        let before = touched();
        while touched() == before {
            std::thread::yield_now();
        }
    }

    /// The mount is gone and comes back: nothing is known but what the commit says.
    pub(super) fn next_life(&mut self) {
        let none = TempDir::new().unwrap();
        self.epochs = epochs(&self.source, &none, 64 << 20);
        self.epochs = epochs(&self.source, &self.state, 64 << 20);
    }

    /// The map of file numbers is lost.
    pub(super) fn lose_identities(&mut self) {
        self.state = TempDir::new().unwrap();
        self.source = source(&self.dir, &self.state);
        self.next_life();
    }

    pub(super) fn hold_pages(&self) -> Arc<Gate> {
        self.memory.gate.state.lock().shut = true;
        Arc::clone(&self.memory.gate)
    }

    pub(super) fn scan(&self, trust: Trust) -> Result<Summary, Error> {
        let parts = Parts {
            source: Arc::clone(&self.source),
            epochs: Arc::clone(&self.epochs),
            tree: self.tree.clone(),
            intents: self.intents.clone(),
            trust,
            runtime: self.runtime.handle().clone(),
        };
        run(&parts, &Progress::default(), &self.stop)
    }

    pub(super) fn node_of(&self, path: &str) -> Node {
        let path = RepoPath::parse(path.as_bytes()).unwrap();
        path.components().fold(self.source.root(), |dir, name| {
            self.source.lookup(&dir, name).unwrap().0
        })
    }

    pub(super) fn id_of(&self, path: &str) -> FileId {
        self.node_of(path).id
    }

    /// Seals, captures and commits what is open.
    pub(super) fn commit(&mut self) {
        self.captured.clear();
        let Some(sealed) = self.epochs.seal() else {
            return;
        };
        let mut changes = Vec::new();
        for inode in sealed.inodes() {
            let id = inode.node.id;
            let Some(found) = sealed.attributes(id).unwrap() else {
                continue;
            };
            if found.stat.kind == Kind::File {
                self.capture(&sealed, id, &inode.dirty, found.stat.size);
            }
            changes.push(Change::PutInode(id, tree_inode(&inode.node, found).into()));
        }
        for (dir, name, entry) in sealed.names() {
            changes.push(match entry {
                Some(entry) => Change::PutName { dir, name, entry },
                None => Change::DropName { dir, name },
            });
        }
        sealed.finish().unwrap();
        let empty = TreeRoot {
            base: None,
            runs: Vec::new(),
            inline: Vec::new(),
        };
        let old = self.tree.take();
        let old = old.unwrap_or_else(|| Tree::new(empty, self.memory.clone()));
        let root = self
            .runtime
            .block_on(old.apply(changes, &mut self.memory))
            .unwrap();
        self.tree = Some(Tree::new(root, self.memory.clone()));
    }

    fn capture(&mut self, sealed: &Sealed, id: FileId, dirty: &[std::ops::Range<u64>], size: u64) {
        let data = self.contents.entry(id).or_default();
        // Enough for every test that looks at contents.
        if size > 1 << 30 {
            return;
        }
        data.resize(size as usize, 0);
        for range in dirty {
            let range = range.start.min(size)..range.end.min(size);
            let mut at = range.start;
            while at < range.end {
                let bytes = sealed.take(id, at..range.end.min(at + (1 << 20))).unwrap();
                data[at as usize..][..bytes.len()].copy_from_slice(&bytes);
                *self.captured.entry(id).or_default() += bytes.len() as u64;
                at += bytes.len() as u64;
            }
        }
    }

    pub(super) fn captured_of(&self, id: FileId) -> u64 {
        self.captured.get(&id).copied().unwrap_or(0)
    }

    /// The last commit is what the source is now.
    pub(super) fn assert_committed(&self) {
        self.assert_directory(&self.source.root(), self.path());
    }

    fn assert_directory(&self, dir: &Node, path: PathBuf) {
        let tree = self.tree.as_ref().unwrap();
        let mut names = self.source.read_dir(dir).unwrap();
        names.sort_unstable();
        let listed = self
            .runtime
            .block_on(tree.names(dir.id, None, 10_000))
            .unwrap();
        let committed: Vec<_> = listed.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(committed, names, "names in {}", path.display());
        for (name, entry) in listed {
            let path = path.join(String::from_utf8(name.clone()).unwrap());
            let (node, stat) = self.source.lookup(dir, &name).unwrap();
            assert_eq!(
                (entry.id, entry.kind),
                (node.id, stat.kind),
                "{}",
                path.display()
            );
            let inode = self.runtime.block_on(tree.inode(node.id)).unwrap().unwrap();
            let meta = fs::symlink_metadata(&path).unwrap();
            assert_eq!(inode.size, meta.size(), "size of {}", path.display());
            assert_eq!(
                u32::from(inode.mode),
                meta.mode() & 0o7777,
                "{}",
                path.display()
            );
            assert_eq!(inode.mtime, stat.mtime, "time of {}", path.display());
            assert_eq!(inode.ctime, stat.ctime, "change time of {}", path.display());
            match entry.kind {
                Kind::Dir => self.assert_directory(&node, path),
                Kind::File => {
                    let same = fs::read(&path).unwrap() == self.contents[&node.id];
                    assert!(same, "contents of {}", path.display());
                }
                _ => assert_eq!(inode.target, self.source.read_link(&node).unwrap()),
            }
        }
    }
}

fn tree_inode(node: &Node, found: Attributes) -> Inode {
    let stat = found.stat;
    Inode {
        kind: stat.kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        links: stat.links,
        size: stat.size,
        rdev: stat.rdev,
        mtime: stat.mtime,
        ctime: stat.ctime,
        atime: stat.atime,
        btime: stat.btime,
        target: found.target,
        handle: node.handle.0.to_vec(),
        racy: false,
        in_place: false,
        unknown: Vec::new(),
    }
}
