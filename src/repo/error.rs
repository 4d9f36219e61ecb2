//! What can go wrong in a repository, in its own words.

use crate::id::ObjectKey;

/// A failed repository operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A tree does not hang together, or a change cannot be put into one.
    #[error(transparent)]
    Tree(#[from] crate::repo::tree::Error),
    /// There is no repository at this place.
    #[error("{0} holds no repository; `rewindfs init {0}` makes one")]
    NoRepository(String),
    /// There already is one.
    #[error("{0} already holds a repository")]
    AlreadyThere(String),
    /// No slot fits the password or key.
    #[error("wrong password: no key slot of {0} opens with it")]
    WrongPassword(String),
    /// A newer version wrote it.
    #[error(
        "{what} was written by a newer version of RewindFS (needs feature {feature}); update to read it"
    )]
    NewerFormat {
        /// what
        what: String,
        /// which
        feature: u32,
    },
    /// An object is damaged, swapped or replayed.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// The object.
        object: ObjectKey,
        /// What is wrong with it.
        why: String,
    },
    /// An object that must be there is not.
    #[error("{object} is missing from the store")]
    Missing {
        /// The object.
        object: ObjectKey,
    },
    /// Another writer holds the volume.
    #[error("volume {volume} is being written by {holder}; stop it there first")]
    Busy {
        /// Volume name.
        volume: String,
        /// Host, process and since when.
        holder: String,
    },
    /// This writer has been replaced and must not publish.
    #[error("this writer was replaced by a later one (generation {0}); mount again")]
    Fenced(u32),
    /// No such volume, commit, path.
    #[error("{0}")]
    NotFound(String),
}
