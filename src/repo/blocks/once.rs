//! Many frames, each read once: for `restore`, which reads a whole snapshot through. Nothing is kept in any cache, since what was read
//! would only push out what is read again; the caller says what he has not used up.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

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

/// What has been fetched of frames that are to be read once: encrypted, but for those that were in memory.
pub struct Fetched {
    done: Vec<Once>,
    /// They seem to lie on the disk, which is soon read.
    near: Vec<Place>,
    stretches: Vec<Stretch>,
    /// They share no GET with others.
    alone: Vec<Place>,
}

/// Frames that share a GET, as they came.
struct Stretch {
    places: Vec<Place>,
    begin: u64,
    bytes: Bytes,
}

/// Fetches what of `places` is not at hand, in as few GETs as prefetching takes, all of them at once.
pub(super) async fn fetch(fetch: &Arc<Fetch>, places: Vec<Place>) -> Fetched {
    let (done, near, far) = look_for(fetch, places).await;
    let mut fetched = Fetched {
        done,
        near,
        stretches: Vec::new(),
        alone: Vec::new(),
    };
    get_all(fetch, far, &mut fetched).await;
    fetched
}

/// Decrypts it.
pub(super) async fn open(fetch: &Arc<Fetch>, mut fetched: Fetched) -> Vec<Once> {
    let near = std::mem::take(&mut fetched.near);
    let missed = prove(fetch, &mut fetched, near).await;
    if !missed.is_empty() {
        // The disk had less than it seemed to.
        get_all(fetch, missed, &mut fetched).await;
        prove(fetch, &mut fetched, Vec::new()).await;
    }
    let mut done = fetched.done;
    // Their own way, on which what was damaged in between is healed, and the rest is told.
    for place in fetched.alone {
        let plain = fetch.frame(&place, kind_of(&place)).await;
        done.push(Once::of(place, plain));
    }
    done
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
    // Only a runtime that is shutting down fails this.
    let (near, far) = looked.await.unwrap_or_default();
    (done, near, far)
}

/// Adds to `fetched` what became of each of `places`.
async fn get_all(fetch: &Arc<Fetch>, places: Vec<Place>, fetched: &mut Fetched) {
    let mut wanted = Vec::new();
    for place in places {
        match fetch.object(&place) {
            Ok(object) if is_possible(&place) => wanted.push((object, place)),
            Ok(_) => fetched.alone.push(place),
            Err(error) => fetched.done.push(Once::of(place, Err(error))),
        }
    }
    let gets = plan(wanted).into_iter().map(|get| one_get(fetch, get));
    for got in join_all(gets).await {
        match got {
            Ok(stretch) => fetched.stretches.push(stretch),
            Err(failed) => fetched.done.extend(failed),
        }
    }
}

/// The error is what becomes of each of its frames.
async fn one_get(fetch: &Arc<Fetch>, get: Get) -> Result<Stretch, Vec<Once>> {
    let begin = get.range.start;
    match fetch.store().get_range(&get.object, get.range).await {
        Ok(bytes) => Ok(Stretch {
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

/// Decrypts what lies on disk and what has been fetched. What of that does not verify goes its own way; gives back what the disk does not
/// have.
async fn prove(fetch: &Arc<Fetch>, fetched: &mut Fetched, near: Vec<Place>) -> Vec<Place> {
    let (prover, stretches) = (fetch.clone(), std::mem::take(&mut fetched.stretches));
    let proven = tokio::task::spawn_blocking(move || {
        let (mut done, mut missed, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        for place in near {
            match prover.look_on_disk(&place, kind_of(&place)) {
                Some(plain) => done.push(Once::of(place, Ok(plain))),
                None => missed.push(place),
            }
        }
        for stretch in stretches {
            for place in stretch.places {
                let encrypted = part(&stretch.bytes, stretch.begin, &place);
                let prove = |bytes| prover.decrypt(&place, kind_of(&place), bytes).ok();
                match encrypted.and_then(prove) {
                    Some(proven) => done.push(Once {
                        place,
                        plain: Ok(proven.plain.clone()),
                        proven: Some(proven),
                    }),
                    None => damaged.push(place),
                }
            }
        }
        (done, missed, damaged)
    });
    // As above.
    let (done, missed, damaged) = proven.await.unwrap_or_default();
    fetched.done.extend(done);
    fetched.alone.extend(damaged);
    missed
}
