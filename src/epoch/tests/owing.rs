//! What cannot be noted, or not be kept in memory, is owed: no epoch counts as exact before it has been looked at again.

use std::sync::Arc;

use super::fake::{DIRS, Effect, ROOMY, World, node};
use super::steps::{FILE, committed, create, sealed, write};
use crate::epoch::{Debt, LiveInode, Options};
use crate::format::entry::{Kind, NameEntry};
use crate::id::FileId;

/// Room for a few dozen records.
const SMALL: Options = Options {
    changes_bytes: 16 << 10,
    ..ROOMY
};

fn root(world: &World) -> Arc<LiveInode> {
    world.epochs.inode(&node(DIRS[0]))
}

/// Renames a file through the epochs, as the mount does.
fn rename(world: &World, file: &Arc<LiveInode>, from: &[u8], to: &[u8]) {
    let dir = root(world);
    let both = [&dir, file];
    let mut guard = world.epochs.change(&both).unwrap();
    let effect = Effect::Rename {
        from: (DIRS[0], from.to_vec()),
        to: (DIRS[0], to.to_vec()),
    };
    world.source.apply(guard.epoch(), effect);
    let (id, kind) = (file.id(), Kind::File);
    guard.name(&dir, from, None);
    guard.name(&dir, to, Some(NameEntry { id, kind }));
}

/// Has so many files changed that they cannot be remembered.
fn crowd(world: &World) {
    for n in 0..200 {
        create(world, FileId(1000 + n), format!("crowd {n}").as_bytes());
    }
}

#[test]
fn an_epoch_with_a_name_that_could_not_be_noted_is_not_exact() {
    let world = World::new(&ROOMY);
    let dir = root(&world);
    let dirs = [&dir];
    let error = std::io::Error::other("out of everything");
    let mut guard = world.epochs.change(&dirs).unwrap();
    guard.owe(&dir, b"lost", &error);
    drop(guard);
    assert!(world.epochs.is_owing());
    assert!(
        world
            .epochs
            .why_owing()
            .unwrap()
            .contains("out of everything")
    );
    let first = sealed(&world);
    assert!(!first.is_exact());

    let owed = Debt::Names(vec![(node(DIRS[0]), b"lost".to_vec())]);
    assert_eq!(world.epochs.debt(), Some(owed));
    let mut guard = world.epochs.change(&dirs).unwrap();
    let entry = NameEntry {
        id: FILE,
        kind: Kind::File,
    };
    guard.name(&dir, b"lost", Some(entry));
    guard.paid(&dir, b"lost");
    drop(guard);
    assert_eq!(world.epochs.debt(), None);
    assert_eq!(world.epochs.why_owing(), None);
    // Paid in the epoch after it: given up, it goes into that one.
    drop(first);
    let second = sealed(&world);
    assert!(second.is_exact());
    assert_eq!(second.names().len(), 1);
}

/// The store was away for a week. The change set grew until the machine had no memory left.
#[test]
fn a_set_that_becomes_too_large_is_dropped_and_everything_is_owed() {
    let world = World::new(&SMALL);
    crowd(&world);
    let memory = world.epochs.set(world.epochs.current()).memory();
    assert!(memory < 2 * SMALL.changes_bytes, "{memory} bytes");
    assert_eq!(world.epochs.debt(), Some(Debt::Everything));
    let first = sealed(&world);
    assert!(!first.is_exact());
    drop(first);

    // A scan that had begun before pays for nothing.
    world.epochs.take_moved(true);
    assert!(world.epochs.is_owing());
    world.epochs.begin_rescan();
    world.epochs.watch_moves();
    while world.epochs.take_moved(true).is_some() {}
    assert!(!world.epochs.is_owing());
    write(&world, &world.epochs.inode(&node(FileId(1000))), 0, b"x");
    assert!(sealed(&world).is_exact());
}

#[test]
fn a_request_under_way_while_the_set_is_dropped_is_not_forgotten() {
    let world = World::new(&SMALL);
    let file = committed(&world, 5000);
    let guard = world.epochs.write(&file, 0..10).unwrap();
    crowd(&world);
    assert!(world.epochs.is_owing());
    let effect = Effect::Write {
        id: FILE,
        at: 0,
        bytes: vec![7; 10],
    };
    world.source.apply(guard.epoch(), effect);
    drop(guard);
    let sealed = sealed(&world);
    let touched = sealed.inode(FILE).expect("said again");
    assert_eq!(touched.dirty, vec![0..8192], "as a whole");
}

/// What the sealed epoch took for unchanged, since the open one did not know of it any more, had been changed.
#[test]
fn a_dropped_set_takes_nothing_for_unchanged() {
    let world = World::new(&SMALL);
    let file = committed(&world, 3 * 4096);
    write(&world, &file, 0, b"x");
    let sealed = sealed(&world);
    write(&world, &file, 8192, b"later");
    crowd(&world);
    assert!(world.epochs.is_owing());
    assert!(!sealed.also_needs(FILE, std::slice::from_ref(&(8192..12_288))));
    assert_eq!(sealed.take(FILE, 0..4096).unwrap()[..2], *b"x\x01");
    sealed.finish().unwrap();
}

/// Looks at a file that no commit knows, as a scan of everything does.
fn look_at(world: &World, id: FileId, name: &[u8]) {
    let dir = root(world);
    let dirs = [&dir];
    let kind = Kind::File;
    let len = world.source.look(|state| state.inodes[&id].data.len());
    let mut guard = world.epochs.change(&dirs).unwrap();
    guard.name(&dir, name, Some(NameEntry { id, kind }));
    guard.discovered(&node(id), std::slice::from_ref(&(0..len as u64)));
    guard.seen(&node(id));
}

/// A file was made in an epoch that was then captured, and renamed in the next, which became too large and was dropped. When the first
/// one was given up its changes went into the dropped one, where nothing told any more that the old name was gone; and since neither
/// the last commit nor the source had that name, the scan never came to it. An exact snapshot showed it for ever.
#[test]
fn what_is_folded_into_a_dropped_set_is_dropped_too() {
    let world = World::new(&SMALL);
    let file = create(&world, FILE, b"a");
    let first = sealed(&world);
    rename(&world, &file, b"a", b"b");
    crowd(&world);
    assert!(world.epochs.is_owing());
    drop(first);

    world.epochs.begin_rescan();
    world.epochs.watch_moves();
    look_at(&world, FILE, b"b");
    while world.epochs.take_moved(true).is_some() {}
    let second = sealed(&world);
    assert!(second.is_exact());
    let names = second.names().into_iter();
    let own = names.filter(|(.., entry)| entry.is_some_and(|entry| entry.id == FILE));
    let own: Vec<_> = own.map(|(_, name, _)| name).collect();
    assert_eq!(own, [b"b"]);
}

/// The same of contents: the first epoch brought along that the file was made in it, so that a scan believed all of it to be marked. What a
/// program had appended since was a hole in an exact snapshot. It was no different with a file that was only left out of a commit.
#[test]
fn a_scan_marks_what_comes_back_from_an_epoch_before_the_drop() {
    for left_out in [false, true] {
        let world = World::new(&SMALL);
        let file = create(&world, FILE, b"f");
        write(&world, &file, 0, &[1; 4096]);
        let first = sealed(&world);
        write(&world, &file, 4096, &[2; 8192]);
        crowd(&world);
        assert!(world.epochs.is_owing());
        if left_out {
            first.finish_without(&[FILE].into()).unwrap();
        } else {
            drop(first);
        }
        look_at(&world, FILE, b"f");
        let dirty = sealed(&world).inode(FILE).unwrap().dirty;
        assert_eq!(dirty, vec![0..12_288], "left out: {left_out}");
    }
}

#[test]
fn bitmaps_become_whole_blocks_before_anything_is_dropped() {
    let world = World::new(&Options {
        changes_bytes: 4000,
        ..ROOMY
    });
    let file = committed(&world, 1);
    for page in 0..200 {
        drop(
            world
                .epochs
                .write(&file, page * 8192..page * 8192 + 1)
                .unwrap(),
        );
    }
    assert!(!world.epochs.is_owing());
    let set = world.epochs.set(world.epochs.current());
    assert!(set.is_coarse() && set.memory() < 4000, "{}", set.memory());
    assert_eq!(sealed(&world).inode(FILE).unwrap().dirty, vec![0..64 << 20]);
}

/// During a scan a program changed a page of a file that had been changed while nothing was mounted. The incomplete commit had that page,
/// and for the rest what the file had been before.
#[test]
fn what_a_scan_has_not_looked_at_is_doubted() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 9000);
    world.epochs.expect_scan();
    write(&world, &file, 0, b"x");
    let made = create(&world, FileId(60), b"made");
    write(&world, &made, 0, b"known from its first byte");
    let first = sealed(&world);
    assert!(first.is_doubted(FILE) && !first.is_doubted(FileId(60)));
    // The scan comes by in the next epoch: what it finds stands there, and not in this one.
    let mut guard = world.epochs.change(&[]).unwrap();
    let all = 0..9000;
    guard.suspected(&node(FILE), std::slice::from_ref(&all));
    guard.seen(&node(FILE));
    drop(guard);
    assert!(first.is_doubted(FILE));
    first.finish_without(&[FILE].into()).unwrap();
    let second = sealed(&world);
    assert!(!second.is_doubted(FILE));
    assert_eq!(second.inode(FILE).unwrap().dirty, vec![0..12_288]);
    second.finish().unwrap();
    write(&world, &file, 0, b"y");
    assert!(!sealed(&world).is_doubted(FILE), "seen is seen");
}

#[test]
fn what_is_left_out_goes_on_into_the_next_epoch_with_its_names() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 9000);
    write(&world, &file, 4096, b"x");
    let dir = root(&world);
    let both = [&dir, &file];
    let mut guard = world.epochs.change(&both).unwrap();
    let entry = NameEntry {
        id: FILE,
        kind: Kind::File,
    };
    guard.name(&dir, b"f", None);
    guard.name(&dir, b"g", Some(entry));
    drop(guard);
    sealed(&world).finish_without(&[FILE].into()).unwrap();
    let next = sealed(&world);
    assert_eq!(next.inode(FILE).unwrap().dirty, vec![4096..8192]);
    assert_eq!(next.names(), vec![(DIRS[0], b"g".to_vec(), Some(entry))]);
    assert_eq!(next.ids(), vec![FILE]);
}

/// Files that programs change before a scan has come to them are put off by each seal, until it has. It waited for them.
#[test]
fn a_scan_does_not_wait_for_what_only_itself_can_let_be_sealed() {
    let world = World::new(&SMALL);
    let files: Vec<_> = (0..60)
        .map(|n| {
            let file = create(&world, FileId(1000 + n), format!("file {n}").as_bytes());
            if n % 20 == 19 {
                sealed(&world).finish().unwrap();
            }
            file
        })
        .collect();
    world.epochs.expect_scan();
    for file in &files {
        assert!(!world.epochs.is_owing());
        if world.epochs.is_enough_for_a_scan() {
            break;
        }
        write(&world, file, 0, b"changed");
    }
    assert!(world.epochs.is_enough_for_a_scan());
    let first = sealed(&world);
    let put_off = first.ids().into_iter().collect();
    first.finish_without(&put_off).unwrap();
    assert!(!world.epochs.open_size().is_empty());
    assert!(!world.epochs.is_enough_for_a_scan(), "it may go on");

    // When it has looked at them they are sealed, and count again.
    let mut guard = world.epochs.change(&[]).unwrap();
    put_off.iter().for_each(|&id| guard.seen(&node(id)));
    drop(guard);
    sealed(&world).finish().unwrap();
    assert!(world.epochs.open_size().is_empty());
    few(&world);
    assert!(world.epochs.is_enough_for_a_scan());
}

/// Under the limit at which all is dropped, above the one at which a scan waits.
fn few(world: &World) {
    for n in 0..45 {
        create(world, FileId(2000 + n), format!("file {n}").as_bytes());
    }
}

/// What was left out because there was too much to read of it counted as little, and a first backup remembered more of it with each seal.
#[test]
fn a_scan_waits_for_what_any_seal_can_take() {
    let world = World::new(&SMALL);
    world.epochs.expect_scan();
    few(&world);
    let first = sealed(&world);
    let left_out = first.ids().into_iter().collect();
    first.finish_without(&left_out).unwrap();
    assert!(world.epochs.is_enough_for_a_scan());
}
