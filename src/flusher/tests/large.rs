//! Backups that are larger than what a seal takes at once: copied ahead round by round, told of on the way, and never more of them in the
//! spool than it has room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::flusher::capture::INEXACT_BYTES;

const MIB: u64 = 1 << 20;
/// More than an inexact commit reads.
const FILES: u64 = 6;
const FILE_LEN: usize = 40 << 20;

/// Much more than a round at every look.
fn in_small_rounds(world: &World) -> Options {
    Options {
        copy_ahead_bytes: MIB,
        round_bytes: MIB,
        ..options(world)
    }
}

fn create_all(writer: &world::Writer) {
    for number in 0..FILES {
        writer.create(&format!("{number}"), &noise(number, FILE_LEN));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_long_first_backup_has_copied_can_be_restored_before_its_end() {
    let world = World::new().await;
    // An exact moment only when it is asked for: by then all files are there.
    let policy = Policy {
        mode: Mode::Cold,
        ..Policy::default()
    };
    let told = Options {
        policy,
        incomplete_interval: Duration::ZERO,
        ..in_small_rounds(&world)
    };
    let writer = world.start_with(told, Arc::new(SystemClock)).await;
    create_all(&writer);
    let mark = writer.sync().await;
    assert!(world.snapshot(&mark).await == writer.now());
    let volume = world.volume(false).await;
    let found = volume.read_commit(&mark.name).await.unwrap();
    assert!(!found.commit.incomplete, "whoever waits gets an exact one");

    let history = volume.history(&found).await.unwrap();
    let first = volume.read_commit(&history[0].name).await.unwrap();
    assert!(first.commit.incomplete && history.len() > 1);
    let now = writer.now();
    for (path, bytes) in contents(&volume, &first).await {
        // One may have been caught while it was being written.
        let is_right = now[&path].starts_with(&bytes);
        assert!(is_right, "{path} is not what it was");
    }
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_puts_no_more_into_the_spool_than_it_has_room_for() {
    let world = World::new().await;
    // No seal on the way: a first one may be larger than the spool, since nothing waits that could make room.
    let policy = Policy {
        mode: Mode::Cold,
        ..Policy::default()
    };
    let narrow = Options {
        policy,
        spool_bytes: 8 * MIB,
        ..in_small_rounds(&world)
    };
    let writer = world.start_with(narrow, Arc::new(SystemClock)).await;
    let down = Rule {
        on: None,
        skip: 0,
        times: u64::MAX,
        fault: Fault::FailBefore(Kind::Retry),
    };
    world.plan.add(down);
    create_all(&writer);
    let stopped = writer.handle.stop(Duration::ZERO).await.unwrap();
    assert!(!stopped.captured, "the journal owes the rest");
    let spooled = stopped.status.spool_bytes;
    // What it has room for, and one inexact commit: that ends with the file that it has begun.
    let most = 8 * MIB + INEXACT_BYTES + FILE_LEN as u64 + MIB;
    assert!(spooled < most, "{spooled} bytes, {most} at most");
}

/// It gave up at once where the spool was full, though the store was taking what lay there: the rest was left to the next mount.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_room_in_the_spool_and_then_leaves_nothing_behind() {
    let world = World::new().await;
    let narrow = Options {
        spool_bytes: 8 * MIB,
        ..options(&world)
    };
    let writer = world.start_with(narrow, Arc::new(SystemClock)).await;
    writer.create("base", b"base");
    writer.sync().await;
    world.plan.add(Rule {
        on: None,
        skip: 0,
        times: u64::MAX,
        fault: Fault::FailBefore(Kind::Retry),
    });
    writer.create("a", &noise(1, 6 << 20));
    let spooled = async {
        while writer.handle.status().spool_commits == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = writer.handle.sync() => panic!("the store is away"),
        () = spooled => {}
    }
    writer.create("b", &noise(2, 6 << 20));
    let now = writer.now();
    let (stopped, ()) = tokio::join!(writer.handle.stop(LONG), async { world.plan.clear() });
    let stopped = stopped.unwrap();
    assert!(stopped.captured && stopped.published, "{stopped:?}");
    let head = world.volume(false).await.head().await.unwrap().unwrap();
    assert!(!head.commit.incomplete);
    assert!(contents(&*world.volume(false).await, &head).await == now);
}

/// During a scan a large file that it has not come to is left out of every incomplete commit, and what was copied ahead of it waits. Each
/// of these commits named all blocks copied so far once more: the store was asked for each of them again and again, and the sizes
/// that the history tells added up to many times what is in the store. A commit now tells of what was written since the last one.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_copied_ahead_are_counted_once_however_often_what_they_hold_is_left_out() {
    const LEN: usize = 3 << 20;
    /// A commit that does not name the blocks again is much smaller.
    const SMALL: u64 = 1 << 20;
    let world = World::new().await;
    std::fs::write(world.path("source").join("late"), b"there before").unwrap();
    let held = Options {
        held: true,
        copy_ahead_bytes: 0,
        incomplete_interval: Duration::ZERO,
        ..options(&world)
    };
    let writer = world.start_with(held, Arc::new(SystemClock)).await;
    writer.write("late", 0, &noise(30, LEN));
    // It is open again after each, so there is one after another.
    let commits = async |least: usize| loop {
        let volume = world.volume(false).await;
        if let Some(head) = volume.head().await.unwrap() {
            let history = volume.history(&head).await.unwrap();
            if history.len() >= least {
                return history;
            }
        }
        tokio::task::yield_now().await;
    };
    while writer.epochs.open_size().bytes > 0 {
        tokio::task::yield_now().await;
    }
    let told = commits(1).await.len();
    let history = commits(told + 4).await;
    let large = history.iter().filter(|entry| entry.totals.stored > SMALL);
    assert!(large.count() <= 1, "{history:?}");

    writer.look_at_all();
    writer.handle.hold(false).await.unwrap();
    let mark = writer.sync().await;
    assert!(world.snapshot(&mark).await == writer.now());
    writer.stop().await;
}

/// A large file was written again in its place with hardly a change, or found touched at a mount: what of it was copied ahead, and what was
/// left to the seal then, was cut at fixed offsets and put into the store once more, all of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_in_a_file_that_is_written_again_is_not_stored_again() {
    let world = World::new().await;
    // The last third is left to the seal.
    let ahead = Options {
        copy_ahead_bytes: 10 * MIB,
        round_bytes: 12 * MIB,
        ..options(&world)
    };
    let writer = world.start_with(ahead, Arc::new(SystemClock)).await;
    let mut bytes = noise(1, 20 << 20);
    writer.create("document", &bytes);
    writer.sync().await;
    for changed in [5 << 20, 18 << 20] {
        bytes[changed] ^= 1;
        let before = world.meter.bytes_put();
        writer.write("document", 0, &bytes);
        let mark = writer.sync().await;
        let put = world.meter.bytes_put() - before;
        // The chunk that has changed, and those that end where the copies do.
        assert!(put < 4 * MIB, "{put} bytes");
        assert!(world.snapshot(&mark).await == writer.now());
    }
    writer.stop().await;
}

/// A first backup rests while programs are at work. It comes to its end also beside those that never stop, and with nobody waiting for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_backup_that_rests_comes_to_an_exact_moment() {
    let world = World::new().await;
    let policy = Policy {
        interval: Duration::from_millis(10),
        ..Policy::default()
    };
    let resting = Options {
        policy,
        ..in_small_rounds(&world)
    };
    let writer = world.start_with(resting, Arc::new(SystemClock)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let programs = {
        let (epochs, stop) = (Arc::clone(&writer.epochs), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                epochs.activity().note();
                std::thread::yield_now();
            }
        })
    };
    writer.create("large", &noise(1, FILE_LEN));
    let volume = world.volume(false).await;
    loop {
        let head = volume.head().await.unwrap();
        let is_exact = head.as_ref().is_some_and(|head| !head.commit.incomplete);
        // What is captured last may not be published yet.
        let is_over = is_exact && writer.epochs.open_size().is_empty();
        if is_over && contents(&volume, &head.unwrap()).await == writer.now() {
            break;
        }
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    programs.join().unwrap();
    writer.stop().await;
}
