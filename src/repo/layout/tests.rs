//! Names round-trip, sort as wanted, and are read back strictly. Random inputs; the seed is in each failure message.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

const ROUNDS: u64 = 500;

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn bytes<const N: usize>(rng: &mut StdRng) -> [u8; N] {
    let mut out = [0; N];
    rng.fill_bytes(&mut out);
    out
}

/// Numbers near the ends and near powers of two find more than uniform ones.
fn edgy(rng: &mut StdRng) -> u64 {
    let shift = rng.random_range(0..64);
    match rng.random_range(0..4) {
        0 => rng.random::<u64>() >> shift,
        1 => u64::MAX - (rng.random::<u64>() >> shift),
        2 => 1 << shift,
        _ => (1 << shift) - 1,
    }
}

fn commit_name(rng: &mut StdRng) -> CommitName {
    CommitName {
        era: Era(edgy(rng) as u32),
        stamp: Stamp(edgy(rng)),
        seq: Seq(edgy(rng)),
        session: SessionId(bytes(rng)),
    }
}

fn claim_name(rng: &mut StdRng) -> ClaimName {
    ClaimName {
        generation: Generation(edgy(rng) as u32),
        era: Era(edgy(rng) as u32),
        base_seq: Seq(edgy(rng)),
        session: SessionId(bytes(rng)),
    }
}

#[test]
fn every_name_is_read_back_as_what_was_written() {
    for seed in 0..ROUNDS {
        let rng = &mut rng(seed);
        let volume = VolumeId(bytes(rng));
        let name = commit_name(rng);
        assert_eq!(
            parse_commit(volume, &commit(volume, &name)),
            Some(name),
            "seed {seed}"
        );
        let name = claim_name(rng);
        assert_eq!(
            parse_claim(volume, &claim(volume, &name)),
            Some(name),
            "seed {seed}"
        );
        for kind in [SlotKind::Password, SlotKind::Recovery] {
            let name = SlotName {
                kind,
                id: bytes(rng),
            };
            assert_eq!(parse_key(&slot(name)), Some(KeyName::Slot(name)));
        }
        let epoch = edgy(rng) as u16;
        assert_eq!(
            parse_key(&volume_key(volume, epoch)),
            Some(KeyName::Volume { volume, epoch }),
            "seed {seed}"
        );
    }
}

#[test]
fn a_list_gives_commits_by_era_then_time_newest_first() {
    for seed in 0..ROUNDS {
        let rng = &mut rng(seed);
        let volume = VolumeId(bytes(rng));
        let (a, b) = (commit_name(rng), commit_name(rng));
        let newer = (a.era, a.stamp).cmp(&(b.era, b.stamp));
        let listed = commit(volume, &b).cmp(&commit(volume, &a));
        if newer.is_ne() {
            assert_eq!(newer, listed, "seed {seed}");
        }
    }
}

#[test]
fn listing_from_a_time_gives_exactly_the_commits_not_later_than_it() {
    for seed in 0..ROUNDS {
        let rng = &mut rng(seed);
        let volume = VolumeId(bytes(rng));
        let name = commit_name(rng);
        let asked = Stamp(if rng.random() {
            name.stamp.0
        } else {
            edgy(rng)
        });
        let start = commits_not_later(volume, name.era, asked);
        assert_eq!(
            commit(volume, &name) > start,
            name.stamp <= asked,
            "seed {seed}"
        );
    }
}

#[test]
fn a_list_gives_the_highest_generation_first() {
    for seed in 0..ROUNDS {
        let rng = &mut rng(seed);
        let volume = VolumeId(bytes(rng));
        let (a, b) = (claim_name(rng), claim_name(rng));
        if a.generation != b.generation {
            assert_eq!(
                a.generation > b.generation,
                claim(volume, &a) < claim(volume, &b),
                "seed {seed}"
            );
        }
    }
}

/// Every single-character edit of a good name is either refused or reads as a different name that it is the exact
/// form of: two spellings never mean one thing.
#[test]
fn there_is_one_spelling_for_each_name() {
    let rng = &mut rng(1);
    let volume = VolumeId(bytes(rng));
    let good = commit(volume, &commit_name(rng));
    let claimed = claim(volume, &claim_name(rng));
    let slotted = slot(SlotName {
        kind: SlotKind::Password,
        id: bytes(rng),
    });
    for key in [
        good,
        claimed,
        slotted,
        volume_key(volume, 3),
        lease(volume),
        format(),
    ] {
        for edited in edits(key.as_str()) {
            let edited = ObjectKey::new(edited);
            if let Some(name) = parse_commit(volume, &edited) {
                assert_eq!(commit(volume, &name), edited);
            }
            if let Some(name) = parse_claim(volume, &edited) {
                assert_eq!(claim(volume, &name), edited);
            }
            match parse_key(&edited) {
                Some(KeyName::Slot(name)) => assert_eq!(slot(name), edited),
                Some(KeyName::Volume { volume, epoch }) => {
                    assert_eq!(volume_key(volume, epoch), edited);
                }
                None => {}
            }
        }
    }
}

fn edits(text: &str) -> Vec<String> {
    let mut out = vec![format!("{text}0"), format!("{text}.0"), format!("{text}/")];
    for at in 0..text.len() {
        let (head, tail) = text.split_at(at);
        out.push(format!("{head}{}", &tail[1..]));
        for with in ["0", "f", "A", "+", "-", ".", "/", " ", "g"] {
            out.push(format!("{head}{with}{}", &tail[1..]));
            out.push(format!("{head}{with}{tail}"));
        }
    }
    out
}

#[test]
fn names_of_another_volume_or_with_other_characters_are_none() {
    let rng = &mut rng(2);
    let (volume, other) = (VolumeId(bytes(rng)), VolumeId(bytes(rng)));
    let name = commit_name(rng);
    assert_eq!(parse_commit(other, &commit(volume, &name)), None);
    let claimed = claim_name(rng);
    assert_eq!(parse_claim(other, &claim(volume, &claimed)), None);
    for text in [
        "", "k/", "k/s-", "k/s-é", "k/s-pé", "k/v-", "k/v--", "k/x-00", "format",
    ] {
        assert_eq!(parse_key(&ObjectKey::new(text)), None, "{text}");
    }
    let prefix = commits_prefix(volume);
    for text in ["é", "0000000é.", "..", "0.0.0", ""] {
        let key = ObjectKey::new(format!("{prefix}{text}"));
        assert_eq!(parse_commit(volume, &key), None, "{text}");
    }
}

#[test]
fn names_are_short_and_plain_enough_for_every_store() {
    let rng = &mut rng(3);
    let volume = VolumeId(bytes(rng));
    let block_id = BlockId {
        key_epoch: 0,
        class: BlockClass::Tree,
        session: SessionId(bytes(rng)),
        number: 7,
    };
    let keys = [
        format(),
        lease(volume),
        volume_key(volume, u16::MAX),
        commit(volume, &commit_name(rng)),
        claim(volume, &claim_name(rng)),
        block(volume, block_id).unwrap(),
    ];
    for key in keys {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/.-".contains(&b);
        assert!(key.as_str().bytes().all(plain), "{key}");
        assert!(key.as_str().len() < 128, "{key}");
        assert!(!key.as_str().contains("//"), "{key}");
    }
}

#[test]
fn a_commit_has_no_block_name() {
    let id = BlockId {
        key_epoch: 0,
        class: BlockClass::Commit,
        session: SessionId([0; 8]),
        number: 0,
    };
    assert_eq!(block(VolumeId([0; 16]), id), None);
}
