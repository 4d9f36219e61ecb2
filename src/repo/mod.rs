//! A repository: keys, volumes, commits, trees and blocks over one store.
//!
//! What only `repo` may do, and everybody else must leave to it:
//! - talk to `store` and `cache` (`daemon` and `cli` merely build them and hand them in; a writer puts its finished
//!   objects through [`Volume::store`], under names that [`layout`] made);
//! - make and read object names ([`layout`]);
//! - open key slots and volume keys ([`Repository`]);
//! - say which commits are history and which is the newest ([`Volume::head`], [`Volume::find`]): the rule of claims;
//! - turn an address into bytes ([`blocks::Blocks`]): everything that leaves here has been authenticated as *that* part of
//!   *that* object, or is an error that names what is damaged;
//! - decide who may write ([`Volume::claim`]).
//!
//! It deletes nothing but the slots that it is asked to, and what it has itself put a moment ago where another was first;
//! it decides nothing about when to commit, and knows no local files.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::clock::Stamp;
use crate::crypto::{Argon2Params, RecoveryKey, RepositoryKey};
use crate::format::marker::{Features, Marker};
use crate::format::slot::SlotContents;
use crate::id::{RepositoryId, VolumeId};
use crate::repo::keys::{Fetched, LoadedVolume};
use crate::repo::layout::{KeyName, SlotName};
use crate::repo::seen::Witness;
use crate::store::{Body, Condition, PutOutcome, Store};

pub mod commits;

pub mod volume;

mod lineage;

mod claims;

pub mod tree;

pub mod blocks;

pub mod layout;

mod listing;

pub mod seen;

pub mod inspect;

pub mod keys;

mod kept;

pub mod lease;

pub mod error;

pub use crate::format::slot::RepositoryConfig;
pub use error::Error;
pub use volume::{Volume, VolumeInfo};

/// What opens a repository.
pub enum Secret {
    /// A password.
    Password(Zeroizing<String>),
    /// The recovery key as it was shown at `init` (grouped letters; case and dashes do not matter).
    Recovery(Zeroizing<String>),
}

/// What lies under `k/`, and some of it.
#[derive(Clone)]
struct Listed {
    names: Vec<KeyName>,
    fetched: Fetched,
}

/// An open repository: its key has been proven.
pub struct Repository {
    store: Store,
    cache: Cache,
    id: RepositoryId,
    contents: SlotContents,
    /// What `open` listed, and fetched of it: the first [`Self::volumes`] after it need not ask again.
    listed: Mutex<Option<Listed>>,
    loaded: Mutex<HashMap<VolumeId, LoadedVolume>>,
    witness: Option<Arc<dyn Witness>>,
    /// Whether `store` shows nothing but what is stored: what lies in a spool only is not remembered as seen.
    is_whole_store: bool,
}

impl Repository {
    /// Creates a repository in an empty store; [`Error::AlreadyThere`] if there is one. Returns it with the recovery key's text.
    pub async fn init(
        store: Store,
        cache: Cache,
        password: &Secret,
        config: RepositoryConfig,
    ) -> Result<(Self, Zeroizing<String>), Error> {
        Self::init_at_cost(store, cache, password, config, Argon2Params::DEFAULT).await
    }

    /// [`Self::init`] with the cost of the password slot chosen. The slots are put first and `format` last: it is what makes
    /// the place a repository, so a creation that was cut short leaves none.
    pub(crate) async fn init_at_cost(
        store: Store,
        cache: Cache,
        password: &Secret,
        config: RepositoryConfig,
        cost: Argon2Params,
    ) -> Result<(Self, Zeroizing<String>), Error> {
        let Secret::Password(password) = password else {
            return Err(Error::Invalid(
                "a repository is created with a password; its recovery key is made for it".into(),
            ));
        };
        refuse_used_place(&store).await?;
        let id = RepositoryId::random();
        let contents = SlotContents {
            key: RepositoryKey::random(),
            config,
            features: Features::default(),
            unknown: Vec::new(),
        };
        let recovery = RecoveryKey::random();
        let slots = [
            keys::put_password(&store, id, password, cost, &contents).await?,
            keys::put_recovery(&store, id, &recovery, &contents).await?,
        ];
        let marker = Marker {
            repository: id,
            features: contents.features,
        };
        if !put_marker(&store, &marker).await? {
            store.delete_together(&slots.map(layout::slot)).await?;
            return Err(Error::AlreadyThere(store.describe()));
        }
        Ok((
            Self::with(store, cache, id, contents, None),
            recovery.to_text(),
        ))
    }

    /// Opens it with any slot that fits. What a slot's parameters would cost is checked before it is spent.
    /// [`Error::NoRepository`], [`Error::WrongPassword`], [`Error::NewerFormat`] and [`Error::Damaged`] are told apart.
    pub async fn open(store: Store, cache: Cache, secret: &Secret) -> Result<Self, Error> {
        let unlocked = keys::unlock(&store, secret).await?;
        Ok(Self::with(
            store,
            cache,
            unlocked.repository,
            unlocked.contents,
            Some(Listed {
                names: unlocked.names,
                fetched: unlocked.fetched,
            }),
        ))
    }

    fn with(
        store: Store,
        cache: Cache,
        id: RepositoryId,
        contents: SlotContents,
        listed: Option<Listed>,
    ) -> Self {
        Self {
            store,
            cache,
            id,
            contents,
            listed: Mutex::new(listed),
            loaded: Mutex::default(),
            witness: None,
            is_whole_store: true,
        }
    }

    /// The same repository on a machine that remembers which commits it has seen: volumes opened from now on refuse a store that has
    /// lost them ([`Error::RolledBack`]).
    pub fn with_witness(mut self, witness: Arc<dyn Witness>) -> Self {
        self.witness = Some(witness);
        self
    }

    /// The same repository, read through a store that shows the same objects and perhaps more: the spool laid over the store.
    /// No key is derived, listed or fetched again: a spool holds none.
    pub fn through(&self, store: Store) -> Self {
        Self {
            store,
            cache: self.cache.clone(),
            id: self.id,
            contents: self.contents.clone(),
            listed: Mutex::new(self.listed.lock().clone()),
            loaded: Mutex::new(self.loaded.lock().clone()),
            witness: self.witness.clone(),
            is_whole_store: false,
        }
    }

    /// Its id.
    pub fn id(&self) -> RepositoryId {
        self.id
    }

    /// Its configuration.
    pub fn config(&self) -> RepositoryConfig {
        self.contents.config
    }

    /// The store it lies in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All volumes by name. Fails if the key of any is damaged: see [`Self::volumes_and_damage`].
    pub async fn volumes(&self) -> Result<Vec<VolumeInfo>, Error> {
        match self.volumes_and_damage().await? {
            (volumes, damage) if damage.is_empty() => Ok(volumes),
            (_, mut damage) => Err(damage.swap_remove(0)),
        }
    }

    /// The volumes whose keys are whole, by name, and what is wrong with the others: one damaged key does not take the other volumes away.
    pub async fn volumes_and_damage(&self) -> Result<(Vec<VolumeInfo>, Vec<Error>), Error> {
        let listed = self.listed.lock().take();
        let Listed { names, fetched } = match listed {
            Some(listed) => listed,
            None => Listed {
                names: keys::names(&self.store).await?,
                fetched: Fetched::new(),
            },
        };
        let loads = keys::load_volumes(&self.store, self.id, &self.contents, &names, &fetched);
        let (mut volumes, mut damage) = (Vec::new(), Vec::new());
        for loaded in loads.await {
            match loaded {
                Ok(loaded) => volumes.push(self.remember(loaded)),
                Err(error @ (Error::Damaged { .. } | Error::Missing { .. })) => damage.push(error),
                Err(error) => return Err(error),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        Ok((volumes, damage))
    }

    /// Makes a volume: a random key, wrapped. [`Error::Invalid`] if the name is taken or cannot be one.
    pub async fn create_volume(&self, name: &str, now: Stamp) -> Result<VolumeInfo, Error> {
        keys::check_volume_name(name)?;
        let taken = || Error::Invalid(format!("there is a volume {name:?} already"));
        self.listed.lock().take();
        let (volumes, _) = self.volumes_and_damage().await?;
        if volumes.iter().any(|volume| volume.name == name) {
            return Err(taken());
        }
        let info = VolumeInfo {
            id: VolumeId::random(),
            name: name.to_owned(),
            created: now,
        };
        let loaded = keys::put_volume(&self.store, self.id, &self.contents, &info).await?;
        // Two machines may have made the same name at once: both look again, and the higher id goes.
        let (volumes, _) = self.volumes_and_damage().await?;
        if volumes
            .iter()
            .any(|other| other.name == name && other.id < info.id)
        {
            self.store.delete(&layout::volume_key(info.id, 0)).await?;
            return Err(taken());
        }
        Ok(self.remember(loaded))
    }

    /// Opens a volume for reading (and for a writer to publish into); [`Error::NotFound`] if there is none.
    pub async fn volume(&self, id: VolumeId) -> Result<Arc<Volume>, Error> {
        let known = self.loaded.lock().get(&id).cloned();
        let loaded = match known {
            Some(loaded) => loaded,
            None => self.load(id).await?,
        };
        Ok(Arc::new(
            Volume::new(
                loaded,
                self.contents.config,
                self.store.clone(),
                self.cache.clone(),
            )
            .remembering(self.witness.clone(), self.is_whole_store),
        ))
    }

    async fn load(&self, id: VolumeId) -> Result<LoadedVolume, Error> {
        let epochs_in = |names: &[KeyName]| {
            let epochs = names.iter().filter_map(|name| match name {
                KeyName::Volume { volume, epoch } if *volume == id => Some(*epoch),
                _ => None,
            });
            epochs.collect::<Vec<_>>()
        };
        let listed = self.listed.lock().as_ref().map(|listed| {
            let epochs = epochs_in(&listed.names);
            (epochs, listed.fetched.clone())
        });
        // A volume made since the repository was opened is not among what was listed then.
        let (epochs, fetched) = match listed.filter(|(epochs, _)| !epochs.is_empty()) {
            Some(listed) => listed,
            None => (epochs_in(&keys::names(&self.store).await?), Fetched::new()),
        };
        let loads = keys::load_volume(&self.store, self.id, &self.contents, id, epochs, &fetched);
        let loaded = loads.await?;
        self.remember(loaded.clone());
        Ok(loaded)
    }

    fn remember(&self, loaded: LoadedVolume) -> VolumeInfo {
        let info = loaded.info.clone();
        self.loaded.lock().insert(info.id, loaded);
        info
    }

    /// Adds a slot that opens with `password`. Touches no data.
    pub async fn add_password(&self, password: &Zeroizing<String>) -> Result<SlotName, Error> {
        let cost = Argon2Params::DEFAULT;
        keys::put_password(&self.store, self.id, password, cost, &self.contents).await
    }

    /// Adds a slot for a new recovery key and returns its text.
    pub async fn add_recovery(&self) -> Result<(SlotName, Zeroizing<String>), Error> {
        let key = RecoveryKey::random();
        let name = keys::put_recovery(&self.store, self.id, &key, &self.contents).await?;
        Ok((name, key.to_text()))
    }

    /// All slots.
    pub async fn slots(&self) -> Result<Vec<SlotName>, Error> {
        let names = keys::names(&self.store).await?;
        let slots = names.into_iter().filter_map(|name| match name {
            KeyName::Slot(slot) => Some(slot),
            KeyName::Volume { .. } => None,
        });
        Ok(slots.collect())
    }

    /// Removes a slot; [`Error::Invalid`] for the last one, which would lock everybody out. Does not help against somebody
    /// who kept a copy of the slot: only new keys do.
    pub async fn remove_slot(&self, name: SlotName) -> Result<(), Error> {
        let slots = self.slots().await?;
        if !slots.contains(&name) {
            return Err(Error::NotFound(format!(
                "there is no slot {}",
                layout::slot(name)
            )));
        }
        if slots.len() == 1 {
            return Err(Error::Invalid(
                "the last key slot cannot be removed: nothing could open the repository".into(),
            ));
        }
        Ok(self.store.delete(&layout::slot(name)).await?)
    }
}

/// A place with a repository is refused, and so is one that lost its `format` object. Slots alone, without any volume, are what a
/// creation leaves that was cut short, or one that is going on this instant: they are left alone, they open nothing here.
async fn refuse_used_place(store: &Store) -> Result<(), Error> {
    if keys::marker(store).await?.is_some() {
        return Err(Error::AlreadyThere(store.describe()));
    }
    let names = keys::names(store).await?;
    let has_volumes = names
        .iter()
        .any(|name| matches!(name, KeyName::Volume { .. }));
    if has_volumes || !store.list("v/", None, 1).await?.objects.is_empty() {
        return Err(Error::Missing {
            object: layout::format(),
        });
    }
    Ok(())
}

/// Whether `format` is now ours. The condition is not believed: a store that ignores it says yes to two creators, and of those
/// the one whose object stayed is the one who made the repository.
async fn put_marker(store: &Store, marker: &Marker) -> Result<bool, Error> {
    let body = Body::Bytes(marker.encode().to_vec().into());
    let outcome = store
        .put_if(&layout::format(), body, Condition::Absent)
        .await?;
    Ok(outcome == PutOutcome::Done && keys::marker(store).await?.as_ref() == Some(marker))
}

/// A time for people in an error, in UTC, to the second.
fn show_time(stamp: Stamp) -> String {
    let millis = i64::try_from(stamp.0).ok();
    match millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => format!("{} ms", stamp.0),
    }
}

#[cfg(test)]
mod fixture;

#[cfg(test)]
mod tests;
