//! Cutting by content: bounds, stability, and the same cuts however the bytes arrive.

use super::*;
use crate::crypto::{VolumeKeys, random_padding};

fn gear() -> Gear {
    Gear::new(VolumeKeys::for_tests().gear())
}

/// All chunks of `data`, fed in pieces of `piece_len`.
fn chunks(gear: &Gear, data: &[u8], piece_len: usize) -> Vec<Chunk> {
    let mut chunker = Chunker::new(gear);
    let mut chunks = Vec::new();
    for piece in data.chunks(piece_len) {
        chunker.feed(piece);
        chunks.extend(std::iter::from_fn(|| chunker.next_chunk()));
    }
    chunks.extend(chunker.finish());
    chunks
}

#[test]
fn chunks_join_to_the_file_and_keep_their_bounds() {
    let gear = gear();
    let noise = random_padding(12 << 20);
    for data in [
        &noise[..],
        &[0; 5 << 20],
        &noise[..CHUNK_LEN_MAX],
        &noise[..1],
        &[],
    ] {
        let chunks = chunks(&gear, data, 1 << 20);
        let joined: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| chunk.bytes.to_vec())
            .collect();
        assert!(joined == data);
        let mut offset = 0;
        for (n, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk.offset, offset);
            offset += chunk.bytes.len() as u64;
            assert!(chunk.bytes.len() <= CHUNK_LEN_MAX);
            assert!(chunk.bytes.len() >= CHUNK_LEN_MIN || n + 1 == chunks.len());
        }
    }
}

#[test]
fn cuts_do_not_depend_on_how_the_file_is_fed() {
    let gear = gear();
    let noise = random_padding(4 << 20);
    let whole = chunks(&gear, &noise, noise.len());
    assert_eq!(whole, chunks(&gear, &noise, 70_001));
    assert_eq!(whole, chunks(&gear, &noise, CHUNK_LEN_MAX));
}

/// The reason for all this: what follows an insertion is found again.
#[test]
fn a_byte_in_front_changes_only_the_first_chunks() {
    let gear = gear();
    let keys = VolumeKeys::for_tests();
    let ids = |data: &[u8]| -> Vec<_> {
        let chunks = chunks(&gear, data, 1 << 20);
        chunks
            .iter()
            .map(|chunk| keys.content_id(&chunk.bytes))
            .collect()
    };
    let noise = random_padding(20 << 20);
    let before = ids(&noise);
    let after = ids(&[&[0x55], &noise[..]].concat());
    let new = after.iter().filter(|id| !before.contains(id)).count();
    assert!(new <= 6, "{new} of {} chunks are new", after.len());
}

#[test]
fn lengths_gather_around_the_average() {
    let gear = gear();
    let noise = random_padding(64 << 20);
    let count = chunks(&gear, &noise, 1 << 20).len();
    let average = noise.len() / count;
    let around = CHUNK_LEN_AVERAGE * 3 / 4..CHUNK_LEN_AVERAGE * 5 / 4;
    assert!(around.contains(&average), "{average}");
}

/// Who lacks the key cannot tell where a known file would be cut.
#[test]
fn another_key_cuts_elsewhere() {
    let other = Gear::new(Box::new(std::array::from_fn(|_| {
        u64::from_le_bytes(crate::crypto::random())
    })));
    let noise = random_padding(8 << 20);
    let ends = |gear: &Gear| -> Vec<u64> {
        let chunks = chunks(gear, &noise, 1 << 20);
        chunks.iter().map(|chunk| chunk.offset).skip(1).collect()
    };
    let (one, two) = (ends(&gear()), ends(&other));
    assert!(one.iter().filter(|end| two.contains(end)).count() <= 2);
}
