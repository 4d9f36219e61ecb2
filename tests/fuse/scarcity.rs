//! A live mount that lacks something: descriptors, or the right to open files by handle.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::world::{World, can_mount};

/// Mounts the source in front, with another program before ours, and returns when the mount answers.
fn in_front(world: &World, before: &[&str]) -> Child {
    let source = world.source();
    let ours = world.command(["mount".as_ref(), "-f".as_ref(), source.as_os_str()]);
    let mut command = match before.split_first() {
        None => ours,
        Some((first, more)) => {
            let mut command = Command::new(first);
            command
                .args(more)
                .arg(ours.get_program())
                .args(ours.get_args());
            let set = ours
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?)));
            command.envs(set);
            command
        }
    };
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let began = std::time::Instant::now();
    while !world
        .try_run(["status".as_ref(), source.as_os_str()])
        .status
        .success()
        || !is_mounted(&source)
    {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(60),
            "the mount did not come to be"
        );
    }
    child
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let path = path.to_str().unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(path))
}

/// Whether a program is there that the test needs.
fn has(test: &str, program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIPPED {test}: no {program} on this machine");
    }
    there
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A directory was made, and then there was no descriptor left to look at it: the program was told that it had not been made, and
/// snapshots did not have it.
#[test]
fn without_descriptors_a_request_fails_before_it_has_done_anything() {
    let test = "without_descriptors_a_request_fails_before_it_has_done_anything";
    if !can_mount(test) || !has(test, "prlimit") {
        return;
    }
    let world = World::new();
    world.init();
    let mut child = in_front(&world, &[]);
    let source = world.source();
    fs::create_dir(source.join("dir")).unwrap();
    fs::write(source.join("dir/file"), "x").unwrap();
    let id = child.id().to_string();
    let limit = |files: &str| {
        let limited = Command::new("prlimit")
            .args(["--pid", &id, &format!("--nofile={files}:")])
            .status();
        assert!(limited.unwrap().success());
    };
    limit("3");
    let (mut made, mut refused) = (Vec::new(), 0);
    for n in 0..20 {
        let (dir, link) = (format!("sub{n}"), format!("link{n}"));
        match fs::create_dir(source.join(&dir)) {
            Ok(()) => made.push(dir),
            Err(_) => refused += 1,
        }
        match std::os::unix::fs::symlink("to", source.join(&link)) {
            Ok(()) => made.push(link),
            Err(_) => refused += 1,
        }
        match fs::write(source.join(format!("file{n}")), "x") {
            Ok(()) => made.push(format!("file{n}")),
            Err(_) => refused += 1,
        }
    }
    limit("1024");
    made.push("dir".to_owned());
    made.sort();
    assert!(refused > 0, "the limit did not bite");
    assert_eq!(names(&source), made, "what was refused is not there");
    world.snapshot("after");
    let past = world.dir("past");
    world.mount_past("after", &past);
    assert_eq!(names(&past), made);
    world.unmount(&past);
    world.unmount(&source);
    child.wait().unwrap();
}

/// Where files cannot be opened by handle, one that had lost one of its names was found no more: programs got ESTALE, and the next
/// snapshot did not have what they had written.
#[test]
fn without_handles_a_linked_file_is_found_by_any_of_its_names() {
    let test = "without_handles_a_linked_file_is_found_by_any_of_its_names";
    if !can_mount(test) || !has(test, "setpriv") {
        return;
    }
    let world = World::new();
    world.init();
    let source = world.source();
    for n in 0..200 {
        let dir = source.join(format!("d{n}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("one"), format!("{n}")).unwrap();
    }
    // So few descriptors that none is kept for long.
    let before = [
        "setpriv",
        "--bounding-set",
        "-dac_read_search",
        "--inh-caps",
        "-dac_read_search",
    ];
    let mut child = in_front(&world, &before);
    for n in 0..200 {
        let dir = source.join(format!("d{n}"));
        fs::hard_link(dir.join("one"), dir.join("two")).unwrap();
        fs::remove_file(dir.join("two")).unwrap();
        fs::rename(&dir, source.join(format!("e{n}"))).unwrap();
    }
    for n in 0..200 {
        let file = source.join(format!("e{n}/one"));
        fs::write(&file, format!("{n} again")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{n} again"));
    }
    world.snapshot("after");
    let past = world.dir("past");
    world.mount_past("after", &past);
    assert_eq!(names(&past), names(&source));
    for n in 0..200 {
        let file = past.join(format!("e{n}/one"));
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{n} again"));
    }
    world.unmount(&past);
    world.unmount(&source);
    child.wait().unwrap();
}
