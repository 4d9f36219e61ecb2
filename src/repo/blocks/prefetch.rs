//! Fetching ahead: which frames share a GET (pure), and getting them, several GETs at a time; what lies in the disk cache comes from
//! there. Best effort throughout: what fails here is fetched, and its failure told, by the read that needs it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::format::entry::Place;
use crate::id::ObjectKey;
use crate::repo::Error;
use crate::repo::blocks::fetch::{Fetch, Proven};
use crate::repo::blocks::flights::{Flight, Flights};
use crate::repo::blocks::kind_of;

/// The most bytes of one GET. Larger ones gain nothing once the first byte is there, and none of its frames can be used before the last
/// byte is; eight of these under way fill 5 Gbit/s at 50 ms a request.
const GET_LEN_MAX: u64 = 4 << 20;
/// Frames this near to each other share a GET: skipping so few bytes costs less than a request.
const GAP_MAX: u64 = 64 << 10;
/// GETs at a time for all readers of a volume: bounds what is under way to 48 MiB.
const GETS_AT_ONCE: usize = 12;
/// Frames taken from the disk cache by one task, as many at a time as there are permits for GETs: they are decrypted side by side.
const FROM_DISK_AT_ONCE: usize = 2;

/// One ranged GET and what is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Get {
    pub(super) object: ObjectKey,
    pub(super) range: Range<u64>,
    pub(super) places: Vec<Place>,
}

/// Which GETs fetch all these frames. Hints beyond all numbers are passed over.
pub(super) fn plan(mut wanted: Vec<(ObjectKey, Place)>) -> Vec<Get> {
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
        let (on_disk, far) = look_for(&self.fetch, &self.flights, places).await;
        let far = far.into_iter().filter_map(|place| {
            let object = self.fetch.object(&place).ok()?;
            Some((object, place))
        });
        let mut under_way = JoinSet::new();
        // What takes longer first.
        for get in plan(far.collect()) {
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
        for few in on_disk.chunks(FROM_DISK_AT_ONCE) {
            let Ok(permit) = self.at_once.clone().acquire_owned().await else {
                return;
            };
            let (fetch, flights, few) = (self.fetch.clone(), self.flights.clone(), few.to_vec());
            under_way.spawn(async move {
                let _held_until_done = permit;
                for place in few {
                    // Told again by the read that needs it.
                    let _ = by_itself(&fetch, &flights, place).await;
                }
            });
        }
        while under_way.join_next().await.is_some() {}
    }
}

/// Which of `places` are to be had from the disk, and which must be fetched; without those that are in memory or under way.
async fn look_for(
    fetch: &Arc<Fetch>,
    flights: &Flights,
    places: Vec<Place>,
) -> (Vec<Place>, Vec<Place>) {
    let cache = fetch.cache();
    let mut wanted: Vec<Place> = places
        .into_iter()
        .filter(|place| {
            let key = fetch.key(place);
            !(cache.plain(&key).is_some() || cache.page(&key).is_some() || flights.has(&key))
        })
        .collect();
    wanted.dedup_by_key(|place| (place.at.block, place.at.frame));
    if !cache.has_disk() || wanted.is_empty() {
        return (Vec::new(), wanted);
    }
    let fetch = fetch.clone();
    let looked = tokio::task::spawn_blocking(move || {
        wanted
            .into_iter()
            .partition(|place| fetch.is_on_disk(place))
    });
    // Only a runtime that is shutting down fails this.
    looked.await.unwrap_or_default()
}

/// One frame alone, from wherever it is nearest.
fn by_itself(fetch: &Arc<Fetch>, flights: &Flights, place: Place) -> Flight {
    flights.join_or_start(fetch.key(&place), || {
        let fetch = fetch.clone();
        async move { fetch.frame(&place, kind_of(&place)).await }
    })
}

/// Does one GET, of those of its frames that nobody has fetched or begun to fetch while it was waiting for its turn. They are under
/// way from now on, so that a reader who wants one of them waits for this GET and does not begin another. Readers have them before
/// they go to the disk cache.
async fn run_one(fetch: &Arc<Fetch>, flights: &Flights, get: Get) {
    let (_, far) = look_for(fetch, flights, get.places).await;
    // Once more, since looking took a moment.
    let places = far.into_iter();
    let places: Vec<Place> = places
        .filter(|place| !flights.has(&fetch.key(place)))
        .collect();
    let Some(range) = span(&places) else {
        return;
    };
    let begin = range.start;
    let whole = {
        let (fetch, object) = (fetch.clone(), get.object);
        async move {
            fetch
                .store()
                .get_range(&object, range)
                .await
                .map_err(Error::from)
        }
    };
    let whole = whole.boxed().shared();
    let proven = Taken::default();
    let frames: Vec<Flight> = places
        .into_iter()
        .map(|place| {
            let (fetch, whole, proven) = (fetch.clone(), whole.clone(), proven.clone());
            flights.join_or_start(fetch.key(&place), || async move {
                match whole.await {
                    Ok(bytes) => from_whole(&fetch, place, begin, &bytes, &proven).await,
                    // A reader that waits for this frame alone tries its own way, and hears what is wrong.
                    Err(_) => fetch.frame(&place, kind_of(&place)).await,
                }
            })
        })
        .collect();
    if whole.await.is_err() {
        return;
    }
    for frame in frames {
        // Told again by the read that needs it.
        let _ = frame.await;
    }
    let proven = std::mem::take(&mut *proven.lock());
    fetch.keep_on_disk(proven).await;
}

/// From the first byte of all `places` to the last; `None` if there are none.
fn span(places: &[Place]) -> Option<Range<u64>> {
    let begin = places.iter().map(|place| place.hint.offset).min()?;
    let ends = places
        .iter()
        .map(|place| place.hint.offset.saturating_add(place.hint.len.into()));
    Some(begin..ends.max()?)
}

/// Frames that have been taken out of a GET and proven, to be kept on disk.
type Taken = Arc<Mutex<Vec<Proven>>>;

/// The bytes of one frame, of those that were fetched from `begin` on.
pub(super) fn part(bytes: &Bytes, begin: u64, place: &Place) -> Option<Bytes> {
    let from = usize::try_from(place.hint.offset.checked_sub(begin)?).ok()?;
    let to = from.checked_add(place.hint.len as usize)?;
    (to <= bytes.len()).then(|| bytes.slice(from..to))
}

/// Takes one frame out of what was fetched from `begin` on, else fetches it alone.
async fn from_whole(
    fetch: &Arc<Fetch>,
    place: Place,
    begin: u64,
    bytes: &Bytes,
    taken: &Taken,
) -> Result<Bytes, Error> {
    let kind = kind_of(&place);
    if let Some(encrypted) = part(bytes, begin, &place)
        && let Ok(proven) = fetch.decrypt(&place, kind, encrypted)
    {
        // A page too: nobody is there to decode it yet.
        let plain = proven.plain.clone();
        fetch.cache().put_plain(fetch.key(&place), plain.clone());
        taken.lock().push(proven);
        return Ok(plain);
    }
    fetch.frame(&place, kind).await
}

#[cfg(test)]
mod tests;
