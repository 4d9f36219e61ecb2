//! Folding: the sealed epoch is given up and its changes go into the open one. Coarser, and always correct.
//!
//! A writer only flags the sealed set, from when on it needs nothing. The flusher learns of it at its next call, throws away
//! what it has captured of the epoch, and the merge happens where it drops its `Sealed`. Everything that was dirty at the seal is
//! dirty again, taken or not. What was copied ahead before the seal stays copied: it was not dirty at the seal, and whoever has
//! changed it since has marked it in the open epoch. So the flusher keeps those copies until a commit includes them, and lays
//! what it captures later over them.
//!
//! Where the open set was dropped meanwhile ([`super::relief`]) there is nothing to merge into: what it said of the same names and files,
//! and would win, is not known any more. Then what is older is dropped too. Everything is owed since, and the scan that pays for it begins
//! after the flusher has let go of the epoch.

use std::sync::atomic::Ordering;

use crate::epoch::Epochs;
use crate::epoch::changes::{ChangeSet, Shard, Stage};
use crate::epoch::patience::Patience;
use crate::epoch::seal::parity;
use crate::id::EpochNo;

/// Folds that writers may cause in a row; after that they wait longer ([`Patience`]), so that a commit is made at last.
const FOLDS_IN_A_ROW_MAX: u64 = 3;

impl Epochs {
    /// For a writer of `epoch` that would have to wait too long: gives up the epoch sealed before. False if that has happened
    /// too often in a row and the writer has patience left, true if there is no need to wait any more.
    pub(super) fn fold_for_writer(&self, epoch: EpochNo, patience: &mut Patience) -> bool {
        if self.sealed_before(epoch).is_none() {
            return true;
        }
        let often = self.tally.folds_in_a_row.load(Ordering::SeqCst) >= FOLDS_IN_A_ROW_MAX;
        if often && !patience.is_spent(self) {
            return false;
        }
        if self.flag_folded(EpochNo(epoch.0 - 1)) {
            self.tally.folds_in_a_row.fetch_add(1, Ordering::SeqCst);
        }
        true
    }

    /// The same where there is no other way: the old state can no longer be read.
    pub(super) fn fold_anyway(&self, epoch: EpochNo) {
        if self.flag_folded(EpochNo(epoch.0 - 1)) {
            self.tally.folds_in_a_row.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Flags a sealed epoch; false if it was not sealed any more.
    pub(super) fn flag_folded(&self, sealed: EpochNo) -> bool {
        let flagged = self.sets[parity(sealed)].advance(sealed, Stage::Sealed, Stage::Folded);
        if flagged {
            self.tally.folds.fetch_add(1, Ordering::Relaxed);
            self.buffer.nudge();
        }
        flagged
    }

    /// Merges a flagged epoch into the open one. Called by the flusher alone, so no seal comes in between.
    pub(super) fn merge_folded(&self, sealed: EpochNo) {
        let older = self.set(sealed);
        let open = self.set(EpochNo(sealed.0 + 1));
        self.hand_on(older, open, |shard| open.absorb(shard));
        self.keep_seen(older);
        self.readers.clear();
        older.rest();
        self.buffer.nudge();
        self.alarm.changed(open.size().bytes);
    }

    /// Empties an older set, of which the open one takes what it is to have, unless it has forgotten its own.
    pub(super) fn hand_on(&self, older: &ChangeSet, open: &ChangeSet, mut take: impl FnMut(Shard)) {
        // Nothing is dropped meanwhile: requests only try this lock.
        let _sealing = self.sealing.lock();
        let forgetful = open.is_forgetful();
        older.drain(|shard| {
            if !forgetful {
                take(shard);
            }
        });
    }
}
