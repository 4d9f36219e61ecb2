//! A source on a real directory, found by handle (where this machine permits it) and by name: both must behave alike.

use std::collections::HashSet;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;

use super::*;

struct Scene {
    /// Holds `source` and `state`.
    _all: tempfile::TempDir,
    dir: PathBuf,
    state: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let all = tempfile::tempdir().expect("a directory");
        let (dir, state) = (all.path().join("source"), all.path().join("state"));
        std::fs::create_dir(&dir).expect("made");
        Self {
            _all: all,
            dir,
            state,
        }
    }

    /// Where the file system has no handles a number that is used again is known by its birth, which is as fine as the kernel's tick.
    fn let_births_differ(&self, source: &Source) {
        if sys::handle_at(&*source.root, b"").is_ok() {
            return;
        }
        let probe = self.dir.with_file_name("probe");
        let born = || {
            std::fs::write(&probe, b"x").expect("written");
            let born = std::fs::metadata(&probe).expect("stat").created().ok();
            std::fs::remove_file(&probe).expect("removed");
            born
        };
        let before = born();
        while before.is_some() && born() == before {
            std::thread::yield_now();
        }
    }

    fn open(&self, access: Option<Access>) -> Source {
        Source::open_with(&self.dir, &self.state, FileId(2), access).expect("opens")
    }
}

/// Runs a test in both ways of finding inodes.
fn both(test: impl Fn(&Scene, &Source)) {
    for access in [None, Some(Access::ByName)] {
        let scene = Scene::new();
        let source = scene.open(access);
        test(&scene, &source);
    }
}

#[test]
fn an_inode_keeps_its_number_over_renames_and_restarts() {
    for access in [None, Some(Access::ByName)] {
        let scene = Scene::new();
        std::fs::create_dir_all(scene.dir.join("a/b")).expect("made");
        std::fs::write(scene.dir.join("a/b/file"), b"x").expect("written");
        let walk = |source: &Source, names: &[&str]| {
            names.iter().fold(source.root(), |dir, name| {
                source.lookup(&dir, name.as_bytes()).expect("found").0
            })
        };
        let source = scene.open(access);
        let before = walk(&source, &["a", "b", "file"]);
        drop(source);
        std::fs::rename(scene.dir.join("a/b"), scene.dir.join("c")).expect("renamed");
        let source = scene.open(access);
        assert_eq!(walk(&source, &["c", "file"]), before);
        assert_eq!(source.known(&before.handle), Some(before.id));
        assert!(before.id < source.next_id() && before.id > FileId::ROOT);
    }
}

#[test]
fn an_inode_number_that_is_used_again_is_somebody_else() {
    both(|scene, source| {
        let path = scene.dir.join("file");
        let mut seen = HashSet::new();
        for _ in 0..20 {
            std::fs::write(&path, b"x").expect("written");
            let (node, _) = source.lookup(&source.root(), b"file").expect("found");
            assert!(seen.insert(node.id), "{} was used again", node.id);
            source.release(&node);
            std::fs::remove_file(&path).expect("removed");
            scene.let_births_differ(source);
        }
    });
}

#[test]
fn hard_links_are_one_node() {
    both(|scene, source| {
        std::fs::write(scene.dir.join("one"), b"x").expect("written");
        std::fs::hard_link(scene.dir.join("one"), scene.dir.join("two")).expect("linked");
        let root = source.root();
        let (one, stat) = source.lookup(&root, b"one").expect("found");
        let (two, _) = source.lookup(&root, b"two").expect("found");
        assert_eq!(one, two);
        assert_eq!(stat.links, 2);
        assert_eq!(source.entry(&root, b"two").expect("found"), one);
    });
}

#[test]
fn stat_tells_what_the_directory_tells() {
    both(|scene, source| {
        std::fs::write(scene.dir.join("file"), vec![7; 5000]).expect("written");
        symlink("some/where", scene.dir.join("link")).expect("linked");
        let root = source.root();
        for (name, kind) in [("file", Kind::File), ("link", Kind::Symlink)] {
            let (node, stat) = source.lookup(&root, name.as_bytes()).expect("found");
            let native = std::fs::symlink_metadata(scene.dir.join(name)).expect("stat");
            assert_eq!(stat.kind, kind);
            assert_eq!(u32::from(stat.mode), native.mode() & 0o7777);
            assert_eq!((stat.size, stat.blocks), (native.size(), native.blocks()));
            assert_eq!((stat.uid, stat.gid), (native.uid(), native.gid()));
            assert_eq!(stat.mtime.secs, native.mtime());
            assert_eq!(i64::from(stat.mtime.nanos), native.mtime_nsec());
            assert_eq!(source.stat(&node).expect("stat"), stat);
        }
        let (link, _) = source.lookup(&root, b"link").expect("found");
        assert_eq!(source.read_link(&link).expect("read"), b"some/where");
        assert_eq!(source.stat(&root).expect("stat").kind, Kind::Dir);
    });
}

#[test]
fn what_is_missing_or_no_name_is_an_error() {
    both(|_, source| {
        let root = source.root();
        let number = |name: &[u8]| source.lookup(&root, name).err()?.raw_os_error();
        assert_eq!(number(b"missing"), Some(libc::ENOENT));
        assert_eq!(number(&[b'x'; 256]), Some(libc::ENAMETOOLONG));
        for wrong in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(number(wrong), Some(libc::EINVAL));
        }
    });
}

#[test]
fn a_removed_inode_is_stale_unless_it_was_kept() {
    both(|scene, source| {
        let root = source.root();
        for kept in [false, true] {
            let path = scene.dir.join("file");
            std::fs::write(&path, b"contents").expect("written");
            let (node, _) = source.lookup(&root, b"file").expect("found");
            if kept {
                source.keep_unnamed(&node).expect("kept");
            } else {
                source.release(&node);
            }
            std::fs::remove_file(&path).expect("removed");
            let opened = source.open_node(&node, libc::O_RDONLY);
            if kept {
                let mut text = [0; 8];
                let file = opened.expect("still there");
                file.read_exact_at(&mut text, 0).expect("read");
                assert_eq!(&text, b"contents");
                drop(file);
                source.forget_identity_best_effort(&node);
                assert_eq!(source.known(&node.handle), None);
            } else {
                let error = opened.expect_err("gone").raw_os_error();
                assert_eq!(error, Some(libc::ESTALE));
                let error = source.stat(&node).expect_err("gone").raw_os_error();
                assert_eq!(error, Some(libc::ESTALE));
            }
        }
    });
}

#[test]
fn a_large_directory_is_read_completely_and_from_any_place() {
    both(|scene, source| {
        let names: HashSet<Vec<u8>> = (0..3000)
            .map(|n| format!("{n:0>40}").into_bytes())
            .collect();
        for name in &names {
            std::fs::write(scene.dir.join(String::from_utf8_lossy(name).as_ref()), b"")
                .expect("written");
        }
        let listed = source.read_dir(&source.root()).expect("listed");
        assert_eq!(listed.len(), names.len());
        assert_eq!(listed.into_iter().collect::<HashSet<_>>(), names);

        let mut listing = source.open_dir(&source.root()).expect("opened");
        let mut all = Vec::new();
        while let Some(entry) = listing.next_entry().expect("read") {
            all.push(entry);
        }
        assert_eq!(all.len(), names.len() + 2);
        for place in [0, 1, 700, 1500, all.len() - 2] {
            listing.go_to(all[place].next).expect("went");
            assert_eq!(
                listing.next_entry().expect("read"),
                Some(all[place + 1].clone())
            );
        }
    });
}

#[test]
fn holes_are_told_from_data() {
    both(|scene, source| {
        let file = File::create_new(scene.dir.join("sparse")).expect("created");
        let mib = 1 << 20;
        file.set_len(16 * mib).expect("extended");
        file.write_all_at(&[1; 4096], 4 * mib).expect("written");
        file.write_all_at(&[1; 4096], 9 * mib).expect("written");
        let ranges = |range| source.data_ranges(&file, range).expect("told");
        assert_eq!(
            ranges(0..16 * mib),
            [4 * mib..4 * mib + 4096, 9 * mib..9 * mib + 4096]
        );
        assert_eq!(ranges(5 * mib..8 * mib), []);
        let inside = 4 * mib + 100..4 * mib + 200;
        assert_eq!(ranges(inside.clone()), vec![inside]);
        assert_eq!(ranges(20 * mib..30 * mib), []);
        assert_eq!(ranges(7..7), []);
    });
}

#[test]
fn xattrs_are_sorted_and_those_of_the_system_left_out() {
    both(|scene, source| {
        std::fs::write(scene.dir.join("file"), b"x").expect("written");
        let (node, _) = source.lookup(&source.root(), b"file").expect("found");
        let big = vec![9; 3000];
        if source.set_xattr(&node, b"user.b", &big, 0).is_err() {
            tracing::warn!("skipped: no user xattrs in the temporary directory");
            return;
        }
        source.set_xattr(&node, b"user.a", b"", 0).expect("set");
        let all = source.xattrs(&node).expect("read");
        assert_eq!(
            all,
            [(b"user.a".to_vec(), vec![]), (b"user.b".to_vec(), big)]
        );
        source.remove_xattr(&node, b"user.a").expect("removed");
        let gone = source.xattr(&node, b"user.a").expect_err("removed");
        assert_eq!(gone.raw_os_error(), Some(libc::ENODATA));
        assert_eq!(source.xattr_names(&node).expect("listed"), b"user.b\0");
    });
}

#[test]
fn what_is_created_belongs_to_the_caller_and_obeys_the_umask() {
    both(|_, source| {
        let root = source.root();
        let root_user = sys::effective_uid() == 0;
        let own = source.stat(&root).expect("stat");
        let caller = Caller {
            uid: if root_user { 4321 } else { own.uid },
            gid: if root_user { 8765 } else { own.gid },
            umask: 0o027,
        };
        let (_, _, file) = source
            .create_file(&root, b"file", libc::O_RDWR, 0o666, &caller)
            .expect("created");
        let (_, dir) = source
            .create_dir(&root, b"dir", 0o777, &caller)
            .expect("created");
        let fifo_mode = libc::S_IFIFO | 0o666;
        let (_, fifo) = source
            .create_node(&root, b"fifo", fifo_mode, 0, &caller)
            .expect("created");
        let (_, link) = source
            .create_symlink(&root, b"link", b"to", &caller)
            .expect("created");
        for stat in [&file, &dir, &fifo, &link] {
            assert_eq!((stat.uid, stat.gid), (caller.uid, caller.gid));
        }
        assert_eq!((file.mode, dir.mode, fifo.mode), (0o640, 0o750, 0o640));
        assert_eq!(fifo.kind, Kind::Fifo);
        let again = source.create_file(&root, b"file", libc::O_RDWR, 0o666, &caller);
        let Err(Unmade::Refused(again)) = again else {
            panic!("it exists");
        };
        assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
    });
}

#[test]
fn a_source_that_is_no_directory_is_refused() {
    let scene = Scene::new();
    let file = scene.dir.join("file");
    std::fs::write(&file, b"x").expect("written");
    for wrong in [file, scene.dir.join("missing")] {
        let refused = Source::open(&wrong, &scene.state, FileId(2));
        assert!(matches!(refused, Err(Error::Open { .. })));
    }
}

#[test]
fn a_damaged_or_foreign_handle_is_stale_and_no_panic() {
    let scene = Scene::new();
    let source = scene.open(None);
    for bytes in [
        &b""[..],
        b"\x01",
        b"\x01\0\0\0",
        b"\xff\xff\xff\xff",
        &[1; 300],
    ] {
        let node = Node {
            id: FileId(99),
            handle: Handle(bytes.into()),
        };
        assert!(source.stat(&node).is_err());
        assert!(source.open_node(&node, libc::O_RDONLY).is_err());
    }
}

/// A file with two names lost one of them, and with it the only place where it had been remembered: it could be neither read nor
/// backed up until the next scan came by.
#[test]
fn a_file_is_found_as_long_as_it_has_any_name() {
    both(|scene, source| {
        std::fs::write(scene.dir.join("one"), b"x").expect("written");
        let root = source.root();
        let (node, _) = source.lookup(&root, b"one").expect("found");
        source.remember(&root, b"two", &node);
        source.link(&node, &root, b"two").expect("linked");
        source.remove_file(&root, b"two").expect("removed");
        source.forget_name(&root, b"two", &node);
        source.descriptors.drop_kept(node.id);
        assert_eq!(source.stat(&node).expect("has a name").links, 1);
        std::fs::rename(scene.dir.join("one"), scene.dir.join("three")).expect("renamed");
        source.lookup(&root, b"three").expect("seen");
        source.descriptors.drop_kept(node.id);
        source.stat(&node).expect("seen under its new name");
        assert!(!source.may_be_elsewhere(&source.root()));
    });
}

#[test]
fn a_file_whose_other_names_were_never_seen_is_held_until_one_is() {
    let scene = Scene::new();
    let source = scene.open(Some(Access::ByName));
    std::fs::write(scene.dir.join("seen"), b"x").expect("written");
    std::fs::hard_link(scene.dir.join("seen"), scene.dir.join("never")).expect("linked");
    let root = source.root();
    let (node, _) = source.lookup(&root, b"seen").expect("found");
    source
        .keep_if_nameless(&node, &root, b"seen")
        .expect("held");
    source.remove_file(&root, b"seen").expect("removed");
    source.forget_name(&root, b"seen", &node);
    assert_eq!(source.stat(&node).expect("held").links, 1);
    assert!(source.descriptors.is_pinned(node.id));
    source.lookup(&root, b"never").expect("found");
    assert!(!source.descriptors.is_pinned(node.id));
    source.descriptors.drop_kept(node.id);
    source.stat(&node).expect("found by its name");
}

/// Directories are renamed to and fro while files in them are used: each is found, and never another one.
#[test]
fn renamed_ancestors_lead_to_no_wrong_file() {
    let scene = Scene::new();
    let source = scene.open(Some(Access::ByName));
    let root = source.root();
    let caller = Caller {
        uid: sys::effective_uid(),
        gid: std::fs::metadata(&scene.dir).expect("stat").gid(),
        umask: 0o022,
    };
    let made = |name: &[u8]| {
        let (dir, _) = source
            .create_dir(&root, name, 0o755, &caller)
            .expect("made");
        let (_, file, _) = source
            .create_file(&dir, b"same", libc::O_RDWR, 0o644, &caller)
            .expect("made");
        (dir, file)
    };
    let ((left, in_left), (right, in_right)) = (made(b"left"), made(b"right"));
    let inos = [&in_left, &in_right].map(|node| {
        let fd = source.path_fd(node).expect("found");
        sys::stat(&*fd).expect("stat").ino
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            // As the mount does it: remembered before, forgotten after.
            for turn in 0..400 {
                let names = [&b"left"[..], b"right"];
                let (one, other) = (names[turn % 2], names[(turn + 1) % 2]);
                source.remember(&root, other, &left);
                source.remember(&root, one, &right);
                let exchange = libc::RENAME_EXCHANGE;
                source
                    .rename(&root, one, &root, other, exchange)
                    .expect("exchanged");
                source.forget_name(&root, one, &left);
                source.forget_name(&root, other, &right);
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            for (node, ino) in [&in_left, &in_right].into_iter().zip(inos) {
                for id in [node.id, left.id, right.id] {
                    source.descriptors.drop_kept(id);
                }
                let fd = source.path_fd(node).expect("it never went away");
                assert_eq!(sys::stat(&*fd).expect("stat").ino, ino);
            }
        }
    });
}

#[test]
fn what_cannot_be_found_by_name_is_not_said_to_be_gone() {
    let scene = Scene::new();
    let source = scene.open(Some(Access::ByName));
    std::fs::write(scene.dir.join("file"), b"x").expect("written");
    let (node, _) = source.lookup(&source.root(), b"file").expect("found");
    source.descriptors.drop_kept(node.id);
    // Beside the mount: nobody has told us.
    std::fs::rename(scene.dir.join("file"), scene.dir.join("moved")).expect("renamed");
    assert!(source.stat(&node).is_err());
    assert!(source.may_be_elsewhere(&node));
    source.forget_identity_best_effort(&node);
    assert!(!source.may_be_elsewhere(&node));
}

/// Out of descriptors, a directory was made and the program told that it was not: the volume did not know of it.
#[test]
fn nothing_is_needed_once_something_was_created() {
    both(|scene, source| {
        let root = source.root();
        let caller = Caller {
            uid: sys::effective_uid(),
            gid: std::fs::metadata(&scene.dir).expect("stat").gid(),
            umask: 0,
        };
        let (dir, stat) = source
            .create_dir(&root, b"dir", 0o755, &caller)
            .expect("made");
        assert_eq!(
            source.lookup(&root, b"dir").expect("found"),
            (dir.clone(), stat)
        );
        let (link, stat) = source
            .create_symlink(&dir, b"link", b"to", &caller)
            .expect("made");
        assert_eq!(source.lookup(&dir, b"link").expect("found"), (link, stat));
    });
}
