//! A whole life of a mount, the first of its volume, on a wire on which each n-th request fails, and on one on which the n-th alone does: mounted,
//! written, a snapshot, written again, unmounted; then the repository is whole, and what is restored is the source. For every n, until n is more
//! than there are requests in such a life, by `scripts/wire-faults`; the short form takes the first few and some that a seed chooses.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::Method;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::away::NEVER;
use crate::outage::assert_same;
use crate::processes::run;
use crate::s3_server::{Fault, Rule, S3Server};
use crate::sample::noise;
use crate::wire::{Mishap, Wire};
use crate::world::{World, can_mount};

/// Lives that are led side by side: most of the time each waits for what must not be hurried.
const SIDE_BY_SIDE: usize = 4;
/// Each of the first few requests is tried by the short form, too.
const FIRST: u64 = 6;
/// And so many of those that follow.
const CHOSEN: usize = 6;
/// What the short form chooses by when nobody asks for another.
const SEED: u64 = 20;
/// No life has as many requests; one that is struck by every n up to here is not over by itself.
const REQUESTS_MAX: u64 = 2000;

/// What fails a request, so that it may be sent again.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Answer(Fault),
    Way(Mishap),
}

use Failure::{Answer, Way};

const FAILURES: &[Failure] = &[
    Answer(Fault::Status(500, "InternalError")),
    Way(Mishap::Reset),
    Answer(Fault::Status(503, "SlowDown")),
    Answer(Fault::LoseAnswer),
    Answer(Fault::BreakBody(10)),
    Answer(Fault::Close),
];
/// The same and what takes a time limit each, which the long form has time for.
const ALL_FAILURES: &[Failure] = &[
    FAILURES[0],
    FAILURES[1],
    FAILURES[2],
    FAILURES[3],
    FAILURES[4],
    FAILURES[5],
    Way(Mishap::Swallow),
];

/// Which requests fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    Each,
    Only,
}

/// One life of a mount.
struct Life {
    server: S3Server,
    wire: Wire,
    world: World,
    when: String,
}

impl Life {
    fn new(when: String) -> Self {
        let server = S3Server::start("bucket");
        let wire = Wire::to(server.address());
        let place = server.location_through(wire.address(), "docs");
        let world = World::on_s3(&server, &place);
        world.init();
        let source = world.source();
        // More than rides in a commit, in several blocks.
        fs::write(source.join("large"), noise(0, 1 << 20)).unwrap();
        fs::create_dir(source.join("dir")).unwrap();
        for number in 0..20 {
            fs::write(source.join(format!("dir/{number}")), number.to_string()).unwrap();
        }
        Self {
            server,
            wire,
            world,
            when,
        }
    }

    fn begin(&self, which: Which, nth: u64, failure: Failure) {
        match (failure, which) {
            (Answer(fault), Which::Each) => self.server.inject(Rule::every(nth, fault)),
            (Answer(fault), Which::Only) => self.server.inject(Rule {
                times: 1,
                ..Rule::every(nth, fault)
            }),
            (Way(mishap), Which::Each) => self.wire.spoil(mishap, nth),
            (Way(mishap), Which::Only) => self.wire.spoil_once(mishap, nth),
        }
    }

    fn heal(&self) {
        self.server.heal();
        self.wire.heal();
    }

    fn struck(&self) -> u64 {
        self.server.faults_struck() + self.wire.struck()
    }

    /// Where each n-th fails, six attempts may, by chance, and then a first mount says so.
    fn mount(&self, insisting: bool) {
        let begun = Instant::now();
        loop {
            let mounted = run(
                &self.world,
                "mount",
                &self.world.source(),
                &["--mode", "cold"],
            );
            let told = String::from_utf8_lossy(&mounted.stderr);
            if mounted.status.success() {
                return;
            }
            assert!(
                insisting && !told.trim().is_empty(),
                "{}: {told}",
                self.when
            );
            assert!(begun.elapsed() < NEVER, "{}: {told}", self.when);
        }
    }

    fn work(&self) {
        let source = self.world.source();
        fs::write(source.join("new"), noise(1, 300_000)).unwrap();
        self.world.snapshot("one");
        fs::write(source.join("new"), noise(2, 300_000)).unwrap();
        fs::rename(source.join("dir/7"), source.join("moved")).unwrap();
        fs::remove_file(source.join("dir/8")).unwrap();
        self.world.unmount(&source);
    }

    /// Everything is in the repository, and comes out of it.
    fn check_and_restore(&self) {
        let when = &self.when;
        let source = self.world.source();
        // What it holds would hide what the store lacks.
        let _ = fs::remove_dir_all(self.world.path("cache"));
        let told = self.world.run(["check", "--read-data"]);
        assert!(told.starts_with("no damage found"), "{when}: {told}");
        let target = self.world.path("restored");
        let _ = fs::remove_dir_all(self.world.path("cache"));
        self.world
            .run(["restore".as_ref(), "--target".as_ref(), target.as_os_str()]);
        assert_same(&source, &target, when);
        let one = ["cat", "--at", "one", "/new"];
        let one = self.world.try_run(one).stdout;
        assert!(one == noise(1, 300_000), "{when}");
    }
}

/// Leads such a life; says whether anything failed in it.
fn live(which: Which, nth: u64, failure: Failure) -> bool {
    let life = Life::new(format!("{which:?} {nth}: {failure:?}"));
    life.begin(which, nth, failure);
    life.mount(which == Which::Each);
    life.work();
    if which == Which::Each {
        // By chance all attempts of one request may be struck, and then these rightly say so.
        life.heal();
    }
    life.check_and_restore();
    life.struck() > 0
}

/// How many requests such a life has where nothing fails.
fn requests() -> u64 {
    let life = Life::new("nothing fails".to_owned());
    let before = life.server.requests();
    life.mount(false);
    life.work();
    let until_unmounted = life.server.requests() - before;
    life.check_and_restore();
    assert!(life.server.requests_of(&Method::PUT) > 0);
    until_unmounted
}

fn seed() -> u64 {
    let asked = std::env::var("REWINDFS_TEST_SEED").ok();
    let seed = asked.and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    eprintln!("REWINDFS_TEST_SEED={seed}");
    seed
}

/// Takes numbers from `numbers` until there are no more or a life has met nothing, several side by side. Gives the least that met nothing.
fn through(
    numbers: impl Iterator<Item = u64> + Send,
    live: impl Fn(u64) -> bool + Sync,
) -> Option<u64> {
    let numbers = Mutex::new(numbers);
    let unmet = AtomicU64::new(u64::MAX);
    let next = || match unmet.load(Ordering::SeqCst) {
        u64::MAX => numbers.lock().next(),
        _ => None,
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(number) = next() {
                    if !live(number) {
                        unmet.fetch_min(number, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    Some(unmet.into_inner()).filter(|&unmet| unmet < u64::MAX)
}

fn of_the_requests(test: &str, which: Which, from: u64) {
    if !can_mount(test) {
        return;
    }
    let seed = seed();
    match std::env::var("REWINDFS_WIRE_FAULTS") {
        Ok(_) => {
            let failure =
                |nth: u64| ALL_FAILURES[((nth + seed) % ALL_FAILURES.len() as u64) as usize];
            let unmet = through(from..REQUESTS_MAX, |nth| live(which, nth, failure(nth)));
            let unmet = unmet.expect("a life that comes to an end");
            eprintln!("{which:?}: nothing is met from the request {unmet} on");
            assert!(unmet > requests(), "{unmet}");
        }
        Err(_) => {
            let failure = |nth: u64| FAILURES[((nth + seed) % FAILURES.len() as u64) as usize];
            let mut random = StdRng::seed_from_u64(seed);
            let most = requests();
            let mut chosen: Vec<u64> = (0..CHOSEN)
                .map(|_| random.random_range(FIRST + 1..=most))
                .collect();
            chosen.sort_unstable();
            let numbers = (from..=FIRST).chain(chosen);
            let unmet = through(numbers, |nth| live(which, nth, failure(nth)));
            // No two lives have quite as many.
            assert!(
                unmet.is_none_or(|unmet| unmet > FIRST),
                "{unmet:?} of {most}"
            );
        }
    }
}

#[test]
fn with_each_nth_request_of_a_life_failing_everything_is_published() {
    let test = "with_each_nth_request_of_a_life_failing_everything_is_published";
    of_the_requests(test, Which::Each, 2);
}

#[test]
fn with_any_one_request_of_a_life_failing_everything_is_published() {
    let test = "with_any_one_request_of_a_life_failing_everything_is_published";
    of_the_requests(test, Which::Only, 1);
}
