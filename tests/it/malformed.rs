//! Trees that only a broken writer would publish, authentic as they are: names that lead out of their directory, keys of no known form,
//! a directory within itself. `check` says so; a snapshot and a restore pass over them and write nothing outside of the target.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rewindfs::clock::{ManualClock, Stamp};
use rewindfs::format::commit::Commit;
use rewindfs::format::entry::{Change, Kind, NameEntry};
use rewindfs::format::key::Key;
use rewindfs::format::page::{self, Entry, Op, Page};
use rewindfs::id::FileId;
use rewindfs::repo::Volume;
use rewindfs::repo::commits::Found;
use rewindfs::restore;
use rewindfs::snapshot::tree_fs::TreeFs;
use rewindfs::verify::{self, Report};

use crate::sample::{self, Sample, Size};
use crate::writer::{TEN, Writer};

/// The file `big` of the sample.
const BIG: FileId = FileId(7);

/// A sample whose newest commit has these entries in its inline changes, and what they lie over.
async fn published(changes: Vec<Change>, entries: Vec<Entry>) -> (Sample, Arc<Volume>, Found) {
    let size = Size {
        chunk: 5000,
        names: 3,
    };
    let sample = Sample::new(size).await;
    let volume = sample::reopen(&sample.store, &sample.recovery)
        .await
        .unwrap();
    let clock = Arc::new(ManualClock::new(Stamp(TEN + 20_000)));
    let mut writer = Writer::claim(&volume, &clock, "needle-owner")
        .await
        .unwrap();
    let found = writer
        .commit_altered(changes, |commit| add(commit, entries))
        .await;
    (sample, volume, found)
}

/// Puts entries among the inline changes of a commit.
fn add(commit: &mut Commit, entries: Vec<Entry>) {
    let inline = Page::decode(commit.tree.inline.clone()).unwrap();
    let mut all: Vec<Entry> = inline.entries().collect();
    all.extend(entries);
    all.sort_by(|a, b| a.key.cmp(&b.key));
    commit.tree.inline = page::encode(0, &all);
}

fn name_entry(name: &[u8]) -> Entry {
    let to_big = NameEntry {
        id: BIG,
        kind: Kind::File,
    };
    Entry {
        key: Key::Name(FileId::ROOT, name).encode(),
        op: Op::Put,
        value: to_big.encode(),
    }
}

async fn check(volume: &Volume) -> Report {
    let (progress, stop) = (verify::Progress::default(), AtomicBool::new(false));
    verify::structure(volume, &progress, &stop).await.unwrap()
}

async fn restored(volume: &Volume, found: &Found, target: &Path) -> restore::Summary {
    let (progress, stop) = (restore::Progress::default(), AtomicBool::new(false));
    restore::run(volume, &found.commit, &[], target, &progress, &stop)
        .await
        .unwrap()
}

fn bad_names() -> Vec<Vec<u8>> {
    let names: [&[u8]; 7] = [
        b"..",
        b".",
        b"",
        b"a/b",
        b"../escaped",
        b"/tmp/escaped",
        b"a\0b",
    ];
    let mut names: Vec<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
    names.push(vec![b'n'; 256]);
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_names_are_told_and_lead_nowhere() {
    let entries = bad_names().iter().map(|name| name_entry(name)).collect();
    let (sample, volume, found) = published(vec![], entries).await;
    let report = check(&volume).await;
    for name in bad_names() {
        let shown = format!(
            "{:?} in directory 1 cannot be a name",
            String::from_utf8_lossy(&name)
        );
        let told = report
            .damage
            .iter()
            .any(|damage| damage.what.contains(&shown));
        assert!(told, "{shown}: {:?}", report.damage);
    }

    // All names that are some are there, before and behind the others.
    let model = &sample.newest().1;
    let top: Vec<Vec<u8>> = model
        .keys()
        .filter(|path| !path.is_empty() && !path.contains('/'))
        .map(|path| path.as_bytes().to_vec())
        .collect();
    let fs = TreeFs::new(&volume, &found.commit);
    for limit in [1, 2, 1000] {
        let mut listed = Vec::new();
        loop {
            let after = listed.last().cloned();
            let names = fs
                .names(FileId::ROOT, after.as_deref(), limit)
                .await
                .unwrap();
            listed.extend(names.iter().map(|(name, _)| name.clone()));
            if names.len() < limit {
                break;
            }
        }
        assert_eq!(listed, top);
    }
    for name in bad_names() {
        assert!(fs.lookup(FileId::ROOT, &name).await.unwrap().is_none());
    }

    let world = tempfile::tempdir().unwrap();
    let target = world.path().join("target");
    let summary = restored(&volume, &found, &target).await;
    for name in bad_names() {
        let told = |failure: &restore::Failure| failure.path.name() == Some(&name[..]);
        assert!(summary.failures.iter().any(told), "{name:?}");
    }
    assert_eq!(
        summary.failures.len(),
        bad_names().len() + devices(&summary)
    );
    let beside: Vec<_> = fs::read_dir(world.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert_eq!(fs::read(target.join("big")).unwrap(), model["big"].contents);
}

/// Devices that whoever runs the tests may not make.
fn devices(summary: &restore::Summary) -> usize {
    let refused = |failure: &&restore::Failure| failure.why.contains("not permitted");
    summary.failures.iter().filter(refused).count()
}

#[tokio::test]
async fn an_extent_under_a_key_of_another_form_does_not_turn_what_follows_into_zeros() {
    // Sorts before the key of the first extent, which ends at byte 5000.
    let mut key = Key::Extent(BIG, 4096).encode();
    key.pop();
    let entry = Entry {
        key,
        op: Op::Put,
        value: vec![0, 1],
    };
    let (_, volume, found) = published(vec![], vec![entry]).await;
    let fs = TreeFs::new(&volume, &found.commit);
    let read = fs.read(BIG, 0, 100).await;
    assert!(
        read.as_ref().is_err_and(|error| error.is_damage()),
        "{read:?}"
    );
    let report = check(&volume).await;
    let told = |damage: &verify::report::Damage| damage.what.contains("there is no such key");
    assert!(report.damage.iter().any(told), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_within_itself_is_restored_once() {
    let up = Change::PutName {
        dir: FileId(12),
        name: b"up".to_vec(),
        entry: NameEntry {
            id: FileId(3),
            kind: Kind::Dir,
        },
    };
    let (_, volume, found) = published(vec![up], vec![]).await;
    assert!(check(&volume).await.is_damaged());
    let target = tempfile::tempdir().unwrap();
    let summary = restored(&volume, &found, target.path()).await;
    let told = |failure: &restore::Failure| failure.path.name() == Some(b"up");
    assert!(summary.failures.iter().any(told), "{summary:?}");
    assert!(target.path().join("dir-with-a-name/linked-twice").exists());
}
