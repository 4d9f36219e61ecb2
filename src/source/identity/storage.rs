//! Opening the sled database of the identity map, whatever state it is in.
//!
//! sled 0.34 panics on damage in the middle of a file and could hang on worse, so it is opened on a thread of its own, under
//! a time limit, and its panics are caught. Damage sets the directory aside; only a map in use by another process is an error.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::source::Error;

/// sled's own cache: small, because the answers in front of it are what saves time.
const CACHE_BYTES: u64 = 16 << 20;
/// A map of ten million entries opens in well under a second (FACTS: 33 ms); one that takes this long never will.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What became of an attempt.
enum Attempt {
    Open(sled::Db),
    InUse(String),
    Damaged(String),
}

/// Opens the database below `dir`, setting a damaged one aside.
pub(super) fn open(dir: &Path) -> Result<sled::Db, Error> {
    let place = dir.join("handles");
    let failed = |why: String| Error::Identity {
        path: place.display().to_string(),
        why,
    };
    match attempt(&place) {
        Attempt::Open(database) => return Ok(database),
        Attempt::InUse(why) => return Err(failed(why)),
        Attempt::Damaged(why) => {
            tracing::warn!(place = %place.display(), why, "identity map is damaged: set aside, starting empty");
            set_aside(&place).map_err(|error| failed(error.to_string()))?;
        }
    }
    match attempt(&place) {
        Attempt::Open(database) => Ok(database),
        Attempt::InUse(why) | Attempt::Damaged(why) => Err(failed(why)),
    }
}

fn attempt(place: &Path) -> Attempt {
    let (answer, answered) = mpsc::channel();
    let path = place.to_owned();
    // Not joined when it hangs: it has nothing but its own copy of the path, and its answer goes nowhere.
    let spawned = std::thread::Builder::new()
        .name("identity-open".into())
        .spawn(move || {
            let opened = catch_unwind(|| open_database(&path))
                .unwrap_or_else(|_| Attempt::Damaged("sled panicked".into()));
            // Nobody listens any more after the time limit.
            let _ = answer.send(opened);
        });
    if let Err(error) = spawned {
        return Attempt::InUse(error.to_string());
    }
    answered
        .recv_timeout(OPEN_TIMEOUT)
        .unwrap_or_else(|_| Attempt::Damaged(format!("no answer within {OPEN_TIMEOUT:?}")))
}

fn open_database(path: &PathBuf) -> Attempt {
    let opened = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .open();
    match opened {
        Ok(database) => Attempt::Open(database),
        // sled has no variant of its own for this.
        Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
            Attempt::InUse("in use by another process".into())
        }
        Err(error) => Attempt::Damaged(error.to_string()),
    }
}

/// Moves the directory out of the way, in place of what was set aside before: one is enough to look at.
fn set_aside(place: &Path) -> std::io::Result<()> {
    let aside = place.with_extension("damaged");
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::rename(place, aside)
}
