//! Key objects: slots (`k/s-<id>`), each opening the repository with a password or a recovery key, and wrapped
//! volume keys (`k/v-<volume>-<epoch>`). FORMAT.md, "Key objects".
//!
//! Pure: `repo` reads and writes the objects and decides which slot to try. Key bytes stay inside
//! [`crate::crypto`]; this file only knows where they lie.

use bytes::Bytes;

use crate::clock::Stamp;
use crate::compress::Compression;
use crate::crypto::{AesKeyLen, Argon2Params, RecoveryKey, RepositoryKey, VolumeKey};
use crate::format::marker::Features;
use crate::id::{ObjectKey, RepositoryId, VolumeId};

/// What is chosen once, at `init`, and stands (encrypted) in every key slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepositoryConfig {
    /// The most plaintext in one block, in bytes; 64 MiB by default, a power of two from 1 MiB to 64 MiB.
    pub block_len: u64,
    /// AES key length.
    pub aes: AesKeyLen,
    /// Compression.
    pub compression: Compression,
}

/// What a slot protects.
#[derive(Clone, Debug)]
pub struct SlotContents {
    /// The repository key.
    pub key: RepositoryKey,
    /// What was chosen at `init`.
    pub config: RepositoryConfig,
    /// The feature bits again, authenticated here: `repo` compares them with the clear `format` object.
    pub features: Features,
    /// Fields that a newer version wrote, kept as they are: (type, bytes).
    pub unknown: Vec<(u16, Vec<u8>)>,
}

/// What a new slot is to open with.
pub enum NewSecret<'a> {
    /// A password, with what its derivation is to cost.
    Password(&'a str, Argon2Params),
    /// A recovery key: random already, so that nothing need be spent on it.
    Recovery(&'a RecoveryKey),
}

/// What somebody offers to open a slot with.
pub enum OfferedSecret<'a> {
    /// A password.
    Password(&'a str),
    /// A recovery key.
    Recovery(&'a RecoveryKey),
}

/// What a slot opens with, as its clear part says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotKind {
    /// A password, at this cost.
    Password(Argon2Params),
    /// A recovery key.
    Recovery,
}

/// A volume's key object beside the key itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeRecord {
    /// The volume.
    pub volume: VolumeId,
    /// Which of its keys this is, counted from 0.
    pub key_epoch: u16,
    /// Its name, unique in the repository.
    pub name: String,
    /// When the volume was made.
    pub created: Stamp,
    /// Fields that a newer version wrote, kept as they are: (type, bytes).
    pub unknown: Vec<(u16, Vec<u8>)>,
}

/// Why a key object could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the bytes that were written.
    #[error("key object is damaged: {0}")]
    Damaged(&'static str),
    /// Whole, but the password or recovery key does not open it.
    #[error("the password or recovery key does not fit this slot")]
    WrongSecret,
    /// A password was offered to a recovery slot, or the reverse. Try another slot.
    #[error("this slot opens with another kind of secret")]
    OtherKind,
    /// A newer version wrote it: it needs feature bit `.0`.
    #[error("needs feature {0} of a newer version")]
    NewerFormat(u32),
    /// Deriving would cost more than the caps allow; nothing was spent.
    #[error(transparent)]
    Derivation(#[from] crate::crypto::DerivationError),
}

/// What a slot opens with, so that a reader tries only the slots that can fit. Costs nothing.
pub fn kind(_bytes: &[u8]) -> Result<SlotKind, Error> {
    todo!()
}

/// The whole `k/s-<id>` object that opens `contents` with `secret`. Derives the key: slow by intention.
pub fn wrap(
    _repository: RepositoryId,
    _object: &ObjectKey,
    _secret: &NewSecret<'_>,
    _contents: &SlotContents,
) -> Result<Bytes, Error> {
    todo!()
}

/// Opens a `k/s-<id>` object. The caps on what its parameters would cost are checked before anything is derived.
pub fn open(
    _bytes: &[u8],
    _repository: RepositoryId,
    _object: &ObjectKey,
    _secret: &OfferedSecret<'_>,
) -> Result<SlotContents, Error> {
    todo!()
}

/// The whole `k/v-<volume>-<epoch>` object.
pub fn wrap_volume(
    _repository: RepositoryId,
    _object: &ObjectKey,
    _under: &RepositoryKey,
    _record: &VolumeRecord,
    _key: &VolumeKey,
) -> Bytes {
    todo!()
}

/// Opens a `k/v-<volume>-<epoch>` object; `volume` and `key_epoch` are those of its name.
pub fn unwrap_volume(
    _bytes: &[u8],
    _repository: RepositoryId,
    _object: &ObjectKey,
    _under: &RepositoryKey,
    _volume: VolumeId,
    _key_epoch: u16,
) -> Result<(VolumeRecord, VolumeKey), Error> {
    todo!()
}
