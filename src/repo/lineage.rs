//! Which commits are history: the rule of claims, decided from names alone. Pure. FORMAT.md, "Claims and lease".
//!
//! Claims are ordered by their names, so every reader of every store finds the same order: a higher generation is later, and of
//! two with one generation (possible where conditional writes are ignored) the one whose name sorts first is later. A commit is
//! history unless a later claim than its writer's begins before it. `commits.rs` asks; it also proves a claim before it
//! believes that one cuts anything off.

use std::collections::{BTreeSet, HashMap};

use crate::format::claim::ClaimName;
use crate::format::entry::CommitName;
use crate::id::{Generation, ObjectKey, Seq, SessionId, VolumeId};
use crate::repo::layout;

/// All claims on a volume, latest first.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    claims: Vec<ClaimName>,
    /// For each claim, the claim later than it that begins earliest: what cuts its commits off.
    cut_by: Vec<Option<ClaimName>>,
    of_session: HashMap<SessionId, usize>,
}

/// What becomes of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Part of history, if its body states the generation of this claim.
    Admitted {
        by: ClaimName,
        /// No other claim has its generation. So the generation that the commit's own body states puts it in order, and the claim need
        /// not be proven; otherwise its name decides, which anybody could have made.
        is_alone: bool,
    },
    /// Its writer's claim is the first; it lies beyond the beginning of the second, which is later.
    CutOff { of: ClaimName, by: ClaimName },
    /// Its session has no claim (any more): its body's generation decides, by [`Lineage::judge_unclaimed`].
    Unclaimed,
}

/// What becomes of a commit without a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unclaimed {
    /// Part of history.
    Admitted,
    /// Beyond the beginning of this later claim.
    CutOff(ClaimName),
    /// It would be cut off by a claim of its own generation if that is later, which nobody can tell any more.
    Undecided,
}

impl Lineage {
    /// From the keys of a LIST; names that are none are passed over. They are put in order here: the store is not believed.
    pub(super) fn new<'a>(volume: VolumeId, keys: impl IntoIterator<Item = &'a ObjectKey>) -> Self {
        let mut lineage = Self::default();
        let mut earliest: Option<ClaimName> = None;
        let keys: BTreeSet<&ObjectKey> = keys.into_iter().collect();
        for name in keys
            .into_iter()
            .filter_map(|key| layout::parse_claim(volume, key))
        {
            lineage
                .of_session
                .entry(name.session)
                .or_insert(lineage.claims.len());
            lineage.claims.push(name);
            lineage.cut_by.push(earliest);
            if earliest.is_none_or(|cut| name.base_seq < cut.base_seq) {
                earliest = Some(name);
            }
        }
        lineage
    }

    /// The latest claim.
    pub(super) fn latest(&self) -> Option<&ClaimName> {
        self.claims.first()
    }

    /// Whether a session has ever claimed the volume.
    pub(super) fn knows(&self, session: SessionId) -> bool {
        self.of_session.contains_key(&session)
    }

    /// The latest claim, if it is later than `mine`; also when `mine` is not among them.
    pub(super) fn later_than(&self, volume: VolumeId, mine: &ClaimName) -> Option<&ClaimName> {
        self.all_later_than(volume, mine).next()
    }

    /// The claims later than `mine`, latest first.
    pub(super) fn all_later_than(
        &self,
        volume: VolumeId,
        mine: &ClaimName,
    ) -> impl Iterator<Item = &ClaimName> {
        let mine = layout::claim(volume, mine);
        let later = move |claim: &&ClaimName| layout::claim(volume, claim) < mine;
        self.claims.iter().take_while(later)
    }

    /// Judges a commit by its name.
    pub(super) fn judge(&self, name: &CommitName) -> Verdict {
        let Some(&at) = self.of_session.get(&name.session) else {
            return Verdict::Unclaimed;
        };
        let mine = self.claims[at];
        match self.cut_by[at] {
            Some(by) if by.base_seq < name.seq => Verdict::CutOff { of: mine, by },
            _ => Verdict::Admitted {
                by: mine,
                is_alone: self.is_alone(at),
            },
        }
    }

    /// Whether no claim but this one has its generation. They stand in order.
    fn is_alone(&self, at: usize) -> bool {
        let generation = self.claims[at].generation;
        let same = |claim: Option<&ClaimName>| claim.is_some_and(|c| c.generation == generation);
        let before = at.checked_sub(1).and_then(|before| self.claims.get(before));
        !same(before) && !same(self.claims.get(at + 1))
    }

    /// Judges a commit of a session without a claim by the generation that its authenticated body states.
    pub(super) fn judge_unclaimed(&self, generation: Generation, seq: Seq) -> Unclaimed {
        let cuts = |claim: &&ClaimName| claim.base_seq < seq;
        let later = self.claims.iter().filter(|c| c.generation > generation);
        if let Some(by) = later.filter(cuts).min_by_key(|claim| claim.base_seq) {
            return Unclaimed::CutOff(*by);
        }
        let mut same = self.claims.iter().filter(|c| c.generation == generation);
        match same.any(|claim| cuts(&claim)) {
            true => Unclaimed::Undecided,
            false => Unclaimed::Admitted,
        }
    }
}

#[cfg(test)]
mod tests;
