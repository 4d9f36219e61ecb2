//! Key objects: slots (`k/s-<id>`), each opening the repository with a password or a recovery key, and wrapped
//! volume keys (`k/v-<volume>-<epoch>`). FORMAT.md, "Key objects".
//!
//! Pure: `repo` reads and writes the objects and decides which slot to try. Key bytes stay inside
//! [`crate::crypto`]; this file only knows where they lie.

use bytes::Bytes;

use crate::clock::Stamp;
use crate::compress::Compression;
use crate::crypto::kdf::SALT_LEN;
use crate::crypto::{
    self, AesKeyLen, Argon2Params, RecoveryKey, RepositoryKey, SlotSecret, VolumeKey,
};
use crate::format::marker::{CHECKSUM_LEN, Features, checksum};
use crate::format::tlv::{self, Fields};
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
    /// Neither a password slot nor a recovery slot: a newer version's. Try another slot.
    #[error("this slot is of a kind that this version does not know")]
    UnknownKind,
    /// A newer version wrote it: it needs feature bit `.0`.
    #[error("needs feature {0} of a newer version")]
    NewerFormat(u32),
    /// Deriving would cost more than the caps allow; nothing was spent.
    #[error(transparent)]
    Derivation(#[from] crate::crypto::DerivationError),
}

/// What a slot opens with, so that a reader tries only the slots that can fit. Costs nothing.
pub fn kind(bytes: &[u8]) -> Result<SlotKind, Error> {
    Ok(parse(bytes)?.0.kind)
}

/// The whole `k/s-<id>` object that opens `contents` with `secret`. Derives the key: slow by intention.
pub fn wrap(
    repository: RepositoryId,
    object: &ObjectKey,
    secret: &NewSecret<'_>,
    contents: &SlotContents,
) -> Result<Bytes, Error> {
    let salt = crypto::random();
    let (kind, secret) = match secret {
        NewSecret::Password(password, cost) => (
            SlotKind::Password(*cost),
            SlotSecret::from_password(password, salt, *cost)?,
        ),
        NewSecret::Recovery(key) => (SlotKind::Recovery, SlotSecret::from_recovery(key, salt)),
    };
    let fields = encode_contents(contents);
    let frame = secret.wrap(repository, object, &contents.key, &fields);
    let mut bytes = Header { kind, salt }.encode().to_vec();
    bytes.extend_from_slice(frame.bytes());
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    Ok(Bytes::from(bytes))
}

/// Opens a `k/s-<id>` object. The caps on what its parameters would cost are checked before anything is derived.
pub fn open(
    bytes: &[u8],
    repository: RepositoryId,
    object: &ObjectKey,
    secret: &OfferedSecret<'_>,
) -> Result<SlotContents, Error> {
    let (header, frame) = parse(bytes)?;
    let secret = match (header.kind, secret) {
        (SlotKind::Password(cost), OfferedSecret::Password(password)) => {
            SlotSecret::from_password(password, header.salt, cost)?
        }
        (SlotKind::Recovery, OfferedSecret::Recovery(key)) => {
            SlotSecret::from_recovery(key, header.salt)
        }
        _ => return Err(Error::OtherKind),
    };
    let (key, fields) = secret
        .unwrap(repository, object, frame)
        .map_err(|error| match error {
            crypto::Error::Unauthentic => Error::WrongSecret,
            _ => Error::Damaged("its frame is malformed"),
        })?;
    decode_contents(key, &fields)
}

/// The whole `k/v-<volume>-<epoch>` object.
///
/// # Panics
/// If the name is longer than 64 KiB.
pub fn wrap_volume(
    repository: RepositoryId,
    object: &ObjectKey,
    under: &RepositoryKey,
    record: &VolumeRecord,
    key: &VolumeKey,
) -> Bytes {
    let which = (record.volume, record.key_epoch);
    let frame = under.wrap_volume(repository, which, object, key, &encode_record(record));
    let mut bytes = VOLUME_MAGIC.to_vec();
    bytes.extend_from_slice(frame.bytes());
    Bytes::from(bytes)
}

/// Opens a `k/v-<volume>-<epoch>` object; `volume` and `key_epoch` are those of its name.
pub fn unwrap_volume(
    bytes: &[u8],
    repository: RepositoryId,
    object: &ObjectKey,
    under: &RepositoryKey,
    volume: VolumeId,
    key_epoch: u16,
) -> Result<(VolumeRecord, VolumeKey), Error> {
    let frame = bytes
        .strip_prefix(VOLUME_MAGIC)
        .ok_or(Error::Damaged("it does not begin like a volume's key"))?;
    let (key, fields) = under
        .unwrap_volume(repository, (volume, key_epoch), object, frame)
        .map_err(|_| Error::Damaged("authentication failed"))?;
    Ok((decode_record(volume, key_epoch, &fields)?, key))
}

/// The longest key object that anybody need read: a few hundred bytes of our own, and room for fields of later versions.
pub const KEY_OBJECT_LEN_MAX: u64 = 64 << 10;

const SLOT_MAGIC: &[u8; 8] = b"RWFSslt1";
const VOLUME_MAGIC: &[u8; 8] = b"RWFSvol1";
/// Slot kinds and derivations, as they stand in a slot's clear part.
const KIND_PASSWORD: u8 = 1;
const KIND_RECOVERY: u8 = 2;
const KDF_NONE: u8 = 0;
const KDF_ARGON2ID: u8 = 1;
/// Magic, kind, KDF, zeros, three parameters, salt.
const HEADER_LEN: usize = 8 + 4 + 12 + SALT_LEN;

/// Fields of a slot.
const BLOCK_LEN: u16 = 1;
const AES_BITS: u16 = 2;
const COMPRESSION: u16 = 3;
const REQUIRED_FEATURES: u16 = 4;
const OPTIONAL_FEATURES: u16 = 5;
/// Fields of a volume's key object.
const VOLUME_NAME: u16 = 1;
const VOLUME_CREATED: u16 = 2;

const MALFORMED: Error = Error::Damaged("its fields are malformed");

/// A slot's clear part.
struct Header {
    kind: SlotKind,
    salt: [u8; SALT_LEN],
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(SLOT_MAGIC);
        match self.kind {
            SlotKind::Recovery => bytes[8..10].copy_from_slice(&[KIND_RECOVERY, KDF_NONE]),
            SlotKind::Password(cost) => {
                bytes[8..10].copy_from_slice(&[KIND_PASSWORD, KDF_ARGON2ID]);
                bytes[12..16].copy_from_slice(&cost.memory_kib.to_le_bytes());
                bytes[16..20].copy_from_slice(&cost.passes.to_le_bytes());
                bytes[20..24].copy_from_slice(&cost.lanes.to_le_bytes());
            }
        }
        bytes[24..].copy_from_slice(&self.salt);
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, Error> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let cost = Argon2Params {
            memory_kib: word(12),
            passes: word(16),
            lanes: word(20),
        };
        let no_cost = bytes[12..24].iter().all(|&byte| byte == 0);
        let kind = match bytes[8..12] {
            [KIND_PASSWORD, KDF_ARGON2ID, 0, 0] => SlotKind::Password(cost),
            [KIND_RECOVERY, KDF_NONE, 0, 0] if no_cost => SlotKind::Recovery,
            _ => return Err(Error::UnknownKind),
        };
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&bytes[24..]);
        Ok(Self { kind, salt })
    }
}

/// A slot's clear part and its frame, once magic and checksum are found right.
fn parse(bytes: &[u8]) -> Result<(Header, &[u8]), Error> {
    let (checked, sum) = bytes
        .split_last_chunk::<CHECKSUM_LEN>()
        .ok_or(Error::Damaged("it is cut short"))?;
    let (header, frame) = checked
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(Error::Damaged("it is cut short"))?;
    if !header.starts_with(SLOT_MAGIC) {
        return Err(Error::Damaged("it does not begin like a slot"));
    }
    if checksum(checked) != *sum {
        return Err(Error::Damaged("its checksum does not fit"));
    }
    Ok((Header::decode(header)?, frame))
}

pub(super) fn encode_contents(contents: &SlotContents) -> Vec<u8> {
    let config = &contents.config;
    let compression = match config.compression {
        Compression::Off => [0, 0],
        Compression::Zstd(level) => [1, level.to_le_bytes()[0]],
    };
    let mut fields = Fields::default();
    fields.put(BLOCK_LEN, &config.block_len.to_le_bytes());
    fields.put(AES_BITS, &config.aes.bits().to_le_bytes());
    fields.put(COMPRESSION, &compression);
    fields.put(REQUIRED_FEATURES, &contents.features.required.to_le_bytes());
    fields.put(OPTIONAL_FEATURES, &contents.features.optional.to_le_bytes());
    for (kind, value) in &contents.unknown {
        fields.put(*kind, value);
    }
    fields.into_bytes()
}

pub(super) fn decode_contents(key: RepositoryKey, fields: &[u8]) -> Result<SlotContents, Error> {
    let (mut block_len, mut aes, mut compression) = (None, None, None);
    let mut features = Features::default();
    let mut unknown = Vec::new();
    for (kind, value) in tlv::parse(fields).ok_or(MALFORMED)? {
        match kind {
            BLOCK_LEN => block_len = Some(read_u64(value)?),
            AES_BITS => aes = <[u8; 2]>::try_from(value).ok().map(u16::from_le_bytes),
            COMPRESSION => compression = Some(value),
            REQUIRED_FEATURES => features.required = read_u64(value)?,
            OPTIONAL_FEATURES => features.optional = read_u64(value)?,
            _ => unknown.push((kind, value.to_vec())),
        }
    }
    if let Some(bit) = features.unknown_required() {
        return Err(Error::NewerFormat(bit));
    }
    let config = RepositoryConfig {
        block_len: block_len
            .filter(|len| len.is_power_of_two() && BLOCK_LEN_RANGE.contains(len))
            .ok_or(MALFORMED)?,
        aes: aes.and_then(AesKeyLen::from_bits).ok_or(MALFORMED)?,
        compression: match compression {
            Some([0, 0]) => Compression::Off,
            Some([1, level]) => Compression::Zstd(i8::from_le_bytes([*level])),
            _ => return Err(MALFORMED),
        },
    };
    Ok(SlotContents {
        key,
        config,
        features,
        unknown,
    })
}

pub(super) fn encode_record(record: &VolumeRecord) -> Vec<u8> {
    let mut fields = Fields::default();
    fields.put(VOLUME_NAME, record.name.as_bytes());
    fields.put(VOLUME_CREATED, &record.created.0.to_le_bytes());
    for (kind, value) in &record.unknown {
        fields.put(*kind, value);
    }
    fields.into_bytes()
}

pub(super) fn decode_record(
    volume: VolumeId,
    key_epoch: u16,
    fields: &[u8],
) -> Result<VolumeRecord, Error> {
    let fields = tlv::parse(fields).ok_or(MALFORMED)?;
    let mut record = VolumeRecord {
        volume,
        key_epoch,
        name: String::new(),
        created: Stamp(0),
        unknown: Vec::new(),
    };
    for (kind, value) in fields {
        match kind {
            VOLUME_NAME => {
                let name = std::str::from_utf8(value).map_err(|_| MALFORMED)?;
                record.name = name.to_owned();
            }
            VOLUME_CREATED => record.created = Stamp(read_u64(value)?),
            _ => record.unknown.push((kind, value.to_vec())),
        }
    }
    Ok(record)
}

/// What a block may be chosen to hold, in bytes: less than a frame makes no block, and more makes a PUT that is slow to repeat.
const BLOCK_LEN_RANGE: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 20;

fn read_u64(value: &[u8]) -> Result<u64, Error> {
    let bytes = value.try_into().map_err(|_| MALFORMED)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests;
