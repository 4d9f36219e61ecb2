//! Reconcile on a real directory: the source is changed while nothing watches, scanned, and committed by a flusher of a few
//! lines; the commit must then be the source.

mod scene;

mod users;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use scene::Scene;
use users::User;

use super::*;
use crate::epoch::Debt;
use crate::journal::LOGICAL_BLOCK_LEN;

#[test]
fn a_first_backup_is_a_scan_against_nothing() {
    let mut scene = Scene::new();
    let root = scene.path();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("a/b/c/deep"), b"deep").unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    symlink("a/b", root.join("link")).unwrap();
    let summary = scene.scan(Trust::Stat).unwrap();
    assert_eq!(summary.scanned, 6);
    assert!(summary.unreadable.is_empty());
    scene.commit();
    scene.assert_committed();
}

#[test]
fn what_has_not_changed_is_not_marked() {
    let mut scene = Scene::new();
    for number in 0..300 {
        let dir = scene.path().join(format!("d{}", number % 7));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{number}")), b"same").unwrap();
    }
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    scene.next_life();
    let summary = scene.scan(Trust::Stat).unwrap();
    assert_eq!((summary.scanned, summary.marked), (307, 0));
    assert!(scene.epochs.open_size().is_empty());
}

#[test]
fn everything_that_changed_while_nothing_watched_is_found() {
    let mut scene = Scene::new();
    let root = scene.path();
    for dir in ["kept", "gone/inner", "moved"] {
        fs::create_dir_all(root.join(dir)).unwrap();
        fs::write(root.join(dir).join("file"), dir).unwrap();
    }
    for file in [
        "grown",
        "cut",
        "rewritten",
        "mode",
        "replaced",
        "kind",
        "renamed",
    ] {
        fs::write(root.join(file), vec![b'x'; 10_000]).unwrap();
    }
    scene.scan(Trust::Stat).unwrap();
    scene.commit();

    scene.let_times_move();
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::rename(root.join("moved"), root.join("kept/moved")).unwrap();
    let open = |name: &str| {
        fs::OpenOptions::new()
            .write(true)
            .open(root.join(name))
            .unwrap()
    };
    open("grown").write_all_at(b"end", 20_000).unwrap();
    open("cut").set_len(100).unwrap();
    let times = fs::metadata(root.join("rewritten"))
        .unwrap()
        .modified()
        .unwrap();
    open("rewritten").write_all_at(b"quietly", 500).unwrap();
    open("rewritten").set_modified(times).unwrap();
    fs::set_permissions(root.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(root.join("new"), b"new").unwrap();
    fs::rename(root.join("new"), root.join("replaced")).unwrap();
    fs::remove_file(root.join("kind")).unwrap();
    fs::create_dir(root.join("kind")).unwrap();
    fs::rename(root.join("renamed"), root.join("a name")).unwrap();

    scene.next_life();
    scene.scan(Trust::Stat).unwrap();
    let mode = scene.id_of("mode");
    scene.commit();
    scene.assert_committed();
    assert_eq!(
        scene.captured_of(mode),
        10_000,
        "its change time moved, so it is compared"
    );
}

#[test]
fn a_file_with_many_names_is_captured_once() {
    let scene = Scene::new();
    let root = scene.path();
    fs::write(root.join("first"), vec![7; 8192]).unwrap();
    for name in 0..5 {
        fs::hard_link(root.join("first"), root.join(format!("name{name}"))).unwrap();
    }
    // A copy ahead comes in between, as it does in a large backup.
    scene.scan(Trust::Stat).unwrap();
    let copy = scene.epochs.copy_ahead(1 << 20).unwrap();
    assert_eq!(copy.read(&mut [0; 8192], 0).unwrap(), 8192);
    drop(copy);
    scene.scan(Trust::Stat).unwrap();
    assert_eq!(scene.epochs.open_size().bytes, 0);
}

#[test]
fn holes_of_a_new_file_are_not_captured() {
    let scene = Scene::new();
    let file = fs::File::create(scene.path().join("sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"data", 1 << 39).unwrap();
    if file.metadata().unwrap().blocks() * 512 >= 1 << 30 {
        return; // Holes are not a thing here.
    }
    scene.scan(Trust::Stat).unwrap();
    let size = scene.epochs.open_size();
    assert!((1..1 << 20).contains(&size.bytes), "{size:?}");
}

#[test]
fn a_record_in_the_journal_is_compared_whatever_stat_says() {
    let mut scene = Scene::new();
    fs::write(scene.path().join("f"), vec![1; 5000]).unwrap();
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    let id = scene.id_of("f");
    scene.next_life();
    scene.intents = [(id, 0, EpochNo(0))].into_iter().collect();
    assert_eq!(scene.scan(Trust::Stat).unwrap().marked, 1);
    scene.commit();
    assert_eq!(scene.captured_of(id), 5000);
}

#[test]
fn without_trust_all_contents_are_compared() {
    let mut scene = Scene::new();
    fs::write(scene.path().join("f"), vec![1; 5000]).unwrap();
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    scene.next_life();
    scene.scan(Trust::Nothing).unwrap();
    scene.commit();
    let id = scene.id_of("f");
    assert_eq!(scene.captured_of(id), 5000);
}

/// A dead mount that was taken off after all that has happened.
const AFTER_ALL: Timespec = Timespec {
    secs: i64::MAX,
    nanos: 0,
};
const COVERED: Trust = Trust::Covered { until: AFTER_ALL };

/// Between the end of the dead mount and the beginning of the new one nobody tells the journal of anything.
#[test]
fn what_was_changed_after_the_dead_mount_was_taken_off_is_compared_as_a_whole() {
    let mut scene = Scene::new();
    let file = fs::File::create(scene.path().join("large")).unwrap();
    file.set_len(2 * LOGICAL_BLOCK_LEN).unwrap();
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    scene.let_times_move();
    file.write_all_at(b"x", LOGICAL_BLOCK_LEN + 5).unwrap();
    let id = scene.id_of("large");
    scene.next_life();
    scene.intents = [(id, 0, EpochNo(0))].into_iter().collect();
    let ctime = scene.source.stat(&scene.node_of("large")).unwrap().ctime;
    scene.scan(Trust::Covered { until: ctime }).unwrap();
    let dirty = scene.epochs.seal().unwrap().inode(id).unwrap().dirty;
    assert_eq!(dirty, vec![0..2 * LOGICAL_BLOCK_LEN; 1]);
}

/// A program that had the file open before the mount was laid over it writes past the mount.
#[test]
fn what_was_touched_under_a_dead_mount_without_a_record_is_compared_as_a_whole() {
    let mut scene = Scene::new();
    let file = fs::File::create(scene.path().join("large")).unwrap();
    file.set_len(2 * LOGICAL_BLOCK_LEN).unwrap();
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    let id = scene.id_of("large");
    for put_back in [false, true] {
        scene.let_times_move();
        let times = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"x", LOGICAL_BLOCK_LEN + 5).unwrap();
        if put_back {
            file.set_modified(times).unwrap();
        }
        scene.next_life();
        scene.scan(COVERED).unwrap();
        let sealed = scene.epochs.seal().unwrap();
        let dirty = sealed.inode(id).unwrap().dirty;
        assert_eq!(dirty, vec![0..2 * LOGICAL_BLOCK_LEN; 1], "{put_back}");
        sealed.finish().unwrap();
    }
}

#[test]
fn under_a_dead_mount_large_files_are_compared_where_the_journal_says() {
    let mut scene = Scene::new();
    let file = fs::File::create(scene.path().join("large")).unwrap();
    file.set_len(10 * LOGICAL_BLOCK_LEN).unwrap();
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    scene.let_times_move();
    file.write_all_at(b"x", 3 * LOGICAL_BLOCK_LEN + 5).unwrap();
    file.set_len(10 * LOGICAL_BLOCK_LEN + 100).unwrap();
    let id = scene.id_of("large");
    scene.next_life();
    scene.intents = [(id, 3, EpochNo(0))].into_iter().collect();
    scene.scan(COVERED).unwrap();
    let sealed = scene.epochs.seal().unwrap();
    let (block, end) = (LOGICAL_BLOCK_LEN, 10 * LOGICAL_BLOCK_LEN);
    let dirty = sealed.inode(id).unwrap().dirty;
    assert_eq!(dirty, vec![3 * block..4 * block, end..end + 4096]);
}

#[test]
fn a_name_made_and_removed_around_the_scan_leaves_the_tombstone_of_the_old_one() {
    // The last commit has a name that vanished while nothing watched. A program makes it again, and removes it again
    // before or after the scan came by: the epoch must not conclude that it never was.
    for scan_between in [false, true] {
        let mut scene = Scene::new();
        fs::write(scene.path().join("f"), b"old").unwrap();
        scene.scan(Trust::Stat).unwrap();
        scene.commit();
        fs::remove_file(scene.path().join("f")).unwrap();
        scene.next_life();
        let user = User::new(&scene, 1);
        user.create(&scene.source.root(), b"f");
        if scan_between {
            scene.scan(Trust::Stat).unwrap();
        }
        user.remove(&scene.source.root(), b"f");
        if !scan_between {
            scene.scan(Trust::Stat).unwrap();
        }
        scene.commit();
        scene.assert_committed();
    }
}

#[test]
fn commits_are_right_however_programs_work_while_the_scan_runs() {
    for seed in 0..12 {
        let mut scene = Scene::new();
        let root = scene.path();
        // A tree, committed, and changed while nothing watched.
        for number in 0..60 {
            let dir = root.join(format!("d{}/e{}", number % 5, number % 3));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("f{number}")), vec![number; 3000]).unwrap();
        }
        scene.scan(Trust::Stat).unwrap();
        scene.commit();
        fs::rename(root.join("d0"), root.join("d1/e0/was-d0")).unwrap();
        fs::remove_dir_all(root.join("d2/e2")).unwrap();
        for number in 0..20 {
            fs::write(root.join(format!("d3/new{number}")), vec![number; 5000]).unwrap();
        }
        scene.next_life();

        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for user in 0..2 {
                let user = User::new(&scene, seed * 10 + user);
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::SeqCst) {
                        user.act();
                    }
                });
            }
            let summary = scene.scan(Trust::Stat);
            done.store(true, Ordering::SeqCst);
            summary.unwrap();
        });
        scene.commit();
        scene.assert_committed();
    }
}

#[test]
fn a_scan_can_be_stopped_and_tried_again() {
    let mut scene = Scene::new();
    fs::write(scene.path().join("f"), b"f").unwrap();
    scene.stop.store(true, Ordering::SeqCst);
    assert!(matches!(scene.scan(Trust::Stat), Err(Error::Stopped)));
    scene.stop.store(false, Ordering::SeqCst);
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    scene.assert_committed();
}

#[test]
fn numbers_come_back_from_the_tree_when_the_map_was_lost() {
    let mut scene = Scene::new();
    fs::create_dir(scene.path().join("d")).unwrap();
    fs::write(scene.path().join("d/f"), b"f").unwrap();
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    let before = scene.id_of("d/f");
    scene.lose_identities();
    let tree = scene.tree.clone().unwrap();
    let adopted = scene.runtime.block_on(adopt_numbers(&scene.source, &tree));
    assert_eq!(adopted.unwrap(), 2);
    assert_eq!(scene.id_of("d/f"), before);
    assert_eq!(scene.scan(Trust::Stat).unwrap().marked, 0);
}

/// The time limit of a mount's start may end it anywhere.
#[test]
fn adopting_goes_on_where_it_was_given_up() {
    let mut scene = Scene::new();
    for name in ["a", "b", "c"] {
        fs::write(scene.path().join(name), name).unwrap();
    }
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    let before = ["a", "b", "c"].map(|name| scene.node_of(name));
    scene.lose_identities();
    let source = scene.source.clone();
    source.adopt(before[0].id, &before[0].handle).unwrap();
    assert!(!source.has_adopted());
    let tree = scene.tree.clone().unwrap();
    let adopt = || scene.runtime.block_on(adopt_numbers(&source, &tree));
    assert_eq!(adopt().unwrap(), 2);
    assert_eq!(["a", "b", "c"].map(|name| scene.node_of(name)), before);
    assert!(source.has_adopted());
    assert_eq!(adopt().unwrap(), 0);
}

#[test]
fn an_unreadable_directory_is_named_and_the_rest_is_backed_up() {
    if crate::sys::effective_uid() == 0 {
        // root reads everything; a directory that cannot be read does not exist for it.
        return;
    }
    let scene = Scene::new();
    fs::create_dir(scene.path().join("shut")).unwrap();
    fs::write(scene.path().join("open"), b"x").unwrap();
    let shut = fs::Permissions::from_mode(0o000);
    fs::set_permissions(scene.path().join("shut"), shut).unwrap();
    let summary = scene.scan(Trust::Stat).unwrap();
    assert_eq!(summary.unreadable.len(), 1);
    assert_eq!(summary.scanned, 2);
}

#[test]
fn trust_follows_from_how_it_ended() {
    let aside = LastStop::SetAside("there".to_owned());
    assert_eq!(Trust::after(&LastStop::New), Trust::Nothing);
    assert_eq!(Trust::after(&aside), Trust::Nothing);
    for known in [LastStop::Clean, LastStop::Crashed, LastStop::Rebooted] {
        assert_eq!(Trust::after(&known), Trust::Stat);
    }
    let after_dead_mount = |stop| Trust::after_dead_mount(stop, AFTER_ALL);
    assert_eq!(after_dead_mount(&LastStop::Crashed), COVERED);
    assert_eq!(after_dead_mount(&aside), Trust::Nothing);
    assert_eq!(after_dead_mount(&LastStop::Rebooted), Trust::Stat);
}

/// A store that hangs must not hold up a program: the tree is read outside of every lock.
#[test]
fn a_slow_tree_holds_up_nobody() {
    let mut scene = Scene::new();
    // Enough for pages of their own.
    for number in 0..500 {
        fs::write(scene.path().join(format!("f{number}")), b"f").unwrap();
    }
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    fs::write(scene.path().join("g"), b"g").unwrap();
    scene.next_life();
    let gate = scene.hold_pages();
    thread::scope(|scope| {
        let scan = scope.spawn(|| scene.scan(Trust::Stat));
        gate.wait_for_reader(Duration::from_secs(60));
        let user = User::new(&scene, 1);
        user.create(&scene.source.root(), b"h");
        gate.open();
        scan.join().unwrap().unwrap();
    });
    scene.commit();
    scene.assert_committed();
}

#[test]
fn owed_names_are_looked_up_again() {
    let mut scene = Scene::new();
    let root = scene.source.root();
    fs::write(scene.path().join("gone"), b"g").unwrap();
    fs::write(scene.path().join("replaced"), b"old").unwrap();
    scene.scan(Trust::Stat).unwrap();
    scene.commit();
    fs::remove_file(scene.path().join("gone")).unwrap();
    fs::remove_file(scene.path().join("replaced")).unwrap();
    fs::create_dir(scene.path().join("replaced")).unwrap();
    fs::write(scene.path().join("new"), b"contents").unwrap();
    let live = scene.epochs.inode(&root);
    let dirs = [&live];
    let names = [&b"gone"[..], b"replaced", b"new"];
    let mut guard = scene.epochs.change(&dirs).unwrap();
    for name in names {
        guard.owe(&live, name, &std::io::Error::other("a test"));
    }
    drop(guard);
    let Some(Debt::Names(owed)) = scene.epochs.debt() else {
        panic!("three names are owed");
    };
    assert_eq!(owed.len(), 3);
    pay_names(&scene.source, &scene.epochs, &owed).unwrap();
    assert!(!scene.epochs.is_owing());
    scene.commit();
    scene.assert_committed();
}

/// More was changed than could be remembered, by programs that went on meanwhile. A scan against the newest commit finds it all, also where
/// an epoch was being captured, which was given up then.
#[test]
fn what_was_forgotten_is_found_again() {
    for seed in 0..12 {
        let mut scene = Scene::with_memory(64 << 10);
        fs::create_dir_all(scene.path().join("d/e")).unwrap();
        for n in 0..30 {
            fs::write(scene.path().join(format!("d/f{n}")), vec![n; 6000]).unwrap();
        }
        scene.scan(Trust::Stat).unwrap();
        scene.commit();
        let user = User::new(&scene, seed);
        (0..20).for_each(|_| user.act());
        let given_up = (seed % 2 == 1).then(|| scene.epochs.seal()).flatten();
        (0..20).for_each(|_| user.act());
        // A name that is gone takes room until the commit that says so.
        let root = scene.source.root();
        user.create(&root, b"turn 0");
        let mut turn = 0;
        while !scene.epochs.is_owing() {
            let (from, to) = (format!("turn {turn}"), format!("turn {}", turn + 1));
            user.rename(
                &root,
                from.as_bytes(),
                &scene.node_of(&from),
                &root,
                to.as_bytes(),
            );
            turn += 1;
            assert!(turn < 10_000, "it never becomes too much");
        }
        drop(given_up);
        scene.epochs.begin_rescan();
        thread::scope(|scope| {
            scope.spawn(|| (0..20).for_each(|_| user.act()));
            scene.scan(Trust::Stat).unwrap();
        });
        assert!(!scene.epochs.is_owing());
        scene.commit();
        scene.assert_committed();
    }
}
