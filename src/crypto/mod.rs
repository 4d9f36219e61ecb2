//! Encryption, authentication and keys. The only place that sees key bytes, the only maker of [`Ciphertext`], and the
//! one door through which randomness enters. FORMAT.md, "Keys" and "Frame", specifies every byte.
//!
//! Nothing here does I/O; all of it is a plain function of its arguments (and fresh randomness) for the pipeline to run
//! where it likes. Keys are types: one for encryption cannot be passed for one for a MAC.

use bytes::Bytes;

use crate::format::frame::TAG_LEN;
use crate::id::Tag;

pub mod keys;

pub mod kdf;

pub mod recovery;

pub mod cipher;

mod mac;

mod frames;

pub mod pieces;

pub mod keyring;

pub mod wrapping;

pub use frames::{BlockCipher, Opened};
pub use kdf::{Argon2Params, DerivationError};
pub use keyring::VolumeKeys;
pub use keys::{EncryptionKey, MacKey, RepositoryKey, VolumeKey};
pub use recovery::{RecoveryKey, RecoveryKeyError};
pub use wrapping::SlotSecret;

/// Fresh random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes)
        .expect("getrandom(2) cannot fail on a kernel that has FUSE once the machine is up");
}

/// `len` bytes that nobody can tell from ciphertext: BLAKE3's output stream from a fresh random key. Several times as
/// fast as the operating system's source, for padding that may be megabytes.
pub fn random_padding(len: usize) -> Vec<u8> {
    let mut padding = vec![0; len];
    let mut stream = blake3::Hasher::new_keyed(&random()).finalize_xof();
    stream.fill(&mut padding);
    padding
}

/// An encrypted, authenticated frame: IV, ciphertext, tag. Only this module makes one, so plaintext cannot be stored by
/// mistake.
#[derive(Clone, Debug)]
pub struct Ciphertext(Bytes);

impl Ciphertext {
    /// Its bytes as they go into an object.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Consumes it.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The tag at its end.
    pub fn tag(&self) -> Tag {
        let tag = self.0.last_chunk::<TAG_LEN>();
        Tag(*tag.expect("every ciphertext ends with a tag"))
    }
}

/// Why a frame was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The tag does not fit: damaged, swapped, or of another repository, block, frame or object.
    #[error("authentication failed")]
    Unauthentic,
    /// Authentic, but not decodable by this version.
    #[error("frame is authentic but malformed: {0}")]
    Malformed(&'static str),
    /// Encrypted under a key epoch whose key the volume does not have.
    #[error("the volume has no key of epoch {0}")]
    NoKey(u16),
}

/// AES key length, chosen at `init`. The number is that of the suite in a frame's MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AesKeyLen {
    /// 128 bits
    Aes128 = 1,
    /// 192 bits
    Aes192 = 2,
    /// 256 bits
    Aes256 = 3,
}

impl AesKeyLen {
    /// In bits.
    pub fn bits(self) -> u16 {
        match self {
            Self::Aes128 => 128,
            Self::Aes192 => 192,
            Self::Aes256 => 256,
        }
    }

    /// Reads [`Self::bits`]; `None` if AES has no such key.
    pub fn from_bits(bits: u16) -> Option<Self> {
        match bits {
            128 => Some(Self::Aes128),
            192 => Some(Self::Aes192),
            256 => Some(Self::Aes256),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
