//! The read-only front: a commit mounted as a file system.

pub mod tree_fs;
