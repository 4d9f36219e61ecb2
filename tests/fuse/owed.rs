//! Plain umount(8) and `fusermount3 -u` while the store takes nothing and all that was written is owed: the past is mounted at once, the next
//! live mount takes over from the old process, and in the end everything is published. `scripts/gigabytes-owed` does it with gigabytes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use hyper::Method;

use crate::away::{assert_whole, status, wait_for_phase};
use crate::outage::assert_same;
use crate::processes::{must_exit, newest, run};
use crate::s3_server::{Fault, Rule, S3Server};
use crate::sample::noise;
use crate::world::{World, can_mount, when_unused};

/// How much is owed when nobody asks for more.
const OWED_MIB: u64 = 64;
const MIB: u64 = 1 << 20;
const FILE: u64 = 8 * MIB;
/// What a process may hold in memory, however much it owes: its caches, buffers and blocks on their way, and as much again for the spread of
/// an allocator.
const MEMORY_MAX: u64 = 2 << 30;

fn owed() -> u64 {
    let asked = std::env::var("REWINDFS_TEST_OWED_MIB").ok();
    let asked = asked.map(|asked| asked.parse().expect("REWINDFS_TEST_OWED_MIB is a number"));
    asked.unwrap_or(OWED_MIB) * MIB
}

/// The most that a process has had in memory.
fn memory_peak(pid: u64) -> u64 {
    let told = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

fn everything_is_owed_at(test: &str, unmount: &[&str]) {
    if !can_mount(test) {
        return;
    }
    let begun = Instant::now();
    let server = S3Server::start("bucket");
    let world = World::on_s3(&server, &server.location("docs"));
    world.init();
    let source = world.source();
    world.mount(&[]);
    fs::write(source.join("file"), "first").unwrap();
    world.snapshot("first");

    server.inject(Rule {
        method: Some(Method::PUT),
        ..Rule::always(Fault::Hang)
    });
    let taken = server.received_bytes();
    fs::write(source.join("file"), "second").unwrap();
    for number in 0..owed().div_ceil(FILE) {
        let file = source.join(format!("owed-{number}"));
        fs::write(file, noise(number as u32, FILE as usize)).unwrap();
    }
    let before = status(&world);
    let (old, pid) = (
        before["pid"].as_u64().unwrap(),
        |now: &serde_json::Value| now["pid"].as_u64().unwrap(),
    );
    assert!(before["lag_seconds"].as_f64().unwrap() > 0.0, "{before}");
    let mut command = Command::new(unmount[0]);
    let unmounted = when_unused(command.args(&unmount[1..]).arg(&source));
    assert!(unmounted.status.success(), "{unmounted:?}");
    let draining = wait_for_phase(&world, "draining");
    assert_eq!(pid(&draining), old);
    assert_eq!(server.received_bytes(), taken, "it is owed, all of it");

    // The past, at once: nothing gets on meanwhile.
    must_exit(&run(&world, "mount", &source, &["--at", "first"]), 0);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "first");
    assert!(!source.join("owed-0").exists());
    world.unmount(&source);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "second");

    // The present, again: the old process hands over.
    must_exit(&run(&world, "mount", &source, &[]), 0);
    let after = status(&world);
    assert_ne!(pid(&after), old);
    assert!(!Path::new(&format!("/proc/{old}")).exists(), "{after}");
    assert_eq!(server.received_bytes(), taken, "it is still owed");
    fs::write(source.join("file"), "third").unwrap();
    let taken_over = begun.elapsed();

    server.heal();
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "third");
    assert!(server.received_bytes() - taken >= owed());
    let peak = memory_peak(pid(&status(&world)));
    assert!(peak < MEMORY_MAX, "{} MiB of memory", peak / MIB);
    let synced = begun.elapsed();
    let shown = world.dir("shown");
    world.mount_past("latest", &shown);
    assert_same(&source, &shown, "everything was owed");
    world.unmount(&shown);
    world.unmount(&source);
    assert_whole(&world);
    eprintln!(
        "{} MiB owed at {}: taken over after {taken_over:?}, published after {synced:?} with {} MiB of memory, proven after {:?}",
        owed() / MIB,
        unmount[0],
        peak / MIB,
        begun.elapsed(),
    );
}

#[test]
fn what_is_owed_at_umount_is_taken_over_and_published() {
    let test = "what_is_owed_at_umount_is_taken_over_and_published";
    everything_is_owed_at(test, &["umount"]);
}

#[test]
fn what_is_owed_at_fusermount_is_taken_over_and_published() {
    let test = "what_is_owed_at_fusermount_is_taken_over_and_published";
    everything_is_owed_at(test, &["fusermount3", "-u"]);
}
