//! An open volume: what all reading and publishing goes through.
//!
//! Only its parts are here. `commits` adds finding and reading commits ([`Volume::head`], [`Volume::find`]), `lease` the
//! right to write ([`Volume::claim`]). Made by [`crate::repo::Repository::volume`].

use std::sync::Arc;

use crate::cache::Cache;
use crate::clock::Stamp;
use crate::crypto::VolumeKeys;
use crate::format::commit::Commit;
use crate::id::VolumeId;
use crate::repo::RepositoryConfig;
use crate::repo::blocks::Blocks;
use crate::repo::claims::Claims;
use crate::repo::keys::LoadedVolume;
use crate::repo::seen::Witness;
use crate::repo::tree::Tree;
use crate::store::Store;

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

/// An open volume. Cheap to clone behind its `Arc`; all reading goes through it.
pub struct Volume {
    pub(super) info: VolumeInfo,
    pub(super) keys: VolumeKeys,
    config: RepositoryConfig,
    pub(super) store: Store,
    pub(super) claims: Claims,
    pub(super) blocks: Arc<Blocks>,
    pub(super) witness: Option<Arc<dyn Witness>>,
    pub(super) is_whole_store: bool,
}

impl Volume {
    pub(super) fn new(
        loaded: LoadedVolume,
        config: RepositoryConfig,
        store: Store,
        cache: Cache,
    ) -> Self {
        let LoadedVolume { info, keys } = loaded;
        Self {
            claims: Claims::new(info.name.clone(), keys.clone(), store.clone()),
            blocks: Arc::new(Blocks::new(store.clone(), cache, keys.clone())),
            info,
            keys,
            config,
            store,
            witness: None,
            is_whole_store: false,
        }
    }

    /// The same volume on a machine that remembers which commits it has seen.
    pub(super) fn remembering(
        mut self,
        witness: Option<Arc<dyn Witness>>,
        is_whole_store: bool,
    ) -> Self {
        (self.witness, self.is_whole_store) = (witness, is_whole_store);
        self
    }

    /// The same volume, its commits and claims looked for in another store: the one beneath an overlay. Blocks are read as before.
    pub fn through(&self, store: Store) -> Self {
        Self {
            claims: Claims::new(self.info.name.clone(), self.keys.clone(), store.clone()),
            blocks: self.blocks.clone(),
            info: self.info.clone(),
            keys: self.keys.clone(),
            config: self.config,
            store,
            witness: self.witness.clone(),
            is_whole_store: self.is_whole_store,
        }
    }

    /// Its listing entry.
    pub fn info(&self) -> &VolumeInfo {
        &self.info
    }

    /// Its keys, for a writer.
    pub fn keys(&self) -> &VolumeKeys {
        &self.keys
    }

    /// The repository's configuration.
    pub fn config(&self) -> RepositoryConfig {
        self.config
    }

    /// The store, for a writer.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its blocks, for reading.
    pub fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// The tree of a commit.
    pub fn tree(&self, commit: &Commit) -> Tree<Arc<Blocks>> {
        Tree::new(commit.tree.clone(), self.blocks.clone())
    }
}
