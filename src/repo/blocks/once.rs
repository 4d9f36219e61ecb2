//! Many frames, each read once: for `restore`, which reads a whole snapshot through. Nothing is kept in any cache, since what was read
//! would only push out what is read again; the caller says what he has not used up.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::format::entry::Place;
use crate::format::frame::ENCRYPTED_LEN_MAX;
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

/// Frames that share a GET, as they came.
struct Fetched {
    places: Vec<Place>,
    begin: u64,
    bytes: Bytes,
}

/// Reads `places`: from the caches what lies there, else in as few GETs as prefetching takes, all of them at once. What has come waits
/// encrypted until there is `room` for it decrypted, which is taken up until the permit is dropped.
pub(super) async fn read<'a>(
    fetch: &Arc<Fetch>,
    places: Vec<Place>,
    room: &'a Semaphore,
) -> (Vec<Once>, Option<SemaphorePermit<'a>>) {
    let (mut done, near, far) = look_for(fetch, places).await;
    let (mut wanted, mut alone) = (Vec::new(), Vec::new());
    for place in far {
        match fetch.object(&place) {
            Ok(object) if is_possible(&place) => wanted.push((object, place)),
            Ok(_) => alone.push(place),
            Err(error) => done.push(Once::of(place, Err(error))),
        }
    }
    let gets = plan(wanted).into_iter().map(|get| one_get(fetch, get));
    let mut fetched = Vec::new();
    for got in join_all(gets).await {
        match got {
            Ok(got) => fetched.push(got),
            Err(failed) => done.extend(failed),
        }
    }
    // Never closed; but if it were, nobody would wait for room.
    let permit = room.acquire().await.ok();
    let prover = fetch.clone();
    let proven = tokio::task::spawn_blocking(move || prove(&prover, near, fetched));
    // Only a runtime that is shutting down fails this.
    let (proven, rest) = proven.await.unwrap_or_default();
    done.extend(proven);
    // Their own way, on which what was damaged in between is healed, and the rest is told.
    for place in alone.into_iter().chain(rest) {
        let plain = fetch.frame(&place, kind_of(&place)).await;
        done.push(Once::of(place, plain));
    }
    (done, permit)
}

/// Whether a frame can lie where its hint says: others would be passed over, or spoil the GET that they share.
fn is_possible(place: &Place) -> bool {
    let end = place.hint.offset.checked_add(place.hint.len.into());
    end.is_some() && place.hint.len as usize <= ENCRYPTED_LEN_MAX
}

/// What is in memory, what seems to be on disk, and what is neither.
async fn look_for(fetch: &Arc<Fetch>, places: Vec<Place>) -> (Vec<Once>, Vec<Place>, Vec<Place>) {
    let (mut done, mut rest) = (Vec::new(), Vec::new());
    for place in places {
        match fetch.cache().plain(&fetch.key(&place)) {
            Some(plain) => done.push(Once::of(place, Ok(plain))),
            None => rest.push(place),
        }
    }
    if !fetch.cache().has_disk() || rest.is_empty() {
        return (done, Vec::new(), rest);
    }
    let of_disk = fetch.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let is_near = |place: &Place| of_disk.is_on_disk(place);
        rest.into_iter().partition(is_near)
    });
    // As above.
    let (near, far) = looked.await.unwrap_or_default();
    (done, near, far)
}

/// The error is what becomes of each of its frames.
async fn one_get(fetch: &Arc<Fetch>, get: Get) -> Result<Fetched, Vec<Once>> {
    let begin = get.range.start;
    match fetch.store().get_range(&get.object, get.range).await {
        Ok(bytes) => Ok(Fetched {
            places: get.places,
            begin,
            bytes,
        }),
        Err(error) => {
            let error = Error::of_store(&get.object, error);
            let failed = |place| Once::of(place, Err(error.clone()));
            Err(get.places.into_iter().map(failed).collect())
        }
    }
}

/// Decrypts what lies on disk and what has been fetched; gives back what does not verify.
fn prove(fetch: &Fetch, near: Vec<Place>, fetched: Vec<Fetched>) -> (Vec<Once>, Vec<Place>) {
    let (mut done, mut rest) = (Vec::new(), Vec::new());
    for place in near {
        match fetch.look_on_disk(&place, kind_of(&place)) {
            Some(plain) => done.push(Once::of(place, Ok(plain))),
            None => rest.push(place),
        }
    }
    for Fetched {
        places,
        begin,
        bytes,
    } in fetched
    {
        for place in places {
            let encrypted = part(&bytes, begin, &place);
            let proven =
                encrypted.and_then(|bytes| fetch.decrypt(&place, kind_of(&place), bytes).ok());
            match proven {
                Some(proven) => done.push(Once {
                    place,
                    plain: Ok(proven.plain.clone()),
                    proven: Some(proven),
                }),
                None => rest.push(place),
            }
        }
    }
    (done, rest)
}
