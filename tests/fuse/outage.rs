//! A store that misbehaves under a live mount, on a real wire: it errs, throttles, refuses, loses, hangs, breaks off, spoils, lies, is full
//! or away, all the time or with each n-th request. Programs go on, nobody storms it, `status` tells, and when it is well again
//! everything catches up by itself. What becomes of objects that are damaged where they lie is `hostile.rs`'s.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use hyper::Method;

use crate::away::{NEVER, assert_whole, status};
use crate::processes::{must_exit, run};
use crate::s3_server::{Fault, Rule, S3Server};
use crate::sample::noise;
use crate::wire::{Mishap, Wire};
use crate::world::{World, can_mount};

/// What may go out to a store that fails, until `status` has told of it: six attempts each for four objects at once, a few times. Without
/// pauses it would be thousands.
const REQUESTS_MAX: u64 = 120;
/// And what goes out in each second that a slow machine takes for it, since it is tried again meanwhile.
const REQUESTS_PER_SECOND_MAX: u64 = 10;
/// Longer than this nobody waits for `sync` here.
const SYNC_WAIT: &str = "300s";

/// What is wrong with the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    /// Its answers.
    Answer(Fault),
    /// Its answers to writes alone.
    Write(Fault),
    /// Something between it and us.
    Way(Mishap),
    /// It is not there at all.
    Away,
}

use Trouble::{Answer, Away, Way, Write};

const ERRS: Trouble = Answer(Fault::Status(500, "InternalError"));
const THROTTLES: Trouble = Answer(Fault::Status(503, "SlowDown"));
const REFUSES: Trouble = Answer(Fault::Status(403, "AccessDenied"));
const LOSES: Trouble = Answer(Fault::Status(404, "NoSuchKey"));
const IS_FULL: Trouble = Write(Fault::Status(507, "InsufficientStorage"));
const LIES: Trouble = Write(Fault::Pretend);
const LOSES_ANSWERS: Trouble = Answer(Fault::LoseAnswer);
const CLOSES: Trouble = Answer(Fault::Close);
const BREAKS_OFF: Trouble = Answer(Fault::BreakBody(10));
const SHORTENS: Trouble = Answer(Fault::ShortBody(10));
const SPOILS_ANSWERS: Trouble = Answer(Fault::FlipBit(3));
const SPOILS_REQUESTS: Trouble = Way(Mishap::FlipBit);
const RESETS: Trouble = Way(Mishap::Reset);
const SWALLOWS: Trouble = Way(Mishap::Swallow);

impl Trouble {
    /// What `status` says at least.
    fn told(self) -> &'static str {
        match self {
            Answer(Fault::Status(_, code)) | Write(Fault::Status(_, code)) => code,
            LIES => "does not have it",
            SWALLOWS => "no answer within",
            RESETS | Away => "cannot be reached",
            _ => "s3://",
        }
    }
}

/// A live mount whose repository lies on an S3 server behind a wire.
struct Scene {
    server: S3Server,
    wire: Wire,
    world: World,
    round: Cell<u32>,
}

impl Scene {
    fn new() -> Self {
        let server = S3Server::start("bucket");
        let wire = Wire::to(server.address());
        let place = server.location_through(wire.address(), "docs");
        let world = World::on_s3(&server, &place);
        world.init();
        fs::write(world.source().join("large"), noise(0, 2 << 20)).unwrap();
        let scene = Self {
            server,
            wire,
            world,
            round: Cell::new(0),
        };
        scene.world.mount(&["--interval", "200ms"]);
        scene.sync("at first");
        scene
    }

    /// From now on each `every`-th request meets `trouble`.
    fn begin(&self, trouble: Trouble, every: u64) {
        match trouble {
            Answer(fault) => self.server.inject(Rule::every(every, fault)),
            Write(fault) => self.server.inject(Rule {
                method: Some(Method::PUT),
                ..Rule::every(every, fault)
            }),
            Way(mishap) => self.wire.spoil(mishap, every),
            Away => self.wire.tear(),
        }
    }

    fn end(&self, trouble: Trouble) {
        self.server.heal();
        self.wire.heal();
        if let Away = trouble {
            self.wire.restore();
        }
    }

    /// What programs do, and see of it at once.
    fn work(&self) {
        let (source, round) = (self.world.source(), self.round.get() + 1);
        self.round.set(round);
        must_not_hang(move || {
            let write = |name: &str, bytes: &[u8]| {
                fs::write(source.join(name), bytes).unwrap();
                assert!(fs::read(source.join(name)).unwrap() == bytes, "{name}");
            };
            write("saved.tmp", format!("saved {round} times").as_bytes());
            fs::rename(source.join("saved.tmp"), source.join("saved")).unwrap();
            // More than rides in a commit.
            write(&format!("new-{round}"), &noise(round, 1 << 20));
            let large = fs::OpenOptions::new()
                .write(true)
                .open(source.join("large"))
                .unwrap();
            large
                .write_all_at(&noise(round, 5000), u64::from(round) * 70_001 % (1 << 20))
                .unwrap();
            large.sync_all().unwrap();
            if round > 2 {
                fs::remove_file(source.join(format!("new-{}", round - 2))).unwrap();
            }
        });
    }

    fn sync(&self, when: &str) {
        let source = self.world.source();
        let synced = run(&self.world, "sync", &source, &["--timeout", SYNC_WAIT]);
        let told = String::from_utf8_lossy(&synced.stderr);
        assert!(synced.status.success(), "{when}: {told}");
    }

    /// Looks at the status until it tells of something wrong, or of nothing.
    #[track_caller]
    fn wait_until_told(&self, wrong: bool, when: &str) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let now = status(&self.world);
            if now["last_error"].is_null() != wrong {
                return now;
            }
            assert!(begun.elapsed() < NEVER, "{when}: {now}");
        }
    }

    /// A store that does nothing but this for a while.
    fn endure(&self, trouble: Trouble) {
        let when = format!("{trouble:?}");
        let sent = || self.server.requests() + self.wire.struck();
        let (before, begun) = (sent(), Instant::now());
        self.begin(trouble, 1);
        self.work();
        let told = self.wait_until_told(true, &when);
        self.work();
        let sent = sent() - before;
        let most = REQUESTS_MAX + REQUESTS_PER_SECOND_MAX * begun.elapsed().as_secs();
        assert!(sent <= most, "{when}: {sent} requests, {most} at most");
        assert_eq!(told["phase"], "failing", "{told}");
        let error = told["last_error"].as_str().unwrap();
        assert!(error.contains(trouble.told()), "{when}: {error}");
        let since = told["last_error_since"].as_str().unwrap();
        assert!(since.starts_with("20"), "{when}: {since}");
        self.end(trouble);
        self.sync(&when);
        self.wait_until_told(false, &when);
        self.assert_newest_is_the_source(&when);
    }

    /// A store that does this with each `every`-th request, and is to publish all the same.
    fn get_through(&self, trouble: Trouble, every: u64) {
        let when = format!("each {every}. request: {trouble:?}");
        self.begin(trouble, every);
        self.work();
        self.sync(&when);
        self.end(trouble);
        self.assert_newest_is_the_source(&when);
    }

    fn restore(&self, name: &str) -> (PathBuf, std::process::Output) {
        let target = self.world.path(name);
        // What it holds would hide what the store does.
        let _ = fs::remove_dir_all(self.world.path("cache"));
        let restored =
            self.world
                .try_run(["restore".as_ref(), "--target".as_ref(), target.as_os_str()]);
        (target, restored)
    }

    fn assert_newest_is_the_source(&self, when: &str) {
        let (target, restored) = self.restore("restored");
        let told = String::from_utf8_lossy(&restored.stderr);
        assert!(restored.status.success(), "{when}: {told}");
        assert_same(&self.world.source(), &target, when);
        fs::remove_dir_all(target).unwrap();
    }

    fn close(self) {
        self.world.unmount(&self.world.source());
        assert_whole(&self.world);
    }
}

#[track_caller]
pub(crate) fn assert_same(source: &Path, copy: &Path, when: &str) {
    let compared = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/scripts/compare-trees"
    ))
    .args([source, copy])
    .output()
    .unwrap();
    let told = String::from_utf8_lossy(&compared.stdout);
    assert!(compared.status.success(), "{when}: {told}");
}

/// A mount that hangs must fail the test, and not hang it.
pub(crate) fn must_not_hang(work: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let working = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match ended.recv_timeout(NEVER) {
        Ok(()) => working.join().unwrap(),
        Err(RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(working.join().unwrap_err())
        }
        Err(RecvTimeoutError::Timeout) => panic!("the mount hangs"),
    }
}

/// Runs each of `lanes` in a scene of its own beside the others: most of the time they wait for what must not be hurried.
fn side_by_side<T: Copy + Send + Sync>(lanes: &[&[T]], through: impl Fn(&Scene, T) + Sync) {
    std::thread::scope(|scope| {
        for lane in lanes {
            let through = &through;
            scope.spawn(move || {
                let scene = Scene::new();
                lane.iter().for_each(|&trouble| through(&scene, trouble));
                scene.close();
            });
        }
    });
}

#[test]
fn whatever_the_store_does_the_mount_goes_on_and_catches_up() {
    if !can_mount("whatever_the_store_does_the_mount_goes_on_and_catches_up") {
        return;
    }
    let lanes: &[&[Trouble]] = &[
        &[SWALLOWS],
        &[ERRS, BREAKS_OFF, IS_FULL],
        &[THROTTLES, SPOILS_ANSWERS, REFUSES],
        &[Away, SPOILS_REQUESTS, LIES],
        &[RESETS, SHORTENS, LOSES],
    ];
    side_by_side(lanes, Scene::endure);
}

#[test]
fn with_each_nth_request_failing_everything_is_published() {
    if !can_mount("with_each_nth_request_failing_everything_is_published") {
        return;
    }
    let lanes: &[&[Trouble]] = &[
        &[ERRS, BREAKS_OFF, IS_FULL],
        &[REFUSES, CLOSES, SHORTENS],
        &[LOSES_ANSWERS, LOSES, SPOILS_REQUESTS],
        &[SPOILS_ANSWERS, RESETS, LIES],
    ];
    side_by_side(lanes, |scene, trouble| {
        (2..=3).for_each(|every| scene.get_through(trouble, every));
    });
}

/// Through a line that spoils and breaks off, or from a store that errs: what has come back is right, and what has not is said.
#[test]
fn what_is_restored_over_a_bad_line_is_right_or_said_to_be_missing() {
    if !can_mount("what_is_restored_over_a_bad_line_is_right_or_said_to_be_missing") {
        return;
    }
    let scene = Scene::new();
    for _ in 0..3 {
        scene.work();
        scene.sync("before");
    }
    let source = scene.world.source();
    let (mut whole, mut partly) = (0, 0);
    for (fault, every) in [
        (Fault::FlipBit(99_999), 1),
        (Fault::FlipBit(99_999), 2),
        (Fault::BreakBody(2000), 3),
        (Fault::ShortBody(2000), 2),
        (Fault::Status(404, "NoSuchKey"), 7),
        (Fault::Status(500, "InternalError"), 3),
    ] {
        let when = format!("each {every}. answer: {fault:?}");
        scene.server.inject(Rule {
            method: Some(Method::GET),
            ..Rule::every(every, fault)
        });
        let (target, restored) = scene.restore("restored-badly");
        scene.server.heal();
        let told = String::from_utf8_lossy(&restored.stderr);
        match restored.status.success() {
            true => {
                whole += 1;
                assert_same(&source, &target, &when);
            }
            false => {
                partly += 1;
                assert!(!told.trim().is_empty(), "{when}: failed without a word");
            }
        }
        for entry in fs::read_dir(&target).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            let right =
                fs::read(target.join(&name)).unwrap() == fs::read(source.join(&name)).unwrap();
            assert!(right, "{when}: {name:?} is wrong, and it said: {told}");
        }
        // The same again, over a good line, makes it whole.
        let (target, again) = scene.restore("restored-badly");
        must_exit(&again, 0);
        assert_same(&source, &target, &when);
        fs::remove_dir_all(target).unwrap();
    }
    assert!(whole > 0 && partly > 0, "{whole} whole, {partly} partly");
    scene.close();
}
