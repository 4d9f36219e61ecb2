//! flusher
mod error; mod session; mod policy; mod dedup;
mod capture; mod consolidate; mod entries; mod cut; mod pack; mod encrypt; mod pipeline; mod spool; mod manifest; mod tree_blocks;
