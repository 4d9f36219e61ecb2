#![doc = include_str!("FORMAT.md")]

mod tlv;

mod wire;

pub mod marker;

pub mod slot;

pub mod block;

pub mod directory;

pub mod frame;

pub mod commit;

pub mod entry;

pub mod key;

pub mod page;

pub mod claim;

#[cfg(any(test, fuzzing))]
pub mod decoders;
