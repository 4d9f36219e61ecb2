//! One key encrypted under another: the repository key under a slot's secret, a volume's key under the repository key.
//!
//! The wrapped key stands first in the plaintext, 32 bytes; what follows is the caller's (`format::slot`), which never sees the key's bytes.

use zeroize::Zeroizing;

use crate::compress::Compression;
use crate::crypto::frames::{FrameCipher, Scope};
use crate::crypto::kdf::{self, Argon2Params, DerivationError, KeyPair, SALT_LEN};
use crate::crypto::{AesKeyLen, Ciphertext, Error, RecoveryKey, RepositoryKey, VolumeKey};
use crate::format::frame::{Envelope, FrameKind};
use crate::id::{BlockId, FrameNo, ObjectKey, RepositoryId, VolumeId};

/// Frames that hold keys always use AES-256: what the repository chose stands inside them.
const SUITE: AesKeyLen = AesKeyLen::Aes256;

/// What a slot opens with, after derivation.
pub struct SlotSecret {
    secret: Zeroizing<[u8; 32]>,
    salt: [u8; SALT_LEN],
}

impl SlotSecret {
    /// Derives it from a password: slow by intention. The caps are checked before anything is spent.
    pub fn from_password(
        password: &str,
        salt: [u8; SALT_LEN],
        cost: Argon2Params,
    ) -> Result<Self, DerivationError> {
        let secret = kdf::from_password(password, &salt, cost)?;
        Ok(Self { secret, salt })
    }

    /// A recovery key is random already.
    pub fn from_recovery(key: &RecoveryKey, salt: [u8; SALT_LEN]) -> Self {
        let secret = key.0.clone();
        Self { secret, salt }
    }

    /// Encrypts the repository key and `fields` for the slot named `object`.
    pub fn wrap(
        &self,
        repository: RepositoryId,
        object: &ObjectKey,
        key: &RepositoryKey,
        fields: &[u8],
    ) -> Ciphertext {
        wrap(&self.cipher(repository), object, &key.0, fields)
    }

    /// The repository key and the fields of the slot named `object`. [`Error::Unauthentic`] if this is not its secret.
    pub fn unwrap(
        &self,
        repository: RepositoryId,
        object: &ObjectKey,
        frame: &[u8],
    ) -> Result<(RepositoryKey, Vec<u8>), Error> {
        let (key, fields) = unwrap(&self.cipher(repository), object, frame)?;
        Ok((RepositoryKey(key), fields))
    }

    fn cipher(&self, repository: RepositoryId) -> FrameCipher {
        let keys = KeyPair::derive(&self.secret, &self.salt, &kdf::SLOT, &[]);
        FrameCipher::new(outside_blocks(repository, NO_VOLUME), SUITE, &keys)
    }
}

impl RepositoryKey {
    /// Encrypts a volume's key and `fields` for the key object named `object`.
    pub fn wrap_volume(
        &self,
        repository: RepositoryId,
        (volume, key_epoch): (VolumeId, u16),
        object: &ObjectKey,
        key: &VolumeKey,
        fields: &[u8],
    ) -> Ciphertext {
        let cipher = self.volume_cipher(repository, volume, key_epoch);
        wrap(&cipher, object, &key.0, fields)
    }

    /// The volume's key and the fields of the key object named `object`.
    pub fn unwrap_volume(
        &self,
        repository: RepositoryId,
        (volume, key_epoch): (VolumeId, u16),
        object: &ObjectKey,
        frame: &[u8],
    ) -> Result<(VolumeKey, Vec<u8>), Error> {
        let cipher = self.volume_cipher(repository, volume, key_epoch);
        let (key, fields) = unwrap(&cipher, object, frame)?;
        Ok((VolumeKey(key), fields))
    }

    fn volume_cipher(&self, repository: RepositoryId, volume: VolumeId, epoch: u16) -> FrameCipher {
        let mut context = [0; VolumeId::LEN + 2];
        context[..VolumeId::LEN].copy_from_slice(&volume.0);
        context[VolumeId::LEN..].copy_from_slice(&epoch.to_le_bytes());
        let keys = KeyPair::derive(&self.0, &[], &kdf::VOLUME, &context);
        FrameCipher::new(outside_blocks(repository, volume), SUITE, &keys)
    }
}

/// Stands for the volume in frames that belong to none.
const NO_VOLUME: VolumeId = VolumeId([0; VolumeId::LEN]);

fn outside_blocks(repository: RepositoryId, volume: VolumeId) -> Scope {
    Scope {
        repository,
        volume,
        block: [0; BlockId::LEN],
    }
}

fn wrap(cipher: &FrameCipher, object: &ObjectKey, key: &[u8; 32], fields: &[u8]) -> Ciphertext {
    let mut plain = Zeroizing::new(Vec::with_capacity(key.len() + fields.len()));
    plain.extend_from_slice(key);
    plain.extend_from_slice(fields);
    // Never compressed: the buffers of a compressor are not wiped.
    let envelope = Envelope::pack(&plain, Compression::Off);
    cipher.encrypt_one(FrameKind::Key, object, envelope)
}

fn unwrap(
    cipher: &FrameCipher,
    object: &ObjectKey,
    frame: &[u8],
) -> Result<(Zeroizing<[u8; 32]>, Vec<u8>), Error> {
    let plain = cipher.decrypt(FrameNo(0), FrameKind::Key, Some(object), frame)?;
    let plain = Zeroizing::new(plain);
    let (key, fields) = plain
        .split_first_chunk::<32>()
        .ok_or(Error::Malformed("key is too short"))?;
    let mut wrapped = Zeroizing::new([0; 32]);
    wrapped.copy_from_slice(key);
    Ok((wrapped, fields.to_vec()))
}
