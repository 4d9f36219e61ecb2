//! What `verify` says of what it finds: counts, the snapshots and paths that damage touches, garbage, and trees that do not fit together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rewindfs::clock::{ManualClock, Stamp};
use rewindfs::format::entry::Kind;
use rewindfs::format::entry::{Change, Contents, NameEntry};
use rewindfs::id::{FileId, ObjectKey};
use rewindfs::repo::Volume;
use rewindfs::store::{Body, Store};
use rewindfs::verify::{self, Progress, Report};

use crate::sample::{self, Sample, Size, noise};
use crate::writer::{Special, TEN, Writer};

const SMALL: Size = Size {
    chunk: 20_000,
    names: 700,
};

async fn structure(volume: &Arc<Volume>) -> Report {
    verify::structure(volume, &Progress::default(), &AtomicBool::new(false))
        .await
        .unwrap()
}

async fn data(volume: &Arc<Volume>) -> Report {
    verify::data(volume, &Progress::default(), &AtomicBool::new(false))
        .await
        .unwrap()
}

async fn reopened(sample: &Sample) -> Arc<Volume> {
    sample::reopen(&sample.store, &sample.recovery)
        .await
        .unwrap()
}

/// The object that holds the first byte of this file in the newest snapshot, and where its frame lies in it.
async fn object_of(sample: &Sample, volume: &Arc<Volume>, path: &str) -> (ObjectKey, u64) {
    let (found, model) = sample.newest();
    let extents = volume
        .tree(&found.commit)
        .extents(model[path].id, 0..1)
        .await
        .unwrap();
    let Contents::Data { place, .. } = &extents[0].contents else {
        panic!("{path} begins with a hole")
    };
    (volume.blocks().object(place).unwrap(), place.hint.offset)
}

async fn flip(store: &Store, key: &ObjectKey, at: u64) {
    let (bytes, _) = store.get(key, u64::MAX).await.unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at as usize] ^= 4;
    store.put(key, Body::Bytes(bytes.into())).await.unwrap();
}

#[tokio::test]
async fn a_sound_volume_is_counted_and_nothing_more() {
    let sample = Sample::new(SMALL).await;
    let volume = reopened(&sample).await;
    let progress = Progress::default();
    let report = verify::structure(&volume, &progress, &AtomicBool::new(false))
        .await
        .unwrap();
    assert!(
        !report.is_damaged() && report.notes.is_empty(),
        "{report:?}"
    );
    assert_eq!((report.snapshots, report.snapshots_compared), (3, 3));
    assert!(report.pages > 0 && report.frames > 0);
    assert_eq!(progress.snapshots.load(Ordering::Relaxed), 3);
    let report = data(&volume).await;
    assert!(
        !report.is_damaged() && report.notes.is_empty(),
        "{report:?}"
    );
    assert!(report.chunks >= 3, "{report:?}");
    assert_eq!(report.unreferenced_objects, 0, "{report:?}");
    let listed = sample.store.list("v/", None, 1000).await.unwrap().objects;
    assert_eq!(report.objects, listed.len() as u64);
    assert_eq!(report.bytes, listed.iter().map(|(_, len)| len).sum::<u64>());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["damage"], serde_json::json!([]));
}

#[tokio::test]
async fn a_damaged_frame_is_told_with_its_files_and_snapshots() {
    let sample = Sample::new(SMALL).await;
    let volume = reopened(&sample).await;
    let (object, offset) = object_of(&sample, &volume, "big").await;
    flip(&sample.store, &object, offset + 40).await;
    // The structure does not look into contents.
    assert!(!structure(&volume).await.is_damaged());
    let report = data(&volume).await;
    let [damage] = report.damage.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(damage.object, object.to_string());
    assert!(damage.what.contains("frame 0"), "{}", damage.what);
    assert_eq!(
        (damage.snapshots.count, damage.snapshots.first.as_slice()),
        (3, &["@3".to_owned(), "@2".into(), "@1".into()][..])
    );
    assert_eq!(damage.paths.first, ["/big", "/dir-with-a-name/copy"]);
    assert_eq!(damage.paths.count, 2);
    assert!(damage.to_string().contains("/big, /dir-with-a-name/copy"));
}

#[tokio::test]
async fn a_missing_block_is_told_with_its_files_without_reading_contents() {
    let sample = Sample::new(SMALL).await;
    let volume = reopened(&sample).await;
    let (object, _) = object_of(&sample, &volume, "big").await;
    sample.store.delete(&object).await.unwrap();
    for report in [structure(&volume).await, data(&volume).await] {
        let [damage] = report.damage.as_slice() else {
            panic!("{report:?}")
        };
        assert_eq!(
            (damage.object.as_str(), damage.what.as_str()),
            (object.as_str(), "it is missing")
        );
        assert_eq!(damage.paths.first, ["/big", "/dir-with-a-name/copy"]);
        assert_eq!(damage.snapshots.count, 3);
    }
}

#[tokio::test]
async fn damage_that_no_reader_meets_has_no_paths() {
    let sample = Sample::new(SMALL).await;
    let volume = reopened(&sample).await;
    let (object, _) = object_of(&sample, &volume, "big").await;
    let len = sample.store.head(&object).await.unwrap().unwrap();
    flip(&sample.store, &object, len - 1).await;
    for report in [structure(&volume).await, data(&volume).await] {
        let [damage] = report.damage.as_slice() else {
            panic!("{report:?}")
        };
        assert_eq!(damage.object, object.to_string());
        assert_eq!(damage.paths.count, 0, "{damage:?}");
    }
}

#[tokio::test]
async fn a_damaged_tree_page_is_told_with_what_lies_below_it() {
    let sample = Sample::new(SMALL).await;
    let volume = reopened(&sample).await;
    let listed = sample.store.list("v/", None, 1000).await.unwrap().objects;
    let (object, _) = listed
        .iter()
        .find(|(key, _)| key.as_str().contains("/t/"))
        .unwrap();
    flip(&sample.store, object, 100).await;
    let report = structure(&volume).await;
    let [damage] = report.damage.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(damage.object, object.to_string());
    assert_eq!(damage.snapshots.first, ["@3"]);
    assert!(damage.paths.count > 0, "{damage:?}");
}

#[tokio::test]
async fn garbage_is_counted_and_its_damage_only_noted() {
    let sample = Sample::new(SMALL).await;
    let volume = reopened(&sample).await;
    let listed = sample.store.list("v/", None, 1000).await.unwrap().objects;
    let (used, len) = listed
        .iter()
        .find(|(key, _)| key.as_str().contains("/d/"))
        .unwrap();
    let (bytes, _) = sample.store.get(used, u64::MAX).await.unwrap();
    // Under a name that nobody wrote: damaged too, since its header names another.
    let (dir, _) = used.as_str().rsplit_once('/').unwrap();
    let garbage = ObjectKey::new(format!("{dir}/00ffffff"));
    sample
        .store
        .put(&garbage, Body::Bytes(bytes))
        .await
        .unwrap();
    let report = data(&volume).await;
    assert!(!report.is_damaged(), "{report:?}");
    assert_eq!(
        (report.unreferenced_objects, report.unreferenced_bytes),
        (1, *len)
    );
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains(garbage.as_str())),
        "{:?}",
        report.notes
    );
}

#[tokio::test]
async fn a_check_that_is_stopped_says_so() {
    let sample = Sample::new(SMALL).await;
    let volume = reopened(&sample).await;
    let stop = AtomicBool::new(true);
    let progress = Progress::default();
    assert!(matches!(
        verify::structure(&volume, &progress, &stop).await,
        Err(verify::Error::Interrupted)
    ));
    assert!(matches!(
        verify::data(&volume, &progress, &stop).await,
        Err(verify::Error::Interrupted)
    ));
}

/// A volume whose one commit has the sample's first snapshot and `wrong` on top.
async fn misfit(wrong: Vec<Change>) -> Report {
    let sample = Sample::new(Size {
        chunk: 5000,
        names: 3,
    })
    .await;
    let volume = reopened(&sample).await;
    let clock = Arc::new(ManualClock::new(Stamp(TEN + 20_000)));
    let mut writer = Writer::claim(&volume, &clock, "needle-owner")
        .await
        .unwrap();
    writer.commit(wrong, Special::default()).await;
    structure(&volume).await
}

#[tokio::test]
async fn what_does_not_fit_together_is_found() {
    let name = |dir, name: &[u8], id, kind| Change::PutName {
        dir: FileId(dir),
        name: name.to_vec(),
        entry: NameEntry {
            id: FileId(id),
            kind,
        },
    };
    let drop = |dir, name: &[u8]| Change::DropName {
        dir: FileId(dir),
        name: name.to_vec(),
    };
    let cases: Vec<(&str, Vec<Change>)> = vec![
        (
            "leads to inode 999, which does not exist",
            vec![name(1, b"ghost", 999, Kind::File)],
        ),
        ("inode 7 has no name", vec![drop(1, b"big")]),
        (
            "inode 7 has 2 names and counts 1",
            vec![name(3, b"big", 7, Kind::File)],
        ),
        (
            "is not of the kind",
            vec![name(1, b"big", 7, Kind::Symlink)],
        ),
        (
            "directory 12 has 2 names",
            vec![name(1, b"deep", 12, Kind::Dir)],
        ),
        (
            "there are names in 7, which is no directory",
            vec![name(7, b"below", 4, Kind::File)],
        ),
        (
            "lies within itself",
            vec![drop(1, b"dir-with-a-name"), name(12, b"up", 3, Kind::Dir)],
        ),
        ("the root has a name", vec![name(3, b"root", 1, Kind::Dir)]),
    ];
    for (expected, changes) in cases {
        let report = misfit(changes).await;
        let found = report
            .damage
            .iter()
            .any(|damage| damage.what.contains(expected));
        assert!(found, "{expected}: {:?}", report.damage);
    }
}

#[tokio::test]
async fn a_chunk_that_is_not_what_its_content_id_names_is_found() {
    let sample = Sample::new(Size {
        chunk: 5000,
        names: 3,
    })
    .await;
    let volume = reopened(&sample).await;
    let clock = Arc::new(ManualClock::new(Stamp(TEN + 20_000)));
    let mut writer = Writer::claim(&volume, &clock, "needle-owner")
        .await
        .unwrap();
    let places = writer.data(&[noise(5, 3000), noise(6, 3000)]).await;
    let extent = |place: &rewindfs::format::entry::Place, range, content| {
        let contents = Contents::Data {
            place: place.clone(),
            content,
        };
        Change::PutExtent(
            FileId(7),
            Box::new(rewindfs::format::entry::Extent { range, contents }),
        )
    };
    let wrong = volume.keys().content_id(b"something else");
    let changes = vec![
        extent(&places[0], 0..3000, Some(wrong)),
        // Reaches beyond what the frame holds.
        extent(&places[1], 3000..6001, None),
    ];
    writer.commit(changes, Special::default()).await;
    assert!(!structure(&volume).await.is_damaged());
    let report = data(&volume).await;
    let what: Vec<&str> = report
        .damage
        .iter()
        .map(|damage| damage.what.as_str())
        .collect();
    assert_eq!(what.len(), 2, "{what:?}");
    assert!(
        what.iter().any(|what| what.contains("content id")),
        "{what:?}"
    );
    assert!(
        what.iter()
            .any(|what| what.contains("3000 bytes where a file needs 3001")),
        "{what:?}"
    );
    assert!(
        report
            .damage
            .iter()
            .all(|damage| damage.paths.first == ["/big"]),
        "{report:?}"
    );
}
