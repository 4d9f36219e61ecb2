//! Real kernel mounts. Needs `/dev/fuse` and the right to mount; without them each test says so aloud and counts as skipped.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should fail where it stands"
)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that is skipped says so"
)]
#![allow(missing_docs, reason = "a test's name says what it shows")]

#[path = "../support/s3_server/mod.rs"]
mod s3_server;

#[path = "../support/wire.rs"]
mod wire;

mod listing;
mod scene;
mod world;

mod away;
mod clock;
mod crowded;
mod ending;
mod hostile;
mod interrupted;
mod live;
mod model;
mod native;
mod nth;
mod options;
mod outage;
mod owed;
mod processes;
mod reading;
mod requests;
mod scarcity;
mod seals;
mod snapshot;
mod unreadable;
mod writers;

#[path = "../support/pages.rs"]
mod pages;

#[path = "../support/sample.rs"]
mod sample;

#[path = "../support/writer.rs"]
mod writer;
