//! Guards: the right to change some inodes within one epoch. Made by the front and by reconcile, before the system call.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{RwLockReadGuard, RwLockUpgradableReadGuard, RwLockWriteGuard};

use crate::epoch::Epochs;
use crate::epoch::changes::ChangeSet;
use crate::epoch::delay::Delay;
use crate::epoch::inodes::LiveInode;
use crate::epoch::intent::written_by_cut;
use crate::epoch::pages::{PAGE_LEN, pages_touched};
use crate::epoch::patience::Patience;
use crate::epoch::preserve::{CUT_COPY_MAX, Preserved};
use crate::epoch::seal::{Pin, parity};
use crate::failpoint::{self, Point};
use crate::format::entry::{Kind, NameEntry};
use crate::id::{EpochNo, FileId};
use crate::source::Node;

/// How a guard holds an inode.
enum Lock<'a> {
    Shared(#[expect(dead_code, reason = "held for its drop")] RwLockReadGuard<'a, ()>),
    Exclusive(RwLockWriteGuard<'a, ()>),
    /// Lent to the flusher while the guard waits for it; nobody else can take it exclusively.
    Lent(RwLockUpgradableReadGuard<'a, ()>),
}

struct Held<'a> {
    inode: &'a Arc<LiveInode>,
    lock: Lock<'a>,
}

/// The right to change some inodes within one epoch. Dropping it unpins and unlocks.
pub struct Guard<'a> {
    epochs: &'a Epochs,
    // Dropped in this order: the request is over before anybody else may begin one on the same inodes.
    pin: Pin<'a>,
    /// Until a scan may believe that it has been told what was moved.
    _moving: Option<Pin<'a>>,
    first: Option<Held<'a>>,
    more: Vec<Held<'a>>,
    /// Inodes made under this guard.
    created: Vec<FileId>,
    /// Inodes whose last name goes under this guard.
    unlinking: Vec<FileId>,
    /// How often the open set had been dropped when the guard was made.
    drops: u64,
}

impl Epochs {
    /// For a plain write of `range` into `inode` (also punch-hole, zero-range within the file): shared with other writes. What the
    /// sealed epoch needs of the range is preserved first; where there is no room for that the caller waits at most 100 ms (longer
    /// only after three epochs in a row were folded because of such waits, and never for what the flusher itself waits for).
    /// On return the range is marked dirty, and recorded in the journal where the file existed before. Perform the system call,
    /// then drop the guard.
    pub fn write<'a>(
        &'a self,
        inode: &'a Arc<LiveInode>,
        range: Range<u64>,
    ) -> io::Result<Guard<'a>> {
        self.forewarn(inode.node(), &range);
        let lock = inode.shared(&self.tally.waits);
        let drops = self.drops.load(Ordering::SeqCst);
        let pin = self.pins.pin();
        if inode.is_in(pin.epoch()) && !self.sealed_needs(inode, &range, pin.epoch()) {
            self.mark(inode, &range, &range, pin.epoch());
            return Ok(Guard::of_write(self, pin, drops, inode, lock));
        }
        drop(pin);
        drop(lock);
        let mut patience = Patience::begin(self);
        let mut delay = Delay::none(&self.tally.preserving);
        loop {
            // Alone, so that no write of an older epoch is under way.
            let lock = inode.exclusive(&self.tally.waits);
            let drops = self.drops.load(Ordering::SeqCst);
            let pin = self.pins.pin();
            let epoch = pin.epoch();
            self.turn_over(inode, epoch);
            if self.preserve(inode, &range, epoch, u64::MAX, &mut delay) == Preserved::Done {
                // Marked before others may come in, so that the flusher never takes it for unchanged.
                self.mark(inode, &range, &range, epoch);
                let lock = RwLockWriteGuard::downgrade(lock);
                return Ok(Guard::of_write(self, pin, drops, inode, lock));
            }
            drop(pin);
            drop(lock);
            self.await_room(inode, &range, epoch, &mut patience);
        }
    }

    /// For everything else: takes all `inodes` (an inode may be named twice) exclusively in order of id, pins, and preserves
    /// their attributes; each is marked changed. Sizes, names, ranges are then told to the guard.
    pub fn change<'a>(&'a self, inodes: &'a [&'a Arc<LiveInode>]) -> io::Result<Guard<'a>> {
        let mut order: Vec<&'a Arc<LiveInode>> = inodes.to_vec();
        order.sort_unstable_by_key(|inode| inode.id());
        order.dedup_by_key(|inode| inode.id());
        let mut held = Vec::with_capacity(order.len());
        for inode in order {
            let lock = Lock::Exclusive(inode.exclusive(&self.tally.waits));
            held.push(Held { inode, lock });
        }
        let drops = self.drops.load(Ordering::SeqCst);
        let pin = self.pins.pin();
        let set = self.set(pin.epoch());
        for each in &held {
            self.turn_over(each.inode, pin.epoch());
            set.edit(each.inode.node(), |_touched| ());
        }
        self.alarm.changed(set.size().bytes);
        let mut guard = Guard::new(self, pin, drops, None, held);
        guard._moving = Some(self.moves.pin());
        Ok(guard)
    }

    /// Marks bytes dirty in the open epoch, and tells the journal, as [`Self::intend`] says.
    fn mark(&self, inode: &LiveInode, range: &Range<u64>, written: &Range<u64>, epoch: EpochNo) {
        let set = self.set(epoch);
        let created = set.mark(inode.node(), &pages_touched(range));
        self.alarm.changed(set.size().bytes);
        if !created {
            self.intend(inode.node(), range, written, epoch);
        }
    }

    pub(super) fn set(&self, epoch: EpochNo) -> &ChangeSet {
        &self.sets[parity(epoch)]
    }
}

impl<'a> Guard<'a> {
    fn of_write(
        epochs: &'a Epochs,
        pin: Pin<'a>,
        drops: u64,
        inode: &'a Arc<LiveInode>,
        lock: RwLockReadGuard<'a, ()>,
    ) -> Self {
        let lock = Lock::Shared(lock);
        Self::new(epochs, pin, drops, Some(Held { inode, lock }), Vec::new())
    }

    fn new(
        epochs: &'a Epochs,
        pin: Pin<'a>,
        drops: u64,
        first: Option<Held<'a>>,
        more: Vec<Held<'a>>,
    ) -> Self {
        epochs.relieve(pin.epoch());
        Self {
            epochs,
            pin,
            _moving: None,
            first,
            more,
            created: Vec::new(),
            unlinking: Vec::new(),
            drops,
        }
    }

    /// The epoch the change belongs to.
    pub fn epoch(&self) -> EpochNo {
        self.pin.epoch()
    }

    /// The inode was just created: all of it is new, nothing of it is in any commit; no journal intent is owed. The caller holds
    /// its directory, so that nobody else has found it yet.
    pub fn created(&mut self, inode: &Arc<LiveInode>) {
        self.set().edit(inode.node(), |record| {
            record.created = true;
            record.fresh = true;
        });
        inode.enter(self.epoch());
        self.created.push(inode.id());
    }

    /// The size goes from `old_len` to `new_len` (truncate, O_TRUNC, fallocate): marks what is cut off (what is gained is a hole
    /// until something is written there), preserves what the sealed epoch needs of it, or folds that. Call it before the system call.
    pub fn resize(&mut self, inode: &Arc<LiveInode>, old_len: u64, new_len: u64) -> io::Result<()> {
        if new_len < old_len {
            return self.touch(inode, &(new_len..old_len), &written_by_cut(new_len));
        }
        if new_len > old_len && !old_len.is_multiple_of(PAGE_LEN) {
            self.touch(inode, &(old_len - 1..old_len), &(0..0))?;
        }
        Ok(())
    }

    /// The file has been cut to nothing: none of what any commit has is left in it. Call it after the system call.
    pub fn emptied(&mut self, inode: &Arc<LiveInode>) {
        self.set().edit(inode.node(), |record| record.fresh = true);
    }

    /// A range is about to change under an exclusive guard.
    pub fn dirty(&mut self, inode: &Arc<LiveInode>, range: Range<u64>) -> io::Result<()> {
        self.touch(inode, &range, &range)
    }

    fn touch(
        &mut self,
        inode: &Arc<LiveInode>,
        range: &Range<u64>,
        written: &Range<u64>,
    ) -> io::Result<()> {
        self.settle(inode, range, |epochs, epoch, delay| {
            epochs.preserve(inode, range, epoch, CUT_COPY_MAX, delay)
        });
        self.epochs.mark(inode, range, written, self.epoch());
        Ok(())
    }

    /// `name` of `dir` now points to `entry` (after the system call succeeded).
    pub fn name(&mut self, dir: &Arc<LiveInode>, name: &[u8], entry: Option<NameEntry>) {
        failpoint::reach(Point::Name);
        // What was just made could only be given a name that did not exist.
        let born = entry.is_some_and(|entry| self.created.contains(&entry.id));
        self.set().record_name(dir.id(), name, entry, born);
        if let Some(entry) = entry.filter(|_| !born) {
            self.note_moved(entry.id);
        }
        // The system call succeeded, so their last names are gone.
        for id in std::mem::take(&mut self.unlinking) {
            self.set().drop_if_created(id);
        }
    }

    /// The last name of `inode` is about to go: keeps it readable for the sealed epoch if that still needs it. Follow it by
    /// [`Self::name`] when the system call has succeeded.
    pub fn unlinking(&mut self, inode: &Arc<LiveInode>) -> io::Result<()> {
        self.settle(inode, &(0..u64::MAX), |epochs, epoch, delay| {
            epochs.keep_unlinked(inode, epoch, delay)
        });
        self.unlinking.push(inode.id());
        Ok(())
    }

    /// What the open epoch says of a name: `None` if nothing, `Some(None)` if removed. For reconcile.
    pub fn recorded_name(&self, dir: &Arc<LiveInode>, name: &[u8]) -> Option<Option<NameEntry>> {
        Some(self.set().name(dir.id(), name)?.entry)
    }

    /// Whether the open epoch has a record of the inode. (Under a guard that was given the inode it always has.)
    pub fn recorded_inode(&self, inode: &Arc<LiveInode>) -> bool {
        self.set().has(inode.id())
    }

    /// A scan has found an inode of which no commit knows anything, with data in `data`: all of that is to be captured. No
    /// journal intent is owed, since it is found again for as long as no commit has it. Nothing is marked twice in an epoch,
    /// nor if the inode was made in it, so that several names of one file cost no more than one.
    ///
    /// Nothing changes here, so no lock on the inode is needed and nothing is preserved: whoever changes it later marks it
    /// in his own epoch. For reconcile.
    pub fn discovered(&mut self, node: &Node, data: &[Range<u64>]) {
        self.found(node, data);
    }

    /// A scan doubts that `ranges` of an inode are what the last commit has: they are to be captured. For reconcile; as
    /// [`Self::discovered`], but the journal is told, since the doubt may be gone after a crash and the difference not.
    pub fn suspected(&mut self, node: &Node, ranges: &[Range<u64>]) {
        if self.found(node, ranges) {
            for range in ranges {
                self.epochs.intend(node, range, &(0..0), self.epoch());
            }
        }
    }

    /// Marks an inode and its ranges; false if that has been done in this epoch.
    fn found(&mut self, node: &Node, ranges: &[Range<u64>]) -> bool {
        let set = self.set();
        let first = set.edit(node, |record| {
            let first = !record.found && !record.created;
            record.found |= !ranges.is_empty();
            for range in ranges.iter().filter(|_| first) {
                set.mark_record(record, &pages_touched(range));
            }
            first
        });
        self.epochs.alarm.changed(set.size().bytes);
        first
    }

    /// A request has been carried out that could not be noted: what `name` of `dir` points to is not known. No commit is exact until
    /// it has been looked at again.
    pub fn owe(&mut self, dir: &Arc<LiveInode>, name: &[u8], why: &io::Error) {
        let why = format!("a change of the source could not be noted: {why}");
        let owed = &self.epochs.owed;
        owed.owe_name(dir.node(), name, self.epoch(), &why);
    }

    /// What was owed of a name has been said under this guard. For reconcile.
    pub fn paid(&mut self, dir: &Arc<LiveInode>, name: &[u8]) {
        let owed = &self.epochs.owed;
        owed.paid_name(dir.id(), name, self.epoch());
    }

    /// A scan has looked at an inode and has said under this guard, or had no need to say, how it differs from the last commit.
    pub fn seen(&mut self, node: &Node) {
        self.set().seen().insert(node.id);
    }

    /// The last commit has this name, so that removing it must leave a trace even if the epoch believes that it made it.
    /// For reconcile.
    pub fn known_name(&mut self, dir: &Arc<LiveInode>, name: &[u8]) {
        self.set().not_born(dir.id(), name);
    }

    fn note_moved(&self, id: FileId) {
        if let Some(scan) = self.epochs.scan.lock().as_mut() {
            let held = self.first.iter().chain(&self.more);
            let nodes = held.filter(|held| held.inode.id() == id);
            scan.moved
                .extend(nodes.map(|held| held.inode.node().clone()));
        }
    }

    fn set(&self) -> &'a ChangeSet {
        self.epochs.set(self.pin.epoch())
    }

    /// Preserves what `range` of an inode is needed for. Without room it waits a little, then folds, and when that has
    /// happened too often waits until the flusher has taken it or gets no further itself. While it waits it lends its locks to the flusher.
    fn settle(
        &mut self,
        inode: &Arc<LiveInode>,
        range: &Range<u64>,
        attempt: impl Fn(&Epochs, EpochNo, &mut Delay<'_>) -> Preserved,
    ) {
        let (epochs, epoch) = (self.epochs, self.epoch());
        let mut delay = Delay::none(&epochs.tally.preserving);
        if attempt(epochs, epoch, &mut delay) == Preserved::Done {
            return;
        }
        self.each_lock(|lock| match lock {
            Lock::Exclusive(lock) => Lock::Lent(RwLockWriteGuard::downgrade_to_upgradable(lock)),
            other => other,
        });
        let mut patience = Patience::begin(epochs);
        loop {
            let events = epochs.buffer.events();
            let patient = match attempt(epochs, epoch, &mut delay) {
                Preserved::Done => break,
                Preserved::NoRoom => epochs.buffer.wait(events, patience.until()),
                Preserved::TooMuch => false,
            };
            if !patient && !epochs.fold_for_writer(epoch, &mut patience) {
                epochs.await_taken(inode, range, epoch, &mut patience);
            }
        }
        self.each_lock(|lock| match lock {
            Lock::Lent(lock) => Lock::Exclusive(RwLockUpgradableReadGuard::upgrade(lock)),
            other => other,
        });
    }

    fn each_lock(&mut self, change: impl Fn(Lock<'a>) -> Lock<'a>) {
        let held = self.first.take().into_iter().chain(self.more.drain(..));
        let held: Vec<Held<'a>> = held
            .map(|held| Held {
                inode: held.inode,
                lock: change(held.lock),
            })
            .collect();
        self.more = held;
    }
}

impl Drop for Guard<'_> {
    /// The open set may have been dropped since, and a scan gone by before the system call: then what was touched is said again.
    fn drop(&mut self) {
        if self.epochs.drops.load(Ordering::SeqCst) == self.drops {
            return;
        }
        for held in self.first.iter().chain(&self.more) {
            let node = held.inode.node();
            let stat = self.epochs.origin.stat(node);
            let size = stat.map_or(0, |stat| match stat.kind {
                Kind::File => stat.size,
                _ => 0,
            });
            self.set().mark(node, &pages_touched(&(0..size)));
        }
    }
}
