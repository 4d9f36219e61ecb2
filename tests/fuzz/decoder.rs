//! Fuzzes the decoder that this program is named after. See Cargo.toml beside this.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rewindfs::format::decoders;

fuzz_target!(|data: &[u8]| (decoders::named(env!("CARGO_BIN_NAME")).read)(data));
