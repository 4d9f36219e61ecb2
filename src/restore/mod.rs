//! Restore: a snapshot, or parts of it, written to a plain directory.

pub mod plan;
