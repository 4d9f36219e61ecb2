//! Every byte class of every object of a repository, damaged in every way: no reader ever gets wrong bytes, whoever fails names the
//! object, `verify` finds it, and what the damage does not touch can still be read and restored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rewindfs::clock::Stamp;
use rewindfs::format::block::{HEADER_LEN, TRAILER_LEN, Trailer};
use rewindfs::format::entry::Kind;
use rewindfs::id::ObjectKey;
use rewindfs::path::RepoPath;
use rewindfs::repo::commits::Point;
use rewindfs::repo::inspect::ObjectKind;
use rewindfs::repo::{Error, Volume};
use rewindfs::snapshot::tree_fs::TreeFs;
use rewindfs::store::{Body, Store};
use rewindfs::verify::Report;
use rewindfs::{restore, verify};

use crate::sample::{self, Model, NEEDLES, Sample, Size};
use crate::writer::TEN;

const SMALL: Size = Size {
    chunk: 20_000,
    names: 700,
};

type Objects = BTreeMap<ObjectKey, Vec<u8>>;

async fn objects(store: &Store) -> Objects {
    let mut objects = Objects::new();
    for (key, _) in store.list("", None, 1000).await.unwrap().objects {
        let (bytes, _) = store.get(&key, u64::MAX).await.unwrap();
        objects.insert(key, bytes.to_vec());
    }
    objects
}

/// A store of these objects.
async fn store_of(objects: &Objects) -> Store {
    let store: Store = Arc::new(rewindfs::store::memory::Memory::new());
    for (key, bytes) in objects {
        store
            .put(key, Body::Bytes(bytes.clone().into()))
            .await
            .unwrap();
    }
    store
}

async fn check(store: &Store, recovery: &str) -> Result<Report, Error> {
    let stop = AtomicBool::new(false);
    let repository = sample::open(store, recovery).await?;
    let keys = verify::keys(&repository).await.unwrap();
    let (volumes, _) = repository.volumes_and_damage().await?;
    let Some(info) = volumes.first() else {
        return Ok(keys);
    };
    let volume = repository.volume(info.id).await?;
    let progress = verify::Progress::default();
    let structure = verify::structure(&volume, &progress, &stop).await.unwrap();
    let data = verify::data(&volume, &progress, &stop).await.unwrap();
    Ok(keys.merge(structure).merge(data))
}

/// Reads all of a snapshot: every byte is right, or there is an error that names one of `culprits`. Says how much could not be read.
async fn read_all(
    volume: &Arc<Volume>,
    point: &Point,
    model: &Model,
    culprits: &[String],
    what: &str,
) -> usize {
    let named = |error: &Error| {
        let text = error.to_string();
        assert!(
            culprits.iter().any(|culprit| text.contains(culprit)),
            "{what}: {text}"
        );
    };
    let found = match volume.find(point).await {
        Ok(found) => found,
        Err(error) => {
            named(&error);
            return model.len();
        }
    };
    let fs = Arc::new(TreeFs::new(volume, &found.commit));
    let mut unreadable = 0;
    for (path, node) in model {
        let read = async {
            let path = RepoPath::parse(path.as_bytes()).unwrap();
            let (id, inode) = fs
                .resolve(&path)
                .await?
                .unwrap_or_else(|| panic!("{what}: {path} is gone"));
            assert_eq!((id, &inode), (node.id, &node.inode), "{what}");
            assert_eq!(fs.xattrs(id).await?, node.xattrs, "{what}");
            if inode.kind == Kind::File {
                let bytes = fs.read(id, 0, inode.size as usize).await?;
                assert!(bytes == node.contents, "{what}: wrong bytes of {path}");
            }
            Ok(())
        };
        if let Err(error) = read.await {
            named(&error);
            unreadable += 1;
        }
    }
    unreadable
}

/// Restores the newest snapshot: what is there is right, what is not is on the list and names one of `culprits`.
async fn restore_newest(volume: &Arc<Volume>, model: &Model, culprits: &[String], what: &str) {
    let Ok(found) = volume.find(&Point::Latest).await else {
        return;
    };
    let target = tempfile::tempdir().unwrap();
    let (progress, stop) = (restore::Progress::default(), AtomicBool::new(false));
    // Some directories of one large one are enough here, and quicker.
    let paths: Vec<RepoPath> = [
        "dir-with-a-name",
        "big",
        "sparse",
        "needle-a.txt",
        "linked-twice",
    ]
    .iter()
    .map(|path| RepoPath::parse(path.as_bytes()).unwrap())
    .collect();
    let done = restore::run(
        volume,
        &found.commit,
        &paths,
        target.path(),
        &progress,
        &stop,
    )
    .await;
    let summary = match done {
        Ok(summary) => summary,
        Err(error) => {
            let text = error.to_string();
            assert!(
                culprits.iter().any(|culprit| text.contains(culprit)),
                "{what}: {text}"
            );
            return;
        }
    };
    for failure in &summary.failures {
        let below_a_failure = failure.why.contains("directory could not be made")
            && summary
                .failures
                .iter()
                .any(|other| other != failure && failure.path.is_within(&other.path));
        assert!(
            below_a_failure || culprits.iter().any(|culprit| failure.why.contains(culprit)),
            "{what}: {failure:?}"
        );
    }
    for (path, node) in model
        .iter()
        .filter(|(_, node)| node.inode.kind == Kind::File)
    {
        let wanted = RepoPath::parse(path.as_bytes()).unwrap();
        if !paths.iter().any(|asked| wanted.is_within(asked)) {
            continue;
        }
        match std::fs::read(target.path().join(path)) {
            Ok(bytes) => assert!(
                bytes == node.contents,
                "{what}: wrong bytes restored of {path}"
            ),
            Err(_) => {
                let told = |failure: &restore::Failure| wanted.is_within(&failure.path);
                assert!(
                    summary.failures.iter().any(told),
                    "{what}: {path} is missing and nobody says so"
                );
            }
        }
    }
}

/// One way to damage a repository.
struct Blow {
    what: String,
    /// Which object it strikes.
    object: ObjectKey,
    /// What the store then holds.
    after: Objects,
    /// It leaves a store that no reader can tell from an honest one: an older lease, no lease, no newest commit.
    unnoticeable: bool,
}

fn flips(bytes: &[u8], is_block: bool) -> Vec<(String, usize)> {
    if !is_block {
        return (0..bytes.len())
            .step_by(3)
            .map(|at| (format!("byte {at}"), at))
            .collect();
    }
    let mut at = vec![
        ("magic", 0),
        ("id", 9),
        ("session in the header", 15),
        ("first length", 24),
        ("required bits", 28),
        ("zeros", 40),
    ];
    let trailer = Trailer::decode(bytes).unwrap();
    let directory = trailer.directory_range(bytes.len() as u64).unwrap();
    let begin = directory.start as usize;
    let end = bytes.len() - TRAILER_LEN as usize;
    at.extend([
        ("first frame's IV", HEADER_LEN as usize),
        ("first frame's ciphertext", HEADER_LEN as usize + 20),
        ("middle", begin / 2),
        ("a third in", begin / 3),
        ("last byte before the directory", begin - 1),
        ("directory's IV", begin),
        ("directory's ciphertext", begin + 30),
        ("directory's tag", end - 1),
        ("directory's length", end),
        ("directory's number", end + 4),
        ("end's magic", bytes.len() - 1),
    ]);
    at.into_iter()
        .map(|(what, at)| (what.to_owned(), at))
        .collect()
}

/// Every blow for one object.
fn blows(objects: &Objects, key: &ObjectKey, kind: Option<ObjectKind>) -> Vec<Blow> {
    let bytes = &objects[key];
    let is_block = matches!(kind, Some(ObjectKind::Block(_)));
    let mut blows = Vec::new();
    let mut strike = |what: String, changed: Option<Vec<u8>>, unnoticeable: bool| {
        let mut after = objects.clone();
        match changed {
            Some(changed) => after.insert(key.clone(), changed),
            None => after.remove(key),
        };
        blows.push(Blow {
            what: format!("{key}: {what}"),
            object: key.clone(),
            after,
            unnoticeable,
        });
    };
    for (what, at) in flips(bytes, is_block) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        strike(format!("flipped a bit of the {what}"), Some(changed), false);
    }
    for len in [0, 1, 63, bytes.len() / 2, bytes.len() - 1] {
        if len < bytes.len() {
            strike(
                format!("cut to {len} bytes"),
                Some(bytes[..len].to_vec()),
                false,
            );
        }
    }
    for more in [1, 16, 5000] {
        strike(
            format!("{more} bytes longer"),
            Some([bytes.clone(), vec![0; more]].concat()),
            false,
        );
    }
    for (other, others) in objects {
        let near = other.as_str().rsplit_once('/').map(|(dir, _)| dir)
            == key.as_str().rsplit_once('/').map(|(dir, _)| dir);
        if other != key && (near || other.as_str().ends_with('1')) {
            strike(format!("replaced by {other}"), Some(others.clone()), false);
        }
    }
    // Who deletes the newest commit, a claim or the lease leaves what the volume honestly was at some time.
    // And a slot may have been removed by one who has the right to.
    let gone_unnoticed = matches!(kind, Some(ObjectKind::Lease | ObjectKind::Claim))
        || is_newest_commit(objects, key)
        || key.as_str().starts_with("k/s-");
    strike("deleted".to_owned(), None, gone_unnoticed);
    blows
}

fn is_newest_commit(objects: &Objects, key: &ObjectKey) -> bool {
    objects.keys().find(|key| key.as_str().contains("/c/")) == Some(key)
}

async fn judge(blow: &Blow, sample: &Sample) {
    let store = store_of(&blow.after).await;
    let what = &blow.what;
    let culprit = blow.object.to_string();
    let volume = match sample::reopen(&store, &sample.recovery).await {
        Ok(volume) => volume,
        Err(error) => {
            // The keys themselves: nothing can be opened, and the error says why.
            let text = error.to_string();
            let is_slot = culprit.starts_with("k/s-");
            let is_key = culprit == "format" || is_slot || culprit.starts_with("k/v-");
            let gone = !blow.after.contains_key(&blow.object);
            assert!(is_key, "{what}: {text}");
            assert!(
                text.contains(&culprit)
                    || is_slot
                    || gone
                    || matches!(error, Error::NewerFormat { .. }),
                "{what}: {text}"
            );
            return;
        }
    };
    let report = check(&store, &sample.recovery).await.unwrap();
    let found = report.damage.iter().any(|damage| damage.object == culprit);
    assert!(
        found || blow.unnoticeable,
        "{what}: not found by verify: {report:?}"
    );
    if blow.unnoticeable {
        return;
    }
    let culprits = [culprit];
    for (found, model) in &sample.snapshots {
        let point = Point::At(Stamp(found.commit.name.stamp.0));
        read_all(&volume, &point, model, &culprits, what).await;
    }
    restore_newest(&volume, &sample.newest().1, &culprits, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damage_gives_wrong_bytes_and_all_is_found() {
    let sample = Sample::new(SMALL).await;
    let volume = sample::reopen(&sample.store, &sample.recovery)
        .await
        .unwrap();
    let whole = objects(&sample.store).await;
    let clean = check(&sample.store, &sample.recovery).await.unwrap();
    assert!(!clean.is_damaged() && clean.notes.is_empty(), "{clean:?}");
    let sample = Arc::new(sample);
    let mut judged = 0;
    let mut failed = Vec::new();
    for key in whole.keys() {
        let kind = key.as_str().starts_with("v/").then(|| volume.kind_of(key));
        for blow in blows(&whole, key, kind) {
            let (what, sample) = (blow.what.clone(), sample.clone());
            // In a task of its own: one panic, of the program or of an assertion, does not hide the others.
            if let Err(panic) = tokio::spawn(async move { judge(&blow, &sample).await }).await {
                failed.push(format!("{what}: {panic}"));
            }
            judged += 1;
        }
    }
    assert!(judged > 300, "only {judged} blows");
    assert_eq!(failed, [""; 0], "{} of {judged} blows", failed.len());
}

#[tokio::test]
async fn a_sound_repository_reads_as_it_was_written() {
    let sample = Sample::new(SMALL).await;
    let volume = sample::reopen(&sample.store, &sample.recovery)
        .await
        .unwrap();
    for (found, model) in &sample.snapshots {
        let point = Point::At(Stamp(found.commit.name.stamp.0));
        assert_eq!(read_all(&volume, &point, model, &[], "sound").await, 0);
        assert_eq!(
            read_all(
                &volume,
                &Point::Seq(found.commit.name.seq),
                model,
                &[],
                "sound"
            )
            .await,
            0
        );
    }
    restore_newest(&volume, &sample.newest().1, &[], "sound").await;
}

#[tokio::test]
async fn an_older_snapshot_is_read_when_the_newest_is_damaged() {
    let sample = Sample::new(SMALL).await;
    let mut objects = objects(&sample.store).await;
    let newest = objects
        .keys()
        .find(|key| key.as_str().contains("/c/"))
        .unwrap()
        .clone();
    objects.get_mut(&newest).unwrap()[100] ^= 1;
    let store = store_of(&objects).await;
    let volume = sample::reopen(&store, &sample.recovery).await.unwrap();
    let latest = volume.find(&Point::Latest).await;
    assert!(matches!(latest, Err(Error::Damaged { object, .. }) if object == newest));
    for (found, model) in &sample.snapshots[..2] {
        let by_number = Point::Seq(found.commit.name.seq);
        assert_eq!(
            read_all(&volume, &by_number, model, &[], "by number").await,
            0
        );
    }
    for refused in [
        Point::Back(1),
        Point::Seq(sample.newest().0.commit.name.seq),
    ] {
        let refused = volume.find(&refused).await;
        assert!(matches!(refused, Err(Error::Damaged { object, .. }) if object == newest));
    }
    let (_, model) = &sample.snapshots[1];
    let before = Point::At(Stamp(TEN + 5000));
    assert_eq!(read_all(&volume, &before, model, &[], "older").await, 0);
}

#[tokio::test]
async fn nothing_of_what_was_written_stands_in_the_store_in_clear() {
    let sample = Sample::new(SMALL).await;
    let chunk = sample::noise(0, SMALL.chunk);
    let needles: Vec<&[u8]> = NEEDLES
        .iter()
        .map(|text| text.as_bytes())
        .chain([&chunk[..16], &chunk[5000..5016]])
        .collect();
    for (key, bytes) in objects(&sample.store).await {
        for needle in &needles {
            let in_name = key
                .as_str()
                .as_bytes()
                .windows(needle.len())
                .any(|part| part == *needle);
            let inside = bytes.windows(needle.len()).any(|part| part == *needle);
            assert!(
                !in_name && !inside,
                "{key} holds {:?}",
                String::from_utf8_lossy(needle)
            );
        }
    }
}
