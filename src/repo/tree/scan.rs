//! All layers of a tree, or some of them, read as one sorted list, lazily: one path of pages per layer is in memory.

use std::sync::Arc;

use futures::future::try_join_all;

use crate::format::commit::{PageRoot, RUNS_MAX};
use crate::format::entry::Extent;
use crate::format::key::{Key, extent_key};
use crate::format::page::{Entry, Page};
use crate::repo::tree::cursor::{Cursor, Head, Loader};
use crate::repo::tree::overlay::{Overlay, Step};
use crate::repo::tree::{Error, Pages};

/// Base, runs, inline changes and fresh ones.
const LAYERS_MAX: usize = 1 + RUNS_MAX + 1 + 1;

/// One layer of a scan.
enum Layer<'a, P> {
    Pages(Cursor<'a, P>),
    Fresh(&'a [Entry]),
}

impl<P: Pages> Layer<'_, P> {
    fn head(&self) -> Option<Head<'_>> {
        match self {
            Self::Pages(cursor) => cursor.head(),
            Self::Fresh(entries) => entries.first().map(|entry| Head {
                key: &entry.key,
                op: entry.op,
                value: &entry.value,
            }),
        }
    }

    async fn seek(&mut self, key: &[u8]) -> Result<(), crate::repo::Error> {
        match self {
            Self::Pages(cursor) => cursor.seek(key).await,
            Self::Fresh(entries) => {
                *entries = &entries[entries.partition_point(|entry| entry.key.as_slice() < key)..];
                Ok(())
            }
        }
    }

    async fn advance(&mut self) -> Result<(), crate::repo::Error> {
        match self {
            Self::Pages(cursor) => cursor.advance().await,
            Self::Fresh(entries) => {
                *entries = &entries[1..];
                Ok(())
            }
        }
    }
}

/// The layers that a scan reads.
#[derive(Clone)]
pub(super) struct Layers<'a> {
    pub(super) base: Option<&'a PageRoot>,
    pub(super) runs: &'a [PageRoot],
    pub(super) inline: Option<&'a Arc<Page>>,
    pub(super) fresh: &'a [Entry],
}

/// Entries of several layers in order, as [`Overlay`] says.
pub(super) struct Scan<'a, P> {
    layers: Vec<Layer<'a, P>>,
    overlay: Overlay,
    head: Option<Entry>,
}

impl<'a, P: Pages> Scan<'a, P> {
    /// A scan from the first key on that is not less than `from`.
    pub(super) async fn new(
        loader: &'a Loader<P>,
        layers: Layers<'a>,
        from: &[u8],
        overlay: Overlay,
    ) -> Result<Self, crate::repo::Error> {
        if layers.runs.len() > RUNS_MAX {
            return Err(Error::TooManyRuns(layers.runs.len()).into());
        }
        let pages = |root| Layer::Pages(Cursor::new(loader, Some(root)));
        let mut list: Vec<Layer<'a, P>> = layers.base.into_iter().map(pages).collect();
        list.extend(layers.runs.iter().map(pages));
        list.extend(
            layers
                .inline
                .map(|page| Layer::Pages(Cursor::over_page(loader, Arc::clone(page)))),
        );
        if !layers.fresh.is_empty() {
            list.push(Layer::Fresh(layers.fresh));
        }
        // Side by side: what one layer waits for says nothing about the others.
        try_join_all(list.iter_mut().map(|layer| layer.seek(from))).await?;
        let mut scan = Self {
            layers: list,
            overlay,
            head: None,
        };
        scan.advance().await?;
        Ok(scan)
    }

    /// The entry under the scan; `None` at the end.
    pub(super) fn peek(&self) -> Option<&Entry> {
        self.head.as_ref()
    }

    /// The entry under the scan as the overlay wants to see it.
    pub(super) fn head(&self) -> Option<Head<'_>> {
        self.head.as_ref().map(|entry| Head {
            key: &entry.key,
            op: entry.op,
            value: &entry.value,
        })
    }

    /// Takes the entry under the scan and goes on.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, crate::repo::Error> {
        let taken = self.head.take();
        self.advance().await?;
        Ok(taken)
    }

    /// Goes on to the next entry.
    pub(super) async fn advance(&mut self) -> Result<(), crate::repo::Error> {
        loop {
            let step = {
                let mut heads = [None; LAYERS_MAX];
                for (head, layer) in heads.iter_mut().zip(&self.layers) {
                    *head = layer.head();
                }
                self.overlay.step(&heads[..self.layers.len()])?
            };
            match step {
                Step::Take(layer) => {
                    self.head = self.layers[layer].head().map(owned);
                    return self.layers[layer].advance().await;
                }
                Step::Cut(layer, part) => {
                    self.head = match self.layers[layer].head() {
                        Some(head) => Some(cut(head, part)?),
                        None => None,
                    };
                    return Ok(());
                }
                Step::Skip(layer) => self.layers[layer].advance().await?,
                Step::End => {
                    self.head = None;
                    return Ok(());
                }
            }
        }
    }
}

/// A head's own copy.
pub(super) fn owned(head: Head<'_>) -> Entry {
    Entry {
        key: head.key.to_vec(),
        op: head.op,
        value: head.value.to_vec(),
    }
}

/// A part of the extent under a head, as an entry.
pub(super) fn cut(head: Head<'_>, part: std::ops::Range<u64>) -> Result<Entry, Error> {
    let malformed = crate::format::entry::Malformed("extent key");
    let (id, end) = extent_key(head.key).ok_or(malformed)?;
    let extent = Extent::decode(end, head.value)?.cut(part);
    Ok(Entry {
        key: Key::Extent(id, extent.range.end).encode(),
        op: head.op,
        value: extent.encode(),
    })
}
