//! The clear `format` object: the first that anybody reads of a repository. FORMAT.md, "The format object".
//!
//! Nothing in it is secret. It is not authenticated by itself: its repository id stands in the MAC of every
//! frame and its feature bits stand again inside each key slot, where `repo` compares them.

use crate::id::RepositoryId;

/// The version of the format that this program writes.
pub const VERSION: u16 = 1;

/// Feature bits. A reader stops at a required bit that it does not know and passes over an optional one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Needed to read what is there.
    pub required: u64,
    /// Useful to know of.
    pub optional: u64,
}

impl Features {
    /// The lowest required bit that this version does not know; `None` if it knows all.
    pub fn unknown_required(&self) -> Option<u32> {
        (self.required != 0).then(|| self.required.trailing_zeros())
    }
}

/// The decoded `format` object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    /// The repository.
    pub repository: RepositoryId,
    /// Feature bits.
    pub features: Features,
}

/// Why it could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the bytes that were written, or not of a repository at all.
    #[error("the format object is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a newer version: this format version or feature bit is not known.
    #[error("the repository needs {0} of a newer version")]
    Newer(Needs),
}

/// What a newer repository needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// This format version.
    Version(u16),
    /// This feature bit.
    Feature(u32),
}

impl std::fmt::Display for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => write!(f, "format version {version}"),
            Self::Feature(bit) => write!(f, "feature {bit}"),
        }
    }
}

impl Marker {
    /// Its bytes.
    pub fn encode(&self) -> [u8; 64] {
        todo!()
    }
    /// Reads [`Self::encode`]; refuses versions and required features that it does not know.
    pub fn decode(_bytes: &[u8]) -> Result<Self, Error> {
        todo!()
    }
}
