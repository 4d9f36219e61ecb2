//! Programs at work on the live mount: each request as `mount` makes it.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::scene::Scene;
use crate::epoch::{Epochs, LiveInode};
use crate::format::entry::{Kind, NameEntry};
use crate::source::{Caller, Node, Source, Stat};

const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    umask: 0o022,
};

/// Somebody who works without a plan.
pub(super) struct User {
    source: Arc<Source>,
    epochs: Arc<Epochs>,
    rng: Mutex<StdRng>,
}

impl User {
    pub(super) fn new(scene: &Scene, seed: u64) -> Self {
        Self {
            source: Arc::clone(&scene.source),
            epochs: Arc::clone(&scene.epochs),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    fn pick(&self, below: usize) -> usize {
        self.rng.lock().random_range(0..below)
    }

    /// Some directory, by a random walk from the root.
    fn directory(&self) -> Node {
        let mut dir = self.source.root();
        for _ in 0..self.pick(4) {
            if let Some((_, node, stat)) = self.entry(&dir)
                && stat.kind == Kind::Dir
            {
                dir = node;
            }
        }
        dir
    }

    fn entry(&self, dir: &Node) -> Option<(Vec<u8>, Node, Stat)> {
        let names = self
            .source
            .read_dir(dir)
            .ok()
            .filter(|names| !names.is_empty())?;
        let name = names[self.pick(names.len())].clone();
        let (node, stat) = self.source.lookup(dir, &name).ok()?;
        Some((name, node, stat))
    }

    /// One request.
    pub(super) fn act(&self) {
        let dir = self.directory();
        let new = format!("n{}", self.pick(1000)).into_bytes();
        let Some((name, node, stat)) = self.entry(&dir) else {
            return self.create(&dir, &new);
        };
        match (self.pick(10), stat.kind) {
            (0..=1, _) => self.create(&dir, &new),
            (2, Kind::File) => self.remove(&dir, &name),
            (3..=5, _) => self.rename(&dir, &name, &node, &self.directory(), &new),
            (6, Kind::File) => self.link(&node, &dir, &new),
            (_, Kind::File) => self.write(&node),
            _ => {}
        }
    }

    fn live(&self, node: &Node) -> Arc<LiveInode> {
        self.epochs.inode(node)
    }

    /// Still there under the locks?
    fn is(&self, dir: &Node, name: &[u8], node: &Node) -> bool {
        matches!(self.source.lookup(dir, name), Ok((now, _)) if now == *node)
    }

    pub(super) fn create(&self, dir: &Node, name: &[u8]) {
        let parent = self.live(dir);
        let inodes = [&parent];
        let mut guard = self.epochs.change(&inodes).unwrap();
        let made = self
            .source
            .create_file(dir, name, libc::O_RDWR, 0o644, &CALLER);
        let Ok((_file, node, _)) = made else { return };
        guard.created(&self.live(&node));
        let entry = NameEntry {
            id: node.id,
            kind: Kind::File,
        };
        guard.name(&parent, name, Some(entry));
        drop(guard);
        self.write(&node);
    }

    pub(super) fn remove(&self, dir: &Node, name: &[u8]) {
        let Ok((node, _)) = self.source.lookup(dir, name) else {
            return;
        };
        let (parent, live) = (self.live(dir), self.live(&node));
        let inodes = [&parent, &live];
        let mut guard = self.epochs.change(&inodes).unwrap();
        let links = self.source.stat(&node).map(|stat| stat.links);
        if !self.is(dir, name, &node) {
            return;
        }
        if matches!(links, Ok(1)) {
            guard.unlinking(&live).unwrap();
        }
        if self.source.remove_file(dir, name).is_ok() {
            guard.name(&parent, name, None);
        }
    }

    pub(super) fn rename(&self, dir: &Node, name: &[u8], node: &Node, to: &Node, new: &[u8]) {
        let (parent, live, target) = (self.live(dir), self.live(node), self.live(to));
        let inodes = [&parent, &live, &target];
        let mut guard = self.epochs.change(&inodes).unwrap();
        let Ok((_, stat)) = self.source.lookup(dir, name) else {
            return;
        };
        if !self.is(dir, name, node) {
            return;
        }
        // Neither over something, nor into itself.
        let no_replace = 1;
        if self.source.rename(dir, name, to, new, no_replace).is_ok() {
            let entry = NameEntry {
                id: node.id,
                kind: stat.kind,
            };
            guard.name(&parent, name, None);
            guard.name(&target, new, Some(entry));
        }
    }

    fn link(&self, node: &Node, dir: &Node, name: &[u8]) {
        let (parent, live) = (self.live(dir), self.live(node));
        let inodes = [&parent, &live];
        let mut guard = self.epochs.change(&inodes).unwrap();
        if self.source.link(node, dir, name).is_ok() {
            let entry = NameEntry {
                id: node.id,
                kind: Kind::File,
            };
            guard.name(&parent, name, Some(entry));
        }
    }

    fn write(&self, node: &Node) {
        let live = self.live(node);
        let at = self.pick(20_000) as u64;
        let bytes = vec![self.pick(256) as u8; 1 + self.pick(5000)];
        let Ok(file) = self.source.open_node(node, libc::O_WRONLY) else {
            return;
        };
        let _guard = self
            .epochs
            .write(&live, at..at + bytes.len() as u64)
            .unwrap();
        file.write_all_at(&bytes, at).unwrap();
    }
}
