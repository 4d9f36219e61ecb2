//! What opening a snapshot costs in requests, and how many of these wait for each other, from a cold start: no caches, nothing open.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::id::ObjectKey;
use crate::store::{self, Body, Condition, Listing, ObjectStore, PutOutcome, Version};

/// Counts requests that come one after the other: those under way at one time count once.
#[derive(Debug)]
struct Rounds {
    inner: Store,
    done: AtomicU64,
}

impl Rounds {
    async fn of<T>(&self, request: impl Future<Output = T>) -> T {
        let before = self.done.load(Ordering::Relaxed);
        // Others begin meanwhile.
        tokio::task::yield_now().await;
        let answer = request.await;
        self.done.fetch_max(before + 1, Ordering::Relaxed);
        answer
    }
}

#[async_trait]
impl ObjectStore for Rounds {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), store::Error> {
        self.of(self.inner.put(key, body)).await
    }
    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, store::Error> {
        self.of(self.inner.put_if(key, body, condition)).await
    }
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, store::Error> {
        self.of(self.inner.get_range(key, range)).await
    }
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), store::Error> {
        self.of(self.inner.get(key, len_max)).await
    }
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, store::Error> {
        self.of(self.inner.list(prefix, after, limit)).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<(), store::Error> {
        self.of(self.inner.delete(key)).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, store::Error> {
        self.of(self.inner.head(key)).await
    }
}

fn inode(kind: Kind) -> Inode {
    let time = Timespec {
        secs: 1_700_000_000,
        nanos: 123_456_789,
    };
    Inode {
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        links: 1,
        size: 0,
        rdev: 0,
        mtime: time,
        ctime: time,
        atime: time,
        btime: Some(time),
        target: Vec::new(),
        handle: vec![0x81, 1, 2, 3, 4, 5, 6, 7],
        racy: false,
        in_place: false,
        unknown: Vec::new(),
    }
}

/// `dirs` directories in the root with `files` files each, ids in ranges for each directory.
fn big_tree(dirs: u64, files: u64) -> Vec<Change> {
    let mut changes = vec![Change::PutInode(FileId::ROOT, inode(Kind::Dir).into())];
    let mut put = |id: u64, dir: u64, name: String, kind: Kind| {
        changes.push(Change::PutInode(FileId(id), inode(kind).into()));
        changes.push(Change::PutName {
            dir: FileId(dir),
            name: name.into_bytes(),
            entry: NameEntry {
                id: FileId(id),
                kind,
            },
        });
    };
    for dir in 0..dirs {
        put(2 + dir, 1, format!("directory-{dir:04}"), Kind::Dir);
        for file in 0..files {
            let id = 2 + dirs + dir * files + file;
            put(id, 2 + dir, format!("some-file-{file:06}.txt"), Kind::File);
        }
    }
    changes
}

/// From a cold start (no caches, nothing open) to the names and attributes in the root.
#[tokio::test]
async fn opening_a_snapshot_of_100_000_files_and_listing_its_root_takes_at_most_ten_requests() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    writer.commit(big_tree(100, 1000), Special::default()).await;
    for n in 1..5 {
        writer.clock.set(Stamp(TEN + n * MINUTE));
        writer.commit(vec![], Special::default()).await;
    }
    // A time costs one more than the latest: it proves the commit that follows, so that one between them cannot have been taken away.
    for (point, most) in [(Point::Latest, 9), (Point::At(Stamp(TEN + 3 * MINUTE)), 10)] {
        let (counted, meter) = metered(&store);
        let volume = reopen(&counted, Cache::in_memory(64 << 20)).await;
        let found = volume.find(&point).await.unwrap();
        let opened = meter.requests();
        let tree = volume.tree(&found.commit);
        assert!(tree.inode(FileId::ROOT).await.unwrap().is_some());
        let names = tree.names(FileId::ROOT, None, 1000).await.unwrap();
        assert_eq!(names.len(), 100);
        for (_, entry) in names {
            assert!(tree.inode(entry.id).await.unwrap().is_some());
        }
        let requests = meter.requests();
        assert!(
            requests <= most,
            "{point:?}: {requests} requests, {opened} of them to open"
        );
    }
}

/// The same by how long it takes: opening, the root, and what it shows.
#[tokio::test]
async fn of_the_requests_of_opening_few_wait_for_each_other() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    writer.commit(big_tree(100, 1000), Special::default()).await;
    // Changes to a few files of each directory: runs beside the base, each with pages of its own.
    for round in 0..3_u64 {
        let touched = (0..20_000).map(|n| {
            let id = FileId(102 + (n * 5 + round) % 100_000);
            Change::PutInode(id, inode(Kind::File).into())
        });
        writer.commit(touched.collect(), Special::default()).await;
    }
    let rounds = Arc::new(Rounds {
        inner: store,
        done: AtomicU64::new(0),
    });
    let counted: Store = rounds.clone();
    let volume = reopen(&counted, Cache::in_memory(64 << 20)).await;
    let opened = rounds.done.load(Ordering::Relaxed);
    let found = volume.find(&Point::Latest).await.unwrap();
    let mounted = rounds.done.load(Ordering::Relaxed);
    let tree = volume.tree(&found.commit);
    let (root, names) = futures::join!(
        tree.inode(FileId::ROOT),
        tree.names(FileId::ROOT, None, 100)
    );
    assert!(root.unwrap().is_some());
    for (_, entry) in names.unwrap() {
        assert!(tree.inode(entry.id).await.unwrap().is_some());
    }
    let listed = rounds.done.load(Ordering::Relaxed);
    assert!(
        opened == 2 && mounted - opened == 2 && listed - mounted < 5,
        "{opened} to open, {mounted} to find the snapshot, {listed} to list its root; {:?}",
        found.commit.tree.runs.len()
    );
}

/// Further back than one listing shows, with no pause around it: one LIST more than a time of the last minutes.
#[tokio::test]
async fn a_time_far_back_costs_one_list_more() {
    let store = memory();
    a_commit_a_minute(&store, 900).await;
    for seq in [1, 2, 200, 400, 600] {
        let (counted, meter) = metered(&store);
        let volume = reopen(&counted, Cache::in_memory(64 << 20)).await;
        let before = meter.requests();
        let at = Stamp(TEN + (seq - 1) * MINUTE + MINUTE / 2);
        assert_eq!(seq_of(&volume, Point::At(at)).await, seq);
        // Two LISTs, the commit, and the one that follows it.
        assert_eq!(meter.requests() - before, 4, "@{seq}");
    }
}
