//! The comparison with which every live mount begins, a first backup among them, while the store goes away in its middle and comes back;
//! and a mount that is ended or killed in that state. Programs go on, `status` tells what is wrong and since when, everything catches up
//! by itself, and what the store has is not sent to it again.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use hyper::Method;

use crate::away::{NEVER, assert_whole, status};
use crate::ending::kill;
use crate::outage::{assert_same, must_not_hang};
use crate::processes::{in_front, is_mounted, must_exit, run, signal};
use crate::s3_server::{Fault, Rule, S3Server};
use crate::sample::noise;
use crate::wire::{Mishap, Wire};
use crate::world::{World, can_mount, when_unused};

/// Small, so that a first backup has many of them.
const BLOCK: &str = "1MiB";
const BLOCK_LEN: u64 = 1 << 20;
/// Blocks that are on their way at once.
const UPLOADS: u64 = 4;
/// Beyond what one seal should hold while a scan runs, so that it is copied ahead.
const LARGE: usize = 40 << 20;
/// What commits, trees, claims and leases take up, some of which are written over.
const SMALL: u64 = 3 << 20;
/// Files and directories enough for a tree of many pages.
const DIRS: usize = 40;
const FILES: usize = 100;
/// A process that is asked to end must have done so by then, on a machine that does other things as well. Nothing that it waits for ends
/// earlier by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
/// A store that does not answer is heard of after a few attempts of ten seconds.
const SYNC_WAIT: &str = "300s";

/// How the store is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Absence {
    /// It answers that it cannot.
    Errs,
    /// It does not answer.
    Hangs,
    /// Nobody is there.
    Away,
}

use Absence::{Away, Errs, Hangs};

struct Scene {
    server: S3Server,
    wire: Wire,
    world: World,
}

impl Scene {
    fn new() -> Self {
        let server = S3Server::start("bucket");
        let wire = Wire::to(server.address());
        let place = server.location_through(wire.address(), "docs");
        let world = World::on_s3(&server, &place);
        world.run(["init", "--block-size", BLOCK]);
        Self {
            server,
            wire,
            world,
        }
    }

    /// Many small files, and some that are copied ahead of their seal.
    fn fill(&self, large: usize) {
        let source = self.world.source();
        for number in 0..large >> 20 {
            let bytes = noise(number as u32, 1 << 20);
            fs::write(source.join(format!("large-{number}")), bytes).unwrap();
        }
        for dir in 0..DIRS {
            let dir = source.join(format!("dir-{dir}"));
            fs::create_dir(&dir).unwrap();
            for number in 0..FILES {
                fs::write(dir.join(format!("file-{number}")), number.to_string()).unwrap();
            }
        }
    }

    /// The store is not there any more for requests like these, as soon as it has answered `skip` of them.
    fn leave(&self, absence: Absence, method: Method, contains: &str, skip: u64) {
        let fault = match absence {
            Errs => Fault::Status(500, "InternalError"),
            Hangs => Fault::Hang,
            Away => Fault::Close,
        };
        self.server.inject(Rule {
            method: Some(method),
            contains: contains.to_owned(),
            skip,
            ..Rule::always(fault)
        });
    }

    /// And from now on for nobody at all.
    fn leave_for_good(&self, absence: Absence) {
        match absence {
            Errs => self
                .server
                .inject(Rule::always(Fault::Status(500, "InternalError"))),
            Hangs => self.wire.spoil(Mishap::Swallow, 1),
            Away => self.wire.tear(),
        }
    }

    fn come_back(&self, absence: Absence) {
        self.server.heal();
        self.wire.heal();
        if absence == Away {
            self.wire.restore();
        }
    }

    /// What programs do meanwhile, in what has been compared and in what has not.
    fn work(&self, round: u32) {
        let source = self.world.source();
        must_not_hang(move || {
            for dir in [0, DIRS / 2, DIRS - 1] {
                let dir = source.join(format!("dir-{dir}"));
                fs::write(dir.join(format!("new-{round}")), noise(round, 5000)).unwrap();
                let saved = dir.join("saved");
                fs::write(dir.join("saved.tmp"), format!("{round}")).unwrap();
                fs::rename(dir.join("saved.tmp"), &saved).unwrap();
                assert_eq!(fs::read_to_string(saved).unwrap(), round.to_string());
                let changed = fs::File::options().write(true).open(dir.join("file-7"));
                let changed = changed.unwrap();
                changed
                    .write_all_at(format!("{round:03}").as_bytes(), 0)
                    .unwrap();
                changed.sync_all().unwrap();
            }
            let moved = source.join(format!("dir-{round}"));
            fs::rename(&moved, source.join(format!("dir-moved-{round}"))).unwrap();
            fs::remove_file(source.join(format!("dir-10/file-{round}"))).unwrap();
        });
    }

    /// Looks at the status until it says that something is wrong, and proves what else it says. On a busy machine a mount may begin as
    /// one that waits for its repository.
    #[track_caller]
    fn wait_until_told(&self) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let now = status(&self.world);
            if !now["last_error"].is_null() && now["phase"] != "waiting" {
                assert_eq!(now["phase"], "failing", "{now}");
                let since = now["last_error_since"].as_str();
                assert!(since.is_some_and(|since| since.starts_with("20")), "{now}");
                return now;
            }
            assert!(begun.elapsed() < NEVER, "never told: {now}");
        }
    }

    /// It catches up by itself, and says that all is well.
    fn catches_up(&self, when: &str) {
        let (source, target) = (self.world.source(), self.world.path("restored"));
        let synced = run(&self.world, "sync", &source, &["--timeout", SYNC_WAIT]);
        let told = String::from_utf8_lossy(&synced.stderr);
        assert!(synced.status.success(), "{when}: {told}");
        let begun = Instant::now();
        while !status(&self.world)["last_error"].is_null() {
            assert!(begun.elapsed() < NEVER, "{when}: {}", status(&self.world));
        }
        // What it holds would hide what the store lacks.
        let _ = fs::remove_dir_all(self.world.path("cache"));
        self.world
            .run(["restore".as_ref(), "--target".as_ref(), target.as_os_str()]);
        assert_same(&source, &target, when);
        fs::remove_dir_all(target).unwrap();
    }

    /// Bytes that the store was sent in vain: all that it has got, less what lies there now.
    fn sent_in_vain(&self) -> u64 {
        let objects = self.server.objects();
        let held: u64 = objects.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.server.received_bytes() - held
    }

    fn blocks_there(&self) -> usize {
        let objects = self.server.objects();
        objects
            .iter()
            .filter(|(key, _)| key.contains("/d/"))
            .count()
    }

    fn close(self) {
        self.world.unmount(&self.world.source());
        assert_whole(&self.world);
    }
}

fn each_beside_the_others(absences: &[Absence], through: impl Fn(Absence) + Sync) {
    std::thread::scope(|scope| {
        for &absence in absences {
            let through = &through;
            scope.spawn(move || through(absence));
        }
    });
}

#[test]
fn a_first_backup_whose_store_goes_away_goes_on_where_it_was() {
    if !can_mount("a_first_backup_whose_store_goes_away_goes_on_where_it_was") {
        return;
    }
    each_beside_the_others(&[Errs, Hangs, Away], |absence| {
        let scene = Scene::new();
        scene.fill(LARGE);
        // Some blocks get there.
        scene.leave(absence, Method::PUT, "/d/", 10);
        scene.world.mount(&["--interval", "200ms"]);
        let told = scene.wait_until_told();
        assert!(scene.blocks_there() >= 1, "{told}");
        assert!(told["spool_bytes"].as_u64().unwrap() > 0, "{told}");
        scene.work(1);
        scene.leave_for_good(absence);
        scene.work(2);
        scene.come_back(absence);
        let when = format!("{absence:?}");
        scene.catches_up(&when);
        let in_vain = scene.sent_in_vain();
        assert!(in_vain < SMALL, "{when}: {in_vain} bytes sent twice");
        scene.close();
    });
}

/// What had been copied ahead of the first commit was sent again after a restart, all of it: nothing said that the store had it.
#[test]
fn a_first_backup_killed_while_its_store_is_away_sends_nothing_twice() {
    if !can_mount("a_first_backup_killed_while_its_store_is_away_sends_nothing_twice") {
        return;
    }
    each_beside_the_others(&[Errs, Away], |absence| {
        let scene = Scene::new();
        scene.fill(LARGE);
        scene.leave(absence, Method::PUT, "/d/", 20);
        scene.world.mount(&["--interval", "200ms"]);
        scene.wait_until_told();
        let there = scene.blocks_there();
        assert!(there > 10, "{there}");
        scene.work(1);
        scene.leave_for_good(absence);
        kill(&scene.world);
        // It is mounted again without its store, as it has been mounted before.
        let source = scene.world.source();
        must_exit(
            &run(&scene.world, "mount", &source, &["--interval", "200ms"]),
            0,
        );
        scene.work(2);
        scene.come_back(absence);
        let when = format!("{absence:?}, killed");
        scene.catches_up(&when);
        let in_vain = scene.sent_in_vain();
        // Blocks that were on their way when it was killed may be there without anybody having heard of it; what was not whole in the spool
        // is made anew.
        let most = SMALL + (UPLOADS + 2) * BLOCK_LEN;
        assert!(in_vain < most, "{when}: {in_vain} bytes sent twice");
        let objects = scene.server.objects();
        let data = objects.iter().filter(|(key, _)| key.contains("/d/"));
        let data: u64 = data.map(|(_, bytes)| bytes.len() as u64).sum();
        let most = LARGE as u64 + most;
        assert!(data < most, "{when}: {data} bytes of data for {LARGE}");
        scene.close();
    });
}

/// A world whose volume is backed up and unmounted, and then changed in many places; without what its tree would be read from here.
fn changed_while_unmounted() -> Scene {
    let scene = Scene::new();
    scene.fill(2 << 20);
    scene.world.mount(&[]);
    scene.world.unmount(&scene.world.source());
    let source = scene.world.source();
    for dir in (0..DIRS).step_by(3) {
        fs::write(source.join(format!("dir-{dir}/file-3")), "changed unseen").unwrap();
        fs::remove_file(source.join(format!("dir-{dir}/file-4"))).unwrap();
        let (old, new) = (format!("dir-{dir}/file-5"), format!("dir-{dir}/renamed"));
        fs::rename(source.join(old), source.join(new)).unwrap();
    }
    let _ = fs::remove_dir_all(scene.world.path("cache"));
    scene
}

/// Nothing is read of the tree any more: the comparison needs that, and mounting does not.
fn leave_in_the_middle(scene: &Scene, absence: Absence) {
    scene.leave(absence, Method::GET, "/t/", 0);
}

#[test]
fn a_comparison_whose_store_goes_away_goes_on_by_itself() {
    if !can_mount("a_comparison_whose_store_goes_away_goes_on_by_itself") {
        return;
    }
    each_beside_the_others(&[Errs, Hangs, Away], |absence| {
        let scene = changed_while_unmounted();
        leave_in_the_middle(&scene, absence);
        scene.world.mount(&["--interval", "200ms"]);
        let told = scene.wait_until_told();
        assert!(told["progress"].is_object(), "{told}");
        let error = told["last_error"].as_str().unwrap();
        assert!(error.contains("compare with the newest snapshot"), "{told}");
        scene.work(1);
        scene.leave_for_good(absence);
        scene.work(2);
        // Since when is not told anew with each attempt.
        let later = scene.wait_until_told();
        assert_eq!(later["last_error_since"], told["last_error_since"]);
        scene.come_back(absence);
        scene.catches_up(&format!("{absence:?}"));
        scene.close();
    });
}

#[test]
fn a_comparison_killed_while_its_store_is_away_loses_nothing() {
    if !can_mount("a_comparison_killed_while_its_store_is_away_loses_nothing") {
        return;
    }
    each_beside_the_others(&[Errs, Away], |absence| {
        let scene = changed_while_unmounted();
        leave_in_the_middle(&scene, absence);
        scene.world.mount(&["--interval", "200ms"]);
        scene.wait_until_told();
        scene.work(1);
        scene.leave_for_good(absence);
        kill(&scene.world);
        let source = scene.world.source();
        must_exit(
            &run(&scene.world, "mount", &source, &["--interval", "200ms"]),
            0,
        );
        scene.work(2);
        kill(&scene.world);
        scene.come_back(absence);
        scene.world.mount(&["--interval", "200ms"]);
        scene.catches_up(&format!("{absence:?}, killed"));
        scene.close();
    });
}

/// Whoever shut the machine down, or unmounted, waited for a store that did not answer: the scan asked it for a page of the tree, and nobody
/// could call it back.
#[test]
fn a_comparison_that_waits_for_its_store_ends_when_it_is_asked_to() {
    if !can_mount("a_comparison_that_waits_for_its_store_ends_when_it_is_asked_to") {
        return;
    }
    let scene = changed_while_unmounted();
    leave_in_the_middle(&scene, Hangs);
    let source = scene.world.source();
    let mut process = in_front(&scene.world);
    let waits = |struck: u64| {
        let begun = Instant::now();
        while scene.server.faults_struck() == struck {
            assert!(begun.elapsed() < NEVER, "it asks for nothing");
        }
    };
    // One that takes longer and asks for nothing more has not waited for the store.
    let must_have_ended_in_time = |begun: Instant, asked: u64| {
        let (took, again) = (begun.elapsed(), scene.server.faults_struck() - asked);
        assert!(took < ENDS_WITHIN || again == 0, "{took:?}, {again} more");
    };
    waits(0);
    scene.work(1);
    let (begun, asked) = (Instant::now(), scene.server.faults_struck());
    signal(&process, "-TERM");
    assert_eq!(process.wait().unwrap().code(), Some(143));
    must_have_ended_in_time(begun, asked);
    assert!(!is_mounted(&source));

    let _ = fs::remove_dir_all(scene.world.path("cache"));
    let struck = scene.server.faults_struck();
    let mut process = in_front(&scene.world);
    waits(struck);
    scene.work(2);
    let (begun, asked) = (Instant::now(), scene.server.faults_struck());
    let unmounted = when_unused(Command::new("umount").arg(&source));
    assert!(unmounted.status.success(), "{unmounted:?}");
    process.wait().unwrap();
    must_have_ended_in_time(begun, asked);

    scene.come_back(Hangs);
    scene.world.mount(&["--interval", "200ms"]);
    scene.catches_up("ended twice");
    scene.close();
}
