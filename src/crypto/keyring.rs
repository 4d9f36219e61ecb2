//! The keyring of one volume: its keys by epoch, and all that derives from them. FORMAT.md, "Keys".
//!
//! Made by `repo` when it opens a volume; used by whoever encrypts, decrypts, chunks or names contents.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::compress::Compression;
use crate::crypto::cipher::Cbc;
use crate::crypto::frames::{BlockCipher, FrameCipher, Scope};
use crate::crypto::kdf::{self, KeyPair};
use crate::crypto::pieces::PieceCipher;
use crate::crypto::{AesKeyLen, Ciphertext, Error, VolumeKey};
use crate::format::frame::{Envelope, FrameKind};
use crate::id::{BlockId, ContentId, FrameNo, ObjectKey, RepositoryId, VolumeId};

/// The keys of one volume. Never prints them; wiped on drop. Cheap to clone.
#[derive(Clone)]
pub struct VolumeKeys(Arc<Ring>);

struct Ring {
    repository: RepositoryId,
    volume: VolumeId,
    aes: AesKeyLen,
    keys: BTreeMap<u16, VolumeKey>,
    /// The highest epoch in `keys`.
    newest: u16,
    content: Zeroizing<[u8; 32]>,
}

impl VolumeKeys {
    /// Puts a volume's keys together; `None` if there is none. New blocks, content ids and the gear table use the one with
    /// the highest epoch: after a key has leaked nothing new depends on it.
    pub fn new(
        repository: RepositoryId,
        volume: VolumeId,
        aes: AesKeyLen,
        keys: impl IntoIterator<Item = (u16, VolumeKey)>,
    ) -> Option<Self> {
        let keys: BTreeMap<_, _> = keys.into_iter().collect();
        let (&newest, key) = keys.last_key_value()?;
        let content = kdf::derive(&key.0, &[], &kdf::CONTENT, &[]);
        Some(Self(Arc::new(Ring {
            repository,
            volume,
            aes,
            keys,
            newest,
            content,
        })))
    }

    /// The cipher of one block. If the volume has no key of the block's epoch, it refuses to decrypt anything
    /// ([`Error::NoKey`]).
    pub fn block(&self, id: BlockId) -> BlockCipher {
        let name = id.to_bytes();
        let frames = self.0.keys.get(&id.key_epoch).map(|key| {
            let pair = KeyPair::derive(&key.0, &[], &kdf::BLOCK, &name);
            FrameCipher::new(self.scope(name), self.0.aes, &pair)
        });
        BlockCipher::new(id, frames)
    }

    /// What cuts frames of one block into pieces; `None` if the volume has no key of the block's epoch.
    pub fn pieces(&self, id: BlockId) -> Option<PieceCipher> {
        let name = id.to_bytes();
        let key = self.0.keys.get(&id.key_epoch)?;
        let pair = KeyPair::derive(&key.0, &[], &kdf::BLOCK, &name);
        let tags = kdf::derive(&key.0, &[], &kdf::PIECES, &name);
        Some(PieceCipher::new(
            Cbc::new(self.0.aes, &pair.encryption),
            tags,
        ))
    }

    /// Encrypts the body of a claim, a lease, a condemnation or a forwarding map (at most
    /// [`FRAME_PLAIN_MAX`](crate::format::frame::FRAME_PLAIN_MAX) bytes): the result is the whole object (FORMAT.md,
    /// "Objects of one frame"), its tag the last 32 bytes. Kind and name are authenticated.
    pub fn encrypt_object(
        &self,
        kind: FrameKind,
        object: &ObjectKey,
        plaintext: &[u8],
    ) -> Ciphertext {
        let epoch = self.0.newest;
        let cipher = self.object_cipher(kind, epoch, &self.0.keys[&epoch]);
        let envelope = Envelope::pack(plaintext, Compression::default());
        let frame = cipher.encrypt_one(kind, object, envelope);
        let mut bytes = Vec::with_capacity(OBJECT_HEADER_LEN + frame.bytes().len());
        bytes.extend_from_slice(OBJECT_MAGIC);
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(&[kind as u8, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(frame.bytes());
        Ciphertext(Bytes::from(bytes))
    }

    /// Verifies and decrypts what [`Self::encrypt_object`] made under the same name and kind.
    pub fn decrypt_object(
        &self,
        kind: FrameKind,
        object: &ObjectKey,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let (header, frame) = bytes
            .split_first_chunk::<OBJECT_HEADER_LEN>()
            .ok_or(Error::Unauthentic)?;
        let [magic @ .., e0, e1, found, 0, 0, 0, 0, 0] = header else {
            return Err(Error::Unauthentic);
        };
        if magic != OBJECT_MAGIC || *found != kind as u8 {
            return Err(Error::Unauthentic);
        }
        let epoch = u16::from_le_bytes([*e0, *e1]);
        let key = self.0.keys.get(&epoch).ok_or(Error::NoKey(epoch))?;
        let cipher = self.object_cipher(kind, epoch, key);
        cipher.decrypt(FrameNo(0), kind, Some(object), frame)
    }

    fn object_cipher(&self, kind: FrameKind, epoch: u16, key: &VolumeKey) -> FrameCipher {
        let mut stand_in = [0; BlockId::LEN];
        stand_in[..2].copy_from_slice(&epoch.to_le_bytes());
        let pair = KeyPair::derive(&key.0, &[], &kdf::OBJECT, &[kind as u8]);
        FrameCipher::new(self.scope(stand_in), self.0.aes, &pair)
    }

    fn scope(&self, block: [u8; BlockId::LEN]) -> Scope {
        Scope {
            repository: self.0.repository,
            volume: self.0.volume,
            block,
        }
    }

    /// Keyed BLAKE3 of a chunk, cut to 16 bytes.
    pub fn content_id(&self, chunk: &[u8]) -> ContentId {
        let hash = blake3::keyed_hash(&self.0.content, chunk);
        let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hash.as_bytes();
        ContentId(id)
    }

    /// The gear table for content-defined chunking: 256 words derived from the volume's newest key, so that where a known
    /// file would be cut is no public knowledge.
    pub fn gear(&self) -> Box<[u64; 256]> {
        let key = &self.0.keys[&self.0.newest];
        let bytes = kdf::derive::<{ 256 * 8 }>(&key.0, &[], &kdf::GEAR, &[]);
        let mut gear = Box::new([0; 256]);
        for (word, bytes) in gear.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        gear
    }

    /// The repository.
    pub fn repository(&self) -> RepositoryId {
        self.0.repository
    }

    /// The volume.
    pub fn volume(&self) -> VolumeId {
        self.0.volume
    }

    /// The key epoch that new blocks use.
    pub fn key_epoch(&self) -> u16 {
        self.0.newest
    }

    /// Keys of a volume made of zeros, for tests of other modules.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        let zeros = VolumeKey(Zeroizing::new([0; 32]));
        let (repository, volume) = (RepositoryId([0; 16]), VolumeId([0; 16]));
        Self::new(repository, volume, AesKeyLen::Aes256, [(0, zeros)]).unwrap()
    }
}

impl fmt::Debug for VolumeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeKeys({}, [redacted])", self.0.volume)
    }
}

/// Begins every object that is one frame.
const OBJECT_MAGIC: &[u8; 8] = b"RWFSobj1";
/// Magic, key epoch, kind, zeros.
const OBJECT_HEADER_LEN: usize = 16;
