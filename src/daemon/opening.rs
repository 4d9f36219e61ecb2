//! Opens a repository: store, cache and key, put together. For the background process and for the commands that only look.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use zeroize::Zeroizing;

use crate::cache::{self, Cache};
use crate::compress::Compression;
use crate::config::dirs::create_private;
use crate::config::select::VolumeRef;
use crate::crypto::{AesKeyLen, RecoveryKey};
use crate::repo::commits::{Found, Point};
use crate::repo::seen::Witness;
use crate::repo::{self, Repository, RepositoryConfig, Secret, Volume, VolumeInfo};
use crate::store::{self, Traffic, overlay::Overlay, url::Location};

/// Everything that is needed to open a repository.
pub struct Opening {
    /// Where it lies.
    pub location: Location,
    /// Counts and paces what is moved to and from there.
    pub traffic: Traffic,
    /// What opens it.
    pub secret: Secret,
    /// Its caches.
    pub cache: cache::Options,
    /// Spools on this machine of volumes in it: a snapshot that waits for upload there can be looked at already. Empty where
    /// only what is in the store counts.
    pub spools: Vec<PathBuf>,
    /// Remembers what has been seen in it.
    pub witness: Arc<dyn Witness>,
}

impl Opening {
    /// Opens it.
    pub async fn repository(&self) -> Result<Repository, repo::Error> {
        self.repository_in(&self.location, &self.traffic).await
    }

    /// Opens it in another place that holds it, or its keys alone.
    pub(super) async fn repository_in(
        &self,
        location: &Location,
        traffic: &Traffic,
    ) -> Result<Repository, repo::Error> {
        let store = store::open(location, traffic).await.map_err(|error| {
            // A folder that does not exist holds no repository.
            match error.kind {
                store::Kind::Missing => repo::Error::NoRepository(location.to_string()),
                _ => error.into(),
            }
        })?;
        let repository = Repository::open(store, self.open_cache(), &self.secret).await?;
        Ok(repository.with_witness(self.witness.clone()))
    }

    /// Opens it, and shows what waits for upload on this machine as if it were stored already. To be read only.
    pub async fn repository_with_spools(&self) -> Result<Repository, repo::Error> {
        let repository = self.repository().await?;
        if self.spools.is_empty() {
            return Ok(repository);
        }
        let store = repository.store().clone();
        Ok(
            repository.through(self.spools.iter().fold(store, |store, spool| {
                Arc::new(Overlay::new(store, spool.clone()))
            })),
        )
    }

    /// Opens the volume that is meant, to look at its snapshots.
    pub async fn volume(&self, wanted: &VolumeRef) -> Result<Arc<Volume>, repo::Error> {
        let repository = self.repository_with_spools().await?;
        let found = match wanted {
            VolumeRef::Id(id) => *id,
            other => choose(&repository.volumes().await?, other)?.id,
        };
        repository.volume(found).await
    }

    /// The caches; where the disk cache cannot be used, memory alone: it makes nothing but speed.
    fn open_cache(&self) -> Cache {
        let on_disk = match &self.cache.dir {
            Some(dir) => create_private(dir).map_err(std::io::Error::other),
            None => Ok(()),
        };
        on_disk
            .and_then(|()| Cache::open(&self.cache))
            .unwrap_or_else(|error| {
                tracing::warn!("disk cache not used: {error}");
                Cache::in_memory(self.cache.memory_bytes)
            })
    }
}

/// The forms in which a person may name a moment, for whoever has to be told.
pub const MOMENTS: &str = "10m, '5 minutes ago', 'yesterday 14:00', '2026-11-21 10:00', 2026-11-21T09:00:00Z, latest, latest~3, @17, or a \
     snapshot's name or id";

/// The snapshot that `point` means. Who has named one that there is not may have meant a moment, and is told how to write that.
pub async fn find(volume: &Volume, point: &Point) -> Result<Found, repo::Error> {
    match (volume.find(point).await, point) {
        (Err(repo::Error::NotFound(why)), Point::Named(_)) => Err(repo::Error::NotFound(format!(
            "{why}; a moment is written as {MOMENTS}"
        ))),
        (found, _) => found,
    }
}

/// What a repository is like if nothing is said.
pub const CONFIG_DEFAULT: RepositoryConfig = RepositoryConfig {
    block_len: 64 << 20,
    aes: AesKeyLen::Aes256,
    compression: Compression::Zstd(1),
};

/// Memory for the few objects that making a repository touches.
const CREATE_CACHE_BYTES: usize = 1 << 20;

/// Makes a repository, and gives it back with the text of its recovery key, which is nowhere else.
pub async fn create(
    location: &Location,
    traffic: &Traffic,
    password: Zeroizing<String>,
    config: RepositoryConfig,
) -> anyhow::Result<(Repository, Zeroizing<String>)> {
    store::create(location).await?;
    let store = store::open(location, traffic).await?;
    let cache = Cache::in_memory(CREATE_CACHE_BYTES);
    Repository::init(store, cache, &Secret::Password(password), config)
        .await
        .with_context(|| format!("make a repository at {location}"))
}

/// What a person typed where a password is wanted: a recovery key, if it is one letter by letter, else a password.
pub fn secret(typed: Zeroizing<String>) -> Secret {
    match RecoveryKey::parse(&typed) {
        Ok(_) => Secret::Recovery(typed),
        Err(_) => Secret::Password(typed),
    }
}

/// The volume that is meant, among those that a repository has.
pub fn choose<'a>(
    volumes: &'a [VolumeInfo],
    wanted: &VolumeRef,
) -> Result<&'a VolumeInfo, repo::Error> {
    let names = || {
        let names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        names.join(", ")
    };
    let (found, what) = match wanted {
        VolumeRef::Id(id) => (volumes.iter().find(|v| v.id == *id), format!("volume {id}")),
        VolumeRef::Name(name) => (
            volumes.iter().find(|v| v.name == *name),
            format!("volume {name}"),
        ),
        VolumeRef::Only if volumes.len() > 1 => {
            return Err(repo::Error::NotFound(format!(
                "the repository holds several volumes; name one with --volume: {}",
                names()
            )));
        }
        VolumeRef::Only => (volumes.first(), "volume at all".to_owned()),
    };
    found.ok_or_else(|| {
        repo::Error::NotFound(match volumes.is_empty() {
            true => "the repository holds no volume yet; `rewindfs mount DIR` makes one".into(),
            false => format!("the repository has no {what}; it has {}", names()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::id::VolumeId;

    fn volume(number: u8, name: &str) -> VolumeInfo {
        VolumeInfo {
            id: VolumeId([number; 16]),
            name: name.into(),
            created: Stamp(0),
        }
    }

    #[test]
    fn one_volume_need_not_be_named_and_several_must() {
        let one = [volume(1, "docs")];
        let two = [volume(1, "docs"), volume(2, "mail")];
        assert_eq!(choose(&one, &VolumeRef::Only).unwrap().name, "docs");
        let mail = VolumeRef::Name("mail".into());
        assert_eq!(choose(&two, &mail).unwrap().id, VolumeId([2; 16]));
        let several = choose(&two, &VolumeRef::Only).unwrap_err().to_string();
        assert!(several.contains("docs, mail"), "{several}");
        let unknown = choose(&one, &mail).unwrap_err().to_string();
        assert!(unknown.contains("docs"), "{unknown}");
        assert!(choose(&[], &VolumeRef::Only).is_err());
        assert!(choose(&one, &VolumeRef::Id(VolumeId([9; 16]))).is_err());
    }
}
