//! A machine that remembers: what it notices of a store that was put back, and what it takes for what it is.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::id::Seq;
use crate::repo::commits::Point;
use crate::repo::fixture::{Special, TEN, Writer, memory, no_cache, open};
use crate::repo::layout;
use crate::store::{Body, Store};

/// Remembers in memory.
#[derive(Default)]
struct Notes(Mutex<Option<Seen>>);

impl Witness for Notes {
    fn newest(&self, _volume: VolumeId) -> Option<Seen> {
        *self.0.lock()
    }

    fn note_best_effort(&self, _volume: VolumeId, seen: &Seen) {
        *self.0.lock() = Some(*seen);
    }

    fn how_to_forget(&self, _volume: VolumeId) -> String {
        "forget it".to_owned()
    }
}

/// The volume as a machine opens it that has these notes.
async fn with(store: &Store, notes: &Arc<Notes>) -> Arc<Volume> {
    let repository = open(store, no_cache()).await.with_witness(notes.clone());
    let volumes = repository.volumes().await.unwrap();
    repository.volume(volumes[0].id).await.unwrap()
}

async fn commits(count: u64) -> (Store, Writer) {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    for n in 0..count {
        writer.clock.set(Stamp(TEN + n * 1000));
        writer.commit(vec![], Special::default()).await;
    }
    (store, writer)
}

/// Takes a commit from the store, to be put back.
async fn take(store: &Store, found: &Found, volume: VolumeId) -> (crate::id::ObjectKey, Body) {
    let key = layout::commit(volume, &found.commit.name);
    let (bytes, _) = store.get(&key, 1 << 20).await.unwrap();
    store.delete(&key).await.unwrap();
    (key, Body::Bytes(bytes))
}

#[tokio::test]
async fn a_newest_commit_that_has_gone_is_noticed_by_whoever_has_seen_it() {
    let (store, writer) = commits(4).await;
    let notes = Arc::new(Notes::default());
    let seen = with(&store, &notes).await.head().await.unwrap().unwrap();
    assert_eq!(*notes.0.lock(), Some(Seen::from(&seen)));
    let id = writer.volume.info().id;
    let (key, body) = take(&store, &seen, id).await;
    let later = Stamp(TEN + 60_000);
    for point in [Point::Latest, Point::Back(1), Point::At(later)] {
        let volume = with(&store, &notes).await;
        let error = volume.find(&point).await.unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("@4") && text.contains("@3") && text.contains("forget it"));
    }
    // What was before it is as good as ever, and so is everything for one who has not seen it.
    let volume = with(&store, &notes).await;
    for point in [Point::At(Stamp(TEN + 2500)), Point::Seq(Seq(3))] {
        assert_eq!(volume.find(&point).await.unwrap().commit.name.seq, Seq(3));
    }
    let stranger = with(&store, &Arc::default()).await;
    assert_eq!(
        stranger.head().await.unwrap().unwrap().commit.name.seq,
        Seq(3)
    );
    // Put back, all is well.
    store.put(&key, body).await.unwrap();
    assert_eq!(volume.head().await.unwrap().unwrap().tag, seen.tag);
}

#[tokio::test]
async fn a_volume_without_any_commit_left_is_noticed() {
    let (store, writer) = commits(1).await;
    let notes = Arc::new(Notes::default());
    let seen = with(&store, &notes).await.head().await.unwrap().unwrap();
    take(&store, &seen, writer.volume.info().id).await;
    let head = with(&store, &notes).await.head().await;
    assert!(matches!(head, Err(Error::RolledBack { .. })));
}

/// An honest writer has gone on from an older state. What was seen since is cut off by its claim, as what a replaced writer publishes
/// is, and the two cannot be told apart.
#[tokio::test]
async fn a_proven_claim_that_goes_on_from_before_what_was_seen_is_believed() {
    let (store, writer) = commits(4).await;
    let notes = Arc::new(Notes::default());
    let seen = with(&store, &notes).await.head().await.unwrap().unwrap();
    take(&store, &seen, writer.volume.info().id).await;
    writer.writership.release().await.unwrap();
    let clock = Arc::new(ManualClock::new(Stamp(TEN + 9000)));
    let stranger = with(&store, &Arc::default()).await;
    let mut other = Writer::claim(&stranger, &clock, "there").await.unwrap();
    for length in [4, 5, 6] {
        let head = other.commit(vec![], Special::default()).await;
        assert_eq!(head.commit.name.seq, Seq(length));
        let found = with(&store, &notes).await.head().await;
        assert_eq!(found.unwrap().unwrap().tag, head.tag);
    }
}

#[tokio::test]
async fn what_a_replaced_writer_published_may_go() {
    let (store, mut old) = commits(2).await;
    let volume = with(&store, &Arc::default()).await;
    let clock = Arc::new(ManualClock::new(Stamp(old.clock.now().0 + 3_600_000)));
    // Seen before the other's claim is there.
    let notes = Arc::new(Notes::default());
    let head = volume.head().await.unwrap();
    let lost = old.commit(vec![], Special::default()).await;
    assert_eq!(
        with(&store, &notes)
            .await
            .head()
            .await
            .unwrap()
            .unwrap()
            .tag,
        lost.tag
    );
    take(&store, &lost, volume.info().id).await;
    let mut new = Writer::claim_from(&volume, &clock, "there", head)
        .await
        .unwrap();
    let kept = new.commit(vec![], Special::default()).await;
    let found = with(&store, &notes).await.head().await.unwrap().unwrap();
    assert_eq!(found.tag, kept.tag);
    assert_eq!(*notes.0.lock(), Some(Seen::from(&kept)));
}

#[tokio::test]
async fn what_lies_only_in_an_overlay_is_not_remembered() {
    let (store, _writer) = commits(2).await;
    let notes = Arc::new(Notes::default());
    let repository = open(&store, no_cache())
        .await
        .with_witness(notes.clone())
        .through(store.clone());
    let volumes = repository.volumes().await.unwrap();
    let volume = repository.volume(volumes[0].id).await.unwrap();
    volume.head().await.unwrap().unwrap();
    assert_eq!(*notes.0.lock(), None);
}
