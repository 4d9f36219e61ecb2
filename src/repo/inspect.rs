//! Looking at objects for their own sake: what a volume's names mean, whether every byte of an object is what was written,
//! whether keys, claims and the clear `format` object are whole. For `check` and `debug`; no normal read comes here.
//!
//! Nothing is repaired and nothing is written. What the findings mean for files and snapshots is `verify`'s to say.

use crate::clock::Stamp;
use crate::format::slot;
use crate::id::{BlockClass, ObjectKey};
use crate::repo::commits::{Found, Listed};
use crate::repo::keys;
use crate::repo::layout::{self, KeyName, SlotKind};
use crate::repo::{Error, Repository, Volume, listing};
use crate::store::Listing;

mod object;

/// What the name of an object of a volume says that it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ObjectKind {
    /// A block of this class; a commit is one too.
    Block(BlockClass),
    /// A writer's claim.
    Claim,
    /// The lease.
    Lease,
    /// None of this version's names.
    Unknown,
}

impl Volume {
    /// Up to 1000 objects of this volume in the order of their names, strictly after `after`: one LIST.
    pub async fn objects(&self, after: Option<&ObjectKey>) -> Result<Listing, Error> {
        let prefix = layout::volume_prefix(self.info.id);
        Ok(self.store.list(&prefix, after, listing::PAGE).await?)
    }

    /// Length of an object in bytes; `None` if there is none.
    pub async fn object_len(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        Ok(self.store.head(key).await?)
    }

    /// What `key` is by its name.
    pub fn kind_of(&self, key: &ObjectKey) -> ObjectKind {
        let volume = self.info.id;
        if layout::parse_commit(volume, key).is_some() {
            ObjectKind::Block(BlockClass::Commit)
        } else if let Some((class, _, _)) = layout::parse_block(volume, key) {
            ObjectKind::Block(class)
        } else if layout::parse_claim(volume, key).is_some() {
            ObjectKind::Claim
        } else if *key == layout::lease(volume) {
            ObjectKind::Lease
        } else {
            ObjectKind::Unknown
        }
    }

    /// The newest commit of history that can be read, and what is wrong with newer ones. [`Volume::head`] fails where this passes
    /// over damage: use it to say what is damaged or to reach what lies behind it, never to decide what the newest state is.
    pub async fn newest_readable(&self) -> Result<(Option<Found>, Vec<Error>), Error> {
        let listed = self.list_commits().await?;
        self.newest_readable_of(&listed).await
    }

    /// The same where claims and commits have been listed already.
    pub(super) async fn newest_readable_of(
        &self,
        listed: &Listed,
    ) -> Result<(Option<Found>, Vec<Error>), Error> {
        let mut damage = Vec::new();
        let mut after = None;
        loop {
            match self.newest_from(listed, after, Stamp(u64::MAX)).await {
                Ok(looked) => return Ok((looked.found, damage)),
                Err(error) if error.is_damage() || matches!(error, Error::NewerFormat { .. }) => {
                    // Only a commit that can be passed by its name: anything else would be met again and again.
                    let passed = self.commit_named_in(&error);
                    damage.push(error);
                    match passed {
                        Some(key) => after = Some(key),
                        None => return Ok((None, damage)),
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// The commit at which reading failed; where a claim was at fault, or another commit, `None`.
    fn commit_named_in(&self, error: &Error) -> Option<ObjectKey> {
        let object = error.object()?;
        layout::parse_commit(self.info.id, &object).map(|_| object)
    }

    /// What is wrong with claims and the lease, object by object.
    pub async fn damaged_claims(&self) -> Result<Vec<Error>, Error> {
        let mut damage = Vec::new();
        for key in listing::all(&self.store, &layout::claims_prefix(self.info.id)).await? {
            if let Some(name) = layout::parse_claim(self.info.id, &key) {
                note(&mut damage, self.claims.read(&name).await)?;
            }
        }
        note(&mut damage, self.claims.read_lease().await)?;
        Ok(damage)
    }
}

impl Repository {
    /// What is wrong with the `format` object, the slots and the volumes' keys, object by object. Slots of other secrets than the one
    /// that opened this repository are checked by their checksum, which is all that anybody can do without the secret.
    pub async fn damaged_keys(&self) -> Result<Vec<Error>, Error> {
        let mut damage = Vec::new();
        match keys::marker(&self.store).await {
            Ok(None) => damage.push(Error::Missing {
                object: layout::format(),
            }),
            Ok(Some(marker)) => {
                if marker.repository != self.id || marker.features != self.contents.features {
                    damage.push(Error::damaged(
                        &layout::format(),
                        "it is that of another repository",
                    ));
                }
            }
            Err(error) => note::<()>(&mut damage, Err(error))?,
        }
        for name in keys::names(&self.store).await? {
            match name {
                KeyName::Slot(name) => note(&mut damage, self.check_slot(name).await)?,
                KeyName::Volume { volume, epoch } => {
                    let nothing = keys::Fetched::new();
                    let loaded = keys::load_volume(
                        &self.store,
                        self.id,
                        &self.contents,
                        volume,
                        vec![epoch],
                        &nothing,
                    );
                    note(&mut damage, loaded.await)?;
                }
            }
        }
        Ok(damage)
    }

    async fn check_slot(&self, name: layout::SlotName) -> Result<(), Error> {
        let object = layout::slot(name);
        let got = self.store.get(&object, slot::KEY_OBJECT_LEN_MAX).await;
        let (bytes, _) = got.map_err(|error| Error::of_store(&object, error))?;
        let same = match slot::kind(&bytes) {
            Ok(slot::SlotKind::Password(_)) => name.kind == SlotKind::Password,
            Ok(slot::SlotKind::Recovery) => name.kind == SlotKind::Recovery,
            Err(error) => return Err(Error::damaged(&object, error)),
        };
        match same {
            true => Ok(()),
            false => Err(Error::damaged(
                &object,
                "it opens with another kind of secret than its name says",
            )),
        }
    }
}

/// Puts damage on the list; any other failure ends the look.
fn note<T>(damage: &mut Vec<Error>, result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_damage() => {
            damage.push(error);
            Ok(())
        }
        Err(other) => Err(other),
    }
}
