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
//!
//! # What it costs
//!
//! As fractions of the disk below: `scripts/bench/live`, medians, two virtual processors, ext4, Linux 6.18, and what stands in the way of more.
//!
//! | work | of native | because |
//! |---|---|---|
//! | sequential write, fsync at the end | .53 to .68 | bytes are copied three times: into the kernel's cache of the mount, to us, into that of the source. The disk works meanwhile (`write_back`): without that .45 |
//! | page written and fsynced | .30 to .44 | two requests, each of which wakes a thread here and then the program: 25 us each, beside 200 us natively, which would leave .8. In the benchmark, right after a large file has been written, the disk also takes twice as long for us; why is not known |
//! | sequential read, cold | .6 to 2.0 | read-ahead of 1 MiB hides the requests (`front`); bytes are copied twice. The disk was not the same from one second to the next |
//! | sequential read, cached | .30 to .43 | no request is made: FUSE keeps pages one by one, ext4 many together |
//! | random read of a page, cached | .81 | the same |
//! | stat of a file just made | .11 | the kernel does not believe its own attributes after a write, and asks once |
//! | create, unlink | .12, .15 | one request and, for a file made, two more: to write and to close it |
//! | unpacking, `rm -rf`, `find`, `grep -r`, `git status` | .09, .17, .19, .13, .16 | the same, for each file |
//!
//! Kernel passthrough for handles that only read would take the cost of reading away, and is not used: while one is open, the kernel (6.18,
//! `fuse_file_io_open`) refuses every handle of the same file without it, and what is mapped through one with it is written to unseen by
//! us. So either programs would fail that now work, or snapshots would not be one moment.

mod front;

pub mod ops;

mod inodes;

mod handles;

mod write_back;

pub use self::front::Live;
pub use self::ops::{Event, FsyncHook, Notice, Options};
