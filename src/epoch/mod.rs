//! Epochs: every change belongs to exactly one, and a seal ends one without anybody waiting.
//!
//! A request locks the inodes that it touches (in order of file id), *then* pins the current epoch. That order makes a
//! seal a consistent cut: if B finished before A was issued, B's epoch is not later than A's.
//! The front (`mount`) and `reconcile` change things only through a guard made here; the flusher captures from what is sealed.
//!
//! ```text
//! guard ─► changes (open) ──seal──► changes (sealed) ──capture──► flusher
//!   └─ preserve: old bytes of the sealed epoch ──┘  └──fold──► changes (open)
//! ```
//!
//! Lock order: inode locks by id, pin, one shard of a change set, buffer. Nobody holds two shards. No notification, spool or
//! store call happens under any of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::id::EpochNo;
use crate::journal::Journal;
use crate::metrics::{Durations, Spread};
use crate::source::{Node, Source, Stat};

mod seal;

mod inodes;

mod guard;

mod pages;

mod changes;

mod intent;

mod need;

mod preserve;

mod buffer;

mod readers;

mod fold;

mod patience;

mod delay;

mod scan;

mod owed;

mod relief;

mod activity;

mod ahead;

mod alarm;

mod capture;

mod origin;

#[cfg(test)]
mod tests;

pub use activity::{Activity, Hurry};
pub use ahead::CopyAhead;
pub use capture::{CaptureError, Folded, Sealed, SealedInode};
pub use guard::Guard;
pub use inodes::LiveInode;
pub use intent::written_by_cut;
pub use owed::Debt;
pub use preserve::refusal;
pub use relief::Drops;

use alarm::Alarm;
use buffer::Buffer;
use changes::{ChangeSet, Stage};
use inodes::InodeTable;
use origin::Origin;
use owed::Owed;
use readers::Readers;
use scan::Scan;
use seal::{Pins, parity};

/// How large things may become.
#[derive(Clone, Debug)]
pub struct Options {
    /// Preserved bytes held for the flusher; beyond it a writer waits at most 100 ms, then the epoch is folded.
    pub preserve_bytes: usize,
    /// Unlinked files kept open for the sealed epoch.
    pub kept_files: usize,
    /// What is remembered of the open epoch's changes; beyond it they are forgotten and everything is scanned.
    pub changes_bytes: u64,
}

/// The live side's shared state.
pub struct Epochs {
    /// Itself, for what outlives a borrow.
    me: Weak<Self>,
    pins: Pins,
    /// Of requests that may give names, not by epoch but by the end of a scan that they may concern ([`Self::take_moved`]).
    moves: Pins,
    /// The open set and the sealed one (or an idle one), by the parity of their epochs.
    sets: [ChangeSet; 2],
    inodes: InodeTable,
    buffer: Arc<Buffer>,
    descriptors: Arc<Buffer>,
    readers: Readers,
    alarm: Alarm,
    tally: Tally,
    activity: Activity,
    /// Held while the epoch number is about to change, or must not.
    sealing: Mutex<()>,
    /// Copies ahead under way; no seal while there are any.
    copies: AtomicU64,
    /// The scan under way; `None` while there is none.
    scan: Mutex<Option<Scan>>,
    owed: Owed,
    changes_bytes: u64,
    /// How often the open change set has been dropped.
    drops: AtomicU64,
    /// The same at the last seal.
    sealed_drops: Mutex<Drops>,
    /// About how many bytes of memory the part of the open set takes that came back from the last sealed one, because a scan had
    /// not looked at it.
    put_off: AtomicU64,
    origin: Arc<dyn Origin>,
    journal: Arc<Journal>,
}

#[derive(Default)]
struct Tally {
    folds: AtomicU64,
    folds_in_a_row: AtomicU64,
    preserved: AtomicU64,
    /// How often the flusher has captured something: whether it gets on.
    taken: AtomicU64,
    /// Of requests for an inode that another one, or the flusher, has in hand.
    waits: Durations,
    /// Of requests that preserved, or had to wait until they could.
    preserving: Durations,
}

/// Attributes as they stood at the seal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// stat
    pub stat: Stat,
    /// Xattrs by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Target of a symlink.
    pub target: Vec<u8>,
}

/// How much an epoch holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChangeSize {
    /// Dirty bytes.
    pub bytes: u64,
    /// Touched inodes.
    pub inodes: u64,
    /// Changed names.
    pub names: u64,
}

impl ChangeSize {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What `status` and metrics show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Epochs folded into the next.
    pub folds: u64,
    /// Bytes that writers preserved.
    pub preserved_bytes: u64,
    /// Waits of requests for older ones on the same inode, or for the flusher that was reading it; requests that found it free
    /// are not counted.
    pub waits: Spread,
    /// Delays of requests that had to preserve something: reading it, and waiting for room for it.
    pub preserving: Spread,
}

impl Epochs {
    /// Starts with epoch 1 open and nothing sealed.
    pub fn new(source: Arc<Source>, journal: Arc<Journal>, options: Options) -> Arc<Self> {
        Self::with_origin(Arc::new(source), journal, &options)
    }

    pub(crate) fn with_origin(
        origin: Arc<dyn Origin>,
        journal: Arc<Journal>,
        options: &Options,
    ) -> Arc<Self> {
        let sets = [ChangeSet::idle(), ChangeSet::idle()];
        let pins = Pins::new();
        sets[parity(pins.current())].open(pins.current());
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            pins,
            moves: Pins::new(),
            sets,
            inodes: InodeTable::new(),
            buffer: Buffer::new(options.preserve_bytes),
            descriptors: Buffer::new(options.kept_files),
            readers: Readers::default(),
            alarm: Alarm::new(),
            tally: Tally::default(),
            activity: Activity::default(),
            sealing: Mutex::new(()),
            copies: AtomicU64::new(0),
            scan: Mutex::new(None),
            owed: Owed::default(),
            changes_bytes: options.changes_bytes,
            drops: AtomicU64::new(0),
            sealed_drops: Mutex::default(),
            put_off: AtomicU64::new(0),
            origin,
            journal,
        })
    }

    /// The live inode of a node; the same one for all who ask while anybody holds it. What the epochs know of an inode does
    /// not depend on anybody holding it.
    pub fn inode(&self, node: &Node) -> Arc<LiveInode> {
        self.inodes.get(node)
    }

    /// What programs are doing, and whether anybody waits.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// The epoch that is open now.
    pub fn current(&self) -> EpochNo {
        self.pins.current()
    }

    /// Dirty bytes of the open epoch (page-rounded) and changed inodes and names in it.
    pub fn open_size(&self) -> ChangeSize {
        self.sets[parity(self.current())].size()
    }

    /// Sleeps until the open epoch has changes and at least `bytes` dirty ones, [`Self::wake`] is called (before or during the
    /// sleep), or time is up; returns what the open epoch holds then.
    pub fn wait_dirty(&self, bytes: u64, timeout: Duration) -> ChangeSize {
        self.alarm.sleep(bytes, timeout, || {
            let size = self.open_size();
            !size.is_empty() && size.bytes >= bytes
        });
        self.open_size()
    }

    /// Ends the sleep of [`Self::wait_dirty`]: there is a command, or the end is near.
    pub fn wake(&self) {
        self.alarm.wake();
    }

    /// Ends the open epoch. `None` if it has no changes, while the epoch before is not finished (or folded and dropped), and
    /// while a copy ahead is alive. Waits, off every request's path, until the requests of the old epoch are done.
    pub fn seal(&self) -> Option<Sealed> {
        let epoch = self.begin_seal()?;
        Some(self.end_seal(epoch))
    }

    /// The instant of the seal: from here on requests belong to the next epoch.
    fn begin_seal(&self) -> Option<EpochNo> {
        let _sealing = self.sealing.lock();
        let epoch = self.current();
        let next = EpochNo(epoch.0 + 1);
        let (open, free) = (self.set(epoch), self.set(next));
        let copying = self.copies.load(Ordering::SeqCst) > 0;
        if copying || !free.is_idle() || open.size().is_empty() {
            return None;
        }
        free.open(next);
        let was_open = open.advance(epoch, Stage::Open, Stage::Sealed);
        debug_assert!(was_open, "the set of the current epoch is open");
        *self.sealed_drops.lock() = self.drops();
        self.pins.advance();
        Some(epoch)
    }

    /// Waits for the requests of the sealed epoch: only then is its set final.
    fn end_seal(&self, epoch: EpochNo) -> Sealed {
        self.pins.wait_drained(epoch);
        let exact = self.owed.is_exact(epoch);
        let me = self
            .me
            .upgrade()
            .expect("a method runs, so somebody holds it");
        Sealed::new(me, epoch, exact, *self.sealed_drops.lock())
    }

    /// What `status` shows.
    pub fn counters(&self) -> Counters {
        Counters {
            folds: self.tally.folds.load(Ordering::Relaxed),
            preserved_bytes: self.tally.preserved.load(Ordering::Relaxed),
            waits: self.tally.waits.spread(),
            preserving: self.tally.preserving.spread(),
        }
    }
}
