//! A repository without its store: the objects that open it, kept as they are on another place, and the same repository found again.
//!
//! What is kept is what lies in the store, encrypted as it lies there: a password must still be proven against it, and whoever
//! reads it learns what he would learn from the store. The daemon keeps a copy of a volume that it has mounted in its state
//! directory, so that a machine without its network can mount again.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use crate::format::slot::KEY_OBJECT_LEN_MAX;
use crate::id::{ObjectKey, VolumeId};
use crate::repo::layout::{self, KeyName};
use crate::repo::{Error, Repository, keys, listing};
use crate::store::{Body, DELETE_TOGETHER_MAX, Kind, Store};

/// Objects copied at once: there are a handful, and none is longer than a page.
const COPIES_AT_ONCE: usize = 8;

impl Repository {
    /// Copies what opens this repository and `volume` to `to`, where [`Repository::open`] then opens it, and removes slots that
    /// are no longer in the store: a password that was taken away must not open the copy either.
    ///
    /// [`Error::Invalid`], and the copy stays as it is, if the store lists nothing that opens the volume: a place that is just being filled, or
    /// one that was emptied, must not take from this machine what opens it.
    pub async fn keep_keys(&self, volume: VolumeId, to: &Store) -> Result<(), Error> {
        let names = keys::names(&self.store).await?;
        let has_slot = names.iter().any(|name| matches!(name, KeyName::Slot(_)));
        let has_key = names
            .iter()
            .any(|name| matches!(name, KeyName::Volume { volume: of, .. } if *of == volume));
        if !(has_slot && has_key) {
            return Err(Error::Invalid(format!(
                "{} lists no password, or no key of this volume; what this machine keeps of them is left as it is",
                self.store.describe()
            )));
        }
        let wanted = names.iter().filter_map(|name| match name {
            KeyName::Slot(slot) => Some(layout::slot(*slot)),
            KeyName::Volume { volume: of, epoch } if *of == volume => {
                Some(layout::volume_key(volume, *epoch))
            }
            KeyName::Volume { .. } => None,
        });
        let wanted: BTreeSet<ObjectKey> = wanted.collect();
        // What opens it comes before the marker that makes it a repository.
        let copies: Vec<_> = wanted.iter().map(|key| self.keep(key, to)).collect();
        let _copied: Vec<()> = stream::iter(copies)
            .buffer_unordered(COPIES_AT_ONCE)
            .try_collect()
            .await?;
        self.keep(&layout::format(), to).await?;
        let mut gone = listing::all(to, layout::KEYS_PREFIX).await?;
        gone.retain(|key| !wanted.contains(key));
        for some in gone.chunks(DELETE_TOGETHER_MAX) {
            to.delete_together(some).await?;
        }
        Ok(())
    }

    async fn keep(&self, key: &ObjectKey, to: &Store) -> Result<(), Error> {
        let got = self.store.get(key, KEY_OBJECT_LEN_MAX).await;
        let (bytes, _) = got.map_err(|error| Error::of_store(key, error))?;
        match to.get(key, KEY_OBJECT_LEN_MAX).await {
            Ok((kept, _)) if kept == bytes => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind, Kind::Missing | Kind::Corrupt) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(to.put(key, Body::Bytes(bytes)).await?)
    }

    /// The same repository in `store`, once that has said that it holds it; no key is derived again. [`Error::NoRepository`] if there
    /// is none, [`Error::Invalid`] if it is another one.
    pub async fn found_in(&self, store: Store) -> Result<Self, Error> {
        let marker = keys::marker(&store).await?;
        let marker = marker.ok_or_else(|| Error::NoRepository(store.describe()))?;
        if marker.repository != self.id {
            return Err(Error::Invalid(format!(
                "{} holds another repository now than the one that was mounted from there",
                store.describe()
            )));
        }
        keys::agree(&marker, &self.contents)?;
        // Read anew: keys of a later key epoch may have been added meanwhile.
        let contents = self.contents.clone();
        let mut found = Self::with(store, self.cache.clone(), self.id, contents, None);
        found.witness = self.witness.clone();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::repo::Secret;
    use crate::repo::fixture::{PASSWORD, TEN, init, memory, no_cache, open, password};

    #[tokio::test]
    async fn what_is_kept_opens_with_the_password_alone_and_holds_no_other_volume() {
        let (store, kept) = (memory(), memory());
        let repository = init(&store).await;
        let docs = repository.create_volume("docs", Stamp(TEN)).await.unwrap();
        let mail = repository.create_volume("mail", Stamp(TEN)).await.unwrap();
        repository.keep_keys(docs.id, &kept).await.unwrap();

        let away = open(&kept, no_cache()).await;
        assert_eq!(away.id(), repository.id());
        assert_eq!(away.volume(docs.id).await.unwrap().info(), &docs);
        assert!(away.volume(mail.id).await.is_err());
        let wrong = Repository::open(kept.clone(), no_cache(), &password("guess")).await;
        assert!(matches!(wrong, Err(Error::WrongPassword(_))));

        let back = away.found_in(store).await.unwrap();
        assert_eq!(back.volume(mail.id).await.unwrap().info(), &mail);
    }

    #[tokio::test]
    async fn a_password_that_was_taken_away_does_not_open_what_is_kept_afterwards() {
        let (store, kept) = (memory(), memory());
        let repository = init(&store).await;
        let docs = repository.create_volume("docs", Stamp(TEN)).await.unwrap();
        repository.keep_keys(docs.id, &kept).await.unwrap();
        let slots = repository.slots().await.unwrap();
        let (_, recovery) = repository.add_recovery().await.unwrap();
        for slot in slots {
            repository.remove_slot(slot).await.unwrap();
        }
        repository.keep_keys(docs.id, &kept).await.unwrap();
        let old = Repository::open(kept.clone(), no_cache(), &password(PASSWORD)).await;
        assert!(matches!(old, Err(Error::WrongPassword(_))));
        let new = Repository::open(kept, no_cache(), &Secret::Recovery(recovery)).await;
        assert_eq!(new.unwrap().id(), repository.id());
    }

    #[tokio::test]
    async fn a_store_that_lists_nothing_takes_nothing_away() {
        let (store, kept) = (memory(), memory());
        let repository = init(&store).await;
        let docs = repository.create_volume("docs", Stamp(TEN)).await.unwrap();
        repository.keep_keys(docs.id, &kept).await.unwrap();
        let before = listing::all(&kept, layout::KEYS_PREFIX).await.unwrap();
        // First what opens the repository is gone, then what opens the volume too.
        let keys = listing::all(&store, layout::KEYS_PREFIX).await.unwrap();
        let (slots, volumes): (Vec<_>, Vec<_>) = keys
            .into_iter()
            .partition(|key| matches!(layout::parse_key(key), Some(KeyName::Slot(_))));
        assert!(!slots.is_empty() && !volumes.is_empty());
        for gone in [slots, volumes] {
            for key in gone {
                store.delete(&key).await.unwrap();
            }
            let again = repository.keep_keys(docs.id, &kept).await;
            assert!(matches!(again, Err(Error::Invalid(_))), "{again:?}");
        }
        let after = listing::all(&kept, layout::KEYS_PREFIX).await.unwrap();
        assert_eq!(after, before);
        assert!(open(&kept, no_cache()).await.volume(docs.id).await.is_ok());
    }

    #[tokio::test]
    async fn another_repository_at_the_same_place_is_not_taken_for_it() {
        let repository = init(&memory()).await;
        let (other, empty) = (memory(), memory());
        init(&other).await;
        let taken = repository.found_in(other).await.err();
        assert!(matches!(taken, Some(Error::Invalid(_))), "{taken:?}");
        let none = repository.found_in(empty).await.err();
        assert!(matches!(none, Some(Error::NoRepository(_))), "{none:?}");
    }
}
