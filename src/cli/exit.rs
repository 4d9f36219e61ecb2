//! The one place that turns an error into an exit code. The codes are a contract with scripts; README.md lists them.

use std::io;
use std::process::ExitCode;

use crate::{config, daemon, flusher, fuse, reconcile, repo, restore, store, verify};

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was asked for was done.
    Done = 0,
    /// It failed, for a reason that has no code of its own.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Done in part; what was left out has been named.
    InPart = 3,
    /// The repository is damaged.
    Damage = 4,
    /// Not everything is in the repository yet.
    NotYetRemote = 5,
    /// There is no repository at that place, or none was named.
    NoRepository = 10,
    /// Another writer has the volume.
    AnotherWriter = 11,
    /// Wrong password, or none.
    WrongPassword = 12,
    /// The mount point cannot be used.
    MountPoint = 13,
    /// No space is left.
    NoSpace = 14,
    /// The store refuses the credentials.
    Credentials = 15,
    /// A newer version wrote it.
    NewerFormat = 16,
    /// Stopped by SIGINT.
    Interrupted = 130,
    /// Stopped by SIGTERM.
    Terminated = 143,
}

/// All codes, to read one back that a background process has sent.
const ALL: [Exit; 15] = [
    Exit::Done,
    Exit::Failed,
    Exit::Usage,
    Exit::InPart,
    Exit::Damage,
    Exit::NotYetRemote,
    Exit::NoRepository,
    Exit::AnotherWriter,
    Exit::WrongPassword,
    Exit::MountPoint,
    Exit::NoSpace,
    Exit::Credentials,
    Exit::NewerFormat,
    Exit::Interrupted,
    Exit::Terminated,
];

impl Exit {
    /// Its number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The exit with this number; one that we do not have is a failure.
    pub fn from_code(code: u8) -> Self {
        ALL.into_iter()
            .find(|exit| exit.code() == code)
            .unwrap_or(Self::Failed)
    }

    /// What the error calls for: the first cause that has a code of its own decides.
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(Self::of_cause)
            .unwrap_or(Self::Failed)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<super::Failure>() {
            return Some(error.exit);
        }
        if let Some(error) = cause.downcast_ref::<repo::Error>() {
            return Self::of_repo(error);
        }
        if let Some(error) = cause.downcast_ref::<store::Error>() {
            return Self::of_store(error);
        }
        if let Some(error) = cause.downcast_ref::<flusher::Error>() {
            return Self::of_flusher(error);
        }
        if let Some(restore::Error::Repository(error)) = cause.downcast_ref() {
            return Self::of_repo(error);
        }
        if let Some(verify::Error::Repository(error)) = cause.downcast_ref() {
            return Self::of_repo(error);
        }
        if let Some(reconcile::Error::Repository(error)) = cause.downcast_ref() {
            return Self::of_repo(error);
        }
        if let Some(error) = cause.downcast_ref::<config::Error>() {
            return Some(Self::of_config(error));
        }
        if let Some(error) = cause.downcast_ref::<daemon::Error>() {
            return Some(Self::of_daemon(error));
        }
        if cause.is::<fuse::session::Error>() {
            return Some(Self::MountPoint);
        }
        if cause.is::<super::time::Error>() {
            return Some(Self::Usage);
        }
        cause.downcast_ref::<io::Error>().and_then(Self::of_io)
    }

    /// `None` where the cause knows better.
    fn of_repo(error: &repo::Error) -> Option<Self> {
        Some(match error {
            repo::Error::Store(error) => return Self::of_store(error),
            repo::Error::NoRepository(_) => Self::NoRepository,
            repo::Error::AlreadyThere(_) => Self::Failed,
            repo::Error::WrongPassword(_) | repo::Error::BadRecoveryKey(_) => Self::WrongPassword,
            repo::Error::NewerFormat { .. } => Self::NewerFormat,
            repo::Error::Damaged { .. }
            | repo::Error::Missing { .. }
            | repo::Error::RolledBack { .. }
            | repo::Error::SlotTooCostly { .. }
            | repo::Error::TooManySlots { .. }
            | repo::Error::Tree(_) => Self::Damage,
            repo::Error::Invalid(_) => Self::Usage,
            repo::Error::Busy { .. } | repo::Error::Fenced(_) => Self::AnotherWriter,
            repo::Error::NotFound(_) => Self::Failed,
        })
    }

    fn of_store(error: &store::Error) -> Option<Self> {
        match error.kind {
            store::Kind::Denied => Some(Self::Credentials),
            store::Kind::Corrupt => Some(Self::Damage),
            store::Kind::Full => Some(Self::NoSpace),
            store::Kind::Misplaced => Some(Self::NoRepository),
            store::Kind::Retry | store::Kind::Missing | store::Kind::Invalid => None,
        }
    }

    fn of_flusher(error: &flusher::Error) -> Option<Self> {
        match error {
            flusher::Error::Repository(error) => Self::of_repo(error),
            flusher::Error::Source { source, .. } | flusher::Error::Spool { source, .. } => {
                Self::of_io(source)
            }
            _ => None,
        }
    }

    fn of_config(error: &config::Error) -> Self {
        match error {
            config::Error::Usage(_) | config::Error::Layout(_) => Self::Usage,
            config::Error::MountPoint(_) => Self::MountPoint,
            config::Error::NoRepository(_) => Self::NoRepository,
            config::Error::Secret(_) => Self::WrongPassword,
            config::Error::Io { source, .. } => Self::of_io(source).unwrap_or(Self::Failed),
        }
    }

    fn of_daemon(error: &daemon::Error) -> Self {
        match error {
            daemon::Error::Reported { exit, .. } => Self::from_code(*exit),
            daemon::Error::MountPoint(_) | daemon::Error::NotMounted(_) => Self::MountPoint,
            daemon::Error::NotYetRemote(_) => Self::NotYetRemote,
            daemon::Error::AnotherWriter(_) => Self::AnotherWriter,
            daemon::Error::Interrupted => Self::Interrupted,
            daemon::Error::Terminated => Self::Terminated,
            daemon::Error::Io { source, .. } => Self::of_io(source).unwrap_or(Self::Failed),
            daemon::Error::Failed(_) => Self::Failed,
        }
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::NoSpace),
            _ => None,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error as a line and an exit code, for processes that report to another one of ours.
pub fn describe(error: &anyhow::Error) -> (String, u8) {
    (sentence(error), Exit::of(error).code())
}

/// One line for people: what was being done, to what, what went wrong. Causes that only repeat are left out, and line
/// ends become blanks.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        if line.contains(&cause) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&cause);
    }
    line.split(['\n', '\r'])
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests;
