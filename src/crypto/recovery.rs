//! The recovery key: 256 random bits and the text in which people keep them. FORMAT.md, "Recovery key".
//!
//! Shown once at `init`, typed years later from paper: so the alphabet is Crockford's base 32, which has no letters that
//! look alike, and a checksum tells a slip of the pen from a wrong key.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::crypto::random;

/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Bytes of checksum: one slip in 16 million goes unnoticed here, and then no slot opens.
const CHECKSUM_LEN: usize = 3;
/// Key and checksum are 280 bits: 56 letters without a rest.
const TEXT_BYTES: usize = 32 + CHECKSUM_LEN;
const LETTERS: usize = TEXT_BYTES * 8 / 5;
/// Letters between two dashes.
const GROUP_LEN: usize = 4;

/// A recovery key, shown once at `init`. Opens the repository without a password.
#[derive(Clone)]
pub struct RecoveryKey(pub(super) Zeroizing<[u8; 32]>);

/// Why a text is no recovery key. Never repeats more of it than one character.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoveryKeyError {
    /// A character that the alphabet does not have.
    #[error("a recovery key has no {0:?} in it: only digits and letters, without U")]
    Character(char),
    /// Too short or too long.
    #[error("a recovery key has {LETTERS} letters and digits; this has {0}")]
    Length(usize),
    /// The checksum does not fit: a letter is wrong somewhere.
    #[error("mistyped recovery key: its checksum does not fit; compare it letter by letter")]
    Checksum,
}

impl RecoveryKey {
    /// A fresh one.
    pub fn random() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// The text to show: 14 groups of four with dashes between them, the checksum at the end.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; TEXT_BYTES]);
        bytes[..32].copy_from_slice(&*self.0);
        bytes[32..].copy_from_slice(&checksum(&self.0));
        let mut text = Zeroizing::new(String::with_capacity(LETTERS + LETTERS / GROUP_LEN));
        for letter in 0..LETTERS {
            if letter > 0 && letter % GROUP_LEN == 0 {
                text.push('-');
            }
            let value = (0..5).fold(0, |value, bit| {
                value << 1 | bit_of(&*bytes, letter * 5 + bit)
            });
            text.push(char::from(ALPHABET[usize::from(value)]));
        }
        text
    }

    /// Reads what [`Self::to_text`] showed; case, white space and dashes do not matter, and O is read as 0, I and L as 1.
    pub fn parse(text: &str) -> Result<Self, RecoveryKeyError> {
        let mut bytes = Zeroizing::new([0u8; TEXT_BYTES]);
        let mut letters = 0;
        for character in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let value = value_of(character).ok_or(RecoveryKeyError::Character(character))?;
            for bit in 0..5 {
                let at = letters * 5 + bit;
                if let Some(byte) = bytes.get_mut(at / 8) {
                    *byte |= (value >> (4 - bit) & 1) << (7 - at % 8);
                }
            }
            letters += 1;
        }
        if letters != LETTERS {
            return Err(RecoveryKeyError::Length(letters));
        }
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&bytes[..32]);
        if checksum(&key) != bytes[32..] {
            return Err(RecoveryKeyError::Checksum);
        }
        Ok(Self(key))
    }
}

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey([redacted])")
    }
}

fn checksum(key: &[u8; 32]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::new_with_prefix("rewindfs/1/recovery").chain_update(key);
    let [a, b, c, ..]: [u8; 32] = digest.finalize().into();
    [a, b, c]
}

/// Bits are counted from the highest of the first byte.
fn bit_of(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 8] >> (7 - at % 8) & 1
}

fn value_of(character: char) -> Option<u8> {
    let letter = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let found = ALPHABET.iter().position(|&l| char::from(l) == letter)?;
    Some(found as u8)
}

#[cfg(test)]
mod tests;
