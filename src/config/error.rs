//! Why settings cannot be used, in sentences that say what to do.

use std::io;
use std::path::PathBuf;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that makes no sense, or two that contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A layout in which the program would back up itself or hide what it needs.
    #[error("{0}")]
    Layout(String),
    /// The mount point cannot be used.
    #[error("{0}")]
    MountPoint(String),
    /// No repository is named anywhere.
    #[error("{0}")]
    NoRepository(String),
    /// No password, or one that cannot be used.
    #[error("{0}")]
    Secret(String),
    /// A local file or directory.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done: `read`, `create`.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with what was being done to which file.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}
