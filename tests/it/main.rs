//! Everything that can be tested without a kernel mount, in one fast binary.

mod store;
mod store_contract;

#[path = "../support/s3_server/mod.rs"]
mod s3_server;
