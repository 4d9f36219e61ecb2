//! Nobody waits for the store: a sealed epoch lies in the hands of a flusher that does not come back, and programs go on.
//!
//! Three epochs in a row had been folded because of their writers. The next one waited for its own pages, that is for the
//! flusher, which waited for a store that had gone: a truncate hung until the network was back.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::fake::{Effect, ROOMY, TIGHT, World};
use super::steps::{FILE, create, sealed, write};
use crate::epoch::patience::{OWN_PAGES_WAIT_MAX, STALLED_AFTER};
use crate::epoch::{CaptureError, LiveInode, Sealed};

/// Long enough for the slowest machine, short enough to be no waiting for a store.
const LONG: Duration = Duration::from_secs(60);
/// More than one truncate may preserve.
const LARGE: usize = 17 << 20;

fn cut(world: &World, file: &Arc<LiveInode>) {
    let files = [file];
    let mut guard = world.epochs.change(&files).unwrap();
    guard.resize(file, LARGE as u64, 0).unwrap();
    let effect = Effect::Truncate { id: FILE, len: 0 };
    world.source.apply(guard.epoch(), effect);
}

/// Three epochs folded by writers in a row.
fn fold_thrice(world: &World, file: &Arc<LiveInode>) {
    for _ in 0..3 {
        let given_up = sealed(world);
        cut(world, file);
        assert!(given_up.is_folded());
        drop(given_up);
        write(world, file, 0, &vec![3; LARGE]);
    }
}

/// Runs a request while nobody takes anything out of the sealed epoch.
fn run_beside(stuck: Sealed, request: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let (done, wait) = mpsc::channel();
        scope.spawn(move || {
            request();
            done.send(()).unwrap();
        });
        let late = wait.recv_timeout(LONG).is_err();
        let folded = stuck.is_folded();
        // Lets a request that hangs go, so that the test can fail.
        drop(stuck);
        assert!(!late, "a request waits for a flusher that does not move");
        assert!(folded, "what was needed is gone, so the epoch must be");
    });
}

#[test]
fn a_truncate_does_not_wait_for_a_flusher_that_waits_itself() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &vec![3; LARGE]);
    fold_thrice(&world, &file);
    run_beside(sealed(&world), || cut(&world, &file));
}

#[test]
fn a_write_does_not_wait_for_a_flusher_that_waits_itself() {
    let world = World::new(&TIGHT);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &vec![3; LARGE]);
    fold_thrice(&world, &file);
    run_beside(sealed(&world), || write(&world, &file, 0, &[4; 3 * 4096]));
}

/// A flusher that does get on is waited for: else writers that never stop would see to it that there is never a commit.
#[test]
fn a_flusher_that_moves_is_waited_for() {
    let world = World::new(&ROOMY);
    let file = create(&world, FILE, b"f");
    write(&world, &file, 0, &vec![3; LARGE]);
    fold_thrice(&world, &file);
    loop {
        let taken = sealed(&world);
        let (all, still) = thread::scope(|scope| {
            let begun = Instant::now();
            scope.spawn(|| cut(&world, &file));
            let still = take_all(&taken, begun);
            (begun.elapsed(), still)
        });
        if taken.finish().is_ok() {
            break;
        }
        // The machine has kept this thread from moving for so long that a writer may no longer wait for it. Then it is no such flusher.
        // Twice, since what a writer sees from one piece to the next may lie in two of the stretches that are measured here.
        assert!(
            2 * still >= STALLED_AFTER || all >= OWN_PAGES_WAIT_MAX,
            "given up after {all:?}, of which it stood still for {still:?} at most"
        );
        write(&world, &file, 0, &vec![3; LARGE]);
    }
}

/// Takes the file piece by piece as long as the epoch is not folded; the longest that one took, the first since `begun`.
fn take_all(taken: &Sealed, begun: Instant) -> Duration {
    let (mut at, mut longest, mut before) = (0, Duration::ZERO, begun);
    while at < LARGE as u64 {
        let bytes = match taken.take(FILE, at..at + (1 << 20)) {
            Err(CaptureError::Folded) => Default::default(),
            bytes => bytes.unwrap(),
        };
        longest = longest.max(before.elapsed());
        before = Instant::now();
        if bytes.is_empty() {
            break;
        }
        assert!(bytes.iter().all(|&byte| byte == 3));
        at += bytes.len() as u64;
    }
    longest
}
