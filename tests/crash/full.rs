//! No room left: in the source, where the writer learns of it as ever; in the state directory, where writers must not notice and
//! snapshots grow coarser until there is room; in the cache, which makes nothing but speed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::life::Life;
use crate::listing;
use crate::proof::Proof;
use crate::wait;
use crate::world::{World, can_mount};

const MIB: usize = 1 << 20;
/// The longest that is waited until an epoch has its place in the spool; when that is full it never has.
const TAKEN_UP_MAX: Duration = Duration::from_millis(300);
/// Files of a MiB, of which half as many fill the state directory, and the most after which it is full in any case.
const WRITES_MIN: usize = 40;
const WRITES_MAX: usize = 400;
/// The longest until `status` tells of what was done before.
const TOLD_MAX: Duration = Duration::from_secs(180);
const OFTEN: &[&str] = &["--interval", "100ms"];

/// A small file system in memory. Unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None`, said aloud, where it cannot be made.
    fn mount(test: &str, place: &Path, mib: usize) -> Option<Self> {
        fs::create_dir_all(place).unwrap();
        let mut mount = Command::new("mount");
        let size = format!("size={mib}m,mode=755");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place);
        let made = mount.output().is_ok_and(|output| output.status.success());
        if !made {
            eprintln!("SKIPPED {test}: it needs the right to mount a tmpfs");
        }
        made.then(|| Self(place.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Bytes that do not compress, different for each `number`.
fn noise(number: usize) -> Vec<u8> {
    use rand::{RngExt, SeedableRng};
    let mut bytes = vec![0; MIB];
    rand::rngs::StdRng::seed_from_u64(number as u64).fill(&mut bytes[..]);
    bytes
}

fn status(world: &World) -> serde_json::Value {
    let source = world.source();
    let json = world.run(["status".as_ref(), source.as_os_str(), "--json".as_ref()]);
    serde_json::from_str(&json).unwrap()
}

#[test]
fn a_full_source_is_the_writers_affair() {
    let test = "a_full_source_is_the_writers_affair";
    let world = World::new();
    if !can_mount(test) {
        return;
    }
    let Some(_small) = Small::mount(test, &world.source(), 8) else {
        return;
    };
    world.init();
    let mut life = Life::begin(&world, OFTEN, None);
    let file = world.source().join("file");
    let mut open = fs::File::create(&file).unwrap();
    let full = (0..16).find_map(|number| open.write_all(&noise(number)).err());
    assert_eq!(full.unwrap().raw_os_error(), Some(libc::ENOSPC));
    drop(open);
    let mut proof = Proof::new();
    proof.after_death(&world, "full");
    fs::remove_file(&file).unwrap();
    // The kernel tells of a closed file behind its program's back: its room is free a moment later.
    let written = wait::within(TOLD_MAX, || fs::write(&file, "there is room again").ok());
    written.expect("there is room again");
    proof.after_death(&world, "room again");
    proof.check(&world, "in the end");
    life.kill();
    world.unmount(&world.source());
}

/// The repository is away, so that what is finished gathers in the spool until nothing more fits.
#[test]
fn a_full_state_directory_makes_snapshots_coarser_and_no_write_fails() {
    let test = "a_full_state_directory_makes_snapshots_coarser_and_no_write_fails";
    let world = World::new();
    if !can_mount(test) {
        return;
    }
    let Some(_small) = Small::mount(test, &world.state(), 24) else {
        return;
    };
    world.init();
    let mut life = Life::begin(&world, OFTEN, None);
    world.run(["sync".as_ref(), world.source().as_os_str()]);
    fs::rename(world.path("repository"), world.path("away")).unwrap();
    let says_full = |told: &serde_json::Value| {
        let error = told["last_error"].as_str();
        error.is_some_and(|error| error.contains("No space left"))
    };
    let mut told = status(&world);
    for number in 0..WRITES_MAX {
        if number >= WRITES_MIN && says_full(&told) {
            break;
        }
        let name = world.source().join(format!("file-{}", number % 16));
        fs::write(name, noise(number)).unwrap();
        // As soon as it is taken up, so that many epochs want their place in the spool.
        let taken_up = || (status(&world)["dirty_bytes"] == 0).then_some(());
        wait::within(TAKEN_UP_MAX, taken_up);
        told = status(&world);
    }
    // By the answer that ended it: with each new attempt the error may be another.
    let full = says_full(&told);
    assert!(full, "the state directory is not full: {told}");

    fs::rename(world.path("away"), world.path("repository")).unwrap();
    let mut proof = Proof::new();
    proof.after_death(&world, "the repository is back");
    proof.check(&world, "the repository is back");
    let mended = wait::within(TOLD_MAX, || {
        status(&world)["last_error"].is_null().then_some(())
    });
    assert!(mended.is_some(), "{}", status(&world));
    life.kill();
    let mut life = Life::begin(&world, OFTEN, None);
    proof.after_death(&world, "killed after that");
    life.kill();
    world.unmount(&world.source());
}

#[test]
fn a_full_cache_is_done_without() {
    let test = "a_full_cache_is_done_without";
    let world = World::new();
    if !can_mount(test) {
        return;
    }
    let Some(_small) = Small::mount(test, &world.path("cache"), 1) else {
        return;
    };
    world.init();
    for number in 0..12 {
        fs::write(world.source().join(format!("file-{number}")), noise(number)).unwrap();
    }
    let mut life = Life::begin(&world, OFTEN, None);
    world.run(["sync".as_ref(), world.source().as_os_str()]);
    let live = listing::of(&world.source());
    let past = world.dir("past");
    for _ in 0..2 {
        world.mount_past("latest", &past);
        listing::assert_same(&listing::of(&past), &live, "through a full cache");
        world.unmount(&past);
    }
    life.kill();
    world.unmount(&world.source());
}
