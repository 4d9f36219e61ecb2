//! Keys as types, and the keyring of one volume.

use zeroize::Zeroizing;

use crate::crypto::{AesKeyLen, BlockCipher, Ciphertext, Error, random};
use crate::format::frame::FrameKind;
use crate::id::{BlockId, ContentId, ObjectKey, RepositoryId, VolumeId};

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(pub(super) Zeroizing<[u8; 32]>);

        impl $name {
            /// A fresh one from the operating system's random source.
            pub fn random() -> Self {
                Self(Zeroizing::new(random()))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

secret_key!(
    /// The key of a repository: wraps the keys of its volumes, encrypts nothing else.
    RepositoryKey
);
secret_key!(
    /// One key of a volume: all keys of its blocks derive from it, it encrypts nothing itself.
    VolumeKey
);
secret_key!(
    /// A key for AES. Shorter AES keys are its first bytes.
    EncryptionKey
);
secret_key!(
    /// A key for HMAC-SHA-256.
    MacKey
);

/// The keys of one volume. Never prints them; wiped on drop.
#[derive(Clone, Debug)]
pub struct VolumeKeys {/* repository, volume, per key epoch */}

impl VolumeKeys {
    /// Puts a volume's keys together; `None` if there is none. New blocks use the one with the highest epoch.
    pub fn new(
        _repository: RepositoryId,
        _volume: VolumeId,
        _aes: AesKeyLen,
        _keys: impl IntoIterator<Item = (u16, VolumeKey)>,
    ) -> Option<Self> {
        todo!()
    }
    /// The cipher of one block.
    pub fn block(&self, _id: BlockId) -> BlockCipher {
        todo!()
    }
    /// Encrypts the body of a claim, a lease, a condemnation or a forwarding map (at most
    /// [`crate::format::frame::FRAME_PLAIN_MAX`] bytes): the result is the whole object. Its name is authenticated.
    pub fn encrypt_object(
        &self,
        _kind: FrameKind,
        _object: &ObjectKey,
        _plaintext: &[u8],
    ) -> Ciphertext {
        todo!()
    }
    /// Verifies and decrypts what [`Self::encrypt_object`] made under the same name and kind.
    pub fn decrypt_object(
        &self,
        _kind: FrameKind,
        _object: &ObjectKey,
        _bytes: &[u8],
    ) -> Result<Vec<u8>, Error> {
        todo!()
    }
    /// Keyed BLAKE3 of a chunk.
    pub fn content_id(&self, _chunk: &[u8]) -> ContentId {
        todo!()
    }
    /// The gear table for content-defined chunking: 256 words derived from the volume's key.
    pub fn gear(&self) -> Box<[u64; 256]> {
        todo!()
    }
    /// The repository.
    pub fn repository(&self) -> RepositoryId {
        todo!()
    }
    /// The volume.
    pub fn volume(&self) -> VolumeId {
        todo!()
    }
    /// The key epoch that new blocks use.
    pub fn key_epoch(&self) -> u16 {
        todo!()
    }
    /// Keys of a volume made of zeros, for tests of other modules.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        todo!()
    }
}
