//! Updating a base: sorted changes in one pass. Touched leaves are rewritten, then their parents; whole subtrees
//! that no change can touch are kept without being read. With no old base this is bulk loading, of runs too.

use crate::format::commit::PageRoot;
use crate::format::key::{Key, extent_key};
use crate::format::page::Entry;
use crate::id::FileId;
use crate::repo::Error;
use crate::repo::tree::builder::Builder;
use crate::repo::tree::cursor::{At, Cursor, Loader};
use crate::repo::tree::overlay::{Absence, Overlay, Step};
use crate::repo::tree::scan::{Scan, cut, owned};
use crate::repo::tree::{PageSink, Pages};

/// A layer that holds `old` with `changes` applied; `None` if nothing is left. `changes` keeps its tombstones and
/// holes where there is an old layer for them to work on.
pub(super) async fn update<P: Pages>(
    loader: &Loader<P>,
    old: Option<&PageRoot>,
    changes: Scan<'_, P>,
    absence: Absence,
    sink: &mut dyn PageSink,
) -> Result<Option<PageRoot>, Error> {
    let mut update = Update {
        walk: Cursor::new(loader, old),
        changes,
        overlay: Overlay::new(absence),
        builder: Builder::new(old, sink),
        tail: None,
    };
    while update.step().await? {}
    update.builder.finish()
}

struct Update<'a, P> {
    walk: Cursor<'a, P>,
    changes: Scan<'a, P>,
    overlay: Overlay,
    builder: Builder<'a>,
    /// An extent was put up to here, and the base's next extent, which it may cut, has not been looked at yet.
    tail: Option<(FileId, u64)>,
}

impl<P: Pages> Update<'_, P> {
    /// False when all is done.
    async fn step(&mut self) -> Result<bool, Error> {
        match self.walk.at() {
            At::NodeEnd(0) if self.belongs_into_this_leaf() => self.merge().await,
            At::NodeEnd(_) => {
                if let Some((page, Some(place))) = self.walk.leave() {
                    self.builder.close(&page, &place)?;
                }
                Ok(true)
            }
            At::Child(level) => {
                match self.walk.child() {
                    Some((key, place))
                        if self.builder.can_keep(level) && self.is_untouched(&key) =>
                    {
                        self.walk.pass();
                        self.builder.keep(level, key, &place)?;
                    }
                    _ => {
                        self.walk.enter().await?;
                        if let Some(page) = self.walk.page() {
                            self.builder.open(page);
                        }
                    }
                }
                Ok(true)
            }
            At::Entry | At::End => self.merge().await,
        }
    }

    /// Whether the next change lies before the leaf that follows the one just walked to its end. An extent of a file
    /// that goes on there must see the next leaf first: an old extent may begin before it.
    fn belongs_into_this_leaf(&self) -> bool {
        let Some(change) = self.changes.peek() else {
            return false;
        };
        match self.walk.bound(0) {
            None => true,
            Some(bound) => change.key < bound && !same_file(&change.key, &bound),
        }
    }

    /// Whether no change can touch the subtree that comes next, which begins with `key`.
    fn is_untouched(&self, key: &[u8]) -> bool {
        if self.overlay.shadows(key) {
            return false;
        }
        if let (Some((id, _)), Some((file, _))) = (self.tail, extent_key(key))
            && id == file
        {
            return false;
        }
        let Some(change) = self.changes.peek() else {
            return true;
        };
        self.walk
            .bound(1)
            .is_some_and(|bound| bound <= first_touched(change))
    }

    /// Takes the next entry of old layer and changes together.
    async fn merge(&mut self) -> Result<bool, Error> {
        let old = self.walk.head();
        if let (Some((id, at)), Some(old)) = (self.tail, &old)
            && extent_key(old.key).is_none_or(|(file, end)| file != id || end > at)
        {
            self.tail = None;
        }
        match self.overlay.step(&[old, self.changes.head()])? {
            Step::End => return Ok(false),
            Step::Take(0) => {
                if let Some(head) = self.walk.head() {
                    self.builder.push(owned(head))?;
                }
                self.walk.bump();
            }
            Step::Skip(0) => self.walk.bump(),
            Step::Cut(0, part) => {
                if let Some(head) = self.walk.head() {
                    self.builder.push(cut(head, part)?)?;
                }
            }
            Step::Take(_) => {
                if let Some(entry) = self.changes.next().await? {
                    self.note_tail(&entry);
                    self.builder.push(entry)?;
                }
            }
            Step::Skip(_) => {
                if let Some(entry) = self.changes.next().await? {
                    self.note_tail(&entry);
                }
            }
            Step::Cut(_, part) => {
                if let Some(head) = self.changes.head() {
                    let entry = cut(head, part)?;
                    self.note_tail(&entry);
                    self.builder.push(entry)?;
                }
            }
        }
        Ok(true)
    }

    fn note_tail(&mut self, entry: &Entry) {
        if let Some(tail) = extent_key(&entry.key) {
            self.tail = Some(tail);
        }
    }
}

/// The first key of an old layer that a change can touch. An extent touches all that end after its start.
fn first_touched(change: &Entry) -> Vec<u8> {
    match extent_key(&change.key) {
        Some((id, end)) => {
            let start = crate::format::entry::Extent::span(end, &change.value)
                .map_or(0, |(range, _)| range.start);
            Key::Extent(id, start + 1).encode()
        }
        None => change.key.clone(),
    }
}

fn same_file(a: &[u8], b: &[u8]) -> bool {
    match (extent_key(a), extent_key(b)) {
        (Some((a, _)), Some((b, _))) => a == b,
        _ => false,
    }
}

/// How many leaves of a base hold a key of `changes` or would take it, and how many changes there are.
pub(super) async fn touched_leaves<P: Pages>(
    loader: &Loader<P>,
    base: &PageRoot,
    mut changes: Scan<'_, P>,
) -> Result<(u64, u64), Error> {
    let mut walk = Cursor::new(loader, Some(base));
    let (mut count, mut leaves) = (0, 0);
    // The end of the leaf counted last: keys before it touch nothing new.
    let mut counted: Option<Option<Vec<u8>>> = None;
    while let Some(change) = changes.peek() {
        let is_counted = match &counted {
            None => false,
            Some(None) => true,
            Some(Some(bound)) => change.key < *bound,
        };
        if is_counted {
            count += 1;
            changes.advance().await?;
            continue;
        }
        match walk.at() {
            At::Child(level) => {
                let bound = walk.bound(1);
                if walk.child().is_some()
                    && bound.as_ref().is_some_and(|bound| *bound <= change.key)
                {
                    walk.pass();
                } else if level == 0 {
                    leaves += 1;
                    counted = Some(bound);
                    match walk.child() {
                        Some(_) => walk.pass(),
                        // The root itself is the only leaf.
                        None => counted = Some(None),
                    }
                } else {
                    walk.enter().await?;
                }
            }
            At::NodeEnd(_) => {
                walk.leave();
            }
            At::Entry | At::End => counted = Some(None),
        }
    }
    Ok((count, leaves))
}
