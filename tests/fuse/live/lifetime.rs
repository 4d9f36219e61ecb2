//! Mounting, unmounting, events, and what the epochs learn.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rewindfs::fuse::session;
use rewindfs::mount::Event;

use crate::scene::{Place, Scene, everywhere, unmount};

#[test]
fn a_mount_in_use_is_busy_and_a_lazy_unmount_takes_it_off() {
    for place in [Place::OverItself, Place::Elsewhere] {
        let Some(scene) = Scene::mount(place) else {
            return;
        };
        let mut open = File::create(scene.at("file")).expect("created");
        let busy = scene.session.unmount();
        assert!(matches!(busy, Err(session::Error::Busy { .. })));
        assert!(scene.session.is_alive());
        scene.session.unmount_lazily().expect("taken off");
        // Whoever has a file open goes on, and what is written still reaches the source.
        open.write_all(b"late").expect("written");
        drop(open);
        scene.session.wait();
        assert_eq!(fs::read(scene.below("file")).expect("read"), b"late");
        assert!(!scene.session.is_alive());
        scene.session.unmount().expect("nothing left to do");
    }
}

#[test]
fn what_was_there_before_is_shown_and_stays() {
    for place in [Place::OverItself, Place::Elsewhere] {
        let mounted = Scene::mount_prepared(place, |dir| {
            fs::create_dir(dir.join("old")).expect("made");
            fs::write(dir.join("old/file"), b"before").expect("written");
        });
        let Some(scene) = mounted else { return };
        scene.assert_same();
        assert_eq!(fs::read(scene.at("old/file")).expect("read"), b"before");
        fs::write(scene.at("old/file"), b"after").expect("written");
        let below = scene.below("old/file");
        unmount(&scene.session);
        assert_eq!(fs::read(below).expect("read"), b"after");
    }
}

#[test]
fn a_second_mount_at_the_same_place_survives_the_end_of_the_first_session() {
    let (Some(first), Some(other)) = (
        Scene::mount(Place::Elsewhere),
        Scene::mount(Place::Elsewhere),
    ) else {
        return;
    };
    // The first session ends while another mount lies at its place.
    unmount(&first.session);
    let place = first.session.place().to_owned();
    struct Nothing;
    impl fuser::Filesystem for Nothing {}
    let second =
        session::mount(Nothing, &place, &session::Options::new("second")).expect("mounted");
    drop(first.session);
    assert!(second.is_alive());
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read");
    let ours = format!("second {} fuse.rewindfs", place.display());
    assert!(mounts.contains(&ours), "{mounts}");
    unmount(&second);
    other.unmount();
}

#[test]
fn an_option_in_the_name_is_only_a_name() {
    let Some(scene) = Scene::mount(Place::Elsewhere) else {
        return;
    };
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read");
    let ours = format!(
        "a_name {} fuse.rewindfs rw,",
        scene.session.place().display()
    );
    assert!(mounts.contains(&ours), "{mounts}");
    scene.unmount();
}

#[test]
fn a_handler_that_panics_answers_and_the_mount_lives_on() {
    struct Panics;
    impl fuser::Filesystem for Panics {
        fn getattr(
            &self,
            _: &fuser::Request,
            _: fuser::INodeNo,
            _: Option<fuser::FileHandle>,
            _: fuser::ReplyAttr,
        ) {
            panic!("on purpose");
        }
    }
    let Some(scene) = Scene::mount(Place::Elsewhere) else {
        return;
    };
    let place = scene.beside("panics");
    fs::create_dir(&place).expect("made");
    let options = session::Options {
        loop_threads: 2,
        ..session::Options::new("panics")
    };
    let session = session::mount(Panics, &place, &options).expect("mounted");
    for _ in 0..20 {
        let error = fs::metadata(&place).expect_err("no attributes");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
    assert!(session.is_alive());
    unmount(&session);
    scene.unmount();
}

#[test]
fn events_are_told() {
    everywhere(|scene| {
        let mut file = File::create(scene.at("file")).expect("created");
        file.write_all(b"x").expect("written");
        file.sync_all().expect("durable");
        let fsyncs = || {
            let events = scene.events.lock();
            events
                .iter()
                .filter(|e| matches!(e, Event::Fsync(_)))
                .count()
        };
        assert_eq!(fsyncs(), 1);
        drop(file);
        // A release is sent without anybody waiting for it: unmounting waits.
    });
    let Some(scene) = Scene::mount(Place::Elsewhere) else {
        return;
    };
    fs::write(scene.at("file"), b"x").expect("written");
    fs::read(scene.at("file")).expect("read");
    let events = Arc::clone(&scene.events);
    scene.unmount();
    let closed = events
        .lock()
        .iter()
        .filter(|e| matches!(e, Event::Closed(_)))
        .count();
    assert_eq!(closed, 1, "one handle was open for writing");
}

#[test]
fn every_change_is_recorded_in_the_open_epoch() {
    everywhere(|scene| {
        assert_eq!(scene.epochs.open_size().inodes, 0);
        fs::read_dir(scene.at("")).expect("listed").count();
        fs::metadata(scene.at("")).expect("stat");
        assert_eq!(
            scene.epochs.open_size().inodes,
            0,
            "looking changes nothing"
        );
        fs::create_dir(scene.at("dir")).expect("made");
        fs::write(scene.at("dir/file"), vec![1; 10_000]).expect("written");
        let size = scene.epochs.open_size();
        assert_eq!((size.inodes, size.names), (3, 2));
        assert_eq!(size.bytes, 12_288);
        let sealed = scene.epochs.seal().expect("there are changes");
        let names: Vec<_> = sealed
            .names()
            .into_iter()
            .map(|(_, name, _)| name)
            .collect();
        assert!(names.contains(&b"dir".to_vec()) && names.contains(&b"file".to_vec()));
        let file = fs::File::open(scene.at("dir/file")).expect("opened");
        let id = std::os::unix::fs::MetadataExt::ino(&file.metadata().expect("stat"));
        // What is written now does not show in what was sealed.
        fs::write(scene.at("dir/file"), vec![2; 10_000]).expect("written");
        fs::remove_file(scene.at("dir/file")).expect("removed");
        let id = rewindfs::id::FileId(id);
        let bytes = sealed.take(id, 0..10_000).expect("preserved");
        assert_eq!(bytes.len(), 10_000);
        assert!(bytes.iter().all(|byte| *byte == 1));
        let attributes = sealed
            .attributes(id)
            .expect("preserved")
            .expect("it was there");
        assert_eq!(attributes.stat.size, 10_000);
        sealed.finish().expect("nobody folded it");
    });
}

/// The mount of a process that was killed answers ENOTCONN; mounting there again takes it off first.
#[test]
fn a_dead_mount_is_taken_off_before_mounting() {
    let Some(scene) = Scene::mount(Place::Elsewhere) else {
        return;
    };
    let place = scene.beside("dead");
    fs::create_dir(&place).expect("made");
    for _ in 0..2 {
        // The second child takes off what the first has left.
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args([
                "--exact",
                "live::lifetime::mounts_until_it_is_killed",
                "--nocapture",
            ])
            .env(HOLD, &place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains(READY))));
        child.kill().expect("killed");
        child.wait().expect("gone");
        let dead = fs::metadata(&place).expect_err("dead");
        assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
    }
    struct Nothing;
    impl fuser::Filesystem for Nothing {}
    let session = session::mount(Nothing, &place, &session::Options::new("new")).expect("mounted");
    assert!(
        session::remove_dead(&place).expect("looked").is_empty(),
        "this one lives"
    );
    unmount(&session);
    assert_eq!(
        fs::read_dir(&place).expect("the directory itself").count(),
        0
    );
    scene.unmount();
}

/// Where the child of the test above mounts.
const HOLD: &str = "REWINDFS_TEST_HOLD";
/// What it says then.
const READY: &str = "the mount is there";

#[test]
fn mounts_until_it_is_killed() {
    let Some(place) = std::env::var_os(HOLD) else {
        return; // Not the child.
    };
    struct Nothing;
    impl fuser::Filesystem for Nothing {}
    let options = session::Options::new("killed");
    let _session = session::mount(Nothing, place.as_ref(), &options).expect("mounted");
    println!("\n{READY}");
    // Ends when it is killed, or when the test that started it is gone.
    std::io::stdin().read_to_end(&mut Vec::new()).expect("read");
}

#[test]
fn what_is_mounted_inside_the_source_is_not_crossed() {
    if rewindfs::sys::effective_uid() != 0 {
        crate::scene::skip("only root can mount something inside the source");
        return;
    }
    let mounted = Scene::mount_prepared(Place::Elsewhere, |dir| {
        let inside = dir.join("inside");
        fs::create_dir(&inside).expect("made");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&inside)
            .status();
        assert!(mount.expect("ran").success());
        fs::write(inside.join("foreign"), b"x").expect("written");
    });
    let Some(scene) = mounted else { return };
    let number = |result: std::io::Result<()>| result.expect_err("refused").raw_os_error();
    let inside = scene.at("inside");
    assert_eq!(fs::read_dir(&inside).expect("listed").count(), 0);
    assert!(fs::metadata(&inside).expect("stat").is_dir());
    assert!(!inside.join("foreign").exists());
    assert_eq!(
        number(fs::write(inside.join("new"), b"x")),
        Some(libc::EXDEV)
    );
    assert_eq!(
        number(fs::create_dir(inside.join("new"))),
        Some(libc::EXDEV)
    );
    assert_eq!(fs::read_dir(scene.at("")).expect("listed").count(), 1);
    fs::write(scene.at("beside"), b"x").expect("written");
    let below = scene.below("inside").canonicalize().expect("resolved");
    scene.unmount_keeping(|| {
        let umount = Command::new("umount").arg(&below).status();
        assert!(umount.expect("ran").success());
    });
}
