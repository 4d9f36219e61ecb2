//! Where the background process writes what happens: a file in the volume's state directory, and standard error with `-f`.
//!
//! `REWINDFS_LOG` sets how much (`debug`, `rewindfs::flusher=trace`); passwords, keys and contents are never logged at any level.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::Error;

/// A log that has grown beyond this is set aside (as `log.old`, replacing the one before) when the next process starts, so
/// that two files of about this size are the most that there is of a volume that is mounted daily.
const LOG_LEN_MAX: u64 = 16 << 20;
/// What is logged unless `REWINDFS_LOG` says otherwise.
const FILTER_DEFAULT: &str = "warn,rewindfs=info";

/// Starts logging into `path`, and to standard error as well where the process stays in front.
pub fn start(path: &Path, in_front: bool) -> Result<(), Error> {
    let error = || Error::io("open log", path);
    if path.metadata().is_ok_and(|log| log.len() > LOG_LEN_MAX) {
        std::fs::rename(path, path.with_extension("old")).map_err(error())?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(error())?;
    let filter =
        EnvFilter::try_from_env("REWINDFS_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let to_file = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(Mutex::new(file));
    let to_front = in_front.then(|| {
        tracing_subscriber::fmt::layer()
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(to_file)
        .with(to_front)
        .try_init()
        .map_err(|why| Error::Failed(format!("start logging: {why}")))?;
    log_panics();
    Ok(())
}

/// A panic in a background process would otherwise be written where nobody reads it.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("internal error: {panic}");
        before(panic);
        let _ = io::stderr().flush();
    }));
}
