//! The command line: what can be typed, and what comes of it. One file per command.

pub mod exit;
mod output;
mod time;

use exit::Exit;

/// A failure with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Failure {
    exit: Exit,
    message: String,
}
