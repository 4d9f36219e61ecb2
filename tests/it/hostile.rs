//! A store that turns against its owner, as a person meets it: the program itself, run on a repository in a folder of which every kind
//! of object is flipped, cut, swapped, copied, deleted and put back as it was. `check` exits with 4 and names what is damaged, `restore`
//! brings back all that is whole, tells the rest and exits with 3 (4 where the latest snapshot is not what it restores), and nothing ever gives
//! wrong bytes or panics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rewindfs::format::entry::Kind;
use rewindfs::repo::commits::snapshot_id;
use rewindfs::store::Store;
use rewindfs::store::local::Local;
use tempfile::TempDir;

use crate::sample::{Model, Sample, Size};

/// A repository in a folder, a home, and what is in its snapshots.
pub(crate) struct World {
    dir: TempDir,
    pub(crate) sample: Sample,
    pub(crate) whole: Objects,
}

pub(crate) type Objects = BTreeMap<String, Vec<u8>>;

impl World {
    async fn new() -> Self {
        Self::of(Size {
            chunk: 20_000,
            names: 700,
        })
        .await
    }

    pub(crate) async fn of(size: Size) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("repository");
        Local::create(&place).unwrap();
        let store: Store = Arc::new(Local::open(&place).unwrap());
        let sample = Sample::make(store, size).await;
        let mut whole = Objects::new();
        gather(&place, &place, &mut whole);
        Self { dir, sample, whole }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// Makes the folder hold exactly these objects.
    pub(crate) fn put(&self, objects: &Objects) {
        let place = self.place();
        let mut there = Objects::new();
        gather(&place, &place, &mut there);
        for gone in there.keys().filter(|key| !objects.contains_key(*key)) {
            fs::remove_file(place.join(gone)).unwrap();
        }
        for (key, bytes) in objects
            .iter()
            .filter(|(key, bytes)| there.get(*key) != Some(bytes))
        {
            let path = place.join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Runs the program on it. The recovery key costs no derivation.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_rewindfs"))
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("TZ", "UTC")
            .env("REWINDFS_REPO", self.place())
            .env("REWINDFS_PASSWORD", &self.sample.recovery)
            .output()
            .unwrap();
        Ended::new(&output)
    }

    /// Makes this another machine, which has seen and kept nothing.
    pub(crate) fn forget(&self) {
        for kept in [".local", ".cache"] {
            let _ = fs::remove_dir_all(self.dir.path().join(kept));
        }
    }

    /// Restores the latest snapshot and proves what came back.
    pub(crate) fn restore(&self, what: &str) -> Ended {
        let target = tempfile::tempdir().unwrap();
        let ended = self.run(&["restore", "--target", target.path().to_str().unwrap()]);
        let restored = self
            .sample
            .snapshots
            .iter()
            .find(|(found, _)| ended.said.contains(&snapshot_id(&found.tag)));
        match restored {
            Some((found, model)) => {
                self.prove(target.path(), model, &ended, what);
                let is_newest = found.tag == self.sample.newest().0.tag;
                // A newest commit that is gone nobody misses who has not seen it.
                let is_quiet = what.ends_with("deleted");
                assert!(
                    is_newest || ended.code == 4 || is_quiet,
                    "{what}: {ended:?}"
                );
            }
            None => {
                assert!(!matches!(ended.code, 0 | 3), "{what}: {ended:?}");
                assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "{what}");
            }
        }
        ended
    }

    /// Every file is right, or missing and told.
    fn prove(&self, target: &Path, model: &Model, ended: &Ended, what: &str) {
        let mut missing = 0;
        let files = model
            .iter()
            .filter(|(_, node)| node.inode.kind == Kind::File);
        for (path, node) in files {
            match fs::read(target.join(path)) {
                Ok(bytes) => assert!(bytes == node.contents, "{what}: wrong bytes of {path}"),
                Err(_) => {
                    missing += 1;
                    assert!(
                        ended.tells(path),
                        "{what}: nothing said of {path}: {ended:?}"
                    );
                }
            }
        }
        assert!(missing == 0 || ended.code != 0, "{what}: {ended:?}");
    }
}

/// How the program ended, and all that it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) said: String,
}

impl Ended {
    fn new(output: &Output) -> Self {
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let ended = Self {
            code: output.status.code().expect("not killed by a signal"),
            said: String::from_utf8_lossy(&said).into_owned(),
        };
        assert!(!ended.said.contains("panicked"), "{ended:?}");
        ended
    }

    /// Whether it has told of this path, or of a directory above it.
    fn tells(&self, path: &str) -> bool {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        above
            .chain([path])
            .any(|path| self.said.contains(&format!("/{path} not restored: ")))
            || self.said.contains("/ not restored: ")
    }
}

fn gather(root: &Path, dir: &Path, objects: &mut Objects) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        // No object: the store's own.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.is_dir() {
            gather(root, &path, objects);
        } else {
            let key = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            objects.insert(key, fs::read(path).unwrap());
        }
    }
}

/// What kind of object a name is of: all but the last part of it, which is an id, without the ids.
fn kind(key: &str) -> String {
    let kind = key
        .split('/')
        .take(3)
        .enumerate()
        .filter(|(at, _)| *at != 1 || !key.starts_with("v/"))
        .map(|(_, part)| part.get(..3).unwrap_or(part));
    kind.collect::<Vec<_>>().join("/")
}

/// What a store can do to an object. The name says it; `None` where it leaves all as it was.
fn blows(whole: &Objects, key: &str) -> Vec<(String, Objects)> {
    let bytes = &whole[key];
    let with = |what: &str, change: &dyn Fn(&mut Objects)| {
        let mut after = whole.clone();
        change(&mut after);
        (format!("{key}: {what}"), after)
    };
    let set = |what: &str, bytes: Vec<u8>| {
        with(what, &|after| {
            after.insert(key.to_owned(), bytes.clone());
        })
    };
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let other = whole
        .keys()
        .find(|other| *other != key && kind(other) == kind(key))
        .or_else(|| whole.keys().find(|other| *other != key))
        .unwrap();
    vec![
        set("flipped near its beginning", flipped(bytes.len() / 8)),
        set("flipped in the middle", flipped(bytes.len() / 2)),
        set("flipped at its end", flipped(bytes.len() - 1)),
        set("cut", bytes[..bytes.len() * 2 / 3].to_vec()),
        set("emptied", Vec::new()),
        set(&format!("replaced by {other}"), whole[other].clone()),
        with(&format!("swapped with {other}"), &|after| {
            after.insert(key.to_owned(), whole[other].clone());
            after.insert(other.clone(), bytes.clone());
        }),
        with("copied under another name of its kind", &|after| {
            let mut name = key.to_owned().into_bytes();
            let last = name.last_mut().unwrap();
            *last = if *last == b'0' { b'1' } else { b'0' };
            let name = String::from_utf8(name).unwrap();
            if !after.contains_key(&name) && key != "format" && !key.ends_with("lease") {
                after.insert(name, bytes.clone());
            }
        }),
        with("deleted", &|after| {
            after.remove(key);
        }),
    ]
}

/// One object of each kind, of commits the newest and the oldest.
fn struck(whole: &Objects) -> BTreeSet<&String> {
    let mut first = BTreeMap::new();
    let mut last = BTreeMap::new();
    for key in whole.keys() {
        first.entry(kind(key)).or_insert(key);
        last.insert(kind(key), key);
    }
    first.into_values().chain(last.into_values()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_store_does_the_program_tells_and_restores_what_is_whole() {
    let world = World::new().await;
    let whole = world.run(&["check", "--read-data"]);
    assert_eq!(whole.code, 0, "{whole:?}");
    assert_eq!(world.restore("whole").code, 0);
    let newest = world.whole.keys().find(|key| key.contains("/c/")).unwrap();
    let mut codes = BTreeMap::new();
    for key in struck(&world.whole) {
        for (what, after) in blows(&world.whole, key) {
            world.put(&after);
            world.forget();
            let check = world.run(&["check", "--read-data"]);
            let restore = world.restore(&what);
            *codes.entry((check.code, restore.code)).or_insert(0) += 1;
            // A copy harms nobody. What can be deleted without a trace: what the volume honestly was before it was made.
            let is_quiet = what.contains("copied")
                || what.ends_with("deleted")
                    && (key == newest
                        || key.contains("/c-claims/")
                        || key.ends_with("/lease")
                        || key.starts_with("k/"));
            assert!(is_quiet || check.code != 0, "{what}: {check:?}");
            if check.code == 4 && !what.contains("copied") {
                let is_named = check.said.contains(key.as_str());
                let other = what.split("swapped with ").nth(1);
                let other = other.is_some_and(|other| check.said.contains(other));
                assert!(is_named || other, "{what}: {check:?}");
            }
            // Data that is gone is told by the names of its files.
            if key.contains("/d/") && check.code == 4 && restore.code == 3 {
                assert!(check.said.contains("; /"), "no path in {check:?}");
            }
            let opened = !key.starts_with("k/") && key != "format";
            assert!(
                !opened || matches!(restore.code, 0 | 3 | 4 | 16),
                "{what}: {restore:?}"
            );
        }
    }
    world.put(&world.whole);
    for seen in [(4, 0), (4, 3), (4, 4), (0, 0)] {
        assert!(codes.contains_key(&seen), "{seen:?} never came: {codes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_versions_put_back_are_noticed_by_a_machine_that_has_seen_the_newer() {
    let world = World::new().await;
    let newest = world.whole.keys().find(|key| key.contains("/c/")).unwrap();
    let mut before = world.whole.clone();
    before.remove(newest);
    let (id, older) = {
        let snapshots = &world.sample.snapshots;
        (
            snapshot_id(&world.sample.newest().0.tag),
            snapshot_id(&snapshots[snapshots.len() - 2].0.tag),
        )
    };

    // One who has seen nothing cannot know.
    world.put(&before);
    assert_eq!(world.run(&["snapshots"]).code, 0);
    world.put(&world.whole);
    let listed = world.run(&["snapshots"]);
    assert_eq!(listed.code, 0);
    assert!(listed.said.contains(&id));

    world.put(&before);
    let listed = world.run(&["snapshots"]);
    assert_eq!(listed.code, 4, "{listed:?}");
    assert!(
        listed.said.contains("has seen @3") && listed.said.contains(&older),
        "{listed:?}"
    );
    let json = world.run(&["snapshots", "--json"]);
    assert!(json.code == 4 && json.said.contains(&older), "{json:?}");
    let check = world.run(&["check"]);
    assert!(
        check.code == 4 && check.said.contains("has seen @3"),
        "{check:?}"
    );
    let restored = world.restore("put back");
    assert_eq!(restored.code, 4, "{restored:?}");
    assert!(restored.said.contains("has seen @3"), "{restored:?}");
    for refused in [
        &["ls"][..],
        &["ls", "--at", "latest~1"],
        &["ls", "--at", "2026-11-21 10:00:30"],
    ] {
        let refused = world.run(refused);
        assert_eq!(refused.code, 4, "{refused:?}");
    }
    // What was before it is as good as ever.
    assert_eq!(world.run(&["ls", "--at", "@2"]).code, 0);

    // Whoever knows why says so, and is believed.
    let forget = listed.said.split("delete ").nth(1).unwrap();
    let forget = forget.split(" and run this again").next().unwrap();
    fs::remove_file(forget).unwrap();
    assert_eq!(world.run(&["ls"]).code, 0);
    assert_eq!(world.run(&["check"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_newest_snapshot_is_told_and_the_one_before_it_restored() {
    let world = World::new().await;
    let newest = world.whole.keys().find(|key| key.contains("/c/")).unwrap();
    let mut damaged = world.whole.clone();
    damaged.get_mut(newest).unwrap()[100] ^= 1;
    world.put(&damaged);
    let before = &world.sample.snapshots[world.sample.snapshots.len() - 2].0;
    let listed = world.run(&["snapshots"]);
    assert_eq!(listed.code, 4, "{listed:?}");
    assert!(
        listed.said.contains(newest.as_str()) && listed.said.contains(&snapshot_id(&before.tag))
    );
    let restored = world.restore("newest damaged");
    assert_eq!(restored.code, 4, "{restored:?}");
    assert!(restored.said.contains(newest.as_str()), "{restored:?}");
    assert!(
        restored.said.contains(&snapshot_id(&before.tag)),
        "{restored:?}"
    );
    // Looking at the latest is refused; at another it is not.
    assert_eq!(world.run(&["ls"]).code, 4);
    assert_eq!(world.run(&["ls", "--at", "@1"]).code, 0);
}
