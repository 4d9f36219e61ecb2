//! The tree: one persistent ordered map of a whole commit. A copy-on-write B+tree under at most four sorted
//! runs and the commit's own changes (FORMAT.md, "Tree entries and pages").
//!
//! Nothing here knows of blocks, keys or stores: pages come from [`Pages`] and go to a [`PageSink`]. A tree never
//! changes; [`Tree::apply`] makes the root of another one that shares most pages with it. Snapshots, restore, check
//! and reconcile read trees; the flusher applies changes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::format::commit::TreeRoot;
use crate::format::entry::{Change, Extent, HistoryEntry, Inode, Malformed, NameEntry, Place};
use crate::format::key::{Key, is_malformed, name_key};
use crate::format::page::{self, Op, Page};
use crate::id::{ContentId, FileId, Seq};
use crate::path::RepoPath;
use crate::repo;

mod changes;

mod runs;

mod base;

mod builder;

mod scan;

mod overlay;

mod cursor;

mod extents;

mod error;

/// A key that ends what is looked for must be one, or what follows it would be missed without a word.
fn must_be_sound(key: &[u8]) -> Result<(), Error> {
    match is_malformed(key) {
        true => Err(Malformed("key: of a known kind and of another form").into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;

pub use changes::XATTR_VALUE_MAX;
pub use error::Error;

use cursor::{Cursor, Loader};
use overlay::{Absence, Overlay};
use scan::{Layers, Scan};

/// Where pages come from.
#[async_trait]
pub trait Pages: Send + Sync {
    /// The verified plaintext of one page (one page is one frame).
    async fn page(&self, place: &Place) -> Result<Arc<Page>, repo::Error>;
}

/// Where new pages go: places are known at once, encryption may follow later.
pub trait PageSink: Send {
    /// Takes an encoded page and says where it will lie.
    fn put(&mut self, page: Vec<u8>) -> Result<Place, repo::Error>;
}

/// The tree of one commit. Cheap to clone; clones share the pages they keep decoded.
#[derive(Clone)]
pub struct Tree<P> {
    root: Arc<TreeRoot>,
    loader: Loader<P>,
    inline: Result<Option<Arc<Page>>, page::Error>,
}

impl<P: Pages + Clone> Tree<P> {
    /// The tree with this root. Inline changes that cannot be read fail every use of it.
    pub fn new(root: TreeRoot, pages: P) -> Self {
        let inline = match root.inline.is_empty() {
            true => Ok(None),
            false => Page::decode(root.inline.clone()).and_then(|page| match page.level() {
                0 => Ok(Some(Arc::new(page))),
                _ => Err(page::Error::Malformed("not a leaf")),
            }),
        };
        Self {
            root: Arc::new(root),
            loader: Loader::new(pages),
            inline,
        }
    }

    /// Its root.
    pub fn root(&self) -> &TreeRoot {
        &self.root
    }

    /// An inode; `None` if it does not exist.
    pub async fn inode(&self, id: FileId) -> Result<Option<Inode>, repo::Error> {
        let value = self.value(&Key::Inode(id)).await?;
        Ok(value
            .map(|value| Inode::decode(&value))
            .transpose()
            .map_err(Error::from)?)
    }

    /// What a name points to; `None` if there is no such name or directory.
    pub async fn name(&self, dir: FileId, name: &[u8]) -> Result<Option<NameEntry>, repo::Error> {
        let value = self.value(&Key::Name(dir, name)).await?;
        Ok(value
            .map(|value| NameEntry::decode(&value))
            .transpose()
            .map_err(Error::from)?)
    }

    /// Up to `limit` names of a directory in byte order, strictly after `after`; none if there is no such directory. What stands in
    /// the tree as a name but cannot be one ([`is_entry_name`](crate::format::key::is_entry_name)) is among them.
    pub async fn names(
        &self,
        dir: FileId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, NameEntry)>, repo::Error> {
        let mut from = Key::Name(dir, after.unwrap_or_default()).encode();
        if after.is_some() {
            // No name holds a NUL, so nothing lies between.
            from.push(0);
        }
        let mut names = Vec::new();
        let mut scan = self.scan(&from).await?;
        while let Some(entry) = scan.peek().filter(|_| names.len() < limit) {
            let Some((_, name)) = name_key(&entry.key).filter(|(of, _)| *of == dir) else {
                break;
            };
            let value = NameEntry::decode(&entry.value).map_err(Error::from)?;
            names.push((name.to_vec(), value));
            scan.advance().await?;
        }
        Ok(names)
    }

    /// Up to `limit` names of all directories in order of directory and name, strictly after `after`: for `check`.
    pub async fn all_names(
        &self,
        after: Option<(FileId, &[u8])>,
        limit: usize,
    ) -> Result<Vec<(FileId, Vec<u8>, NameEntry)>, repo::Error> {
        let from = match after {
            None => Key::Name(FileId(0), b"").encode(),
            Some((dir, name)) => {
                let mut from = Key::Name(dir, name).encode();
                // No name holds a NUL, so nothing lies between.
                from.push(0);
                from
            }
        };
        let mut names = Vec::new();
        let mut scan = self.scan(&from).await?;
        while let Some(entry) = scan.peek().filter(|_| names.len() < limit) {
            let Some((dir, name)) = name_key(&entry.key) else {
                break;
            };
            let value = NameEntry::decode(&entry.value).map_err(Error::from)?;
            names.push((dir, name.to_vec(), value));
            scan.advance().await?;
        }
        Ok(names)
    }

    /// All xattrs by name; none if there is no such inode.
    pub async fn xattrs(&self, id: FileId) -> Result<Vec<(Vec<u8>, Vec<u8>)>, repo::Error> {
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut parts = 0;
        let mut scan = self.scan(&Key::Xattrs(id).encode()).await?;
        while let Some(entry) = scan.peek() {
            match Key::parse(&entry.key) {
                Some(Key::Xattr(of, name, part)) if of == id => {
                    match xattrs.last_mut() {
                        _ if part == 0 => {
                            xattrs.push((name.to_vec(), entry.value.clone()));
                            parts = 0;
                        }
                        Some((last, value)) if last == name && part == parts => {
                            value.extend_from_slice(&entry.value);
                        }
                        _ => return Err(Error::from(Malformed("xattr: a part is missing")).into()),
                    }
                    parts += 1;
                }
                _ => {
                    must_be_sound(&entry.key)?;
                    break;
                }
            }
            scan.advance().await?;
        }
        Ok(xattrs)
    }

    /// Extents that cover `range` without gap or overlap, holes included, cut at its ends
    /// (a cut extent's `place.at.inner` points at the first byte wanted).
    pub async fn extents(&self, id: FileId, range: Range<u64>) -> Result<Vec<Extent>, repo::Error> {
        let data = self.data_extents(id, range.clone()).await?;
        Ok(extents::cover(data, range))
    }

    /// The extent of `id` that ends at `end`, if it is a whole chunk with this content: proof that the chunk is still
    /// held. `None` if it is not there, was cut, or has another content.
    pub async fn holds_chunk(
        &self,
        id: FileId,
        end: u64,
        content: &ContentId,
    ) -> Result<Option<Extent>, repo::Error> {
        let wanted = *content;
        let start = extents::earliest_start(end);
        let found = self.data_extents(id, start..end).await?.pop();
        Ok(found.filter(|extent| extent.range.end == end && extents::is_chunk(extent, &wanted)))
    }

    /// History entries, oldest first.
    pub async fn history(&self) -> Result<Vec<HistoryEntry>, repo::Error> {
        self.history_from(Seq(0), usize::MAX).await
    }

    /// Up to `limit` history entries from `first` on, oldest first.
    pub async fn history_from(
        &self,
        first: Seq,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, repo::Error> {
        let mut entries = Vec::new();
        let mut scan = self.scan(&Key::History(first).encode()).await?;
        while let Some(entry) = scan.peek().filter(|_| entries.len() < limit) {
            let Some(Key::History(_)) = Key::parse(&entry.key) else {
                must_be_sound(&entry.key)?;
                break;
            };
            entries.push(HistoryEntry::decode(&entry.value).map_err(Error::from)?);
            scan.advance().await?;
        }
        Ok(entries)
    }

    /// Walks a path from the root, not following symlinks; `None` where a component is missing.
    pub async fn resolve(&self, path: &RepoPath) -> Result<Option<(FileId, Inode)>, repo::Error> {
        let mut id = FileId::ROOT;
        for component in path.components() {
            match self.name(id, component).await? {
                Some(entry) => id = entry.id,
                None => return Ok(None),
            }
        }
        Ok(self.inode(id).await?.map(|inode| (id, inode)))
    }

    /// The places of all pages of all layers, parents before children, entering each once: for `check`. Leaves are
    /// named, not read.
    pub async fn pages(&self) -> Result<Vec<Place>, repo::Error> {
        let mut places = Vec::new();
        for root in self.root.base.iter().chain(&self.root.runs) {
            let mut queue = VecDeque::from([(root.place.clone(), root.height - 1, None)]);
            while let Some((place, level, key)) = queue.pop_front() {
                if level > 0 {
                    let page = self.loader.load(&place, level, key.as_deref()).await?;
                    let child = |i| (page.child(i), level - 1, Some(page.key(i)));
                    queue.extend((0..page.len()).map(child));
                }
                places.push(place);
            }
        }
        Ok(places)
    }

    /// Up to `limit` inodes with ids strictly after `after`, in order of id: for `check`, totals, reconcile.
    pub async fn inodes(
        &self,
        after: Option<FileId>,
        limit: usize,
    ) -> Result<Vec<(FileId, Inode)>, repo::Error> {
        let mut inodes = Vec::new();
        let first = match after {
            None => FileId(0),
            Some(FileId(u64::MAX)) => return Ok(inodes),
            Some(FileId(after)) => FileId(after + 1),
        };
        let mut scan = self.scan(&Key::Inode(first).encode()).await?;
        while let Some(entry) = scan.peek().filter(|_| inodes.len() < limit) {
            let Some(Key::Inode(id)) = Key::parse(&entry.key) else {
                must_be_sound(&entry.key)?;
                break;
            };
            inodes.push((id, Inode::decode(&entry.value).map_err(Error::from)?));
            scan.advance().await?;
        }
        Ok(inodes)
    }

    /// This tree with `changes` applied: they become inline changes, or a run, or are merged into runs or base.
    /// New pages go to `sink`. Changes may come in any order; later ones win over earlier.
    pub async fn apply(
        &self,
        changes: impl IntoIterator<Item = Change>,
        sink: &mut dyn PageSink,
    ) -> Result<TreeRoot, repo::Error> {
        let inline = self.inline()?;
        runs::apply(&self.loader, &self.root, inline, changes, sink).await
    }

    fn inline(&self) -> Result<Option<&Arc<Page>>, Error> {
        match &self.inline {
            Ok(page) => Ok(page.as_ref()),
            Err(error) => Err(Error::Inline(*error)),
        }
    }

    fn layers(&self) -> Result<Layers<'_>, Error> {
        Ok(Layers {
            base: self.root.base.as_ref(),
            runs: &self.root.runs,
            inline: self.inline()?,
            fresh: &[],
        })
    }

    async fn scan(&self, from: &[u8]) -> Result<Scan<'_, P>, repo::Error> {
        let overlay = Overlay::new(Absence::Dropped);
        Scan::new(&self.loader, self.layers()?, from, overlay).await
    }

    /// The value under a key that no range can hide; newest layer first.
    async fn value(&self, key: &Key<'_>) -> Result<Option<Vec<u8>>, repo::Error> {
        let key = key.encode();
        let said = |page: &Page, i: usize| (page.op(i) == Op::Put).then(|| page.value(i).to_vec());
        if let Some(page) = self.inline()?
            && let Some(i) = page.find(&key)
        {
            return Ok(said(page, i));
        }
        for root in self.root.runs.iter().rev().chain(&self.root.base) {
            let mut cursor = Cursor::new(&self.loader, Some(root));
            cursor.seek_leaf(&key).await?;
            if let Some(page) = cursor.page()
                && let Some(i) = page.find(&key)
            {
                return Ok(said(page, i));
            }
        }
        Ok(None)
    }

    /// Data extents within `range`, cut at its ends.
    async fn data_extents(
        &self,
        id: FileId,
        range: Range<u64>,
    ) -> Result<Vec<Extent>, repo::Error> {
        let mut found = Vec::new();
        if range.is_empty() {
            return Ok(found);
        }
        // An extent is keyed by its end: the first that reaches into the range ends after its start.
        let from = Key::Extent(id, range.start + 1).encode();
        let overlay = Overlay::starting_within(Absence::Dropped, id, range.start);
        let mut scan = Scan::new(&self.loader, self.layers()?, &from, overlay).await?;
        while let Some(extent) = scan
            .peek()
            .map(|entry| extents::read(entry, id))
            .transpose()?
            .flatten()
        {
            let Range { start, end } = extent.range;
            if start >= range.end {
                break;
            }
            found.push(extent.cut(start..end.min(range.end)));
            scan.advance().await?;
        }
        Ok(found)
    }
}
