//! The life of a live mount's process, run as people and scripts run it: start, stop, signals, death, hand-over.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use crate::away::NEVER;
use crate::world::{World, can_mount, when_unused};

/// A world with a repository, or `None` where nothing can be mounted.
pub(crate) fn world(test: &str) -> Option<World> {
    can_mount(test).then(|| {
        let world = World::new();
        world.init();
        world
    })
}

/// Mounts the source in front and returns when the mount answers.
pub(crate) fn in_front(world: &World) -> Child {
    let source = world.source();
    let mut child = world
        .command(["mount".as_ref(), "-f".as_ref(), source.as_os_str()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.any(|line| line.unwrap().contains("backs itself up"));
    assert!(ready, "the mount did not come to be");
    // Goes on reading, so that the process never writes into a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

pub(crate) fn run(world: &World, command: &str, path: &Path, more: &[&str]) -> Output {
    let mut arguments = vec![command.as_ref(), path.as_os_str()];
    arguments.extend(more.iter().map(std::ffi::OsStr::new));
    world.try_run(arguments)
}

#[track_caller]
pub(crate) fn must_exit(output: &Output, code: i32) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

/// What the newest snapshot holds of a file.
pub(crate) fn newest(world: &World, name: &str) -> String {
    let path = world.source().join(name);
    world.run([
        "cat".as_ref(),
        "--at".as_ref(),
        "latest".as_ref(),
        path.as_os_str(),
    ])
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let path = path.to_str().unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(path))
}

#[test]
fn mounted_synced_unmounted_and_mounted_again_as_it_was() {
    let Some(world) = world("mounted_synced_unmounted_and_mounted_again_as_it_was") else {
        return;
    };
    let source = world.source();
    let file = source.join("file");
    fs::write(&file, "before it was mounted").unwrap();
    world.mount(&[]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "before it was mounted");
    world.snapshot("first of all");
    fs::write(&file, "changed").unwrap();
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "changed");
    world.unmount(&source);
    assert!(!is_mounted(&source));

    // Where it is usually mounted, by name; then over: the live files are there again.
    let past = run(&world, "mount", &source, &["--at", "first of all"]);
    let told = must_exit(&past, 0);
    assert!(
        told.contains("(first of all) of 20") && told.contains("local 20"),
        "{told}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "before it was mounted");
    must_exit(&run(&world, "mount", &source, &[]), 13);
    world.unmount(&source);
    assert_eq!(fs::read_to_string(&file).unwrap(), "changed");
    assert!(
        world
            .run(["check", "--read-data"])
            .starts_with("no damage found")
    );
}

#[test]
fn status_says_in_the_promised_fields_what_is_going_on() {
    let Some(world) = world("status_says_in_the_promised_fields_what_is_going_on") else {
        return;
    };
    let source = world.source();
    world.mount(&["--mode", "cold"]);
    must_exit(&run(&world, "mount", &source, &[]), 13);
    fs::write(source.join("file"), vec![7; 100_000]).unwrap();
    let status = |json: &Output| -> serde_json::Value {
        must_exit(json, 0);
        serde_json::from_slice(&json.stdout).unwrap()
    };
    must_exit(&run(&world, "sync", &source, &[]), 0);
    let begun = Instant::now();
    let live = loop {
        let live = status(&run(&world, "status", &source, &["--json"]));
        // What is published leaves the spool a moment later.
        if live["spool_bytes"] == 0 && live["last_error"].is_null() {
            break live;
        }
        assert!(begun.elapsed() < NEVER, "{live}");
    };
    assert!(live["pid"].as_u64().is_some_and(|pid| pid > 0));
    assert_eq!(live["mode"], "cold");
    assert_eq!(live["source"], source.to_str().unwrap());
    assert!(live["last_commit"]["seq"].as_u64().is_some());
    assert!(
        live["ratios"]["C"]
            .as_f64()
            .is_some_and(|ratio| ratio < 0.1)
    );

    world.unmount(&source);
    let after = status(&run(&world, "status", &source, &["--json"]));
    assert_eq!(after["phase"], "stopped");
    assert_eq!(after["pid"], 0);
}

#[test]
fn killed_and_mounted_again_loses_nothing() {
    let Some(world) = world("killed_and_mounted_again_loses_nothing") else {
        return;
    };
    let source = world.source();
    let mut process = in_front(&world);
    fs::write(source.join("file"), "written").unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let dead = fs::metadata(&source).unwrap_err();
    assert_eq!(dead.raw_os_error(), Some(107), "ENOTCONN");
    let told = run(&world, "status", &source, &[]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("mounting again"));

    world.mount(&[]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "written");
    world.unmount(&source);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "written");
}

/// For as long as the kernel may believe the attributes of its root, a dead mount answered stat as if it were alive, and was
/// taken for a mount that must be taken off first: mounting again failed within seconds after a crash, as scripts do it.
#[test]
fn killed_just_after_it_was_looked_at_it_is_mounted_again() {
    let Some(world) = world("killed_just_after_it_was_looked_at_it_is_mounted_again") else {
        return;
    };
    let source = world.source();
    let mut process = in_front(&world);
    fs::metadata(&source).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    // For seconds the kernel remembers it, unless the machine has been busy for longer.
    let forgotten = fs::metadata(&source).err();
    let dead = forgotten.as_ref().map(std::io::Error::raw_os_error);
    assert!(
        matches!(dead, None | Some(Some(libc::ENOTCONN))),
        "{dead:?}"
    );
    world.mount(&[]);
    world.unmount(&source);
}

#[test]
fn a_dead_mount_can_be_unmounted() {
    let Some(world) = world("a_dead_mount_can_be_unmounted") else {
        return;
    };
    let source = world.source();
    let mut process = in_front(&world);
    process.kill().unwrap();
    process.wait().unwrap();
    world.unmount(&source);
    assert!(!is_mounted(&source));
}

#[test]
fn signals_unmount_keep_everything_for_the_next_mount_and_give_their_codes() {
    let Some(world) =
        world("signals_unmount_keep_everything_for_the_next_mount_and_give_their_codes")
    else {
        return;
    };
    let source = world.source();
    for (name, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut process = in_front(&world);
        fs::write(source.join("file"), name).unwrap();
        signal(&process, name);
        assert_eq!(process.wait().unwrap().code(), Some(code));
        assert!(!is_mounted(&source));
        assert_eq!(fs::read_to_string(source.join("file")).unwrap(), name);
    }
    world.mount(&[]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "-INT");
}

#[test]
fn plain_umount_loses_nothing_and_ends_well() {
    let Some(world) = world("plain_umount_loses_nothing_and_ends_well") else {
        return;
    };
    let source = world.source();
    let mut process = in_front(&world);
    // The scan has ended when this returns, so that what follows can be published.
    must_exit(&run(&world, "sync", &source, &[]), 0);
    fs::write(source.join("file"), "written").unwrap();
    let umount = when_unused(Command::new("fusermount3").arg("-u").arg(&source));
    assert!(umount.status.success());
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert_eq!(newest(&world, "file"), "written");
}

#[test]
fn what_is_in_use_stays_mounted() {
    let Some(world) = world("what_is_in_use_stays_mounted") else {
        return;
    };
    let source = world.source();
    fs::write(source.join("file"), "x").unwrap();
    world.mount(&[]);
    let held = fs::File::open(source.join("file")).unwrap();
    let told = must_exit(&run(&world, "umount", &source, &[]), 13);
    assert!(told.contains("in use"), "{told}");
    assert!(is_mounted(&source));
    drop(held);
    world.unmount(&source);
}

#[test]
fn without_its_repository_the_mount_goes_on_and_another_process_takes_over_what_is_owed() {
    let Some(world) = world(
        "without_its_repository_the_mount_goes_on_and_another_process_takes_over_what_is_owed",
    ) else {
        return;
    };
    let source = world.source();
    world.mount(&[]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    fs::rename(world.path("repository"), world.path("away")).unwrap();
    fs::write(source.join("file"), "owed").unwrap();
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "owed");
    let told = must_exit(&run(&world, "sync", &source, &["--timeout", "500ms"]), 5);
    assert!(
        told.contains("not everything is in the repository"),
        "{told}"
    );
    world.run(["umount".as_ref(), source.as_os_str(), "--no-wait".as_ref()]);

    fs::rename(world.path("away"), world.path("repository")).unwrap();
    world.mount(&[]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "owed");
    world.unmount(&source);
    assert!(
        world
            .run(["check", "--read-data"])
            .starts_with("no damage found")
    );
}

#[test]
fn one_command_on_a_fresh_machine_makes_a_repository_and_mounts() {
    if !can_mount("one_command_on_a_fresh_machine_makes_a_repository_and_mounts") {
        return;
    }
    let world = World::new();
    let source = world.source();
    let fresh_command = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command
            .env_remove("REWINDFS_REPO")
            .env_remove("REWINDFS_PASSWORD");
        command
    };
    let fresh = |arguments: &[&str]| fresh_command(arguments).output().unwrap();
    let place = source.to_str().unwrap();
    let let_go = || when_unused(&mut fresh_command(&["umount", place]));
    let told = must_exit(&fresh(&["mount", place]), 0);
    assert!(
        told.contains("protects against") && told.contains("recovery key"),
        "{told}"
    );
    let key = world.path("config").join("rewindfs/default.key");
    let text = fs::read_to_string(&key).unwrap();
    assert!(!told.contains(text.trim()), "the key itself was printed");
    let mode = std::os::unix::fs::PermissionsExt::mode(&key.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    fs::write(source.join("file"), "x").unwrap();
    must_exit(&let_go(), 0);
    let again = must_exit(&fresh(&["mount", place]), 0);
    assert!(!again.contains("recovery key"), "{again}");
    assert_eq!(fs::read_to_string(&key).unwrap(), text);
    must_exit(&let_go(), 0);
    let shown = fresh(&["cat", "--at", "latest", &format!("{place}/file")]);
    must_exit(&shown, 0);
    assert_eq!(shown.stdout, b"x");
}

#[test]
fn a_volume_of_the_same_name_is_not_gone_on_with_unasked() {
    let Some(world) = world("a_volume_of_the_same_name_is_not_gone_on_with_unasked") else {
        return;
    };
    world.mount(&[]);
    world.unmount(&world.source());
    let other = world.dir("elsewhere/source");
    let told = must_exit(&run(&world, "mount", &other, &[]), 2);
    assert!(told.contains("--volume"), "{told}");
    must_exit(&run(&world, "mount", &other, &["--volume", "another"]), 0);
    world.unmount(&other);
}

#[test]
fn in_hot_mode_fsync_waits_for_the_repository_and_nobody_else_does() {
    let Some(world) = world("in_hot_mode_fsync_waits_for_the_repository_and_nobody_else_does")
    else {
        return;
    };
    /// More than the mount has loop threads.
    const WAITING: usize = 12;
    let source = world.source();
    world.mount(&["--mode", "hot", "--interval", "1h"]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    fs::write(source.join("durable"), "x").unwrap();
    fs::File::open(source.join("durable"))
        .unwrap()
        .sync_all()
        .unwrap();
    assert_eq!(newest(&world, "durable"), "x");

    fs::rename(world.path("repository"), world.path("away")).unwrap();
    let waiting: Vec<_> = (0..WAITING)
        .map(|number| {
            let file = fs::File::create(source.join(format!("waits-{number}"))).unwrap();
            std::thread::spawn(move || file.sync_all())
        })
        .collect();
    // With the store away this would never return if one of them held up the mount.
    fs::write(source.join("other"), "written meanwhile").unwrap();
    assert_eq!(
        fs::read_to_string(source.join("other")).unwrap(),
        "written meanwhile"
    );
    assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
    fs::rename(world.path("away"), world.path("repository")).unwrap();
    for waiter in waiting {
        waiter.join().unwrap().unwrap();
    }
    world.unmount(&source);
}
