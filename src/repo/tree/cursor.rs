//! Walking one layer of a tree: a base or a run by its pages, or the inline changes, which are a page too.
//!
//! Holds one path from the root to a leaf, never more. Reads use [`Cursor::seek`] and [`Cursor::advance`]; updating
//! the base walks node by node, so that it can pass over what stays as it is.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::format::commit::PageRoot;
use crate::format::entry::Place;
use crate::format::page::{Op, Page};
use crate::id::{BlockId, FrameNo};
use crate::repo::tree::{Error, Pages};

/// Decoded pages that one tree keeps: enough for one path in each of its layers and the leaves that neighbouring
/// look-ups share; at most 2 MiB.
const DECODED_PAGES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

type RepoError = crate::repo::Error;

/// Decoded pages by address.
type Decoded = LruCache<(BlockId, FrameNo), Arc<Page>>;

/// Loads pages and keeps the latest ones decoded.
pub(super) struct Loader<P> {
    pages: P,
    decoded: Arc<Mutex<Decoded>>,
}

impl<P: Clone> Clone for Loader<P> {
    fn clone(&self) -> Self {
        Self {
            pages: self.pages.clone(),
            decoded: Arc::clone(&self.decoded),
        }
    }
}

impl<P: Pages> Loader<P> {
    pub(super) fn new(pages: P) -> Self {
        Self {
            pages,
            decoded: Arc::new(Mutex::new(LruCache::new(DECODED_PAGES))),
        }
    }

    /// Where the pages come from.
    #[cfg(test)]
    pub(super) fn pages(&self) -> &P {
        &self.pages
    }

    /// The page at `place`, which must be of `level` and, where the parent names one, begin with `key`.
    pub(super) async fn load(
        &self,
        place: &Place,
        level: u8,
        key: Option<&[u8]>,
    ) -> Result<Arc<Page>, RepoError> {
        let name = (place.at.block, place.at.frame);
        let kept = self.decoded.lock().get(&name).cloned();
        let page = match kept {
            Some(page) => page,
            None => {
                let page = self.pages.page(place).await?;
                self.decoded.lock().put(name, Arc::clone(&page));
                page
            }
        };
        let misfit = |why| Error::Structure { at: place.at, why };
        if page.level() != level {
            return Err(misfit("wrong level").into());
        }
        if key.is_some_and(|key| !page.key_is(0, key)) {
            return Err(misfit("does not begin where its parent says").into());
        }
        Ok(page)
    }
}

/// A page on the path, and which of its entries comes next.
struct Node {
    page: Arc<Page>,
    /// `None` for inline changes, which are no page of the store.
    place: Option<Place>,
    next: usize,
}

/// An entry under a cursor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) key: &'a [u8],
    pub(super) op: Op,
    pub(super) value: &'a [u8],
}

/// What comes next on a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// An entry of a leaf.
    Entry,
    /// A page of this level, not loaded yet.
    Child(u8),
    /// Nothing more in the current page, which has this level.
    NodeEnd(u8),
    /// Nothing more at all.
    End,
}

/// A walk through one layer in the order of its keys.
pub(super) struct Cursor<'a, P> {
    loader: &'a Loader<P>,
    root: Option<PageRoot>,
    path: Vec<Node>,
    /// Key of the entry under the cursor, kept here so that heads can be borrowed.
    key: Vec<u8>,
}

impl<'a, P: Pages> Cursor<'a, P> {
    /// At the beginning of a layer with this root; over nothing without one.
    pub(super) fn new(loader: &'a Loader<P>, root: Option<&PageRoot>) -> Self {
        Self {
            loader,
            root: root.cloned(),
            path: Vec::new(),
            key: Vec::new(),
        }
    }

    /// At the beginning of inline changes.
    pub(super) fn over_page(loader: &'a Loader<P>, page: Arc<Page>) -> Self {
        let mut cursor = Self::new(loader, None);
        cursor.path.push(Node {
            page,
            place: None,
            next: 0,
        });
        cursor.read_key();
        cursor
    }

    /// Moves to the first entry whose key is not less than `key`. Only before anything else was walked.
    pub(super) async fn seek(&mut self, key: &[u8]) -> Result<(), RepoError> {
        self.seek_leaf(key).await?;
        if let Some(leaf) = self.path.last_mut() {
            leaf.next = leaf.page.lower_bound(key);
        }
        self.read_key();
        self.settle().await
    }

    /// Moves to the leaf that holds `key` if any does. Only before anything else was walked.
    pub(super) async fn seek_leaf(&mut self, key: &[u8]) -> Result<(), RepoError> {
        while let At::Child(_) = self.at() {
            if let Some(parent) = self.path.last_mut() {
                parent.next = parent.page.child_of(key);
            }
            self.enter().await?;
        }
        Ok(())
    }

    /// Goes on to the next entry or the end.
    pub(super) async fn settle(&mut self) -> Result<(), RepoError> {
        loop {
            match self.at() {
                At::Entry | At::End => return Ok(()),
                At::Child(_) => self.enter().await?,
                At::NodeEnd(_) => {
                    self.leave();
                }
            }
        }
    }

    /// Past the entry under the cursor, to the next one or the end.
    pub(super) async fn advance(&mut self) -> Result<(), RepoError> {
        self.bump();
        self.settle().await
    }

    /// The entry under the cursor, if it stands at one.
    pub(super) fn head(&self) -> Option<Head<'_>> {
        let node = self.path.last()?;
        (node.page.level() == 0 && node.next < node.page.len()).then(|| Head {
            key: &self.key,
            op: node.page.op(node.next),
            value: node.page.value(node.next),
        })
    }

    /// What comes next.
    pub(super) fn at(&self) -> At {
        match self.path.last() {
            None => match &self.root {
                Some(root) => At::Child(root.height - 1),
                None => At::End,
            },
            Some(node) if node.next == node.page.len() => At::NodeEnd(node.page.level()),
            Some(node) if node.page.level() == 0 => At::Entry,
            Some(node) => At::Child(node.page.level() - 1),
        }
    }

    /// Past the entry under the cursor, within its leaf.
    pub(super) fn bump(&mut self) {
        if let Some(node) = self.path.last_mut() {
            node.next += 1;
        }
        self.read_key();
    }

    /// Loads the page that comes next and stands at its beginning.
    pub(super) async fn enter(&mut self) -> Result<(), RepoError> {
        let (place, level, key) = match self.path.last() {
            None => {
                let Some(root) = self.root.take() else {
                    return Ok(());
                };
                (root.place, root.height - 1, None)
            }
            Some(node) => (
                node.page.child(node.next),
                node.page.level() - 1,
                Some(node.page.key(node.next)),
            ),
        };
        let page = self.loader.load(&place, level, key.as_deref()).await?;
        if let Some(parent) = self.path.last_mut() {
            parent.next += 1;
        }
        self.path.push(Node {
            page,
            place: Some(place),
            next: 0,
        });
        self.read_key();
        Ok(())
    }

    /// Leaves a page that has been walked to its end.
    pub(super) fn leave(&mut self) -> Option<(Arc<Page>, Option<Place>)> {
        let node = self.path.pop()?;
        Some((node.page, node.place))
    }

    /// The page the cursor stands in.
    pub(super) fn page(&self) -> Option<&Arc<Page>> {
        self.path.last().map(|node| &node.page)
    }

    /// First key and place of the page that comes next; `None` for the root, whose first key nobody has noted.
    pub(super) fn child(&self) -> Option<(Vec<u8>, Place)> {
        let node = self.path.last()?;
        (node.next < node.page.len())
            .then(|| (node.page.key(node.next), node.page.child(node.next)))
    }

    /// Past the page that comes next, without loading it.
    pub(super) fn pass(&mut self) {
        if let Some(node) = self.path.last_mut() {
            node.next += 1;
        }
    }

    /// The first key after the page that comes next (`skip` 1) or after the current page (`skip` 0); `None` where
    /// the layer ends with it.
    pub(super) fn bound(&self, skip: usize) -> Option<Vec<u8>> {
        let (last, above) = self.path.split_last()?;
        let siblings = (skip > 0).then_some((last, skip));
        siblings
            .into_iter()
            .chain(above.iter().rev().map(|node| (node, 0)))
            .find(|(node, skip)| node.next + skip < node.page.len())
            .map(|(node, skip)| node.page.key(node.next + skip))
    }

    fn read_key(&mut self) {
        if let Some(node) = self.path.last()
            && node.page.level() == 0
            && node.next < node.page.len()
        {
            node.page.key_into(node.next, &mut self.key);
        }
    }
}
