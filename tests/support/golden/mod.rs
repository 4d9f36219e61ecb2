//! Golden files: a small repository in which everything that the format has occurs, what makes one ([`maker`], through the writer that all tests share), and the text
//! that says what is in it ([`listing`]). tests/fixtures/README.md says how the files of a new version are made.

#[path = "maker.rs"]
pub(crate) mod maker;

#[path = "listing.rs"]
pub(crate) mod listing;
