//! A repository: keys, volumes, commits, trees and blocks over one store. The only module that talks to `store` and `cache`.

use std::sync::Arc;

use crate::cache::Cache;
use crate::clock::Stamp;
use crate::compress::Compression;
use crate::crypto::{AesKeyLen, VolumeKeys};
use crate::id::{RepositoryId, VolumeId};
use crate::store::Store;

pub mod commits;

pub mod tree;

pub mod blocks;

pub mod layout;

pub mod keys;

pub mod lease;

pub mod error;

pub use error::Error;

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

/// What opens a repository.
pub enum Secret {
    /// A password.
    Password(zeroize::Zeroizing<String>),
    /// The recovery key as it was shown at `init` (grouped letters; case and dashes do not matter).
    Recovery(zeroize::Zeroizing<String>),
}

/// An open repository: its key has been proven.
pub struct Repository {/* store, cache, id, config, repository key */}

/// A volume as listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeInfo {
    /// Its id.
    pub id: VolumeId,
    /// Its name, unique in the repository.
    pub name: String,
    /// When it was made.
    pub created: Stamp,
}

impl Repository {
    /// Creates a repository in an empty store; fails if there is one. Returns it with the recovery key's text.
    pub async fn init(
        _store: Store,
        _cache: Cache,
        _password: &Secret,
        _config: RepositoryConfig,
    ) -> Result<(Self, zeroize::Zeroizing<String>), Error> {
        todo!()
    }
    /// Opens it with any slot that fits.
    pub async fn open(_store: Store, _cache: Cache, _secret: &Secret) -> Result<Self, Error> {
        todo!()
    }
    /// Its id.
    pub fn id(&self) -> RepositoryId {
        todo!()
    }
    /// Its configuration.
    pub fn config(&self) -> RepositoryConfig {
        todo!()
    }
    /// The store it lies in.
    pub fn store(&self) -> &Store {
        todo!()
    }
    /// All volumes by name.
    pub async fn volumes(&self) -> Result<Vec<VolumeInfo>, Error> {
        todo!()
    }
    /// Makes a volume: a random key, wrapped.
    pub async fn create_volume(&self, _name: &str, _now: Stamp) -> Result<VolumeInfo, Error> {
        todo!()
    }
    /// Opens a volume for reading (and for a writer to publish into).
    pub async fn volume(&self, _id: VolumeId) -> Result<Arc<Volume>, Error> {
        todo!()
    }
}

/// An open volume. Cheap to clone behind its `Arc`; all reading goes through it.
pub struct Volume {/* repository parts, keys, blocks */}

impl Volume {
    /// Its listing entry.
    pub fn info(&self) -> &VolumeInfo {
        todo!()
    }
    /// Its keys, for a writer.
    pub fn keys(&self) -> &VolumeKeys {
        todo!()
    }
    /// The repository's configuration.
    pub fn config(&self) -> RepositoryConfig {
        todo!()
    }
    /// The store, for a writer.
    pub fn store(&self) -> &Store {
        todo!()
    }
    /// Its blocks, for reading.
    pub fn blocks(&self) -> &Arc<blocks::Blocks> {
        todo!()
    }
    /// The tree of a commit.
    pub fn tree(&self, _commit: &crate::format::commit::Commit) -> tree::Tree<Arc<blocks::Blocks>> {
        todo!()
    }
    // commits.rs adds: head, find, read_commit, history.   lease.rs adds: claims, take_lease.
}
