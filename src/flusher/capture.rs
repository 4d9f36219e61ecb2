//! The capture stage: attributes exactly as they stood at the seal, and what of each file is to be read.
//!
//! Attributes come first, since they are cheap and free the most writers; contents follow through [`Reader`], at most 1 MiB at a
//! time. Nothing here looks at what it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::thread;

use crate::epoch::{self, Attributes, CaptureError, CopyAhead, Sealed};
use crate::failpoint::{self, Point};
use crate::flusher::consolidate::{clip, union};
use crate::flusher::entries::{NameChange, Touched};
use crate::flusher::error::Error;
use crate::flusher::rest::Rest;
use crate::format::entry::{Inode, Kind};
use crate::id::FileId;

/// The longest stretch asked for at once: what [`Sealed::take`] gives.
pub(crate) const READ_LEN: u64 = 1 << 20;
/// An inexact commit reads no more than this: most of what it holds was copied ahead.
pub(super) const INEXACT_BYTES: u64 = 64 << 20;
/// Files that use less of the disk than their size says by more than this are looked at for holes; smaller ones never.
pub(crate) const SPARSE_SLACK: u64 = 64 << 10;

/// Inodes whose attributes are read at once: enough to be worth a thread.
const AT_ONCE: usize = 1024;

/// A sealed epoch with its attributes resolved.
#[derive(Default)]
pub(crate) struct Captured {
    /// Every touched inode.
    pub(crate) inodes: BTreeMap<FileId, Touched>,
    /// Every changed name.
    pub(crate) names: Vec<NameChange>,
    /// Inodes that the source refuses to show us, left out of the commit and named in `status`.
    pub(crate) refused: Vec<FileId>,
    /// Inodes that were refused before and can be read now: they are captured as a whole.
    pub(crate) readable: Vec<FileId>,
    /// Files left out of an inexact commit, which go on into the open epoch: those that a scan under way has not looked at yet, and those
    /// of which too much is still to be read.
    pub(crate) postponed: BTreeSet<FileId>,
}

/// What is known of files that cannot be read.
#[derive(Debug)]
pub(crate) struct Refusals<'a> {
    /// They are tried again as a whole...
    pub(crate) known: &'a BTreeSet<FileId>,
    /// ... but for these.
    pub(crate) hopeless: &'a BTreeSet<FileId>,
    /// One was found only now, while it was being read, and the epoch was lost to it: there may be more, which are to be found before.
    pub(crate) suspected: bool,
}

/// Resolves attributes of everything that the epoch touched. `inexact`: a scan is under way or owed, or there is more to be copied ahead;
/// then what has not been looked at is left out, and what would take more than [`INEXACT_BYTES`] to read.
pub(crate) fn capture(
    sealed: &Sealed,
    refusals: &Refusals<'_>,
    inexact: bool,
) -> Result<Captured, Error> {
    let Refusals {
        known, hopeless, ..
    } = refusals;
    let ids = sealed.ids();
    // Collected into a map at once, whose nodes are then full: one that grows in order leaves them half empty.
    let mut inodes = Vec::with_capacity(ids.len());
    let (mut refused, mut readable, mut postponed) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut budget = INEXACT_BYTES;
    let looked = ids.chunks(AT_ONCE).flat_map(|ids| {
        let attributes = attributes(sealed, ids);
        ids.iter().copied().zip(attributes)
    });
    for (id, attributes) in looked {
        let Some(inode) = sealed.inode(id) else {
            return Err(Error::Folded);
        };
        let mut dirty = union(inode.dirty);
        let mut left_out = false;
        let attributes = match attributes {
            Err(CaptureError::Folded) => return Err(Error::Folded),
            Ok(None) if known.contains(&id) => {
                readable.push(id);
                None
            }
            _ if hopeless.contains(&id) => {
                left_out = true;
                None
            }
            Ok(found)
                if inexact
                    && let Some(size) = file_size(found.as_ref())
                    && (sealed.is_doubted(id) || !fits(&dirty, size, &mut budget)) =>
            {
                postponed.insert(id);
                left_out = true;
                None
            }
            Ok(found) if known.contains(&id) && needs_whole(sealed, id, found.as_ref()) => {
                readable.push(id);
                let size = found.as_ref().map_or(0, |found| found.stat.size);
                dirty = Vec::from_iter((size > 0).then_some(0..size));
                found
            }
            _ if known.contains(&id) => {
                left_out = true;
                None
            }
            Err(CaptureError::Io { source, .. }) if is_refusal(&source) => {
                refused.push(id);
                left_out = true;
                None
            }
            Ok(found)
                if refusals.suspected
                    && let Some(size) = file_size(found.as_ref())
                    && !clip(&dirty, 0..size).is_empty()
                    && refuses(sealed, id) =>
            {
                refused.push(id);
                left_out = true;
                None
            }
            attributes => attributes?,
        };
        let touched = Touched {
            node: inode.node,
            fresh: inode.fresh,
            dirty,
            copied_front: 0,
            attributes: attributes.map(Box::new),
            left_out,
        };
        inodes.push((id, touched));
    }
    Ok(Captured {
        inodes: inodes.into_iter().collect(),
        names: sealed.names(),
        refused,
        readable,
        postponed,
    })
}

/// The attributes of some inodes, in the same order: nothing but system calls, which several threads make in less time.
fn attributes(sealed: &Sealed, ids: &[FileId]) -> Vec<Result<Option<Attributes>, CaptureError>> {
    let read = |ids: &[FileId]| -> Vec<_> { ids.iter().map(|&id| sealed.attributes(id)).collect() };
    if ids.len() < AT_ONCE {
        return read(ids);
    }
    let (ours, theirs) = ids.split_at(ids.len() / 2);
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, || read(theirs));
        let mut all = read(ours);
        // Where no thread was to be had we read ourselves.
        let others = other.ok().and_then(|other| other.join().ok());
        all.extend(others.unwrap_or_else(|| read(theirs)));
        all
    })
}

/// Whether reading the `dirty` ranges of a file of this size is within the budget, and takes it from that.
fn fits(dirty: &[Range<u64>], size: u64, budget: &mut u64) -> bool {
    // Ranges are pages; a small file is less than one.
    let within = |range: &Range<u64>| range.end.min(size).saturating_sub(range.start);
    let needed = dirty.iter().map(within).sum();
    let left = budget.checked_sub(needed);
    *budget = left.unwrap_or(*budget);
    left.is_some()
}

/// The size of a regular file.
fn file_size(found: Option<&Attributes>) -> Option<u64> {
    let stat = &found?.stat;
    (stat.kind == Kind::File).then_some(stat.size)
}

/// Asks for all of a file that was refused, not only for what has changed of it; false if it still cannot be read, or has been
/// changed since (and is tried again in that epoch). One that is gone needs nothing.
fn needs_whole(sealed: &Sealed, id: FileId, found: Option<&Attributes>) -> bool {
    let Some(stat) = found.map(|found| &found.stat) else {
        return true;
    };
    let all = 0..stat.size;
    stat.kind != Kind::File
        || all.is_empty()
        || sealed.open_to_read(id).is_ok() && sealed.also_needs(id, std::slice::from_ref(&all))
}

/// Whether a file of which something is to be read may not be opened.
fn refuses(sealed: &Sealed, id: FileId) -> bool {
    sealed
        .open_to_read(id)
        .is_err_and(|error| is_refusal(&error))
}

/// Whether the source says no rather than being broken: trying again will not help.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Whether a file that could not be read is left out from now on, so that it does not keep all others from being backed up: at once
/// if it may not be read. Whatever else the file itself is to blame for, trying `again` may help once, and then not any more.
pub(crate) fn is_to_be_left_out(error: &io::Error, again: bool) -> bool {
    is_refusal(error) || (again && epoch::refusal(error).is_some())
}

/// What is to be read of one file, and how it is to be cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ContentPlan {
    /// The file.
    pub(crate) id: FileId,
    /// Its size at the seal in bytes.
    pub(crate) size: u64,
    /// Cut by content (new or rewritten) rather than at fixed offsets.
    pub(crate) by_content: bool,
    /// Nothing that the parent commit held of it counts any more.
    pub(crate) reset: bool,
    /// The parent commit, or a copy made ahead, has something beyond the size.
    pub(crate) cut_off: bool,
    /// What to read, sorted, disjoint, within the size.
    pub(crate) ranges: Vec<Range<u64>>,
    /// Whether something lies beneath, so that holes must be said and not merely left out.
    pub(crate) covers: bool,
    /// Uses less of the disk than its size says.
    pub(crate) sparse: bool,
}

/// Decides what to read of a file that the parent commit knew as `old` and of which copies made ahead, if it `has_ahead`
/// any, hold data up to `ahead_end`. `None` if nothing of its contents changed.
pub(crate) fn plan(
    touched: &Touched,
    old: Option<&Inode>,
    ahead_end: u64,
    has_ahead: bool,
) -> Option<ContentPlan> {
    let stat = &touched.attributes.as_ref()?.stat;
    if stat.kind != Kind::File {
        return None;
    }
    let ranges = clip(&touched.dirty, 0..stat.size);
    let whole = ranges.len() == 1 && touched.is_new_up_to(stat.size);
    let old_end = old.map_or(0, |inode| inode.size);
    let plan = ContentPlan {
        id: touched.node.id,
        size: stat.size,
        by_content: touched.fresh || old.is_none_or(|inode| whole && !inode.in_place),
        reset: touched.fresh && old_end > 0,
        cut_off: old_end.max(ahead_end) > stat.size,
        ranges,
        covers: (old_end > 0 && !touched.fresh) || has_ahead,
        sparse: stat.blocks.saturating_mul(512).saturating_add(SPARSE_SLACK) < stat.size,
    };
    let nothing = plan.ranges.is_empty() && !plan.reset && !plan.cut_off && !has_ahead;
    (!nothing).then_some(plan)
}

/// Where the bytes of one file come from.
pub(crate) trait Reader {
    /// Fills `buffer`, at most [`READ_LEN`], with the bytes from `offset` on; says how many, fewer only where the file ends.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error>;
    /// Where data may lie at or after the beginning of `range`; its end if there is none in it. The hole before that
    /// need not be read.
    fn skip_hole(&self, range: Range<u64>) -> Result<u64, Error>;
}

/// Reads a sealed file.
pub(crate) struct SealedReader<'a> {
    /// The epoch.
    pub(crate) sealed: &'a Sealed,
    /// The file.
    pub(crate) id: FileId,
}

impl Reader for SealedReader<'_> {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        failpoint::reach(Point::Capture);
        let range = offset..offset + buffer.len() as u64;
        let bytes = self.sealed.take(self.id, range)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn skip_hole(&self, range: Range<u64>) -> Result<u64, Error> {
        Ok(self.sealed.skip_hole(self.id, range)?)
    }
}

/// Reads a file of the open epoch.
pub(crate) struct AheadReader<'a> {
    /// What may be copied.
    pub(crate) copy: &'a CopyAhead,
    /// Between two pieces.
    pub(crate) rest: &'a Rest<'a>,
}

impl AheadReader<'_> {
    fn failed(&self, source: io::Error) -> Error {
        let id = self.copy.inode.node.id;
        Error::Source { id, source }
    }
}

impl Reader for AheadReader<'_> {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        self.rest.take();
        let read = self.copy.read(buffer, offset);
        read.map_err(|source| self.failed(source))
    }

    fn skip_hole(&self, range: Range<u64>) -> Result<u64, Error> {
        let data = self.copy.data_ranges(range.clone());
        let data = data.map_err(|source| self.failed(source))?;
        Ok(data
            .first()
            .map_or(range.end, |first| first.start.max(range.start)))
    }
}

#[cfg(test)]
mod tests;
