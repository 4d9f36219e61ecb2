//! The names a writer gives: block numbers, sequence numbers, stamps and eras. Pure but for one random session id.
//!
//! No name is ever given twice: each carries the session, and a session counts its blocks upward. A wall clock that
//! stepped back by more than a minute begins a new era under a new session (FORMAT.md, object names), so that stamps
//! rise within an era whatever the clock does.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::clock::Stamp;
use crate::format::entry::CommitName;
use crate::id::{BlockClass, BlockId, Era, Seq, SessionId};

/// The step back of the wall clock, in milliseconds, beyond which a new era begins. Smaller ones are usual (NTP) and
/// are bridged by letting the stamp run ahead.
pub(crate) const STEP_BACK_MAX_MS: u64 = 60_000;

/// One life of a writer.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    key_epoch: u16,
    era: Era,
    stamp: Stamp,
    wall: Stamp,
    seq: Seq,
    next_block: AtomicU32,
}

/// The newest commit as far as names go: what the next one must follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Follows {
    /// Its name.
    pub(crate) name: CommitName,
    /// The wall clock at its seal.
    pub(crate) wall: Stamp,
}

impl Session {
    /// The session `id`, claimed for `era`, whose first commit follows `base` (none for a volume's first).
    pub(crate) fn new(
        id: SessionId,
        era: Era,
        key_epoch: u16,
        base: Option<Follows>,
        now: Stamp,
    ) -> Self {
        let same_era = base.filter(|base| base.name.era == era);
        Self {
            id,
            key_epoch,
            era,
            stamp: same_era.map_or(Stamp(0), |base| base.name.stamp),
            wall: same_era.map_or(now, |base| base.wall),
            seq: base.map_or(Seq(0), |base| base.name.seq),
            next_block: AtomicU32::new(0),
        }
    }

    /// A block name never given before.
    ///
    /// # Panics
    /// After 2^32 - 1 blocks, which take years at the fastest seal.
    pub(crate) fn block(&self, class: BlockClass) -> BlockId {
        let number = self.next_block.fetch_add(1, Ordering::Relaxed);
        assert!(
            number < u32::MAX,
            "a session of 2^32 blocks takes years at the fastest seal"
        );
        BlockId {
            key_epoch: self.key_epoch,
            class,
            session: self.id,
            number,
        }
    }

    /// Whether the clock has stepped back so far since the last commit that a new era must begin.
    pub(crate) fn stepped_back(&self, wall: Stamp) -> bool {
        wall.0.saturating_add(STEP_BACK_MAX_MS) < self.wall.0
    }

    /// Goes on in a new era under a new session, both of which have been claimed.
    pub(crate) fn begin_era(&mut self, id: SessionId, era: Era, wall: Stamp) {
        debug_assert!(era >= self.era, "a claim never goes back");
        // The same era if the clock has stepped forward again before the claim was made.
        if era > self.era {
            self.stamp = Stamp(0);
        }
        self.id = id;
        self.era = era;
        self.wall = wall;
    }

    /// The name that a commit sealed at `wall` would have. It is given only by [`Self::confirm`], so that an epoch
    /// that fails to become a commit leaves no hole in the sequence.
    pub(crate) fn next_name(&self, wall: Stamp) -> CommitName {
        CommitName {
            era: self.era,
            stamp: Stamp(wall.0.max(self.stamp.0 + 1)),
            seq: Seq(self.seq.0 + 1),
            session: self.id,
        }
    }

    /// The commit `name`, sealed at `wall`, is final.
    pub(crate) fn confirm(&mut self, name: &CommitName, wall: Stamp) {
        debug_assert!(name.seq.0 == self.seq.0 + 1 && name.era == self.era);
        self.stamp = name.stamp;
        self.seq = name.seq;
        self.wall = wall;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(era: u32, base: Option<Follows>, now: u64) -> Session {
        Session::new(SessionId([7; 8]), Era(era), 1, base, Stamp(now))
    }

    fn follows(era: u32, stamp: u64, seq: u64, wall: u64) -> Option<Follows> {
        let name = CommitName {
            era: Era(era),
            stamp: Stamp(stamp),
            seq: Seq(seq),
            session: SessionId([1; 8]),
        };
        Some(Follows {
            name,
            wall: Stamp(wall),
        })
    }

    #[test]
    fn stamps_rise_when_the_clock_stands_still_or_steps_back_a_little() {
        let mut s = session(1, None, 1_000_000);
        let first = s.next_name(Stamp(1_000_000));
        s.confirm(&first, Stamp(1_000_000));
        for wall in [1_000_000, 990_000, 999_999] {
            let wall = Stamp(wall);
            assert!(!s.stepped_back(wall));
            let before = s.next_name(wall);
            s.confirm(&before, wall);
            assert!(before.stamp > first.stamp && before.seq > first.seq);
            assert_eq!(before.era, first.era);
        }
    }

    #[test]
    fn a_step_back_of_more_than_a_minute_begins_an_era_that_sorts_last() {
        let mut s = session(1, None, 1_000_000);
        let before = s.next_name(Stamp(1_000_000));
        s.confirm(&before, Stamp(1_000_000));
        let wall = Stamp(1_000_000 - STEP_BACK_MAX_MS - 1);
        assert!(s.stepped_back(wall));
        s.begin_era(SessionId([8; 8]), Era(2), wall);
        let after = s.next_name(wall);
        assert_eq!(after.stamp, wall);
        assert!(after > before && after.seq.0 == before.seq.0 + 1);
        assert!(!s.stepped_back(wall));
    }

    #[test]
    fn a_restart_follows_its_base() {
        let base = follows(3, 500_000, 41, 400_000);
        let name = session(3, base, 450_000).next_name(Stamp(450_000));
        assert_eq!((name.era, name.seq), (Era(3), Seq(42)));
        assert_eq!(name.stamp, Stamp(500_001), "the stamp had run ahead");
        let s = session(4, base, 100_000);
        let name = s.next_name(Stamp(100_000));
        assert_eq!((name.era, name.stamp), (Era(4), Stamp(100_000)));
        assert!(
            !s.stepped_back(Stamp(100_000)),
            "its claim began the era already"
        );
    }

    #[test]
    fn a_failed_commit_leaves_no_hole_and_blocks_are_never_named_twice() {
        let s = session(1, None, 5);
        assert_eq!(s.next_name(Stamp(5)), s.next_name(Stamp(5)));
        let (a, b) = (s.block(BlockClass::Data), s.block(BlockClass::Tree));
        assert_ne!(a.number, b.number);
    }
}
