//! Key slots and wrapped volume keys in the store: making them, and trying them. FORMAT.md, "Key objects".
//!
//! Which bytes they are made of is `format/slot.rs`; what a key is, only `crypto` knows. Called by `repo/mod.rs` alone.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use crate::crypto::{self, Argon2Params, RecoveryKey, VolumeKey, VolumeKeys};
use crate::format::marker::{self, Marker};
use crate::format::slot::{
    self, KEY_OBJECT_LEN_MAX, NewSecret, OfferedSecret, SlotContents, VolumeRecord,
};
use crate::id::{ObjectKey, RepositoryId, VolumeId};
use crate::repo::layout::{self, KeyName, SlotKind, SlotName};
use crate::repo::{Error, Secret, VolumeInfo, listing};
use crate::store::{Body, Condition, Kind, PutOutcome, Store};

/// The most slots tried. Each may cost seconds, so that planted ones must not cost hours; nobody keeps this many passwords.
const SLOTS_MAX: usize = 32;
/// Volume keys fetched at once: hides the latency of a store, and is far below what any throttles.
const KEYS_AT_ONCE: usize = 16;
/// The most of them that are fetched before it is known which are wanted.
const KEYS_AHEAD_MAX: usize = 4;
/// The longest name of a volume in bytes: that of a file name.
const VOLUME_NAME_LEN_MAX: usize = 255;

/// What opening has proven.
pub(super) struct Unlocked {
    pub(super) repository: RepositoryId,
    pub(super) contents: SlotContents,
    /// All names under `k/`, as listed while opening.
    pub(super) names: Vec<KeyName>,
    /// Volume keys that were fetched meanwhile, still wrapped.
    pub(super) fetched: Fetched,
}

/// Key objects by name, as they lie in the store.
pub(super) type Fetched = HashMap<ObjectKey, Bytes>;

/// A volume with its keys.
#[derive(Clone)]
pub(super) struct LoadedVolume {
    pub(super) info: VolumeInfo,
    pub(super) keys: VolumeKeys,
}

/// Reads the `format` object; `None` if there is none.
pub(super) async fn marker(store: &Store) -> Result<Option<Marker>, Error> {
    let object = layout::format();
    let bytes = match store.get(&object, KEY_OBJECT_LEN_MAX).await {
        Ok((bytes, _)) => bytes,
        Err(error) if error.kind == Kind::Missing => return Ok(None),
        Err(error) => return Err(Error::of_store(&object, error)),
    };
    match Marker::decode(&bytes) {
        Ok(marker) => Ok(Some(marker)),
        Err(marker::Error::Damaged(why)) => Err(Error::damaged(&object, why)),
        Err(marker::Error::Newer(needs)) => Err(Error::NewerFormat {
            what: store.describe(),
            feature: match needs {
                marker::Needs::Version(version) => u32::from(version),
                marker::Needs::Feature(bit) => bit,
            },
        }),
    }
}

/// The names under `k/` that this version knows.
pub(super) async fn names(store: &Store) -> Result<Vec<KeyName>, Error> {
    let keys = listing::all(store, layout::KEYS_PREFIX).await?;
    Ok(keys.iter().filter_map(layout::parse_key).collect())
}

/// Opens a repository with whichever slot fits. [`Error::WrongPassword`] only if every slot that could fit was whole and
/// refused; a slot that is damaged, too costly, newer or one too many to be tried is said instead, for it may have been the right one.
pub(super) async fn unlock(store: &Store, secret: &Secret) -> Result<Unlocked, Error> {
    let offered = Offered::read(secret)?;
    let (marker, names) = futures::try_join!(marker(store), names(store))?;
    let Some(marker) = marker else {
        return Err(match names.is_empty() {
            true => Error::NoRepository(store.describe()),
            false => Error::Missing {
                object: layout::format(),
            },
        });
    };
    // Which volume will be wanted is not known, but most repositories have few: their keys come while a slot is being tried.
    let (contents, fetched) = futures::join!(
        try_slots(store, &marker, &names, &offered),
        fetch_ahead(store, &names)
    );
    Ok(Unlocked {
        repository: marker.repository,
        contents: contents?,
        names,
        fetched,
    })
}

async fn try_slots(
    store: &Store,
    marker: &Marker,
    names: &[KeyName],
    offered: &Offered,
) -> Result<SlotContents, Error> {
    let mut slots = names.iter().filter_map(|name| match name {
        KeyName::Slot(slot) if slot.kind == offered.kind() => Some(*slot),
        _ => None,
    });
    let mut unsure = None;
    for slot in slots.by_ref().take(SLOTS_MAX) {
        match try_slot(store, marker.repository, slot, offered).await? {
            Tried::Opened(contents) => {
                agree(marker, &contents)?;
                return Ok(*contents);
            }
            Tried::Refused => {}
            Tried::Unsure(error) => unsure = Some(error),
        }
    }
    let place = store.describe();
    Err(match slots.count() {
        0 => unsure.unwrap_or(Error::WrongPassword(place)),
        untried => Error::TooManySlots {
            place,
            tried: SLOTS_MAX,
            untried,
        },
    })
}

/// Volume keys, unless there are many. What cannot be had is fetched, and told, when it is wanted.
async fn fetch_ahead(store: &Store, names: &[KeyName]) -> Fetched {
    let objects: Vec<ObjectKey> = names
        .iter()
        .filter_map(|name| match name {
            KeyName::Volume { volume, epoch } => Some(layout::volume_key(*volume, *epoch)),
            KeyName::Slot(_) => None,
        })
        .collect();
    if objects.len() > KEYS_AHEAD_MAX {
        return Fetched::new();
    }
    let gets = objects.into_iter().map(|object| async move {
        let got = store.get(&object, KEY_OBJECT_LEN_MAX).await;
        Some((object, got.ok()?.0))
    });
    let fetched: Vec<_> = stream::iter(gets).buffered(KEYS_AT_ONCE).collect().await;
    fetched.into_iter().flatten().collect()
}

/// The feature bits stand in clear in `format` and authenticated in each slot.
pub(super) fn agree(marker: &Marker, contents: &SlotContents) -> Result<(), Error> {
    if marker.features == contents.features {
        return Ok(());
    }
    let why = "its feature bits are not those that the key slot authenticates";
    Err(Error::damaged(&layout::format(), why))
}

/// A secret ready to be offered.
#[derive(Clone)]
enum Offered {
    Password(Zeroizing<String>),
    Recovery(RecoveryKey),
}

impl Offered {
    fn read(secret: &Secret) -> Result<Self, Error> {
        Ok(match secret {
            Secret::Password(text) => Self::Password(text.clone()),
            Secret::Recovery(text) => Self::Recovery(RecoveryKey::parse(text)?),
        })
    }

    fn kind(&self) -> SlotKind {
        match self {
            Self::Password(_) => SlotKind::Password,
            Self::Recovery(_) => SlotKind::Recovery,
        }
    }

    fn as_offered(&self) -> OfferedSecret<'_> {
        match self {
            Self::Password(text) => OfferedSecret::Password(text),
            Self::Recovery(key) => OfferedSecret::Recovery(key),
        }
    }
}

/// How one slot took what was offered.
enum Tried {
    Opened(Box<SlotContents>),
    /// Whole, and does not fit.
    Refused,
    /// Cannot tell, and why.
    Unsure(Error),
}

async fn try_slot(
    store: &Store,
    repository: RepositoryId,
    name: SlotName,
    offered: &Offered,
) -> Result<Tried, Error> {
    let object = layout::slot(name);
    let bytes = match store.get(&object, KEY_OBJECT_LEN_MAX).await {
        Ok((bytes, _)) => bytes,
        // Removed since it was listed, or larger than any slot: the others may still fit.
        Err(error) if error.kind == Kind::Missing => return Ok(Tried::Refused),
        Err(error) if error.kind == Kind::Corrupt => {
            return Ok(Tried::Unsure(Error::damaged(&object, error)));
        }
        Err(error) => return Err(error.into()),
    };
    let (offered, named) = (offered.clone(), object.clone());
    let opened =
        derive(move || slot::open(&bytes, repository, &named, &offered.as_offered())).await;
    Ok(match opened {
        Ok(contents) => Tried::Opened(Box::new(contents)),
        // `OtherKind`: not what its name says it is; whatever it is, it does not open with this.
        Err(slot::Error::WrongSecret | slot::Error::OtherKind) => Tried::Refused,
        Err(error) => Tried::Unsure(of_key_object(&object, error)),
    })
}

/// Runs a slow derivation off the threads that serve requests.
async fn derive<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("a blocking task that was never aborted is not cancelled"),
        },
    }
}

fn of_key_object(object: &ObjectKey, error: slot::Error) -> Error {
    match error {
        slot::Error::NewerFormat(feature) => Error::NewerFormat {
            what: object.to_string(),
            feature,
        },
        // A kind or derivation of its own, without a feature bit: the number 0 stands for none.
        slot::Error::UnknownKind => Error::NewerFormat {
            what: object.to_string(),
            feature: 0,
        },
        slot::Error::Derivation(cost) => Error::SlotTooCostly {
            object: object.clone(),
            why: cost.to_string(),
        },
        other => Error::damaged(object, other),
    }
}

/// Puts a new slot that opens `contents` with a password.
pub(super) async fn put_password(
    store: &Store,
    repository: RepositoryId,
    password: &Zeroizing<String>,
    cost: Argon2Params,
    contents: &SlotContents,
) -> Result<SlotName, Error> {
    let name = fresh(SlotKind::Password);
    let (object, password, contents) = (layout::slot(name), password.clone(), contents.clone());
    let named = object.clone();
    let wrapped = derive(move || {
        slot::wrap(
            repository,
            &named,
            &NewSecret::Password(&password, cost),
            &contents,
        )
    });
    put_slot(store, name, wrapped.await).await
}

/// Puts a new slot that opens `contents` with `key`.
pub(super) async fn put_recovery(
    store: &Store,
    repository: RepositoryId,
    key: &RecoveryKey,
    contents: &SlotContents,
) -> Result<SlotName, Error> {
    let name = fresh(SlotKind::Recovery);
    let secret = NewSecret::Recovery(key);
    let wrapped = slot::wrap(repository, &layout::slot(name), &secret, contents);
    put_slot(store, name, wrapped).await
}

fn fresh(kind: SlotKind) -> SlotName {
    SlotName {
        kind,
        id: crypto::random(),
    }
}

async fn put_slot(
    store: &Store,
    name: SlotName,
    wrapped: Result<Bytes, slot::Error>,
) -> Result<SlotName, Error> {
    let object = layout::slot(name);
    let bytes = wrapped.map_err(|error| of_key_object(&object, error))?;
    store
        .put_if(&object, Body::Bytes(bytes), Condition::Absent)
        .await?;
    Ok(name)
}

/// Makes a volume's first key and puts it, wrapped.
pub(super) async fn put_volume(
    store: &Store,
    repository: RepositoryId,
    contents: &SlotContents,
    info: &VolumeInfo,
) -> Result<LoadedVolume, Error> {
    let key = VolumeKey::random();
    let object = layout::volume_key(info.id, 0);
    let record = VolumeRecord {
        volume: info.id,
        key_epoch: 0,
        name: info.name.clone(),
        created: info.created,
        unknown: Vec::new(),
    };
    let bytes = slot::wrap_volume(repository, &object, &contents.key, &record, &key);
    let outcome = store
        .put_if(&object, Body::Bytes(bytes), Condition::Absent)
        .await?;
    if outcome == PutOutcome::Refused {
        return Err(Error::Invalid(format!("{object} is there already")));
    }
    let keys = VolumeKeys::new(repository, info.id, contents.config.aes, [(0, key)]);
    Ok(LoadedVolume {
        info: info.clone(),
        keys: keys.expect("one key is not none"),
    })
}

/// Loads each volume that `names` holds keys of; a damaged one spoils only itself.
pub(super) async fn load_volumes(
    store: &Store,
    repository: RepositoryId,
    contents: &SlotContents,
    names: &[KeyName],
    fetched: &Fetched,
) -> Vec<Result<LoadedVolume, Error>> {
    let mut volumes: Vec<(VolumeId, Vec<u16>)> = Vec::new();
    for name in names {
        let KeyName::Volume { volume, epoch } = *name else {
            continue;
        };
        match volumes.last_mut() {
            // Names come in byte order: those of one volume are neighbours.
            Some((last, epochs)) if *last == volume => epochs.push(epoch),
            _ => volumes.push((volume, vec![epoch])),
        }
    }
    let loads = volumes
        .into_iter()
        .map(|(volume, epochs)| load_volume(store, repository, contents, volume, epochs, fetched));
    stream::iter(loads).buffered(KEYS_AT_ONCE).collect().await
}

/// Loads one volume with its keys of all `epochs`; its newest key object says what it is called.
pub(super) async fn load_volume(
    store: &Store,
    repository: RepositoryId,
    contents: &SlotContents,
    volume: VolumeId,
    epochs: Vec<u16>,
    fetched: &Fetched,
) -> Result<LoadedVolume, Error> {
    let unwraps = epochs.into_iter().map(|epoch| async move {
        let object = layout::volume_key(volume, epoch);
        let bytes = match fetched.get(&object) {
            Some(bytes) => bytes.clone(),
            None => get_key(store, &object).await?,
        };
        let under = &contents.key;
        slot::unwrap_volume(&bytes, repository, &object, under, volume, epoch)
            .map_err(|error| of_key_object(&object, error))
    });
    let unwrapped: Vec<_> = stream::iter(unwraps)
        .buffered(KEYS_AT_ONCE)
        .try_collect()
        .await?;
    let newest = unwrapped
        .iter()
        .map(|(record, _)| record)
        .max_by_key(|record| record.key_epoch);
    let info = newest.map(|record| VolumeInfo {
        id: volume,
        name: record.name.clone(),
        created: record.created,
    });
    let keys = unwrapped
        .into_iter()
        .map(|(record, key)| (record.key_epoch, key));
    let keys = VolumeKeys::new(repository, volume, contents.config.aes, keys);
    match (info, keys) {
        (Some(info), Some(keys)) => Ok(LoadedVolume { info, keys }),
        _ => Err(Error::NotFound(format!("there is no volume {volume}"))),
    }
}

async fn get_key(store: &Store, object: &ObjectKey) -> Result<Bytes, Error> {
    let got = store.get(object, KEY_OBJECT_LEN_MAX).await;
    let (bytes, _) = got.map_err(|error| Error::of_store(object, error))?;
    Ok(bytes)
}

/// Refuses what would make a bad name for a volume: empty, too long, or not printable on one line.
pub(super) fn check_volume_name(name: &str) -> Result<(), Error> {
    let bad = if name.is_empty() {
        "is empty"
    } else if name.len() > VOLUME_NAME_LEN_MAX {
        "is longer than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "holds control characters"
    } else {
        return Ok(());
    };
    Err(Error::Invalid(format!("the volume name {name:?} {bad}")))
}
