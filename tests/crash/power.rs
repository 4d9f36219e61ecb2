//! Power cut at any instant under load: source and state lie on a disk that loses, reorders and tears what was not flushed. After
//! that the mount comes back unaided, what fsync called safe is there, and the next commit is the source byte for byte, also where a
//! file came back with new times and old contents or the reverse. `scripts/power-loss` does it for many states.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::disk::{Cuts, Disk, must};
use crate::kill::seed;
use crate::life::Life;
use crate::load::{self, Load};
use crate::proof::Proof;
use crate::wait;
use crate::world::{World, can_mount};

/// Instants at which power fails when nobody asks for more, and states of the disk looked at for each.
const INSTANTS: usize = 2;
const STATES: usize = 2;
/// The longest between two instants.
const BETWEEN_MAX: Duration = Duration::from_millis(400);
/// The longest that the kernel goes on writing what it has, before power fails.
const FROZEN_MAX: Duration = Duration::from_millis(30);
/// An instant is worth looking at if so many writes may be lost in it; after so many tries any is.
const AT_STAKE_MIN: usize = 5;
const TRIES_MAX: usize = 20;
/// Seals so often that much is published which no disk has yet.
const OFTEN: &[&str] = &["--interval", "100ms"];
/// Files written over for each instant, and the longest between two of them.
const WRITTEN_OVER: usize = 60;
const WRITTEN_EVERY_MAX: Duration = Duration::from_millis(40);
/// The file system commits its own journal every second, so that new times reach the disk long before contents do.
const MOUNTED: [&str; 2] = ["commit=1", "commit=1,data=writeback"];

/// What stood where when power failed.
struct Instant {
    /// Events of the disk.
    events: usize,
    /// Counts that fsync had called safe.
    safe: Vec<u64>,
    /// The repository, which lies elsewhere.
    repository: PathBuf,
}

#[test]
fn after_a_power_cut_the_next_commit_is_the_source() {
    let test = "after_a_power_cut_the_next_commit_is_the_source";
    if !can_mount(test) || !Disk::is_possible(test) {
        return;
    }
    let asked = std::env::var("REWINDFS_POWER_INSTANTS").ok();
    let instants = asked.and_then(|asked| asked.parse().ok());
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::with_disk("disk");
    world.init();
    let (image, place) = (world.path("image"), world.path("disk"));
    let options = MOUNTED[random.random_range(0..MOUNTED.len())];
    let disk = Disk::mount(&image, &world.dir("work"), &place, options);
    let instants = under_load(&world, &disk, instants.unwrap_or(INSTANTS), &mut random);
    let mut cuts = Cuts::of(&disk, &image);
    drop(disk);

    let state = world.path("cut");
    for (number, instant) in instants.iter().enumerate() {
        for _ in 0..STATES {
            let what = cuts.at(instant.events, &state, &mut random);
            let what = format!("seed {seed}, {options}, instant {number}: {what}");
            eprintln!("{what}");
            recover(&world, instant, &state, options, &what);
        }
    }
}

/// Works in a mount and stops the world at random instants.
fn under_load(world: &World, disk: &Disk, number: usize, random: &mut StdRng) -> Vec<Instant> {
    fs::create_dir(world.source()).unwrap();
    load::leave_behind(&world.source(), random);
    let below = Below::leave_behind(&world.source(), number * WRITTEN_OVER);
    let mut life = Life::begin(world, OFTEN, None);
    world.run(["sync".as_ref(), world.source().as_os_str()]);
    let written_over = WrittenOver::begin(below, random.random());
    let load = Load::begin(&world.source(), random.random());
    let mut instants = Vec::new();
    for number in 0..number {
        wait::let_pass(random.random_range(Duration::ZERO..BETWEEN_MAX));
        let mut tries = TRIES_MAX;
        let (safe, events) = loop {
            life.freeze();
            let safe = load.safe();
            let earliest = disk.events();
            wait::let_pass(random.random_range(Duration::ZERO..FROZEN_MAX));
            life.settle();
            // Nothing but what had been asked for before has happened in between, so power may have failed at any of these.
            let (events, at_stake) = disk.worst_of(earliest..=disk.events());
            tries -= 1;
            if at_stake >= AT_STAKE_MIN || tries == 0 {
                break (safe, events);
            }
            life.thaw();
            wait::let_pass(random.random_range(Duration::ZERO..FROZEN_MAX));
        };
        let repository = world.path(&format!("repository-{number}"));
        link_tree(&world.path("repository"), &repository);
        life.thaw();
        instants.push(Instant {
            events,
            safe,
            repository,
        });
    }
    life.kill();
    for written in load.end() {
        written.must_have_been_cut_off();
    }
    written_over.end();
    world.unmount(&world.source());
    instants
}

/// Files of before the mount, by their names and as they lie below it.
struct Below(Vec<(PathBuf, File)>);

impl Below {
    fn leave_behind(root: &Path, number: usize) -> Self {
        let files = (0..number).map(|number| {
            let path = root.join(format!("written-over-{number}"));
            fs::write(&path, [1; 5000]).unwrap();
            let below = File::open(&path).unwrap();
            (path, below)
        });
        Self(files.collect())
    }
}

/// A program that writes over a few bytes of each of many files that the last commit has, and a kernel that brings just those to the
/// disk: it has the file's times only later, and so it may have what the journal says.
struct WrittenOver {
    stop: Arc<AtomicBool>,
    /// How many it has written, and why it stopped, if it was not asked to.
    program: JoinHandle<(usize, Option<io::Error>)>,
}

impl WrittenOver {
    fn begin(below: Below, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut random = StdRng::seed_from_u64(seed);
        let program = std::thread::spawn(move || {
            for (number, (path, below)) in below.0.iter().enumerate() {
                let written = File::options().write(true).open(path).and_then(|file| {
                    file.write_all_at(b"other bytes", random.random_range(0..4900))?;
                    below.sync_data()
                });
                if written.is_err() || stopped.load(Ordering::Relaxed) {
                    return (number, written.err().map(|error| load::why(error, path)));
                }
                wait::let_pass(random.random_range(Duration::ZERO..WRITTEN_EVERY_MAX));
            }
            (below.0.len(), None)
        });
        Self { stop, program }
    }

    /// Once the mount is dead.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (written, why) = self.program.join().unwrap();
        assert!(written > 0, "{why:?}");
        load::must_be_a_cut_off("written-over", why.as_ref());
    }
}

/// The machine comes up again with `image` for a disk, mounted as before: what can be believed of its files goes by that.
fn recover(world: &World, instant: &Instant, image: &Path, options: &str, what: &str) {
    let repository = world.path("repository");
    fs::remove_dir_all(&repository).unwrap();
    link_tree(&instant.repository, &repository);
    fs::remove_dir_all(world.path("cache")).ok();
    let place = world.path("disk");
    let options = format!("loop,{options}");
    let arguments = ["-o", &options].map(std::ffi::OsStr::new);
    let paths = [image.as_os_str(), place.as_os_str()];
    must("mount", &[&arguments[..], &paths].concat());
    let _mounted = Mounted(&place);
    forget_the_boot(&world.state());

    let mut life = Life::begin(world, OFTEN, None);
    for (writer, &safe) in instant.safe.iter().enumerate() {
        let there = load::read_safe(&world.source(), writer);
        assert!(
            there >= safe,
            "{what}: writer {writer} has {there}, and fsync said {safe}"
        );
    }
    let mut proof = Proof::new();
    proof.after_death(world, what);
    proof.check(world, what);
    life.kill();
    world.unmount(&world.source());
}

/// What is mounted, until it is dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.args(["-R", "-l"]).arg(self.0).status().ok();
    }
}

/// The machine was never down in truth: the journal must not find that out.
fn forget_the_boot(state: &Path) {
    for volume in fs::read_dir(state.join("volumes")).into_iter().flatten() {
        let marker = volume.unwrap().path().join("journal/marker");
        let Ok(text) = fs::read_to_string(&marker) else {
            continue;
        };
        let lines = text.lines().map(|line| match line.starts_with("boot ") {
            true => "boot before\n".to_owned(),
            false => format!("{line}\n"),
        });
        fs::write(&marker, lines.collect::<String>()).unwrap();
    }
}

/// A copy of a repository by links: its objects are never written to again.
fn link_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        match path.is_dir() {
            // What lies aside is no object yet.
            true if name == ".tmp" => {}
            true => link_tree(&path, &to.join(name)),
            false => fs::hard_link(&path, to.join(name)).unwrap(),
        }
    }
}
