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

#[test]
fn commits_beyond_a_later_claims_beginning_are_not_history() {
    let lineage = lineage(&[claim(1, 0, 1), claim(2, 9, 2)]);
    assert_eq!(
        lineage.judge(&commit(9, 1)),
        Verdict::Admitted(Generation(1))
    );
    assert_eq!(
        lineage.judge(&commit(10, 1)),
        Verdict::CutOff(claim(2, 9, 2))
    );
    assert_eq!(
        lineage.judge(&commit(10, 2)),
        Verdict::Admitted(Generation(2))
    );
    assert_eq!(lineage.judge(&commit(10, 3)), Verdict::Unclaimed);
}

#[test]
fn a_third_claim_does_not_bring_back_what_the_second_cut_off() {
    let lineage = lineage(&[claim(1, 0, 1), claim(2, 9, 2), claim(3, 20, 3)]);
    assert!(matches!(lineage.judge(&commit(15, 1)), Verdict::CutOff(_)));
    assert_eq!(
        lineage.judge(&commit(15, 2)),
        Verdict::Admitted(Generation(2))
    );
    assert!(matches!(lineage.judge(&commit(21, 2)), Verdict::CutOff(_)));
}

#[test]
fn two_claims_of_one_generation_have_one_winner() {
    let (a, b) = (claim(2, 9, 1), claim(2, 9, 2));
    let lineage = lineage(&[a, b]);
    assert_eq!(lineage.latest(), Some(&a));
    assert_eq!(lineage.later_than(VOLUME, &b), Some(&a));
    assert_eq!(lineage.later_than(VOLUME, &a), None);
    assert!(matches!(lineage.judge(&commit(10, 2)), Verdict::CutOff(_)));
    assert!(matches!(
        lineage.judge(&commit(10, 1)),
        Verdict::Admitted(_)
    ));
}

#[test]
fn a_claim_that_vanished_is_still_fenced_by_a_later_one() {
    let lineage = lineage(&[claim(5, 3, 5)]);
    assert_eq!(
        lineage.later_than(VOLUME, &claim(4, 2, 4)),
        Some(&claim(5, 3, 5))
    );
    assert_eq!(lineage.later_than(VOLUME, &claim(6, 9, 6)), None);
    assert!(matches!(
        lineage.judge_unclaimed(Generation(4), Seq(4)),
        Verdict::CutOff(_)
    ));
    assert!(matches!(
        lineage.judge_unclaimed(Generation(4), Seq(3)),
        Verdict::Admitted(_)
    ));
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
                let admitted = matches!(lineage.judge(&name), Verdict::Admitted(_));
                assert_eq!(admitted, !cut, "seed {seed}, {name:?}, {claims:?}");
            }
        }
    }
}
