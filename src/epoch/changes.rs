//! A change set: what one epoch has changed, first open, then sealed, then finished or folded into the next.
//!
//! Sharded by file id, so that requests on different files seldom meet. A record is small: a million of them must fit
//! beside everything else. Nothing here does I/O or waits; nothing is locked while another shard or set is.

use std::collections::btree_map;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::epoch::ChangeSize;
use crate::epoch::need::Need;
use crate::epoch::pages::{Detail, PAGE_LEN, Pages, Run, pages_in};
use crate::epoch::scan::IdSet;
use crate::format::entry::NameEntry;
use crate::id::{EpochNo, FileId};
use crate::source::Node;

/// Shards of a set: more than there will be FUSE threads.
const SHARDS: usize = 64;
/// Memory of lists and bitmaps of dirty pages in one set before whole logical blocks are marked instead.
const PAGES_BYTES_MAX: u64 = 48 << 20;
/// About what a record takes, its handle and its place in a map that is three quarters full included.
const RECORD_BYTES: u64 = 256;
/// About what a name takes beside its own bytes.
const NAME_BYTES: u64 = 96;

/// Where a change set stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Stage {
    /// Empty, between two lives.
    Idle = 0,
    /// Taking changes.
    Open = 1,
    /// Being captured.
    Sealed = 2,
    /// Given up: needs nothing any more, waits to be merged into the open one.
    Folded = 3,
}

/// What one epoch has changed.
pub(crate) struct ChangeSet {
    /// Epoch and stage in one word, so that "epoch 7 is sealed" is one look.
    stage: AtomicU64,
    shards: Vec<Mutex<Shard>>,
    bytes: AtomicU64,
    inodes: AtomicU64,
    names: AtomicU64,
    /// About how many bytes of memory lists and bitmaps of pages take, and names.
    pages_memory: AtomicU64,
    names_memory: AtomicU64,
    /// Bitmaps have been given up.
    coarse: AtomicBool,
    /// What it held was dropped, so that it says nothing of what was touched before.
    forgetful: AtomicBool,
    /// What a scan has looked at in this epoch.
    seen: Mutex<IdSet>,
    /// Files with dirty data, in the order in which they became dirty: for copying ahead.
    queue: Mutex<VecDeque<FileId>>,
}

/// The records of some ids.
#[derive(Default)]
pub(crate) struct Shard {
    /// Boxed, since a table that is half empty after it has grown should be a small one.
    pub(crate) inodes: HashMap<FileId, Box<Record>>,
    pub(crate) names: HashMap<FileId, BTreeMap<Box<[u8]>, NameRecord>>,
}

impl Shard {
    /// What it says of some inodes, and of names that point to them. Such a name is said again: what it was before may stand in a
    /// commit by now.
    pub(crate) fn only(mut self, ids: &BTreeSet<FileId>) -> Self {
        let mut taken = self.take(|id| ids.contains(&id));
        for within in taken.names.values_mut() {
            within.values_mut().for_each(|name| name.born = false);
        }
        taken
    }

    /// Takes out what it says of the `wanted` inodes, and of names that point to them.
    pub(crate) fn take(&mut self, wanted: impl Fn(FileId) -> bool) -> Self {
        let inodes = self.inodes.extract_if(|id, _| wanted(*id)).collect();
        let mut names = HashMap::new();
        for (dir, within) in &mut self.names {
            let points = |name: &NameRecord| name.entry.is_some_and(|entry| wanted(entry.id));
            let taken: BTreeMap<_, _> = within.extract_if(.., |_, name| points(name)).collect();
            if !taken.is_empty() {
                names.insert(*dir, taken);
            }
        }
        Self { inodes, names }
    }
}

/// What an epoch says of one inode.
pub(crate) struct Record {
    pub(crate) node: Node,
    /// Pages changed in this epoch, less those copied ahead. Once sealed it stays as it was at the seal.
    pub(crate) dirty: Pages,
    /// Made in this epoch: no commit knows it.
    pub(crate) created: bool,
    /// Made in this epoch, or cut to nothing: to be cut by content.
    pub(crate) fresh: bool,
    /// Pages of it were marked once, so it is a regular file and nothing else.
    pub(crate) is_file: bool,
    /// A scan has marked what it found of it.
    pub(crate) found: bool,
    /// Stands in the queue for copying ahead.
    pub(crate) queued: bool,
    /// What was copied ahead, to notice files that are written again and again.
    pub(crate) ahead: Option<Box<CopiedAhead>>,
    /// What is still to be captured of it once it is sealed.
    pub(crate) need: Need,
}

/// What of a file was copied ahead in this epoch.
#[derive(Default)]
pub(crate) struct CopiedAhead {
    pub(crate) pages: Pages,
    /// Pages ever copied, and how many of them were written again.
    pub(crate) copied: u64,
    pub(crate) again: u64,
}

/// What an epoch says of one name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NameRecord {
    /// What it points to; `None` if it was removed.
    pub(crate) entry: Option<NameEntry>,
    /// It did not exist when the epoch began, so its removal leaves nothing.
    pub(crate) born: bool,
}

impl Record {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            node: node.clone(),
            dirty: Pages::default(),
            created: false,
            fresh: false,
            is_file: false,
            found: false,
            queued: false,
            ahead: None,
            need: Need::default(),
        }
    }
}

impl ChangeSet {
    /// An empty one that takes nothing yet.
    pub(crate) fn idle() -> Self {
        Self {
            stage: AtomicU64::new(Stage::Idle as u64),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            bytes: AtomicU64::new(0),
            inodes: AtomicU64::new(0),
            names: AtomicU64::new(0),
            pages_memory: AtomicU64::new(0),
            names_memory: AtomicU64::new(0),
            coarse: AtomicBool::new(false),
            forgetful: AtomicBool::new(false),
            seen: Mutex::default(),
            queue: Mutex::default(),
        }
    }

    /// Whether it holds `epoch` and that is in `stage`.
    pub(crate) fn is(&self, epoch: EpochNo, stage: Stage) -> bool {
        self.stage.load(Ordering::SeqCst) == word(epoch, stage)
    }

    /// Whether it is empty and free for the next epoch.
    pub(crate) fn is_idle(&self) -> bool {
        self.stage.load(Ordering::SeqCst) & 3 == Stage::Idle as u64
    }

    /// Begins a life.
    pub(crate) fn open(&self, epoch: EpochNo) {
        self.stage.store(word(epoch, Stage::Open), Ordering::SeqCst);
    }

    /// Moves on; false if it was not in stage `from` any more.
    pub(crate) fn advance(&self, epoch: EpochNo, from: Stage, to: Stage) -> bool {
        let (from, to) = (word(epoch, from), word(epoch, to));
        let order = Ordering::SeqCst;
        self.stage.compare_exchange(from, to, order, order).is_ok()
    }

    /// How much it holds.
    pub(crate) fn size(&self) -> ChangeSize {
        ChangeSize {
            bytes: self.bytes.load(Ordering::SeqCst),
            inodes: self.inodes.load(Ordering::SeqCst),
            names: self.names.load(Ordering::SeqCst),
        }
    }

    /// The shard of an id.
    pub(crate) fn shard(&self, id: FileId) -> MutexGuard<'_, Shard> {
        self.shards[id.0 as usize % SHARDS].lock()
    }

    /// All shards, one at a time.
    pub(crate) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(|shard| shard.lock())
    }

    /// Looks at a record; `None` if there is none.
    pub(crate) fn with<T>(&self, id: FileId, look: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.shard(id)
            .inodes
            .get_mut(&id)
            .map(|record| look(record))
    }

    /// Whether it says anything of an inode, or may have.
    pub(crate) fn has(&self, id: FileId) -> bool {
        self.is_forgetful() || self.shard(id).inodes.contains_key(&id)
    }

    /// Whether what it held was dropped.
    pub(crate) fn is_forgetful(&self) -> bool {
        self.forgetful.load(Ordering::SeqCst)
    }

    /// What a scan has looked at in this epoch.
    pub(crate) fn seen(&self) -> MutexGuard<'_, IdSet> {
        self.seen.lock()
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn memory(&self) -> u64 {
        let records = self.inodes.load(Ordering::Relaxed) * RECORD_BYTES;
        let names = self.names_memory.load(Ordering::Relaxed);
        records + names + self.pages_memory.load(Ordering::Relaxed)
    }

    /// Whether bitmaps have been given up.
    pub(crate) fn is_coarse(&self) -> bool {
        self.coarse.load(Ordering::Relaxed)
    }

    /// Gives up bitmaps for whole logical blocks, and what is known of files that are written again and again. Only while it is
    /// open, and stays so.
    pub(crate) fn coarsen(&self) {
        self.coarse.store(true, Ordering::Relaxed);
        for mut shard in self.shards() {
            for record in shard.inodes.values_mut() {
                record.ahead = None;
                let before = record.dirty.memory();
                let added = record.dirty.coarsen();
                self.bytes.fetch_add(added * PAGE_LEN, Ordering::SeqCst);
                self.weigh(before, record.dirty.memory());
            }
        }
    }

    /// Drops all that it holds. Only while it is open, and stays so.
    pub(crate) fn forget(&self) {
        self.forgetful.store(true, Ordering::SeqCst);
        for shard in &self.shards {
            let dropped = std::mem::take(&mut *shard.lock());
            self.uncount(&dropped);
        }
    }

    /// What is in a shard is not in the set any more. By its own numbers, since requests go on recording.
    fn uncount(&self, shard: &Shard) {
        for record in shard.inodes.values() {
            let bytes = pages_in(&record.dirty.runs()) * PAGE_LEN;
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
            self.weigh(record.dirty.memory(), 0);
        }
        let inodes = shard.inodes.len() as u64;
        self.inodes.fetch_sub(inodes, Ordering::SeqCst);
        for name in shard.names.values().flat_map(BTreeMap::keys) {
            self.count_name(name, -1);
        }
    }

    fn weigh(&self, before: u64, after: u64) {
        self.pages_memory
            .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// A name was added, or taken away.
    fn count_name(&self, name: &[u8], by: i64) {
        let bytes = (NAME_BYTES + name.len() as u64) as i64 * by;
        self.names.fetch_add(by as u64, Ordering::SeqCst);
        self.names_memory.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Changes a record, making it if there is none.
    pub(crate) fn edit<T>(&self, node: &Node, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut shard = self.shard(node.id);
        let record = match shard.inodes.entry(node.id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.inodes.fetch_add(1, Ordering::SeqCst);
                entry.insert(Box::new(Record::new(node)))
            }
        };
        change(record)
    }

    /// Whether nothing that the last commit has of the inode is left in it.
    pub(crate) fn is_fresh(&self, id: FileId) -> bool {
        let shard = self.shard(id);
        shard.inodes.get(&id).is_some_and(|record| record.fresh)
    }

    /// Marks pages dirty; says whether the inode was made in this epoch.
    pub(crate) fn mark(&self, node: &Node, run: &Run) -> bool {
        self.edit(node, |record| {
            self.mark_record(record, run);
            record.created
        })
    }

    /// Marks pages of a record of this set, whose shard the caller has locked.
    pub(crate) fn mark_record(&self, record: &mut Record, run: &Run) {
        if run.is_empty() {
            return;
        }
        record.is_file = true;
        if let Some(ahead) = &mut record.ahead {
            ahead.again += ahead.pages.remove(run);
        }
        let before = record.dirty.memory();
        let added = record.dirty.insert(run, self.detail());
        self.bytes.fetch_add(added * PAGE_LEN, Ordering::SeqCst);
        self.weigh(before, record.dirty.memory());
        if !record.queued {
            record.queued = true;
            self.queue.lock().push_back(record.node.id);
        }
    }

    /// Takes dirty pages off a record of this set, whose shard the caller has locked.
    pub(crate) fn unmark_record(&self, record: &mut Record, run: &Run) -> u64 {
        let before = record.dirty.memory();
        let removed = record.dirty.remove(run);
        self.bytes.fetch_sub(removed * PAGE_LEN, Ordering::SeqCst);
        self.weigh(before, record.dirty.memory());
        removed
    }

    /// Whether there is memory for more bitmaps.
    pub(crate) fn detail(&self) -> Detail {
        let much = self.pages_memory.load(Ordering::Relaxed) >= PAGES_BYTES_MAX;
        if much || self.is_coarse() {
            Detail::Blocks
        } else {
            Detail::Pages
        }
    }

    /// An inode whose last name has just gone: if it was made in this epoch, nothing of it is left to say.
    pub(crate) fn drop_if_created(&self, id: FileId) {
        let mut shard = self.shard(id);
        if let Entry::Occupied(mut entry) = shard.inodes.entry(id)
            && entry.get().created
        {
            self.unmark_record(entry.get_mut(), &(0..u64::MAX));
            entry.remove();
            self.inodes.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// What the set says of a name.
    pub(crate) fn name(&self, dir: FileId, name: &[u8]) -> Option<NameRecord> {
        self.shard(dir).names.get(&dir)?.get(name).copied()
    }

    /// Notes what a name points to now. `born`: it is known not to have existed just before.
    pub(crate) fn record_name(
        &self,
        dir: FileId,
        name: &[u8],
        entry: Option<NameEntry>,
        born: bool,
    ) {
        let mut shard = self.shard(dir);
        let names = shard.names.entry(dir).or_default();
        match names.entry(name.into()) {
            btree_map::Entry::Vacant(slot) => {
                slot.insert(NameRecord {
                    entry,
                    born: born && entry.is_some(),
                });
                self.count_name(name, 1);
            }
            btree_map::Entry::Occupied(slot) if entry.is_none() && slot.get().born => {
                slot.remove();
                self.count_name(name, -1);
            }
            btree_map::Entry::Occupied(mut slot) => slot.get_mut().entry = entry,
        }
        if names.is_empty() {
            shard.names.remove(&dir);
        }
    }

    /// The base has this name: its removal must leave a tombstone.
    pub(crate) fn not_born(&self, dir: FileId, name: &[u8]) {
        let mut shard = self.shard(dir);
        if let Some(record) = shard
            .names
            .get_mut(&dir)
            .and_then(|names| names.get_mut(name))
        {
            record.born = false;
        }
    }

    /// The next file that became dirty, and no longer stands in the queue.
    pub(crate) fn next_queued(&self) -> Option<FileId> {
        self.queue.lock().pop_front()
    }

    /// Files in the queue.
    pub(crate) fn queued(&self) -> usize {
        self.queue.lock().len()
    }

    /// Puts a file (whose record says `queued`) back at the end of the queue.
    pub(crate) fn queue_again(&self, id: FileId) {
        self.queue.lock().push_back(id);
    }

    /// Takes everything out of one shard after another and ends the life of the set.
    pub(crate) fn drain(&self, mut each: impl FnMut(Shard)) {
        for shard in &self.shards {
            let taken = std::mem::take(&mut *shard.lock());
            each(taken);
        }
        self.queue.lock().clear();
        let memory = [&self.pages_memory, &self.names_memory];
        for count in [&self.bytes, &self.inodes, &self.names]
            .into_iter()
            .chain(memory)
        {
            count.store(0, Ordering::SeqCst);
        }
        for flag in [&self.coarse, &self.forgetful] {
            flag.store(false, Ordering::SeqCst);
        }
    }

    /// Everything is drained.
    pub(crate) fn rest(&self) {
        self.stage.store(Stage::Idle as u64, Ordering::SeqCst);
    }

    /// Adds what an older, folded epoch says: this set's names win, ranges unite, attributes are to be read anew.
    pub(crate) fn absorb(&self, older: Shard) {
        for (id, old) in older.inodes {
            let mut old = *old;
            let ahead = old.ahead.take();
            self.edit(&old.node, |record| {
                debug_assert_eq!(record.node.id, id);
                record.created |= old.created;
                record.fresh |= old.fresh;
                record.is_file |= old.is_file;
                record.found |= old.found;
                if record.ahead.is_none() {
                    record.ahead = ahead;
                }
                for run in old.dirty.runs() {
                    self.mark_record(record, &run);
                }
            });
        }
        for (dir, names) in older.names {
            for (name, old) in names {
                self.absorb_name(dir, name, old);
            }
        }
    }

    fn absorb_name(&self, dir: FileId, name: Box<[u8]>, old: NameRecord) {
        let mut shard = self.shard(dir);
        let names = shard.names.entry(dir).or_default();
        match names.entry(name) {
            btree_map::Entry::Vacant(slot) => {
                self.count_name(slot.key(), 1);
                slot.insert(old);
            }
            btree_map::Entry::Occupied(mut slot) => {
                slot.get_mut().born = old.born;
                if old.born && slot.get().entry.is_none() {
                    self.count_name(slot.key(), -1);
                    slot.remove();
                }
            }
        }
        if names.is_empty() {
            shard.names.remove(&dir);
        }
    }
}

fn word(epoch: EpochNo, stage: Stage) -> u64 {
    epoch.0 << 2 | stage as u64
}
