//! The rule of claims on hand-made histories, and against its plain definition on random ones.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::clock::Stamp;
use crate::id::Era;

const VOLUME: VolumeId = VolumeId([7; 16]);

fn claim(generation: u32, base: u64, session: u8) -> ClaimName {
    ClaimName {
        generation: Generation(generation),
        era: Era(0),
        base_seq: Seq(base),
        session: SessionId([session; 8]),
    }
}

fn commit(seq: u64, session: u8) -> CommitName {
    CommitName {
        era: Era(0),
        stamp: Stamp(seq),
        seq: Seq(seq),
        session: SessionId([session; 8]),
    }
}

fn lineage(claims: &[ClaimName]) -> Lineage {
    let mut keys: Vec<_> = claims
        .iter()
        .map(|name| layout::claim(VOLUME, name))
        .collect();
    keys.sort();
    Lineage::new(VOLUME, &keys)
}

fn admitted(by: ClaimName) -> Verdict {
    Verdict::Admitted { by, is_alone: true }
}

fn is_cut_off(lineage: &Lineage, name: CommitName) -> bool {
    matches!(lineage.judge(&name), Verdict::CutOff { .. })
}

#[test]
fn commits_beyond_a_later_claims_beginning_are_not_history() {
    let lineage = lineage(&[claim(1, 0, 1), claim(2, 9, 2)]);
    let (first, second) = (claim(1, 0, 1), claim(2, 9, 2));
    assert_eq!(lineage.judge(&commit(9, 1)), admitted(first));
    let cut_off = Verdict::CutOff {
        of: first,
        by: second,
    };
    assert_eq!(lineage.judge(&commit(10, 1)), cut_off);
    assert_eq!(lineage.judge(&commit(10, 2)), admitted(second));
    assert_eq!(lineage.judge(&commit(10, 3)), Verdict::Unclaimed);
}

#[test]
fn a_third_claim_does_not_bring_back_what_the_second_cut_off() {
    let lineage = lineage(&[claim(1, 0, 1), claim(2, 9, 2), claim(3, 20, 3)]);
    assert!(is_cut_off(&lineage, commit(15, 1)));
    assert_eq!(lineage.judge(&commit(15, 2)), admitted(claim(2, 9, 2)));
    assert!(is_cut_off(&lineage, commit(21, 2)));
}

#[test]
fn two_claims_of_one_generation_have_one_winner() {
    let (a, b) = (claim(2, 9, 1), claim(2, 9, 2));
    let lineage = lineage(&[a, b]);
    assert_eq!(lineage.latest(), Some(&a));
    assert_eq!(lineage.later_than(VOLUME, &b), Some(&a));
    assert_eq!(lineage.later_than(VOLUME, &a), None);
    assert!(is_cut_off(&lineage, commit(10, 2)));
    // The generation alone does not say which of the two is later, so both claims must be proven.
    for (commit, by) in [(commit(10, 1), a), (commit(9, 2), b)] {
        let expected = Verdict::Admitted {
            by,
            is_alone: false,
        };
        assert_eq!(lineage.judge(&commit), expected);
    }
}

#[test]
fn a_claim_that_vanished_is_still_fenced_by_a_later_one() {
    let lineage = lineage(&[claim(5, 3, 5)]);
    assert_eq!(
        lineage.later_than(VOLUME, &claim(4, 2, 4)),
        Some(&claim(5, 3, 5))
    );
    assert_eq!(lineage.later_than(VOLUME, &claim(6, 9, 6)), None);
    let cut_off = Unclaimed::CutOff(claim(5, 3, 5));
    let judge = |generation, seq| lineage.judge_unclaimed(Generation(generation), Seq(seq));
    assert_eq!(judge(4, 4), cut_off);
    assert_eq!(judge(4, 3), Unclaimed::Admitted);
    assert_eq!(judge(6, 9), Unclaimed::Admitted);
    // Which of the two would be later, nobody can tell any more.
    assert_eq!(judge(5, 4), Unclaimed::Undecided);
    assert_eq!(judge(5, 3), Unclaimed::Admitted);
}

#[test]
fn the_order_of_a_listing_decides_nothing() {
    let claims = [claim(1, 0, 1), claim(2, 9, 2), claim(3, 4, 3)];
    let mut keys: Vec<_> = claims
        .iter()
        .map(|name| layout::claim(VOLUME, name))
        .collect();
    keys.sort();
    let right = Lineage::new(VOLUME, &keys);
    keys.reverse();
    let wrong = Lineage::new(VOLUME, &keys);
    for seq in 0..12 {
        for session in 1..=3 {
            let name = commit(seq, session);
            assert_eq!(right.judge(&name), wrong.judge(&name));
        }
    }
}

#[test]
fn the_fast_judgement_is_the_plain_definition() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sessions: Vec<u8> = (1..20).collect();
        sessions.shuffle(&mut rng);
        let claims: Vec<_> = sessions[..rng.random_range(1..15)]
            .iter()
            .map(|&s| claim(rng.random_range(1..8), rng.random_range(0..30), s))
            .collect();
        let lineage = lineage(&claims);
        for mine in &claims {
            for seq in 0..32 {
                let name = commit(seq, mine.session.0[0]);
                let key = |claim: &ClaimName| layout::claim(VOLUME, claim);
                let cut = claims
                    .iter()
                    .any(|c| key(c) < key(mine) && c.base_seq.0 < seq);
                let admitted = matches!(lineage.judge(&name), Verdict::Admitted { .. });
                assert_eq!(admitted, !cut, "seed {seed}, {name:?}, {claims:?}");
            }
        }
    }
}
