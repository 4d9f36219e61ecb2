//! Single cases, step by step.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fake::{DIRS, Effect, ROOMY, World, node, read_ahead};
use crate::epoch::{CaptureError, LiveInode, Options, Sealed};
use crate::format::entry::{Kind, NameEntry};
use crate::id::FileId;
use crate::journal::{Journal, LOGICAL_BLOCK_LEN, LastStop, LogicalBlock, WHOLE_FILE};

pub(super) const FILE: FileId = FileId(50);
const MIB: u64 = 1 << 20;

fn entry(id: FileId) -> NameEntry {
    NameEntry {
        id,
        kind: Kind::File,
    }
}

/// Creates a file through the epochs, as the mount does.
pub(super) fn create(world: &World, id: FileId, name: &[u8]) -> Arc<LiveInode> {
    let dir = world.epochs.inode(&node(DIRS[0]));
    let file = world.epochs.inode(&node(id));
    let dirs = [&dir];
    let mut guard = world.epochs.change(&dirs).unwrap();
    let effect = Effect::Create {
        dir: DIRS[0],
        name: name.to_vec(),
        id,
    };
    world.source.apply(guard.epoch(), effect);
    guard.created(&file);
    guard.name(&dir, name, Some(entry(id)));
    file
}

pub(super) fn write(world: &World, file: &Arc<LiveInode>, at: u64, bytes: &[u8]) {
    let guard = world
        .epochs
        .write(file, at..at + bytes.len() as u64)
        .unwrap();
    let effect = Effect::Write {
        id: file.id(),
        at,
        bytes: bytes.to_vec(),
    };
    world.source.apply(guard.epoch(), effect);
}

pub(super) fn unlink(world: &World, file: &Arc<LiveInode>, name: &[u8]) {
    let dir = world.epochs.inode(&node(DIRS[0]));
    let both = [&dir, file];
    let mut guard = world.epochs.change(&both).unwrap();
    guard.unlinking(file).unwrap();
    let effect = Effect::Unlink {
        dir: DIRS[0],
        name: name.to_vec(),
    };
    world.source.apply(guard.epoch(), effect);
    guard.name(&dir, name, None);
}

/// A file of `len` bytes that the last commit has.
pub(super) fn committed(world: &World, len: usize) -> Arc<LiveInode> {
    let file = create(world, FILE, b"f");
    write(world, &file, 0, &vec![1; len]);
    world.epochs.seal().unwrap().finish().unwrap();
    file
}

/// The records that a process killed now would leave: those in the files of the journal.
fn left_by_a_kill(world: &World) -> Vec<(FileId, LogicalBlock)> {
    let copy = tempfile::tempdir().unwrap();
    let mut dirs = vec![world.dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let to = copy
                .path()
                .join(path.strip_prefix(world.dir.path()).unwrap());
            if path.is_dir() {
                fs::create_dir(to).unwrap();
                dirs.push(path);
            } else {
                fs::copy(path, to).unwrap();
            }
        }
    }
    let (journal, stop) = Journal::open(copy.path()).unwrap();
    assert_eq!(stop, LastStop::Crashed);
    let records = journal.records().unwrap();
    records
        .into_iter()
        .map(|(id, block, _)| (id, block))
        .collect()
}

/// The second of two writers of a block was let go while the first was still flushing the record of both.
#[test]
fn no_writer_goes_on_before_the_kernel_has_the_record_whoever_made_it() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 10);
    // The first writer stands between its record and the flush.
    let epoch = world.epochs.change(&[]).unwrap().epoch();
    world.journal.record(FILE, 1, epoch).unwrap();
    assert_eq!(left_by_a_kill(&world), []);
    let range = LOGICAL_BLOCK_LEN..LOGICAL_BLOCK_LEN + 5;
    let _second = world.epochs.write(&file, range).unwrap();
    assert_eq!(left_by_a_kill(&world), [(FILE, 1)]);
}

pub(super) fn sealed(world: &World) -> Sealed {
    world.epochs.seal().unwrap()
}

#[test]
fn without_changes_there_is_nothing_to_seal() {
    let world = World::new(&ROOMY);
    assert!(world.epochs.seal().is_none());
    committed(&world, 10);
    assert!(world.epochs.seal().is_none());
}

#[test]
fn only_one_epoch_is_sealed_at_a_time() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    let first = sealed(&world);
    write(&world, &file, 0, b"x");
    assert!(world.epochs.seal().is_none());
    first.finish().unwrap();
    assert!(world.epochs.seal().is_some());
}

#[test]
fn a_file_made_and_removed_in_one_epoch_leaves_only_its_directory() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"tmp");
    write(&world, &file, 0, &[7; 9000]);
    unlink(&world, &file, b"tmp");
    let size = world.epochs.open_size();
    assert_eq!((size.bytes, size.inodes, size.names), (0, 1, 0));
    let sealed = sealed(&world);
    assert!(sealed.names().is_empty());
    assert_eq!(sealed.ids(), vec![DIRS[0]]);
}

#[test]
fn removing_a_committed_name_and_making_it_again_leaves_the_new_one() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 10);
    unlink(&world, &file, b"f");
    let again = create(&world, FileId(51), b"f");
    unlink(&world, &again, b"f");
    assert_eq!(sealed(&world).names(), vec![(DIRS[0], b"f".to_vec(), None)]);
}

#[test]
fn a_name_that_the_last_commit_has_leaves_a_tombstone_even_if_it_seemed_new() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    let dir = world.epochs.inode(&node(DIRS[0]));
    let dirs = [&dir];
    world.epochs.change(&dirs).unwrap().known_name(&dir, b"f");
    unlink(&world, &file, b"f");
    assert_eq!(sealed(&world).names(), vec![(DIRS[0], b"f".to_vec(), None)]);
}

#[test]
fn an_unlinked_file_stays_readable_within_and_beyond_the_descriptors() {
    for kept_files in [1, 0] {
        let world = World::new(&Options {
            kept_files,
            ..ROOMY
        });
        let file = create(&world, FILE, b"f");
        write(&world, &file, 0, &[9; 5000]);
        let sealed = sealed(&world);
        unlink(&world, &file, b"f");
        // Other files have been read since.
        world.epochs.readers.clear();
        assert_eq!(sealed.attributes(FILE).unwrap().unwrap().stat.size, 5000);
        assert_eq!(sealed.take(FILE, 0..8192).unwrap(), vec![9; 5000]);
        sealed.finish().unwrap();
        assert_eq!(
            world.epochs.descriptors.used() + world.epochs.buffer.used(),
            0
        );
    }
}

#[test]
fn an_inode_without_names_at_the_seal_is_gone() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 5000);
    write(&world, &file, 0, b"more");
    unlink(&world, &file, b"f");
    let sealed = sealed(&world);
    assert_eq!(sealed.attributes(FILE).unwrap(), None);
    assert!(sealed.take(FILE, 0..4096).unwrap().is_empty());
}

#[test]
fn cutting_off_more_than_can_be_copied_folds_at_once() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &vec![3; 17 << 20]);
    let sealed = sealed(&world);
    let files = [&file];
    let mut guard = world.epochs.change(&files).unwrap();
    guard.resize(&file, 17 << 20, 0).unwrap();
    world
        .source
        .apply(guard.epoch(), Effect::Truncate { id: FILE, len: 0 });
    drop(guard);
    assert!(sealed.is_folded());
    assert!(matches!(
        sealed.take(FILE, 0..MIB),
        Err(CaptureError::Folded)
    ));
    assert!(sealed.finish().is_err());
    let counters = world.epochs.counters();
    // Nothing was copied first, and nobody was waited for: this thread is the only one that could take anything.
    assert_eq!((counters.folds, counters.preserved_bytes), (1, 0));
    let again = world.epochs.seal().unwrap();
    let inode = again.inode(FILE).unwrap();
    assert!(inode.fresh);
    assert_eq!(inode.dirty, vec![0..17 << 20]);
    assert!(again.take(FILE, 0..MIB).unwrap().is_empty());
    assert_eq!(again.names().len(), 1);
}

#[test]
fn a_sealed_epoch_that_is_dropped_comes_back() {
    let world = World::new(&ROOMY);
    create(&world, FILE, b"f");
    let before = world.epochs.open_size();
    drop(sealed(&world));
    assert_eq!(world.epochs.open_size(), before);
}

#[test]
fn a_finished_epoch_cannot_be_folded_any_more() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &vec![3; 17 << 20]);
    sealed(&world).finish().unwrap();
    let files = [&file];
    let mut guard = world.epochs.change(&files).unwrap();
    guard.resize(&file, 17 << 20, 0).unwrap();
    assert_eq!(world.epochs.counters().folds, 0);
}

#[test]
fn a_source_that_cannot_be_read_folds_instead_of_failing_the_write() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &[3; 5000]);
    let sealed = sealed(&world);
    world.source.broken.store(true, Ordering::SeqCst);
    write(&world, &file, 0, b"x");
    world.source.broken.store(false, Ordering::SeqCst);
    assert!(sealed.is_folded());
    drop(sealed);
    let again = world.epochs.seal().unwrap();
    assert_eq!(again.take(FILE, 0..4096).unwrap()[..2], *b"x\x03");
}

/// A program went on writing to a file that the daemon may not read. Every write folded the sealed epoch, without end: no
/// snapshot was ever made again, and status said nothing. The same where it was for a reason that is on no list.
#[test]
fn a_file_that_cannot_be_read_is_refused_and_folds_nothing() {
    for errno in [libc::EACCES, libc::EIO, libc::ENOKEY, libc::ENODATA] {
        is_refused_and_folds_nothing(errno);
    }
}

fn is_refused_and_folds_nothing(errno: i32) {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &[3; 5000]);
    let sealed = sealed(&world);
    *world.source.denied.lock() = Some((FILE, errno));
    write(&world, &file, 0, b"x");
    write(&world, &file, 4096, b"y");
    assert!(!sealed.is_folded());
    let refused = |error: CaptureError| match error {
        CaptureError::Io { id: FILE, source } => source.raw_os_error(),
        other => panic!("{other}"),
    };
    let denied = Some(errno);
    assert_eq!(refused(sealed.attributes(FILE).unwrap_err()), denied);
    assert_eq!(refused(sealed.take(FILE, 0..4096).unwrap_err()), denied);
    *world.source.denied.lock() = None;
    assert_eq!(refused(sealed.take(FILE, 0..4096).unwrap_err()), denied);
    sealed.finish().unwrap();
    assert_eq!(world.epochs.counters().folds, 0);
    let next = world.epochs.seal().unwrap();
    assert_eq!(next.take(FILE, 0..4096).unwrap()[..2], *b"x\x03");
}

/// A file that was cut while it was copied ahead: its copy is made once more instead of being left to the seal.
#[test]
fn a_copy_can_be_given_back_for_another() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &[3; 9000]);
    let copy = world.epochs.copy_ahead(1 << 20).unwrap();
    read_ahead(&copy, 0..9000);
    copy.give_back_for_another();
    let copy = world.epochs.copy_ahead(1 << 20).unwrap();
    assert_eq!(copy.bytes(), 12_288);
    copy.give_back();
    assert!(world.epochs.copy_ahead(1 << 20).is_none());
    assert_eq!(world.epochs.open_size().bytes, 12_288);
}

#[test]
fn a_failed_read_is_told_and_can_be_tried_again() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &[3; 5000]);
    let sealed = sealed(&world);
    world.source.broken.store(true, Ordering::SeqCst);
    assert!(matches!(
        sealed.attributes(FILE),
        Err(CaptureError::Io { id: FILE, .. })
    ));
    world.source.broken.store(false, Ordering::SeqCst);
    assert_eq!(sealed.take(FILE, 0..8192).unwrap().len(), 5000);
}

#[test]
fn what_was_taken_and_then_changed_cannot_be_taken_again() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &[3; 5000]);
    let sealed = sealed(&world);
    assert_eq!(sealed.take(FILE, 0..8192).unwrap(), vec![3; 5000]);
    // Unchanged so far: the same bytes again.
    assert_eq!(sealed.take(FILE, 0..8192).unwrap(), vec![3; 5000]);
    write(&world, &file, 0, &[4; 5000]);
    assert!(matches!(
        sealed.take(FILE, 0..8192),
        Err(CaptureError::Io { .. })
    ));
    assert!(matches!(
        sealed.take(FileId(99), 0..1),
        Err(CaptureError::Io { .. })
    ));
}

#[test]
fn a_source_shortened_beside_the_mount_is_an_error_not_zeros() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &[3; 9000]);
    let sealed = sealed(&world);
    assert_eq!(sealed.attributes(FILE).unwrap().unwrap().stat.size, 9000);
    world
        .source
        .apply(sealed.epoch(), Effect::Truncate { id: FILE, len: 100 });
    assert!(matches!(
        sealed.take(FILE, 4096..9000),
        Err(CaptureError::Io { .. })
    ));
}

#[test]
fn clean_ranges_are_captured_as_at_the_seal_unless_it_is_too_late() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 5 * 4096);
    write(&world, &file, 0, b"dirty");
    let sealed = sealed(&world);
    let (second, third) = (4096..8192, 8192..12_288);
    assert!(sealed.also_needs(FILE, std::slice::from_ref(&second)));
    write(&world, &file, 4096, &[2; 4096]);
    assert!(!sealed.also_needs(FILE, std::slice::from_ref(&third)));
    assert_eq!(sealed.take(FILE, second).unwrap(), vec![1; 4096]);
}

#[test]
fn holes_are_skipped_but_not_what_was_data_at_the_seal() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &vec![0; 10 * 4096]);
    write(&world, &file, 6 * 4096, &[5; 4096]);
    let sealed = sealed(&world);
    let range = 0..10 * 4096;
    // A hole that is written into later was a hole; data that is punched later was data.
    write(&world, &file, 4096, &[8; 100]);
    write(&world, &file, 6 * 4096, &[0; 4096]);
    let first = sealed.skip_hole(FILE, range.clone()).unwrap();
    assert_eq!(first, 4096);
    assert_eq!(sealed.take(FILE, 4096..8192).unwrap(), vec![0; 4096]);
    assert_eq!(sealed.skip_hole(FILE, 8192..range.end).unwrap(), 6 * 4096);
    assert_eq!(
        sealed.take(FILE, 6 * 4096..7 * 4096).unwrap(),
        vec![5; 4096]
    );
    assert_eq!(
        sealed.skip_hole(FILE, 7 * 4096..range.end).unwrap(),
        range.end
    );
}

#[test]
fn what_is_copied_ahead_is_not_dirty_until_it_is_written_again() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &[1; 3 * 4096]);
    let copy = world.epochs.copy_ahead(8192).unwrap();
    assert_eq!(copy.inode.dirty, vec![0..8192]);
    assert!(copy.inode.fresh);
    assert!(world.epochs.seal().is_none(), "no seal during a copy");
    assert_eq!(read_ahead(&copy, 0..8192), vec![1; 8192]);
    write(&world, &file, 100, b"again");
    drop(copy);
    assert_eq!(
        sealed(&world).inode(FILE).unwrap().dirty,
        vec![0..4096, 8192..12_288]
    );
}

#[test]
fn copies_that_are_given_back_or_not_read_are_dirty_again_and_not_offered_again() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &[1; 8192]);
    world.epochs.copy_ahead(MIB).unwrap().give_back();
    assert!(world.epochs.copy_ahead(MIB).is_none());
    assert_eq!(world.epochs.open_size().bytes, 8192);
    write(&world, &file, 0, b"x");
    let copy = world.epochs.copy_ahead(MIB).unwrap();
    read_ahead(&copy, 0..4096);
    drop(copy);
    assert_eq!(sealed(&world).inode(FILE).unwrap().dirty, vec![4096..8192]);
}

#[test]
fn a_file_that_is_written_over_and_over_is_left_to_the_seal() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    let mut copies = 0;
    for _ in 0..20 {
        write(&world, &file, 0, &vec![1; 4 << 20]);
        let Some(copy) = world.epochs.copy_ahead(1 << 30) else {
            break;
        };
        read_ahead(&copy, 0..4 << 20);
        copies += 1;
    }
    assert!((1..5).contains(&copies), "{copies} copies");
}

#[test]
fn many_small_files_are_offered_at_once() {
    let world = World::new(&ROOMY);
    for number in 0..1000u64 {
        let file = create(&world, FileId(1000 + number), &number.to_le_bytes());
        write(&world, &file, 0, b"small");
    }
    let mut copied = 0;
    loop {
        let batch = world.epochs.copy_ahead_batch(300, MIB);
        if batch.is_empty() {
            break;
        }
        assert!(batch.len() <= 256, "at most a MiB of pages");
        for copy in batch {
            assert_eq!(read_ahead(&copy, 0..4096), &b"small"[..]);
            copied += 1;
        }
    }
    assert_eq!(copied, 1000);
    assert_eq!(world.epochs.open_size().bytes, 0);
    assert_eq!(sealed(&world).inodes().len(), 1001);
}

#[test]
fn existing_files_are_noted_in_the_journal_and_new_ones_are_not() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, b"new");
    assert!(world.journal.records().unwrap().is_empty());
    sealed(&world).finish().unwrap();
    write(&world, &file, 3, b"more");
    let epoch = world.epochs.current();
    assert_eq!(world.journal.records().unwrap(), vec![(FILE, 0, epoch)]);
    assert!(world.journal.owes(FILE));
    let files = [&file];
    let mut guard = world.epochs.change(&files).unwrap();
    guard.dirty(&file, 0..1 << 60).unwrap();
    drop(guard);
    assert_eq!(
        world.journal.records().unwrap()[1],
        (FILE, WHOLE_FILE, epoch)
    );
}

fn emptied(world: &World, file: &Arc<LiveInode>) {
    let files = [file];
    let mut guard = world.epochs.change(&files).unwrap();
    guard.emptied(file);
}

/// Bytes that reached the disk before their times did, in a file of which no record had got there: after a power cut it looked like the
/// commit that it differed from.
#[test]
fn nothing_is_written_in_place_before_the_disk_has_a_record_of_it() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 10_000);
    let owes = || world.journal.owes(FILE);
    drop(world.epochs.write(&file, 10_000..20_000).unwrap());
    assert!(owes(), "nothing was there");
    drop(world.epochs.write(&file, 9_999..20_000).unwrap());
    assert!(!owes(), "a byte was there");

    let cut = |from, to| {
        sealed(&world).finish().unwrap();
        world.journal.forget(world.epochs.current()).unwrap();
        let files = [&file];
        let mut guard = world.epochs.change(&files).unwrap();
        guard.resize(&file, from, to).unwrap();
    };
    cut(10_000, 8000);
    assert!(!owes(), "the rest of a page becomes zeros");
    cut(8000, 9000);
    assert!(owes(), "what is gained is a hole");
    cut(9000, 0);
    emptied(&world, &file);
    drop(world.epochs.write(&file, 0..10).unwrap());
    drop(world.epochs.write(&file, 5..10).unwrap());
    assert!(owes(), "what the commit has is gone from the file");
}

#[test]
fn a_record_forgotten_in_between_is_made_again_before_the_write() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 10_000);
    world.epochs.forewarn(file.node(), &(0..10));
    assert!(world.journal.is_on_disk(FILE, 0, world.epochs.current()));
    world.journal.forget(world.epochs.current()).unwrap();
    let files = [&file];
    let mut guard = world.epochs.change(&files).unwrap();
    guard.dirty(&file, 0..10).unwrap();
    assert!(world.journal.is_on_disk(FILE, 0, world.epochs.current()));
}

#[test]
fn the_flusher_sleeps_until_there_is_enough() {
    let world = World::new(&ROOMY);
    let long = Duration::from_secs(60);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| world.epochs.wait_dirty(8192, long));
        let file = create(&world, FILE, b"f");
        write(&world, &file, 0, &[1; 9000]);
        assert!(sleeper.join().unwrap().bytes >= 8192);
        let sleeper = scope.spawn(|| world.epochs.wait_dirty(1 << 40, long));
        world.epochs.wake();
        sleeper.join().unwrap();
    });
    assert!(world.epochs.wait_dirty(0, long).inodes > 0);
    assert!(began.elapsed() < long);
}

#[test]
fn a_live_inode_is_one_object_while_held_and_may_be_dropped_at_any_time() {
    let world = World::new(&ROOMY);
    let file = committed(&world, 8192);
    assert!(Arc::ptr_eq(&file, &world.epochs.inode(&node(FILE))));
    write(&world, &file, 0, &[2; 4096]);
    drop(file);
    let sealed = sealed(&world);
    for fill in [3, 4] {
        // Each time a new object that knows nothing.
        let file = world.epochs.inode(&node(FILE));
        write(&world, &file, 0, &[fill; 4096]);
    }
    assert_eq!(sealed.take(FILE, 0..4096).unwrap(), vec![2; 4096]);
}
