//! Why a background process could not start, or could not do what it was asked for.

use std::io;
use std::path::PathBuf;

/// A failure of the daemon, or of talking to one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process of ours told us why, in its own words and with its exit code.
    #[error("{message}")]
    Reported {
        /// One line.
        message: String,
        /// Its exit code (`cli/exit.rs`).
        exit: u8,
    },
    /// The mount point cannot be used.
    #[error("{0}")]
    MountPoint(String),
    /// Nothing of ours is mounted there.
    #[error("{} is not a live RewindFS mount; `rewindfs status` lists those there are", .0.display())]
    NotMounted(PathBuf),
    /// Something is not in the repository yet.
    #[error("{0}")]
    NotYetRemote(String),
    /// Another process on this machine has the volume and does not hand it over.
    #[error("{0}")]
    AnotherWriter(String),
    /// Stopped by SIGINT.
    #[error("interrupted")]
    Interrupted,
    /// Stopped by SIGTERM.
    #[error("terminated")]
    Terminated,
    /// A local file, socket or system call.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Anything else, in one line.
    #[error("{0}")]
    Failed(String),
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
