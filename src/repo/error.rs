//! What can go wrong in a repository, in its own words. Clones, because readers that wait for one fetch share its outcome.

use std::sync::Arc;

use crate::id::ObjectKey;

/// A failed repository operation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(Arc<crate::store::Error>),
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
    /// No slot that was tried fits the password or key, but there are more than are ever tried.
    #[error(
        "none of the first {tried} key slots of {place} opens with this; {untried} more were not tried, and somebody may have planted them"
    )]
    TooManySlots {
        /// The repository.
        place: String,
        /// How many were tried.
        tried: usize,
        /// How many were not.
        untried: usize,
    },
    /// The text is no recovery key at all.
    #[error("{0}")]
    BadRecoveryKey(#[from] crate::crypto::RecoveryKeyError),
    /// A slot would cost more to try than this program spends on something that is not proven.
    #[error("{object}: {why}")]
    SlotTooCostly {
        /// The slot.
        object: ObjectKey,
        /// What it asks for.
        why: String,
    },
    /// A newer version wrote it.
    #[error(
        "{what} was written by a newer version of RewindFS (needs feature {feature}); update to read it"
    )]
    NewerFormat {
        /// What was written: the object's name, or the place where only that is known.
        what: String,
        /// Which feature bit, or which version, it needs.
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
    /// The store has lost commits that this machine has seen there.
    #[error(
        "the newest snapshot of volume {volume} is {newest}, but this machine has seen {seen}: the store has lost snapshots or was put back to an older state. If you know why, {forget} and run this again"
    )]
    RolledBack {
        /// Volume name.
        volume: String,
        /// What has been seen.
        seen: String,
        /// What is there now.
        newest: String,
        /// How to take what is there for what it should be.
        forget: String,
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
    /// A request that makes no sense: a volume name that is taken, the last slot removed.
    #[error("{0}")]
    Invalid(String),
}

impl From<crate::store::Error> for Error {
    fn from(error: crate::store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl Error {
    /// That `object` is damaged, and how it shows.
    pub(crate) fn damaged(object: &ObjectKey, why: impl std::fmt::Display) -> Self {
        Self::Damaged {
            object: object.clone(),
            why: why.to_string(),
        }
    }

    /// The object that is damaged, missing or of a newer version, where one object is at fault.
    pub fn object(&self) -> Option<ObjectKey> {
        match self {
            Self::Damaged { object, .. } | Self::Missing { object } => Some(object.clone()),
            Self::NewerFormat { what, .. } => Some(ObjectKey::new(what.as_str())),
            _ => None,
        }
    }

    /// Whether something in the repository is not as it was written, or is gone: no use in trying again, and no reason to give
    /// up on what lies elsewhere. False for a store that cannot be reached and for a request that makes no sense.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } | Self::RolledBack { .. } => true,
            Self::Tree(error) => !matches!(error, crate::repo::tree::Error::Refused { .. }),
            Self::Store(error) => error.kind == crate::store::Kind::Corrupt,
            _ => false,
        }
    }

    /// The same failure of the store, but naming a missing or impossible `object` as what it is.
    pub(crate) fn of_store(object: &ObjectKey, error: crate::store::Error) -> Self {
        match error.kind {
            crate::store::Kind::Missing => Self::Missing {
                object: object.clone(),
            },
            crate::store::Kind::Corrupt => Self::damaged(object, error),
            _ => error.into(),
        }
    }
}
