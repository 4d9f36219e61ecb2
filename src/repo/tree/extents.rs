//! Extents as readers want them: covering a range with its holes, or as proof that a chunk is held.

use std::ops::Range;

use crate::format::entry::{Contents, Extent};
use crate::format::frame::FRAME_PLAIN_MAX;
use crate::format::key::extent_key;
use crate::format::page::Entry;
use crate::id::{ContentId, FileId};
use crate::repo::tree::{Error, must_be_sound};

/// The extent that an entry holds; `None` if it is none of file `id`.
pub(super) fn read(entry: &Entry, id: FileId) -> Result<Option<Extent>, Error> {
    match extent_key(&entry.key) {
        Some((file, end)) if file == id => Ok(Some(Extent::decode(end, &entry.value)?)),
        _ => must_be_sound(&entry.key).map(|()| None),
    }
}

/// `data`, sorted and within `range`, with holes between so that all of `range` is covered.
pub(super) fn cover(data: Vec<Extent>, range: Range<u64>) -> Vec<Extent> {
    let mut covered = Vec::with_capacity(data.len());
    let mut at = range.start;
    let hole = |range| Extent {
        range,
        contents: Contents::Hole,
    };
    for extent in data {
        if at < extent.range.start {
            covered.push(hole(at..extent.range.start));
        }
        at = extent.range.end;
        covered.push(extent);
    }
    if at < range.end {
        covered.push(hole(at..range.end));
    }
    covered
}

/// Where a data extent that ends at `end` can begin at the earliest: it lies within one frame.
pub(super) fn earliest_start(end: u64) -> u64 {
    end.saturating_sub(FRAME_PLAIN_MAX as u64)
}

/// Whether it is exactly one whole chunk with this content.
pub(super) fn is_chunk(extent: &Extent, wanted: &ContentId) -> bool {
    matches!(&extent.contents, Contents::Data { content: Some(content), .. } if content == wanted)
}
