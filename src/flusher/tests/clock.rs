//! A wall clock that is set back by a day, forward by a year, or stands still, under a running flusher: order goes by sequence, nothing is
//! lost, and a time finds what a person means by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::world::{World, Writer, noise, options};
use crate::clock::{Clock, ManualClock, Stamp, SystemClock};
use crate::flusher::{CommitMark, Options};
use crate::repo::commits::Point;
use crate::store::Kind;
use crate::store::fault::{Fault, Rule};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
const YEAR: u64 = 365 * DAY;

/// Every commit so far with what the source held then.
type Told = Vec<(CommitMark, BTreeMap<String, Vec<u8>>)>;

/// Changes the same file and a new one, and publishes that at `wall`.
async fn publish(writer: &Writer, clock: &ManualClock, wall: u64, told: &mut Told) {
    clock.set(Stamp(wall));
    let number = told.len();
    writer.create(&format!("new-{number}"), format!("{number}").as_bytes());
    writer.write("same", 0, format!("at {number:04}").as_bytes());
    told.push((writer.sync().await, writer.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_clock_does_nothing_is_lost_and_a_time_finds_what_is_meant() {
    let world = World::new().await;
    let begin = SystemClock.now().0;
    let clock = Arc::new(ManualClock::new(Stamp(begin)));
    let writer = world.start_with(options(&world), clock.clone()).await;
    writer.create("same", b"at first");
    let mut told = Told::new();
    let walls = [
        // A right clock; then it stands still.
        begin,
        begin + 10 * MINUTE,
        begin + 10 * MINUTE,
        begin + 10 * MINUTE,
        // Set back by a day, where it goes on and stands still again.
        begin - DAY,
        begin - DAY + 10 * MINUTE,
        begin - DAY + 10 * MINUTE,
        // Set right, and forward by a year.
        begin + 20 * MINUTE,
        begin + YEAR,
        // And right once more.
        begin + 30 * MINUTE,
    ];
    for wall in walls {
        publish(&writer, &clock, wall, &mut told).await;
    }
    writer.stop().await;
    // A new life, whose clock is behind by a day from the start.
    clock.set(Stamp(begin - DAY));
    let writer = world.start_with(options(&world), clock.clone()).await;
    publish(&writer, &clock, begin - DAY, &mut told).await;
    publish(&writer, &clock, begin + 40 * MINUTE, &mut told).await;
    writer.stop().await;

    let volume = world.volume(false).await;
    let head = volume.head().await.unwrap().unwrap();
    let history = volume.history(&head).await.unwrap();
    let listed: Vec<_> = history.iter().map(|entry| entry.name).collect();
    let published: Vec<_> = told.iter().map(|(mark, _)| mark.name).collect();
    assert_eq!(listed, published, "all of them, in order, and no other");
    assert!(published.windows(2).all(|pair| {
        pair[0].seq.0 + 1 == pair[1].seq.0
            && (pair[0].era, pair[0].stamp) < (pair[1].era, pair[1].stamp)
    }));
    let eras: Vec<u32> = published.iter().map(|name| name.era.0).collect();
    assert_eq!(eras, [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 3]);
    for (mark, then) in &told {
        assert_eq!(world.snapshot(mark).await, *then);
    }

    let at = async |wall: u64| {
        let found = volume.find(&Point::At(Stamp(wall))).await.unwrap();
        told.iter()
            .position(|(mark, _)| mark.tag == found.tag)
            .expect("one of them")
    };
    // Now is the newest, whatever was published in a year that has not come.
    assert_eq!(at(begin + 40 * MINUTE).await, 11);
    assert_eq!(at(begin + 2 * YEAR).await, 11);
    // What was written last while a clock showed that time: the later of two eras that have been there.
    assert_eq!(at(begin + 35 * MINUTE).await, 10);
    assert_eq!(at(begin - DAY + 5 * MINUTE).await, 10);
    assert_eq!(volume.find(&Point::Latest).await.unwrap().tag, head.tag);
    // No clock had ever shown a time before this one.
    let before = Point::At(Stamp(begin - DAY - 1));
    assert!(volume.find(&before).await.is_err());
}

/// Tells how often it was asked.
struct Counted {
    clock: ManualClock,
    asked: AtomicU64,
}

impl Clock for Counted {
    fn now(&self) -> Stamp {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.clock.now()
    }

    fn since_boot(&self) -> Duration {
        self.clock.since_boot()
    }
}

/// While a seal that had failed was not to be tried again for half a minute, and what had been copied ahead of it was not all, the flow
/// looked at the open epoch a thousand times a second, in vain. After the volume was taken by another writer it did so until it ended.
#[tokio::test(flavor = "multi_thread")]
async fn the_flow_rests_between_two_attempts_though_there_is_more_to_copy() {
    /// Two looks or three for each pause, and what a failure and the uploader ask.
    const LOOKS_MAX: u64 = 100;
    let world = World::new().await;
    let clock = Arc::new(Counted {
        clock: ManualClock::new(SystemClock.now()),
        asked: AtomicU64::new(0),
    });
    let in_rounds = Options {
        copy_ahead_bytes: 0,
        round_bytes: 1 << 20,
        incomplete_interval: Duration::ZERO,
        ..options(&world)
    };
    let writer = world.start_with(in_rounds, clock.clone()).await;
    // A new era needs the store, so no seal succeeds.
    clock.clock.set(Stamp(clock.clock.now().0 - DAY));
    world.plan.add(Rule {
        on: None,
        skip: 0,
        times: u64::MAX,
        fault: Fault::FailBefore(Kind::Retry),
    });
    writer.create("large", &noise(40, 3 << 20));
    let before = clock.asked.load(Ordering::Relaxed);
    while writer.epochs.open_size().bytes > 0 {
        tokio::task::yield_now().await;
    }
    let looks = clock.asked.load(Ordering::Relaxed) - before;
    world.plan.clear();
    let mark = writer.sync().await;
    assert!(world.snapshot(&mark).await == writer.now());
    assert!(looks < LOOKS_MAX, "{looks} looks");
    writer.stop().await;
}
