//! Fetching ahead: which frames share a GET (pure), and getting them, several GETs at a time. Best effort throughout: what fails
//! here is fetched, and its failure told, by the read that needs it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::format::entry::Place;
use crate::id::ObjectKey;
use crate::repo::Error;
use crate::repo::blocks::fetch::Fetch;
use crate::repo::blocks::flights::{Flight, Flights};
use crate::repo::blocks::kind_of;

/// The most bytes of one GET. Larger ones gain nothing once the first byte is there; eight of these fill 10 Gbit/s.
const GET_LEN_MAX: u64 = 8 << 20;
/// Frames this near to each other share a GET: skipping so few bytes costs less than a request.
const GAP_MAX: u64 = 64 << 10;
/// GETs at a time for all readers of a volume: bounds what is under way to 64 MiB.
const GETS_AT_ONCE: usize = 8;

/// One ranged GET and what is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Get {
    object: ObjectKey,
    range: Range<u64>,
    places: Vec<Place>,
}

/// Which GETs fetch all these frames.
fn plan(mut wanted: Vec<(ObjectKey, Place)>) -> Vec<Get> {
    wanted.sort_by(|(a, at_a), (b, at_b)| (a, at_a.hint.offset).cmp(&(b, at_b.hint.offset)));
    let mut gets: Vec<Get> = Vec::new();
    for (object, place) in wanted {
        let Some(end) = place.hint.offset.checked_add(place.hint.len.into()) else {
            continue;
        };
        let range = place.hint.offset..end;
        match gets.last_mut() {
            Some(get) if get.object == object && joins(&get.range, &range) => {
                get.range.end = get.range.end.max(end);
                let last = get.places.last().map(|last| (last.at.block, last.at.frame));
                if last != Some((place.at.block, place.at.frame)) {
                    get.places.push(place);
                }
            }
            _ => gets.push(Get {
                object,
                range,
                places: vec![place],
            }),
        }
    }
    gets
}

/// Whether a GET of `before` had better go on to `next`, which begins no earlier.
fn joins(before: &Range<u64>, next: &Range<u64>) -> bool {
    next.start <= before.end.saturating_add(GAP_MAX)
        && next.end.max(before.end) - before.start <= GET_LEN_MAX
}

/// Fetches ahead for one volume.
pub(super) struct Prefetch {
    fetch: Arc<Fetch>,
    flights: Flights,
    at_once: Arc<Semaphore>,
}

impl Prefetch {
    pub(super) fn new(fetch: Arc<Fetch>, flights: Flights) -> Self {
        Self {
            fetch,
            flights,
            at_once: Arc::new(Semaphore::new(GETS_AT_ONCE)),
        }
    }

    /// Returns when all that can be had is in the cache. Dropping it stops what is under way, but for frames that a
    /// reader is waiting for.
    pub(super) async fn run_best_effort(&self, places: Vec<Place>) {
        let wanted = places.into_iter().filter_map(|place| {
            let (cache, key) = (self.fetch.cache(), self.fetch.key(&place));
            let cached = cache.plain(&key).is_some() || cache.page(&key).is_some();
            let object = self.fetch.object(&place).ok()?;
            (!cached).then_some((object, place))
        });
        let mut under_way = JoinSet::new();
        for get in plan(wanted.collect()) {
            // The permit is taken before the task begins: what waits here costs no memory.
            let Ok(permit) = self.at_once.clone().acquire_owned().await else {
                return;
            };
            let (fetch, flights) = (self.fetch.clone(), self.flights.clone());
            under_way.spawn(async move {
                let _held_until_done = permit;
                run_one(&fetch, &flights, get).await;
            });
        }
        while under_way.join_next().await.is_some() {}
    }
}

/// Does one GET. Its frames are under way from now on, so that a reader who wants one of them waits for this GET
/// and does not begin another.
async fn run_one(fetch: &Arc<Fetch>, flights: &Flights, get: Get) {
    let begin = get.range.start;
    let whole = {
        let (fetch, object, range) = (fetch.clone(), get.object, get.range);
        async move {
            fetch
                .store()
                .get_range(&object, range)
                .await
                .map_err(Error::from)
        }
    };
    let whole = whole.boxed().shared();
    let frames: Vec<Flight> = get
        .places
        .into_iter()
        .map(|place| {
            let (fetch, whole) = (fetch.clone(), whole.clone());
            flights.join_or_start(fetch.key(&place), || async move {
                match whole.await {
                    Ok(bytes) => from_whole(&fetch, &place, begin, &bytes).await,
                    // A reader that waits for this frame alone tries its own way, and hears what is wrong.
                    Err(_) => fetch.frame(&place, kind_of(&place)).await,
                }
            })
        })
        .collect();
    if whole.await.is_ok() {
        for frame in frames {
            // Told again by the read that needs it.
            let _ = frame.await;
        }
    }
}

/// Takes one frame out of what was fetched, else fetches it alone.
async fn from_whole(
    fetch: &Arc<Fetch>,
    place: &Place,
    begin: u64,
    bytes: &Bytes,
) -> Result<Bytes, Error> {
    let kind = kind_of(place);
    let from = (place.hint.offset - begin) as usize;
    let to = from + place.hint.len as usize;
    if to <= bytes.len() {
        let encrypted = bytes.slice(from..to);
        if let Ok(plain) = fetch.decrypt(place, kind, &encrypted) {
            // A page too: nobody is there to decode it yet.
            fetch.cache().put_plain(fetch.key(place), plain.clone());
            fetch.keep(place, kind, encrypted, &plain).await;
            return Ok(plain);
        }
    }
    fetch.frame(place, kind).await
}

#[cfg(test)]
mod tests;
