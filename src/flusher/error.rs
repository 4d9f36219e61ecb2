//! What can go wrong between a sealed epoch and its commit, in the flusher's own words.

use std::io;
use std::path::PathBuf;

use crate::id::{FileId, ObjectKey};

/// A failed flush. Nothing of an epoch is lost by one: it is folded back and captured again, or stays in the spool.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The epoch was folded into the open one while it was captured: not a failure, start again later.
    #[error("the epoch was folded into the next one")]
    Folded,
    /// A file of the source could not be read; its epoch stays owed.
    #[error("read inode {id} of the source: {source}")]
    Source {
        /// The inode.
        id: FileId,
        /// Why.
        source: io::Error,
    },
    /// The spool's directory could not be written or read.
    #[error("{doing} {path}: {source}")]
    Spool {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the spool is not what it must be.
    #[error("spool file {path} is unusable: {why}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The repository failed: its tree could not be read or the store did not take an object.
    #[error(transparent)]
    Repository(#[from] crate::repo::Error),
    /// The store took an object and has it not, or not all of it: it is lying, or loses what it is given.
    #[error(
        "{store} has been given {object} ({len} bytes) and {}; it is kept here and put again, but a store that does this is not one \
         to keep backups in: look into its log",
        match found {
            None => "does not have it".to_owned(),
            Some(found) => format!("has {found} bytes of it"),
        }
    )]
    NotStored {
        /// Which store.
        store: String,
        /// The object.
        object: ObjectKey,
        /// Its length in bytes.
        len: u64,
        /// What the store says of its length in bytes; `None` if it says that there is no such object.
        found: Option<u64>,
    },
    /// A stage of the pipeline ended without saying why, which only a panic in it can do.
    #[error("the {0} stage stopped unexpectedly")]
    StageLost(&'static str),
    /// The flusher has stopped; nothing more is published by this process.
    #[error("the flusher has stopped: {0}")]
    Stopped(String),
}

impl Error {
    /// Whether this writer has been replaced for good.
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self, Self::Repository(crate::repo::Error::Fenced(_)))
    }
}

impl From<crate::store::Error> for Error {
    fn from(error: crate::store::Error) -> Self {
        Self::Repository(error.into())
    }
}

impl From<crate::epoch::CaptureError> for Error {
    fn from(error: crate::epoch::CaptureError) -> Self {
        match error {
            crate::epoch::CaptureError::Folded => Self::Folded,
            crate::epoch::CaptureError::Io { id, source } => Self::Source { id, source },
        }
    }
}
