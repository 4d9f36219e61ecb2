//! Deriving keys: HKDF-SHA-256 (RFC 5869) under named labels, and Argon2id (RFC 9106) from passwords.
//! FORMAT.md, "Keys". Only `crypto` calls it; every label is here, so that no two uses can share one.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::crypto::{EncryptionKey, MacKey};
use crate::sys;

/// A use of derived keys. No label is the beginning of another, and what follows each is of fixed length.
pub(super) struct Label(&'static str);

/// The two keys of a block, from the volume key; followed by the block id.
pub(super) const BLOCK: Label = Label("rewindfs/1/block");
/// The key of pieces of a block's frames in the disk cache, from the volume key; followed by the block id.
pub(super) const PIECES: Label = Label("rewindfs/1/pieces");
/// The two keys of objects that are one frame, from the volume key; followed by the frame kind.
pub(super) const OBJECT: Label = Label("rewindfs/1/object");
/// The key of content ids, from the volume key.
pub(super) const CONTENT: Label = Label("rewindfs/1/content");
/// The gear table of the chunker, from the volume key.
pub(super) const GEAR: Label = Label("rewindfs/1/gear");
/// The two keys of a wrapped volume key, from the repository key; followed by volume id and key epoch.
pub(super) const VOLUME: Label = Label("rewindfs/1/volume");
/// The two keys of a slot, from its secret with its salt.
pub(super) const SLOT: Label = Label("rewindfs/1/slot");

/// Length of a slot's salt in bytes.
pub const SALT_LEN: usize = 16;

/// HKDF-SHA-256: extract from `key` with `salt` (empty where the key is random already), expand under label and context.
pub(super) fn derive<const N: usize>(
    key: &[u8; 32],
    salt: &[u8],
    label: &Label,
    context: &[u8],
) -> Zeroizing<[u8; N]> {
    let mut output = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand_multi_info(&[label.0.as_bytes(), context], &mut *output)
        .expect("HKDF-SHA-256 gives up to 8160 bytes and nothing here asks for more");
    output
}

/// A key for AES and one for HMAC, derived together and for one use.
pub(super) struct KeyPair {
    pub(super) encryption: EncryptionKey,
    pub(super) mac: MacKey,
}

impl KeyPair {
    /// 64 bytes under `label`: first the encryption key, then the MAC key.
    pub(super) fn derive(key: &[u8; 32], salt: &[u8], label: &Label, context: &[u8]) -> Self {
        let both = derive::<64>(key, salt, label, context);
        let mut pair = Self {
            encryption: EncryptionKey(Zeroizing::new([0; 32])),
            mac: MacKey(Zeroizing::new([0; 32])),
        };
        pair.encryption.0.copy_from_slice(&both[..32]);
        pair.mac.0.copy_from_slice(&both[32..]);
        pair
    }
}

/// What deriving a key from a password costs. Stands in the clear part of each password slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Params {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Argon2Params {
    /// The default at `init`: 64 MiB, 3 passes, 4 lanes (the second recommendation of RFC 9106): 0.13 s, and memory that a
    /// small machine has.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 << 10,
        passes: 3,
        lanes: 4,
    };
    /// The most that is spent on a slot that is not proven yet: whoever can write to the store could otherwise stop
    /// every machine that opens the repository. 4 GiB for a few passes is more than anybody sensible asks for.
    pub const CAPS: Self = Self {
        memory_kib: 4 << 20,
        passes: 16,
        lanes: 16,
    };
    /// The least that Argon2 accepts, for tests alone.
    #[cfg(test)]
    pub const FOR_TESTS: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    fn within_caps(&self) -> bool {
        self.memory_kib <= Self::CAPS.memory_kib
            && self.passes <= Self::CAPS.passes
            && self.lanes <= Self::CAPS.lanes
    }
}

/// Why a key was not derived.
#[derive(Debug, thiserror::Error)]
pub enum DerivationError {
    /// The slot asks for more than the caps; nothing was spent.
    #[error("slot asks for Argon2id with {0:?}: more than {caps:?}, the most that is spent on a slot that is not proven yet", caps = Argon2Params::CAPS)]
    TooCostly(Argon2Params),
    /// Parameters that Argon2 does not define, or memory that this machine does not have.
    #[error("Argon2id with {0:?}: {1}")]
    Argon2(Argon2Params, argon2::Error),
}

/// Argon2id, version 1.3, 32 bytes. The password goes in as the bytes that it has in UTF-8.
pub(super) fn from_password(
    password: &str,
    salt: &[u8; SALT_LEN],
    cost: Argon2Params,
) -> Result<Zeroizing<[u8; 32]>, DerivationError> {
    if !cost.within_caps() {
        return Err(DerivationError::TooCostly(cost));
    }
    let failed = |error| DerivationError::Argon2(cost, error);
    let mut output = Zeroizing::new([0; 32]);
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(failed)?;
    let mut memory = Vec::new();
    memory
        .try_reserve_exact(params.block_count())
        .map_err(|_| failed(argon2::Error::OutOfMemory))?;
    // A fifth of the time is page faults otherwise.
    sys::back_by_huge_pages_best_effort(memory.spare_capacity_mut());
    memory.resize(params.block_count(), Block::new());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut *output, &mut memory[..])
        .map_err(failed)?;
    Ok(output)
}
