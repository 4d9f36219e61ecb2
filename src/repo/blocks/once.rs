//! Many frames, each read once: for `restore`, which reads a whole snapshot through. Nothing is kept in any cache, since what was read
//! would only push out what is read again; the caller says what he has not used up.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use crate::format::entry::Place;
use crate::format::frame::ENCRYPTED_LEN_MAX;
use crate::id::ObjectKey;
use crate::repo::Error;
use crate::repo::blocks::fetch::{Fetch, Proven};
use crate::repo::blocks::kind_of;
use crate::repo::blocks::prefetch::{Get, part, plan};

/// A frame that has been read.
pub struct Once {
    /// Which.
    pub place: Place,
    /// Its plaintext, or why it cannot be had.
    pub plain: Result<Bytes, Error>,
    /// What the disk cache would want of it, if it came from the store.
    pub(super) proven: Option<Proven>,
}

impl Once {
    fn of(place: Place, plain: Result<Bytes, Error>) -> Self {
        Self {
            place,
            plain,
            proven: None,
        }
    }
}

/// Reads `places`: from the caches what lies there, else in as few GETs as prefetching takes, all of them at once.
pub(super) async fn read(fetch: &Arc<Fetch>, places: Vec<Place>) -> Vec<Once> {
    let (mut done, far) = near(fetch, places).await;
    let (mut wanted, mut nowhere): (Vec<(ObjectKey, Place)>, Vec<Once>) = Default::default();
    for place in far {
        match fetch.object(&place) {
            Ok(object) if is_possible(&place) => wanted.push((object, place)),
            Ok(_) => {
                let plain = fetch.frame(&place, kind_of(&place)).await;
                nowhere.push(Once::of(place, plain));
            }
            Err(error) => nowhere.push(Once::of(place, Err(error))),
        }
    }
    let gets = plan(wanted).into_iter().map(|get| one_get(fetch, get));
    done.extend(join_all(gets).await.into_iter().flatten());
    done.extend(nowhere);
    done
}

/// Whether a frame can lie where its hint says: others would be passed over, or spoil the GET that they share.
fn is_possible(place: &Place) -> bool {
    let end = place.hint.offset.checked_add(place.hint.len.into());
    end.is_some() && place.hint.len as usize <= ENCRYPTED_LEN_MAX
}

/// What is in memory or on disk, and what is not.
async fn near(fetch: &Arc<Fetch>, places: Vec<Place>) -> (Vec<Once>, Vec<Place>) {
    let (mut done, mut rest) = (Vec::new(), Vec::new());
    for place in places {
        match fetch.cache().plain(&fetch.key(&place)) {
            Some(plain) => done.push(Once::of(place, Ok(plain))),
            None => rest.push(place),
        }
    }
    if !fetch.cache().has_disk() || rest.is_empty() {
        return (done, rest);
    }
    let of_disk = fetch.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let (mut found, mut far) = (Vec::new(), Vec::new());
        for place in rest {
            match of_disk.look_on_disk(&place, kind_of(&place)) {
                Some(plain) => found.push(Once::of(place, Ok(plain))),
                None => far.push(place),
            }
        }
        (found, far)
    });
    // Only a runtime that is shutting down fails this.
    let (found, far) = looked.await.unwrap_or_default();
    done.extend(found);
    (done, far)
}

async fn one_get(fetch: &Arc<Fetch>, get: Get) -> Vec<Once> {
    let begin = get.range.start;
    let bytes = match fetch.store().get_range(&get.object, get.range).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let error = Error::of_store(&get.object, error);
            let failed = |place| Once::of(place, Err(error.clone()));
            return get.places.into_iter().map(failed).collect();
        }
    };
    let (prover, places) = (fetch.clone(), get.places);
    let proven = tokio::task::spawn_blocking(move || {
        let prove = |place: Place| {
            let encrypted = part(&bytes, begin, &place)?;
            prover.decrypt(&place, kind_of(&place), encrypted).ok()
        };
        let proven = places
            .into_iter()
            .map(|place| (prove(place.clone()), place));
        proven.collect::<Vec<_>>()
    });
    let mut done = Vec::new();
    // As above.
    for (proven, place) in proven.await.unwrap_or_default() {
        done.push(match proven {
            Some(proven) => Once {
                place,
                plain: Ok(proven.plain.clone()),
                proven: Some(proven),
            },
            // Its own way, on which what was damaged in between is healed, and the rest is told.
            None => {
                let plain = fetch.frame(&place, kind_of(&place)).await;
                Once::of(place, plain)
            }
        });
    }
    done
}
