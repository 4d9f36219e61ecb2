//! The decoders, thrown at for a short while: the golden files' own bytes, and what a few thousand mutations make of them. The fuzzers of
//! `tests/fuzz` do the same for as long as somebody lets them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

#[path = "../../../tests/support/seeds.rs"]
mod seeds;

/// Mutations of each decoder's examples: a few seconds in all.
const MUTATIONS: u64 = 10_000;

#[tokio::test]
async fn no_mutation_of_what_was_written_upsets_a_decoder() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut seeds = seeds::gather(&fixtures).await;
    seeds.insert("slot_contents", vec![contents()]);
    for decoder in &ALL {
        let examples = &seeds.get(decoder.name).map_or(&[][..], Vec::as_slice);
        assert!(!examples.is_empty(), "no example of a {}", decoder.name);
        for example in *examples {
            (decoder.read)(example);
        }
        for seed in 0..MUTATIONS {
            let mut rng = StdRng::seed_from_u64(seed);
            let bytes = mutated(examples, &mut rng);
            let read = catch_unwind(AssertUnwindSafe(|| (decoder.read)(&bytes)));
            assert!(read.is_ok(), "{}, seed {seed}: {bytes:02x?}", decoder.name);
        }
    }
}

/// The fields of a slot with one that nobody knows.
fn contents() -> Vec<u8> {
    let mut fields = crate::format::tlv::Fields::default();
    for (kind, value) in [
        (1, &(1u64 << 20).to_le_bytes()[..]),
        (2, &256u16.to_le_bytes()),
        (3, &[1, 3]),
        (4, &[0; 8]),
        (5, &[1, 0, 0, 0, 0, 0, 0, 0]),
        (9, b"later"),
    ] {
        fields.put(kind, value);
    }
    fields.into_bytes()
}

/// One of the examples with some of it changed, cut, doubled or taken from another.
fn mutated(examples: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = examples[rng.random_range(0..examples.len())].clone();
    for _ in 0..rng.random_range(1..5) {
        if bytes.is_empty() {
            bytes.push(rng.random());
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..8) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            // Edges of numbers find more than what lies between.
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
            3 => bytes.truncate(at),
            4 => {
                let len = rng.random_range(0..=(bytes.len() - at).min(40));
                let part = bytes[at..at + len].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let len = rng.random_range(0..=(bytes.len() - at).min(8));
                bytes.drain(at..at + len);
            }
            6 => {
                let other = &examples[rng.random_range(0..examples.len())];
                let from = rng.random_range(0..=other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let mut noise = [0; 4];
                rng.fill_bytes(&mut noise);
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&noise[..end - at]);
            }
        }
    }
    bytes
}
