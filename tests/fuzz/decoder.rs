//! Fuzzes the decoder that this program is named after. See Cargo.toml beside this.
//!
//! A finding is a panic, an input over which it takes seconds, and one for which it allocates more than that input warrants: what a length
//! field claims must not decide how much memory is taken.

#![no_main]

use std::alloc::System;

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use rewindfs::format::decoders;
use rewindfs::format::frame::FRAME_PLAIN_MAX;

/// Stops the program where more than the limit is asked for.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

const DECODER: &str = env!("CARGO_BIN_NAME");

/// What may be allocated for each byte of input, with all that the decoder's door makes of it to compare. A page is the worst: an entry of
/// five bytes becomes one of 56 whose key has 265, twice.
const EACH_BYTE: usize = 160;
/// What may be allocated for any input: less than two bytes of length can claim.
const ANY: usize = 16 << 10;
/// A compressed payload may honestly be as much larger as a frame may hold. Then it is packed, unpacked and compared.
const ENVELOPE: usize = 4 * FRAME_PLAIN_MAX;

fuzz_target!(|data: &[u8]| {
    let room = match DECODER {
        "envelope" => ENVELOPE,
        _ => ANY,
    };
    let limit = MEMORY.allocated() + data.len() * EACH_BYTE + room;
    MEMORY.set_limit(limit).expect("more than is allocated");
    (decoders::named(DECODER).read)(data);
    MEMORY.set_limit(usize::MAX).expect("no limit");
});
