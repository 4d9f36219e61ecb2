//! Writes the fuzzers' first examples, `corpus/<decoder>/<number>`, from the golden files. See Cargo.toml beside this.

use std::fs;
use std::path::Path;

#[path = "../support/seeds.rs"]
mod seeds;

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let seeds = runtime.block_on(seeds::gather(&here.join("../fixtures")));
    for (decoder, examples) in seeds {
        let corpus = here.join("corpus").join(decoder);
        fs::create_dir_all(&corpus).expect("a folder for the corpus");
        for (number, example) in examples.iter().enumerate() {
            fs::write(corpus.join(number.to_string()), example).expect("an example");
        }
    }
}
