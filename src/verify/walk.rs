//! Walking the pages of a tree as they lie, layer by layer, past those that cannot be read.
//!
//! The tree itself stops at damage, since it must not skip an entry. Here damage is what is looked for: it is met with the stretch of keys
//! that is lost by it, and the walk goes on behind it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::stream::{self, StreamExt};

use crate::format::commit::{PageRoot, TreeRoot};
use crate::format::entry::Place;
use crate::format::page::Page;
use crate::id::{BlockId, FrameNo};
use crate::repo;
use crate::repo::blocks::Blocks;
use crate::repo::tree::{Error as TreeError, Pages};
use crate::verify::{Error, go_on};

/// Leaves fetched at a time: hides the way to the store, costs 1 MiB.
const LEAVES_AT_ONCE: usize = 16;

/// What a walk meets, in the order of keys within a layer.
pub(super) enum Met {
    /// A leaf.
    Leaf(Arc<Page>),
    /// A page that cannot be read, or not as what its parent says.
    Lost {
        /// Why.
        error: repo::Error,
        /// The first key that is lost with it; empty for the root of a layer.
        from: Vec<u8>,
        /// The first key that is not lost any more; `None` if the layer ends with it.
        until: Option<Vec<u8>>,
    },
}

/// Pages entered so far, by name.
pub(super) type Visited = HashSet<(BlockId, FrameNo)>;

/// A walk over trees.
pub(super) struct Walk<'a> {
    pub(super) blocks: &'a Arc<Blocks>,
    pub(super) stop: &'a AtomicBool,
    /// Counts pages read.
    pub(super) pages: &'a AtomicU64,
    /// Only leaves that may hold keys beginning with this byte; all if `None`.
    pub(super) kind: Option<u8>,
}

/// A page still to be read.
#[derive(Clone)]
struct Ahead {
    place: Place,
    level: u8,
    key: Option<Vec<u8>>,
    until: Option<Vec<u8>>,
}

impl Walk<'_> {
    /// Meets every leaf of a tree, the oldest layer first and the inline changes last. With `visited`, pages that stand in it are passed over
    /// with all below them, and the others are put into it.
    pub(super) async fn tree(
        &self,
        root: &TreeRoot,
        mut visited: Option<&mut Visited>,
        met: &mut (dyn FnMut(Met) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        for layer in root.base.iter().chain(&root.runs) {
            self.layer(layer, visited.as_deref_mut(), met).await?;
        }
        if root.inline.is_empty() {
            return Ok(());
        }
        match Page::decode(root.inline.clone()) {
            Ok(page) => met(Met::Leaf(Arc::new(page))),
            Err(error) => met(Met::Lost {
                error: TreeError::Inline(error).into(),
                from: Vec::new(),
                until: None,
            }),
        }
    }

    async fn layer(
        &self,
        root: &PageRoot,
        mut visited: Option<&mut Visited>,
        met: &mut (dyn FnMut(Met) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        let mut is_new = |ahead: &Ahead| match &mut visited {
            Some(visited) => visited.insert((ahead.place.at.block, ahead.place.at.frame)),
            None => true,
        };
        let first = Ahead {
            place: root.place.clone(),
            level: root.height - 1,
            key: None,
            until: None,
        };
        let mut stack: Vec<Ahead> = Some(first)
            .into_iter()
            .filter(|ahead| is_new(ahead))
            .collect();
        while let Some(ahead) = stack.pop() {
            go_on(self.stop)?;
            let (ahead, page) = self.load(ahead).await;
            let page = match page {
                Ok(page) if ahead.level > 0 => page,
                other => {
                    met(meeting(ahead, other))?;
                    continue;
                }
            };
            let children = children(&ahead, &page);
            let wanted = children
                .into_iter()
                .filter(|child| self.wants(child) && is_new(child));
            if ahead.level > 1 {
                let wanted: Vec<Ahead> = wanted.collect();
                stack.extend(wanted.into_iter().rev());
                continue;
            }
            let wanted: Vec<Ahead> = wanted.collect();
            let mut leaves = stream::iter(wanted.into_iter().map(|leaf| self.load(leaf)))
                .buffered(LEAVES_AT_ONCE);
            while let Some((leaf, page)) = leaves.next().await {
                met(meeting(leaf, page))?;
            }
        }
        Ok(())
    }

    /// Whether a page may hold keys of the wanted kind.
    fn wants(&self, ahead: &Ahead) -> bool {
        let Some(kind) = self.kind else { return true };
        let begins_behind = ahead
            .key
            .as_ref()
            .is_some_and(|key| key.first() > Some(&kind));
        let ends_before = ahead
            .until
            .as_ref()
            .is_some_and(|until| until.as_slice() <= [kind].as_slice());
        !begins_behind && !ends_before
    }

    async fn load(&self, ahead: Ahead) -> (Ahead, Result<Arc<Page>, repo::Error>) {
        let page = self.blocks.page(&ahead.place).await.and_then(|page| {
            let misfit = |why| TreeError::Structure {
                at: ahead.place.at,
                why,
            };
            if page.level() != ahead.level {
                return Err(misfit("wrong level").into());
            }
            if ahead.key.as_ref().is_some_and(|key| !page.key_is(0, key)) {
                return Err(misfit("does not begin where its parent says").into());
            }
            Ok(page)
        });
        self.pages.fetch_add(1, Ordering::Relaxed);
        (ahead, page)
    }
}

fn meeting(ahead: Ahead, page: Result<Arc<Page>, repo::Error>) -> Met {
    match page {
        Ok(page) => Met::Leaf(page),
        Err(error) => Met::Lost {
            error,
            from: ahead.key.unwrap_or_default(),
            until: ahead.until,
        },
    }
}

fn children(parent: &Ahead, page: &Page) -> Vec<Ahead> {
    let until = |i: usize| match i + 1 < page.len() {
        true => Some(page.key(i + 1)),
        false => parent.until.clone(),
    };
    (0..page.len())
        .map(|i| Ahead {
            place: page.child(i),
            level: parent.level - 1,
            key: Some(page.key(i)),
            until: until(i),
        })
        .collect()
}
