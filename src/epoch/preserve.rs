//! Preserving is capture done by the writer: before a request changes what the sealed epoch still needs, it reads the
//! attributes and the old bytes into the bounded buffer, whence the flusher takes them.
//!
//! All of this runs under the inode's exclusive lock with a pin on the open epoch. A request of the sealed epoch that touches
//! the inode took its lock before its pin, so it is over by then, and what is read here is the state at the seal.
//! Where the old state cannot be read, the sealed epoch is folded, or goes without that one file where the file is to blame: a
//! user's request never fails because of the backup.

use std::io;
use std::ops::Range;

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use crate::epoch::buffer::Hold;
use crate::epoch::changes::{ChangeSet, Record, Stage};
use crate::epoch::delay::Delay;
use crate::epoch::inodes::LiveInode;
use crate::epoch::need::{KeptFile, Piece, Resolved};
use crate::epoch::origin::{Contents, Origin};
use crate::epoch::pages::{bytes_of, pages_touched};
use crate::epoch::patience::{PATIENCE, Patience};
use crate::epoch::seal::parity;
use crate::epoch::{Attributes, Epochs};
use crate::failpoint::{self, Point};
use crate::format::entry::Kind;
use crate::id::EpochNo;
use crate::source::Node;

/// Bytes that one truncate may preserve; more than this takes longer than anybody should wait for a truncate.
pub(super) const CUT_COPY_MAX: u64 = 16 << 20;
/// Bytes of an unlinked file that are copied when no descriptor is left for it.
const UNLINKED_COPY_MAX: u64 = 1 << 20;
/// The largest piece: what the flusher takes at once.
const PIECE_MAX: u64 = 1 << 20;

/// Errors that say nothing of the file that met them: the machine is short of something, or the file is not there any more. There is
/// no list of what a file alone can be to blame for: each file system has errors of its own, such as `ENOKEY` for an encrypted file
/// whose key is not there, `ENODATA` for a bad sector, `EILSEQ` for a checksum.
const PASSING: [i32; 7] = [
    libc::EAGAIN,
    libc::EINTR,
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOENT,
    libc::ENOMEM,
    libc::ESTALE,
];

/// How preserving went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preserved {
    /// The sealed epoch needs nothing of it any more.
    Done,
    /// The buffer is full for now.
    NoRoom,
    /// More than anybody should wait for.
    TooMuch,
}

impl Epochs {
    /// The sealed epoch as a request of `epoch` meets it; `None` if there is none or it needs nothing.
    pub(super) fn sealed_before(&self, epoch: EpochNo) -> Option<&ChangeSet> {
        let before = EpochNo(epoch.0 - 1);
        let set = &self.sets[parity(before)];
        set.is(before, Stage::Sealed).then_some(set)
    }

    /// Whether the epoch sealed before `epoch` still needs any byte of `range`.
    pub(super) fn sealed_needs(
        &self,
        inode: &LiveInode,
        range: &Range<u64>,
        epoch: EpochNo,
    ) -> bool {
        let Some(set) = self.sealed_before(epoch) else {
            return false;
        };
        let run = pages_touched(range);
        set.with(inode.id(), |record| record.needs(&run)) == Some(true)
    }

    /// Before the first change of an inode in `epoch`: keeps its attributes as they were at the seal.
    pub(super) fn turn_over(&self, inode: &LiveInode, epoch: EpochNo) {
        if inode.is_in(epoch) {
            return;
        }
        if let Some(set) = self.sealed_before(epoch) {
            // What the flusher took itself is kept too: it may ask again.
            let unread = |have: &Resolved| matches!(have, Resolved::No | Resolved::Taken { .. });
            let look = |record: &mut Record| (unread(&record.need.attributes), record.is_file);
            if let Some((true, is_file)) = set.with(inode.id(), look) {
                self.keep_attributes(set, inode, epoch, is_file);
            }
        }
        inode.enter(epoch);
    }

    fn keep_attributes(&self, set: &ChangeSet, inode: &LiveInode, epoch: EpochNo, is_file: bool) {
        match read_attributes(&*self.origin, inode.node(), is_file) {
            Ok(found) => {
                let found = found.map_or(Resolved::Gone, |found| Resolved::Kept(Box::new(found)));
                set.with(inode.id(), |record| record.need.attributes = found);
            }
            Err(unreadable) => self.give_up(set, inode, epoch, &unreadable),
        }
    }

    /// Before `range` of a turned-over inode changes: keeps what the sealed epoch needs of it.
    pub(super) fn preserve(
        &self,
        inode: &LiveInode,
        range: &Range<u64>,
        epoch: EpochNo,
        bytes_max: u64,
        delay: &mut Delay<'_>,
    ) -> Preserved {
        let Some(set) = self.sealed_before(epoch) else {
            return Preserved::Done;
        };
        let run = pages_touched(range);
        let look = set.with(inode.id(), |record| {
            (record.needed(&run), record.size_at_seal(), record.kept())
        });
        let Some((runs, Some(size), kept)) = look else {
            // No record: untouched in that epoch. No size: folded while it was turned over.
            return Preserved::Done;
        };
        if runs.is_empty() {
            return Preserved::Done;
        }
        delay.begin();
        let cut = |bytes: Range<u64>| bytes.start..bytes.end.min(size);
        let ranges: Vec<Range<u64>> = runs.iter().map(|run| cut(bytes_of(run))).collect();
        let total: u64 = ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum();
        if total > bytes_max {
            return Preserved::TooMuch;
        }
        let Some(hold) = self.buffer.hold(total as usize) else {
            return Preserved::NoRoom;
        };
        let reader = kept.map_or_else(|| self.readers.get(&*self.origin, inode.node()), Ok);
        match reader.and_then(|reader| read_pieces(&*reader, &ranges, hold)) {
            Ok(pieces) => {
                failpoint::reach(Point::Preserve);
                set.with(inode.id(), |record| {
                    record.preserve(&runs, pieces, set.detail())
                });
                self.tally.preserved.fetch_add(total, Ordering::Relaxed);
            }
            Err(unreadable) => self.give_up(set, inode, epoch, &unreadable),
        }
        Preserved::Done
    }

    /// The old state of an inode cannot be read and is about to be lost. Where that is the fault of this one file alone, folding
    /// would only put it off to the next seal, for ever: the flusher is told, and makes its commit without it.
    fn give_up(&self, set: &ChangeSet, inode: &LiveInode, epoch: EpochNo, error: &io::Error) {
        match refusal(error) {
            Some(errno) => {
                let refused = Resolved::Refused(errno);
                set.with(inode.id(), |record| record.need.attributes = refused);
                self.buffer.nudge();
            }
            None => self.fold_anyway(epoch),
        }
    }

    /// Waits, holding no lock, until `preserve` may go better: there is room, or the flusher has taken the pages; when
    /// patience is over the sealed epoch is folded, unless that has happened too often.
    pub(super) fn await_room(
        &self,
        inode: &LiveInode,
        range: &Range<u64>,
        epoch: EpochNo,
        patience: &mut Patience,
    ) {
        let events = self.buffer.events();
        if !self.sealed_needs(inode, range, epoch) {
            return;
        }
        let went_on = self.buffer.wait(events, patience.until());
        if !went_on && !self.fold_for_writer(epoch, patience) {
            self.buffer.wait(events, Instant::now() + PATIENCE);
        }
    }

    /// Waits until the sealed epoch needs nothing of `range` any more, whatever has become of it, or patience is spent.
    pub(super) fn await_taken(
        &self,
        inode: &LiveInode,
        range: &Range<u64>,
        epoch: EpochNo,
        patience: &mut Patience,
    ) {
        loop {
            let events = self.buffer.events();
            if !self.sealed_needs(inode, range, epoch) || patience.is_spent(self) {
                return;
            }
            // The time limit is for a flusher that does nothing at all.
            self.buffer.wait(events, Instant::now() + PATIENCE);
        }
    }

    /// The last name of a turned-over inode is about to go: keeps a descriptor, or the bytes if those are few.
    pub(super) fn keep_unlinked(
        &self,
        inode: &LiveInode,
        epoch: EpochNo,
        delay: &mut Delay<'_>,
    ) -> Preserved {
        let Some(set) = self.sealed_before(epoch) else {
            return Preserved::Done;
        };
        let needed = set.with(inode.id(), |record| {
            let needs = record.kept().is_none() && record.needs(&(0..u64::MAX));
            record.size_at_seal().filter(|_| needs)
        });
        let Some(size) = needed.flatten() else {
            return Preserved::Done;
        };
        delay.begin();
        // Where the disk is nearly full, whoever removes a file needs its room.
        let has_room = self.origin.free_bytes().is_ok_and(|free| free > size);
        let Some(hold) = has_room.then(|| self.descriptors.hold(1)).flatten() else {
            return self.preserve(inode, &(0..u64::MAX), epoch, UNLINKED_COPY_MAX, delay);
        };
        match self.readers.get(&*self.origin, inode.node()) {
            Ok(contents) => {
                let file = KeptFile {
                    contents,
                    _hold: hold,
                };
                set.with(inode.id(), |record| record.keep(file));
            }
            Err(unreadable) => self.give_up(set, inode, epoch, &unreadable),
        }
        Preserved::Done
    }
}

/// The attributes of an inode as they are now; `None` if it has no name any more. What `is_file` for certain is opened, which costs
/// less than a look at it from outside; nothing else may be, since opening a device or a FIFO can have effects.
pub(super) fn read_attributes(
    origin: &dyn Origin,
    node: &Node,
    is_file: bool,
) -> io::Result<Option<Attributes>> {
    // One that may not be read may be looked at all the same.
    if let Some(file) = is_file.then(|| origin.open(node).ok()).flatten() {
        let stat = file.stat()?;
        if stat.links == 0 {
            return Ok(None);
        }
        return Ok(Some(Attributes {
            stat,
            xattrs: file.xattrs()?,
            target: Vec::new(),
        }));
    }
    let stat = match origin.stat(node) {
        Ok(stat) if stat.links == 0 => return Ok(None),
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let target = match stat.kind {
        Kind::Symlink => origin.read_link(node)?,
        _ => Vec::new(),
    };
    let xattrs = origin.xattrs(node)?;
    Ok(Some(Attributes {
        stat,
        xattrs,
        target,
    }))
}

/// The number of an error that one file alone is to blame for: it may not be read, or cannot. What is no error of the system is none
/// of the file: it was changed while it was read.
pub fn refusal(error: &io::Error) -> Option<i32> {
    match error.raw_os_error() {
        None if error.kind() == io::ErrorKind::PermissionDenied => Some(libc::EACCES),
        errno => errno.filter(|errno| !PASSING.contains(errno)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle
    )
}

/// Reads the ranges whole, in pieces that share `hold`.
fn read_pieces(
    reader: &dyn Contents,
    ranges: &[Range<u64>],
    mut hold: Hold,
) -> io::Result<Vec<(u64, Piece)>> {
    let mut pieces = Vec::new();
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(PIECE_MAX) as usize;
            let mut bytes = vec![0; len];
            read_whole(reader, &mut bytes, at)?;
            let bytes = Bytes::from(bytes);
            pieces.push((
                at,
                Piece {
                    bytes,
                    _hold: hold.split(len),
                },
            ));
            at += len as u64;
        }
    }
    Ok(pieces)
}

/// Reads exactly this; a file that ends early was changed behind our back.
pub(super) fn read_whole(reader: &dyn Contents, buffer: &mut [u8], at: u64) -> io::Result<()> {
    if reader.read_at(buffer, at)? == buffer.len() {
        return Ok(());
    }
    let why = "the file is shorter than it was: changed beside the mount?";
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
}
