//! Building errors that say what was being done to which object, and judging the operating system's.

use std::io;

use crate::store::{Error, Kind};

impl Error {
    /// An error without a cause of its own.
    pub(crate) fn new(kind: Kind, doing: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            doing: doing.into(),
            message: message.into(),
            source: None,
        }
    }

    /// The same with its cause.
    pub(crate) fn because(
        mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// An object that is longer than whoever asked for it allows: it cannot be what was stored.
    pub(crate) fn too_long(doing: impl Into<String>, len: u64, len_max: u64) -> Self {
        let message = format!("the object has {len} bytes where at most {len_max} can be right");
        Self::new(Kind::Corrupt, doing, message)
    }

    /// An operating system's error, judged by what its kind lets one do about it.
    pub(crate) fn from_io(doing: impl Into<String>, error: io::Error) -> Self {
        let (kind, hint) = judge(&error);
        Self::new(kind, doing, format!("{error}{hint}")).because(error)
    }
}

/// What to do about an operating system's error, and words that say so. What is not known to be lasting can be
/// tried again: a disk that gives I/O errors may be plugged in anew.
fn judge(error: &io::Error) -> (Kind, &'static str) {
    use io::ErrorKind as K;
    match error.kind() {
        K::NotFound => (Kind::Missing, ""),
        K::StorageFull | K::QuotaExceeded => (Kind::Full, "; free some space there"),
        K::PermissionDenied => (
            Kind::Denied,
            "; check the owner and the mode of the directory",
        ),
        K::ReadOnlyFilesystem => (Kind::Denied, "; mount it writable"),
        K::NotADirectory | K::IsADirectory | K::InvalidInput | K::InvalidFilename => {
            (Kind::Invalid, "")
        }
        K::FileTooLarge => (Kind::Invalid, "; that file system takes no file so large"),
        _ => (Kind::Retry, ""),
    }
}
