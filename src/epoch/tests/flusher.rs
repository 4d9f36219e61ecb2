//! A flusher as simple as can be: it applies what it captures to a copy of the last commit, and compares.

use std::collections::VecDeque;
use std::ops::Range;

use rand::RngExt;
use rand::rngs::StdRng;

use super::fake::{DIRS, State, World, read_ahead};
use crate::epoch::{CaptureError, CopyAhead, Sealed, SealedInode};
use crate::id::FileId;

/// Commits, and what was copied ahead for the next.
pub(super) struct Flusher {
    pub(super) last: State,
    ahead: Vec<(FileId, u64, Vec<u8>)>,
}

/// A capture under way.
pub(super) struct Capture {
    pub(super) sealed: Sealed,
    /// The commit that it will be.
    next: State,
    left: VecDeque<Piece>,
    /// Clean ranges that were asked for as well.
    extra: Vec<(FileId, u64, Vec<u8>)>,
    /// Copies that it includes; later ones belong to the next epoch.
    ahead: usize,
}

#[derive(Clone, Debug)]
enum Piece {
    Attributes(FileId),
    Bytes(FileId, Range<u64>),
    Extra(FileId, Range<u64>),
}

impl Flusher {
    pub(super) fn new(world: &World) -> Self {
        let last = world.source.at(crate::id::EpochNo(0));
        Self {
            last,
            ahead: Vec::new(),
        }
    }

    /// Copies ahead; what is read in full is kept for the next commit.
    pub(super) fn copy(&mut self, copy: CopyAhead, rng: &mut StdRng) {
        if rng.random_range(0..5) == 0 {
            return copy.give_back();
        }
        let id = copy.inode.node.id;
        for range in copy.inode.dirty.clone() {
            if rng.random_range(0..5) == 0 {
                continue;
            }
            let mut bytes = read_ahead(&copy, range.clone());
            // What lies beyond the end is gone, and must hide what the last commit has there.
            bytes.resize((range.end - range.start) as usize, 0);
            self.ahead.push((id, range.start, bytes));
        }
    }

    /// Plans the capture of an epoch, in random order.
    pub(super) fn begin(&self, sealed: Sealed, rng: &mut StdRng) -> Capture {
        let mut next = self.last.clone();
        for (id, at, bytes) in &self.ahead {
            put(&mut next, *id, *at, bytes);
        }
        let mut left: Vec<Piece> = Vec::new();
        for SealedInode { node, dirty, .. } in sealed.inodes() {
            left.push(Piece::Attributes(node.id));
            for range in dirty {
                let step = 4096 * rng.random_range(1..4);
                let mut at = range.start;
                while at < range.end {
                    let end = range.end.min(at + step);
                    left.push(Piece::Bytes(node.id, at..end));
                    at = end;
                }
            }
        }
        for at in (1..left.len()).rev() {
            left.swap(at, rng.random_range(0..=at));
        }
        Capture {
            sealed,
            next,
            left: left.into(),
            extra: Vec::new(),
            ahead: self.ahead.len(),
        }
    }

    /// Finishes; true if it became a commit, which is then right.
    pub(super) fn finish(&mut self, capture: Capture, world: &World) -> bool {
        let Capture {
            sealed,
            mut next,
            extra,
            ahead,
            ..
        } = capture;
        let epoch = sealed.epoch();
        for (dir, name, entry) in sealed.names() {
            let names = next.names.get_mut(&dir).unwrap();
            match entry {
                Some(entry) => names.insert(name, entry.id),
                None => names.remove(&name),
            };
        }
        if sealed.finish().is_err() {
            return false;
        }
        self.ahead.drain(..ahead);
        let named: Vec<FileId> = next
            .names
            .values()
            .flat_map(|n| n.values().copied())
            .collect();
        next.inodes
            .retain(|id, _| named.contains(id) || DIRS.contains(id));
        let expected = world.source.at(epoch);
        assert_same(&next, &expected);
        for (id, at, bytes) in extra {
            let Some(inode) = expected.inodes.get(&id) else {
                continue;
            };
            let data = inode.data.get(at as usize..).unwrap_or_default();
            assert_eq!(
                bytes,
                data[..bytes.len().min(data.len())],
                "a clean range of {id} at {at}"
            );
        }
        self.last = next;
        true
    }
}

impl Capture {
    /// The inode that the next step will lock.
    pub(super) fn next_id(&self) -> Option<FileId> {
        self.left.front().map(|piece| match piece {
            Piece::Attributes(id) | Piece::Bytes(id, _) | Piece::Extra(id, _) => *id,
        })
    }

    /// Passes over the next piece for now.
    pub(super) fn postpone(&mut self) {
        self.left.rotate_left(1);
    }

    /// Captures one piece.
    pub(super) fn step(&mut self, rng: &mut StdRng) -> Result<(), CaptureError> {
        let Some(piece) = self.left.pop_front() else {
            return Ok(());
        };
        match piece {
            Piece::Attributes(id) => {
                let Some(found) = self.sealed.attributes(id)? else {
                    self.next.inodes.remove(&id);
                    return Ok(());
                };
                let inode = self.next.inodes.entry(id).or_default();
                inode.mode = found.stat.mode;
                inode.version = found.stat.mtime.secs;
                inode.links = found.stat.links;
                inode.data.resize(found.stat.size as usize, 0);
                assert_eq!(found.xattrs[0].1, found.stat.mode.to_le_bytes());
            }
            Piece::Bytes(id, range) => {
                let mut from = range.start;
                if rng.random_range(0..3) == 0 {
                    from = self.sealed.skip_hole(id, range.clone())?;
                }
                let hole = vec![0; (from - range.start) as usize];
                let bytes = match from < range.end {
                    true => self.sealed.take(id, from..range.end)?.to_vec(),
                    false => Vec::new(),
                };
                // A hole may be told beyond the end of the file.
                let size = self
                    .sealed
                    .attributes(id)?
                    .map_or(0, |found| found.stat.size);
                let mut all = [hole, bytes].concat();
                all.truncate(size.saturating_sub(range.start) as usize);
                put(&mut self.next, id, range.start, &all);
            }
            Piece::Extra(id, range) => {
                let bytes = self.sealed.take(id, range.clone())?;
                self.extra.push((id, range.start, bytes.to_vec()));
            }
        }
        Ok(())
    }

    /// Asks for a clean range of some file as well.
    pub(super) fn want_more(&mut self, rng: &mut StdRng) {
        let inodes = self.sealed.inodes();
        let Some(inode) = inodes.get(rng.random_range(0..inodes.len().max(1))) else {
            return;
        };
        let at = rng.random_range(0..4) * 8192;
        let range = at..at + 4096;
        let dirty = inode
            .dirty
            .iter()
            .any(|d| d.start < range.end && range.start < d.end);
        let id = inode.node.id;
        if !dirty && !DIRS.contains(&id) && self.sealed.also_needs(id, std::slice::from_ref(&range))
        {
            let again = |p: &Piece| matches!(p, Piece::Extra(i, r) if *i == id && *r == range);
            if !self.left.iter().any(again) {
                self.left.push_back(Piece::Extra(id, range));
            }
        }
    }
}

fn put(state: &mut State, id: FileId, at: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let data = &mut state.inodes.entry(id).or_default().data;
    let end = at as usize + bytes.len();
    data.resize(data.len().max(end), 0);
    data[at as usize..end].copy_from_slice(bytes);
}

fn assert_same(got: &State, expected: &State) {
    assert_eq!(got.names, expected.names, "names");
    let ids = |state: &State| state.inodes.keys().copied().collect::<Vec<_>>();
    assert_eq!(ids(got), ids(expected), "inodes");
    for (id, want) in &expected.inodes {
        let have = &got.inodes[id];
        assert_eq!(
            (have.mode, have.version),
            (want.mode, want.version),
            "attributes of {id}"
        );
        assert_eq!(have.data.len(), want.data.len(), "size of {id}");
        let differs = have.data.iter().zip(&want.data).position(|(a, b)| a != b);
        assert_eq!(differs, None, "contents of {id}");
    }
}
