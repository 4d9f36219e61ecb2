//! What a seal does to the programs that go on: a large dirty file is emptied right after it, which needs more of the sealed epoch than
//! anybody should wait for. The epoch is given up, that is counted, and the next moment is right.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rewindfs::daemon::control::Client;
use rewindfs::daemon::status::{Phase, Status};
use rewindfs::id::FileId;

use crate::processes::world;
use crate::sample::noise;
use crate::scene::everywhere;
use crate::world::World;

const MIB: u64 = 1 << 20;
/// More than one truncate may preserve, and no more than that.
const CUT: u64 = 24 * MIB;
/// Two of these are as much as an open epoch holds without being copied ahead of its seal.
const LARGE: u64 = 30 * MIB;
/// Long enough for the slowest machine; a request that takes longer hangs.
const HANGS_AFTER: Duration = Duration::from_secs(120);
/// A program may be too late by chance, but not always.
const ATTEMPTS: u32 = 10;

/// New contents, which are not in the repository yet.
fn fill(path: &Path, seed: u32, len: u64) {
    fs::write(path, noise(seed, len as usize)).unwrap();
}

fn empty(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(0).unwrap();
}

#[test]
fn emptying_a_large_dirty_file_folds_the_sealed_epoch_and_waits_for_nobody() {
    everywhere(|scene| {
        let path = scene.at("large");
        fill(&path, 0, CUT);
        let id = FileId(fs::metadata(&path).unwrap().ino());
        // From here on nobody captures anything: whoever waits for that waits for ever.
        let sealed = scene.epochs.seal().unwrap();
        let (done, wait) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                empty(&path);
                done.send(()).unwrap();
            });
            let late = wait.recv_timeout(HANGS_AFTER).is_err();
            let folded = sealed.is_folded();
            // Lets a program that hangs go, so that the test can fail.
            drop(sealed);
            assert!(
                !late,
                "a program waits for the capture of what it throws away"
            );
            assert!(folded, "what was needed is gone, so the epoch must be");
        });
        let counters = scene.epochs.counters();
        assert_eq!((counters.folds, counters.preserved_bytes), (1, 0));
        assert_eq!(counters.preserving.count, 1, "its delay is measured");
        fs::write(&path, b"after").unwrap();
        let next = scene.epochs.seal().unwrap();
        assert_eq!(next.take(id, 0..CUT).unwrap(), b"after"[..]);
        assert_eq!(next.attributes(id).unwrap().unwrap().stat.size, 5);
        next.finish().unwrap();
    });
}

/// Asked for without a process, so that what it tells of is not over yet.
fn status(world: &World) -> Status {
    let mut volumes = fs::read_dir(world.state().join("volumes")).unwrap();
    let state = volumes.next().unwrap().unwrap().path();
    Client::connect(&state).unwrap().status().unwrap()
}

fn begin_snapshot(world: &World, name: &str) -> Child {
    let source = world.source();
    let mut command = world.command(["snapshot".as_ref(), source.as_os_str(), name.as_ref()]);
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// Returns right after the seal, if not too late: whatever is to be sealed may have been captured by then.
fn await_seal(world: &World, snapshot: &mut Child) {
    while status(world).phase != Phase::Publishing && snapshot.try_wait().unwrap().is_none() {}
}

fn read(world: &World, at: &str, path: &Path) -> Vec<u8> {
    let arguments = [
        "cat".as_ref(),
        "--at".as_ref(),
        at.as_ref(),
        path.as_os_str(),
    ];
    let output = world.try_run(arguments);
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn a_moment_given_up_for_a_truncate_is_counted_and_the_next_is_right() {
    let test = "a_moment_given_up_for_a_truncate_is_counted_and_the_next_is_right";
    let Some(world) = world(test) else { return };
    let path = world.source().join("large");
    // It has the lower number, and is captured first.
    let before = world.source().join("before");
    world.mount(&["--mode", "cold"]);
    for attempt in 0..ATTEMPTS {
        fill(&before, 2 * attempt, LARGE);
        fill(&path, 2 * attempt + 1, LARGE);
        let named = format!("named{attempt}");
        let mut snapshot = begin_snapshot(&world, &named);
        await_seal(&world, &mut snapshot);
        let began = Instant::now();
        empty(&path);
        assert!(began.elapsed() < HANGS_AFTER, "the truncate hung");
        assert!(snapshot.wait().unwrap().success());
        let folds = status(&world).folds;
        let held = read(&world, &named, &path).len() as u64;
        // As it was before the truncate or after it; where the epoch was given up, only the latter is left.
        assert!(
            held == 0 || (held == LARGE && folds == 0),
            "{held} bytes, {folds} folds"
        );
        fs::write(&path, format!("after {attempt}")).unwrap();
        world.snapshot(&format!("after{attempt}"));
        let after = read(&world, &format!("after{attempt}"), &path);
        assert_eq!(after, format!("after {attempt}").as_bytes());
        if folds > 0 {
            let plain = world.run(["status".as_ref(), world.source().as_os_str()]);
            assert!(plain.contains("folds        1 "), "{plain}");
            world.unmount(&world.source());
            return;
        }
    }
    panic!("in {ATTEMPTS} attempts nothing had to be given up");
}
