//! A wall clock that is set back by a day, forward by a year, stands still and is set right again, under the real program, in the
//! background and in front: order goes by sequence, nothing is lost, a time finds what a person means by it, and whatever the clock showed
//! when a process died, its machine mounts again at once and another need not wait for a year. `src/flusher/tests/clock.rs` shows the same
//! of the flusher alone, with more turns of the clock.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use jiff::Timestamp;
use rewindfs::clock::{Clock as _, Stamp, SystemClock};
use rewindfs::id::{ObjectKey, VolumeId};
use rewindfs::repo::layout;

use crate::away::{assert_whole, status};
use crate::ending::kill;
use crate::outage::assert_same;
use crate::processes::{in_front, must_exit, run};
use crate::world::{World, can_mount, when_unused};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

/// What the clock does.
#[derive(Clone, Copy, Debug)]
enum Wall {
    Right,
    Back(u64),
    Forward(u64),
    StandsAt(u64),
}

use Wall::{Back, Forward, Right, StandsAt};

/// The wall clock of all programs that run in a world.
struct WallClock {
    file: fs::File,
}

impl WallClock {
    /// A right one. `None`, said aloud, where it cannot be made.
    fn of(world: &mut World, test: &str) -> Option<Self> {
        let (library, number) = (world.path("clock.so"), world.path("clock"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]);
        let Ok(compiled) = compile.arg(&library).arg(source).output() else {
            eprintln!("SKIPPED {test}: there is no cc, which makes a clock that can be set");
            return None;
        };
        let told = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{told}");
        let file = fs::File::create(&number).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        world.set_environment(vec![
            ("LD_PRELOAD", text(&library)),
            ("REWINDFS_TEST_CLOCK", text(&number)),
        ]);
        let clock = Self { file };
        clock.set(Right);
        Some(clock)
    }

    fn set(&self, wall: Wall) {
        let number = match wall {
            Right => 0,
            Back(by) => -(by as i64) * 2,
            Forward(by) => by as i64 * 2,
            StandsAt(at) => at as i64 * 2 + 1,
        };
        self.file.write_all_at(&number.to_le_bytes(), 0).unwrap();
    }
}

/// What a clock shows that does this.
fn now_by(wall: Wall) -> u64 {
    let right = SystemClock.now().0;
    match wall {
        Right => right,
        Back(by) => right - by,
        Forward(by) => right + by,
        StandsAt(at) => at,
    }
}

fn rfc3339(at: u64) -> String {
    Stamp(at).to_rfc3339()
}

/// A snapshot, and what the clock showed before and after it.
struct Taken {
    name: String,
    since: u64,
    until: u64,
}

/// A live mount, in front or in the background, whose clock is played with.
struct Scene {
    world: World,
    clock: WallClock,
    front: bool,
    process: Option<Child>,
    taken: Vec<Taken>,
}

impl Scene {
    fn new(test: &str, front: bool) -> Option<Self> {
        if !can_mount(test) {
            return None;
        }
        let mut world = World::new();
        let clock = WallClock::of(&mut world, test)?;
        world.init();
        let mut scene = Self {
            world,
            clock,
            front,
            process: None,
            taken: Vec::new(),
        };
        scene.mount();
        Some(scene)
    }

    fn mount(&mut self) {
        match self.front {
            true => self.process = Some(in_front(&self.world)),
            false => self.world.mount(&[]),
        }
    }

    fn unmount(&mut self) {
        self.world.unmount(&self.world.source());
        self.ended();
    }

    fn kill(&mut self) {
        kill(&self.world);
        self.ended();
    }

    fn ended(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.wait().unwrap();
        }
    }

    /// Changes a file, makes another, and takes a snapshot, with a copy of what there is.
    fn take(&mut self, wall: Wall) -> u64 {
        let (source, number) = (self.world.source(), self.taken.len());
        let name = format!("taken-{number}");
        fs::write(source.join("same"), &name).unwrap();
        fs::write(source.join(format!("new-{number}")), &name).unwrap();
        let since = now_by(wall);
        self.world.snapshot(&name);
        let until = now_by(wall);
        let copied = Command::new("cp")
            .arg("-a")
            .args([&source, &self.copy(&name)])
            .status();
        assert!(copied.unwrap().success());
        self.taken.push(Taken { name, since, until });
        until
    }

    /// What the source held at a snapshot.
    fn copy(&self, name: &str) -> PathBuf {
        self.world.path(&format!("copy-{name}"))
    }

    /// Under a clock that does this: goes on, ends and is mounted again, is killed and is mounted again. Says what the clock showed after each
    /// of three snapshots.
    fn live(&mut self, wall: Wall) -> [u64; 3] {
        self.clock.set(wall);
        let first = self.take(wall);
        self.unmount();
        self.mount();
        let second = self.take(wall);
        self.kill();
        self.mount();
        let third = self.take(wall);
        // Whatever the clock does, this very moment is the newest. Where it stands still, each snapshot is counted on by a millisecond.
        let now = now_by(wall) + self.taken.len() as u64;
        assert_eq!(self.at(&rfc3339(now)), self.newest(), "{wall:?}");
        assert_eq!(self.at("latest"), self.newest(), "{wall:?}");
        [first, second, third]
    }

    /// What a file says that each snapshot has changed, in the newest of all.
    fn newest(&self) -> String {
        self.taken.last().unwrap().name.clone()
    }

    /// The same at `moment`.
    fn at(&self, moment: &str) -> String {
        let path = self.world.source().join("same");
        self.world.run([
            "cat".as_ref(),
            "--at".as_ref(),
            moment.as_ref(),
            path.as_os_str(),
        ])
    }

    /// All of them are listed in order, with the time that the clock showed, and are what the source was.
    fn assert_nothing_is_lost(&self) {
        let listed = self.world.run(["snapshots", "--json"]);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        let seqs: Vec<u64> = listed
            .iter()
            .map(|one| one["seq"].as_u64().unwrap())
            .collect();
        assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
        let named = listed.iter().filter(|one| one["name"] != "");
        let mut last = None;
        for (one, taken) in named.zip(&self.taken) {
            assert_eq!(one["name"], *taken.name);
            let time: Timestamp = one["time"].as_str().unwrap().parse().unwrap();
            let shown = time.as_millisecond() as u64;
            let most = taken.until + listed.len() as u64;
            assert!((taken.since..=most).contains(&shown), "{one}");
            last = Some(&taken.name);
        }
        assert_eq!(last, Some(&self.newest()), "all of them are listed");
        self.assert_names_are_in_order(seqs.len());

        let shown = self.world.dir("shown");
        for taken in &self.taken {
            assert_eq!(self.at(&taken.name), taken.name);
            self.world.mount_past(&taken.name, &shown);
            assert_same(&self.copy(&taken.name), &shown, &taken.name);
            self.world.unmount(&shown);
        }
    }

    /// A store lists the names of commits newest first, whatever the clock did.
    fn assert_names_are_in_order(&self, commits: usize) {
        let volumes = self.world.path("repository/v");
        let volume = fs::read_dir(volumes).unwrap().next().unwrap().unwrap();
        let id = VolumeId::from_hex(volume.file_name().to_str().unwrap()).unwrap();
        let names = fs::read_dir(volume.path().join("c")).unwrap();
        let mut keys: Vec<String> = names
            .map(|name| format!("v/{id}/c/{}", name.unwrap().file_name().to_str().unwrap()))
            .collect();
        keys.sort();
        let names: Vec<_> = keys
            .into_iter()
            .filter_map(|key| layout::parse_commit(id, &ObjectKey::new(key)))
            .collect();
        assert_eq!(names.len(), commits);
        let in_order = names.is_sorted_by(|newer, older| {
            newer.seq > older.seq && (newer.era, newer.stamp) > (older.era, older.stamp)
        });
        assert!(in_order, "{names:?}");
    }
}

fn whatever_the_clock_does(test: &str, front: bool) {
    let Some(mut scene) = Scene::new(test, front) else {
        return;
    };
    let right = scene.live(Right);
    let back = scene.live(Back(DAY));
    let forward = scene.live(Forward(YEAR));
    // Nothing that waits or measures goes by the wall clock.
    let seconds = status(&scene.world)["requests"]["seconds"].as_f64();
    assert!(
        seconds.is_some_and(|seconds| seconds < DAY as f64 / 1000.0),
        "{seconds:?}"
    );
    // So long ago, by the program's own clock.
    assert_eq!(scene.at("30d"), "taken-5");
    let still = forward[2] + HOUR;
    scene.live(StandsAt(still));
    let newest = scene.live(Right);
    scene.assert_nothing_is_lost();

    // Now is the newest, whatever was published in a year that has not come.
    assert_eq!(scene.at(&rfc3339(newest[2])), "taken-14");
    assert_eq!(scene.at(&rfc3339(forward[1])), "taken-14");
    assert_eq!(scene.at(&rfc3339(still)), "taken-14");
    assert_eq!(scene.at("1ms"), "taken-14");
    // And any other time what was written last while a clock showed it: the later of two stretches that have been there.
    assert_eq!(scene.at(&rfc3339(newest[1])), "taken-13");
    assert_eq!(scene.at(&rfc3339(right[0])), "taken-5");
    assert_eq!(scene.at(&rfc3339(back[2] + HOUR)), "taken-5");
    assert_eq!(scene.at(&rfc3339(back[1])), "taken-4");
    assert_eq!(scene.at(&rfc3339(back[0])), "taken-3");
    // No clock has ever shown a time before this one.
    let before = rfc3339(right[0] - 2 * DAY);
    let told = must_exit(&scene.world.try_run(["ls", "--at", &before]), 1);
    assert!(told.contains("at or before"), "{told}");
    scene.unmount();
    assert_whole(&scene.world);
}

#[test]
fn whatever_the_clock_does_in_the_background_nothing_is_lost() {
    let test = "whatever_the_clock_does_in_the_background_nothing_is_lost";
    whatever_the_clock_does(test, false);
}

#[test]
fn whatever_the_clock_does_in_front_nothing_is_lost() {
    let test = "whatever_the_clock_does_in_front_nothing_is_lost";
    whatever_the_clock_does(test, true);
}

/// Where the newest snapshots lie in a stretch in which the clock stood still, the time under which each is listed finds it.
#[test]
fn a_snapshot_is_found_by_the_time_under_which_it_is_listed() {
    let test = "a_snapshot_is_found_by_the_time_under_which_it_is_listed";
    let Some(mut scene) = Scene::new(test, false) else {
        return;
    };
    let still = StandsAt(now_by(Right) + HOUR);
    scene.clock.set(still);
    for _ in 0..3 {
        scene.take(still);
    }
    // Less than what begins an era.
    let a_little_back = StandsAt(now_by(still) - 20_000);
    scene.clock.set(a_little_back);
    scene.take(a_little_back);
    let listed = scene.world.run(["snapshots", "--json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    let mut named = 0;
    for one in listed.iter().filter(|one| one["name"] != "") {
        assert_eq!(
            scene.at(one["time"].as_str().unwrap()),
            one["name"],
            "{one}"
        );
        named += 1;
    }
    assert_eq!(named, scene.taken.len());
    scene.unmount();
}

/// A process that is killed leaves its lease. One of a clock that was far ahead would run for a year.
#[test]
fn whoever_comes_after_a_process_that_died_under_a_wrong_clock_does_not_wait_for_it() {
    let test = "whoever_comes_after_a_process_that_died_under_a_wrong_clock_does_not_wait_for_it";
    let Some(mut scene) = Scene::new(test, false) else {
        return;
    };
    let elsewhere = scene.world.dir("elsewhere");
    for wall in [Forward(YEAR), Back(DAY), StandsAt(now_by(Forward(YEAR)))] {
        scene.clock.set(wall);
        // Its lease is written by that clock.
        scene.unmount();
        scene.mount();
        scene.take(wall);
        scene.kill();
        scene.clock.set(Right);
        let there = |command: &str, more: &[&str]| {
            let mut arguments = vec![command.as_ref(), elsewhere.as_os_str()];
            arguments.extend(more.iter().map(std::ffi::OsStr::new));
            let mut command = scene.world.command(arguments);
            command.env("REWINDFS_STATE_DIR", scene.world.path("state-elsewhere"));
            must_exit(&when_unused(&mut command), 0);
        };
        there("mount", &["--volume", "source"]);
        // Its own lease is right, and keeps others out.
        let source = scene.world.source();
        must_exit(&run(&scene.world, "mount", &source, &[]), 11);
        fs::write(elsewhere.join("same"), "there").unwrap();
        there("umount", &[]);
        assert_eq!(scene.at("latest"), "there", "{wall:?}");
        scene.mount();
        scene.take(Right);
    }
    scene.unmount();
    assert_whole(&scene.world);
}
