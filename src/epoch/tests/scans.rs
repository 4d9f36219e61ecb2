//! What a scan under way must not miss of what programs do meanwhile.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::fake::{DIRS, Effect, ROOMY, World, node};
use super::steps::{FILE, create};
use crate::epoch::Options;
use crate::format::entry::{Kind, NameEntry};
use crate::id::FileId;

/// Long enough for a scan to end that waits for nobody.
const A_WHILE: Duration = Duration::from_millis(200);

/// A program moved a directory that no commit knew from where the scan had not been to where it had. The scan found nothing more to look
/// at and ended, and only then did the request tell what it had moved: nobody listened any more. The next exact snapshot had the
/// directory, and nothing of what was in it. A scan now ends only when the requests that began before have said what they did.
#[test]
fn a_scan_ends_only_when_it_has_been_told_what_was_moved_before() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    let dirs = [DIRS[0], DIRS[1]].map(|id| world.epochs.inode(&node(id)));
    world.epochs.watch_moves();
    let touched = [&dirs[0], &dirs[1], &file];
    let mut guard = world.epochs.change(&touched).unwrap();
    let effect = Effect::Rename {
        from: (DIRS[0], b"f".to_vec()),
        to: (DIRS[1], b"f".to_vec()),
    };
    world.source.apply(guard.epoch(), effect);
    let (ended, told) = channel();
    thread::scope(|scope| {
        scope.spawn(|| ended.send(world.epochs.take_moved(true)).unwrap());
        let early = told.recv_timeout(A_WHILE);
        let (id, kind) = (FILE, Kind::File);
        guard.name(&dirs[0], b"f", None);
        guard.name(&dirs[1], b"f", Some(NameEntry { id, kind }));
        drop(guard);
        assert_eq!(early, Err(RecvTimeoutError::Timeout));
        assert_eq!(told.recv().unwrap(), Some(vec![node(FILE)]));
    });
}

/// A set that had become too large was first owed and then dropped, which takes long. The scan that pays for it was woken meanwhile; what
/// it marked in that time was dropped with the rest, though it counted as looked at, and was missing in the exact snapshot that
/// followed. A scan is now owed when nothing of the set is left to be dropped.
#[test]
fn nobody_is_told_to_scan_before_the_set_is_dropped() {
    const SHARDS: u64 = 64;
    let world = World::new(&Options {
        changes_bytes: 16 << 10,
        ..ROOMY
    });
    let set = world.epochs.set(world.epochs.current());
    set.coarsen();
    thread::scope(|scope| {
        // The last of it cannot be dropped yet.
        let last = set.shard(FileId(SHARDS - 1));
        let crowd = scope.spawn(|| {
            let others = (1000..).filter(|id| id % SHARDS != SHARDS - 1);
            for id in others.take(200) {
                create(&world, FileId(id), format!("crowd {id}").as_bytes());
            }
        });
        while !set.is_forgetful() {
            assert!(!crowd.is_finished(), "it never becomes too much");
            thread::yield_now();
        }
        let early = world.epochs.is_owing();
        drop(last);
        crowd.join().unwrap();
        assert!(!early);
    });
    assert!(world.epochs.is_owing());
}
