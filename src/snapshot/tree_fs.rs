//! A snapshot as a file system, without any type of FUSE: what a name points to, what an inode is, which bytes lie where.
//!
//! Everything is looked up in the commit's tree when it is asked for; nothing is loaded beforehand, so opening a
//! snapshot costs the same whatever its size. Called by the FUSE adapter beside it and by `ls` and `cat`.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lru::LruCache;
use parking_lot::Mutex;

use crate::format::commit::Commit;
use crate::format::entry::{Contents, Extent, Inode, Kind, NameEntry, Totals};
use crate::format::key::is_entry_name;
use crate::id::FileId;
use crate::path::RepoPath;
use crate::repo::blocks::Blocks;
use crate::repo::tree::Tree;
use crate::repo::{Error, Volume};

/// Inodes kept decoded: a directory listing is followed by a `stat` of each name, so a large directory's worth.
const INODES_KEPT: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("not zero");

/// Names of the root that are looked at before anybody asks: what a program is shown first.
const NAMES_AHEAD: usize = 128;

/// Prefetch starts this far ahead of a sequential reader and grows by [`WINDOW_GROWTH`] up to [`WINDOW_MAX`].
const WINDOW_MIN: u64 = 2 << 20;
/// A reader at 50 ms a request is at full speed after three of them.
const WINDOW_GROWTH: u64 = 4;
/// The furthest that prefetch runs ahead: enough to fill a fast line, a fraction of the memory cache.
const WINDOW_MAX: u64 = 32 << 20;
/// What is asked for at once while the window stays as it is: one GET. Less would be more look-ups, more would leave the line idle.
const STEP: u64 = 4 << 20;
/// How far a read may lie behind where a stream has come, or before that, and still be part of it: the kernel's own read-ahead arrives
/// slightly out of order.
const DISORDER: u64 = 1 << 20;

/// One commit, readable as a file system.
pub struct TreeFs {
    tree: Tree<Arc<Blocks>>,
    blocks: Arc<Blocks>,
    totals: Totals,
    inodes: Mutex<LruCache<FileId, Arc<Inode>>>,
    parents: Mutex<LruCache<FileId, FileId>>,
}

/// How far a reader of one open file has come: what prefetch goes by.
#[derive(Debug, Default)]
pub struct Cursor {
    /// Where a sequential reader would go on.
    next: u64,
    /// How far ahead to fetch; 0 until the reader has proven to be sequential.
    window: u64,
    /// Everything before this has been asked for already.
    fetched: u64,
}

impl TreeFs {
    /// The snapshot of `commit`.
    pub fn new(volume: &Volume, commit: &Commit) -> Self {
        Self {
            tree: volume.tree(commit),
            blocks: volume.blocks().clone(),
            totals: commit.totals,
            inodes: Mutex::new(LruCache::new(INODES_KEPT)),
            parents: Mutex::new(LruCache::new(INODES_KEPT)),
        }
    }

    /// Looks at the root, so that what it takes to show it is at hand when the first program asks: its attributes and first names, side by
    /// side, and the attributes of what these mean. Best effort: what fails here fails again, with its error, for the program.
    pub async fn look_around_best_effort(&self) {
        let root = self.inode(FileId::ROOT);
        let names = self.names(FileId::ROOT, None, NAMES_AHEAD);
        let (_, names) = futures::join!(root, names);
        for (_, entry) in names.unwrap_or_default() {
            if self.inode(entry.id).await.is_err() {
                return;
            }
        }
    }

    /// What the commit counted when it was sealed.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The inode `id`; [`Error::NotFound`] if the snapshot has none such.
    pub async fn inode(&self, id: FileId) -> Result<Arc<Inode>, Error> {
        if let Some(inode) = self.inodes.lock().get(&id) {
            return Ok(inode.clone());
        }
        let found = self.tree.inode(id).await?;
        let inode = Arc::new(found.ok_or_else(|| Error::NotFound(format!("no inode {id}")))?);
        self.inodes.lock().put(id, inode.clone());
        Ok(inode)
    }

    /// What `name` in directory `dir` points to; `None` if there is no such name.
    pub async fn lookup(&self, dir: FileId, name: &[u8]) -> Result<Option<NameEntry>, Error> {
        if !is_entry_name(name) {
            return Ok(None);
        }
        let entry = self.tree.name(dir, name).await?;
        if let Some(entry) = entry {
            self.remember_parent(dir, &entry);
        }
        Ok(entry)
    }

    /// The inode at `path`, symlinks not followed; `None` if there is none.
    pub async fn resolve(&self, path: &RepoPath) -> Result<Option<(FileId, Inode)>, Error> {
        self.tree.resolve(path).await
    }

    /// Up to `limit` names of `dir` in byte order, strictly after `after`; fewer only at the end. What stands in the tree like a
    /// name but cannot be one (`..`, or with a slash) is passed over: no program that lists a directory expects it.
    pub async fn names(
        &self,
        dir: FileId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, NameEntry)>, Error> {
        let mut kept = Vec::new();
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let wanted = limit - kept.len();
            let names = self.tree.names(dir, after.as_deref(), wanted).await?;
            let is_end = names.len() < wanted;
            after = names.last().map(|(name, _)| name.clone()).or(after);
            kept.extend(names.into_iter().filter(|(name, _)| is_entry_name(name)));
            if is_end || kept.len() == limit {
                break;
            }
        }
        for (_, entry) in &kept {
            self.remember_parent(dir, entry);
        }
        Ok(kept)
    }

    /// The directory in which `dir` was last seen; itself if it was never looked up (the root).
    pub fn parent(&self, dir: FileId) -> FileId {
        self.parents.lock().get(&dir).copied().unwrap_or(dir)
    }

    /// All xattrs of an inode by name.
    pub async fn xattrs(&self, id: FileId) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        self.tree.xattrs(id).await
    }

    /// The extents that cover `range` of a file, holes included.
    pub async fn extents(&self, id: FileId, range: Range<u64>) -> Result<Vec<Extent>, Error> {
        self.tree.extents(id, range).await
    }

    /// Reads up to `len` bytes of `id` from `offset`; fewer only at the end of the file.
    pub async fn read(&self, id: FileId, offset: u64, len: usize) -> Result<Bytes, Error> {
        let size = self.inode(id).await?.size;
        let end = offset.saturating_add(len as u64).min(size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let extents = self.tree.extents(id, offset..end).await?;
        if let [only] = extents.as_slice() {
            return self.read_extent(only).await;
        }
        let mut out = BytesMut::with_capacity((end - offset) as usize);
        for extent in &extents {
            out.extend_from_slice(&self.read_extent(extent).await?);
        }
        Ok(out.freeze())
    }

    /// Fetches what a sequential reader will want ([`Cursor::advance`]) into the cache. Best effort: whatever fails here
    /// fails again, with its error, in the read itself.
    pub async fn fetch_best_effort(&self, id: FileId, ahead: Range<u64>) {
        let Ok(inode) = self.inode(id).await else {
            return;
        };
        let range = ahead.start.min(inode.size)..ahead.end.min(inode.size);
        if range.is_empty() {
            return;
        }
        let Ok(extents) = self.tree.extents(id, range).await else {
            return;
        };
        let places = extents
            .into_iter()
            .filter_map(|extent| match extent.contents {
                Contents::Data { place, .. } => Some(place),
                Contents::Hole => None,
            });
        self.blocks.prefetch_best_effort(places.collect()).await;
    }

    async fn read_extent(&self, extent: &Extent) -> Result<Bytes, Error> {
        let len = (extent.range.end - extent.range.start) as usize;
        match &extent.contents {
            Contents::Hole => Ok(Bytes::from(vec![0; len])),
            Contents::Data { place, .. } => self.blocks.read(place, len).await,
        }
    }

    fn remember_parent(&self, dir: FileId, entry: &NameEntry) {
        if entry.kind == Kind::Dir {
            self.parents.lock().put(entry.id, dir);
        }
    }
}

impl Cursor {
    /// Takes note of a read and says which range is worth fetching now, if any. The first read of a file says nothing yet: most that
    /// read the beginning of one do not read on, and a random read is to cost no more than itself.
    pub fn advance(&mut self, offset: u64, len: u64) -> Option<Range<u64>> {
        let end = offset.saturating_add(len);
        let sequential = self.next > 0
            && offset <= self.next.saturating_add(DISORDER)
            && self.next <= end.saturating_add(DISORDER);
        if !sequential {
            *self = Self {
                next: end,
                window: 0,
                fetched: end,
            };
            return None;
        }
        self.next = self.next.max(end);
        let before = self.window;
        self.window = (before * WINDOW_GROWTH).clamp(WINDOW_MIN, WINDOW_MAX);
        let until = self.next.saturating_add(self.window);
        // Asking again for every small read would only repeat look-ups.
        if before == self.window && until.saturating_sub(self.fetched) < STEP {
            return None;
        }
        let range = self.fetched.max(self.next)..until;
        self.fetched = until;
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_reader_is_fetched_for_once_and_ever_deeper() {
        let mut cursor = Cursor::default();
        let mut fetched = Vec::new();
        for piece in 0..256 {
            fetched.extend(cursor.advance(piece << 17, 1 << 17));
        }
        assert!(
            fetched.windows(2).all(|pair| pair[0].end <= pair[1].start),
            "{fetched:?}"
        );
        assert!(fetched.last().is_some_and(|last| last.end > 256 << 17));
        let covered: u64 = fetched.iter().map(|range| range.end - range.start).sum();
        assert_eq!(covered, fetched[fetched.len() - 1].end - fetched[0].start);
        assert!(
            fetched[4..]
                .iter()
                .all(|range| range.end - range.start <= STEP),
            "{fetched:?}"
        );
        assert!(
            fetched
                .iter()
                .all(|range| range.end - range.start <= WINDOW_MAX)
        );
    }

    #[test]
    fn a_stream_whose_reads_overtake_each_other_is_fetched_for_once() {
        let mut cursor = Cursor::default();
        // As several threads get hold of them.
        let order = (0..512u64).map(|piece| match piece {
            0 => 0,
            piece => ((piece - 1) ^ 3) + 1,
        });
        let mut fetched: Vec<Range<u64>> = Vec::new();
        for piece in order {
            fetched.extend(cursor.advance(piece << 17, 1 << 17));
        }
        let apart = |pair: &[Range<u64>]| pair[0].end <= pair[1].start;
        assert!(fetched.windows(2).all(apart), "{fetched:?}");
        let covered: u64 = fetched.iter().map(|range| range.end - range.start).sum();
        assert!(covered > 500 << 17, "{covered}");
    }

    #[test]
    fn a_random_reader_is_not_fetched_for() {
        let mut cursor = Cursor::default();
        let jumps = [0, 900 << 20, 5 << 20, 300 << 20, 7 << 20, 800 << 20u64];
        assert!(jumps.iter().all(|&at| cursor.advance(at, 4096).is_none()));
    }
}
