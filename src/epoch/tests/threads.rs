//! The same with real threads that get in each other's way: writers that never stop, and one flusher.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fake::{ROOMY, TIGHT, World};
use super::flusher::{Capture, Flusher};
use super::operations::{Request, run};
use crate::epoch::{CaptureError, Options};

/// No commit takes this long, on any machine; if one does there will be none.
const COMMIT_MAX: Duration = Duration::from_secs(120);
/// Steps of a capture after one of which, on average, the writers come in, if they do not run beside it anyway. On a machine with one core
/// each time costs as many slices of it as there are writers.
const YIELD_EVERY: u32 = 16;

/// Writers and a flusher until enough commits are made.
fn play(options: &Options, commits_wanted: u32, seed: u64) -> World {
    let world = World::new(options);
    let stop = AtomicBool::new(false);
    let commits = AtomicU32::new(0);
    thread::scope(|scope| {
        for writer in 0..3 {
            let (world, stop) = (&world, &stop);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed * 100 + writer);
                while !stop.load(Ordering::SeqCst) {
                    run(world, &Request::random(world, &mut rng));
                }
            });
        }
        let flusher = scope.spawn(|| flush(&world, &commits, commits_wanted, seed));
        let done = flusher.join();
        stop.store(true, Ordering::SeqCst);
        done.unwrap();
    });
    world
}

fn flush(world: &World, commits: &AtomicU32, wanted: u32, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut flusher = Flusher::new(world);
    let mut until = Instant::now() + COMMIT_MAX;
    while commits.load(Ordering::SeqCst) < wanted {
        assert!(Instant::now() < until, "no progress");
        world
            .epochs
            .wait_dirty(rng.random_range(0..64 << 10), Duration::from_millis(20));
        for copy in world.epochs.copy_ahead_batch(2, 64 << 10) {
            flusher.copy(copy, &mut rng);
        }
        let Some(sealed) = world.epochs.seal() else {
            continue;
        };
        let mut capture = flusher.begin(sealed, &mut rng);
        if capture_all(&mut capture, &mut rng) && flusher.finish(capture, world) {
            commits.fetch_add(1, Ordering::SeqCst);
            until = Instant::now() + COMMIT_MAX;
        }
    }
}

fn capture_all(capture: &mut Capture, rng: &mut StdRng) -> bool {
    while capture.next_id().is_some() {
        if rng.random_range(0..10) == 0 {
            capture.want_more(rng);
        }
        match capture.step(rng) {
            Ok(()) => {}
            Err(CaptureError::Folded) => return false,
            Err(error) => panic!("{error}"),
        }
        if rng.random_range(0..YIELD_EVERY) == 0 {
            thread::yield_now();
        }
    }
    true
}

#[test]
fn commits_are_exact_under_full_write_load() {
    let world = play(&ROOMY, 60, 1);
    assert!(world.epochs.counters().preserved_bytes > 0);
}

#[test]
fn commits_are_exact_and_come_even_when_nothing_fits() {
    let world = play(&TIGHT, 20, 2);
    assert_eq!(world.epochs.descriptors.used(), 0, "descriptors come back");
    let world = play(
        &Options {
            preserve_bytes: 0,
            kept_files: 0,
            changes_bytes: 64 << 20,
        },
        10,
        3,
    );
    // Whether epochs had to be folded depends on who was faster; the result does not.
    assert_eq!(world.epochs.buffer.used(), 0, "room comes back");
}
