//! What an object is made of, seen as bytes: for the stores and wrappers that cannot work on a file.

use std::io;

use bytes::Bytes;

use crate::store::{Body, Error, Kind};

impl Body {
    /// Its length in bytes, as stated.
    // An object may be empty: there is nothing to ask about that.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// The bytes themselves; a file is read whole. [`Kind::Invalid`] if it is not as long as was said, or not there.
    pub(crate) async fn into_bytes(self, doing: &str) -> Result<Bytes, Error> {
        let (path, len) = match self {
            Self::Bytes(bytes) => return Ok(bytes),
            Self::File { path, len } => (path, len),
        };
        let bytes = tokio::fs::read(&path)
            .await
            .map_err(|error| unreadable(doing, error))?;
        if bytes.len() as u64 != len {
            return Err(wrong_len(doing, len, bytes.len() as u64));
        }
        Ok(bytes.into())
    }
}

/// The error for a body's file that cannot be read. Trying again cannot help if it is gone, and it is not the object
/// that is missing.
pub(crate) fn unreadable(doing: &str, error: io::Error) -> Error {
    let judged = Error::from_io(doing, error);
    match judged.kind {
        Kind::Missing => Error {
            kind: Kind::Invalid,
            message: format!("the file to store: {}", judged.message),
            ..judged
        },
        _ => judged,
    }
}

/// The error for a body's file that is not as long as was said.
pub(crate) fn wrong_len(doing: &str, stated: u64, found: u64) -> Error {
    Error::new(
        Kind::Invalid,
        doing,
        format!("the file to store has {found} bytes, not {stated}"),
    )
}
