//! Verify: whether a volume hangs together ([`structure()`]), and whether every byte in the store is what was written ([`data()`]).
//!
//! Nothing is repaired. What is damaged is told with the snapshots and paths that it touches ([`report`]); the rest is looked at all
//! the same. Both read through the volume they are given: open that with a small cache in memory and none on disk, since a cached frame
//! says nothing about the store. Called by `check`.

pub mod report;

mod structure;

mod data;

mod walk;

mod findings;

mod references;

mod graph;

mod affected;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use data::data;
pub use report::Report;
pub use structure::{keys, structure};

use crate::repo;

/// Why a check could not go on. What it finds damaged is no error: it stands in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository could not be read.
    #[error(transparent)]
    Repository(#[from] repo::Error),
    /// Asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// How far a check has come, for a progress bar. Totals are 0 until they are known.
#[derive(Debug, Default)]
pub struct Progress {
    /// Snapshots looked at.
    pub snapshots: AtomicU64,
    /// Snapshots to look at.
    pub snapshots_total: AtomicU64,
    /// Tree pages read.
    pub pages: AtomicU64,
    /// Objects looked at.
    pub objects: AtomicU64,
    /// Bytes of objects read whole.
    pub bytes: AtomicU64,
    /// Bytes of all objects that are to be read whole.
    pub bytes_total: AtomicU64,
}

/// [`Error::Interrupted`] once somebody has asked to stop.
fn go_on(stop: &AtomicBool) -> Result<(), Error> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}
