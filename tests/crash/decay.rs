//! A disk under the source of which some sectors cannot be read any more: real EIO, from a real file system. One such file keeps no other from
//! being backed up; it is named, stays in snapshots as it last was, and comes back when it can be read.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rewindfs::failpoint::Point;

use crate::disk::{Disk, must};
use crate::kill::seed;
use crate::life::Life;
use crate::listing;
use crate::wait;
use crate::world::{World, can_mount};

const OFTEN: &[&str] = &["--interval", "100ms"];
const PAGE: usize = 4096;
/// Longer than what is read at once.
const LEN: usize = 3 << 20;
/// The longest until `status` tells of what was done before.
const TOLD_MAX: Duration = Duration::from_secs(180);

fn noise(number: u64) -> Vec<u8> {
    use rand::{RngExt, SeedableRng};
    let mut bytes = vec![0; LEN];
    rand::rngs::StdRng::seed_from_u64(seed() ^ number).fill(&mut bytes[..]);
    bytes
}

/// A page in the middle of a file decays, and nobody has it in memory.
fn decay(disk: &Disk, path: &Path) {
    disk.decay(&middle(path));
    drop_from_memory(path);
    let read = fs::read(path).unwrap_err();
    assert_eq!(read.raw_os_error(), Some(libc::EIO));
}

/// A page in the middle of a file is another, which nothing tells of. What the file holds now.
fn exchange(disk: &Disk, path: &Path) -> Vec<u8> {
    let page = middle(path);
    let other: Vec<u8> = page.iter().map(|byte| !byte).collect();
    let look = || fs::metadata(path).unwrap();
    let before = look();
    disk.exchange(&page, &other);
    drop_from_memory(path);
    let after = look();
    let times = |meta: &fs::Metadata| (meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
    assert_eq!(times(&before), times(&after));
    assert!(middle(path) == other);
    fs::read(path).unwrap()
}

/// The page in the middle of a file, which the disk has.
fn middle(path: &Path) -> Vec<u8> {
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    let mut page = vec![0; PAGE];
    file.read_exact_at(&mut page, (LEN / 2) as u64).unwrap();
    page
}

fn drop_from_memory(path: &Path) {
    let of = format!("of={}", path.display());
    let options = [
        "oflag=nocache",
        "conv=notrunc,fdatasync",
        "count=0",
        "status=none",
    ];
    let arguments = [&of[..]].into_iter().chain(options).map(OsStr::new);
    must("dd", &arguments.collect::<Vec<_>>());
}

fn last_error(world: &World) -> Option<String> {
    let source = world.source();
    let json = world.run(["status".as_ref(), source.as_os_str(), "--json".as_ref()]);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    status["last_error"].as_str().map(str::to_owned)
}

/// The newest snapshot is the source, but for files that it has otherwise, or has not.
fn assert_newest(world: &World, name: &str, otherwise: &[(&str, Option<&[u8]>)]) {
    let (source, past) = (world.source(), world.dir("past"));
    let snapshot = ["snapshot".as_ref(), source.as_os_str(), OsStr::new(name)];
    world.run(snapshot);
    world.mount_past(name, &past);
    let mut names: Vec<_> = fs::read_dir(&source).unwrap().flatten().collect();
    names.retain(|entry| {
        let name = entry.file_name();
        otherwise.iter().all(|(other, _)| name != *other)
    });
    for entry in &names {
        let then = fs::read(past.join(entry.file_name())).unwrap();
        assert!(fs::read(entry.path()).unwrap() == then, "{name}: {entry:?}");
    }
    let mut there = names.len();
    for (other, contents) in otherwise {
        let then = fs::read(past.join(other)).ok();
        assert!(then.as_deref() == *contents, "{name}: {other}");
        there += usize::from(contents.is_some());
    }
    assert_eq!(fs::read_dir(&past).unwrap().count(), there, "{name}");
    world.unmount(&past);
}

#[test]
fn a_file_that_has_decayed_keeps_no_other_from_being_backed_up() {
    let test = "a_file_that_has_decayed_keeps_no_other_from_being_backed_up";
    if !can_mount(test) || !Disk::is_possible(test) {
        return;
    }
    let world = World::with_disk("disk");
    world.init();
    let disk = Disk::mount(
        &world.path("image"),
        &world.dir("work"),
        &world.path("disk"),
        "defaults",
    );
    let source = world.source();
    fs::create_dir_all(&source).unwrap();
    let at = |name: &str| source.join(name);
    for (number, name) in (0..).zip(["never-read", "read-once", "whole"]) {
        fs::write(at(name), noise(number)).unwrap();
    }
    decay(&disk, &at("never-read"));
    // It is decayed from the first backup on.
    let mut life = Life::begin(&world, OFTEN, None);
    assert_newest(&world, "decayed", &[("never-read", None)]);
    let told = wait::within(TOLD_MAX, || last_error(&world)).unwrap();
    assert!(told.contains("cannot be read"), "{told}");
    fs::write(at("whole"), noise(7)).unwrap();
    fs::rename(at("never-read"), at("renamed")).unwrap();
    assert_newest(&world, "moved", &[("renamed", None)]);

    // Another, which the last snapshot has, decays while nobody looks, and looks as if it had been changed.
    life.kill();
    world.unmount(&source);
    decay(&disk, &at("read-once"));
    let was = noise(1);
    fs::File::options()
        .write(true)
        .open(at("read-once"))
        .unwrap()
        .write_all_at(b"changed", 0)
        .unwrap();
    let mut life = Life::begin(&world, OFTEN, None);
    fs::rename(at("read-once"), at("read-once-renamed")).unwrap();
    let left = [("read-once-renamed", Some(&was[..])), ("renamed", None)];
    assert_newest(&world, "compared", &left);
    let told = wait::within(TOLD_MAX, || last_error(&world)).unwrap();
    assert!(told.contains("cannot be read"), "{told}");

    // The disk is copied to a new one.
    life.kill();
    world.unmount(&source);
    disk.mend();
    let mut life = Life::begin(&world, OFTEN, None);
    assert_newest(&world, "mended", &[]);
    let past = world.dir("past");
    world.mount_past("mended", &past);
    listing::assert_same(&listing::of(&past), &listing::of(&source), "mended");
    world.unmount(&past);
    let mended = wait::within(TOLD_MAX, || last_error(&world).is_none().then_some(()));
    assert!(mended.is_some(), "{:?}", last_error(&world));
    let checked = world.run(["check", "--read-data"]);
    assert!(checked.starts_with("no damage found"), "{checked}");
    life.kill();
    world.unmount(&source);
}

/// The journal was lost, so that all contents are compared, whatever their times say. Where that was broken off, or did not come to a file
/// that could not be read then, the next life knew nothing of it and believed the times again.
#[test]
fn what_nothing_tells_of_is_found_also_by_a_comparison_that_was_broken_off() {
    let test = "what_nothing_tells_of_is_found_also_by_a_comparison_that_was_broken_off";
    if !can_mount(test) || !Disk::is_possible(test) {
        return;
    }
    let world = World::with_disk("disk");
    world.init();
    let (image, work, place) = (world.path("image"), world.dir("work"), world.path("disk"));
    let disk = Disk::mount(&image, &work, &place, "defaults");
    let source = world.source();
    fs::create_dir_all(&source).unwrap();
    let at = |name: &str| source.join(name);
    for (number, name) in (0..).zip(["exchanged", "unreadable"]) {
        fs::write(at(name), noise(number)).unwrap();
    }
    let mut life = Life::begin(&world, OFTEN, None);
    assert_newest(&world, "as they were", &[]);
    let end = |life: &mut Life| {
        world.unmount(&source);
        assert!(life.ends_within(TOLD_MAX).is_some());
    };
    end(&mut life);

    let was = fs::read(at("unreadable")).unwrap();
    let is = exchange(&disk, &at("exchanged"));
    exchange(&disk, &at("unreadable"));
    decay(&disk, &at("unreadable"));
    let volume = fs::read_dir(world.state().join("volumes")).unwrap().next();
    fs::remove_dir_all(volume.unwrap().unwrap().path().join("journal/db")).unwrap();

    let mut life = Life::begin(&world, OFTEN, Some(Point::Scan.name()));
    assert!(life.ends_within(TOLD_MAX).is_some());
    let mut life = Life::begin(&world, OFTEN, None);
    assert_newest(&world, "unreadable", &[("unreadable", Some(&was[..]))]);
    assert!(fs::read(at("exchanged")).unwrap() == is);
    end(&mut life);

    // Twice, since the one in between has nothing else to do.
    let mut life = Life::begin(&world, OFTEN, None);
    assert_newest(
        &world,
        "still unreadable",
        &[("unreadable", Some(&was[..]))],
    );
    end(&mut life);
    disk.mend();
    let mut life = Life::begin(&world, OFTEN, None);
    assert_newest(&world, "readable", &[]);
    end(&mut life);
}
