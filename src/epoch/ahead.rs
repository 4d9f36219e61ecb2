//! Copying ahead: dirty data of the open epoch is captured and uploaded while the epoch is still open, as a running machine
//! is migrated. What changes again is captured again, and the seal takes the small rest.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use crate::epoch::changes::{ChangeSet, CopiedAhead, Record};
use crate::epoch::origin::Contents;
use crate::epoch::pages::{Detail, PAGE_LEN, Pages, Run, bytes_of, pages_in, pages_touched};
use crate::epoch::seal::parity;
use crate::epoch::{Drops, Epochs, SealedInode};
use crate::id::FileId;

/// A file whose lock is not free within this is passed over: somebody is writing to it.
const LOCK_PATIENCE: Duration = Duration::from_millis(20);
/// Pages written again after they were copied before a file may count as hot: 4 MiB.
const HOT_PAGES_MIN: u64 = 1024;
/// Copies smaller than this (1 MiB) are not remembered: doing them again costs less than remembering a million of them.
const FOLLOWED_PAGES_MIN: u64 = 256;

/// Ranges of one file of the open epoch, to be copied before the seal. While one is alive there is no seal.
///
/// Ranges that were not read when it is dropped are dirty again. What reads short is gone: the copy is then a hole up to the end of
/// the range, so that it hides what the last commit has there, even if the file grows again before the seal.
pub struct CopyAhead {
    /// What to copy.
    pub inode: SealedInode,
    epochs: Arc<Epochs>,
    drops: Drops,
    /// Present until closed.
    contents: Option<Arc<dyn Contents>>,
    /// Whether what is given back is to be copied ahead once more.
    once_more: bool,
    /// Pages not read yet.
    left: Mutex<Pages>,
}

impl Epochs {
    /// Takes dirty data of the open epoch for copying ahead, at most `bytes_max` of it from one file: the ranges are no longer
    /// dirty (a write during or after the copy marks them again, and then they are captured again). `None` if nothing is worth
    /// it: there is no dirty data, it is being written over and over, or it is of files that cannot be opened.
    pub fn copy_ahead(&self, bytes_max: u64) -> Option<CopyAhead> {
        self.copy_ahead_batch(1, bytes_max).pop()
    }

    /// The same for up to `files_max` files with at most `bytes_max` altogether, oldest change first: for many small ones.
    pub fn copy_ahead_batch(&self, files_max: usize, bytes_max: u64) -> Vec<CopyAhead> {
        let mut batch = Vec::new();
        let mut budget = bytes_max;
        // Keeps a seal from coming between the look at the number and the count of copies.
        let _sealing = self.sealing.lock();
        let set = &self.sets[parity(self.current())];
        let mut turns = set.queued();
        while batch.len() < files_max && budget >= PAGE_LEN && turns > 0 {
            turns -= 1;
            let Some(id) = set.next_queued() else { break };
            if let Some(copy) = self.take_ahead(set, id, budget) {
                budget = budget.saturating_sub(copy.bytes());
                batch.push(copy);
            }
        }
        batch
    }

    fn take_ahead(&self, set: &ChangeSet, id: FileId, bytes_max: u64) -> Option<CopyAhead> {
        let node = set.with(id, |record| {
            record.queued = false;
            (!record.is_hot() && !record.dirty.is_empty()).then(|| record.node.clone())
        })??;
        let contents = self.origin.open(&node).ok()?;
        let inode = self.inodes.get(&node);
        let Some(lock) = inode.exclusive_within(LOCK_PATIENCE) else {
            let requeue = |record: &mut Record| !std::mem::replace(&mut record.queued, true);
            if set.with(id, requeue) == Some(true) {
                set.queue_again(id);
            }
            return None;
        };
        // Nobody is between marking a page and writing it now; who comes later marks it again.
        let (ranges, fresh) = set.with(id, |record| {
            let ranges = set.take_dirty(record, bytes_max / PAGE_LEN);
            (ranges, record.fresh)
        })?;
        drop(lock);
        let mut left = Pages::default();
        for run in &ranges {
            left.insert(run, Detail::Pages);
        }
        self.copies.fetch_add(1, Ordering::SeqCst);
        Some(CopyAhead {
            inode: SealedInode {
                node,
                fresh,
                dirty: ranges.iter().map(bytes_of).collect(),
            },
            epochs: self.me.upgrade()?,
            drops: self.drops(),
            contents: Some(contents),
            once_more: false,
            left: Mutex::new(left),
        })
    }
}

impl Record {
    /// Whether copying it ahead is in vain: most of what was copied has been written again.
    fn is_hot(&self) -> bool {
        let hot =
            |ahead: &CopiedAhead| ahead.again >= HOT_PAGES_MIN && ahead.again > ahead.copied / 2;
        self.ahead.as_deref().is_some_and(hot)
    }
}

impl ChangeSet {
    /// Takes up to `pages_max` dirty pages off a record; what is left stands in the queue again.
    fn take_dirty(&self, record: &mut Record, pages_max: u64) -> Vec<Run> {
        let mut taken = Vec::new();
        let mut budget = pages_max;
        for run in record.dirty.runs() {
            let run = run.start..run.end.min(run.start.saturating_add(budget));
            budget -= run.end - run.start;
            taken.push(run);
            if budget == 0 {
                break;
            }
        }
        let count = pages_in(&taken);
        if count >= FOLLOWED_PAGES_MIN || record.ahead.is_some() {
            let ahead = record.ahead.get_or_insert_with(Box::default);
            ahead.copied += count;
            for run in &taken {
                ahead.pages.insert(run, Detail::Pages);
            }
        }
        for run in &taken {
            self.unmark_record(record, run);
        }
        if !record.dirty.is_empty() && !std::mem::replace(&mut record.queued, true) {
            self.queue_again(record.node.id);
        }
        taken
    }
}

impl CopyAhead {
    /// Fills `buffer` with the bytes from `offset` on as they are now, perhaps torn by a concurrent write, which then has marked
    /// them again. Says how many there were: fewer only where the file ends.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let range = offset..offset + buffer.len() as u64;
        let read = self.contents()?.read_at(buffer, offset)?;
        self.left.lock().remove(&pages_touched(&range));
        Ok(read)
    }

    /// The stretches of `range` that are not holes; the holes need not be read.
    pub fn data_ranges(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let data = self.contents()?.data_ranges(range.clone())?;
        let mut left = self.left.lock();
        let mut at = range.start;
        for stretch in &data {
            left.remove(&pages_within(at..stretch.start));
            at = stretch.end;
        }
        left.remove(&pages_within(at..range.end));
        Ok(data)
    }

    /// The file's size now.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.contents()?.stat()?.size)
    }

    /// Everything has been read. It can still be given back, and costs no descriptor any more.
    pub fn close(&mut self) {
        self.contents = None;
    }

    fn contents(&self) -> io::Result<&dyn Contents> {
        let closed = || io::Error::other("read after it was closed");
        self.contents.as_deref().ok_or_else(closed)
    }

    /// What must be the same of the epoch that it is laid under ([`crate::epoch::Sealed::drops`]).
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Bytes to copy, page-rounded.
    pub fn bytes(&self) -> u64 {
        self.inode
            .dirty
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// The copy failed, or is not wanted: the ranges are dirty again, and left to the seal.
    pub fn give_back(self) {
        let mut left = self.left.lock();
        for range in &self.inode.dirty {
            left.insert(&pages_touched(range), Detail::Pages);
        }
    }

    /// The file was cut while it was copied: the ranges are dirty again, and will be copied as they are then.
    pub fn give_back_for_another(mut self) {
        self.once_more = true;
        self.give_back();
    }
}

impl Drop for CopyAhead {
    fn drop(&mut self) {
        let left = std::mem::take(&mut *self.left.lock());
        // No seal has come since, so the open epoch is the one they were taken from.
        let set = &self.epochs.sets[parity(self.epochs.current())];
        if !left.is_empty() {
            // No record: the file was made and removed within the epoch.
            set.with(self.inode.node.id, |record| {
                let queued = record.queued;
                // Not queued again unless asked for: what could not be copied once is left to the seal.
                record.queued |= !self.once_more;
                for run in left.runs() {
                    set.mark_record(record, &run);
                }
                record.queued = queued || self.once_more;
            });
        }
        self.epochs.copies.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The pages that lie wholly in `range`.
fn pages_within(range: Range<u64>) -> Run {
    let (first, end) = (range.start.div_ceil(PAGE_LEN), range.end / PAGE_LEN);
    first..end.max(first)
}
