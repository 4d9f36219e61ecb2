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
    let seeds = seeds::gather(&fixtures).await;
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

/// The fuzzers are a workspace of their own (`tests/fuzz`): no build of ours would say that one is missing.
#[test]
fn each_decoder_has_a_fuzzer_of_its_name_and_each_fuzzer_a_decoder() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
    let program = |program: &toml::Value| {
        assert_eq!(program["path"].as_str(), Some("decoder.rs"));
        program["name"].as_str().unwrap().to_owned()
    };
    let programs = manifest["bin"].as_array().unwrap();
    let programs: Vec<_> = programs.iter().map(program).collect();
    let decoders: Vec<_> = ALL.iter().map(|decoder| decoder.name).collect();
    assert_eq!(programs, decoders);
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
