//! The process killed under load, at every place of the pipeline that has a failpoint and at any instant: every mount that follows
//! works unaided, nothing that reached the source is missing, no commit is torn. `scripts/crash-loop` runs it for as long as asked.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rewindfs::failpoint::Point;

use crate::life::Life;
use crate::load::{Load, Written};
use crate::proof::Proof;
use crate::wait;
use crate::world::{World, can_mount};

/// Kills at random instants when nobody asks for more.
const KILLS: usize = 8;
/// Reading all that is in the repository takes longer than dying: done after so many deaths, and in a long run after each.
const THOROUGH_EVERY: usize = 8;
/// A process that does not come to its failpoint within this never will.
const FAILPOINT_MAX: Duration = Duration::from_secs(300);
/// The longest that a process lives before it is killed.
const LIFE_MAX: Duration = Duration::from_millis(1500);
/// Seals as often as can be: every seal goes through all the places.
const OFTEN: &[&str] = &["--interval", "100ms"];

/// What is killed, again and again, and what is known of it.
struct Victim {
    world: World,
    proof: Proof,
    random: StdRng,
    seed: u64,
    deaths: usize,
    kills: usize,
}

impl Victim {
    fn new() -> Self {
        let seed = seed();
        let world = World::new();
        world.init();
        Self {
            world,
            proof: Proof::new(),
            random: StdRng::seed_from_u64(seed),
            seed,
            deaths: 0,
            kills: 0,
        }
    }

    /// One life under load, ended by `end`, and the proof that nothing is lost.
    fn live_and_die(
        &mut self,
        failpoint: Option<&str>,
        end: impl FnOnce(&mut Self, &mut Life, Load) -> Vec<Written>,
        what: &str,
    ) {
        let mut life = Life::begin(&self.world, OFTEN, failpoint);
        let load = Load::begin(&self.world.source(), self.random.random());
        let written = end(self, &mut life, load);
        assert!(life.ended().is_some(), "{what}: it goes on living");
        self.kills += 1;

        let what = format!("seed {}, kill {}, {what}", self.seed, self.kills);
        let mut life = Life::begin(&self.world, OFTEN, None);
        for written in written {
            written.must_have_been_cut_off();
            written.check();
        }
        self.proof.after_death(&self.world, &what);
        self.deaths += 1;
        if asked_for().is_some() || self.deaths.is_multiple_of(THOROUGH_EVERY) {
            self.prove_all(&what);
        }
        // Killed as well, so that the next life, too, begins after a death.
        life.kill();
        self.kills += 1;
    }

    fn prove_all(&mut self, what: &str) {
        self.proof.of_all(&self.world, &mut self.random, what);
    }

    fn at_any_instant(&mut self) {
        let after = self.random.random_range(Duration::ZERO..LIFE_MAX);
        let end = |_: &mut Self, life: &mut Life, load: Load| {
            wait::let_pass(after);
            life.kill();
            load.end()
        };
        self.live_and_die(None, end, &format!("after {after:?} of load"));
    }

    fn at(&mut self, point: Point, time: u64) {
        let place = format!("{}:{time}", point.name());
        let end = |victim: &mut Self, life: &mut Life, load| victim.come_to(point, life, load);
        self.live_and_die(Some(&place), end, &place);
    }

    /// Does what makes the process come to `point`.
    fn come_to(&mut self, point: Point, life: &mut Life, load: Load) -> Vec<Written> {
        let source = self.world.source();
        let mut load = Some(load);
        let mut written = Vec::new();
        match point {
            // Only what is larger than what a seal should hold is copied ahead of it.
            Point::CopyAhead | Point::UploadAhead => {
                let large = source.join("large");
                // Cut off in the middle.
                std::fs::write(large, vec![self.random.random(); 300 << 20]).ok();
            }
            // The source is made safe at the end, and only then may the journal forget.
            Point::Forget | Point::Forgotten => {
                written.extend(load.take().map(Load::end).into_iter().flatten());
                self.world.try_run(["umount".as_ref(), source.as_os_str()]);
            }
            _ => {}
        }
        let ended = life.ends_within(FAILPOINT_MAX);
        assert!(
            ended.is_some(),
            "seed {}: never came to {point:?}",
            self.seed
        );
        written.extend(load.map(Load::end).into_iter().flatten());
        written
    }
}

/// What is random when nobody asks for another: the same each time, so that what fails where nothing was changed is a matter of timing.
/// The long runs ask for others.
const SEED: u64 = 20;

/// Asked for by the environment; said aloud.
pub(crate) fn seed() -> u64 {
    let asked = std::env::var("REWINDFS_TEST_SEED").ok();
    let seed = asked.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(SEED);
    eprintln!("REWINDFS_TEST_SEED={seed}");
    seed
}

/// How long `scripts/crash-loop` wants it to go on.
fn asked_for() -> Option<Duration> {
    let seconds = std::env::var("REWINDFS_CRASH_SECONDS").ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[test]
fn killed_at_every_step_up_to_the_capture_it_loses_nothing() {
    let test = "killed_at_every_step_up_to_the_capture_it_loses_nothing";
    at_each(test, &Point::ALL[..Point::ALL.len() / 2]);
}

#[test]
fn killed_at_every_step_from_the_capture_on_it_loses_nothing() {
    let test = "killed_at_every_step_from_the_capture_on_it_loses_nothing";
    at_each(test, &Point::ALL[Point::ALL.len() / 2..]);
}

fn at_each(test: &str, points: &[Point]) {
    if !can_mount(test) {
        return;
    }
    let mut victim = Victim::new();
    for &point in points {
        victim.at(point, 1);
    }
    victim.prove_all("in the end");
}

#[test]
fn killed_at_any_instant_it_loses_nothing() {
    if !can_mount("killed_at_any_instant_it_loses_nothing") {
        return;
    }
    let mut victim = Victim::new();
    let began = Instant::now();
    let asked = asked_for();
    let mut rounds = 0;
    while asked.map_or(rounds < KILLS, |asked| began.elapsed() < asked) {
        victim.at_any_instant();
        rounds += 1;
    }
    victim.prove_all("in the end");
    eprintln!("{} kills", victim.kills);
}
