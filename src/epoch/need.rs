//! What a sealed epoch still needs of one inode, and what has been kept for it already.
//!
//! A page is needed while it is dirty (or planned for consolidation) and neither the flusher nor a writer has captured it.
//! What a writer captured waits here in pieces until the flusher takes it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::epoch::Attributes;
use crate::epoch::buffer::Hold;
use crate::epoch::changes::Record;
use crate::epoch::origin::Contents;
use crate::epoch::pages::{Detail, PAGE_LEN, Pages, Run, bytes_of, coalesce, subtract};

/// The attributes at the seal.
#[derive(Default)]
pub(crate) enum Resolved {
    /// Not read yet: the inode is as it was at the seal.
    #[default]
    No,
    /// The inode had no name any more.
    Gone,
    /// The flusher has read them; only the size is remembered.
    Taken {
        /// Size in bytes at the seal.
        size: u64,
    },
    /// A writer has read them for the flusher.
    Kept(Box<Attributes>),
    /// The source did not let a writer read the old state, with this `errno`; that is lost, and nothing more is needed.
    Refused(i32),
}

/// What is still to be captured of an inode. Costs little until a writer or the flusher comes by.
#[derive(Default)]
pub(crate) struct Need {
    pub(crate) attributes: Resolved,
    /// Every dirty page was taken at once: `part` is then empty.
    done: bool,
    part: Option<Box<Part>>,
}

#[derive(Default)]
struct Part {
    /// Clean pages that the flusher wants as well.
    planned: Pages,
    /// Pages that the flusher has taken or that wait in `pieces`.
    captured: Pages,
    /// What writers preserved, by offset in bytes.
    pieces: BTreeMap<u64, Piece>,
    /// The way to an unlinked file.
    kept: Option<KeptFile>,
}

/// Preserved bytes and their share of the buffer.
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    pub(crate) _hold: Hold,
}

/// An unlinked file, and its share of the descriptors.
pub(crate) struct KeptFile {
    pub(crate) contents: Arc<dyn Contents>,
    pub(crate) _hold: Hold,
}

impl Record {
    /// The size at the seal; `None` if the inode is unchanged since, so that its size now is the same.
    pub(crate) fn size_at_seal(&self) -> Option<u64> {
        match &self.need.attributes {
            Resolved::No => None,
            Resolved::Gone | Resolved::Refused(_) => Some(0),
            Resolved::Taken { size } => Some(*size),
            Resolved::Kept(attributes) => Some(attributes.stat.size),
        }
    }

    /// Pages within `run` that nobody has captured yet.
    pub(crate) fn needed(&self, run: &Run) -> Vec<Run> {
        if self.need.done {
            return Vec::new();
        }
        let run = &self.below_end(run);
        let dirty = self.dirty.runs_in(run);
        let Some(part) = &self.need.part else {
            return dirty;
        };
        let mut wanted = dirty;
        wanted.extend(part.planned.runs_in(run));
        subtract(coalesce(wanted), &part.captured)
    }

    /// Whether any page of `run` is needed.
    pub(crate) fn needs(&self, run: &Run) -> bool {
        if self.need.part.is_none() {
            return !self.need.done && self.dirty.intersects(&self.below_end(run));
        }
        !self.needed(run).is_empty()
    }

    /// Clean pages that the flusher wants too.
    pub(crate) fn plan(&mut self, run: &Run, detail: Detail) {
        if std::mem::take(&mut self.need.done) {
            let captured = self.dirty.clone();
            self.part().captured = captured;
        }
        self.part().planned.insert(run, detail);
    }

    /// A writer has captured these pages; `pieces` are their bytes as far as the file reached.
    pub(crate) fn preserve(&mut self, runs: &[Run], pieces: Vec<(u64, Piece)>, detail: Detail) {
        let part = self.part();
        for run in runs {
            part.captured.insert(run, detail);
        }
        part.pieces.extend(pieces);
    }

    /// The flusher has captured these pages: pieces within them may go.
    pub(crate) fn taken(&mut self, run: &Run, detail: Detail) {
        if self.need.done {
            return;
        }
        let Some(part) = &mut self.need.part else {
            // The usual case: a small file, taken in one piece, of which nothing else is to be remembered.
            self.need.done = self.dirty.is_within(run);
            if !self.need.done {
                self.part().captured.insert(run, detail);
            }
            return;
        };
        part.captured.insert(run, detail);
        let bytes = bytes_of(run);
        let inside = |at: u64, piece: &Piece| at + piece.bytes.len() as u64 <= bytes.end;
        let range = part.pieces.range(bytes.clone());
        let gone: Vec<u64> = range
            .filter(|&(&at, p)| inside(at, p))
            .map(|(&at, _)| at)
            .collect();
        for at in gone {
            part.pieces.remove(&at);
        }
    }

    /// What was preserved of `range` (bytes), cut to it: offset and bytes.
    pub(crate) fn pieces_in(&self, range: &Range<u64>) -> Vec<(u64, Bytes)> {
        let Some(part) = &self.need.part else {
            return Vec::new();
        };
        // Pieces do not overlap, so at most one that begins before the range reaches into it.
        let before = part.pieces.range(..range.start).next_back();
        let from = before.map_or(range.start, |(&at, _)| at);
        let found = part.pieces.range(from..range.end);
        found
            .filter_map(|(&at, piece)| {
                let start = at.max(range.start);
                let end = (at + piece.bytes.len() as u64).min(range.end);
                let cut = (start < end).then(|| (start - at) as usize..(end - at) as usize)?;
                Some((start, piece.bytes.slice(cut)))
            })
            .collect()
    }

    /// Keeps an unlinked file readable.
    pub(crate) fn keep(&mut self, file: KeptFile) {
        self.part().kept = Some(file);
    }

    /// The way to an unlinked file.
    pub(crate) fn kept(&self) -> Option<Arc<dyn Contents>> {
        let kept = self.need.part.as_ref()?.kept.as_ref()?;
        Some(Arc::clone(&kept.contents))
    }

    /// `run` as far as the file reached at the seal, where that is known: what lies beyond is gone, and needs no capture.
    fn below_end(&self, run: &Run) -> Run {
        let end = self
            .size_at_seal()
            .map_or(u64::MAX, |size| size.div_ceil(PAGE_LEN));
        run.start..run.end.min(end)
    }

    /// Where the first preserved bytes within `range` begin.
    pub(crate) fn first_piece(&self, range: &Range<u64>) -> Option<u64> {
        self.pieces_in(range).first().map(|(at, _)| *at)
    }

    fn part(&mut self) -> &mut Part {
        self.need.part.get_or_insert_with(Box::default)
    }
}
