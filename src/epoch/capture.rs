//! The flusher's side of a sealed epoch: what changed, and the bytes and attributes as they stood at the seal.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::epoch::changes::{ChangeSet, Record, Stage};
use crate::epoch::need::Resolved;
use crate::epoch::origin::Contents;
use crate::epoch::pages::{PAGE_LEN, Run, bytes_of, coalesce, pages_touched, subtract};
use crate::epoch::preserve::{read_attributes, read_whole};
use crate::epoch::seal::parity;
use crate::epoch::{Attributes, Drops, Epochs};
use crate::format::entry::NameEntry;
use crate::id::{EpochNo, FileId};
use crate::source::Node;

/// An inode that is not free within this is taken for changed when clean ranges of it are asked for.
const PLAN_PATIENCE: Duration = Duration::from_millis(20);

/// A sealed epoch: what the flusher captures from. Dropping it unfinished folds it back into the open one.
///
/// All methods may be called from several threads at once.
pub struct Sealed {
    epochs: Arc<Epochs>,
    epoch: EpochNo,
    exact: bool,
    drops: Drops,
}

/// The epoch was folded into the open one: stop capturing, nothing of it is needed any more.
#[derive(Debug)]
pub struct Folded;

/// Why capturing stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Folded into the next epoch.
    #[error("epoch was folded into the next")]
    Folded,
    /// The source could not be read.
    #[error("read {id}: {source}")]
    Io {
        /// which
        id: FileId,
        /// why
        source: io::Error,
    },
}

/// What a sealed epoch says of one inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedInode {
    /// Its node.
    pub node: Node,
    /// Created, or its contents replaced, in this epoch: cut by content.
    pub fresh: bool,
    /// Dirty ranges in order, page-rounded, may reach beyond the size: what lies there is gone.
    pub dirty: Vec<Range<u64>>,
}

/// One piece of [`Sealed::take`]'s work.
struct Taking {
    pieces: Vec<(u64, Bytes)>,
    /// Pages that were not preserved, so that the source still has them.
    unchanged: Vec<Run>,
    /// Whether all of those are needed. The rest is right only if the inode was not changed since.
    needed: bool,
    kept: Option<Arc<dyn Contents>>,
}

impl Sealed {
    pub(super) fn new(epochs: Arc<Epochs>, epoch: EpochNo, exact: bool, drops: Drops) -> Self {
        Self {
            epochs,
            epoch,
            exact,
            drops,
        }
    }

    /// Whether it holds all that happened in it. If not, only an incomplete commit may be made of it.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// What must be the same of a copy made ahead for it to be laid under this epoch.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Whether a file has been changed while a scan is under way that has not looked at it yet: then nothing is known of what
    /// has not been changed, and the file must stay as the last commit has it. Never true of what was made in this epoch.
    pub fn is_doubted(&self, id: FileId) -> bool {
        let scan = self.epochs.scan.lock();
        let Some(scan) = &*scan else { return false };
        if scan.seen.contains(id) || self.set().seen().contains(id) {
            return false;
        }
        let made = |record: &mut Record| record.created || record.fresh;
        self.set().with(id, made) == Some(false)
    }

    /// Its number.
    pub fn epoch(&self) -> EpochNo {
        self.epoch
    }

    /// Whether a writer has given the epoch up meanwhile.
    pub fn is_folded(&self) -> bool {
        !self.set().is(self.epoch, Stage::Sealed)
    }

    /// Every touched inode, in order of id.
    #[cfg(test)]
    pub(crate) fn inodes(&self) -> Vec<SealedInode> {
        let mut inodes = Vec::new();
        for shard in self.set().shards() {
            inodes.extend(shard.inodes.values().map(|record| sealed_inode(record)));
        }
        inodes.sort_unstable_by_key(|inode| inode.node.id);
        inodes
    }

    /// The numbers of every touched inode, in order. One after another through [`Self::inode`], a million of them need little memory.
    pub fn ids(&self) -> Vec<FileId> {
        let mut ids = Vec::new();
        for shard in self.set().shards() {
            ids.extend(shard.inodes.keys());
        }
        ids.sort_unstable();
        ids
    }

    /// What the epoch says of one inode; `None` if it did not touch it.
    pub fn inode(&self, id: FileId) -> Option<SealedInode> {
        self.set().with(id, |record| sealed_inode(record))
    }

    /// Every changed name: (directory, name, what it points to now; `None` if removed), in order.
    pub fn names(&self) -> Vec<(FileId, Vec<u8>, Option<NameEntry>)> {
        let mut names = Vec::new();
        for shard in self.set().shards() {
            for (&dir, within) in &shard.names {
                let within = within.iter();
                names.extend(within.map(|(name, record)| (dir, name.to_vec(), record.entry)));
            }
        }
        names.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        names
    }

    /// Attributes as at the seal: preserved by a writer, or read now under the inode's lock. `None` if the inode was gone
    /// already at the seal (it has no name in the source any more), or if the epoch did not touch it.
    pub fn attributes(&self, id: FileId) -> Result<Option<Attributes>, CaptureError> {
        let Some(node) = self.set().with(id, |record| record.node.clone()) else {
            return self.unfolded(None);
        };
        if let Some(kept) = self.kept_attributes(id) {
            return self.unfolded(kept);
        }
        let inode = self.epochs.inodes.get(&node);
        let _lock = inode.unchanged();
        self.read_attributes(&node)
    }

    /// The bytes of `range` (at most 1 MiB) exactly as at the seal; shorter where the file ended. They are no longer needed
    /// afterwards: what is not whole pages, or not up to the end of the file, is rounded inwards. Ranges that the
    /// epoch did not need can be taken only while the file has not been changed since.
    pub fn take(&self, id: FileId, range: Range<u64>) -> Result<Bytes, CaptureError> {
        let failed = |source| CaptureError::Io { id, source };
        let Some(node) = self.set().with(id, |record| record.node.clone()) else {
            let unknown = io::Error::new(io::ErrorKind::NotFound, "not in this epoch");
            return self.unfolded(()).and(Err(failed(unknown)));
        };
        let inode = self.epochs.inodes.get(&node);
        let _lock = inode.unchanged();
        let size = self.size_at_seal(&node)?;
        let end = range.end.min(size);
        if range.start >= end {
            self.taken(id, &range, size);
            return self.unfolded(Bytes::new());
        }
        let within = range.start..end;
        let Some(taking) = self.set().with(id, |record| Taking::plan(record, &within)) else {
            return Err(CaptureError::Folded);
        };
        if !taking.needed && self.epochs.set(EpochNo(self.epoch.0 + 1)).has(id) {
            let changed = io::Error::other("taken twice, or not needed and changed since");
            return self.unfolded(()).and(Err(failed(changed)));
        }
        let bytes = taking.read(&within, || match &taking.kept {
            Some(kept) => Ok(Arc::clone(kept)),
            None => self.epochs.readers.get(&*self.epochs.origin, &node),
        });
        // A folded epoch is not preserved any more, so these may be later bytes, or none.
        let bytes = self.unfolded(bytes)?.map_err(failed)?;
        self.taken(id, &range, size);
        Ok(bytes)
    }

    /// Where, at or after `range.start`, the file may have data as at the seal; `range.end` if it has none in `range`. The hole
    /// before that reads as zeros and is no longer needed.
    pub fn skip_hole(&self, id: FileId, range: Range<u64>) -> Result<u64, CaptureError> {
        let Some(node) = self.set().with(id, |record| record.node.clone()) else {
            return self.unfolded(range.start);
        };
        let inode = self.epochs.inodes.get(&node);
        let _lock = inode.unchanged();
        let size = self.size_at_seal(&node)?;
        let within = range.start..range.end.min(size);
        if within.is_empty() {
            return self.unfolded(range.end);
        }
        let kept = self.set().with(id, |record| record.kept()).flatten();
        let reader = kept.map_or_else(|| self.epochs.readers.get(&*self.epochs.origin, &node), Ok);
        let data = reader.and_then(|reader| reader.data_ranges(within.clone()));
        let data = self
            .unfolded(data)?
            .map_err(|source| CaptureError::Io { id, source })?;
        // What was preserved was there at the seal, whatever has become of it.
        let piece = self
            .set()
            .with(id, |record| record.first_piece(&within))
            .flatten();
        let first = data.first().map_or(within.end, |stretch| stretch.start);
        let first = first.min(piece.unwrap_or(first));
        let next = if first == within.end {
            range.end
        } else {
            first / PAGE_LEN * PAGE_LEN
        };
        let next = next.max(range.start);
        self.taken(id, &(range.start..next), size);
        self.unfolded(next)
    }

    /// Opens the inode for reading, if it is not open already: says why that cannot be, now.
    pub fn open_to_read(&self, id: FileId) -> io::Result<()> {
        let found = self
            .set()
            .with(id, |record| (record.node.clone(), record.kept()));
        match found.ok_or(io::ErrorKind::NotFound)? {
            (_, Some(_open)) => Ok(()),
            (node, None) => self.epochs.origin.open(&node).map(drop),
        }
    }

    /// Adds clean ranges to what is captured, for consolidation; false if the inode has already been changed again, or is
    /// about to be.
    pub fn also_needs(&self, id: FileId, ranges: &[Range<u64>]) -> bool {
        let Some(node) = self.set().with(id, |record| record.node.clone()) else {
            return false;
        };
        let inode = self.epochs.inodes.get(&node);
        // A writer that waits for the flusher has lent the lock, but not for this: then the inode is about to change.
        let Some(_lock) = inode.exclusive_within(PLAN_PATIENCE) else {
            return false;
        };
        if self.is_folded() || self.epochs.set(EpochNo(self.epoch.0 + 1)).has(id) {
            return false;
        }
        let set = self.set();
        let plan = |record: &mut Record| {
            for range in ranges {
                record.plan(&pages_touched(range), set.detail());
            }
        };
        set.with(id, plan).is_some()
    }

    /// Everything is captured: what was preserved is freed and the next seal may come. Fails if a writer has given the epoch up
    /// meanwhile: then what was captured must be thrown away. After success it can no longer be folded.
    pub fn finish(self) -> Result<(), Folded> {
        self.finish_without(&BTreeSet::new())
    }

    /// The same, but for some inodes that were left out: they, and the names given to them, go on into the open epoch.
    pub fn finish_without(self, left_out: &BTreeSet<FileId>) -> Result<(), Folded> {
        let set = self.set();
        // The stage in between keeps everybody away until the set is empty.
        if !set.advance(self.epoch, Stage::Sealed, Stage::Folded) {
            return Err(Folded);
        }
        let open = self.epochs.set(EpochNo(self.epoch.0 + 1));
        let left = left_out.iter().copied();
        let doubted: BTreeSet<FileId> = left.filter(|id| self.is_doubted(*id)).collect();
        let mut put_off = 0;
        self.epochs.hand_on(set, open, |shard| {
            if !left_out.is_empty() {
                let mut left = shard.only(left_out);
                let before = open.memory();
                open.absorb(left.take(|id| doubted.contains(&id)));
                put_off += open.memory().saturating_sub(before);
                open.absorb(left);
            }
        });
        self.epochs.put_off.store(put_off, Ordering::Relaxed);
        self.epochs.keep_seen(set);
        self.epochs.readers.clear();
        self.epochs.tally.folds_in_a_row.store(0, Ordering::SeqCst);
        set.rest();
        self.epochs.buffer.nudge();
        Ok(())
    }

    fn set(&self) -> &ChangeSet {
        &self.epochs.sets[parity(self.epoch)]
    }

    /// `found`, unless the epoch was folded by now and it may be wrong.
    fn unfolded<T>(&self, found: T) -> Result<T, CaptureError> {
        if self.is_folded() {
            return Err(CaptureError::Folded);
        }
        Ok(found)
    }

    /// What a writer has read, and gone inodes; `None` if they are to be read.
    fn kept_attributes(&self, id: FileId) -> Option<Option<Attributes>> {
        let look = |record: &mut Record| match &record.need.attributes {
            Resolved::Kept(attributes) => Some(Some(Attributes::clone(attributes))),
            Resolved::Gone => Some(None),
            Resolved::No | Resolved::Taken { .. } | Resolved::Refused(_) => None,
        };
        self.set().with(id, look).flatten()
    }

    /// The caller holds the inode's lock, so no writer turns it over meanwhile.
    fn read_attributes(&self, node: &Node) -> Result<Option<Attributes>, CaptureError> {
        self.unless_refused(node.id)?;
        if let Some(kept) = self.kept_attributes(node.id) {
            return self.unfolded(kept);
        }
        let is_file = self.set().with(node.id, |record| record.is_file) == Some(true);
        let found = read_attributes(&*self.epochs.origin, node, is_file);
        let id = node.id;
        let found = self
            .unfolded(found)?
            .map_err(|source| CaptureError::Io { id, source })?;
        let resolved = match &found {
            Some(attributes) => Resolved::Taken {
                size: attributes.stat.size,
            },
            None => Resolved::Gone,
        };
        self.set()
            .with(id, |record| record.need.attributes = resolved);
        self.epochs.tally.taken.fetch_add(1, Ordering::Relaxed);
        Ok(found)
    }

    /// Fails if the source did not let a writer read what this epoch needed of an inode.
    fn unless_refused(&self, id: FileId) -> Result<(), CaptureError> {
        let look = |record: &mut Record| match record.need.attributes {
            Resolved::Refused(errno) => Some(io::Error::from_raw_os_error(errno)),
            _ => None,
        };
        match self.set().with(id, look).flatten() {
            Some(source) => Err(CaptureError::Io { id, source }),
            None => Ok(()),
        }
    }

    /// Asked for before any byte: an inode that was refused is found out here.
    fn size_at_seal(&self, node: &Node) -> Result<u64, CaptureError> {
        self.unless_refused(node.id)?;
        if let Some(size) = self
            .set()
            .with(node.id, |record| record.size_at_seal())
            .flatten()
        {
            return Ok(size);
        }
        Ok(self
            .read_attributes(node)?
            .map_or(0, |found| found.stat.size))
    }

    /// Notes that these bytes are captured, of a file of `size` bytes at the seal.
    fn taken(&self, id: FileId, range: &Range<u64>, size: u64) {
        let to_end = range.end >= size;
        let end = if to_end {
            range.end.div_ceil(PAGE_LEN)
        } else {
            range.end / PAGE_LEN
        };
        let run = range.start.div_ceil(PAGE_LEN)..end;
        if run.start < run.end {
            let set = self.set();
            set.with(id, |record| record.taken(&run, set.detail()));
            self.epochs.tally.taken.fetch_add(1, Ordering::Relaxed);
            self.epochs.buffer.nudge();
        }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.epochs.flag_folded(self.epoch);
        if self.set().is(self.epoch, Stage::Folded) {
            self.epochs.merge_folded(self.epoch);
        }
    }
}

impl Taking {
    /// What there is to do for `range`, which lies within the file as it was at the seal.
    fn plan(record: &mut Record, range: &Range<u64>) -> Self {
        let run = pages_touched(range);
        let pieces = record.pieces_in(range);
        let whole =
            |piece: &(u64, Bytes)| pages_touched(&(piece.0..piece.0 + piece.1.len() as u64));
        let preserved = coalesce(pieces.iter().map(whole).collect());
        let unchanged = without(&run, &preserved);
        let wanted = unchanged
            .iter()
            .all(|run| record.needed(run) == [run.clone()]);
        Self {
            pieces,
            unchanged,
            needed: wanted,
            kept: record.kept(),
        }
    }

    fn read(
        &self,
        range: &Range<u64>,
        reader: impl FnOnce() -> io::Result<Arc<dyn Contents>>,
    ) -> io::Result<Bytes> {
        let mut buffer = vec![0; (range.end - range.start) as usize];
        let place = |at: u64| (at - range.start) as usize;
        if !self.unchanged.is_empty() {
            let reader = reader()?;
            for run in &self.unchanged {
                let bytes = bytes_of(run);
                let (start, end) = (bytes.start.max(range.start), bytes.end.min(range.end));
                read_whole(&*reader, &mut buffer[place(start)..place(end)], start)?;
            }
        }
        for (at, piece) in &self.pieces {
            buffer[place(*at)..][..piece.len()].copy_from_slice(piece);
        }
        Ok(buffer.into())
    }
}

/// `run` less some sorted runs.
fn without(run: &Run, gone: &[Run]) -> Vec<Run> {
    let mut set = crate::epoch::pages::Pages::default();
    for gone in gone {
        set.insert(gone, crate::epoch::pages::Detail::Pages);
    }
    subtract(vec![run.clone()], &set)
}

fn sealed_inode(record: &Record) -> SealedInode {
    SealedInode {
        node: record.node.clone(),
        fresh: record.fresh,
        dirty: record.dirty.runs().iter().map(bytes_of).collect(),
    }
}
