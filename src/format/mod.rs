#![doc = include_str!("FORMAT.md")]

pub mod marker;

pub mod slot;

pub mod block;

pub mod frame;

pub mod commit;

pub mod entry;

pub mod page;

pub mod claim;
