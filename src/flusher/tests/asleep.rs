//! A writer that was asleep for longer than its lease lasts, or whose clock jumped: one that was replaced meanwhile publishes nothing more and
//! loses nothing, one that was not goes on by itself. And a new era that was claimed half-way.

use std::sync::Arc;
use std::time::Duration;

use super::world::{LONG, PATIENCE, World, Writer, options};
use crate::clock::{Clock, ManualClock, Stamp, SystemClock};
use crate::flusher::{CommitMark, Options};
use crate::id::SessionId;
use crate::repo;
use crate::repo::commits::Found;
use crate::repo::lease::Writership;
use crate::store::Kind;
use crate::store::fault::{Fault, Rule};
use crate::store::metered::Operation;

const LEASE: Duration = Duration::from_secs(300);
const NIGHT: Duration = Duration::from_secs(8 * 3600);
const YEAR_MS: u64 = 365 * 24 * 3_600_000;

/// A writer that has published, and the clock of all machines.
async fn writer_in(world: &World) -> (Writer, Arc<ManualClock>, CommitMark) {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let options = Options {
        lease: LEASE,
        ..options(world)
    };
    let writer = world.start_with(options, clock.clone()).await;
    writer.create("a", b"first");
    let mark = writer.sync().await;
    (writer, clock, mark)
}

/// Another machine takes the volume, going by `clock`.
async fn claim_elsewhere(world: &World, clock: &dyn Clock) -> Result<Writership, repo::Error> {
    let volume = world.volume(false).await;
    let head = volume.head().await.unwrap();
    let (id, head) = (SessionId::random(), head.as_ref());
    volume.claim(id, "another", head, &[], LONG, clock).await
}

async fn head(world: &World) -> Found {
    world.volume(false).await.head().await.unwrap().unwrap()
}

/// The writer says that it was replaced, still has what it could not publish, and the volume stands where it stood.
async fn assert_replaced(world: &World, writer: Writer, before: &CommitMark) {
    let refused = writer.handle.sync().await.unwrap_err().to_string();
    let told = refused.contains("replaced") || refused.contains("has taken the volume");
    assert!(told, "{refused}");
    assert!(writer.handle.status().fenced);
    assert_eq!(head(world).await.tag, before.tag);
    let stopped = writer.handle.stop(PATIENCE).await.unwrap();
    assert!(!stopped.published);
    // What it could not publish it still owes.
    assert!(!writer.journal.records().unwrap().is_empty());
    assert_eq!(head(world).await.tag, before.tag);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_replaced_in_its_sleep_publishes_nothing() {
    let world = World::new().await;
    let (writer, clock, before) = writer_in(&world).await;
    let busy = claim_elsewhere(&world, &*clock).await.unwrap_err();
    assert!(matches!(busy, repo::Error::Busy { .. }), "{busy}");
    clock.pass(NIGHT);
    claim_elsewhere(&world, &*clock).await.unwrap();
    writer.write("a", 0, b"after");
    assert_replaced(&world, writer, &before).await;
}

/// It fell asleep with the commit on its way, and the store took that when it was awake again: the answer alone would have had the journal forget.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_replaced_while_its_commit_was_on_its_way_publishes_nothing() {
    let world = World::new().await;
    let (writer, clock, before) = writer_in(&world).await;
    world.plan.add(Rule {
        on: Some(Operation::PutIf),
        skip: 0,
        times: 1,
        fault: Fault::Hang,
    });
    let fired = world.plan.fired();
    writer.write("a", 0, b"after");
    let waiting = tokio::spawn({
        let handle = writer.handle.clone();
        async move { handle.sync().await }
    });
    while world.plan.fired() == fired {
        tokio::task::yield_now().await;
    }
    clock.pass(NIGHT);
    claim_elsewhere(&world, &*clock).await.unwrap();
    world.plan.release();
    waiting.await.unwrap().unwrap_err();
    // It is there, and not part of history.
    let volume = world.volume(false).await;
    let listing = world.store.list("", None, 1000).await.unwrap();
    let commits = listing
        .objects
        .iter()
        .filter(|(key, _)| key.as_str().contains("/c/"));
    assert_eq!(commits.count(), 2);
    assert_eq!(volume.history(&head(&world).await).await.unwrap().len(), 1);
    assert_replaced(&world, writer, &before).await;
}

/// The other machine's clock is ahead, so that it believes the lease to have run out; the writer has been awake all the time, and has no reason to ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_replaced_by_a_machine_whose_clock_is_ahead_publishes_nothing() {
    let world = World::new().await;
    let (writer, clock, before) = writer_in(&world).await;
    let ahead = ManualClock::new(Stamp(clock.now().0 + NIGHT.as_millis() as u64));
    claim_elsewhere(&world, &ahead).await.unwrap();
    writer.write("a", 0, b"after");
    assert_replaced(&world, writer, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_not_replaced_in_its_sleep_goes_on() {
    let world = World::new().await;
    let (writer, clock, before) = writer_in(&world).await;
    for night in 0..3 {
        clock.pass(NIGHT);
        writer.write("a", 0, format!("night {night}").as_bytes());
        let mark = writer.sync().await;
        assert_eq!(mark.name.session, before.name.session);
        assert_eq!(world.snapshot(&mark).await, writer.now());
        // And the volume is its own again.
        let busy = claim_elsewhere(&world, &*clock).await.unwrap_err();
        assert!(matches!(busy, repo::Error::Busy { .. }), "{busy}");
    }
    assert_eq!(head(&world).await.commit.name.seq.0, 4);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_clock_jumps_in_its_sleep_goes_on() {
    let world = World::new().await;
    let (writer, clock, _) = writer_in(&world).await;
    let right = clock.now().0;
    let mut told = Vec::new();
    for wall in [right + YEAR_MS, right, right - YEAR_MS, right + 60_000] {
        clock.pass(NIGHT);
        clock.set(Stamp(wall));
        writer.write("a", 0, format!("{wall}").as_bytes());
        told.push((writer.sync().await, writer.now()));
    }
    for (mark, then) in &told {
        assert_eq!(world.snapshot(mark).await, *then);
    }
    let ordered = told.windows(2).all(|pair| {
        let (a, b) = (&pair[0].0.name, &pair[1].0.name);
        a.seq < b.seq && (a.era, a.stamp) < (b.era, b.stamp)
    });
    assert!(ordered, "{told:?}");
    assert_eq!(head(&world).await.tag, told.last().unwrap().0.tag);
    writer.stop().await;
}

/// The clock has stepped back, and each request in turn with which the new era is claimed fails, before its effect or after it: it is claimed
/// again, and what was claimed half-way stops nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_era_that_was_claimed_half_way_is_claimed_again() {
    half_way(async |world, writer, clock, _| {
        world.plan.clear();
        writer.write("a", 0, b"again");
        let mark = writer.sync().await;
        assert_eq!(world.snapshot(&mark).await, writer.now());
        clock.pass(Duration::from_secs(60));
        writer.create("b", b"b");
        let mark = writer.sync().await;
        assert_eq!(head(world).await.tag, mark.tag);
        writer.stop().await;
    })
    .await;
}

/// The same, and the process ends there: the next life goes on from what was published.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_ended_while_a_new_era_was_claimed_half_way_is_gone_on_with() {
    half_way(async |world, writer, clock, before| {
        let now = writer.now();
        writer.handle.stop(Duration::ZERO).await.unwrap();
        drop(writer);
        world.plan.clear();
        assert_eq!(head(world).await.tag, before.tag);
        let next = world.start_with(options(world), clock.clone()).await;
        // What the scan of the next mount finds by the journal.
        next.write("a", 0, b"claim");
        let mark = next.sync().await;
        assert_eq!(world.snapshot(&mark).await, now);
        assert_eq!(head(world).await.tag, mark.tag);
        next.stop().await;
    })
    .await;
}

/// Lets the `n`-th request after a step back of the clock fail and all that follow it, for every `n` up to the last of the claim, and then
/// `go_on`.
async fn half_way(go_on: impl AsyncFn(&World, Writer, &Arc<ManualClock>, CommitMark)) {
    for fault in [
        Fault::FailBefore(Kind::Retry),
        Fault::FailAfter(Kind::Retry),
    ] {
        let mut n = 0;
        loop {
            let world = World::new().await;
            let (writer, clock, before) = writer_in(&world).await;
            clock.set(Stamp(clock.now().0 - 3_600_000));
            // And then the store is away.
            for (skip, times, fault) in [
                (n, 1, fault),
                (n + 1, u64::MAX, Fault::FailBefore(Kind::Retry)),
            ] {
                let on = None;
                world.plan.add(Rule {
                    on,
                    skip,
                    times,
                    fault,
                });
            }
            let fired = world.plan.fired();
            writer.write("a", 0, b"claim");
            // The claim is the first that is asked for; its failure is told at once.
            let claimed = loop {
                let status = writer.handle.status();
                let seq = status.last_captured.map(|mark| mark.name.seq);
                if seq > Some(before.name.seq) {
                    break true;
                }
                if world.plan.fired() > fired && status.last_error.is_some() {
                    break false;
                }
                let nudged = writer.handle.clone();
                drop(tokio::time::timeout(Duration::from_millis(20), nudged.sync()).await);
            };
            if claimed {
                world.plan.clear();
                writer.stop().await;
                assert!(n > 4, "{n} requests");
                break;
            }
            go_on(&world, writer, &clock, before).await;
            n += 1;
        }
    }
}
