//! Real kernel mounts. What cannot run on this machine says so and counts as skipped.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should fail where it stands"
)]
#![allow(missing_docs, reason = "a test's name says what it shows")]

mod listing;
mod world;

mod model;
