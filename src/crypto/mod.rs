//! Encryption, authentication and keys. The only place that sees key bytes, the only maker of [`Ciphertext`].

use bytes::Bytes;

use crate::format::frame::{Envelope, FrameKind};
use crate::id::{FrameNo, ObjectKey};

pub mod kdf;

pub mod recovery;

pub mod keyring;

pub use kdf::{Argon2Params, DerivationError};
pub use keyring::{EncryptionKey, MacKey, RepositoryKey, VolumeKey, VolumeKeys};
pub use recovery::{RecoveryKey, RecoveryKeyError};

/// Fresh random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    todo!()
}

/// An encrypted, authenticated frame: IV, ciphertext, tag. Only this module makes one.
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
    pub fn tag(&self) -> crate::id::Tag {
        todo!()
    }
}

/// Why a frame was refused.
#[derive(Debug, thiserror::Error)]
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

/// AES key length, chosen at `init`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AesKeyLen {
    /// 128 bits
    Aes128,
    /// 192 bits
    Aes192,
    /// 256 bits
    Aes256,
}

/// Encrypts and decrypts the frames of one block, under that block's own two keys. Cheap to make.
pub struct BlockCipher {/* ids, keys */}

impl BlockCipher {
    /// Encrypts frames `first`, `first + 1`, ... of the block, eight side by side. `object` is given for
    /// kinds whose object name is authenticated (commits).
    pub fn encrypt(
        &self,
        _first: FrameNo,
        _kind: FrameKind,
        _object: Option<&ObjectKey>,
        _frames: Vec<Envelope>,
    ) -> Vec<Ciphertext> {
        todo!()
    }
    /// Verifies, decrypts, decompresses one frame.
    pub fn decrypt(
        &self,
        _frame: FrameNo,
        _kind: FrameKind,
        _object: Option<&ObjectKey>,
        _bytes: &[u8],
    ) -> Result<Vec<u8>, Error> {
        todo!()
    }
}
