//! Opening the sled database of the identity map, whatever state it is in.
//!
//! sled 0.34 panics on damage in the middle of a file and could hang on worse, so it is opened on a thread of its own, under
//! a time limit, and its panics are caught. It notices a damaged page only when that is read, which must not be when somebody
//! looks up a file: so all of it is read once. Damage sets the directory aside; only a map in use by another process is an error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::source::Error;

/// sled's own cache: small, because the answers in front of it are what saves time.
const CACHE_BYTES: u64 = 16 << 20;
/// A map of ten million entries opens in well under a second; one that takes this long never will.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long its lock is waited for: the threads of a sled that was closed a moment ago let go of their files some time after it is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// After so many entries the reader says that it goes on, so that only one that hangs is given up.
const SIGN_OF_LIFE: usize = 1 << 9;

/// Why it cannot be opened.
enum Trouble {
    InUse(String),
    Damage(String),
}

/// What the thread that opens it says.
enum Answer {
    Reading,
    Done(Result<sled::Db, Trouble>),
}

/// Opens the database below `dir`, setting a damaged one aside.
pub(super) fn open(dir: &Path) -> Result<sled::Db, Error> {
    let place = dir.join("handles");
    let failed = |why: String| Error::Identity {
        path: place.display().to_string(),
        why,
    };
    match attempt(&place) {
        Ok(database) => return Ok(database),
        Err(Trouble::InUse(why)) => return Err(failed(why)),
        Err(Trouble::Damage(why)) => {
            tracing::warn!(place = %place.display(), why, "identity map is damaged: set aside, starting empty");
            set_aside(&place).map_err(|error| failed(error.to_string()))?;
        }
    }
    attempt(&place).map_err(|(Trouble::InUse(why) | Trouble::Damage(why))| failed(why))
}

fn attempt(place: &Path) -> Result<sled::Db, Trouble> {
    let (answer, answered) = mpsc::channel();
    let path = place.to_owned();
    // Not joined when it hangs: it has nothing but its own copy of the path, and its answer goes nowhere.
    let spawned = thread::Builder::new()
        .name("identity-open".into())
        .spawn(move || {
            // Nobody listens any more after the time limit.
            let go_on = || drop(answer.send(Answer::Reading));
            let opened = catch_unwind(AssertUnwindSafe(|| open_database(&path, go_on)))
                .unwrap_or_else(|_| Err(Trouble::Damage("sled panicked".into())));
            drop(answer.send(Answer::Done(opened)));
        });
    if let Err(error) = spawned {
        return Err(Trouble::InUse(error.to_string()));
    }
    loop {
        match answered.recv_timeout(OPEN_TIMEOUT) {
            Ok(Answer::Reading) => {}
            Ok(Answer::Done(opened)) => return opened,
            Err(_) => {
                let why = format!("no answer within {OPEN_TIMEOUT:?}");
                return Err(Trouble::Damage(why));
            }
        }
    }
}

fn open_database(path: &PathBuf, go_on: impl Fn()) -> Result<sled::Db, Trouble> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
    let begun = Instant::now();
    let database = loop {
        let error = match config.open() {
            Ok(database) => break database,
            Err(error) => error,
        };
        // sled has no variant of its own for this.
        let locked = matches!(&error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"));
        match locked {
            true if begun.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_PAUSE),
            true => return Err(Trouble::InUse("in use by another process".into())),
            false => return Err(Trouble::Damage(error.to_string())),
        }
    };
    read_all(&database, go_on).map_err(|error| Trouble::Damage(error.to_string()))?;
    Ok(database)
}

/// Reads every page: about a second for a million files.
fn read_all(database: &sled::Db, go_on: impl Fn()) -> sled::Result<()> {
    for name in database.tree_names() {
        for (count, entry) in database.open_tree(name)?.iter().enumerate() {
            entry?;
            if count % SIGN_OF_LIFE == 0 {
                go_on();
            }
        }
    }
    Ok(())
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
