//! A comparison that finds more files than an epoch may hold, while the spool is full and the store takes nothing: no epoch can be sealed, so the
//! comparison waits where it is, in bounded memory, and programs go on. When the store takes things again, what was found is sealed, the
//! comparison goes on, and everything is published.

use std::fs;
use std::time::{Duration, Instant};

use hyper::Method;

use crate::away::{NEVER, assert_whole, status};
use crate::outage::{assert_same, must_not_hang};
use crate::processes::{must_exit, run};
use crate::s3_server::{Fault, Rule, S3Server};
use crate::sample::noise;
use crate::world::{World, can_mount};

/// The spool, which what is copied ahead of the first seal fills.
const SPOOL: u64 = 4 << 20;
/// More than one seal should hold while a comparison runs, and so copied ahead of it.
const LARGE: u32 = 40;
/// With names as long as can be, an epoch has had enough at some 38,000 of them: 22 MiB, of which each takes about 610 bytes.
const DIRS: usize = 20;
const FILES: usize = 2400;
/// So many at least are found before it waits, and so many at most. The rest is what it would find if it did not.
const FOUND_MIN: u64 = 30_000;
const FOUND_MAX: u64 = 45_000;
/// What is found takes 22 MiB; all that a process has beside it, when it does nothing else, is not more than this.
const MEMORY_MAX: u64 = 512 << 20;
/// Longer than this nobody waits for `sync` here.
const SYNC_WAIT: &str = "600s";

fn scanned(status: &serde_json::Value) -> u64 {
    status["progress"]["scanned"].as_u64().unwrap_or(0)
}

fn memory(status: &serde_json::Value) -> u64 {
    let told = fs::read_to_string(format!("/proc/{}/status", status["pid"])).unwrap();
    let now = told.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = now.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

/// A world with a small spool that is full of what has been copied ahead of the first seal.
fn with_full_spool(server: &S3Server) -> World {
    let world = World::on_s3(server, &server.location("docs"));
    let config = world.dir("config/rewindfs").join("config.toml");
    fs::write(config, format!("spool = \"{SPOOL}\"\n")).unwrap();
    world.run(["init", "--block-size", "1MiB"]);
    let source = world.source();
    for number in 0..LARGE {
        let file = source.join(format!("large-{number}"));
        fs::write(file, noise(number, 1 << 20)).unwrap();
    }
    server.inject(Rule {
        method: Some(Method::PUT),
        contains: "/d/".to_owned(),
        ..Rule::always(Fault::Hang)
    });
    world.mount(&[]);
    let begun = Instant::now();
    while status(&world)["spool_bytes"].as_u64().unwrap() < SPOOL {
        assert!(begun.elapsed() < NEVER, "{}", status(&world));
    }
    world.run(["umount".as_ref(), source.as_os_str(), "--no-wait".as_ref()]);
    world
}

#[test]
fn a_comparison_that_finds_more_than_can_be_sealed_waits_and_goes_on() {
    let test = "a_comparison_that_finds_more_than_can_be_sealed_waits_and_goes_on";
    if !can_mount(test) {
        return;
    }
    let server = S3Server::start("bucket");
    let world = with_full_spool(&server);
    let source = world.source();
    for dir in 0..DIRS {
        let dir = source.join(format!("dir-{dir}"));
        fs::create_dir(&dir).unwrap();
        for number in 0..FILES {
            fs::File::create(dir.join(format!("{number:0255}"))).unwrap();
        }
    }
    let all = (DIRS * FILES) as u64;
    assert!(all > FOUND_MAX);

    let begun = Instant::now();
    world.mount(&[]);
    let mut now = status(&world);
    while scanned(&now) < FOUND_MIN {
        assert!(begun.elapsed() < NEVER, "{now}");
        now = status(&world);
    }
    // If it did not wait, it would be through in half as long again.
    let took = begun.elapsed();
    let watched = Instant::now();
    let mut most = 0;
    while watched.elapsed() < took.max(Duration::from_secs(2)) {
        now = status(&world);
        assert_ne!(now["phase"], "idle", "{now}");
        assert!((FOUND_MIN..FOUND_MAX).contains(&scanned(&now)), "{now}");
        most = most.max(memory(&now));
    }
    assert!(most < MEMORY_MAX, "{} MiB of memory", most >> 20);
    eprintln!(
        "waits at {} of {all} with {} MiB of memory",
        scanned(&now),
        most >> 20
    );
    let held = source.clone();
    must_not_hang(move || {
        let first = held.join("dir-0").join(format!("{:0255}", 0));
        fs::write(&first, "written meanwhile").unwrap();
        fs::rename(held.join("dir-1"), held.join("dir-renamed")).unwrap();
        fs::remove_file(held.join("large-1")).unwrap();
        assert_eq!(fs::read_to_string(first).unwrap(), "written meanwhile");
    });

    server.heal();
    let synced = run(&world, "sync", &source, &["--timeout", SYNC_WAIT]);
    must_exit(&synced, 0);
    let after = status(&world);
    assert!(after["last_error"].is_null(), "{after}");
    let listed = world.run(["snapshots"]);
    assert!(
        listed.contains("(incomplete)"),
        "it was sealed in parts: {listed}"
    );
    world.unmount(&source);
    let target = world.path("restored");
    world.run(["restore".as_ref(), "--target".as_ref(), target.as_os_str()]);
    assert_same(&source, &target, "restored");
    assert_whole(&world);
}
