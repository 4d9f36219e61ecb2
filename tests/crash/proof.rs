//! The proof that nothing is lost, made after each death: the mount comes back unaided, the newest snapshot is the source, the
//! repository is whole, and what was in it before is there as it was.

use std::collections::BTreeMap;
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::listing::{self, Listing};
use crate::world::World;

/// What has been seen so far.
pub(crate) struct Proof {
    /// How each proven snapshot looked when it was the newest, by id.
    moments: BTreeMap<String, Listing>,
    /// Sizes of all objects of the repository.
    objects: BTreeMap<String, u64>,
}

impl Proof {
    pub(crate) fn new() -> Self {
        Self {
            moments: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    /// With the mount alive again and nobody writing: the newest snapshot is the source, and everything is where it was.
    pub(crate) fn after_death(&mut self, world: &World, what: &str) {
        let source = world.source();
        world.run(["sync".as_ref(), source.as_os_str()]);
        let live = listing::of(&source);
        let newest = self.newest(world, what);
        let place = world.dir("past");
        self.compare(world, &place, &newest, &live, what);
        self.moments.insert(newest, live);
        self.keeps_its_objects(world, what);
    }

    /// All that the repository holds is whole, and an earlier snapshot is what it was.
    pub(crate) fn of_all(&self, world: &World, random: &mut StdRng, what: &str) {
        let before = random.random_range(0..self.moments.len());
        let (id, then) = self.moments.iter().nth(before).unwrap();
        self.compare(world, &world.dir("past"), id, then, what);
        self.check(world, what);
    }

    /// All that the repository holds is whole.
    pub(crate) fn check(&self, world: &World, what: &str) {
        let checked = world.run(["check", "--read-data"]);
        assert!(checked.starts_with("no damage found"), "{what}: {checked}");
    }

    /// The newest snapshot's id; every one that was ever proven is still listed.
    fn newest(&self, world: &World, what: &str) -> String {
        let json = world.run(["snapshots", "--json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        let ids: Vec<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        for id in self.moments.keys() {
            assert!(ids.contains(&id.as_str()), "{what}: {id} is gone: {json}");
        }
        let newest = rows.iter().max_by_key(|row| row["seq"].as_u64());
        newest.unwrap()["id"].as_str().unwrap().to_owned()
    }

    fn compare(&self, world: &World, place: &Path, id: &str, then: &Listing, what: &str) {
        world.mount_past(id, place);
        let shown = listing::of(place);
        world.unmount(place);
        listing::assert_same(&shown, then, &format!("{what}: snapshot {id}"));
    }

    /// Nothing in the repository is ever replaced or removed, but for the lease.
    fn keeps_its_objects(&mut self, world: &World, what: &str) {
        let now = objects(&world.path("repository"));
        for (name, len) in &self.objects {
            assert_eq!(now.get(name), Some(len), "{what}: object {name}");
        }
        self.objects = now;
    }
}

/// Names and sizes of a local repository's objects, but for the lease, which is written over.
pub(crate) fn objects(repository: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut pending = vec![repository.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".");
            match entry.file_type().unwrap().is_dir() {
                _ if hidden || name == "lease" => {}
                true => pending.push(entry.path()),
                false => {
                    let path = entry.path();
                    let name = path.strip_prefix(repository).unwrap();
                    let len = entry.metadata().unwrap().len();
                    found.insert(name.to_str().unwrap().to_owned(), len);
                }
            }
        }
    }
    found
}
