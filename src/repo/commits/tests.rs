//! Finding commits: by time and era, number, name; forks of replaced writers; damage; and what opening costs.

use std::sync::Arc;

use super::*;
use crate::cache::Cache;
use crate::clock::{Clock, ManualClock, Timespec};
use crate::format::claim::ClaimName;
use crate::format::entry::{Change, Inode, Kind, NameEntry};
use crate::id::{Era, FileId, Generation, SessionId};
use crate::repo::fixture::{LEASE, Special, TEN, Writer, memory, metered, no_cache, open, reopen};
use crate::store::{Body, Store};

mod claims;

mod cost;

mod planted;

const MINUTE: u64 = 60_000;

fn label(label: &str) -> Special {
    Special {
        label: label.into(),
        ..Special::default()
    }
}

fn incomplete() -> Special {
    Special {
        incomplete: true,
        ..Special::default()
    }
}

async fn seq_of(volume: &Volume, point: Point) -> u64 {
    volume.find(&point).await.unwrap().commit.name.seq.0
}

async fn refusal(volume: &Volume, point: Point) -> String {
    match volume.find(&point).await {
        Err(Error::NotFound(why)) => why,
        other => panic!("{point:?} gave {other:?}"),
    }
}

/// Commits 1 to `count`, one a minute from [`TEN`] on.
async fn a_commit_a_minute(store: &Store, count: u64) -> Writer {
    let mut writer = Writer::new(store).await;
    for n in 0..count {
        writer.clock.set(Stamp(TEN + n * MINUTE));
        writer
            .commit(vec![], label(&format!("name {}", n + 1)))
            .await;
    }
    writer
}

#[tokio::test]
async fn an_empty_volume_has_no_head_and_says_so() {
    let store = memory();
    let writer = Writer::new(&store).await;
    assert!(writer.volume.head().await.unwrap().is_none());
    for point in [
        Point::Latest,
        Point::Back(1),
        Point::At(Stamp(TEN)),
        Point::Seq(Seq(1)),
    ] {
        let why = refusal(&writer.volume, point).await;
        assert_eq!(why, "volume docs has no snapshot yet");
    }
}

#[tokio::test]
async fn every_kind_of_point_finds_its_commit() {
    let store = memory();
    a_commit_a_minute(&store, 5).await;
    let volume = reopen(&store, no_cache()).await;
    assert_eq!(seq_of(&volume, Point::Latest).await, 5);
    assert_eq!(seq_of(&volume, Point::Back(0)).await, 5);
    assert_eq!(seq_of(&volume, Point::Back(4)).await, 1);
    assert_eq!(seq_of(&volume, Point::Seq(Seq(3))).await, 3);
    assert_eq!(seq_of(&volume, Point::Named("name 2".into())).await, 2);
    for (at, seq) in [
        (0, 1),
        (1, 1),
        (MINUTE - 1, 1),
        (MINUTE, 2),
        (10 * MINUTE, 5),
    ] {
        assert_eq!(
            seq_of(&volume, Point::At(Stamp(TEN + at))).await,
            seq,
            "{at}"
        );
    }
    let third = volume.find(&Point::Seq(Seq(3))).await.unwrap();
    let id = snapshot_id(&third.tag);
    assert_eq!(seq_of(&volume, Point::Named(id.clone())).await, 3);
    assert_eq!(seq_of(&volume, Point::Named(id.to_uppercase())).await, 3);
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_the_window() {
    let store = memory();
    a_commit_a_minute(&store, 3).await;
    let volume = reopen(&store, no_cache()).await;
    let window =
        "; history begins 2026-11-21 10:00:00 UTC (@1) and ends 2026-11-21 10:02:00 UTC (@3)";
    for (point, why) in [
        (
            Point::At(Stamp(TEN - 1)),
            "there is no snapshot at or before 2026-11-21 09:59:59 UTC",
        ),
        (Point::Back(3), "there are no 3 snapshots before the latest"),
        (Point::Seq(Seq(4)), "there is no snapshot @4"),
        (Point::Seq(Seq(0)), "there is no snapshot @0"),
        (
            Point::Named("name 9".into()),
            "no snapshot has the name or id \"name 9\"",
        ),
        (
            Point::Named("".into()),
            "no snapshot has the name or id \"\"",
        ),
        (
            Point::Named("abc".into()),
            "no snapshot has the name or id \"abc\"",
        ),
    ] {
        assert_eq!(refusal(&volume, point).await, format!("{why}{window}"));
    }
}

#[tokio::test]
async fn a_name_given_twice_is_ambiguous_and_the_answer_tells_the_ids() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let one = writer.commit(vec![], label("release")).await;
    let two = writer.commit(vec![], label("release")).await;
    let why = refusal(&writer.volume, Point::Named("release".into())).await;
    for found in [one, two] {
        assert!(why.contains(&snapshot_id(&found.tag)), "{why}");
    }
    assert!(why.starts_with("2 snapshots fit \"release\""), "{why}");
}

#[tokio::test]
async fn history_is_whole_in_order_and_holds_the_head() {
    let store = memory();
    let writer = a_commit_a_minute(&store, 40).await;
    let history = writer
        .volume
        .history(writer.head.as_ref().unwrap())
        .await
        .unwrap();
    let seqs: Vec<_> = history.iter().map(|entry| entry.name.seq.0).collect();
    assert_eq!(seqs, (1..=40).collect::<Vec<_>>());
    assert_eq!(history[39], writer.head.unwrap().history_entry());
}

#[tokio::test]
async fn a_time_after_the_clock_was_set_back_is_found_in_one_list() {
    let store = memory();
    let mut writer = a_commit_a_minute(&store, 3).await;
    // 09:30, half an hour back: a new session, a new claim, a new era. Commits 4 to 6 at 09:30, 09:31, 09:32.
    for era in 1..=2 {
        let clock = Arc::new(ManualClock::new(Stamp(TEN - era * 30 * MINUTE)));
        let volume = writer.volume.clone();
        writer.writership.release().await.unwrap();
        writer = Writer::claim(&volume, &clock, "here").await.unwrap();
        assert_eq!(writer.writership.era(), Era(era as u32));
        for _ in 0..3 {
            writer.commit(vec![], Special::default()).await;
            clock.set(Stamp(clock.now().0 + MINUTE));
        }
    }
    // Eras: 0 has 1-3 at 10:00-10:02, 1 has 4-6 at 09:30-09:32, 2 has 7-9 at 09:00-09:02.
    let (counted, meter) = metered(&store);
    let volume = reopen(&counted, no_cache()).await;
    for (at, seq) in [
        (TEN + 60 * MINUTE, 9),
        (TEN - 60 * MINUTE, 7),
        (TEN - 59 * MINUTE, 8),
        (TEN - 30 * MINUTE, 9),
    ] {
        let before = meter.usage(crate::store::metered::Operation::List).requests;
        assert_eq!(seq_of(&volume, Point::At(Stamp(at))).await, seq);
        let lists = meter.usage(crate::store::metered::Operation::List).requests - before;
        assert_eq!(lists, 1);
    }
    assert_eq!(seq_of(&volume, Point::Latest).await, 9);
    let why = refusal(&volume, Point::At(Stamp(TEN - 61 * MINUTE))).await;
    assert!(
        why.contains("history begins 2026-11-21 10:00:00 UTC (@1)"),
        "{why}"
    );
}

#[tokio::test]
async fn an_era_that_begins_after_the_time_gives_way_to_the_one_before() {
    let store = memory();
    let first = a_commit_a_minute(&store, 3).await;
    first.writership.release().await.unwrap();
    // Set back from 10:02 to 10:00:30. The new era's first commit is at 10:00:30.
    let clock = Arc::new(ManualClock::new(Stamp(TEN + MINUTE / 2)));
    let mut second = Writer::claim(&first.volume, &clock, "here").await.unwrap();
    second.commit(vec![], Special::default()).await;
    let (counted, meter) = metered(&store);
    let volume = reopen(&counted, no_cache()).await;
    let before = meter.usage(crate::store::metered::Operation::List).requests;
    // 10:00:10: nothing in the new era yet, in the old one 10:02 and 10:01 are too late and 10:00 is not.
    assert_eq!(seq_of(&volume, Point::At(Stamp(TEN + MINUTE / 6))).await, 1);
    let lists = meter.usage(crate::store::metered::Operation::List).requests - before;
    assert_eq!(lists, 1);
    // 10:01:30: both eras have one; the later era wins.
    assert_eq!(
        seq_of(&volume, Point::At(Stamp(TEN + MINUTE * 3 / 2))).await,
        4
    );
}

#[tokio::test]
async fn a_small_step_back_keeps_the_era_and_stamps_count_on() {
    let store = memory();
    let first = a_commit_a_minute(&store, 2).await;
    let clock = Arc::new(ManualClock::new(Stamp(TEN + MINUTE / 2)));
    let mut second = Writer::claim(&first.volume, &clock, "here").await.unwrap();
    assert_eq!(second.writership.era(), Era(0));
    let found = second.commit(vec![], Special::default()).await;
    assert_eq!(found.commit.name.stamp, Stamp(TEN + MINUTE + 1));
    assert_eq!(found.commit.wall, Stamp(TEN + MINUTE / 2));
}

#[tokio::test]
async fn an_incomplete_commit_is_chosen_only_where_there_is_no_other() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    writer.commit(vec![], incomplete()).await;
    writer.commit(vec![], incomplete()).await;
    let now = TEN + MINUTE;
    assert_eq!(seq_of(&writer.volume, Point::Latest).await, 2);
    assert_eq!(seq_of(&writer.volume, Point::At(Stamp(now))).await, 2);
    assert_eq!(seq_of(&writer.volume, Point::Back(1)).await, 1);
    writer.commit(vec![], Special::default()).await;
    writer.commit(vec![], incomplete()).await;
    writer.commit(vec![], incomplete()).await;
    assert_eq!(seq_of(&writer.volume, Point::Latest).await, 3);
    assert_eq!(seq_of(&writer.volume, Point::At(Stamp(now))).await, 3);
    assert_eq!(seq_of(&writer.volume, Point::Seq(Seq(5))).await, 5);
    assert_eq!(
        writer.volume.head().await.unwrap().unwrap().commit.name.seq,
        Seq(5)
    );
    let why = refusal(&writer.volume, Point::Back(1)).await;
    assert!(why.starts_with("there are no 1 snapshots"), "{why}");
}

async fn overwrite(store: &Store, key: &ObjectKey, bytes: impl Into<bytes::Bytes>) {
    store.put(key, Body::Bytes(bytes.into())).await.unwrap();
}

#[tokio::test]
async fn no_flipped_bit_and_no_cut_of_a_commit_gives_another_commit() {
    let store = memory();
    let writer = a_commit_a_minute(&store, 2).await;
    let volume = &writer.volume;
    let head = writer.head.as_ref().unwrap();
    let key = layout::commit(volume.info().id, &head.commit.name);
    let (whole, _) = store.get(&key, 1 << 20).await.unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1 << (at % 8);
        overwrite(&store, &key, bytes).await;
        check(volume.head().await, head, &key);
    }
    for len in 0..whole.len() {
        overwrite(&store, &key, whole.slice(..len)).await;
        check(
            volume.read_commit(&head.commit.name).await.map(Some),
            head,
            &key,
        );
    }
    // What else there is stays readable.
    assert_eq!(seq_of(volume, Point::At(Stamp(TEN))).await, 1);
}

fn check(read: Result<Option<Found>, Error>, expected: &Found, key: &ObjectKey) {
    match read {
        Ok(Some(found)) => assert_eq!(
            (found.commit, found.tag),
            (expected.commit.clone(), expected.tag)
        ),
        Ok(None) => panic!("the head is gone"),
        Err(Error::Damaged { object, .. }) => assert_eq!(object, *key),
        Err(Error::NewerFormat { what, .. }) => assert_eq!(what, key.to_string()),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_commit_replayed_under_another_name_is_found_out() {
    let store = memory();
    let writer = a_commit_a_minute(&store, 2).await;
    let volume = &writer.volume;
    let head = writer.head.as_ref().unwrap();
    let (before, _) = head.commit.previous.unwrap();
    let old = layout::commit(volume.info().id, &before);
    let (old_bytes, _) = store.get(&old, 1 << 20).await.unwrap();
    // As the newest of all.
    let newest = CommitName {
        stamp: Stamp(TEN + 100 * MINUTE),
        seq: Seq(3),
        ..head.commit.name
    };
    let key = layout::commit(volume.info().id, &newest);
    overwrite(&store, &key, old_bytes.clone()).await;
    let found = volume.head().await;
    assert!(matches!(found, Err(Error::Damaged { object, .. }) if object == key));
    store.delete(&key).await.unwrap();
    // In place of a later one.
    let key = layout::commit(volume.info().id, &head.commit.name);
    overwrite(&store, &key, old_bytes).await;
    let found = volume.find(&Point::Latest).await;
    assert!(matches!(found, Err(Error::Damaged { object, .. }) if object == key));
}

#[tokio::test]
async fn a_missing_commit_is_named_when_it_is_asked_for() {
    let store = memory();
    let writer = a_commit_a_minute(&store, 3).await;
    let history = writer
        .volume
        .history(writer.head.as_ref().unwrap())
        .await
        .unwrap();
    let key = layout::commit(writer.volume.info().id, &history[1].name);
    store.delete(&key).await.unwrap();
    let found = writer.volume.find(&Point::Seq(Seq(2))).await;
    assert!(matches!(found, Err(Error::Missing { object }) if object == key));
    assert_eq!(seq_of(&writer.volume, Point::Latest).await, 3);
}

#[tokio::test]
async fn two_volumes_do_not_read_each_others_commits() {
    let store = memory();
    let writer = a_commit_a_minute(&store, 1).await;
    let repository = open(&store, no_cache()).await;
    let other = repository.create_volume("other", Stamp(TEN)).await.unwrap();
    let name = writer.head.as_ref().unwrap().commit.name;
    let (bytes, _) = store
        .get(&layout::commit(writer.volume.info().id, &name), 1 << 20)
        .await
        .unwrap();
    overwrite(&store, &layout::commit(other.id, &name), bytes).await;
    let other = repository.volume(other.id).await.unwrap();
    assert!(matches!(other.head().await, Err(Error::Damaged { .. })));
}

#[tokio::test]
async fn a_commit_that_has_gone_is_missed_by_whoever_asks_for_its_time() {
    let store = memory();
    // More than one listing shows, so that both ways of finding are taken.
    let writer = a_commit_a_minute(&store, 300).await;
    let history = writer
        .volume
        .history(writer.head.as_ref().unwrap())
        .await
        .unwrap();
    for seq in [1, 5, 40, 60, 298] {
        let object = layout::commit(writer.volume.info().id, &history[seq - 1].name);
        let (bytes, _) = store.get(&object, 1 << 20).await.unwrap();
        store.delete(&object).await.unwrap();
        let volume = reopen(&store, no_cache()).await;
        let minute = |seq: usize| Point::At(Stamp(TEN + (seq as u64 - 1) * MINUTE));
        let gone = volume.find(&minute(seq)).await;
        assert!(matches!(gone, Err(Error::Missing { object: named }) if named == object));
        assert_eq!(seq_of(&volume, minute(seq + 1)).await, seq as u64 + 1);
        store.put(&object, Body::Bytes(bytes)).await.unwrap();
    }
}

/// Whoever can delete a commit can put up a name that seems to follow the one before it.
#[tokio::test]
async fn a_planted_name_does_not_hide_that_a_commit_has_gone() {
    let store = memory();
    let writer = a_commit_a_minute(&store, 4).await;
    let head = writer.head.as_ref().unwrap();
    let history = writer.volume.history(head).await.unwrap();
    let volume = writer.volume.info().id;
    let gone = layout::commit(volume, &history[2].name);
    store.delete(&gone).await.unwrap();
    let planted = CommitName {
        stamp: Stamp(TEN + 2 * MINUTE + 1),
        ..history[2].name
    };
    let planted = layout::commit(volume, &planted);
    overwrite(&store, &planted, b"anything".to_vec()).await;
    let at = Point::At(Stamp(TEN + 2 * MINUTE));
    let found = reopen(&store, no_cache()).await.find(&at).await;
    assert!(matches!(found, Err(Error::Missing { object }) if object == gone));
}

#[tokio::test]
async fn a_commit_that_has_gone_is_missed_behind_an_incomplete_one_too() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    for (n, special) in [incomplete(), label("whole"), label("later")]
        .into_iter()
        .enumerate()
    {
        writer.clock.set(Stamp(TEN + n as u64 * MINUTE));
        writer.commit(vec![], special).await;
    }
    let head = writer.head.as_ref().unwrap();
    let history = writer.volume.history(head).await.unwrap();
    let gone = layout::commit(writer.volume.info().id, &history[1].name);
    store.delete(&gone).await.unwrap();
    let at = Point::At(Stamp(TEN + MINUTE));
    let found = reopen(&store, no_cache()).await.find(&at).await;
    assert!(matches!(found, Err(Error::Missing { object }) if object == gone));
}
