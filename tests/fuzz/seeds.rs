//! Writes the fuzzers' first examples, `corpus/<decoder>/<number>`, from the golden files: `cargo run --example fuzz-seeds`.
//! `tests/fuzz/all` does.

#![allow(
    clippy::unwrap_used,
    reason = "a tool of the tests that cannot go on stops best where it stands"
)]

use std::fs;
use std::path::Path;

#[path = "../support/seeds.rs"]
mod seeds;

fn main() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let seeds = runtime.block_on(seeds::gather(&tests.join("fixtures")));
    for (decoder, examples) in seeds {
        let corpus = tests.join("fuzz/corpus").join(decoder);
        fs::create_dir_all(&corpus).expect("a folder for the corpus");
        for (number, example) in examples.iter().enumerate() {
            fs::write(corpus.join(number.to_string()), example).expect("an example");
        }
    }
}
