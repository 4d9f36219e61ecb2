//! How a live mount's process ends while something is still going on: programs with open files, uploads under way, a dead mount
//! in the way of the next; and the snapshots that are looked at meanwhile.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::away::{NEVER, assert_whole, status, wait_for_phase};
use crate::processes::{in_front, is_mounted, must_exit, newest, run, signal, world};
use crate::s3_server::{Fault, Rule, S3Server};
use crate::world::{World, can_mount, when_unused};

/// A logical block, by which large files are compared.
const BLOCK: u64 = 64 << 20;
/// What change times are believed to lag behind the clock at most, and a little.
const TIMES_LAG: Duration = Duration::from_millis(1200);

#[test]
fn sigterm_with_open_files_keeps_what_was_written_and_the_next_mount_catches_up() {
    let test = "sigterm_with_open_files_keeps_what_was_written_and_the_next_mount_catches_up";
    let Some(world) = world(test) else { return };
    let source = world.source();
    let mut process = in_front(&world);
    let mut open = fs::File::create(source.join("open")).unwrap();
    open.write_all(b"before the signal").unwrap();
    signal(&process, "-TERM");
    assert_eq!(process.wait().unwrap().code(), Some(143));
    assert!(!is_mounted(&source));
    // What the program believes to have written would be in no backup.
    assert!(open.write_all(b" and after it").is_err());
    drop(open);
    world.mount(&[]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "open"), "before the signal");
    world.unmount(&source);
    assert_whole(&world);
}

#[test]
fn while_an_unmounted_process_uploads_the_past_can_be_mounted_and_then_the_present_again() {
    let test =
        "while_an_unmounted_process_uploads_the_past_can_be_mounted_and_then_the_present_again";
    if !can_mount(test) {
        return;
    }
    let server = S3Server::start("bucket");
    let world = World::on_s3(&server, &server.location("docs"));
    world.init();
    let source = world.source();
    world.mount(&[]);
    fs::write(source.join("file"), "first").unwrap();
    world.snapshot("first");
    server.inject(Rule {
        method: Some(hyper::Method::PUT),
        ..Rule::always(Fault::Hang)
    });
    fs::write(source.join("file"), "second").unwrap();
    let unmounted = when_unused(Command::new("fusermount3").arg("-u").arg(&source));
    assert!(unmounted.status.success());
    wait_for_phase(&world, "draining");

    must_exit(&run(&world, "mount", &source, &["--at", "first"]), 0);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "first");
    world.unmount(&source);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "second");

    // The old process hands over, though not one of its uploads gets on.
    must_exit(&run(&world, "mount", &source, &[]), 0);
    fs::write(source.join("file"), "third").unwrap();
    server.heal();
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "third");
    world.unmount(&source);
    assert_whole(&world);
}

/// At shutdown nobody waits for a store: what is owed is on this disk when the process ends, and the next mount goes on with it.
#[test]
fn sigterm_while_the_store_hangs_ends_at_once_and_the_next_mount_publishes_what_is_owed() {
    let test =
        "sigterm_while_the_store_hangs_ends_at_once_and_the_next_mount_publishes_what_is_owed";
    if !can_mount(test) {
        return;
    }
    let server = S3Server::start("bucket");
    let world = World::on_s3(&server, &server.location("docs"));
    world.init();
    let source = world.source();
    let mut process = in_front(&world);
    fs::write(source.join("file"), "first").unwrap();
    must_exit(&run(&world, "sync", &source, &[]), 0);
    server.inject(Rule {
        method: Some(hyper::Method::PUT),
        ..Rule::always(Fault::Hang)
    });
    fs::write(source.join("owed"), vec![7; 8 << 20]).unwrap();
    let asked = run(&world, "sync", &source, &["--timeout", "10ms"]);
    must_exit(&asked, 5);
    let begun = Instant::now();
    while status(&world)["spool_bytes"].as_u64() == Some(0) {
        assert!(begun.elapsed() < NEVER, "nothing was captured");
    }
    fs::write(source.join("file"), "second").unwrap();
    let begun = Instant::now();
    signal(&process, "-TERM");
    assert_eq!(process.wait().unwrap().code(), Some(143));
    assert!(begun.elapsed() < NEVER, "{:?}", begun.elapsed());

    server.heal();
    world.mount(&[]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "second");
    assert_eq!(newest(&world, "owed").len(), 8 << 20);
    world.unmount(&source);
    assert_whole(&world);
}

#[test]
fn mounted_snapshots_are_listed_with_their_time_and_unmounted_like_the_rest() {
    let test = "mounted_snapshots_are_listed_with_their_time_and_unmounted_like_the_rest";
    let Some(world) = world(test) else { return };
    let (source, beside) = (world.source(), world.dir("beside"));
    world.mount(&[]);
    fs::write(source.join("file"), "x").unwrap();
    world.snapshot("release one");
    world.mount_past("release one", &beside);

    let all = world.run(["status", "--json"]);
    let all: Vec<serde_json::Value> = serde_json::from_str(&all).unwrap();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0]["mode"], "warm");
    assert!(all[0]["snapshot"].is_null());
    let shown = &all[1];
    assert_eq!(shown["mode"], "snapshot");
    assert_eq!(shown["mountpoint"], beside.to_str().unwrap());
    assert_eq!(shown["snapshot"]["name"], "release one");
    assert!(
        shown["snapshot"]["time"]
            .as_str()
            .unwrap()
            .starts_with("20")
    );
    let alone = run(&world, "status", &beside, &[]);
    let told = String::from_utf8_lossy(&alone.stdout).into_owned();
    assert!(told.contains("(release one) of 20"), "{told}");

    world.unmount(&beside);
    assert!(!is_mounted(&beside) && is_mounted(&source));
    let all = world.run(["status", "--json"]);
    let all: Vec<serde_json::Value> = serde_json::from_str(&all).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");

    let unknown = run(&world, "mount", &source, &["--at", "relase-one"]);
    must_exit(&unknown, 13);
    let unknown = run(
        &world,
        "mount",
        &source,
        &["--at", "relase-one", beside.to_str().unwrap()],
    );
    let told = must_exit(&unknown, 1);
    assert!(
        told.contains("the name or id \"relase-one\"") && told.contains("yesterday 14:00"),
        "{told}"
    );
    world.unmount(&source);
}

/// A live mount over the source's own place and a snapshot on the source of one that is mounted elsewhere must not be confused.
#[test]
fn a_snapshot_on_the_source_of_a_mount_elsewhere_is_unmounted_and_not_that_mount() {
    let test = "a_snapshot_on_the_source_of_a_mount_elsewhere_is_unmounted_and_not_that_mount";
    let Some(world) = world(test) else { return };
    let (source, live) = (world.source(), world.dir("live"));
    fs::write(source.join("file"), "x").unwrap();
    must_exit(&run(&world, "mount", &source, &[live.to_str().unwrap()]), 0);
    must_exit(&run(&world, "sync", &live, &[]), 0);
    world.mount_past("latest", &source);
    world.unmount(&source);
    assert!(!is_mounted(&source) && is_mounted(&live));
    world.unmount(&live);
}

/// Lets the change times of what has been done lie far enough back.
fn let_times_pass() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = now() + TIMES_LAG;
    while now() < until {
        std::thread::yield_now();
    }
}

/// Kills the process of what is mounted over the source. One that does not answer just now has no number in the status, but 0: whoever
/// kills that kills these tests.
fn kill_process(world: &World) {
    let begun = Instant::now();
    let pid = loop {
        let now = status(world);
        match now["pid"].as_u64() {
            Some(pid) if pid != 0 => break pid.to_string(),
            _ => assert!(begun.elapsed() < NEVER, "it does not answer: {now}"),
        }
    };
    let killed = Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killed.unwrap().success());
}

pub(crate) fn kill(world: &World) {
    kill_process(world);
    let begun = Instant::now();
    // For a minute the kernel may remember its attributes, but not what it holds.
    while fs::read_dir(world.source()).is_ok() {
        assert!(begun.elapsed() < NEVER, "it did not die");
    }
}

/// Three logical blocks, no two pages alike.
fn make_large(path: &Path) {
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    for page in 0..3 * BLOCK / 4096 {
        file.write_all(&[&page.to_le_bytes()[..], &[7; 4088]].concat())
            .unwrap();
    }
    file.flush().unwrap();
}

fn write_at(path: &Path, bytes: &[u8], offset: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Bytes that the newest snapshot has added.
fn added(world: &World) -> u64 {
    let all = world.run(["snapshots", "--json"]);
    let all: Vec<serde_json::Value> = serde_json::from_str(&all).unwrap();
    let newest = all.iter().max_by_key(|one| one["seq"].as_u64()).unwrap();
    newest["added_bytes"].as_u64().unwrap()
}

fn assert_newest_is_the_source(world: &World) {
    let then = world.dir("then");
    world.mount_past("latest", &then);
    let now = fs::File::open(world.source().join("large")).unwrap();
    let then_file = fs::File::open(then.join("large")).unwrap();
    assert_eq!(
        now.metadata().unwrap().size(),
        then_file.metadata().unwrap().size()
    );
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for offset in (0..now.metadata().unwrap().size()).step_by(1 << 20) {
        now.read_exact_at(&mut a, offset).unwrap();
        then_file.read_exact_at(&mut b, offset).unwrap();
        assert!(a == b, "differs in the MiB at {offset}");
    }
    drop((now, then_file));
    world.unmount(&then);
}

/// A world with a large file that the newest snapshot holds, mounted.
fn with_large_file(test: &str) -> Option<World> {
    let world = world(test)?;
    make_large(&world.source().join("large"));
    world.mount(&[]);
    // A clean end makes the journal forget that it owes all of what was made.
    world.unmount(&world.source());
    world.mount(&["--mode", "cold"]);
    must_exit(&run(&world, "sync", &world.source(), &[]), 0);
    Some(world)
}

#[test]
fn under_a_dead_mount_only_the_touched_blocks_of_a_large_file_are_captured_again() {
    let test = "under_a_dead_mount_only_the_touched_blocks_of_a_large_file_are_captured_again";
    let Some(world) = with_large_file(test) else {
        return;
    };
    let large = world.source().join("large");
    write_at(&large, b"touched", BLOCK + 5000);
    kill(&world);
    let_times_pass();
    world.mount(&["--mode", "cold"]);
    must_exit(&run(&world, "sync", &world.source(), &[]), 0);
    let added = added(&world);
    assert!((4096..=BLOCK + BLOCK / 4).contains(&added), "{added}");
    assert_newest_is_the_source(&world);
    world.unmount(&world.source());
}

/// Whoever takes the dead mount off by hand opens the way to the source: then the journal does not know of everything.
#[test]
fn without_the_dead_mount_a_large_file_is_compared_as_a_whole() {
    let test = "without_the_dead_mount_a_large_file_is_compared_as_a_whole";
    let Some(world) = with_large_file(test) else {
        return;
    };
    let large = world.source().join("large");
    write_at(&large, b"touched", BLOCK + 5000);
    kill(&world);
    let lazily = Command::new("umount")
        .arg("-l")
        .arg(world.source())
        .status();
    assert!(lazily.unwrap().success());
    write_at(&large, b"unseen", 5000);
    // A dead mount of something else in the same place proves nothing.
    world.mount_past("latest", &world.source());
    assert_eq!(status(&world)["mode"], "snapshot");
    kill_process(&world);
    let begun = Instant::now();
    while fs::read_dir(world.source()).is_ok() {
        assert!(begun.elapsed() < NEVER, "it did not die");
    }
    let dead = status(&world);
    assert!(
        dead["last_error"].as_str().unwrap().contains("died"),
        "{dead}"
    );
    let_times_pass();
    world.mount(&["--mode", "cold"]);
    must_exit(&run(&world, "sync", &world.source(), &[]), 0);
    assert_newest_is_the_source(&world);
    world.unmount(&world.source());
}

/// A mount whose scan never came to its end knows nothing of what had been changed before it: its journal must not be believed.
#[test]
fn a_dead_mount_whose_scan_had_not_ended_proves_nothing() {
    let test = "a_dead_mount_whose_scan_had_not_ended_proves_nothing";
    let Some(world) = with_large_file(test) else {
        return;
    };
    let large = world.source().join("large");
    world.unmount(&world.source());
    write_at(&large, b"unseen", 5000);
    // Without its repository it cannot compare anything.
    fs::rename(world.path("repository"), world.path("away")).unwrap();
    world.mount(&["--mode", "cold"]);
    write_at(&large, b"touched", BLOCK + 5000);
    kill(&world);
    let_times_pass();
    fs::rename(world.path("away"), world.path("repository")).unwrap();
    world.mount(&["--mode", "cold"]);
    must_exit(&run(&world, "sync", &world.source(), &[]), 0);
    assert_newest_is_the_source(&world);
    world.unmount(&world.source());
}
