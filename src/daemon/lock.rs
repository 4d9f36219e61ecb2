//! One writer per volume on this machine: a lock on a file in the volume's state directory.
//!
//! After a plain `umount` the old process may still be uploading. The next mount asks it through its control socket to hand
//! over, and waits a while for the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;
use super::control::{Client, Request};
use crate::config::state::VolumeState;
use crate::fuse::mountinfo;

/// How long a process that was asked to hand over may take: it stops after the block that it is uploading, 64 MiB at most.
pub const HANDOVER_MAX: Duration = Duration::from_secs(60);
/// How often the lock is tried meanwhile; there is no way to wait for a lock with a limit.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// The lock, held until this is dropped (or the process dies).
#[derive(Debug)]
pub struct VolumeLock {
    _file: File,
}

impl VolumeLock {
    /// Takes the lock if nobody has it, else fails at once.
    pub fn try_take(state: &VolumeState) -> Result<Self, Error> {
        let (file, locked) = open(state)?;
        match locked {
            true => Ok(Self { _file: file }),
            false => Err(Error::AnotherWriter(
                "another process has this volume; `rewindfs status` shows it".into(),
            )),
        }
    }

    /// Keeps it until this process ends, on purpose beyond all that could be dropped: threads of the mount may still answer a
    /// program that has a file open, and no other process may begin before they are gone.
    pub fn keep_until_exit(self) {
        std::mem::forget(self);
    }

    /// Takes the lock. If another process has it and its mount is gone, asks it to hand over and waits at most `wait`.
    pub fn take(state: &VolumeState, wait: Duration) -> Result<Self, Error> {
        let path = state.lock();
        let (file, locked) = open(state)?;
        if locked {
            return Ok(Self { _file: file });
        }
        let until = Instant::now() + wait;
        ask_to_hand_over(state, wait)?;
        loop {
            if try_lock(&file).map_err(Error::io("lock", &path))? {
                return Ok(Self { _file: file });
            }
            if Instant::now() >= until {
                break;
            }
            std::thread::park_timeout(TRY_EVERY);
        }
        Err(Error::AnotherWriter(format!(
            "another process still has this volume and did not hand it over within {} s; `rewindfs status` shows it",
            wait.as_secs()
        )))
    }
}

fn open(state: &VolumeState) -> Result<(File, bool), Error> {
    let path = state.lock();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    let locked = try_lock(&file).map_err(Error::io("lock", &path))?;
    Ok((file, locked))
}

fn try_lock(file: &File) -> std::io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether a mount of ours is to be seen there. If that cannot be told, it is taken to be.
fn is_in_place(mountpoint: &str) -> bool {
    let found = mountinfo::uppermost(Path::new(mountpoint));
    found.map_or(true, |entry| entry.is_some_and(|entry| entry.is_ours()))
}

/// A process with a living mount is never asked: two mounts of one volume are a mistake.
fn ask_to_hand_over(state: &VolumeState, wait: Duration) -> Result<(), Error> {
    let Ok(mut client) = Client::connect(state.dir()) else {
        // It is starting or stopping: wait for it.
        return Ok(());
    };
    let Ok(status) = client.status() else {
        // It ended while it was asked, or is too busy ending to answer: the lock tells.
        return Ok(());
    };
    if status.mounted {
        // By `umount -l`: the process goes on until the last file is closed.
        if !is_in_place(&status.mountpoint) {
            return Err(Error::AnotherWriter(format!(
                "{} was unmounted while programs had files open in it, and process {} backs up what they still write; close those \
                 programs, then mount again",
                status.mountpoint, status.pid
            )));
        }
        return Err(Error::AnotherWriter(format!(
            "{} is mounted live already, on {} by process {}; `rewindfs umount {}` first",
            status.source, status.mountpoint, status.pid, status.mountpoint
        )));
    }
    // It may go while it answers; the lock tells.
    let _ = Client::connect(state.dir())
        .and_then(|mut client| client.ask(&Request::HandOver, Some(wait)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::state::State;
    use crate::id::VolumeId;

    #[test]
    fn the_second_waits_for_the_first_and_no_longer_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path()).volume(VolumeId([7; 16]));
        state.create().unwrap();
        let first = VolumeLock::take(&state, Duration::ZERO).unwrap();
        let refused = VolumeLock::take(&state, Duration::from_millis(60)).unwrap_err();
        assert!(matches!(refused, Error::AnotherWriter(_)));

        let second = std::thread::spawn({
            let state = state.clone();
            move || VolumeLock::take(&state, HANDOVER_MAX).map(|_| ())
        });
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_process_that_ends_while_it_is_asked_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path()).volume(VolumeId([7; 16]));
        state.create().unwrap();
        let first = VolumeLock::take(&state, Duration::ZERO).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(state.dir().join("control.sock"));
        let socket = socket.unwrap();
        let ending = std::thread::spawn(move || {
            // Hangs up without a word.
            drop(socket.accept().unwrap());
            drop(first);
        });
        VolumeLock::take(&state, HANDOVER_MAX).unwrap();
        ending.join().unwrap();
    }
}
