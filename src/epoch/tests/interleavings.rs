//! Random schedules in one thread: requests are stopped between their lock and their system call, between two halves of a write
//! and before their guard is told, while epochs are sealed, captured, copied ahead and folded around them. What fails, fails
//! again with the same seed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fake::{ROOMY, TIGHT, World};
use super::flusher::{Capture, Flusher};
use super::operations::{Request, Running};
use crate::epoch::{CaptureError, Epochs, LiveInode, Options};
use crate::id::{EpochNo, FileId};

/// How an unfinished request holds inodes.
struct Actor {
    running: Running<'static>,
    epoch: EpochNo,
    shared: bool,
    ids: Vec<FileId>,
}

struct Schedule {
    world: &'static World,
    rng: StdRng,
    actors: Vec<Actor>,
    draining: Option<EpochNo>,
    capture: Option<Capture>,
    flusher: Flusher,
    commits: u32,
}

impl Schedule {
    fn holders(&self) -> HashMap<FileId, (bool, EpochNo)> {
        let each = self.actors.iter();
        each.flat_map(|a| a.ids.iter().map(move |id| (*id, (a.shared, a.epoch))))
            .collect()
    }

    /// Begins a request if it would not have to wait for another one (which this thread would wait for in vain).
    fn begin(&mut self) {
        let request = Request::random(self.world, &mut self.rng);
        // Leaked, since guards borrow them and a test is short. Now and then not even the table has them before.
        let inodes: &'static Vec<Arc<LiveInode>> = Box::leak(Box::new(request.inodes(self.world)));
        let refs: &'static Vec<&Arc<LiveInode>> = Box::leak(Box::new(inodes.iter().collect()));
        let holders = self.holders();
        let shared = matches!(request, Request::Write { .. });
        let epochs: &Epochs = &self.world.epochs;
        let now = epochs.current();
        if self.would_wait(inodes) {
            return;
        }
        for inode in inodes {
            let Some((other_shared, _)) = holders.get(&inode.id()) else {
                continue;
            };
            let Request::Write { at, len, .. } = request else {
                return;
            };
            let beside = *other_shared
                && inode.is_in(now)
                && !epochs.sealed_needs(inode, &(at..at + len), now);
            if !beside {
                return;
            }
        }
        if let Some(running) = request.begin(self.world, refs) {
            let epoch = running.guard.epoch();
            let ids = inodes.iter().map(|inode| inode.id()).collect();
            self.actors.push(Actor {
                running,
                epoch,
                shared,
                ids,
            });
        }
    }

    /// Whether a request would wait for the flusher, which is this thread.
    fn would_wait(&self, inodes: &[Arc<LiveInode>]) -> bool {
        let epochs = &self.world.epochs;
        let patient = epochs.tally.folds_in_a_row.load(Ordering::SeqCst) >= 3;
        let needed = |i: &Arc<LiveInode>| epochs.sealed_needs(i, &(0..u64::MAX), epochs.current());
        patient && inodes.iter().any(needed)
    }

    fn step(&mut self) {
        match self.rng.random_range(0..20) {
            0..=5 if self.actors.len() < 4 => self.begin(),
            6..=12 => self.advance(),
            13 => self.seal(),
            14 => self.copy_ahead(),
            _ => self.capture_some(),
        }
    }

    fn advance(&mut self) {
        if self.actors.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.actors.len());
        if !self.actors[at].running.step(self.world) {
            self.actors.swap_remove(at);
        }
    }

    fn seal(&mut self) {
        if self.draining.is_none() && self.capture.is_none() {
            self.draining = self.world.epochs.begin_seal();
        }
    }

    fn copy_ahead(&mut self) {
        let files = self.rng.random_range(1..4);
        if self.draining.is_some() || !self.actors.is_empty() {
            return;
        }
        for copy in self.world.epochs.copy_ahead_batch(files, 12_288) {
            assert!(
                self.world.epochs.begin_seal().is_none(),
                "no seal during a copy"
            );
            // A write may come while it is read.
            let request = Request::random(self.world, &mut self.rng);
            if !self.would_wait(&request.inodes(self.world)) {
                super::operations::run(self.world, &request);
            }
            self.flusher.copy(copy, &mut self.rng);
        }
    }

    fn capture_some(&mut self) {
        if let Some(epoch) = self.draining {
            if self.actors.iter().all(|actor| actor.epoch != epoch) {
                let sealed = self.world.epochs.end_seal(epoch);
                self.capture = Some(self.flusher.begin(sealed, &mut self.rng));
                self.draining = None;
            }
            return;
        }
        let holders = self.holders();
        let Some(mut capture) = self.capture.take() else {
            return;
        };
        let Some(id) = capture.next_id() else {
            self.commits += u32::from(self.flusher.finish(capture, self.world));
            return;
        };
        match self.rng.random_range(0..60) {
            // Dropped unfinished.
            0 => return,
            1..=5 if self.actors.is_empty() => capture.want_more(&mut self.rng),
            // Its lock would have to be waited for.
            _ if holders.get(&id).is_some_and(|(shared, _)| !shared) => capture.postpone(),
            _ => match capture.step(&mut self.rng) {
                Ok(()) => {}
                Err(CaptureError::Folded) => return,
                Err(error) => panic!("{error}"),
            },
        }
        self.capture = Some(capture);
    }
}

fn play(seed: u64, steps: usize, options: &Options) -> (u32, u64, u64) {
    let world: &'static World = Box::leak(Box::new(World::new(options)));
    let mut schedule = Schedule {
        world,
        rng: StdRng::seed_from_u64(seed),
        actors: Vec::new(),
        draining: None,
        capture: None,
        flusher: Flusher::new(world),
        commits: 0,
    };
    let told = Told(seed);
    for _ in 0..steps {
        schedule.step();
    }
    std::mem::forget(told);
    let counters = world.epochs.counters();
    (schedule.commits, counters.preserved_bytes, counters.folds)
}

/// Names the seed when a schedule fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("seed {}\n", self.0))
            .unwrap();
    }
}

#[test]
fn every_commit_is_the_source_at_its_seal() {
    let (mut commits, mut preserved) = (0, 0);
    for seed in 0..150 {
        let (more, bytes, _) = play(seed, 3_000, &ROOMY);
        commits += more;
        preserved += bytes;
    }
    assert!(commits > 1_000, "only {commits} commits");
    assert!(preserved > 1 << 20, "only {preserved} bytes preserved");
}

#[test]
fn folds_lose_nothing() {
    let mut folds = 0;
    let mut commits = 0;
    for seed in 1_000..1_020 {
        // Nothing can be preserved but attributes, so writers fold; the third fold in a row is the last, so few steps.
        let (more, _, folded) = play(
            seed,
            400,
            &Options {
                preserve_bytes: 0,
                kept_files: 1,
                changes_bytes: 64 << 20,
            },
        );
        commits += more;
        folds += folded;
    }
    assert!(folds > 20, "only {folds} folds");
    assert!(commits > 20, "only {commits} commits");
}

#[test]
fn a_tight_buffer_is_enough_for_the_right_result() {
    let commits: u32 = (2_000..2_010).map(|seed| play(seed, 300, &TIGHT).0).sum();
    assert!(commits > 5, "only {commits} commits");
}
