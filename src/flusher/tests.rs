//! The whole flow, with real parts: what was written through the live side is what a reader finds in the store.

mod asleep;

mod clock;

mod large;

mod forgotten;

mod lives;

mod world;

use crate::clock::{Clock, ManualClock, Stamp, SystemClock};
use crate::format::entry::Contents;
use crate::store::Kind;
use crate::store::fault::{Fault, Rule};
use crate::store::metered::Operation;
use world::{LONG, PATIENCE, World, contents, noise, options};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_what_a_reader_finds() {
    let world = World::new().await;
    let writer = world.start().await;
    assert_eq!(
        writer.handle.sync().await.unwrap(),
        None,
        "nothing to publish yet"
    );
    writer.create("empty", b"");
    writer.create("small", b"hello");
    writer.create("text", &b"all work and no play ".repeat(5000));
    writer.create("large", &noise(1, 9 << 20));
    let first = writer.sync().await;
    let then = writer.now();
    assert_eq!(world.snapshot(&first).await, then);

    writer.write("large", 5000, b"in place");
    writer.truncate("text", 7);
    writer.write("small", 5, b" world");
    let second = writer.sync().await;
    assert_eq!(world.snapshot(&second).await, writer.now());
    assert_eq!(
        world.snapshot(&first).await,
        then,
        "the past does not change"
    );

    let stopped = writer.stop().await;
    assert!(
        stopped.published && stopped.status.spool_bytes == 0,
        "{stopped:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changed_means_no_request() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("a", b"a");
    let mark = writer.sync().await;
    let before = world.meter.requests();
    assert_eq!(writer.sync().await, mark);
    assert_eq!(world.meter.requests(), before);
    writer.stop().await;
}

/// A power cut could leave a file that looks just like the newest commit and is not what that holds.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_holds_is_in_the_journal_on_the_disk_before_it_is_published() {
    let world = World::new().await;
    let writer = world.start().await;
    let id = writer.create("a", b"a");
    writer.sync().await;
    assert!(!writer.journal.owes(id), "it was made in it");
    // Behind what is there: nothing of that waits for a disk.
    writer.write("a", 1, b"b");
    assert!(writer.journal.owes(id), "a record that no disk has yet");
    writer.sync().await;
    assert!(!writer.journal.owes(id), "it was changed in it");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_listed_once_and_not_for_each_commit() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("a", b"a");
    writer.sync().await;
    let asked = |operation| world.meter.usage(operation).requests;
    let before = [Operation::List, Operation::PutIf].map(asked);
    for round in 0..5_u8 {
        writer.write("a", 0, &[round]);
        writer.sync().await;
    }
    let [lists, puts] = [Operation::List, Operation::PutIf].map(asked);
    assert_eq!((lists - before[0], puts - before[1]), (0, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_overwritten_page_costs_one_small_object() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("large", &noise(2, 8 << 20));
    writer.sync().await;
    let (puts, bytes) = (
        world.meter.usage(Operation::PutIf).requests,
        world.meter.bytes_put(),
    );
    writer.write("large", 3 << 20, &noise(3, 4096));
    let mark = writer.sync().await;
    let puts = world.meter.usage(Operation::PutIf).requests - puts;
    let bytes = world.meter.bytes_put() - bytes;
    assert_eq!(puts, 1);
    assert!(bytes < 16 << 10, "{bytes} bytes for 4096");
    assert_eq!(world.snapshot(&mark).await, writer.now());
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_overwrites_are_gathered_and_stay_exact() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("base", &noise(9, 6 << 20));
    writer.sync().await;
    let mut marks = Vec::new();
    for round in 0..6u64 {
        for n in 0..50u64 {
            // Spread over the file, half of them unaligned, some twice.
            let at = (round * 7919 + n * 104_729) * 37 % (5 << 20);
            writer.write("base", at, &noise(round * 100 + n, 3000));
        }
        marks.push((writer.sync().await, writer.now()));
    }
    for (mark, then) in &marks {
        assert_eq!(world.snapshot(mark).await, *then);
    }
    let volume = world.volume(false).await;
    let head = volume.head().await.unwrap().unwrap();
    let id = writer.inode("base").id();
    let extents = volume
        .tree(&head.commit)
        .extents(id, 0..6 << 20)
        .await
        .unwrap();
    let frames: std::collections::HashSet<_> = extents
        .iter()
        .filter_map(|extent| match &extent.contents {
            Contents::Data { place, .. } => Some((place.at.block, place.at.frame)),
            Contents::Hole => None,
        })
        .collect();
    assert!(
        frames.len() < 100,
        "{} frames for {} extents",
        frames.len(),
        extents.len()
    );
    writer.stop().await;
}

/// Bytes of those chunks of `new` that `old` does not have.
fn new_chunks(volume: &crate::repo::Volume, old: &[u8], new: &[u8]) -> u64 {
    let gear = crate::chunk::Gear::new(volume.keys().gear());
    let chunks = |mut rest: &[u8]| {
        let mut chunks = std::collections::HashMap::new();
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(gear.cut(rest));
            chunks.insert(volume.keys().content_id(chunk), chunk.len() as u64);
            rest = behind;
        }
        chunks
    };
    let known = chunks(old);
    let new = chunks(new).into_iter();
    new.filter(|(id, _)| !known.contains_key(id))
        .map(|(_, len)| len)
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_put_in_front_uploads_little_and_equal_files_are_stored_once() {
    let world = World::new().await;
    let writer = world.start().await;
    let old = noise(4, 12 << 20);
    writer.create("file", &old);
    writer.create("twin", &old);
    writer.sync().await;
    assert!(world.meter.bytes_put() < 13 << 20, "the twin costs nothing");
    for round in 0..2 {
        let before = world.meter.bytes_put();
        let old = writer.now().remove("file").unwrap();
        let new = [&[round], &old[..]].concat();
        writer.create("file.tmp", &new);
        writer.replace("file.tmp", "file");
        let mark = writer.sync().await;
        let bytes = world.meter.bytes_put() - before;
        // How many chunks that are depends on the key. With padding, and the commit.
        let chunks = new_chunks(&writer.volume, &old, &new);
        let most = chunks + chunks / 8 + (64 << 10);
        assert!(
            bytes < most,
            "{bytes} bytes for one, {most} at most, in round {round}"
        );
        assert!(chunks < new.len() as u64, "nothing is found again");
        assert_eq!(world.snapshot(&mark).await, writer.now());
    }
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inodes_live_as_long_as_the_tree_names_them() {
    let world = World::new().await;
    let writer = world.start().await;
    let id = writer.create("a", b"one inode");
    writer.create("gone", b"never seen");
    writer.remove("gone");
    writer.link("a", "b");
    let links = async |mark: &CommitMark| {
        let volume = world.volume(false).await;
        let found = volume.read_commit(&mark.name).await.unwrap();
        let inode = volume.tree(&found.commit).inode(id).await.unwrap();
        (inode.map(|inode| inode.links), found.commit.totals)
    };
    let (two, totals) = links(&writer.sync().await).await;
    assert_eq!((two, totals.files, totals.bytes), (Some(2), 1, 9));
    writer.remove("a");
    let mark = writer.sync().await;
    assert_eq!(links(&mark).await.0, Some(1));
    assert_eq!(world.snapshot(&mark).await, writer.now());
    writer.remove("b");
    let (none, totals) = links(&writer.sync().await).await;
    assert_eq!((none, totals.files, totals.bytes), (None, 0, 0));
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_files_are_not_read_and_come_back_sparse() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("sparse", b"front");
    writer.truncate("sparse", 1 << 40);
    writer.write("sparse", 1 << 39, b"middle");
    let mark = writer.sync().await;
    let volume = world.volume(false).await;
    let found = volume.read_commit(&mark.name).await.unwrap();
    let tree = volume.tree(&found.commit);
    let id = writer.inode("sparse").id();
    let around = (1 << 39) - 10..(1 << 39) + 6;
    let extents = tree.extents(id, around).await.unwrap();
    assert!(matches!(
        extents.last().unwrap().contents,
        Contents::Data { .. }
    ));
    assert!(world.meter.bytes_put() < 64 << 10);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_ahead_is_laid_under_what_the_seal_finds() {
    let world = World::new().await;
    let small = Options {
        copy_ahead_bytes: 1 << 20,
        ..options(&world)
    };
    let writer = world
        .start_with(small, std::sync::Arc::new(SystemClock))
        .await;
    writer.create("large", &noise(5, 10 << 20));
    writer.create("cut", &noise(6, 3 << 20));
    // Copies have been made once the blocks of the open epoch arrive in the store.
    while writer.handle.status().uploaded_objects < 3 {
        tokio::task::yield_now().await;
    }
    writer.write("large", 1 << 20, b"changed after it was copied");
    writer.truncate("cut", 1000);
    let mark = writer.sync().await;
    assert_eq!(world.snapshot(&mark).await, writer.now());
    writer.stop().await;
}

/// A large file was overwritten in place with zeros. The copy ahead found zeros and took the pages off the list; the seal then
/// believed that nothing had changed, and every later snapshot showed the old bytes.
#[tokio::test(flavor = "multi_thread")]
async fn zeros_that_were_copied_ahead_hide_the_old_bytes() {
    let world = World::new().await;
    let eager = Options {
        copy_ahead_bytes: 0,
        ..options(&world)
    };
    let writer = world
        .start_with(eager, std::sync::Arc::new(SystemClock))
        .await;
    writer.create("image", &noise(10, 3 << 20));
    writer.sync().await;
    writer.write("image", 0, &vec![0; 3 << 20]);
    while writer.epochs.open_size().bytes > 0 {
        tokio::task::yield_now().await;
    }
    let mark = writer.sync().await;
    assert_eq!(world.snapshot(&mark).await, writer.now());
    writer.stop().await;
}

/// A file was cut within a page, that page was copied ahead as far as it went, and the file grew again: between the cut and
/// the end of the page the snapshot showed what had been cut off, where there were zeros.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_within_a_page_stays_cut_off_when_the_file_grows_again() {
    let world = World::new().await;
    let eager = Options {
        copy_ahead_bytes: 0,
        ..options(&world)
    };
    let writer = world
        .start_with(eager, std::sync::Arc::new(SystemClock))
        .await;
    writer.create("cut", &noise(11, 10_000));
    writer.sync().await;
    writer.truncate("cut", 5000);
    // The page that holds the new end is copied; the one behind it is gone, and left to the seal.
    while writer.epochs.open_size().bytes > 4096 {
        tokio::task::yield_now().await;
    }
    writer.write("cut", 9000, b"grown");
    let mark = writer.sync().await;
    assert_eq!(world.snapshot(&mark).await, writer.now());
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_uploading_and_captures_nothing_twice() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("a", &noise(7, 2 << 20));
    writer.sync().await;
    // The network goes away.
    let down = Rule {
        on: Some(Operation::PutIf),
        skip: 0,
        times: u64::MAX,
        fault: Fault::FailBefore(Kind::Retry),
    };
    world.plan.add(down);
    writer.write("a", 0, b"offline");
    writer.create("b", b"b");
    let waiting = tokio::spawn({
        let handle = writer.handle.clone();
        async move { handle.sync().await }
    });
    while writer.handle.status().last_error.is_none() {
        tokio::task::yield_now().await;
    }
    let stopped = writer.handle.stop(std::time::Duration::ZERO).await.unwrap();
    waiting.await.unwrap().unwrap_err();
    assert!(stopped.captured && !stopped.published);
    assert!(stopped.status.spool_bytes > 0 && stopped.status.last_error.is_some());
    let expected = writer.now();
    drop(writer);
    world.plan.clear();

    let writer = world.start().await;
    let mark = writer.sync().await;
    assert_eq!(world.snapshot(&mark).await, expected);
    assert_eq!(writer.handle.status().contents, FrameBytes::default());
    let stopped = writer.stop().await;
    assert!(stopped.published && stopped.status.spool_bytes == 0);
}

/// When one block of many failed all of them were sent again, be it a terabyte, and so they were after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_has_of_a_commit_is_not_sent_again() {
    /// What a new life puts beside objects that were not there: the lease, and the lease again to see whether conditions hold.
    const LEASES: u64 = 2;
    /// What a life has on its way when it ends counts as begun and never as failed.
    const CUT_OFF_MAX: u64 = 4;
    for restarts in [false, true] {
        let world = World::new().await;
        let mut writer = world.start().await;
        let puts =
            |of: fn(crate::store::metered::Usage) -> u64| of(world.meter.usage(Operation::PutIf));
        let succeeded = |usage: crate::store::metered::Usage| usage.requests - usage.failures;
        let objects = async || {
            world
                .store
                .list("v/", None, 1000)
                .await
                .unwrap()
                .objects
                .len()
        };
        let (before, objects_before) = (puts(succeeded), objects().await);
        world.plan.add(Rule {
            on: Some(Operation::PutIf),
            skip: 8,
            times: if restarts { u64::MAX } else { 1 },
            fault: Fault::FailBefore(Kind::Retry),
        });
        writer.create("large", &noise(12, 40 << 20));
        let waiting = tokio::spawn({
            let handle = writer.handle.clone();
            async move { handle.sync().await }
        });
        while puts(|usage| usage.failures) == 0 {
            tokio::task::yield_now().await;
        }
        if restarts {
            writer.handle.stop(std::time::Duration::ZERO).await.unwrap();
            assert!(waiting.await.unwrap().is_err());
            drop(writer);
            world.plan.clear();
            writer = world.start().await;
        } else {
            waiting.await.unwrap().unwrap();
        }
        writer.sync().await;
        let sent = puts(succeeded) - before;
        let made = (objects().await - objects_before) as u64;
        let (leases, cut_off) = if restarts {
            (LEASES, CUT_OFF_MAX)
        } else {
            (0, 0)
        };
        assert!(made > 8, "only {made} objects");
        let once = made + leases;
        assert!(
            (once..=once + cut_off).contains(&sent),
            "{sent} sent for {made} objects, restarts: {restarts}"
        );
        writer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_epochs_can_be_read_before_they_are_uploaded() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("a", b"first");
    writer.sync().await;
    world.plan.add(Rule {
        on: Some(Operation::PutIf),
        skip: 0,
        times: u64::MAX,
        fault: Fault::FailBefore(Kind::Retry),
    });
    writer.write("a", 0, b"local");
    let waiting = tokio::spawn({
        let handle = writer.handle.clone();
        async move { handle.snapshot("name".to_owned()).await }
    });
    while writer.handle.status().spool_commits == 0 {
        tokio::task::yield_now().await;
    }
    let head = writer.volume.head().await.unwrap().unwrap();
    assert_eq!(head.commit.label, "name");
    assert_eq!(contents(&writer.volume, &head).await, writer.now());
    world.plan.clear();
    let published = waiting.await.unwrap().unwrap();
    assert_eq!(published.name, head.commit.name);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_to_the_store_may_fail_once() {
    for fault in [
        Fault::FailBefore(Kind::Retry),
        Fault::FailAfter(Kind::Retry),
        // Only the answer to a put was believed once, and the spool removed what a store had merely said to have.
        Fault::Pretend,
    ] {
        let mut n = 0;
        loop {
            let world = World::new().await;
            let writer = world.start().await;
            let fired = world.plan.fired();
            world.plan.add(Rule {
                on: None,
                skip: n,
                times: 1,
                fault,
            });
            writer.create("a", &noise(n, 5 << 20));
            let first = writer.sync().await;
            let then = writer.now();
            writer.write("a", 100, b"again");
            writer.create("b", b"b");
            let second = writer.sync().await;
            let now = writer.now();
            let stopped = writer.stop().await;
            assert!(stopped.published && stopped.status.spool_bytes == 0);
            let struck = world.plan.fired() > fired;
            world.plan.clear();
            assert_eq!(world.snapshot(&first).await, then);
            assert_eq!(world.snapshot(&second).await, now);
            if !struck {
                break;
            }
            n += 1;
        }
        assert!(n > 3, "some request failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_back_begins_an_era_and_the_newest_is_still_the_newest() {
    let world = World::new().await;
    let clock = std::sync::Arc::new(ManualClock::new(SystemClock.now()));
    let writer = world.start_with(options(&world), clock.clone()).await;
    writer.create("a", b"before");
    let before = writer.sync().await;
    clock.set(Stamp(clock.now().0 - 3_600_000));
    writer.write("a", 0, b"after!");
    let after = writer.sync().await;
    assert!(after.name.era > before.name.era && after.name.stamp < before.name.stamp);
    assert_ne!(after.name.session, before.name.session);
    let head = world.volume(false).await.head().await.unwrap().unwrap();
    assert_eq!(head.commit.name, after.name);
    assert_eq!(world.snapshot(&after).await, writer.now());
    writer.stop().await;
}

/// A store that keeps conditions refused to have it put again, and nothing was published any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_which_the_store_has_a_part_is_put_again() {
    const CUT: usize = 100;
    // A block, and the commit that names it.
    for skip in [0, 1] {
        let world = World::new().await;
        let writer = world.start().await;
        world.plan.add(Rule {
            on: Some(Operation::PutIf),
            skip,
            times: 1,
            fault: Fault::CutBody(CUT),
        });
        let fired = world.plan.fired();
        writer.create("a", &noise(1, 2 << 20));
        let mark = tokio::time::timeout(LONG, writer.sync()).await.unwrap();
        assert_eq!(world.plan.fired(), fired + 1);
        assert_eq!(world.snapshot(&mark).await, writer.now());
        writer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_replaced_stops_for_good_and_says_so() {
    let world = World::new().await;
    let short = Options {
        lease: std::time::Duration::from_millis(1),
        ..options(&world)
    };
    let writer = world
        .start_with(short, std::sync::Arc::new(SystemClock))
        .await;
    writer.create("a", b"a");
    writer.sync().await;
    let base = world.volume(false).await.head().await.unwrap();
    let volume = world.volume(false).await;
    // The writer makes its short lease longer all the time: who comes in between is told so, and tries again.
    loop {
        let id = crate::id::SessionId::random();
        let claimed = volume.claim(id, "test", base.as_ref(), &[], LONG, &SystemClock);
        match claimed.await {
            Err(crate::repo::Error::Busy { .. }) => tokio::task::yield_now().await,
            claimed => break drop(claimed.unwrap()),
        }
    }
    writer.write("a", 0, b"b");
    let refused = writer.handle.sync().await.unwrap_err();
    // Whether the uploader or the flow is the first to tell.
    let refused = refused.to_string();
    let told = refused.contains("replaced") || refused.contains("has taken the volume");
    assert!(told, "{refused}");
    assert!(writer.handle.status().fenced);
    let head = world.volume(false).await.head().await.unwrap().unwrap();
    assert_eq!(Some(head.tag), base.map(|base| base.tag));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_scan_runs_only_incomplete_commits_are_published() {
    let world = World::new().await;
    let held = Options {
        held: true,
        incomplete_interval: std::time::Duration::ZERO,
        ..options(&world)
    };
    let writer = world
        .start_with(held, std::sync::Arc::new(SystemClock))
        .await;
    writer.create("a", b"a");
    while writer.handle.status().last_commit.is_none() {
        tokio::task::yield_now().await;
    }
    let head = world.volume(false).await.head().await.unwrap().unwrap();
    assert!(head.commit.incomplete);
    writer.handle.hold(false).await.unwrap();
    writer.create("b", b"b");
    let mark = writer.sync().await;
    let found = world
        .volume(false)
        .await
        .read_commit(&mark.name)
        .await
        .unwrap();
    assert!(!found.commit.incomplete);
    assert_eq!(world.snapshot(&mark).await, writer.now());
    writer.stop().await;
}

/// A mount was ended during its scan. What programs had changed by then became an incomplete commit on top of a complete one,
/// and at its publication the journal forgot what an earlier life, in a crash, had owed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_during_a_scan_spoils_no_exact_moment_and_forgets_nothing() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("a", b"exact");
    let exact = writer.sync().await;
    writer.stop().await;
    let held = Options {
        held: true,
        ..options(&world)
    };
    let writer = world
        .start_with(held.clone(), std::sync::Arc::new(SystemClock))
        .await;
    let owed = crate::id::FileId(999);
    let before = crate::id::EpochNo(0);
    writer.journal.record(owed, 0, before).unwrap();
    writer.write("a", 0, b"later");
    let stopped = writer.handle.stop(PATIENCE).await.unwrap();
    assert!(!stopped.captured);
    let head = world.volume(false).await.head().await.unwrap().unwrap();
    assert_eq!(head.commit.name, exact.name);
    let records = writer.journal.records().unwrap();
    assert_eq!(records.len(), 2, "{records:?}");
    drop(writer);

    let often = Options {
        incomplete_interval: std::time::Duration::ZERO,
        ..held
    };
    let writer = world
        .start_with(often, std::sync::Arc::new(SystemClock))
        .await;
    writer.write("a", 0, b"again");
    while writer.handle.status().last_commit.map(|mark| mark.name) == Some(exact.name) {
        tokio::task::yield_now().await;
    }
    let journal = std::sync::Arc::clone(&writer.journal);
    let stopped = writer.handle.stop(PATIENCE).await.unwrap();
    assert!(!stopped.captured, "no scan has looked at the file");
    drop(writer);
    // An earlier life's record is still there.
    let records = journal.records().unwrap();
    assert!(records.iter().any(|(id, ..)| *id == owed), "{records:?}");
}

/// Power failed soon after a new file had been captured: it lay there with its new times and old bytes, and since the journal
/// knew nothing of it, it was never compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_is_owed_from_its_capture_on_until_the_source_is_synced() {
    let world = World::new().await;
    let writer = world.start().await;
    let id = writer.create("new", b"data");
    writer.create("empty", b"");
    writer.sync().await;
    let records = writer.journal.records().unwrap();
    let owed: Vec<_> = records.iter().map(|r| (r.0, r.1)).collect();
    assert_eq!(owed, [(id, crate::journal::WHOLE_FILE)]);
    let journal = std::sync::Arc::clone(&writer.journal);
    writer.stop().await;
    assert!(journal.records().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_forgets_only_what_is_published_and_synced() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("a", &noise(8, 100_000));
    writer.sync().await;
    writer.write("a", 0, b"recorded");
    let journal = std::sync::Arc::clone(&writer.journal);
    assert!(!journal.records().unwrap().is_empty());
    writer.sync().await;
    assert!(
        !journal.records().unwrap().is_empty(),
        "published, but not synced"
    );
    writer.stop().await;
    assert!(journal.records().unwrap().is_empty());
}

/// A file was cut in the middle of a page, copied ahead, and grew again with a gap: the gap showed what the last commit had
/// there, since the copy ended where the file did and the write that made it grow touches only later pages.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_behind_a_copy_made_ahead_hides_what_was_there() {
    let world = World::new().await;
    let small = Options {
        copy_ahead_bytes: 1 << 20,
        ..options(&world)
    };
    let writer = world
        .start_with(small, std::sync::Arc::new(SystemClock))
        .await;
    writer.create("cut", &noise(6, 3 << 20));
    writer.sync().await;
    let before = writer.handle.status().uploaded_objects;
    writer.truncate("cut", 5000);
    writer.create("bulk", &noise(5, 10 << 20));
    while writer.handle.status().uploaded_objects < before + 2 {
        tokio::task::yield_now().await;
    }
    writer.write("cut", 15_000, b"far behind");
    let mark = writer.sync().await;
    assert_eq!(world.snapshot(&mark).await, writer.now());
    writer.stop().await;
}

/// During a first backup a file was renamed before the scan had come to it. The incomplete commit had its new name and its size, and
/// zeros for its contents.
#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_commit_shows_no_file_that_the_scan_has_not_looked_at() {
    let world = World::new().await;
    let late = world.path("source").join("late");
    std::fs::write(&late, b"there before").unwrap();
    std::fs::write(world.path("source").join("other"), b"old").unwrap();
    let held = Options {
        held: true,
        incomplete_interval: std::time::Duration::ZERO,
        ..options(&world)
    };
    let writer = world
        .start_with(held, std::sync::Arc::new(SystemClock))
        .await;
    writer.rename("late", "moved");
    writer.write("other", 1, b"LD");
    writer.create("new", b"known from the beginning");
    let incomplete = loop {
        if let Some(mark) = writer.handle.status().last_commit {
            let shown = world.snapshot(&mark).await;
            if shown.contains_key("new") {
                break shown;
            }
        }
    };
    assert_eq!(incomplete.keys().collect::<Vec<_>>(), ["new"]);

    // The scan, as reconcile does it.
    for name in ["moved", "other"] {
        let inode = writer.inode(name);
        let node = inode.node();
        let mut guard = writer.epochs.change(&[]).unwrap();
        let all = 0..writer.source.stat(node).unwrap().size;
        guard.discovered(node, &[all]);
        guard.seen(node);
    }
    let (root, other) = (writer.root(), writer.inode("other"));
    let dirs = [&root];
    let entry = crate::format::entry::NameEntry {
        id: other.id(),
        kind: crate::format::entry::Kind::File,
    };
    let mut guard = writer.epochs.change(&dirs).unwrap();
    guard.name(&root, b"other", Some(entry));
    drop(guard);
    while writer.epochs.take_moved(true).is_some() {}
    writer.handle.hold(false).await.unwrap();
    let mark = writer.sync().await;
    assert_eq!(world.snapshot(&mark).await, writer.now());
    writer.stop().await;
}

/// A request was carried out and could not be noted. Nobody looked again, and the next snapshot lacked the file without a word.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_as_exact_while_a_name_is_owed() {
    let world = World::new().await;
    let writer = world.start().await;
    writer.create("a", b"a");
    let first = writer.sync().await;
    let root = writer.root();
    let dirs = [&root];
    let mut guard = writer.epochs.change(&dirs).unwrap();
    std::fs::write(world.path("source").join("lost"), b"contents").unwrap();
    guard.owe(&root, b"lost", &std::io::Error::other("out of descriptors"));
    drop(guard);
    let (handle, waiting) = (writer.handle.clone(), world.meter.requests());
    let sync = tokio::spawn(async move { handle.sync().await });
    let told = loop {
        if let Some((told, _)) = writer.handle.status().last_error {
            break told;
        }
        tokio::task::yield_now().await;
    };
    assert!(told.contains("out of descriptors"), "{told}");
    assert_eq!(writer.handle.status().last_commit, Some(first));
    assert_eq!(world.meter.requests(), waiting);

    let Some(crate::epoch::Debt::Names(names)) = writer.epochs.debt() else {
        panic!("one name is owed");
    };
    assert_eq!(names, [(root.node().clone(), b"lost".to_vec())]);
    let lost = writer.inode("lost");
    let mut guard = writer.epochs.change(&dirs).unwrap();
    let entry = crate::format::entry::NameEntry {
        id: lost.id(),
        kind: crate::format::entry::Kind::File,
    };
    guard.name(&root, b"lost", Some(entry));
    guard.suspected(lost.node(), std::slice::from_ref(&(0..8)));
    guard.paid(&root, b"lost");
    drop(guard);
    let mark = sync.await.unwrap().unwrap().unwrap();
    assert_eq!(world.snapshot(&mark).await, writer.now());
    // The flow says so at its next turn.
    while writer.handle.status().last_error.is_some() {
        tokio::task::yield_now().await;
    }
    writer.stop().await;
}
