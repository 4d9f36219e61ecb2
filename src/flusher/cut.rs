//! The chunk stage: contents become pieces, either content-defined chunks with keyed ids that may be known already, or page
//! increments as they are.
//!
//! A chunk that the index has seen is reused only when the parent commit's tree proves that it still holds it, or when this
//! very epoch has packed it, in this life or an earlier one. All zeros become a hole.

use std::collections::HashMap;
use std::ops::Range;

use crate::chunk::{CHUNK_LEN_MAX, Gear};
use crate::crypto::VolumeKeys;
use crate::flusher::capture::{ContentPlan, READ_LEN, Reader};
use crate::flusher::copied::Copied;
use crate::flusher::dedup::DedupIndex;
use crate::flusher::error::Error;
use crate::flusher::pack::{FrameSize, Packer, SHARED_FRAME_LEN, Spot};
use crate::flusher::window::Window;
use crate::format::entry::{Contents, Extent, Place};
use crate::id::{ContentId, FileId};
use crate::journal::LOGICAL_BLOCK_LEN;

/// Chunks and pieces from this length on go into bulk frames: a shared frame holds at least four.
const BULK_LEN: usize = SHARED_FRAME_LEN / 4;
/// Chunks remembered within one epoch for finding equal ones: 64 MiB of memory at the very most, a hundred gigabytes of
/// file; beyond it equal chunks are merely stored twice.
const RECENT_MAX: usize = 500_000;

/// What lies in a stretch of a file, its place perhaps not known yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// Zeros.
    Hole,
    /// Packed in this run.
    New {
        /// Where.
        spot: Spot,
        /// Present for a whole chunk.
        content: Option<ContentId>,
    },
    /// Stored before, by an earlier commit or ahead of this one.
    Held {
        /// Where.
        place: Place,
        /// Present for a whole chunk.
        content: Option<ContentId>,
    },
}

/// A stretch of a file and what lies in it.
pub(crate) type Laid = (FileId, Range<u64>, Piece);

/// Chunks already packed, by content.
#[derive(Default)]
pub(crate) struct Recent {
    spots: HashMap<ContentId, Spot>,
    places: HashMap<ContentId, Place>,
}

impl Recent {
    /// Remembers chunks whose blocks were written ahead.
    pub(crate) fn placed(&mut self, content: ContentId, place: Place) {
        if self.places.len() < RECENT_MAX {
            self.places.insert(content, place);
        }
    }

    /// Forgets blocks that were written ahead: no commit is going to name them.
    pub(crate) fn forget_placed(&mut self) {
        self.places = HashMap::new();
    }

    /// Forgets what was packed in a run that is over (its spots mean nothing any more).
    pub(crate) fn end_run(&mut self) {
        self.spots = HashMap::new();
    }
}

/// Proves a hint of the index: the extent that ends at the given offset of the given file and is exactly that chunk.
pub(crate) type Prove<'a> = dyn Fn(FileId, u64, &ContentId) -> Result<Option<Extent>, Error> + 'a;

/// Cuts files and hands the pieces to the packer.
pub(crate) struct Cutter<'a, 'p> {
    /// For content ids.
    pub(crate) keys: &'a VolumeKeys,
    /// Finds boundaries.
    pub(crate) gear: &'a Gear,
    /// Hints.
    pub(crate) index: &'a DedupIndex,
    /// Proof of hints.
    pub(crate) prove: &'a Prove<'a>,
    /// Where contents are read to.
    pub(crate) window: &'a mut Window,
    /// What this epoch has packed.
    pub(crate) recent: &'a mut Recent,
    /// What an earlier life has packed and never captured.
    pub(crate) copied: &'a mut Copied,
    /// Where pieces go.
    pub(crate) packer: &'a mut Packer<'p>,
    /// What lies where, in the order in which it is to be applied.
    pub(crate) laid: &'a mut Vec<Laid>,
}

impl Cutter<'_, '_> {
    /// Reads and cuts one file. What was copied `ahead` comes before what is read now, and so is hidden by it.
    pub(crate) fn file(
        &mut self,
        plan: &ContentPlan,
        ahead: Vec<(Range<u64>, Piece)>,
        reader: &dyn Reader,
    ) -> Result<(), Error> {
        if plan.reset {
            self.lay(plan.id, 0..u64::MAX, Piece::Hole);
        }
        for (range, piece) in ahead {
            self.lay(plan.id, range, piece);
        }
        for range in &plan.ranges {
            let mut at = range.start;
            while at < range.end {
                let data = match plan.sparse {
                    true => reader.skip_hole(at..range.end)?,
                    false => at,
                };
                self.hole(plan, at..data);
                at = match plan.by_content {
                    _ if data >= range.end => range.end,
                    true => self.by_content(plan, data..range.end, reader)?,
                    false => self.in_place(plan, data..range.end, reader)?,
                };
            }
        }
        if plan.cut_off {
            self.lay(plan.id, plan.size..u64::MAX, Piece::Hole);
        }
        Ok(())
    }

    /// Notes what lies in a stretch of a file; hides what was laid there before.
    pub(crate) fn lay(&mut self, id: FileId, range: Range<u64>, piece: Piece) {
        self.laid.push((id, range, piece));
    }

    /// A hole is only worth saying where it hides something.
    fn hole(&mut self, plan: &ContentPlan, range: Range<u64>) {
        if plan.covers && range.start < range.end {
            self.lay(plan.id, range, Piece::Hole);
        }
    }

    /// A new or rewritten stretch: content-defined chunks. Says where it stopped, which is at a hole or at the end.
    fn by_content(
        &mut self,
        plan: &ContentPlan,
        stretch: Range<u64>,
        reader: &dyn Reader,
    ) -> Result<u64, Error> {
        // Lent out, since cutting needs the rest of `self`; if that fails, the next file begins with a new one.
        let mut window = std::mem::take(self.window);
        window.clear();
        let mut at = stretch.start;
        loop {
            let end = (at + READ_LEN).min(stretch.end);
            window.read(plan.id, at..end, reader)?;
            at = end;
            let last =
                at == stretch.end || (plan.sparse && reader.skip_hole(at..stretch.end)? > at);
            self.chunks(plan, at, &mut window, last)?;
            if last {
                *self.window = window;
                return Ok(at);
            }
        }
    }

    /// Cuts what can be cut off the front of `window`, which ends at `end`; the rest waits for more unless this is the `last`.
    fn chunks(
        &mut self,
        plan: &ContentPlan,
        end: u64,
        window: &mut Window,
        last: bool,
    ) -> Result<(), Error> {
        let least = if last { 1 } else { CHUNK_LEN_MAX };
        while window.bytes().len() >= least {
            let bytes = window.bytes();
            let len = self.gear.cut(bytes);
            self.chunk(plan, end - bytes.len() as u64, &bytes[..len])?;
            window.advance(len);
        }
        Ok(())
    }

    fn chunk(&mut self, plan: &ContentPlan, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = at..at + bytes.len() as u64;
        if is_zero(bytes) {
            self.hole(plan, range);
            return Ok(());
        }
        let content = self.keys.content_id(bytes);
        if let Some(held) = self.held(&content, bytes.len())? {
            self.lay(plan.id, range, held);
            return Ok(());
        }
        let spot = self.packer.piece(bytes, frame_size(bytes.len()))?;
        if self.recent.spots.len() < RECENT_MAX {
            self.recent.spots.insert(content, spot);
        }
        let content = Some(content);
        self.lay(plan.id, range, Piece::New { spot, content });
        Ok(())
    }

    fn held(&mut self, content: &ContentId, len: usize) -> Result<Option<Piece>, Error> {
        if let Some(&spot) = self.recent.spots.get(content) {
            let content = Some(*content);
            return Ok(Some(Piece::New { spot, content }));
        }
        if let Some(place) = self.recent.places.get(content) {
            return Ok(Some(Piece::Held {
                place: place.clone(),
                content: Some(*content),
            }));
        }
        if let Some(place) = self.copied.find(content) {
            let content = Some(*content);
            return Ok(Some(Piece::Held { place, content }));
        }
        let Some((id, end)) = self.index.find(content) else {
            return Ok(None);
        };
        let proven = (self.prove)(id, end, content)?;
        let whole = proven.filter(|e| e.range.end - e.range.start == len as u64);
        Ok(whole.and_then(|extent| match extent.contents {
            Contents::Data { place, .. } => Some(Piece::Held {
                place,
                content: Some(*content),
            }),
            Contents::Hole => None,
        }))
    }

    /// An increment: pages as they are, each contiguous stretch of a frame one extent. A logical block that is dirty as a
    /// whole becomes a block of its own. Does one logical block and says where it ended.
    fn in_place(
        &mut self,
        plan: &ContentPlan,
        stretch: Range<u64>,
        reader: &dyn Reader,
    ) -> Result<u64, Error> {
        let logical_end = (stretch.start / LOGICAL_BLOCK_LEN + 1) * LOGICAL_BLOCK_LEN;
        let range = stretch.start..logical_end.min(stretch.end);
        let whole = range.end - range.start == LOGICAL_BLOCK_LEN;
        if whole {
            self.packer.end_block()?;
        }
        self.increment(plan, range.clone(), reader, whole)?;
        if whole {
            self.packer.end_block()?;
        }
        Ok(range.end)
    }

    fn increment(
        &mut self,
        plan: &ContentPlan,
        range: Range<u64>,
        reader: &dyn Reader,
        whole_block: bool,
    ) -> Result<(), Error> {
        let (piece_len, size) = match whole_block {
            true => (READ_LEN, FrameSize::Bulk),
            false => (SHARED_FRAME_LEN as u64, FrameSize::Shared),
        };
        let mut at = range.start;
        while at < range.end {
            if plan.sparse {
                let data = reader.skip_hole(at..range.end)?;
                if data > at {
                    self.lay(plan.id, at..data, Piece::Hole);
                    at = data;
                    continue;
                }
            }
            // Aligned, so that later increments hide whole pieces where they can.
            let end = ((at / piece_len + 1) * piece_len).min(range.end);
            self.window.clear();
            self.window.read(plan.id, at..end, reader)?;
            let bytes = self.window.bytes();
            let piece = match is_zero(bytes) {
                true => Piece::Hole,
                false => Piece::New {
                    spot: self.packer.piece(bytes, size)?,
                    content: None,
                },
            };
            self.lay(plan.id, at..end, piece);
            at = end;
        }
        Ok(())
    }
}

fn frame_size(len: usize) -> FrameSize {
    match len < BULK_LEN {
        true => FrameSize::Shared,
        false => FrameSize::Bulk,
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // The first byte decides almost always; comparing with itself, shifted, runs at memory speed.
    bytes.first().is_none_or(|&first| first == 0) && bytes.iter().all(|&byte| byte == 0)
}
