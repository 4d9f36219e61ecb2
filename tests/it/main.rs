//! Everything that can be tested without a kernel mount, in one fast binary.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops best where it stands"
)]

mod damage;
mod restore;
mod store;
mod store_contract;
mod verify;

#[path = "../support/s3_server/mod.rs"]
mod s3_server;

#[path = "../support/sample.rs"]
mod sample;

#[path = "../support/writer.rs"]
mod writer;
