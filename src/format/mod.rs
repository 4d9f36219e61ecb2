//! The bytes of every object. Pure: nothing here does I/O, and nothing here can read a key's bytes.

pub mod block;
pub mod frame;

pub mod commit;
pub mod entry;
pub mod key;
pub mod page;

pub mod claim;
pub mod slot;

mod wire;
