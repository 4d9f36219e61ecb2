//! The live mount: a FUSE front over the plain directory, which watches changes go by.
//!
//! `front` unpacks what the kernel sends, calls [`ops`], and replies. Nothing here or below can reach the network or the
//! repository: the imports are `fuse`, `epoch`, `source` and `journal`, so a mount never waits for a store.
//!
//! What programs may notice, compared with the directory itself:
//! - No `O_TMPFILE`, reflinks (`FICLONE`), collapsed or inserted ranges (all `EOPNOTSUPP`), no inode flags (`lsattr`: `ENOTTY`), no birth
//!   time in statx(2); syncfs(2) does not reach us.
//! - chown(2) of neither owner nor group by somebody who may not do it is not told from other requests, and does nothing.
//! - `O_DIRECT` goes through our memory, so it bypasses the kernel's cache of the mount but not that of the source.
//! - What is mounted inside the source shows as an empty directory; changes there answer `EXDEV`.
//! - A change made beside the mount shows after [`ops::Options::ttl`] (names, attributes, sizes) or at the next open (contents): 5 s, or 60 s
//!   where the mount lies over the source, which then can be changed only by who has a way past it.
//! - Locks are kept by the kernel for the mount alone; a program that locks the same file beside the mount does not meet them.

mod front;

pub mod ops;

mod inodes;

mod handles;

mod write_back;

pub use self::front::Live;
pub use self::ops::{Event, FsyncHook, Notice, Options};
