//! A live mount that lacks something: descriptors, or the right to open files by handle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::world::{World, can_mount};

/// Mounts the source in front, with another program before ours, and returns when the mount answers.
pub(crate) fn in_front(world: &World, before: &[&str]) -> Child {
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
    while !answers(world) {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(180),
            "the mount did not come to be"
        );
    }
    child
}

/// Whether the live mount can be asked for things. The kernel has it a moment earlier.
fn answers(world: &World) -> bool {
    let source = world.source();
    let told = world.try_run(["status".as_ref(), source.as_os_str(), "--json".as_ref()]);
    told.status.success() && {
        let status: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
        status["mounted"] == true
    }
}

/// Whether a program is there that the test needs.
pub(crate) fn has(test: &str, program: &str) -> bool {
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

/// Often enough that a request is caught between two of its steps in one of them.
const ROUNDS: usize = 30;

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
    let id = child.id().to_string();
    let limit = |files: usize| {
        let limited = Command::new("prlimit")
            .args(["--pid", &id, &format!("--nofile={files}:")])
            .status();
        assert!(limited.unwrap().success());
    };
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let usual = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let usual = usual
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    // Each thread has a directory of its own, since the kernel lets only one request at a time change a directory.
    let dirs: Vec<_> = (0..6).map(|n| source.join(format!("dir{n}"))).collect();
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let (mut made, mut refused) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        // A few left, which the threads take from each other between one step of a request and the next.
        let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        limit(open + 3);
        let tried: Vec<_> = std::thread::scope(|threads| {
            let make = |dir: PathBuf| {
                let name = move |n| dir.join(format!("{round} {n}"));
                threads.spawn(move || {
                    let tried = (0..10).map(|n| (name(n), fs::create_dir(name(n))));
                    tried.collect::<Vec<_>>()
                })
            };
            let threads: Vec<_> = dirs.iter().cloned().map(make).collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.flatten().collect()
        });
        for (name, done) in tried {
            match done {
                Ok(()) => made.push(name),
                Err(_) => refused += 1,
            }
        }
    }
    limit(usual);
    assert!(refused > 0, "the limit did not bite");
    let below = |root: &Path| -> Vec<String> {
        let all = names(root)
            .into_iter()
            .map(|dir| (names(&root.join(&dir)), dir));
        let mut all: Vec<String> = all
            .flat_map(|(names, dir)| names.into_iter().map(move |name| format!("{dir}/{name}")))
            .collect();
        all.sort();
        all
    };
    let mut made: Vec<String> = made
        .iter()
        .map(|path| {
            path.strip_prefix(&source)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    made.sort();
    assert_eq!(below(&source), made, "what was refused is not there");
    world.snapshot("after");
    let past = world.dir("past");
    world.mount_past("after", &past);
    assert_eq!(below(&past), made);
    world.unmount(&past);
    world.unmount(&source);
    child.wait().unwrap();
}

/// Where files cannot be opened by handle, one that had lost the name that it was last seen under was taken for gone: the next
/// snapshot did not have it, although it had another name, and a program that was writing to it.
#[test]
fn without_handles_a_linked_file_is_found_by_any_of_its_names() {
    let test = "without_handles_a_linked_file_is_found_by_any_of_its_names";
    if !can_mount(test) || !has(test, "setpriv") || !has(test, "prlimit") {
        return;
    }
    let world = World::new();
    world.init();
    let source = world.source();
    fs::create_dir(source.join("filler")).unwrap();
    for n in 0..400 {
        fs::write(source.join(format!("filler/{n}")), "x").unwrap();
    }
    let dirs: Vec<String> = (0..50).map(|n| format!("dir{n}")).collect();
    for dir in &dirs {
        fs::create_dir(source.join(dir)).unwrap();
        fs::write(source.join(dir).join("one"), "before").unwrap();
    }
    // A quarter of the descriptors is used for remembering: less than there are files.
    let before = [
        "prlimit",
        "--nofile=1024:1024",
        "setpriv",
        "--bounding-set",
        "-dac_read_search",
        "--inh-caps",
        "-dac_read_search",
    ];
    let mut child = in_front(&world, &before);
    world.snapshot("begin");
    let open = |dir: &String| {
        let file = source.join(dir).join("one");
        fs::File::options().write(true).open(file).unwrap()
    };
    let files: Vec<fs::File> = dirs.iter().map(open).collect();
    for dir in &dirs {
        let dir = source.join(dir);
        fs::hard_link(dir.join("one"), dir.join("two")).unwrap();
        fs::remove_file(dir.join("two")).unwrap();
        fs::rename(&dir, dir.with_extension("moved")).unwrap();
    }
    for n in 0..400 {
        fs::metadata(source.join(format!("filler/{n}"))).unwrap();
    }
    for file in &files {
        std::os::unix::fs::FileExt::write_all_at(file, b"after!", 0).unwrap();
    }
    world.snapshot("after");
    let past = world.dir("past");
    world.mount_past("after", &past);
    for dir in &dirs {
        let file = past.join(dir).with_extension("moved").join("one");
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "after!",
            "{}",
            file.display()
        );
    }
    drop(files);
    world.unmount(&past);
    world.unmount(&source);
    child.wait().unwrap();
}
