//! The tree: one persistent ordered map of a whole commit. A copy-on-write B+tree under at most four
//! sorted runs and the commit's own changes.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::format::commit::TreeRoot;
use crate::format::entry::{Change, Extent, HistoryEntry, Inode, NameEntry, Place};
use crate::id::{ContentId, FileId};
use crate::path::RepoPath;
use crate::repo::Error;

/// Where pages come from.
#[async_trait]
pub trait Pages: Send + Sync {
    /// The verified plaintext of one page (one page is one frame).
    async fn page(&self, place: &Place) -> Result<Arc<crate::format::page::Page>, Error>;
}

/// Where new pages go: places are known at once, encryption may follow later.
pub trait PageSink: Send {
    /// Takes an encoded page and says where it will lie.
    fn put(&mut self, page: Vec<u8>) -> Result<Place, Error>;
}

/// The tree of one commit. Cheap to clone.
#[derive(Clone)]
pub struct Tree<P> {
    pub(crate) root: Arc<TreeRoot>,
    pub(crate) pages: P,
}

impl<P: Pages + Clone> Tree<P> {
    /// The tree with this root.
    pub fn new(_root: TreeRoot, _pages: P) -> Self {
        todo!()
    }
    /// An inode; `None` if it does not exist.
    pub async fn inode(&self, _id: FileId) -> Result<Option<Inode>, Error> {
        todo!()
    }
    /// What a name points to.
    pub async fn name(&self, _dir: FileId, _name: &[u8]) -> Result<Option<NameEntry>, Error> {
        todo!()
    }
    /// Up to `limit` names of a directory in byte order, strictly after `after`.
    pub async fn names(
        &self,
        _dir: FileId,
        _after: Option<&[u8]>,
        _limit: usize,
    ) -> Result<Vec<(Vec<u8>, NameEntry)>, Error> {
        todo!()
    }
    /// All xattrs by name.
    pub async fn xattrs(&self, _id: FileId) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        todo!()
    }
    /// Extents that cover `range` without gap or overlap, holes included, cut at its ends
    /// (a cut extent's `place.at.inner` points at the first byte wanted).
    pub async fn extents(&self, _id: FileId, _range: Range<u64>) -> Result<Vec<Extent>, Error> {
        todo!()
    }
    /// Data extents in `range` of `id` as they stand in the tree, uncut, for consolidation and for proving
    /// that a chunk is still held: whether an extent ending at `end` carries `content`.
    pub async fn holds_chunk(
        &self,
        _id: FileId,
        _end: u64,
        _content: &ContentId,
    ) -> Result<Option<Extent>, Error> {
        todo!()
    }
    /// History entries, oldest first.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>, Error> {
        todo!()
    }
    /// Walks a path from the root, not following symlinks.
    pub async fn resolve(&self, _path: &RepoPath) -> Result<Option<(FileId, Inode)>, Error> {
        todo!()
    }
    /// The places of all pages of all layers, parents before children, entering each once: for `check`.
    pub async fn pages(&self) -> Result<Vec<Place>, Error> {
        todo!()
    }
    /// Up to `limit` inodes with ids strictly after `after`, in order of id: for `check`, totals, reconcile.
    pub async fn inodes(
        &self,
        _after: Option<FileId>,
        _limit: usize,
    ) -> Result<Vec<(FileId, Inode)>, Error> {
        todo!()
    }
    /// This tree with `changes` applied: they become inline changes, or a run, or are merged into runs or base.
    /// New pages go to `sink`. Changes may come in any order; later ones win over earlier.
    pub async fn apply(
        &self,
        _changes: Vec<Change>,
        _sink: &mut dyn PageSink,
    ) -> Result<TreeRoot, Error> {
        todo!()
    }
}
