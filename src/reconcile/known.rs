//! What the newest commit's tree knows, read in pieces that are as large as neighbours are likely to be wanted.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::entry::{Inode, NameEntry};
use crate::id::FileId;
use crate::reconcile::Error;
use crate::reconcile::waiting::Waiting;
use crate::repo::tree::{Pages, Tree};

/// Names read from the tree at once.
const NAMES_AT_ONCE: usize = 1024;
/// Inodes read from the tree at once: numbers are handed out in ranges per directory, so the next ones are wanted next.
const INODES_AT_ONCE: usize = 128;

/// The names that the tree has for one directory, in byte order.
pub(super) struct KnownNames<'a, P> {
    tree: Option<&'a Tree<P>>,
    waiting: Waiting<'a>,
    dir: FileId,
    ready: VecDeque<(Vec<u8>, NameEntry)>,
    after: Option<Vec<u8>>,
}

impl<'a, P: Pages + Clone> KnownNames<'a, P> {
    /// Those of `dir`; none if there is no tree.
    pub(super) fn of(tree: Option<&'a Tree<P>>, waiting: Waiting<'a>, dir: FileId) -> Self {
        Self {
            tree,
            waiting,
            dir,
            ready: VecDeque::new(),
            after: None,
        }
    }

    fn peek(&mut self) -> Result<Option<&(Vec<u8>, NameEntry)>, Error> {
        if self.ready.is_empty()
            && let Some(tree) = self.tree
        {
            let names = tree.names(self.dir, self.after.as_deref(), NAMES_AT_ONCE);
            let names = self.waiting.wait_for(names)?;
            match names.last() {
                Some((last, _)) => self.after = Some(last.clone()),
                None => self.tree = None,
            }
            self.ready.extend(names);
        }
        Ok(self.ready.front())
    }

    /// The next name.
    pub(super) fn take_next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.peek()?;
        Ok(self.ready.pop_front().map(|(name, _)| name))
    }

    /// The next name if it comes before `name`.
    pub(super) fn take_before(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.peek()? {
            Some((next, _)) if next.as_slice() < name => self.take_next(),
            _ => Ok(None),
        }
    }

    /// What the tree has for `name`, if that is the next.
    pub(super) fn take(&mut self, name: &[u8]) -> Result<Option<NameEntry>, Error> {
        match self.peek()? {
            Some((next, _)) if next == name => {
                Ok(self.ready.pop_front().map(|(_name, entry)| entry))
            }
            _ => Ok(None),
        }
    }
}

/// Inodes of the tree, with a window around the last one asked for.
#[derive(Default)]
pub(super) struct KnownInodes {
    /// In order of number.
    window: Vec<(FileId, Arc<Inode>)>,
    /// First and last number that the window tells of, whether they exist or not.
    span: Option<(FileId, FileId)>,
}

impl KnownInodes {
    /// What the tree says of an inode; `None` if it does not know it.
    pub(super) fn get<P: Pages + Clone>(
        &mut self,
        tree: &Tree<P>,
        waiting: Waiting<'_>,
        id: FileId,
    ) -> Result<Option<Arc<Inode>>, Error> {
        let covered = self
            .span
            .is_some_and(|(first, last)| first <= id && id <= last);
        if !covered {
            self.read(tree, waiting, id)?;
        }
        let found = self.window.binary_search_by_key(&id, |(id, _)| *id);
        Ok(found.ok().map(|index| Arc::clone(&self.window[index].1)))
    }

    fn read<P: Pages + Clone>(
        &mut self,
        tree: &Tree<P>,
        waiting: Waiting<'_>,
        id: FileId,
    ) -> Result<(), Error> {
        let after = id.0.checked_sub(1).map(FileId);
        let inodes = waiting.wait_for(tree.inodes(after, INODES_AT_ONCE))?;
        let last = match inodes.last() {
            Some((last, _)) if inodes.len() == INODES_AT_ONCE => *last,
            // That was the end of the tree.
            _ => FileId(u64::MAX),
        };
        self.span = Some((id, last));
        let shared = |(id, inode)| (id, Arc::new(inode));
        self.window = inodes.into_iter().map(shared).collect();
        Ok(())
    }
}
