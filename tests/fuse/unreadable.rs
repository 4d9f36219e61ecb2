//! Files that the live mount's process may not read, though those who use the mount may: they are named in `status`, stay in snapshots as they
//! last were, under the names that they have by then, and are taken up as soon as they can be read. What is damaged on the disk is
//! `tests/crash/decay.rs`'s.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Instant;

use crate::away::{NEVER, assert_whole, status};
use crate::processes::{must_exit, run};
use crate::scarcity::{has, in_front};
use crate::world::{World, can_mount};

/// Whose files the process, which has lost the right to read everybody's, may not read.
const STRANGER: u32 = 12345;
const WITHOUT_RIGHTS: [&str; 5] = [
    "setpriv",
    "--bounding-set",
    "-dac_override,-dac_read_search",
    "--inh-caps",
    "-dac_override,-dac_read_search",
];

fn is_possible(test: &str) -> bool {
    let is_root = rewindfs::sys::effective_uid() == 0;
    if !is_root {
        eprintln!("SKIPPED {test}: only root can give files away");
    }
    is_root && can_mount(test) && has(test, "setpriv")
}

fn hide(path: &Path) {
    chown(path, Some(STRANGER), None).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn show(path: &Path) {
    chown(path, Some(0), None).unwrap();
}

/// What the newest snapshot has of each file.
fn assert_newest(world: &World, name: &str, wanted: &[(&str, &str)]) {
    let past = world.dir("past");
    world.mount_past(name, &past);
    let mut names: Vec<String> = fs::read_dir(&past)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected, "{name}");
    for (file, contents) in wanted {
        let found = fs::read_to_string(past.join(file)).unwrap();
        assert_eq!(found, *contents, "{name}: {file}");
    }
    world.unmount(&past);
}

/// A file that could not be read and was renamed was gone from the next snapshot, under its old name and under the new one.
#[test]
fn a_file_that_cannot_be_read_stays_as_it_was_under_the_names_that_it_has() {
    let test = "a_file_that_cannot_be_read_stays_as_it_was_under_the_names_that_it_has";
    if !is_possible(test) {
        return;
    }
    let world = World::new();
    world.init();
    let source = world.source();
    let at = |name: &str| source.join(name);
    for name in ["changed", "linked", "moved", "replaced"] {
        fs::write(at(name), "before").unwrap();
    }
    let mut child = in_front(&world, &WITHOUT_RIGHTS);
    world.snapshot("begin");

    for name in ["changed", "linked", "moved", "new"] {
        let mut options = fs::File::options();
        options.write(true).create(true).truncate(false);
        let file = options.open(at(name)).unwrap();
        hide(&at(name));
        file.write_all_at(b"after!", 0).unwrap();
    }
    fs::rename(at("changed"), at("changed-and-renamed")).unwrap();
    fs::hard_link(at("linked"), at("another-name")).unwrap();
    fs::rename(at("moved"), at("replaced")).unwrap();
    fs::rename(at("new"), at("new-and-renamed")).unwrap();
    world.snapshot("unreadable");
    let mut told = status(&world);
    let begun = Instant::now();
    while told["last_error"].is_null() {
        assert!(begun.elapsed() < NEVER, "{told}");
        told = status(&world);
    }
    let error = told["last_error"].as_str().unwrap();
    assert!(error.contains("cannot be read"), "{told}");
    let before = [
        ("another-name", "before"),
        ("changed-and-renamed", "before"),
        ("linked", "before"),
        ("replaced", "before"),
    ];
    assert_newest(&world, "unreadable", &before);

    // The same again, with nobody there to see it.
    world.unmount(&source);
    child.wait().unwrap();
    fs::rename(at("changed-and-renamed"), at("renamed-unseen")).unwrap();
    let mut child = in_front(&world, &WITHOUT_RIGHTS);
    world.snapshot("unseen");
    let unseen = [
        ("another-name", "before"),
        ("linked", "before"),
        ("renamed-unseen", "before"),
        ("replaced", "before"),
    ];
    assert_newest(&world, "unseen", &unseen);

    fs::rename(at("new-and-renamed"), at("new-at-last")).unwrap();
    for name in ["renamed-unseen", "linked", "replaced", "new-at-last"] {
        show(&at(name));
    }
    must_exit(&run(&world, "sync", &source, &[]), 0);
    world.snapshot("readable");
    let after = [
        ("another-name", "after!"),
        ("linked", "after!"),
        ("new-at-last", "after!"),
        ("renamed-unseen", "after!"),
        ("replaced", "after!"),
    ];
    assert_newest(&world, "readable", &after);
    let begun = Instant::now();
    while !status(&world)["last_error"].is_null() {
        assert!(begun.elapsed() < NEVER, "{}", status(&world));
    }
    world.unmount(&source);
    child.wait().unwrap();
    assert_whole(&world);
}

/// Each file that could not be read cost a seal, which failed because of it.
#[test]
fn many_files_that_cannot_be_read_cost_one_seal() {
    let test = "many_files_that_cannot_be_read_cost_one_seal";
    if !is_possible(test) {
        return;
    }
    let world = World::new();
    world.init();
    let source = world.source();
    for number in 0..100 {
        let file = source.join(format!("hidden-{number}"));
        fs::write(&file, "before").unwrap();
        hide(&file);
    }
    fs::write(source.join("seen"), "before").unwrap();
    let mut child = in_front(&world, &WITHOUT_RIGHTS);
    world.snapshot("begin");
    assert_newest(&world, "begin", &[("seen", "before")]);
    let told = status(&world);
    assert!(told["folds"].as_u64().unwrap() <= 2, "{told}");
    world.unmount(&source);
    child.wait().unwrap();
}

/// The journal was lost, so that all contents were compared; what lay in a directory that could not be read then never was.
#[test]
fn what_could_not_be_looked_at_stays_in_doubt() {
    let test = "what_could_not_be_looked_at_stays_in_doubt";
    if !is_possible(test) {
        return;
    }
    let world = World::new();
    world.init();
    let source = world.source();
    let dir = source.join("dir");
    fs::create_dir(&dir).unwrap();
    for file in [source.join("seen"), dir.join("file")] {
        fs::write(file, "before").unwrap();
    }
    let live = |before: &[&str]| {
        let mut child = in_front(&world, before);
        must_exit(&run(&world, "sync", &source, &[]), 0);
        world.unmount(&source);
        child.wait().unwrap();
        let journal = ["debug".as_ref(), "journal".as_ref(), source.as_os_str()];
        world.run(journal).contains("any inode")
    };
    assert!(!live(&[]));
    let volume = fs::read_dir(world.state().join("volumes")).unwrap().next();
    let journal = volume.unwrap().unwrap().path().join("journal/db");
    fs::remove_dir_all(&journal).unwrap();
    chown(&dir, Some(STRANGER), None).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(live(&WITHOUT_RIGHTS));
    assert!(live(&WITHOUT_RIGHTS));
    assert!(!live(&[]));
    // Where no snapshot has anything of it there is nothing to be compared.
    fs::remove_file(dir.join("file")).unwrap();
    assert!(!live(&[]));
    fs::remove_dir_all(&journal).unwrap();
    assert!(!live(&WITHOUT_RIGHTS));
}
