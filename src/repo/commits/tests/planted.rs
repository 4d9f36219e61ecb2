//! Names that anybody can put where claims and commits are listed, who may do nothing but put objects: they hide no claim and no commit,
//! and do not make looking dear. Also histories and stores whose order makes it hard.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::id::VolumeId;
use crate::store::metered::Operation;
use crate::store::{self, Condition, ObjectStore, PutOutcome, Version};

/// More than are listed at once.
const MANY: usize = 300;

/// A volume whose newest commit by name is no history: its writer was replaced.
struct Replaced {
    store: Store,
    volume: VolumeId,
    /// The newest of history.
    kept: Tag,
}

/// One writer publishes `count` commits, and another one goes on from there; then the first wakes up and publishes once more.
async fn replaced(count: u64) -> Replaced {
    let store = memory();
    let mut old = a_commit_a_minute(&store, count).await;
    let volume = reopen(&store, no_cache()).await;
    let last = TEN + (count - 1) * MINUTE;
    let clock = Arc::new(ManualClock::new(Stamp(last + LEASE.as_millis() as u64 + 1)));
    let mut new = Writer::claim(&volume, &clock, "there").await.unwrap();
    let kept = new.commit(vec![], label("kept")).await.tag;
    old.clock.set(Stamp(last + 60 * MINUTE));
    old.commit(vec![], label("lost")).await;
    Replaced {
        store,
        volume: volume.info().id,
        kept,
    }
}

/// Finds the head in `store`; how many LISTs that took.
async fn lists_for_head(store: &Store, kept: Tag) -> u64 {
    let (counted, meter) = metered(store);
    let volume = reopen(&counted, no_cache()).await;
    let before = meter.usage(Operation::List).requests;
    let head = volume.head().await.unwrap().unwrap();
    assert_eq!(head.tag, kept, "{}", head.commit.label);
    meter.usage(Operation::List).requests - before
}

#[tokio::test]
async fn names_put_among_claims_and_commits_hide_no_claim_and_no_commit() {
    let sample = replaced(2).await;
    assert_eq!(lists_for_head(&sample.store, sample.kept).await, 1);
    let plant = async |begin: &str| {
        let mut keys = Vec::new();
        for n in 0..MANY {
            let key = ObjectKey::new(format!("v/{}/{begin}{n:04}", sample.volume));
            overwrite(&sample.store, &key, b"anything".to_vec()).await;
            keys.push(key);
        }
        keys
    };
    // Before the claims, among them, between them and the commits, among those, and behind.
    let places = [
        "c-0",
        "c--",
        "c-claims/-",
        "c-claims/8",
        "c-claims/z",
        "c-claims0",
        "c.",
        "c/-",
        "c/8",
        "c/z",
        "c0",
        "cz",
    ];
    for place in places {
        let planted = plant(place).await;
        let lists = lists_for_head(&sample.store, sample.kept).await;
        assert!(lists <= 3, "{place}: {lists}");
        for key in planted {
            sample.store.delete(&key).await.unwrap();
        }
    }
    for place in places {
        plant(place).await;
    }
    let lists = lists_for_head(&sample.store, sample.kept).await;
    assert!(lists <= 5, "{lists}");
}

/// Lists as servers do that walk folders: what is in `c/` comes before what is in `c-claims/`.
#[derive(Debug)]
struct FolderByFolder(Store);

#[async_trait]
impl ObjectStore for FolderByFolder {
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), store::Error> {
        self.0.put(key, body).await
    }
    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, store::Error> {
        self.0.put_if(key, body, condition).await
    }
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, store::Error> {
        self.0.get_range(key, range).await
    }
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), store::Error> {
        self.0.get(key, len_max).await
    }
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, store::Error> {
        let mut page = self.0.list(prefix, after, store::LIST_LIMIT_MAX).await?;
        page.objects.sort_by(|(a, _), (b, _)| {
            let parts = |key: &ObjectKey| key.as_str().replace('/', "\0");
            parts(a).cmp(&parts(b))
        });
        page.more |= page.objects.len() > limit;
        page.objects.truncate(limit);
        Ok(page)
    }
    async fn delete(&self, key: &ObjectKey) -> Result<(), store::Error> {
        self.0.delete(key).await
    }
    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, store::Error> {
        self.0.head(key).await
    }
}

#[tokio::test]
async fn claims_are_seen_where_a_page_of_commits_comes_before_them() {
    let sample = replaced(MANY as u64).await;
    let store: Store = Arc::new(FolderByFolder(sample.store));
    assert_eq!(lists_for_head(&store, sample.kept).await, 3);
}

/// How many names there are a minute apart in [`sparse_after_dense`].
const DENSE: u64 = 5000;

/// Commit 1; then [`DENSE`] names a minute apart, which nobody has to read; then commits half an hour apart, more than are listed
/// at once.
async fn sparse_after_dense(store: &Store) -> Writer {
    let mut writer = Writer::new(store).await;
    let first = writer.commit(vec![], Special::default()).await.commit.name;
    for n in 1..=DENSE {
        let name = CommitName {
            stamp: Stamp(TEN + n * MINUTE),
            ..first
        };
        let key = layout::commit(writer.volume.info().id, &name);
        overwrite(store, &key, b"anything".to_vec()).await;
    }
    for n in 1..=MANY as u64 {
        writer
            .clock
            .set(Stamp(TEN + DENSE * MINUTE + n * 30 * MINUTE));
        writer.commit(vec![], Special::default()).await;
    }
    writer
}

/// Finds commit 1 by its time; how many LISTs that took.
async fn lists_for_first(store: &Store) -> u64 {
    let (counted, meter) = metered(store);
    let volume = reopen(&counted, no_cache()).await;
    let before = meter.usage(Operation::List).requests;
    let at = Point::At(Stamp(TEN + MINUTE / 2));
    assert_eq!(seq_of(&volume, at).await, 1);
    meter.usage(Operation::List).requests - before
}

#[tokio::test]
async fn a_time_before_commits_that_came_faster_costs_three_lists() {
    let store = memory();
    sparse_after_dense(&store).await;
    assert_eq!(lists_for_first(&store).await, 3);
}

#[tokio::test]
async fn a_name_with_an_extreme_time_does_not_make_other_times_dear() {
    let store = memory();
    let writer = sparse_after_dense(&store).await;
    let head = writer.head.unwrap().commit.name;
    let volume = writer.volume.info().id;
    let latest = Stamp(u64::MAX);
    for (era, stamp) in [(head.era, latest), (Era(u32::MAX), latest)] {
        let name = CommitName { era, stamp, ..head };
        let key = layout::commit(volume, &name);
        overwrite(&store, &key, b"anything".to_vec()).await;
        assert_eq!(lists_for_first(&store).await, 3, "{name:?}");
    }
}
