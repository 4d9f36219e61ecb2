//! The test bed for what must survive: the real program over real mounts, killed, cut off from power, out of space, its journal
//! damaged, its disk decayed; and every snapshot one moment. The long forms of these are `scripts/crash-loop`, `one-moment` and `power-loss`.
//!
//! Needs `/dev/fuse` and the right to mount; without them each test says so aloud and counts as skipped. Every run prints its
//! seed; `REWINDFS_TEST_SEED` runs it again.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should fail where it stands"
)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that is skipped says so, and a run says its seed"
)]
#![allow(missing_docs, reason = "a test's name says what it shows")]

#[allow(dead_code, reason = "the other binary uses the rest")]
#[path = "../fuse/listing.rs"]
mod listing;

#[allow(dead_code, reason = "the other binary uses the rest")]
#[path = "../fuse/world.rs"]
mod world;

#[path = "../support/s3_server/mod.rs"]
mod s3_server;

mod wait;

mod life;

mod load;

mod proof;

mod disk;

mod kill;

mod power;

mod decay;

mod moment;

mod state;

mod full;
