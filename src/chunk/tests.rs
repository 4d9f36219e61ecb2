//! Cutting by content: bounds, stability, and the same cuts however the bytes arrive.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::crypto::VolumeKeys;

/// The same at every run: what is said below of averages holds for most noise, not for all.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(20).fill_bytes(&mut bytes);
    bytes
}

fn gear() -> Gear {
    Gear::new(VolumeKeys::for_tests().gear())
}

/// All chunks of `data`, in order.
fn chunks<'a>(gear: &Gear, mut data: &'a [u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    while !data.is_empty() {
        let (chunk, rest) = data.split_at(gear.cut(data));
        chunks.push(chunk);
        data = rest;
    }
    chunks
}

#[test]
fn chunks_join_to_the_file_and_keep_their_bounds() {
    let gear = gear();
    let noise = noise(12 << 20);
    for data in [
        &noise[..],
        &[0; 5 << 20],
        &noise[..CHUNK_LEN_MAX],
        &noise[..1],
        &[],
    ] {
        let chunks = chunks(&gear, data);
        assert!(chunks.concat() == data);
        for (n, chunk) in chunks.iter().enumerate() {
            assert!(chunk.len() <= CHUNK_LEN_MAX);
            assert!(chunk.len() >= CHUNK_LEN_MIN || n + 1 == chunks.len());
        }
    }
}

/// So that a reader needs no more than this in memory.
#[test]
fn the_longest_chunk_is_all_that_a_cut_looks_at() {
    let gear = gear();
    let noise = noise(4 << 20);
    for chunk in chunks(&gear, &noise) {
        let from = chunk.as_ptr() as usize - noise.as_ptr() as usize;
        let seen = &noise[from..noise.len().min(from + CHUNK_LEN_MAX)];
        assert_eq!(gear.cut(seen), chunk.len());
    }
}

/// The reason for all this: what follows an insertion is found again.
#[test]
fn a_byte_in_front_changes_only_the_first_chunks() {
    let gear = gear();
    let keys = VolumeKeys::for_tests();
    let ids = |data: &[u8]| -> Vec<_> {
        chunks(&gear, data)
            .into_iter()
            .map(|chunk| keys.content_id(chunk))
            .collect()
    };
    let noise = noise(20 << 20);
    let before = ids(&noise);
    let after = ids(&[&[0x55], &noise[..]].concat());
    let new = after.iter().filter(|id| !before.contains(id)).count();
    assert!(new <= 6, "{new} of {} chunks are new", after.len());
}

#[test]
fn lengths_gather_around_the_average() {
    let gear = gear();
    let noise = noise(64 << 20);
    let count = chunks(&gear, &noise).len();
    let average = noise.len() / count;
    let around = CHUNK_LEN_AVERAGE * 3 / 4..CHUNK_LEN_AVERAGE * 5 / 4;
    assert!(around.contains(&average), "{average}");
}

/// Who lacks the key cannot tell where a known file would be cut.
#[test]
fn another_key_cuts_elsewhere() {
    let mut words = SmallRng::seed_from_u64(21);
    let other = Gear::new(Box::new(std::array::from_fn(|_| words.next_u64())));
    let noise = noise(8 << 20);
    let ends = |gear: &Gear| -> Vec<usize> {
        let lengths = chunks(gear, &noise).into_iter().map(<[u8]>::len);
        lengths
            .scan(0, |end, len| {
                *end += len;
                Some(*end)
            })
            .collect()
    };
    let (one, two) = (ends(&gear()), ends(&other));
    assert!(one.iter().filter(|end| two.contains(end)).count() <= 3);
}
