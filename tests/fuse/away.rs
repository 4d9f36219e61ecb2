//! A volume whose repository does not answer when it is mounted: it is mounted all the same, loses nothing, says so, and catches up
//! by itself; and what must not happen when the repository is back and somebody else has been there.

use std::fs;
use std::time::{Duration, Instant};

use crate::ending::kill;
use crate::processes::{must_exit, newest, run};
use crate::s3_server::{Fault, Rule, S3Server};
use crate::world::{World, can_mount, when_unused};

/// A mount without its repository must be there by then, on a machine that does other things as well.
const MOUNTED_WITHIN: Duration = Duration::from_secs(60);
/// Nothing here takes this long; a test that waits for it has failed.
pub(crate) const NEVER: Duration = Duration::from_secs(300);

pub(crate) fn status(world: &World) -> serde_json::Value {
    let told = run(world, "status", &world.source(), &["--json"]);
    must_exit(&told, 0);
    serde_json::from_slice(&told.stdout).unwrap()
}

/// Looks at the status until it is in `phase`.
#[track_caller]
pub(crate) fn wait_for_phase(world: &World, phase: &str) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let now = status(world);
        if now["phase"] == phase {
            return now;
        }
        assert!(begun.elapsed() < NEVER, "never {phase}: {now}");
    }
}

/// Mounts with the repository there. On a busy machine that may not have answered when a mount no longer waits for it: then once more.
pub(crate) fn mount_within_reach(world: &World) {
    let begun = Instant::now();
    while must_exit(&run(world, "mount", &world.source(), &[]), 0).contains("tried again by itself")
    {
        assert!(begun.elapsed() < NEVER, "never within reach");
        let source = world.source();
        world.run(["umount".as_ref(), source.as_os_str(), "--no-wait".as_ref()]);
    }
}

pub(crate) fn assert_whole(world: &World) {
    let told = world.run(["check", "--read-data"]);
    assert!(told.starts_with("no damage found"), "{told}");
}

/// A world whose volume has been mounted once and whose local repository has been moved away since.
fn world_without_repository(test: &str) -> Option<World> {
    can_mount(test).then(|| {
        let world = World::new();
        world.init();
        fs::write(world.source().join("old"), "old").unwrap();
        world.mount(&[]);
        world.unmount(&world.source());
        fs::rename(world.path("repository"), world.path("away")).unwrap();
        world
    })
}

fn bring_back(world: &World) {
    fs::rename(world.path("away"), world.path("repository")).unwrap();
}

#[test]
fn a_directory_whose_repository_is_away_is_mounted_and_catches_up_by_itself() {
    let Some(world) = world_without_repository(
        "a_directory_whose_repository_is_away_is_mounted_and_catches_up_by_itself",
    ) else {
        return;
    };
    let source = world.source();
    fs::write(
        source.join("unmounted"),
        "written while nothing was mounted",
    )
    .unwrap();
    let begun = Instant::now();
    let told = must_exit(&run(&world, "mount", &source, &[]), 0);
    assert!(begun.elapsed() < MOUNTED_WITHIN, "{:?}", begun.elapsed());
    assert!(
        told.contains("cannot be reached") && told.contains("is that mounted?"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 2, "{told}");

    fs::write(source.join("new"), "written without a repository").unwrap();
    fs::write(source.join("old"), "changed without a repository").unwrap();
    fs::File::open(source.join("new"))
        .unwrap()
        .sync_all()
        .unwrap();
    let waiting = status(&world);
    assert_eq!(waiting["phase"], "waiting");
    let error = waiting["last_error"].as_str().unwrap();
    assert!(error.contains("cannot be reached"), "{error}");
    assert!(
        waiting["last_error_since"]
            .as_str()
            .unwrap()
            .starts_with("20")
    );
    let told = must_exit(&run(&world, "sync", &source, &["--timeout", "300ms"]), 5);
    assert!(told.contains("cannot be reached"), "{told}");

    bring_back(&world);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "new"), "written without a repository");
    assert_eq!(newest(&world, "old"), "changed without a repository");
    assert_eq!(
        newest(&world, "unmounted"),
        "written while nothing was mounted"
    );
    let after = wait_for_phase(&world, "idle");
    assert!(after["last_error"].is_null(), "{after}");
    world.unmount(&source);
    assert_whole(&world);
}

#[test]
fn a_repository_that_comes_back_is_noticed_unasked() {
    let Some(world) = world_without_repository("a_repository_that_comes_back_is_noticed_unasked")
    else {
        return;
    };
    world.mount(&[]);
    fs::write(world.source().join("new"), "x").unwrap();
    bring_back(&world);
    let mut after = wait_for_phase(&world, "idle");
    let begun = Instant::now();
    while after["lag_seconds"].as_f64() != Some(0.0) {
        assert!(begun.elapsed() < NEVER, "{after}");
        after = status(&world);
    }
    assert_eq!(newest(&world, "new"), "x");
    world.unmount(&world.source());
}

#[test]
fn without_its_repository_the_password_is_still_proven() {
    let Some(world) =
        world_without_repository("without_its_repository_the_password_is_still_proven")
    else {
        return;
    };
    let source = world.source();
    let mut command = world.command(["mount".as_ref(), source.as_os_str()]);
    let refused = command
        .env("REWINDFS_PASSWORD", "a guess")
        .output()
        .unwrap();
    must_exit(&refused, 12);
    bring_back(&world);
}

#[test]
fn a_directory_never_mounted_before_needs_its_repository() {
    let Some(world) =
        world_without_repository("a_directory_never_mounted_before_needs_its_repository")
    else {
        return;
    };
    let other = world.dir("other");
    let told = must_exit(&run(&world, "mount", &other, &[]), 10);
    assert!(told.contains("no repository"), "{told}");
    bring_back(&world);
}

#[test]
fn killed_without_its_repository_and_mounted_again_without_it_loses_nothing() {
    let Some(world) = world_without_repository(
        "killed_without_its_repository_and_mounted_again_without_it_loses_nothing",
    ) else {
        return;
    };
    let source = world.source();
    world.mount(&[]);
    fs::write(source.join("old"), "before it was killed").unwrap();
    kill(&world);
    world.mount(&[]);
    assert_eq!(
        fs::read_to_string(source.join("old")).unwrap(),
        "before it was killed"
    );
    fs::write(source.join("later"), "after it was killed").unwrap();
    // Nothing can be published, and nothing is owed to whoever does not wait for it.
    world.run(["umount".as_ref(), source.as_os_str(), "--no-wait".as_ref()]);
    bring_back(&world);
    world.mount(&[]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "old"), "before it was killed");
    assert_eq!(newest(&world, "later"), "after it was killed");
    world.unmount(&source);
    assert_whole(&world);
}

#[test]
fn what_was_captured_before_is_uploaded_when_the_repository_is_back() {
    let test = "what_was_captured_before_is_uploaded_when_the_repository_is_back";
    if !can_mount(test) {
        return;
    }
    let world = World::new();
    world.init();
    let source = world.source();
    world.mount(&["--interval", "100ms"]);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    fs::rename(world.path("repository"), world.path("away")).unwrap();
    fs::write(source.join("file"), "captured").unwrap();
    world.run(["umount".as_ref(), source.as_os_str(), "--no-wait".as_ref()]);

    world.mount(&[]);
    let waiting = status(&world);
    assert_eq!(waiting["phase"], "waiting");
    assert!(waiting["spool_bytes"].as_u64().unwrap() > 0, "{waiting}");
    assert!(waiting["lag_seconds"].as_f64().unwrap() > 0.0, "{waiting}");
    fs::write(source.join("second"), "written later").unwrap();
    bring_back(&world);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "captured");
    assert_eq!(newest(&world, "second"), "written later");
    world.unmount(&source);
    assert_whole(&world);
}

/// Another machine has gone on with the volume while its repository could not be reached from here. What this machine has written
/// must not be published over it unasked: the other one's files would be gone from the newest snapshot.
#[test]
fn a_volume_that_another_machine_has_taken_meanwhile_is_left_to_it() {
    let Some(world) =
        world_without_repository("a_volume_that_another_machine_has_taken_meanwhile_is_left_to_it")
    else {
        return;
    };
    let source = world.source();
    world.mount(&[]);
    fs::write(source.join("here"), "written here").unwrap();

    let elsewhere = world.dir("elsewhere");
    let away = world.path("away");
    let there = |command: &str, more: &[&str]| {
        let mut arguments = vec![command.as_ref(), elsewhere.as_os_str()];
        arguments.extend(more.iter().map(std::ffi::OsStr::new));
        let mut command = world.command(arguments);
        command
            .env("REWINDFS_STATE_DIR", world.path("state-elsewhere"))
            .env("REWINDFS_REPO", &away);
        must_exit(&when_unused(&mut command), 0);
    };
    there("mount", &["--volume", "source"]);
    fs::write(elsewhere.join("there"), "written there").unwrap();
    there("umount", &[]);

    bring_back(&world);
    let told = must_exit(&run(&world, "sync", &source, &[]), 11);
    assert!(told.contains("has taken this volume"), "{told}");
    let halted = status(&world);
    assert_eq!(halted["phase"], "halted");
    assert!(
        halted["last_error"]
            .as_str()
            .unwrap()
            .contains("mount again")
    );
    assert_eq!(newest(&world, "there"), "written there");
    // The directory goes on as what it is.
    fs::write(source.join("here"), "and changed").unwrap();
    assert_eq!(
        fs::read_to_string(source.join("here")).unwrap(),
        "and changed"
    );
    world.run(["umount".as_ref(), source.as_os_str(), "--no-wait".as_ref()]);
    assert_eq!(newest(&world, "there"), "written there");

    // Mounted again on purpose, with the repository there, it goes on from what the other has published.
    mount_within_reach(&world);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "here"), "and changed");
    world.unmount(&source);
    assert_whole(&world);
}

#[test]
fn another_repository_in_its_place_is_not_written_to() {
    let Some(world) = world_without_repository("another_repository_in_its_place_is_not_written_to")
    else {
        return;
    };
    let source = world.source();
    world.mount(&[]);
    world.init();
    let begun = Instant::now();
    loop {
        must_exit(&run(&world, "sync", &source, &["--timeout", "1s"]), 5);
        let error = status(&world)["last_error"].as_str().unwrap().to_owned();
        // Until it has looked there again, it is told what was wrong before.
        if error.contains("another repository") {
            break;
        }
        assert!(begun.elapsed() < NEVER, "{error}");
    }
    assert!(!world.path("repository/v").exists(), "it was written to");
    fs::remove_dir_all(world.path("repository")).unwrap();
    bring_back(&world);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    world.unmount(&source);
}

#[test]
fn an_s3_server_that_does_not_answer_holds_nothing_up_and_is_caught_up_with() {
    let test = "an_s3_server_that_does_not_answer_holds_nothing_up_and_is_caught_up_with";
    if !can_mount(test) {
        return;
    }
    let server = S3Server::start("bucket");
    let world = World::on_s3(&server, &server.location("docs"));
    world.init();
    let source = world.source();
    world.mount(&[]);
    world.unmount(&source);
    for (number, fault) in [Fault::Hang, Fault::Close, Fault::Status(503, "SlowDown")]
        .into_iter()
        .enumerate()
    {
        server.inject(Rule::always(fault));
        let begun = Instant::now();
        let told = must_exit(&run(&world, "mount", &source, &[]), 0);
        assert!(
            begun.elapsed() < MOUNTED_WITHIN,
            "{fault:?}: {:?}",
            begun.elapsed()
        );
        assert!(told.contains("tried again by itself"), "{fault:?}: {told}");
        let name = format!("file-{number}");
        fs::write(source.join(&name), "written meanwhile").unwrap();
        server.heal();
        must_exit(&run(&world, "sync", &source, &[]), 0);
        assert_eq!(newest(&world, &name), "written meanwhile");
        world.unmount(&source);
    }
    assert_whole(&world);
}
