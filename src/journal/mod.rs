//! The journal: which file and which logical block has been touched since its last commit, made durable in sled.
//!
//! A hint that widens the comparison after a crash. It never decides alone that something is unchanged. The epochs write it,
//! fsync and writes over existing bytes wait for it, reconcile reads it, and the flusher makes it forget.
//!
//! sled 0.34's own flush hands data to the kernel but does not make it durable, and damage makes it panic. So a durable point is
//! its flush followed by our own fdatasync; every call into it catches panics; and a failed durable write is latched: from then on
//! the journal refuses, status says why, and the next life, which finds no marker, believes nothing and compares all contents. What was owed
//! then fails its fsync; so does everything if the next life cannot be told.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::failpoint::{self, Point};
use crate::id::{EpochNo, FileId, Seq};

mod cover;

mod record;

mod recovery;

#[cfg(test)]
mod tests;

pub use cover::Cover;
use cover::Kept;
use record::{ANY, Key, Noted, Value};
use recovery::{Marker, Opened};

/// A logical block: a 64 MiB aligned stretch of a file, by number.
pub type LogicalBlock = u32;
/// Length of a logical block in bytes.
pub const LOGICAL_BLOCK_LEN: u64 = 64 << 20;
/// In place of a logical block's number: any part of the file may have been touched.
pub const WHOLE_FILE: LogicalBlock = LogicalBlock::MAX;

/// In place of a file's number: any file may have been touched. Never given to one.
pub const ANY_FILE: FileId = FileId(u64::MAX);

/// Records looked at by one durable write while those are taken away that a record of everything has made needless.
const SWEEP_MAX: usize = 16 * 1024;
/// Records forgotten at once: writers wait for one such batch, about a millisecond.
const FORGET_BATCH: usize = 256;

/// What a record would survive now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Durability {
    /// Nothing: sled's memory alone has it.
    Memory,
    /// The death of this process.
    Kernel,
    /// That of the machine.
    Disk,
}

/// How the last life of this journal ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LastStop {
    /// There was none: a new volume on this machine.
    New,
    /// Everything was in order.
    Clean,
    /// Killed or crashed; the same boot, so the page cache survived.
    Crashed,
    /// The machine went down in between.
    Rebooted,
    /// The database could not be used and was set aside: where, and why.
    SetAside(String),
}

/// An open journal.
pub struct Journal {
    database: sled::Db,
    /// sled's log, for our own fdatasync.
    log: File,
    marker_path: PathBuf,
    marker: Mutex<Marker>,
    cover: Kept,
    /// Kept locked for as long as the journal is open.
    _lock: File,
    same_boot: bool,
    noted: Mutex<Noted>,
    commit: Mutex<GroupCommit>,
    committed: Condvar,
    latch: OnceLock<String>,
    /// Held while the next life is being told of it: nobody goes on without a record before.
    telling: Mutex<()>,
    /// It is latched, and the next life does not know.
    untold: AtomicBool,
    /// What earlier lives have left is kept for the next one.
    sparing: AtomicBool,
}

/// Callers of [`Journal::sync`] by number: one works for all who came before it began.
#[derive(Default)]
struct GroupCommit {
    asked: u64,
    done: u64,
    working: bool,
}

impl Journal {
    /// Opens it; never fails because of damage: an unusable database is set aside. Fails if the directory cannot be written, or
    /// (with [`io::ErrorKind::WouldBlock`]) if another process has it open.
    pub fn open(dir: &Path) -> io::Result<(Self, LastStop)> {
        Self::open_doubting(dir, |_| false)
    }

    /// The same; where `is_doubtful` says so of the last life's end, a record says that any file may have been touched.
    pub fn open_doubting(
        dir: &Path,
        is_doubtful: impl Fn(&LastStop) -> bool,
    ) -> io::Result<(Self, LastStop)> {
        let opened = recovery::open(dir, is_doubtful)?;
        let mut cover = Kept::open(dir)?;
        if opened.stop != LastStop::Crashed {
            cover.before = None;
        }
        let Opened {
            database,
            log,
            marker,
            marker_path,
            lock,
            same_boot,
            noted,
            stop,
        } = opened;
        let journal = Self {
            database,
            log,
            marker_path,
            marker: Mutex::new(marker),
            cover,
            _lock: lock,
            same_boot,
            noted: Mutex::new(noted),
            commit: Mutex::default(),
            committed: Condvar::new(),
            latch: OnceLock::new(),
            telling: Mutex::new(()),
            untold: AtomicBool::new(false),
            sparing: AtomicBool::new(false),
        };
        Ok((journal, stop))
    }

    /// Whether the life before was in the same boot of the machine; false if that is not known. After
    /// [`LastStop::SetAside`] it decides how much must be compared.
    pub fn same_boot(&self) -> bool {
        self.same_boot
    }

    /// The word that the last life had given about its mount when it was killed; `None` if it had given none, or had ended in another
    /// way than [`LastStop::Crashed`].
    pub fn covered_before(&self) -> Option<&Cover> {
        self.cover.before.as_ref()
    }

    /// Gives that word for this life: a comparison has ended, nothing had to be passed over, and the mount lies over the source.
    pub fn give_cover(&self, cover: Cover) -> io::Result<()> {
        self.refuse_if_latched()?;
        self.cover.give(cover)?;
        // What has failed meanwhile has found nothing to take back.
        match self.latch.get() {
            Some(_) => self.cover.take_back(),
            None => Ok(()),
        }
    }

    /// Takes it back: from now on something may differ without a record.
    pub fn take_cover_back(&self) -> io::Result<()> {
        self.cover.take_back()
    }

    /// Records of what `commit` holds are about to be forgotten.
    pub fn raise_cover(&self, commit: Seq) -> io::Result<()> {
        self.cover.raise(commit)
    }

    /// Notes that `block` of `id` is about to change in `epoch`. Where the note stands now, whoever has made it: [`Self::write_out`]
    /// and [`Self::sync`] bring it further. Cheap when it was noted before.
    pub fn record(
        &self,
        id: FileId,
        block: LogicalBlock,
        epoch: EpochNo,
    ) -> io::Result<Durability> {
        self.refuse_if_latched()?;
        let key = Key { id, block };
        let mut noted = self.noted.lock();
        if noted.is_closed() {
            return Err(io::Error::other("the journal is closed"));
        }
        if noted.is_covered(epoch) {
            return Ok(noted.durability(ANY));
        }
        if noted.touch(key, epoch) {
            return Ok(noted.durability(key));
        }
        if noted.is_crowded() {
            return self.cover(&mut noted, epoch);
        }
        if noted.is_full() {
            let batch = noted.write_back();
            self.sled("write back", || self.database.apply_batch(batch))?;
        }
        let value = noted.value(epoch);
        let before = self.sled("record", || {
            self.database.insert(key.bytes(), &value.bytes())
        })?;
        failpoint::reach(Point::JournalRecord);
        // A request of the epoch before may come late; what is newer in the database stays newer.
        let stored = before.as_deref().and_then(Value::parse);
        let newest = stored.map_or(epoch, |stored| noted.newest(key, stored).max(epoch));
        noted.insert(key, newest, before.is_none());
        Ok(noted.durability(key))
    }

    /// Too many records: one that says "any file" takes their place. It is with the kernel before anybody relies on it.
    fn cover(&self, noted: &mut Noted, epoch: EpochNo) -> io::Result<Durability> {
        tracing::warn!(
            "too many files have been changed to note each; after a crash all are compared"
        );
        let value = noted.value(epoch).bytes();
        let before = self.sled("record", || self.database.insert(ANY.bytes(), &value))?;
        self.sled("flush", || self.database.flush())?;
        noted.cover(epoch, before.is_none());
        Ok(noted.durability(ANY))
    }

    /// Takes away some records that a record of everything has made needless.
    fn sweep(&self) -> io::Result<()> {
        let Some(upto) = self.noted.lock().any().filter(|upto| *upto > EpochNo(0)) else {
            return Ok(());
        };
        // What it covers is not spared: it is spared itself.
        self.forget_records(upto, SWEEP_MAX, false, |key| key != ANY)
    }

    /// Whether a record of that is on the disk for certain.
    pub fn is_on_disk(&self, id: FileId, block: LogicalBlock, epoch: EpochNo) -> bool {
        let noted = self.noted.lock();
        let key = match noted.is_covered(epoch) {
            true => ANY,
            false => Key { id, block },
        };
        noted.knows(key) && noted.durability(key) == Durability::Disk
    }

    /// Whether `id` has records that are not durable yet, or may lack some that nobody will miss.
    pub fn owes(&self, id: FileId) -> bool {
        self.untold.load(Ordering::SeqCst) || self.noted.lock().owes(id)
    }

    /// Makes all records so far durable (group commit: concurrent callers share one). Costs nothing when they are.
    pub fn sync(&self) -> io::Result<()> {
        self.refuse_if_latched()?;
        let mut commit = self.commit.lock();
        if !self.noted.lock().owes_any() {
            return Ok(());
        }
        commit.asked += 1;
        let mine = commit.asked;
        while commit.done < mine {
            if commit.working {
                self.committed.wait(&mut commit);
                continue;
            }
            commit.working = true;
            let all = commit.asked;
            drop(commit);
            let result = self.make_durable();
            commit = self.commit.lock();
            commit.working = false;
            commit.done = all;
            self.committed.notify_all();
            result?;
        }
        self.refuse_if_latched()
    }

    fn make_durable(&self) -> io::Result<()> {
        self.sweep()?;
        self.noted.lock().begin_sync();
        self.write_out()?;
        failpoint::reach(Point::JournalSync);
        self.latching("fdatasync", self.log.sync_data())?;
        self.noted.lock().end_sync();
        Ok(())
    }

    /// Hands all records so far to the kernel: they survive the death of this process, but not that of the machine.
    pub fn write_out(&self) -> io::Result<()> {
        self.refuse_if_latched()?;
        let flush = self.noted.lock().begin_flush();
        self.sled("flush", || self.database.flush())?;
        self.noted.lock().end_flush(flush);
        Ok(())
    }

    /// Everything recorded up to and including `epoch`, and not touched since, may go: verified in the store and safe on the
    /// source's disk. Records of earlier lives count as older than every epoch, so the first call must come after a commit
    /// that holds all that reconcile found, never after an incomplete one.
    pub fn forget(&self, epoch: EpochNo) -> io::Result<()> {
        self.refuse_if_latched()?;
        self.forget_records(epoch, usize::MAX, self.spares_earlier(), |_| true)
    }

    /// There is no commit that anything could differ from unnoticed.
    pub fn forget_doubt(&self) -> io::Result<()> {
        self.refuse_if_latched()?;
        self.forget_records(EpochNo(0), usize::MAX, false, |key| key == ANY)
    }

    /// Not all that earlier lives have left could be looked at in this one: none of it is forgotten any more, whatever [`Self::forget`] is
    /// told, so that the next life looks again.
    pub fn spare_earlier(&self) {
        self.sparing.store(true, Ordering::SeqCst);
    }

    /// Whether that has been said.
    pub fn spares_earlier(&self) -> bool {
        self.sparing.load(Ordering::SeqCst)
    }

    fn forget_records(
        &self,
        epoch: EpochNo,
        count_max: usize,
        spares_earlier: bool,
        wanted: impl Fn(Key) -> bool,
    ) -> io::Result<()> {
        let doubted = self.noted.lock().any().is_some();
        let mut old = Vec::with_capacity(FORGET_BATCH);
        for entry in self.database.iter().take(count_max) {
            let (key, value) = self.sled("read", || entry)?;
            let parsed = Key::parse(&key).zip(Value::parse(&value));
            let Some((key, value)) = parsed.filter(|(key, _)| wanted(*key)) else {
                continue;
            };
            old.push((key, value));
            if old.len() == FORGET_BATCH {
                self.forget_batch(&mut old, epoch, spares_earlier)?;
            }
        }
        self.forget_batch(&mut old, epoch, spares_earlier)?;
        // Coming back, it would have everything compared again.
        match doubted && self.noted.lock().any().is_none() {
            true => self.settle(),
            false => Ok(()),
        }
    }

    /// Makes durable what was forgotten, of which [`Self::sync`] knows nothing.
    fn settle(&self) -> io::Result<()> {
        self.sled("flush", || self.database.flush())?;
        self.latching("fdatasync", self.log.sync_data())
    }

    fn forget_batch(
        &self,
        old: &mut Vec<(Key, Value)>,
        epoch: EpochNo,
        spares_earlier: bool,
    ) -> io::Result<()> {
        // Held throughout, so that a record made now is either seen as newer or inserted again afterwards.
        let mut noted = self.noted.lock();
        if noted.is_closed() {
            // The marker says, or is about to say, how many there are.
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for (key, value) in old.drain(..) {
            // What was read before the lock may be overtaken: a newer epoch stands in memory, or has been written back since.
            let value = match noted.knows(key) {
                true => Some(value),
                false => {
                    let stored = self.sled("read", || self.database.get(key.bytes()))?;
                    stored.as_deref().and_then(Value::parse)
                }
            };
            let is_spared =
                |value| spares_earlier && (key == ANY || noted.is_of_earlier_life(value));
            let is_old = |value| noted.newest(key, value) <= epoch && !is_spared(value);
            if value.is_some_and(is_old) {
                noted.remove(key);
                batch.remove(&key.bytes()[..]);
            }
        }
        self.sled("forget", || self.database.apply_batch(batch))?;
        failpoint::reach(Point::Forgotten);
        Ok(())
    }

    /// All records, in order: for reconcile and `debug journal`. Those of earlier lives have epoch 0.
    pub fn records(&self) -> io::Result<Vec<(FileId, LogicalBlock, EpochNo)>> {
        let mut records = Vec::new();
        for entry in self.database.iter() {
            let (key, value) = self.sled("read", || entry)?;
            if let Some((key, value)) = Key::parse(&key).zip(Value::parse(&value)) {
                let epoch = self.noted.lock().newest(key, value);
                records.push((key.id, key.block, epoch));
            }
        }
        Ok(records)
    }

    /// Writes the clean-stop marker after a last sync. Afterwards nothing can be recorded.
    pub fn close_clean(&self) -> io::Result<()> {
        self.noted.lock().close();
        self.cover.take_back()?;
        self.sync()?;
        // The marker says how many there are.
        self.settle()?;
        let mut marker = self.marker.lock();
        // Not after somebody has removed it to say the opposite.
        if let Some(why) = self.latch.get() {
            return Err(io::Error::other(why.clone()));
        }
        marker.clean = true;
        marker.epoch = self.noted.lock().highest();
        marker.records = self.database.len() as u64;
        marker.write(&self.marker_path)
    }

    /// Ends it while programs may still be writing: what there is becomes durable, nothing can be recorded any more, and no
    /// marker says that all was in order.
    pub fn close_owing(&self) -> io::Result<()> {
        self.noted.lock().close();
        self.cover.take_back()?;
        self.sync()
    }

    /// An error after which nothing pretends to be recorded, if one has happened.
    pub fn latched(&self) -> Option<String> {
        self.latch.get().cloned()
    }

    /// Calls into sled, turning errors and panics alike into a latched error.
    fn sled<T>(&self, what: &str, call: impl FnOnce() -> sled::Result<T>) -> io::Result<T> {
        let result = catch_unwind(AssertUnwindSafe(call));
        let result = result.unwrap_or_else(|_| Err(sled::Error::ReportableBug("panic".into())));
        self.latching(what, result.map_err(io::Error::other))
    }

    fn latching<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let _telling = self.telling.lock();
            let mut first = false;
            let why = self.latch.get_or_init(|| {
                first = true;
                format!("journal: {what}: {error}")
            });
            // After the latch, so that nobody gives a cover that is not taken back.
            if first {
                self.tell_next_life();
            }
            io::Error::new(error.kind(), why.clone())
        })
    }

    /// From now on changes go unrecorded. A life that finds no marker believes nothing, and removing it takes no room on the disk.
    fn tell_next_life(&self) {
        let _marker = self.marker.lock();
        let told = self
            .cover
            .take_back()
            .and_then(|()| recovery::remove_marker(&self.marker_path));
        if let Err(error) = told {
            self.untold.store(true, Ordering::SeqCst);
            tracing::error!(%error, "the journal is not whole, and the next mount cannot be told");
        }
    }

    fn refuse_if_latched(&self) -> io::Result<()> {
        match self.latch.get() {
            Some(why) => {
                drop(self.telling.lock());
                Err(io::Error::other(why.clone()))
            }
            None => Ok(()),
        }
    }
}
