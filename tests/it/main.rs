//! Everything that can be tested without a kernel mount, in one fast binary.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops best where it stands"
)]

mod architecture;

mod command_line;

mod s3_line;
mod s3_refusals;
mod store;
mod store_contract;

mod golden;

mod by_hand;

mod damage;
mod damaged_tree;
mod doctor;
mod hostile;
mod malformed;
mod restore;
mod verify;

#[path = "../support/s3_server/mod.rs"]
mod s3_server;

#[path = "../support/golden/mod.rs"]
mod golden_files;

#[path = "../support/pages.rs"]
mod pages;

#[path = "../support/sample.rs"]
mod sample;

#[path = "../support/writer.rs"]
mod writer;
