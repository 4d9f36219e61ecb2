//! Repositories for the tests of `repo`, cheap to open, and the writer that all tests share. Compiled for tests alone.

use std::sync::Arc;

use crate::cache::Cache;
use crate::clock::{ManualClock, Stamp};
use crate::compress::Compression;
use crate::crypto::{AesKeyLen, Argon2Params};
use crate::repo::{Repository, RepositoryConfig, Secret, Volume};
use crate::store::Store;
use crate::store::memory::Memory;
use crate::store::metered::{Meter, Metered};

#[path = "../../tests/support/writer.rs"]
mod writer;

pub(super) use writer::{LEASE, Special, TEN, Writer};

/// What opens the repositories made here.
pub(super) const PASSWORD: &str = "correct horse";
pub(super) fn config() -> RepositoryConfig {
    RepositoryConfig {
        block_len: 64 << 20,
        aes: AesKeyLen::Aes256,
        compression: Compression::default(),
    }
}

pub(super) fn password(text: &str) -> Secret {
    Secret::Password(text.to_owned().into())
}

pub(super) fn memory() -> Store {
    Arc::new(Memory::new())
}

pub(super) fn metered(inner: &Store) -> (Store, Arc<Meter>) {
    let meter = Arc::new(Meter::default());
    (Arc::new(Metered::new(inner.clone(), meter.clone())), meter)
}

pub(super) fn no_cache() -> Cache {
    Cache::in_memory(0)
}

pub(super) async fn init(store: &Store) -> Repository {
    let secret = password(PASSWORD);
    let cost = Argon2Params::FOR_TESTS;
    let made = Repository::init_at_cost(store.clone(), no_cache(), &secret, config(), cost).await;
    made.unwrap().0
}

pub(super) async fn open(store: &Store, cache: Cache) -> Repository {
    Repository::open(store.clone(), cache, &password(PASSWORD))
        .await
        .unwrap()
}

/// A new volume in a new repository.
pub(super) async fn volume(store: &Store) -> Arc<Volume> {
    let repository = init(store).await;
    let info = repository.create_volume("docs", Stamp(TEN)).await.unwrap();
    repository.volume(info.id).await.unwrap()
}

/// The one volume of a repository, opened anew, as another process would.
pub(super) async fn reopen(store: &Store, cache: Cache) -> Arc<Volume> {
    let repository = open(store, cache).await;
    let volumes = repository.volumes().await.unwrap();
    repository.volume(volumes[0].id).await.unwrap()
}

impl Writer {
    /// A volume in a new repository, with a writer and its clock at [`TEN`].
    pub(super) async fn new(store: &Store) -> Self {
        let clock = Arc::new(ManualClock::new(Stamp(TEN)));
        Self::claim(&volume(store).await, &clock, "here")
            .await
            .unwrap()
    }
}
