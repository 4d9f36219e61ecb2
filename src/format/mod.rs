#![doc = include_str!("FORMAT.md")]

pub mod marker;

mod tlv;

pub mod slot;

pub mod block;

pub mod directory;

pub mod frame;

pub mod commit;

pub mod entry;

pub mod page;

pub mod claim;
