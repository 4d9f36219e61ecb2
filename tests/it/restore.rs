//! Restoring into a plain directory: everything equals, nothing leads out of the target, damage and interruption cost only what they touch.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use rewindfs::format::entry::{Contents, Kind, Place};
use rewindfs::id::ObjectKey;
use rewindfs::path::RepoPath;
use rewindfs::repo::Volume;
use rewindfs::restore::{self, Progress, Summary};
use rewindfs::store::fault::{Fault, Faulty, Plan, Rule};
use rewindfs::store::metered::{Meter, Metered, Operation};
use rewindfs::store::{self, Body, Condition, Listing, ObjectStore, PutOutcome, Store, Version};
use rewindfs::sys;
use tempfile::TempDir;

use crate::sample::{self, Model, Node, Sample, Size};

const SMALL: Size = Size {
    chunk: 300_000,
    names: 1500,
};

async fn restored(volume: &Arc<Volume>, sample: &Sample, paths: &[&str], target: &Path) -> Summary {
    let paths: Vec<RepoPath> = paths
        .iter()
        .map(|path| RepoPath::parse(path.as_bytes()).unwrap())
        .collect();
    let commit = &sample.newest().0.commit;
    let (progress, stop) = (Progress::default(), AtomicBool::new(false));
    let summary = restore::run(volume, commit, &paths, target, &progress, &stop)
        .await
        .unwrap();
    assert_eq!(
        progress.entries.load(Ordering::Relaxed),
        summary.written + summary.kept
    );
    summary
}

async fn opened(sample: &Sample) -> Arc<Volume> {
    sample::reopen(&sample.store, &sample.recovery)
        .await
        .unwrap()
}

fn is_root() -> bool {
    sys::effective_uid() == 0
}

fn xattrs_of(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let fd = sys::open(path, libc::O_PATH | libc::O_NOFOLLOW).unwrap();
    let mut names = vec![0; 64 << 10];
    let len = sys::list_xattrs(&fd, &mut names).unwrap();
    let mut xattrs: Vec<_> = names[..len]
        .split(|&byte| byte == 0)
        // What a security module of the machine adds by itself.
        .filter(|name| !name.is_empty() && !name.starts_with(b"security."))
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = sys::get_xattr(&fd, name, &mut value).unwrap();
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect();
    xattrs.sort();
    xattrs
}

/// Reads a file without moving its access time, which its other names are still to be asked for.
fn contents_of(path: &Path) -> Vec<u8> {
    let mut contents = Vec::new();
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOATIME)
        .open(path);
    file.unwrap().read_to_end(&mut contents).unwrap();
    contents
}

/// Everything that a restore promises of one path.
fn assert_equal(path: &Path, node: &Node) {
    let inode = &node.inode;
    let found =
        fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let shown = path.display();
    let kind = found.file_type();
    let is_right = match inode.kind {
        Kind::File => kind.is_file(),
        Kind::Dir => kind.is_dir(),
        Kind::Symlink => kind.is_symlink(),
        Kind::Fifo => kind.is_fifo(),
        Kind::Socket => kind.is_socket(),
        Kind::CharDevice => kind.is_char_device(),
        Kind::BlockDevice => kind.is_block_device(),
    };
    assert!(is_right, "{shown}: {kind:?}");
    if inode.kind != Kind::Symlink {
        assert_eq!(found.mode() & 0o7777, u32::from(inode.mode), "{shown}");
    }
    if is_root() {
        assert_eq!(
            (found.uid(), found.gid()),
            (inode.uid, inode.gid),
            "{shown}"
        );
    }
    let (mtime, atime) = (inode.mtime, inode.atime);
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (mtime.secs, i64::from(mtime.nanos)),
        "{shown}"
    );
    assert_eq!(
        (found.atime(), found.atime_nsec()),
        (atime.secs, i64::from(atime.nanos)),
        "{shown}"
    );
    if inode.kind != Kind::Symlink {
        assert_eq!(xattrs_of(path), node.xattrs, "{shown}");
    }
    match inode.kind {
        Kind::File => {
            assert_eq!(found.nlink(), u64::from(inode.links), "{shown}");
            assert!(
                contents_of(path) == node.contents,
                "{shown}: wrong contents"
            );
        }
        Kind::Symlink => {
            use std::os::unix::ffi::OsStrExt;
            let target = fs::read_link(path).unwrap();
            assert_eq!(target.as_os_str().as_bytes(), inode.target, "{shown}");
        }
        Kind::CharDevice => assert_eq!(found.rdev(), inode.rdev, "{shown}"),
        _ => {}
    }
}

/// The model as it can be restored by whoever runs the tests: only root makes devices.
fn possible(model: &Model) -> impl Iterator<Item = (&String, &Node)> {
    model
        .iter()
        .filter(|(_, node)| is_root() || node.inode.kind != Kind::CharDevice)
}

fn count_below(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        count += 1;
        if entry.file_type().unwrap().is_dir() {
            count += count_below(&entry.path());
        }
    }
    count
}

fn target() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn into_an_empty_directory_everything_equals() {
    let sample = Sample::new(SMALL).await;
    let volume = opened(&sample).await;
    let model = &sample.newest().1;
    let target = target();
    let place = target.path().join("made/on/the way");
    let summary = restored(&volume, &sample, &[], &place).await;
    assert_eq!(
        summary.failures.len(),
        model.len() - possible(model).count(),
        "{:?}",
        summary.failures
    );
    assert_eq!(summary.written, possible(model).count() as u64);
    // Reading contents moves access times of directories: attributes first, the deepest last.
    for (path, node) in possible(model).collect::<Vec<_>>().into_iter() {
        assert_equal(&place.join(path), node);
    }
    assert_eq!(
        count_below(&place) + 1,
        possible(model).count(),
        "nothing but what was asked for"
    );
    let ino = |path: &str| fs::metadata(place.join(path)).unwrap().ino();
    assert_eq!(ino("linked-twice"), ino("dir-with-a-name/linked-twice"));
    let sparse = File::open(place.join("sparse")).unwrap();
    assert!(
        sparse.metadata().unwrap().blocks() * 512 < 100_000,
        "its holes were filled"
    );
    let data = sys::seek(&sparse, 0, libc::SEEK_DATA).unwrap();
    assert!((390_000..=400_000).contains(&data), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_keep_their_path_and_bring_nothing_else() {
    let sample = Sample::new(SMALL).await;
    let volume = opened(&sample).await;
    let model = &sample.newest().1;
    let target = target();
    let asked = [
        "dir-with-a-name/deep",
        "dir-with-a-name/symlink",
        "/many/needle-00007",
        "dir-with-a-name/deep/fresh",
    ];
    let summary = restored(&volume, &sample, &asked, target.path()).await;
    assert_eq!(summary.failures, []);
    let expected = [
        "dir-with-a-name",
        "dir-with-a-name/deep",
        "dir-with-a-name/deep/fresh",
        "dir-with-a-name/deep/socket",
        "dir-with-a-name/symlink",
        "many",
        "many/needle-00007",
    ];
    for path in expected {
        assert_equal(&target.path().join(path), &model[path]);
    }
    assert_eq!(count_below(target.path()), expected.len());
    let missing = [RepoPath::parse(b"dir-with-a-name/none").unwrap()];
    let commit = &sample.newest().0.commit;
    let (progress, stop) = (Progress::default(), AtomicBool::new(false));
    let failed = restore::run(&volume, commit, &missing, target.path(), &progress, &stop).await;
    assert!(
        failed
            .unwrap_err()
            .to_string()
            .contains("/dir-with-a-name/none")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_target_leads_nowhere_else() {
    let sample = Sample::new(SMALL).await;
    let volume = opened(&sample).await;
    let (target, elsewhere) = (target(), target());
    fs::write(elsewhere.path().join("victim"), b"untouched").unwrap();
    symlink(elsewhere.path(), target.path().join("dir-with-a-name")).unwrap();
    symlink(elsewhere.path().join("victim"), target.path().join("big")).unwrap();
    fs::create_dir(target.path().join("needle-a.txt")).unwrap();
    fs::write(target.path().join("needle-a.txt/inside"), b"kept").unwrap();
    let summary = restored(
        &volume,
        &sample,
        &["dir-with-a-name", "big", "needle-a.txt", "sparse"],
        target.path(),
    )
    .await;
    assert_eq!(
        fs::read(elsewhere.path().join("victim")).unwrap(),
        b"untouched"
    );
    assert_eq!(count_below(elsewhere.path()), 1);
    let failed = |path: &str| {
        let path = RepoPath::parse(path.as_bytes()).unwrap();
        summary.failures.iter().any(|failure| failure.path == path)
    };
    assert!(failed("dir-with-a-name") && failed("dir-with-a-name/copy") && failed("needle-a.txt"));
    assert_eq!(
        fs::read(target.path().join("needle-a.txt/inside")).unwrap(),
        b"kept"
    );
    assert!(!target.path().join(MARKER).exists());
    // A symlink where a file goes is replaced, never followed.
    assert_equal(&target.path().join("big"), &sample.newest().1["big"]);
    assert_equal(&target.path().join("sparse"), &sample.newest().1["sparse"]);
    assert_eq!(unfinished(target.path()), 0);
}

fn unfinished(dir: &Path) -> usize {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with(".rewindfs-restoring-"))
        .count()
}

/// Says in the target whether a restore of it has not come to its end.
const MARKER: &str = ".rewindfs-restoring";

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_keeps_what_is_there_and_mends_what_is_not() {
    let sample = Sample::new(SMALL).await;
    let volume = opened(&sample).await;
    let model = &sample.newest().1;
    let target = target();
    let paths = ["dir-with-a-name", "linked-twice", "big", "sparse", "fifo"];
    let first = restored(&volume, &sample, &paths, target.path()).await;
    assert_eq!((first.kept, first.failures.len()), (0, 0));
    let kept = fs::metadata(target.path().join("sparse")).unwrap().ino();
    fs::write(target.path().join("big"), b"spoilt").unwrap();
    fs::remove_file(target.path().join("dir-with-a-name/linked-twice")).unwrap();
    // As an interrupted run leaves it, or as the snapshot has it.
    fs::set_permissions(
        target.path().join("dir-with-a-name"),
        fs::Permissions::from_mode(0o500),
    )
    .unwrap();
    let second = restored(&volume, &sample, &paths, target.path()).await;
    assert_eq!(second.failures, []);
    assert!(second.kept >= 3, "{second:?}");
    for path in [
        "dir-with-a-name",
        "dir-with-a-name/copy",
        "dir-with-a-name/linked-twice",
        "linked-twice",
        "big",
        "sparse",
        "fifo",
    ] {
        assert_equal(&target.path().join(path), &model[path]);
    }
    assert_eq!(
        fs::metadata(target.path().join("sparse")).unwrap().ino(),
        kept
    );
    let ino = |path: &str| fs::metadata(target.path().join(path)).unwrap().ino();
    assert_eq!(ino("linked-twice"), ino("dir-with-a-name/linked-twice"));
}

/// Restores all, is asked to stop while the `n`-th read of the store is under way, and runs again. Says how much that one kept.
async fn interrupted_at(sample: &Sample, n: u64) -> u64 {
    let (found, model) = sample.newest();
    let target = target();
    let plan = Plan::new();
    let slow: Store = Arc::new(Faulty::new(sample.store.clone(), plan.clone()));
    let volume = sample::reopen(&slow, &sample.recovery).await.unwrap();
    plan.add(Rule {
        on: Some(Operation::GetRange),
        skip: n,
        times: 1,
        fault: Fault::Hang,
    });
    let (progress, stop) = (Progress::default(), AtomicBool::new(false));
    let run = restore::run(&volume, &found.commit, &[], target.path(), &progress, &stop);
    let stopper = async {
        while plan.fired() == 0 {
            tokio::task::yield_now().await;
        }
        stop.store(true, Ordering::Relaxed);
        plan.release();
    };
    let (done, ()) = futures::join!(run, stopper);
    assert!(
        matches!(&done, Err(cut) if matches!(cut.error, restore::Error::Interrupted)),
        "{done:?}"
    );
    for (path, node) in model {
        let path = target.path().join(path);
        if node.inode.kind == Kind::File && path.exists() {
            assert!(contents_of(&path) == node.contents, "{}", path.display());
        }
        if path.is_dir() {
            assert_eq!(unfinished(&path), 0);
        }
    }
    assert!(target.path().join(MARKER).exists());
    let volume = opened(sample).await;
    let summary = restored(&volume, sample, &[], target.path()).await;
    for (path, node) in possible(model) {
        assert_equal(&target.path().join(path), node);
    }
    assert!(!target.path().join(MARKER).exists());
    summary.kept
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_leaves_nothing_half_done_and_can_be_run_again() {
    let sample = Sample::new(SMALL).await;
    let meter = Arc::new(Meter::default());
    let counted: Store = Arc::new(Metered::new(sample.store.clone(), meter.clone()));
    let volume = sample::reopen(&counted, &sample.recovery).await.unwrap();
    let before = meter.usage(Operation::GetRange).requests;
    restored(&volume, &sample, &[], target().path()).await;
    let reads = meter.usage(Operation::GetRange).requests - before;
    let mut kept = Vec::new();
    for part in 0..4 {
        kept.push(interrupted_at(&sample, reads * part / 5).await);
    }
    // Which contents are whole first is not in order; before them come the files without any.
    let without = SMALL.names as u64;
    assert!(kept[0] == 0 && kept[3] >= without, "{kept:?}");
}

/// What a power cut leaves: names and attributes are on the disk, and the bytes are not.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_may_have_emptied_is_not_kept() {
    let sample = Sample::new(SMALL).await;
    let volume = opened(&sample).await;
    let model = &sample.newest().1;
    let target = target();
    let paths = ["dir-with-a-name", "big", "sparse", "needle-a.txt"];
    let first = restored(&volume, &sample, &paths, target.path()).await;
    let big = target.path().join("big");
    let times = fs::metadata(&big).unwrap();
    let file = File::options().write(true).open(&big).unwrap();
    file.set_len(0).unwrap();
    file.set_len(times.len()).unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
    drop(file);
    fs::write(target.path().join(MARKER), "boot of-another-life\n\n").unwrap();
    let second = restored(&volume, &sample, &paths, target.path()).await;
    assert_eq!((second.kept, second.bytes), (0, first.bytes));
    for path in paths {
        assert_equal(&target.path().join(path), &model[path]);
    }
    // Until all has been restored, and then everything is trusted again.
    let all = restored(&volume, &sample, &[], target.path()).await;
    assert_eq!(all.kept, 0);
    if all.failures.is_empty() {
        let again = restored(&volume, &sample, &[], target.path()).await;
        assert!(again.kept > 0 && again.bytes == 0, "{again:?}");
        assert!(!target.path().join(MARKER).exists());
    }
}

/// Something older stands where the first name of a file should go, and cannot be replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_never_given_to_what_stands_in_the_place_of_its_file() {
    let sample = Sample::new(SMALL).await;
    let model = &sample.newest().1;
    let extents = opened(&sample)
        .await
        .tree(&sample.newest().0.commit)
        .extents(model["linked-twice"].id, 0..1)
        .await
        .unwrap();
    let Contents::Data { place, .. } = &extents[0].contents else {
        panic!("a hole")
    };
    damage(&sample, place).await;
    let volume = opened(&sample).await;
    let target = target();
    fs::create_dir(target.path().join("dir-with-a-name")).unwrap();
    let names = ["linked-twice", "dir-with-a-name/linked-twice"];
    for name in names {
        fs::write(target.path().join(name), b"something older").unwrap();
    }
    let summary = restored(&volume, &sample, &names, target.path()).await;
    for name in names {
        let path = RepoPath::parse(name.as_bytes()).unwrap();
        let told = |failure: &&restore::Failure| failure.path == path;
        let why = &summary.failures.iter().find(told).unwrap().why;
        assert!(why.contains("damaged"), "{why}");
        let path = target.path().join(name);
        assert_eq!(fs::read(&path).unwrap(), b"something older");
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
    }
}

/// A store that remembers which parts of contents have been read.
#[derive(Debug)]
struct Watched {
    inner: Store,
    read: Mutex<Vec<(ObjectKey, Range<u64>)>>,
}

#[async_trait]
impl ObjectStore for Watched {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), store::Error> {
        self.inner.put(key, body).await
    }
    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, store::Error> {
        self.inner.put_if(key, body, condition).await
    }
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, store::Error> {
        if key.as_str().contains("/d/") {
            self.read.lock().unwrap().push((key.clone(), range.clone()));
        }
        self.inner.get_range(key, range).await
    }
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), store::Error> {
        self.inner.get(key, len_max).await
    }
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, store::Error> {
        self.inner.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &ObjectKey) -> Result<(), store::Error> {
        self.inner.delete(key).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, store::Error> {
        self.inner.head(key).await
    }
}

/// Without any cache that could make up for it.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_contents_is_read_twice_or_for_what_is_there() {
    let sample = Sample::new(SMALL).await;
    let watched = Arc::new(Watched {
        inner: sample.store.clone(),
        read: Mutex::default(),
    });
    let store: Store = watched.clone();
    let volume = sample::reopen(&store, &sample.recovery).await.unwrap();
    let target = target();
    restored(&volume, &sample, &[], target.path()).await;
    let mut read = std::mem::take(&mut *watched.read.lock().unwrap());
    assert!(!read.is_empty());
    read.sort_by(|(a, x), (b, y)| (a, x.start).cmp(&(b, y.start)));
    for pair in read.windows(2) {
        let ((object, before), (next, after)) = (&pair[0], &pair[1]);
        assert!(object != next || before.end <= after.start, "{pair:?}");
    }
    let again = restored(&volume, &sample, &[], target.path()).await;
    assert_eq!((again.bytes, again.kept > 0), (0, true));
    assert_eq!(*watched.read.lock().unwrap(), []);
}

/// Flips a bit of the frame at `place`; says in which object.
async fn damage(sample: &Sample, place: &Place) -> ObjectKey {
    let object = opened(sample).await.blocks().object(place).unwrap();
    let (bytes, _) = sample.store.get(&object, u64::MAX).await.unwrap();
    let mut bytes = bytes.to_vec();
    bytes[place.hint.offset as usize + 50] ^= 1;
    let body = Body::Bytes(bytes.into());
    sample.store.put(&object, body).await.unwrap();
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_frame_costs_its_files_alone() {
    let sample = Sample::new(SMALL).await;
    let volume = opened(&sample).await;
    let (found, model) = sample.newest();
    let extents = volume
        .tree(&found.commit)
        .extents(model["big"].id, 0..1)
        .await
        .unwrap();
    let Contents::Data { place, .. } = &extents[0].contents else {
        panic!("a hole")
    };
    let object = damage(&sample, place).await;
    let volume = opened(&sample).await;
    let target = target();
    let summary = restored(&volume, &sample, &[], target.path()).await;
    let lost = ["big", "dir-with-a-name/copy"];
    for path in lost {
        assert!(!target.path().join(path).exists());
        let path = RepoPath::parse(path.as_bytes()).unwrap();
        let failure = summary
            .failures
            .iter()
            .find(|failure| failure.path == path)
            .unwrap();
        assert!(failure.why.contains(object.as_str()), "{failure:?}");
    }
    let others = possible(model).filter(|(path, _)| !lost.contains(&path.as_str()));
    for (path, node) in others {
        assert_equal(&target.path().join(path), node);
    }
    assert_eq!(unfinished(target.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_no_directory_is_refused() {
    let sample = Sample::new(SMALL).await;
    let volume = opened(&sample).await;
    let target = target();
    let file = target.path().join("file");
    fs::write(&file, b"x").unwrap();
    let (progress, stop) = (Progress::default(), AtomicBool::new(false));
    let done = restore::run(
        &volume,
        &sample.newest().0.commit,
        &[],
        &file,
        &progress,
        &stop,
    )
    .await;
    assert!(matches!(done.unwrap_err().error, restore::Error::Target { path, .. } if path == file));
}
