//! What a commit changes in the tree: entries, the commit before it, and where contents have come to lie.
//!
//! Handed to the tree one by one, since a list of all would be the largest thing in memory during a first backup.

use crate::flusher::cut::{Laid, Piece};
use crate::flusher::pack::{Packed, SmallPlaces};
use crate::format::entry::{Change, Contents, Extent, HistoryEntry};
use crate::repo::commits::Found;

/// All changes of one commit.
pub(crate) struct Changes<'a> {
    /// Names, inodes and xattrs; `None` when they have been given.
    pub(crate) entries: Option<Vec<Change>>,
    /// The commit before it.
    pub(crate) history: Option<HistoryEntry>,
    /// Contents.
    pub(crate) laid: &'a [Laid],
    /// Where they lie.
    pub(crate) packed: &'a Packed,
}

impl Changes<'_> {
    /// One after another, with small data in these places. Without small data nothing depends on places that may change, so that
    /// this is asked for once, and what is given is let go.
    pub(crate) fn with(&mut self, small: &SmallPlaces) -> impl Iterator<Item = Change> {
        let entries = match self.packed.small.is_empty() {
            true => self.entries.take(),
            false => self.entries.clone(),
        };
        let entries = entries.expect("without small data there is one attempt");
        let history = self.history.clone().map(Box::new);
        let extents = self
            .laid
            .iter()
            .map(|laid| extent(laid, self.packed, small));
        let history = history.map(Change::PutHistory);
        entries.into_iter().chain(history).chain(extents)
    }
}

/// How a commit's history tells of the commit before it.
pub(crate) fn history_entry(found: &Found) -> HistoryEntry {
    HistoryEntry {
        name: found.commit.name,
        tag: found.tag,
        wall: found.commit.wall,
        totals: found.commit.totals,
        label: found.commit.label.clone(),
        incomplete: found.commit.incomplete,
        forgotten: None,
    }
}

fn extent((id, range, piece): &Laid, packed: &Packed, small: &SmallPlaces) -> Change {
    let contents = match piece {
        Piece::Hole => Contents::Hole,
        Piece::New { spot, content } => Contents::Data {
            place: packed.place(*spot, Some(small)),
            content: *content,
        },
        Piece::Held { place, content } => Contents::Data {
            place: place.clone(),
            content: *content,
        },
    };
    let range = range.clone();
    Change::PutExtent(*id, Box::new(Extent { range, contents }))
}
