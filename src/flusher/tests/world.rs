//! A source directory, its live side, a repository in memory and a flusher between them, for tests of the whole flow.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::clock::{Clock, SystemClock};
use crate::compress::Compression;
use crate::crypto::{AesKeyLen, Argon2Params};
use crate::epoch::{self, Epochs, Guard, LiveInode};
use crate::flusher::{
    CommitMark, Flusher, Handle, Options, Parts, Policy, Resume, Spool, find_copied, heads, resume,
};
use crate::format::entry::{Contents, Kind, NameEntry};
use crate::id::{FileId, SessionId};
use crate::journal::Journal;
use crate::repo::commits::Found;
use crate::repo::{Repository, RepositoryConfig, Secret, Volume};
use crate::source::Source;
use crate::store::Store;
use crate::store::fault::{Faulty, Plan};
use crate::store::memory::Memory;
use crate::store::metered::{Meter, Metered};
use crate::store::overlay::Overlay;

pub(super) const LONG: Duration = Duration::from_secs(3600);
/// How long a stop may take to publish what is there: on the slowest machine it does not.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// Where everything lies. Outlives the processes that a test lets die.
pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) plan: Arc<Plan>,
    pub(super) meter: Arc<Meter>,
    /// What the next writer remembers of an epoch's changes.
    pub(super) changes_bytes: u64,
}

/// One life of the writer.
pub(super) struct Writer {
    pub(super) handle: Handle,
    pub(super) epochs: Arc<Epochs>,
    pub(super) source: Arc<Source>,
    pub(super) volume: Arc<Volume>,
    pub(super) journal: Arc<Journal>,
    root: PathBuf,
}

fn password() -> Secret {
    Secret::Password(Zeroizing::new("pass".to_owned()))
}

pub(super) fn options(world: &World) -> Options {
    Options {
        policy: Policy {
            interval: LONG,
            ..Policy::default()
        },
        spool_bytes: 1 << 30,
        copy_ahead_bytes: 256 << 20,
        round_bytes: 1 << 30,
        incomplete_interval: LONG,
        held: false,
        lease: LONG,
        owner: "test".to_owned(),
        host: "host".to_owned(),
        source_path: b"/source".to_vec(),
        index_dir: world.path("index"),
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["source", "identity", "journal", "spool"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let inner: Store = Arc::new(Memory::new());
        let (plan, meter) = (Plan::new(), Arc::new(Meter::default()));
        let faulty = Arc::new(Faulty::new(inner, Arc::clone(&plan)));
        let store: Store = Arc::new(Metered::new(faulty, Arc::clone(&meter)));
        let config = RepositoryConfig {
            block_len: 4 << 20,
            aes: AesKeyLen::Aes256,
            compression: Compression::Zstd(1),
        };
        let cache = Cache::in_memory(64 << 20);
        let (repository, _) = Repository::init_at_cost(
            Arc::clone(&store),
            cache,
            &password(),
            config,
            Argon2Params::FOR_TESTS,
        )
        .await
        .unwrap();
        let now = SystemClock.now();
        repository.create_volume("docs", now).await.unwrap();
        Self {
            dir,
            store,
            plan,
            meter,
            changes_bytes: 64 << 20,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The volume as a fresh reader sees it; with the spool laid over the store or without.
    pub(super) async fn volume(&self, with_spool: bool) -> Arc<Volume> {
        let store: Store = match with_spool {
            true => Arc::new(Overlay::new(Arc::clone(&self.store), self.path("spool"))),
            false => Arc::clone(&self.store),
        };
        let cache = Cache::in_memory(64 << 20);
        let repository = Repository::open(store, cache, &password()).await.unwrap();
        let info = repository.volumes().await.unwrap().remove(0);
        repository.volume(info.id).await.unwrap()
    }

    pub(super) async fn start(&self) -> Writer {
        self.start_with(options(self), Arc::new(SystemClock)).await
    }

    /// A process start: resumes the spool as the daemon does.
    pub(super) async fn start_with(&self, options: Options, clock: Arc<dyn Clock>) -> Writer {
        let volume = self.volume(true).await;
        let head = self.volume(false).await.head().await.unwrap();
        let (spool, mut manifests) = Spool::open(&self.path("spool")).unwrap();
        let named = head.as_ref().map(|head| (head.commit.name, head.tag));
        match resume(&manifests, named) {
            Resume::Continue { from } => drop(manifests.drain(..from)),
            Resume::Foreign => {
                spool.set_aside(&manifests).unwrap();
                manifests.clear();
            }
        }
        let base = match manifests.last() {
            Some(last) => {
                let (name, _) = last.name.parse().unwrap();
                Some(volume.read_commit(&name).await.unwrap())
            }
            None => head,
        };
        let session = SessionId::random();
        let writership = volume
            .claim(
                session,
                "test",
                base.as_ref(),
                &heads(&manifests),
                LONG,
                &*clock,
            )
            .await
            .unwrap();
        let next = base.as_ref().map_or(2, |base| base.commit.next_file_id);
        let source = Source::open(&self.path("source"), &self.path("identity"), FileId(next));
        let source = Arc::new(source.unwrap());
        let (journal, _) = Journal::open(&self.path("journal")).unwrap();
        let journal = Arc::new(journal);
        let epochs = Epochs::new(
            Arc::clone(&source),
            Arc::clone(&journal),
            epoch::Options {
                preserve_bytes: 16 << 20,
                kept_files: 100,
                changes_bytes: self.changes_bytes,
            },
        );
        let copied = find_copied(&spool, &self.store, writership.adopted()).await;
        let parts = Parts {
            copied: copied.unwrap(),
            volume: Arc::clone(&volume),
            store: Arc::clone(&self.store),
            writership,
            epochs: Arc::clone(&epochs),
            source: Arc::clone(&source),
            journal: Arc::clone(&journal),
            spool,
            resumed: manifests,
            base,
            owed_since: None,
            clock,
            runtime: tokio::runtime::Handle::current(),
        };
        let handle = Flusher::start(parts, options).unwrap();
        Writer {
            handle,
            epochs,
            source,
            volume,
            journal,
            root: self.path("source"),
        }
    }

    /// Everything that a commit holds: paths with contents (directories end in a slash).
    pub(super) async fn snapshot(&self, mark: &CommitMark) -> BTreeMap<String, Vec<u8>> {
        let volume = self.volume(false).await;
        let found = volume.read_commit(&mark.name).await.unwrap();
        assert_eq!(found.tag, mark.tag);
        contents(&volume, &found).await
    }
}

/// Walks a commit's tree and reads every file.
pub(super) async fn contents(volume: &Volume, found: &Found) -> BTreeMap<String, Vec<u8>> {
    let tree = volume.tree(&found.commit);
    let mut all = BTreeMap::new();
    let mut queue = vec![(String::new(), FileId::ROOT)];
    while let Some((path, dir)) = queue.pop() {
        for (name, entry) in tree.names(dir, None, 10_000).await.unwrap() {
            let path = format!("{path}{}", String::from_utf8(name).unwrap());
            let inode = tree
                .inode(entry.id)
                .await
                .unwrap()
                .expect("a name points to an inode");
            match inode.kind {
                Kind::Dir => {
                    all.insert(format!("{path}/"), Vec::new());
                    queue.push((format!("{path}/"), entry.id));
                }
                Kind::File => {
                    let mut bytes = vec![0; inode.size as usize];
                    for extent in tree.extents(entry.id, 0..inode.size).await.unwrap() {
                        let range = extent.range.start as usize..extent.range.end as usize;
                        if let Contents::Data { place, .. } = extent.contents {
                            let read = volume.blocks().read(&place, range.len()).await.unwrap();
                            bytes[range].copy_from_slice(&read);
                        }
                    }
                    all.insert(path, bytes);
                }
                _ => drop(all.insert(path, inode.target)),
            }
        }
    }
    all
}

impl Writer {
    pub(super) fn root(&self) -> Arc<LiveInode> {
        self.epochs.inode(&self.source.root())
    }

    pub(super) fn inode(&self, name: &str) -> Arc<LiveInode> {
        let (node, _) = self
            .source
            .lookup(&self.source.root(), name.as_bytes())
            .unwrap();
        self.epochs.inode(&node)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Creates a file with contents, as the live mount does.
    pub(super) fn create(&self, name: &str, bytes: &[u8]) -> FileId {
        let root = self.root();
        let inodes = [&root];
        let mut guard = self.epochs.change(&inodes).unwrap();
        fs::File::create_new(self.path(name)).unwrap();
        let inode = self.inode(name);
        guard.created(&inode);
        let kind = Kind::File;
        guard.name(
            &root,
            name.as_bytes(),
            Some(NameEntry {
                id: inode.id(),
                kind,
            }),
        );
        drop(guard);
        self.write(name, 0, bytes);
        inode.id()
    }

    pub(super) fn write(&self, name: &str, at: u64, bytes: &[u8]) {
        let inode = self.inode(name);
        let _guard = self
            .epochs
            .write(&inode, at..at + bytes.len() as u64)
            .unwrap();
        let file = fs::File::options()
            .write(true)
            .open(self.path(name))
            .unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    pub(super) fn truncate(&self, name: &str, len: u64) {
        let inode = self.inode(name);
        let inodes = [&inode];
        let mut guard = self.epochs.change(&inodes).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(self.path(name))
            .unwrap();
        let old = file.metadata().unwrap().len();
        guard.resize(&inode, old, len).unwrap();
        file.set_len(len).unwrap();
        if len == 0 && old > 0 {
            guard.emptied(&inode);
        }
    }

    pub(super) fn remove(&self, name: &str) {
        let (root, inode) = (self.root(), self.inode(name));
        let inodes = [&root, &inode];
        let mut guard = self.epochs.change(&inodes).unwrap();
        self.begin_removal(&mut guard, name, &inode);
        fs::remove_file(self.path(name)).unwrap();
        guard.name(&root, name.as_bytes(), None);
    }

    /// A name is about to go: only with the last one does the inode.
    fn begin_removal(&self, guard: &mut Guard<'_>, name: &str, inode: &Arc<LiveInode>) {
        if fs::metadata(self.path(name)).unwrap().nlink() == 1 {
            guard.unlinking(inode).unwrap();
        }
    }

    pub(super) fn link(&self, name: &str, new: &str) {
        let (root, inode) = (self.root(), self.inode(name));
        let inodes = [&root, &inode];
        let mut guard = self.epochs.change(&inodes).unwrap();
        fs::hard_link(self.path(name), self.path(new)).unwrap();
        let kind = Kind::File;
        guard.name(
            &root,
            new.as_bytes(),
            Some(NameEntry {
                id: inode.id(),
                kind,
            }),
        );
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        let (root, inode) = (self.root(), self.inode(from));
        let inodes = [&root, &inode];
        let mut guard = self.epochs.change(&inodes).unwrap();
        fs::rename(self.path(from), self.path(to)).unwrap();
        let entry = NameEntry {
            id: inode.id(),
            kind: Kind::File,
        };
        guard.name(&root, from.as_bytes(), None);
        guard.name(&root, to.as_bytes(), Some(entry));
    }

    /// Changes more than can be remembered, so that all of it is forgotten.
    pub(super) fn crowd(&self) {
        let name = |turn| format!("turn {turn}");
        self.create(&name(0), b"");
        let mut turn = 0;
        // A name that is gone takes room until the commit that says so.
        while !self.epochs.is_owing() {
            self.rename(&name(turn), &name(turn + 1));
            turn += 1;
            assert!(turn < 10_000, "it never becomes too much");
        }
    }

    /// Looks at everything, as reconcile does for a source of which no commit knows anything.
    pub(super) fn look_at_all(&self) {
        self.epochs.begin_rescan();
        self.epochs.watch_moves();
        let root = self.root();
        let dirs = [&root];
        for name in self.now().into_keys() {
            let inode = self.inode(&name);
            let file = fs::File::open(self.path(&name)).unwrap();
            let size = file.metadata().unwrap().len();
            let data = self.source.data_ranges(&file, 0..size).unwrap();
            let kind = Kind::File;
            let id = inode.id();
            let mut guard = self.epochs.change(&dirs).unwrap();
            guard.name(&root, name.as_bytes(), Some(NameEntry { id, kind }));
            guard.discovered(inode.node(), &data);
            guard.seen(inode.node());
        }
        while self.epochs.take_moved(true).is_some() {}
    }

    /// `from` takes the place of `to`, as an editor saves.
    pub(super) fn replace(&self, from: &str, to: &str) {
        let (root, new, old) = (self.root(), self.inode(from), self.inode(to));
        let inodes = [&root, &new, &old];
        let mut guard = self.epochs.change(&inodes).unwrap();
        self.begin_removal(&mut guard, to, &old);
        fs::rename(self.path(from), self.path(to)).unwrap();
        let kind = Kind::File;
        guard.name(&root, from.as_bytes(), None);
        guard.name(&root, to.as_bytes(), Some(NameEntry { id: new.id(), kind }));
    }

    pub(super) async fn sync(&self) -> CommitMark {
        self.handle.sync().await.unwrap().unwrap()
    }

    /// The source as it is now.
    pub(super) fn now(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(&self.root)
            .unwrap()
            .map(|entry| entry.unwrap());
        entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                let bytes = fs::read(entry.path()).unwrap();
                (name, bytes)
            })
            .collect()
    }

    /// A clean stop.
    pub(super) async fn stop(self) -> crate::flusher::Stopped {
        let stopped = self.handle.stop(PATIENCE).await.unwrap();
        assert!(stopped.captured, "{:?}", stopped.status);
        stopped
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}
