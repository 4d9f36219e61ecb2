//! A temporary source with the live mount over it or beside it, and comparing the two.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rewindfs::epoch::{self, Epochs};
use rewindfs::fuse::session::{self, Session};
use rewindfs::id::FileId;
use rewindfs::journal::Journal;
use rewindfs::mount::{Event, Live, Options};
use rewindfs::source::Source;
use rewindfs::sys;

/// Where the mount lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    OverItself,
    Elsewhere,
}

/// A mounted source. Unmounted when dropped.
pub(crate) struct Scene {
    pub(crate) session: Session,
    pub(crate) epochs: Arc<Epochs>,
    /// What the mount has told of.
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    mountpoint: PathBuf,
    /// The source below the mount.
    source: File,
    all: tempfile::TempDir,
}

impl Scene {
    /// `None`, said aloud, on a machine that cannot mount.
    pub(crate) fn mount(place: Place) -> Option<Self> {
        Self::mount_prepared(place, |_| ())
    }

    /// The same with a source that `prepare` has filled.
    pub(crate) fn mount_prepared(place: Place, prepare: impl FnOnce(&Path)) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let all = tempfile::tempdir().expect("a directory");
        let dir = all.path().join("source");
        let mountpoint = match place {
            Place::OverItself => dir.clone(),
            Place::Elsewhere => all.path().join("mount"),
        };
        std::fs::create_dir_all(&dir).expect("made");
        std::fs::create_dir_all(&mountpoint).expect("made");
        for open in [all.path(), &dir] {
            sys::set_mode(&File::open(open).expect("opens"), 0o777).expect("open to all");
        }
        prepare(&dir);
        let source_dir = File::open(&dir).expect("opens");
        let state = all.path().join("state");
        let source = Source::open(&dir, &state.join("ids"), FileId(2)).expect("source");
        let (journal, _) = Journal::open(&state.join("journal")).expect("journal");
        let (source, journal) = (Arc::new(source), Arc::new(journal));
        let limits = epoch::Options {
            preserve_bytes: 64 << 20,
            kept_files: 100,
            changes_bytes: 64 << 20,
        };
        let epochs = Epochs::new(Arc::clone(&source), Arc::clone(&journal), limits);
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let options = Options {
            ttl: Duration::from_secs(1),
            notice: Some(Arc::new(move |event| heard.lock().push(event))),
            on_fsync: None,
        };
        let live = Live::new(Arc::clone(&epochs), source, journal, options);
        let session = live
            .mount(&mountpoint, &session::Options::new("a,name"))
            .expect("mounted");
        Some(Self {
            session,
            epochs,
            events,
            mountpoint,
            source: source_dir,
            all,
        })
    }

    /// A path in the mount.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.mountpoint.join(path)
    }

    /// The same in the source, past a mount over it.
    pub(crate) fn below(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.source.as_raw_fd())).join(path)
    }

    /// A file beside source and mount.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.all.path().join(name)
    }

    /// Asserts that mount and source show exactly the same tree.
    pub(crate) fn assert_same(&self) {
        let (mount, source) = (tree(&self.at("")), tree(&self.below("")));
        let names = |tree: &BTreeMap<PathBuf, Shown>| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&mount), names(&source));
        for (path, shown) in &mount {
            assert_eq!(shown, &source[path], "{}", path.display());
        }
    }

    /// Unmounts and waits until it is gone.
    pub(crate) fn unmount(self) {
        unmount(&self.session);
    }

    /// The same, and then `clean` before the source is removed.
    pub(crate) fn unmount_keeping(self, clean: impl FnOnce()) {
        unmount(&self.session);
        clean();
    }
}

/// Unmounts and waits until it is gone. A child that another test is starting has copies of all descriptors for a moment, so that
/// "busy" is not believed at once.
pub(crate) fn unmount(session: &Session) {
    let began = Instant::now();
    loop {
        match session.unmount() {
            Err(session::Error::Busy { .. }) if began.elapsed() < BUSY_MAX => {
                std::thread::yield_now();
            }
            done => break done.expect("unmounted"),
        }
    }
    session.wait();
}

/// How long a mount may seem to be in use.
const BUSY_MAX: Duration = Duration::from_secs(60);

/// Runs `test` with the mount in both places.
pub(crate) fn everywhere(test: impl Fn(&Scene)) {
    for place in [Place::OverItself, Place::Elsewhere] {
        let Some(scene) = Scene::mount(place) else {
            return;
        };
        test(&scene);
        scene.assert_same();
        scene.unmount();
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test must be heard")]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

fn can_mount() -> bool {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    match device {
        Ok(_) => true,
        Err(error) => {
            skip(&format!("/dev/fuse: {error}"));
            false
        }
    }
}

/// What a program can see of an inode, but its number, its access time and its blocks, which change by themselves when the source's
/// file system gives a file its place on the disk.
#[derive(PartialEq, Eq, Debug)]
struct Shown {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: u64,
    rdev: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    contents: Contents,
}

/// Not printed byte by byte when it differs.
#[derive(PartialEq, Eq)]
struct Contents(Vec<u8>);

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = self.0.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        write!(f, "{} bytes, sum {sum}", self.0.len())
    }
}

fn tree(root: &Path) -> BTreeMap<PathBuf, Shown> {
    let mut found = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let shown = look(&full);
        if std::fs::symlink_metadata(&full).expect("stat").is_dir() {
            for entry in std::fs::read_dir(&full).expect("listed") {
                todo.push(path.join(entry.expect("an entry").file_name()));
            }
        }
        found.insert(path, shown);
    }
    found
}

fn look(path: &Path) -> Shown {
    // The root of the source is reached through a link of /proc.
    let path = if path.as_os_str().as_bytes().ends_with(b"/") {
        path.join(".")
    } else {
        path.to_owned()
    };
    let meta = std::fs::symlink_metadata(&path).expect("stat");
    let kind = meta.file_type();
    let contents = if kind.is_symlink() {
        let target = std::fs::read_link(&path).expect("read");
        target.as_os_str().as_bytes().to_vec()
    } else if kind.is_file() {
        std::fs::read(&path).expect("read")
    } else {
        Vec::new()
    };
    assert!(!kind.is_socket() || meta.len() == 0);
    Shown {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        links: meta.nlink(),
        size: meta.size(),
        rdev: meta.rdev(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        ctime: (meta.ctime(), meta.ctime_nsec()),
        xattrs: xattrs(&path),
        contents: Contents(contents),
    }
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let fd = sys::open(path, libc::O_PATH | libc::O_NOFOLLOW).expect("opens");
    let mut names = vec![0; 4096];
    let len = sys::list_xattrs(&fd, &mut names).expect("listed");
    let mut all: Vec<_> = names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 4096];
            let len = sys::get_xattr(&fd, name, &mut value).expect("read");
            (name.to_vec(), value[..len].to_vec())
        })
        .collect();
    all.sort();
    all
}
