//! A first backup of so many files that its scan has to wait until what it has found is sealed, behind a real mount, while nothing can be
//! sealed: the spool is full, and the store takes nothing. What is remembered stays bounded, the mount goes on, and it ends when it is
//! asked to; when the store is well again, all of it is backed up.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hyper::Method;

use crate::away::{NEVER, assert_whole, status};
use crate::outage::must_not_hang;
use crate::processes::{in_front, is_mounted, must_exit, run, signal};
use crate::s3_server::{Fault, Rule, S3Server};
use crate::sample::noise;
use crate::world::{World, can_mount, when_unused};

/// Files, and how long their names are: a tenth more than a scan remembers before it waits.
const DIRS: usize = 70;
const FILES: usize = 1000;
const NAME_LEN: usize = 250;
/// What a live mount may take of memory.
const MEMORY_MAX_KIB: u64 = 256 << 10;
/// It waits if it has not got on for so long: forty times as long as it pauses.
const STANDS_FOR: Duration = Duration::from_secs(4);
const ENDS_WITHIN: Duration = Duration::from_secs(20);

fn fill(source: &Path) {
    // Copied ahead until the spool is full.
    fs::write(source.join("large"), noise(1, 24 << 20)).unwrap();
    for dir in 0..DIRS {
        let dir = source.join(format!("dir-{dir:02}"));
        fs::create_dir(&dir).unwrap();
        for number in 0..FILES {
            fs::write(dir.join(format!("{number:0>NAME_LEN$}")), b"x").unwrap();
        }
    }
}

/// Looks until the scan stands still before its end.
fn wait_until_it_waits(world: &World) {
    let begun = Instant::now();
    let (mut since, mut at) = (Instant::now(), None);
    loop {
        let now = status(world);
        let scanned = now["progress"]["scanned"].as_u64();
        let moved = scanned != at;
        if moved || scanned == Some(0) {
            (since, at) = (Instant::now(), scanned);
        } else if since.elapsed() > STANDS_FOR {
            let scanned = scanned.expect("the scan has not ended");
            assert!(scanned < (DIRS * FILES) as u64, "{now}");
            assert!(scanned > (DIRS * FILES / 2) as u64, "{now}");
            return;
        }
        assert!(begun.elapsed() < NEVER, "{now}");
    }
}

fn memory_peak_kib(world: &World) -> u64 {
    let pid = status(world)["pid"].as_u64().unwrap();
    let told = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().split_whitespace().next().unwrap();
    peak.parse().unwrap()
}

/// What programs do in what has been looked at and in what has not.
fn work(world: &World, round: usize) {
    let source = world.source();
    must_not_hang(move || {
        for dir in [0, DIRS / 2, DIRS - 1] {
            let dir = source.join(format!("dir-{dir:02}"));
            fs::write(dir.join("new"), format!("written {round} times")).unwrap();
            fs::write(dir.join(format!("{:0>NAME_LEN$}", 7)), format!("{round}")).unwrap();
            let (old, new) = (
                format!("{:0>NAME_LEN$}", 10 + round),
                format!("moved-{round}"),
            );
            fs::rename(dir.join(old), dir.join(new)).unwrap();
        }
    });
}

#[test]
fn a_scan_that_waits_for_what_it_has_found_holds_up_neither_the_mount_nor_its_end() {
    let test = "a_scan_that_waits_for_what_it_has_found_holds_up_neither_the_mount_nor_its_end";
    if !can_mount(test) {
        return;
    }
    let server = S3Server::start("bucket");
    let world = World::on_s3(&server, &server.location("docs"));
    let settings = world.dir("config/rewindfs").join("config.toml");
    fs::write(settings, "spool = \"1MiB\"\n").unwrap();
    world.run(["init", "--block-size", "1MiB"]);
    let source = world.source();
    fill(&source);
    for of in ["/d/", "/t/", "/c/"] {
        server.inject(Rule {
            method: Some(Method::PUT),
            contains: of.to_owned(),
            ..Rule::always(Fault::Status(500, "InternalError"))
        });
    }

    let mut process = in_front(&world);
    wait_until_it_waits(&world);
    work(&world, 1);
    let told = status(&world);
    assert_eq!(told["phase"], "failing", "{told}");
    let peak = memory_peak_kib(&world);
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
    let begun = Instant::now();
    signal(&process, "-TERM");
    assert_eq!(process.wait().unwrap().code(), Some(143));
    assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());
    assert!(!is_mounted(&source));

    let mut process = in_front(&world);
    wait_until_it_waits(&world);
    work(&world, 2);
    let begun = Instant::now();
    let unmounted = when_unused(Command::new("umount").arg(&source));
    assert!(unmounted.status.success());
    process.wait().unwrap();
    assert!(begun.elapsed() < ENDS_WITHIN, "{:?}", begun.elapsed());

    world.mount(&[]);
    wait_until_it_waits(&world);
    work(&world, 3);
    server.heal();
    must_exit(&run(&world, "sync", &source, &[]), 0);
    let peak = memory_peak_kib(&world);
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
    let then = world.dir("then");
    world.mount_past("latest", &then);
    for dir in 0..DIRS {
        let dir = format!("dir-{dir:02}");
        let names = |root: &Path| {
            let names = fs::read_dir(root.join(&dir)).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert!(names(&then) == names(&source), "{dir}");
        for name in ["new".to_owned(), format!("{:0>NAME_LEN$}", 7)] {
            let read = |root: &Path| fs::read(root.join(&dir).join(&name)).ok();
            assert_eq!(read(&then), read(&source), "{dir}/{name}");
        }
    }
    assert!(fs::read(then.join("large")).unwrap() == noise(1, 24 << 20));
    world.unmount(&then);
    world.unmount(&source);
    assert_whole(&world);
}
