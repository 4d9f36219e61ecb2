//! The layers of the library that the decoders are made of, compiled from its own sources and by themselves: nothing above them (stores,
//! mounts, the AWS SDK) has to be built to fuzz them. Under the library's name, for `decoder.rs` knows no other.

#![allow(dead_code, reason = "layers that are not here call it")]

#[path = "../../src/id.rs"]
pub mod id;

#[path = "../../src/clock.rs"]
pub mod clock;

#[path = "../../src/sys/mod.rs"]
pub mod sys;

#[path = "../../src/buffers.rs"]
pub mod buffers;

#[path = "../../src/compress.rs"]
pub mod compress;

#[path = "../../src/crypto/mod.rs"]
pub mod crypto;

#[path = "../../src/format/mod.rs"]
pub mod format;
