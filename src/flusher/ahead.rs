//! Copy ahead: dirty data of the open epoch, captured and uploaded before its seal, as a running machine is migrated.
//!
//! A copy may be torn by a write that happens meanwhile; that write has then marked its pages dirty again, and what the
//! seal captures is laid over the copy. So copies need no version and no lock: later extents hide earlier ones.
//! An epoch that is folded keeps its copies for the next. One whose changes are dropped for want of memory does not: what would hide
//! them is not known any more, and a scan finds all of it again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chunk::CHUNK_LEN_AVERAGE;
use crate::epoch::{ChangeSize, CopyAhead, Drops};
use crate::failpoint::{self, Point};
use crate::flusher::capture::{AheadReader, ContentPlan, SPARSE_SLACK};
use crate::flusher::consolidate::{clip, union};
use crate::flusher::copied::CopiedBlock;
use crate::flusher::cut::{Cutter, Laid, Piece, Recent};
use crate::flusher::error::Error;
use crate::flusher::flow::Flow;
use crate::flusher::manifest::SpooledObject;
use crate::flusher::pack::{Packed, Packer};
use crate::flusher::pipeline::PipelineParts;
use crate::flusher::progress::Phase;
use crate::flusher::rest::Rest;
use crate::flusher::spool::FrameBytes;
use crate::flusher::upload::Job;
use crate::format::entry::Inode;
use crate::id::FileId;

/// Copied extents that wait for their seal: at most about 100 MiB of memory. Beyond it nothing more is copied ahead.
const EXTENTS_MAX: usize = 500_000;
/// Taken from one file at once: a logical block, so that a fully dirty one stays whole.
const COPY_BYTES: u64 = crate::journal::LOGICAL_BLOCK_LEN;
/// One round copies at most this many files: each is remembered until the round is safe in the spool, so that it could be given
/// back.
const ROUND_FILES: usize = 50_000;
/// Files taken from the open epoch at once.
const BATCH_FILES: usize = 64;
/// A stretch of at least this many bytes of a file that is not one written in place is cut by content: eight chunks of average length, so
/// that those that its ends cut off do not weigh much.
const LONG_STRETCH: u64 = 8 * CHUNK_LEN_AVERAGE as u64;
/// A round with rests is not longer than this and one batch: nobody is answered and nothing sealed before its end.
const RESTED_ROUND_MAX: Duration = Duration::from_secs(5);
/// Copying goes on with rests where what is to be copied has become less by at least this part of what a round has taken of it.
const RESTED_GAIN_PART: u64 = 2;
/// What is dirty is known by pages of this many bytes.
const PAGE_LEN: u64 = 4096;
/// While a scan runs, copying ahead begins here, so that it goes on beside the scan. Small trees are left to the seal, which packs
/// them better.
const HELD_COPY_BYTES: u64 = 16 << 20;

/// What has been copied and waits for its seal.
#[derive(Default)]
pub(crate) struct Ahead {
    extents: HashMap<FileId, Vec<(Range<u64>, Piece)>>,
    count: usize,
    /// The blocks written since the last captured commit, of which the next one tells. They may be in the store already.
    blocks: Vec<SpooledObject>,
    bytes: FrameBytes,
    /// What it was copied out of.
    drops: Drops,
}

impl Ahead {
    /// Whether nothing more can be remembered before the next seal.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= EXTENTS_MAX
    }

    /// Copies of one file in the order in which they were made.
    pub(crate) fn of(&self, id: FileId) -> Vec<(Range<u64>, Piece)> {
        self.extents.get(&id).cloned().unwrap_or_default()
    }

    /// Whether anything of a file was copied, be it only zeros: these hide what the last commit has there.
    pub(crate) fn has(&self, id: FileId) -> bool {
        self.extents.contains_key(&id)
    }

    /// Where what was copied of one file, without a gap from its beginning, ends.
    pub(crate) fn front(&self, id: FileId) -> u64 {
        let ranges = self.extents.get(&id).into_iter().flatten();
        let copied = union(ranges.map(|(range, _)| range.clone()).collect());
        let first = copied.first().filter(|first| first.start == 0);
        first.map_or(0, |first| first.end)
    }

    /// Where the copied data of one file end, zeros aside.
    pub(crate) fn end(&self, id: FileId) -> u64 {
        let ranges = self.extents.get(&id).into_iter().flatten();
        // Beyond the size zeros hold nothing, so that nothing there is to be cut off.
        let held = ranges.filter(|(_, piece)| *piece != Piece::Hole);
        held.map(|(range, _)| range.end).max().unwrap_or(0)
    }

    /// The blocks that the next commit may be the first to name.
    pub(crate) fn blocks(&self) -> &[SpooledObject] {
        &self.blocks
    }

    /// What they hold.
    pub(crate) fn bytes(&self) -> FrameBytes {
        self.bytes
    }

    /// Everything copied is in a captured epoch, but for what was left out of it: that goes into the next one. The blocks are in that
    /// epoch's manifest whatever they hold, and so reach the store before any later commit can name them.
    pub(crate) fn keep_only(&mut self, left_out: &BTreeSet<FileId>) {
        self.extents.retain(|id, _| left_out.contains(id));
        self.extents.shrink_to_fit();
        self.count = self.extents.values().map(Vec::len).sum();
        self.bytes = FrameBytes::default();
        self.blocks = Vec::new();
    }

    /// What comes now was taken, or sealed, at `drops`. Says whether that forgets what was copied before: its changes were dropped
    /// meanwhile.
    pub(crate) fn is_outlived_at(&mut self, drops: Drops) -> bool {
        let outlived = self.drops != drops;
        if outlived {
            *self = Self {
                drops,
                ..Self::default()
            };
        }
        outlived
    }

    /// Remembers a finished round; returns those of its blocks that are not on their way yet. Its chunks may be reused by what
    /// comes.
    pub(crate) fn add(
        &mut self,
        mut packed: Packed,
        laid: Vec<Laid>,
        recent: &mut Recent,
    ) -> Vec<CopiedBlock> {
        self.bytes += packed.bytes();
        self.count += laid.len();
        let mut placed = Vec::new();
        for (id, range, piece) in laid {
            let piece = match piece {
                Piece::New { spot, content } => {
                    let place = packed.place(spot, None);
                    if let Some(content) = content {
                        recent.placed(content, place.clone());
                        placed.push((content, place.clone()));
                    }
                    Piece::Held { place, content }
                }
                other => other,
            };
            // Nearly every file is one piece: a list that has room for more would take most of the memory.
            let pieces = self
                .extents
                .entry(id)
                .or_insert_with(|| Vec::with_capacity(1));
            pieces.push((range, piece));
        }
        let objects = packed.blocks.iter().map(|block| block.object.clone());
        self.blocks.extend(objects);
        let fresh = packed.blocks.iter_mut().filter_map(|block| {
            let object = block.keep()?;
            Some(CopiedBlock::of(object, block.id, &placed))
        });
        fresh.collect()
    }
}

impl Flow {
    /// Copies a round of the open epoch ahead if it holds more than it should at its seal, and notes whether there is more to copy.
    pub(super) fn copy_ahead_if_large(&mut self, open: ChangeSize) -> Result<(), Error> {
        let limit = match self.is_held() {
            true => HELD_COPY_BYTES.min(self.options.copy_ahead_bytes),
            false => self.options.copy_ahead_bytes,
        };
        self.copying = false;
        if open.bytes <= limit {
            return Ok(());
        }
        if !self.has_room() || self.ahead.is_full() {
            self.copying = true;
            return Ok(());
        }
        self.progress.phase(Phase::CopyingAhead);
        let rested = !self.has_moment && self.resting;
        let taken = self.copy_round(limit, rested)?;
        let left = self.epochs.open_size().bytes;
        let gained = open.bytes.saturating_sub(left);
        // Where writers dirty faster than we copy, the seal takes what is left; but first it is tried without a rest.
        self.copying = left > limit && (gained > 0 || rested);
        self.resting = gained > 0 && gained >= taken / RESTED_GAIN_PART;
        Ok(())
    }

    /// Says how many bytes it has taken.
    fn copy_round(&mut self, limit: u64, rests: bool) -> Result<u64, Error> {
        let mut copies = Vec::new();
        let result = self.copy_into_blocks(&mut copies, limit, rests);
        self.recent.end_run();
        match result {
            Ok((packed, laid, taken)) => {
                for block in self.ahead.add(packed, laid, &mut self.recent) {
                    self.spool.note_copied_best_effort(&block);
                    self.queue.push(Job::Block(block.object));
                }
                failpoint::reach(Point::CopyAhead);
                Ok(taken)
            }
            Err(error) => {
                copies.into_iter().for_each(CopyAhead::give_back);
                Err(error)
            }
        }
    }

    fn copy_into_blocks(
        &mut self,
        copies: &mut Vec<CopyAhead>,
        limit: u64,
        rests: bool,
    ) -> Result<(Packed, Vec<Laid>, u64), Error> {
        let parent = self.parent();
        let runtime = &self.runtime;
        let mut laid = Vec::new();
        let block_len = self.volume.config().block_len;
        let parts = PipelineParts {
            gives_way: !self.epochs.activity().is_hurried(),
            ..self.pipeline.clone()
        };
        let mut packer = Packer::for_epoch(&self.session, parts, block_len);
        let epochs = Arc::clone(&self.epochs);
        let rest = Rest::new(epochs.activity(), rests);
        let begun = Instant::now();
        let mut batch = Vec::new().into_iter();
        let (mut taken, mut files) = (0, 0);
        let mut seen = HashSet::new();
        loop {
            let Some(mut copy) = batch.next() else {
                for block in safe_blocks(&packer, &laid) {
                    self.spool.note_copied_best_effort(&block);
                    self.queue.push(Job::Block(block.object));
                }
                // Only between batches: what was taken and not tried would be left to the seal.
                let remembered = self.ahead.count + laid.len();
                let takes_long = || {
                    let is_long = begun.elapsed() >= RESTED_ROUND_MAX || self.epochs.is_crowded();
                    rest.is_wanted() && taken > 0 && is_long
                };
                let full = taken >= self.options.round_bytes
                    || files >= ROUND_FILES
                    || remembered >= EXTENTS_MAX
                    || takes_long();
                // Behind a program that writes on, it would cut its file into as many pieces as there are looks, and chunks with them.
                let little = taken > 0 && self.epochs.open_size().bytes <= limit;
                if full || little || !self.has_room() {
                    break;
                }
                let batch_bytes = COPY_BYTES.min(self.options.round_bytes);
                let more = self.epochs.copy_ahead_batch(BATCH_FILES, batch_bytes);
                if more.is_empty() {
                    break;
                }
                batch = more.into_iter();
                continue;
            };
            if self.ahead.is_outlived_at(copy.drops()) {
                self.recent.forget_placed();
                laid.clear();
            }
            taken += copy.bytes();
            files += 1;
            let before = laid.len();
            let mut cutter = Cutter {
                keys: &self.pipeline.keys,
                gear: &self.gear,
                index: &self.index,
                prove: &|id, end, content| {
                    Ok(runtime.block_on(parent.holds_chunk(id, end, content))?)
                },
                window: &mut self.window,
                recent: &mut self.recent,
                copied: &mut self.copied,
                packer: &mut packer,
                laid: &mut laid,
            };
            let old = runtime.block_on(parent.inode(copy.inode.node.id));
            let id = copy.inode.node.id;
            let again = !seen.insert(id) || self.ahead.has(id);
            let done = old.map_err(Error::from).and_then(|old| {
                let reader = AheadReader {
                    copy: &copy,
                    rest: &rest,
                };
                copy_one(&reader, old.as_ref(), again, &mut cutter)
            });
            match done {
                // One file that cannot be copied is no reason to copy nothing else, nor to put off a seal.
                Err(Error::Source { source, .. }) => {
                    laid.truncate(before);
                    match source.kind() {
                        // A program has cut it meanwhile.
                        ErrorKind::UnexpectedEof => copy.give_back_for_another(),
                        _ => copy.give_back(),
                    }
                }
                done => {
                    copy.close();
                    copies.push(copy);
                    done?;
                }
            }
        }
        Ok((packer.finish_in_blocks()?, laid, taken))
    }
}

/// What has become durable of what was `laid`, and may be uploaded.
fn safe_blocks(packer: &Packer<'_>, laid: &[Laid]) -> Vec<CopiedBlock> {
    let safe = packer.take_safe();
    if safe.is_empty() {
        return Vec::new();
    }
    let placed = laid.iter().filter_map(|(_, _, piece)| match piece {
        Piece::New { spot, content } => Some(((*content)?, packer.place_in(&safe, *spot)?)),
        _ => None,
    });
    let placed: Vec<_> = placed.collect();
    let blocks = safe.into_iter();
    let blocks = blocks.map(|block| CopiedBlock::of(block.object, block.id, &placed));
    blocks.collect()
}

/// Reads and cuts one copy of a file that the parent commit knows as `old`; `again`: some of it has been copied before.
fn copy_one(
    reader: &AheadReader<'_>,
    old: Option<&Inode>,
    again: bool,
    cutter: &mut Cutter<'_, '_>,
) -> Result<(), Error> {
    let copy = reader.copy;
    let id = copy.inode.node.id;
    let size = copy.size().map_err(|source| Error::Source { id, source })?;
    let ranges = clip(&union(copy.inode.dirty.clone()), 0..size);
    let plan = ContentPlan {
        id,
        size,
        by_content: copy.inode.fresh
            || old.is_none_or(|old| !old.in_place && is_long_stretch(&ranges)),
        reset: false,
        cut_off: false,
        ranges,
        covers: true,
        // Asking a large one for holes costs nothing beside copying it.
        sparse: size > SPARSE_SLACK,
    };
    cutter.file(&plan, Vec::new(), reader)?;
    if let Some(tail) = cut_off_tail(&plan).filter(|_| old.is_some() || again) {
        cutter.lay(id, tail, Piece::Hole);
    }
    Ok(())
}

/// Whether what is copied is one stretch of many chunks: a file that was written anew, or is compared as a whole, and not pages here and
/// there. What has not changed in it is then found again, and only looked at.
fn is_long_stretch(ranges: &[Range<u64>]) -> bool {
    matches!(ranges, [all] if all.end - all.start >= LONG_STRETCH)
}

/// What lies behind the end of a file in its last page, if that page was copied. The page is no longer dirty as a whole, so
/// nothing else hides what the last commit or an earlier copy has there, should the file grow again before the seal.
fn cut_off_tail(plan: &ContentPlan) -> Option<Range<u64>> {
    let copied = plan.ranges.last().is_some_and(|r| r.end == plan.size);
    let tail = plan.size..plan.size.next_multiple_of(PAGE_LEN);
    (copied && tail.start < tail.end).then_some(tail)
}
