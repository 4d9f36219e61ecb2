//! Real kernel mounts. Needs `/dev/fuse` and the right to mount; without them each test says so aloud and counts as skipped.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should fail where it stands"
)]
#![allow(missing_docs, reason = "a test's name says what it shows")]

mod listing;
mod scene;
mod world;

mod live;
mod model;
mod processes;
mod snapshot;

#[path = "../support/sample.rs"]
mod sample;

#[path = "../support/writer.rs"]
mod writer;
