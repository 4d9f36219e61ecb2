//! Two machines and one volume: another state directory is another machine. The second is refused while the first has the volume; a
//! process that was suspended and replaced meanwhile publishes nothing when it wakes; and a store that does not help is found out.
//! What a machine does that was cut off from its repository meanwhile is `away.rs`'s.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Instant;

use hyper::Method;

use crate::away::{NEVER, assert_whole, mount_within_reach, status};
use crate::processes::{in_front, is_mounted, must_exit, newest, run, signal, world};
use crate::s3_server::{Fault, Rule, S3Server};
use crate::world::{World, can_mount, when_unused};

/// A second machine: the same repository, and everything else its own.
struct Elsewhere<'a> {
    world: &'a World,
    dir: PathBuf,
}

impl<'a> Elsewhere<'a> {
    fn new(world: &'a World) -> Self {
        let dir = world.dir("elsewhere");
        Self { world, dir }
    }

    fn run(&self, name: &str, more: &[&str]) -> Output {
        let mut arguments = vec![name.as_ref(), self.dir.as_os_str()];
        arguments.extend(more.iter().map(OsStr::new));
        let mut command = self.world.command(arguments);
        command.env("REWINDFS_STATE_DIR", self.world.path("state-elsewhere"));
        match name {
            "umount" => when_unused(&mut command),
            _ => command.output().unwrap(),
        }
    }
}

#[test]
fn a_second_machine_is_refused_and_told_who_has_the_volume() {
    let Some(world) = world("a_second_machine_is_refused_and_told_who_has_the_volume") else {
        return;
    };
    let (source, elsewhere) = (world.source(), Elsewhere::new(&world));
    fs::write(source.join("file"), "here").unwrap();
    world.mount(&[]);
    must_exit(&run(&world, "sync", &source, &[]), 0);

    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let told = must_exit(&elsewhere.run("mount", &["--volume", "source"]), 11);
    assert!(told.contains(host.trim()), "{told}");
    assert!(told.contains("its lease runs until"), "{told}");
    assert!(!is_mounted(&elsewhere.dir));
    // On this machine too, in another place.
    let beside = world.dir("beside");
    let told = must_exit(&run(&world, "mount", &beside, &["--volume", "source"]), 11);
    assert!(told.contains(source.to_str().unwrap()), "{told}");
    assert!(!is_mounted(&beside));
    // Whoever has the volume does not notice.
    fs::write(source.join("file"), "and changed").unwrap();
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "file"), "and changed");

    world.unmount(&source);
    must_exit(&elsewhere.run("mount", &["--volume", "source"]), 0);
    fs::write(elsewhere.dir.join("there"), "there").unwrap();
    must_exit(&elsewhere.run("sync", &[]), 0);
    must_exit(&run(&world, "mount", &source, &[]), 11);
    assert!(!is_mounted(&source));
    must_exit(&elsewhere.run("umount", &[]), 0);
    assert_whole(&world);
}

/// A process that does not run, and must not stay so when the test fails.
struct Suspended<'a>(&'a Child);

impl<'a> Suspended<'a> {
    fn new(child: &'a Child) -> Self {
        signal(child, "-STOP");
        Self(child)
    }
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        signal(self.0, "-CONT");
    }
}

/// As if the lease of the suspended one had run out, which takes minutes.
fn remove_lease(repository: &Path) {
    let volumes = repository.join("v");
    for volume in fs::read_dir(volumes).unwrap() {
        fs::remove_file(volume.unwrap().path().join("lease")).unwrap();
    }
}

#[test]
fn a_suspended_writer_that_was_replaced_publishes_nothing_when_it_wakes() {
    let Some(world) = world("a_suspended_writer_that_was_replaced_publishes_nothing_when_it_wakes")
    else {
        return;
    };
    let (source, elsewhere) = (world.source(), Elsewhere::new(&world));
    fs::write(source.join("file"), "before").unwrap();
    let mut process = in_front(&world);
    must_exit(&run(&world, "sync", &source, &[]), 0);

    let suspended = Suspended::new(&process);
    remove_lease(&world.path("repository"));
    must_exit(&elsewhere.run("mount", &["--volume", "source"]), 0);
    fs::write(elsewhere.dir.join("there"), "there").unwrap();
    must_exit(&elsewhere.run("sync", &[]), 0);
    drop(suspended);

    fs::write(source.join("file"), "of a writer that was replaced").unwrap();
    let told = must_exit(&run(&world, "sync", &source, &["--timeout", "300s"]), 11);
    assert!(told.contains("another writer"), "{told}");
    let halted = status(&world);
    assert_eq!(halted["phase"], "halted", "{halted}");
    assert_eq!(newest(&world, "there"), "there");
    let file = source.join("file");
    assert!(fs::read_to_string(&file).unwrap().starts_with("of a"));
    world.run(["umount".as_ref(), source.as_os_str(), "--no-wait".as_ref()]);
    process.wait().unwrap();
    assert_eq!(newest(&world, "there"), "there");

    // The other machine goes on as if nothing had been.
    fs::write(elsewhere.dir.join("there"), "and more").unwrap();
    must_exit(&elsewhere.run("umount", &[]), 0);
    assert_eq!(newest(&world, "there"), "and more");
    // And this one after it, when a person mounts it again.
    mount_within_reach(&world);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert!(newest(&world, "file").starts_with("of a writer"));
    world.unmount(&source);
    assert_whole(&world);
}

/// A writer that is suspended while the store has its commit in hand.
fn suspended_in_the_middle(
    test: &str,
    meanwhile: impl FnOnce(&S3Server, &World),
    then: impl FnOnce(&World),
) {
    if !can_mount(test) {
        return;
    }
    let server = S3Server::start("bucket");
    let world = World::on_s3(&server, &server.location("docs"));
    world.init();
    let source = world.source();
    fs::write(source.join("file"), "before").unwrap();
    let mut process = in_front(&world);
    must_exit(&run(&world, "sync", &source, &[]), 0);
    server.inject(Rule {
        contains: "/c/".to_owned(),
        ..Rule::next(Method::PUT, Fault::Hang)
    });
    let held = server.held();
    fs::write(source.join("file"), "after").unwrap();
    let begun = Instant::now();
    while server.held() == held {
        assert!(begun.elapsed() < NEVER, "nothing is published");
    }
    let suspended = Suspended::new(&process);
    meanwhile(&server, &world);
    let commits = || {
        let objects = server.objects();
        objects
            .iter()
            .filter(|(key, _)| key.contains("/c/"))
            .count()
    };
    let before = commits();
    // It lands while the writer does not run.
    server.heal();
    while commits() == before {
        assert!(begun.elapsed() < NEVER, "it never lands");
    }
    drop(suspended);
    then(&world);
    world.run(["umount".as_ref(), source.as_os_str(), "--no-wait".as_ref()]);
    process.wait().unwrap();
}

/// The store's answer waits for it when it wakes: the commit is there. But it is not history any more, and the spool still owes it.
#[test]
fn a_writer_suspended_and_replaced_with_its_commit_on_the_way_has_published_nothing() {
    suspended_in_the_middle(
        "a_writer_suspended_and_replaced_with_its_commit_on_the_way_has_published_nothing",
        |server, world| {
            let lease = server.objects().into_iter().map(|(key, _)| key);
            let lease = lease.filter(|key| key.ends_with("/lease"));
            lease.for_each(|key| server.tamper(&key, None));
            let elsewhere = Elsewhere::new(world);
            must_exit(&elsewhere.run("mount", &["--volume", "source"]), 0);
            fs::write(elsewhere.dir.join("there"), "there").unwrap();
            must_exit(&elsewhere.run("umount", &[]), 0);
        },
        |world| {
            let told = run(world, "sync", &world.source(), &["--timeout", "300s"]);
            let told = must_exit(&told, 11);
            assert!(told.contains("another writer"), "{told}");
            let halted = status(world);
            assert_eq!(halted["phase"], "halted", "{halted}");
            assert!(halted["spool_bytes"].as_u64().unwrap() > 0, "{halted}");
            assert_eq!(newest(world, "there"), "there");
            assert!(
                !world
                    .try_run(["cat", "--at", "latest", "file"])
                    .stdout
                    .starts_with(b"after")
            );
        },
    );
}

#[test]
fn a_writer_suspended_with_its_commit_on_the_way_goes_on_when_it_wakes() {
    suspended_in_the_middle(
        "a_writer_suspended_with_its_commit_on_the_way_goes_on_when_it_wakes",
        |_, _| {},
        |world| {
            must_exit(&run(world, "sync", &world.source(), &[]), 0);
            assert_eq!(newest(world, "file"), "after");
            let begun = Instant::now();
            while !status(world)["last_error"].is_null() {
                assert!(begun.elapsed() < NEVER, "{}", status(world));
            }
            fs::write(world.source().join("file"), "later").unwrap();
            must_exit(&run(world, "sync", &world.source(), &[]), 0);
            assert_eq!(newest(world, "file"), "later");
        },
    );
}

#[test]
fn a_store_that_ignores_conditions_is_found_out_and_said() {
    if !can_mount("a_store_that_ignores_conditions_is_found_out_and_said") {
        return;
    }
    for ignores in [false, true] {
        let server = S3Server::start("bucket");
        let world = World::on_s3(&server, &server.location("docs"));
        world.init();
        if ignores {
            server.ignore_conditions();
        }
        let source = world.source();
        let told = must_exit(&run(&world, "mount", &source, &[]), 0);
        let said = told.contains("ignores conditional writes");
        assert_eq!(said, ignores, "{told}");
        // It is guarded all the same: who comes later is refused, and who has the volume goes on.
        fs::write(source.join("file"), "here").unwrap();
        must_exit(&run(&world, "sync", &source, &[]), 0);
        let elsewhere = Elsewhere::new(&world);
        must_exit(&elsewhere.run("mount", &["--volume", "source"]), 11);
        fs::write(source.join("file"), "still here").unwrap();
        must_exit(&run(&world, "sync", &source, &[]), 0);
        assert_eq!(newest(&world, "file"), "still here");
        world.unmount(&source);
        assert_whole(&world);
    }
}

/// `umount -l` takes a mount from its place, and programs go on writing into the files that they have open there. All of it is backed up,
/// and until they have closed them no other process begins.
#[test]
fn what_is_written_after_a_lazy_unmount_is_backed_up_before_another_mount_begins() {
    let test = "what_is_written_after_a_lazy_unmount_is_backed_up_before_another_mount_begins";
    let Some(world) = world(test) else { return };
    let source = world.source();
    world.mount(&[]);
    let path = source.join("open");
    let mut open = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut open, b"before ").unwrap();
    let lazily = Command::new("umount").arg("-l").arg(&source).status();
    assert!(lazily.unwrap().success());
    assert!(!is_mounted(&source));
    std::io::Write::write_all(&mut open, b"and after").unwrap();

    let told = must_exit(&run(&world, "mount", &source, &[]), 11);
    assert!(told.contains("files open"), "{told}");
    drop(open);
    let begun = Instant::now();
    // As soon as its process has heard that nobody can write any more.
    while !run(&world, "mount", &source, &[]).status.success() {
        assert!(begun.elapsed() < NEVER, "never mounted again");
    }
    must_exit(&run(&world, "sync", &source, &[]), 0);
    assert_eq!(newest(&world, "open"), "before and after");
    world.unmount(&source);
    assert_whole(&world);
}
