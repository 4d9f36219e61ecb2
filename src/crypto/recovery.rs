//! The recovery key: 256 random bits and the text in which people keep them.

use zeroize::Zeroizing;

/// A recovery key, shown once at `init`. Opens the repository without a password.
#[derive(Clone)]
pub struct RecoveryKey(pub(super) Zeroizing<[u8; 32]>);

/// Why a text is no recovery key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoveryKeyError {
    /// A character that the alphabet does not have.
    #[error("a recovery key has no {0:?}; it is made of letters and digits without I, L, O and U")]
    Character(char),
    /// Too short or too long.
    #[error("a recovery key has {expected} letters and digits, this has {found}")]
    Length {
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// The checksum does not fit: a letter is wrong somewhere.
    #[error("mistyped recovery key: its checksum does not fit; compare it letter by letter")]
    Checksum,
}

impl RecoveryKey {
    /// A fresh one.
    pub fn random() -> Self {
        todo!()
    }
    /// The text to show: groups with dashes, a checksum at the end.
    pub fn to_text(&self) -> Zeroizing<String> {
        todo!()
    }
    /// Reads what [`Self::to_text`] showed; case, spaces and dashes do not matter, and O is read as 0, I and L as 1.
    pub fn parse(_text: &str) -> Result<Self, RecoveryKeyError> {
        todo!()
    }
}
