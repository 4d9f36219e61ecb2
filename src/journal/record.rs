//! Records as bytes, and what the process remembers of them so that most need not be looked up.

use std::collections::{HashMap, HashSet};

use crate::id::{EpochNo, FileId};
use crate::journal::{ANY_FILE, Durability, LogicalBlock, WHOLE_FILE};

/// Records remembered in memory, about 30 bytes each. Beyond that all are written back and looked up in sled again.
const NOTED_MAX: usize = 512 * 1024;

/// Records on disk, about 100 MiB. With more of them one says that any file may have been touched, and takes their place.
const RECORDS_MAX: usize = 1 << 20;

/// The record that takes the place of all others.
pub(super) const ANY: Key = Key {
    id: ANY_FILE,
    block: WHOLE_FILE,
};

/// What a record is about. Sorted by file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) id: FileId,
    pub(super) block: LogicalBlock,
}

/// When it was made: the life of the journal, and the epoch within that life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Value {
    pub(super) life: u64,
    pub(super) epoch: EpochNo,
}

impl Key {
    /// Length in bytes. Other entries of the database have longer keys.
    const LEN: usize = 12;

    pub(super) fn bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.id.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.block.to_be_bytes());
        bytes
    }

    /// `None` if this is not a record's key.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (id, block) = bytes.split_first_chunk()?;
        let block = block.try_into().ok()?;
        Some(Self {
            id: FileId(u64::from_be_bytes(*id)),
            block: LogicalBlock::from_be_bytes(block),
        })
    }
}

impl Value {
    pub(super) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.life.to_le_bytes());
        bytes[8..].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes
    }

    /// `None` if this is not a record's value.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (life, epoch) = bytes.split_first_chunk()?;
        let epoch = epoch.try_into().ok()?;
        Some(Self {
            life: u64::from_le_bytes(*life),
            epoch: EpochNo(u64::from_le_bytes(epoch)),
        })
    }
}

/// What the process remembers: the newest epoch of records, and which files have some that are not durable.
pub(super) struct Noted {
    life: u64,
    newest: HashMap<Key, EpochNo>,
    owed: HashSet<FileId>,
    /// Owed when the durable write that is now under way began.
    syncing: HashSet<FileId>,
    /// Records that are in sled's memory alone, each with the number of flushes that had begun before it was made.
    unwritten: HashMap<Key, u64>,
    flushes: u64,
    highest: EpochNo,
    closed: bool,
    /// Records on disk.
    count: usize,
    pub(super) count_max: usize,
    /// Any file may have been touched in an epoch up to this one, says a record on disk.
    any: Option<EpochNo>,
}

impl Noted {
    pub(super) fn new(life: u64) -> Self {
        Self {
            life,
            newest: HashMap::new(),
            owed: HashSet::new(),
            syncing: HashSet::new(),
            unwritten: HashMap::new(),
            flushes: 0,
            highest: EpochNo(0),
            closed: false,
            count: 0,
            count_max: RECORDS_MAX,
            any: None,
        }
    }

    /// A record of an earlier life: known, and older than every epoch of this one.
    pub(super) fn adopt(&mut self, key: Key) {
        self.count += 1;
        if key == ANY {
            self.any = Some(EpochNo(0));
        }
        if !self.is_full() {
            self.newest.insert(key, EpochNo(0));
        }
    }

    /// Whether a record was made by an earlier life, whatever has been noted of the same since.
    pub(super) fn is_of_earlier_life(&self, value: Value) -> bool {
        value.life != self.life
    }

    /// Raises a known record to `epoch`; false if it is not known here.
    pub(super) fn touch(&mut self, key: Key, epoch: EpochNo) -> bool {
        self.highest = self.highest.max(epoch);
        let known = self.newest.get_mut(&key);
        known.map(|newest| *newest = epoch.max(*newest)).is_some()
    }

    /// Whether a record of everything says that already.
    pub(super) fn is_covered(&self, epoch: EpochNo) -> bool {
        self.any.is_some_and(|upto| epoch <= upto)
    }

    /// The epoch up to which any file may have been touched.
    pub(super) fn any(&self) -> Option<EpochNo> {
        self.any
    }

    /// Whether no more records should be written.
    pub(super) fn is_crowded(&self) -> bool {
        self.count >= self.count_max
    }

    /// A record says that any file may have been touched up to `epoch`.
    pub(super) fn cover(&mut self, epoch: EpochNo, new: bool) {
        self.any = Some(epoch);
        self.insert(ANY, epoch, new);
        self.owed.insert(ANY.id);
    }

    pub(super) fn is_full(&self) -> bool {
        self.newest.len() >= NOTED_MAX
    }

    pub(super) fn value(&self, epoch: EpochNo) -> Value {
        Value {
            life: self.life,
            epoch,
        }
    }

    /// Forgets what is remembered; the batch brings sled up to date with it first.
    pub(super) fn write_back(&mut self) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, epoch) in self.newest.drain() {
            let value = Value {
                life: self.life,
                epoch,
            };
            batch.insert(&key.bytes()[..], &value.bytes()[..]);
        }
        batch
    }

    /// Remembers a record that stands in sled; `new` if it was not there before.
    pub(super) fn insert(&mut self, key: Key, epoch: EpochNo, new: bool) {
        self.newest.insert(key, epoch);
        if new {
            self.count += 1;
            self.owed.insert(key.id);
            self.unwritten.insert(key, self.flushes);
        }
    }

    /// What a record of this life would survive now. Whoever relies on more must see to it himself, also where somebody else has
    /// made the record: that one's flush may be still under way.
    pub(super) fn durability(&self, key: Key) -> Durability {
        match (self.unwritten.contains_key(&key), self.owes(key.id)) {
            (true, _) => Durability::Memory,
            (false, true) => Durability::Kernel,
            (false, false) => Durability::Disk,
        }
    }

    /// A flush of sled begins. Its number is to be given to [`Self::end_flush`] when it has succeeded.
    pub(super) fn begin_flush(&mut self) -> u64 {
        let number = self.flushes;
        self.flushes += 1;
        number
    }

    /// What was there when that flush began is with the kernel now.
    pub(super) fn end_flush(&mut self, number: u64) {
        self.unwritten.retain(|_, made| *made > number);
    }

    /// A record is taken off the disk.
    pub(super) fn remove(&mut self, key: Key) {
        self.newest.remove(&key);
        self.unwritten.remove(&key);
        self.count = self.count.saturating_sub(1);
        if key == ANY {
            self.any = None;
        }
    }

    /// Whether memory holds a record's newest epoch.
    pub(super) fn knows(&self, key: Key) -> bool {
        self.newest.contains_key(&key)
    }

    /// The newest epoch in which a record was made or touched; `value` is what sled says.
    pub(super) fn newest(&self, key: Key, value: Value) -> EpochNo {
        let stored = if value.life == self.life {
            value.epoch
        } else {
            EpochNo(0)
        };
        self.newest.get(&key).copied().unwrap_or(stored)
    }

    pub(super) fn owes(&self, id: FileId) -> bool {
        let owed = |id| self.owed.contains(id) || self.syncing.contains(id);
        owed(&id) || owed(&ANY.id)
    }

    pub(super) fn owes_any(&self) -> bool {
        !self.owed.is_empty() || !self.syncing.is_empty()
    }

    pub(super) fn begin_sync(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        self.syncing.extend(owed);
    }

    pub(super) fn end_sync(&mut self) {
        self.syncing.clear();
    }

    pub(super) fn highest(&self) -> EpochNo {
        self.highest
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}
