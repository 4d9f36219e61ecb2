//! From an address to bytes: cache, else one ranged GET; then verify, decrypt, decompress.
//!
//! [`Blocks`] is what trees, snapshots, `restore` and `check` read through. It joins callers that want the same frame
//! (`flights.rs`), fetches ahead (`prefetch.rs`) and leaves the way of one frame to `fetch.rs`. Nothing leaves here that has not been
//! authenticated; nothing is written here but caches.
//!
//! 4 KiB read through a mount from the disk cache take 2.1 times as long as from a plain file, where neither's page is in memory: .22 ms beside
//! .105, and twice was the aim (`scripts/bench/reading`, on two virtual cores that halt when they have nothing to do). Of 190 us of such a
//! read, traced in the kernel, 105 were the disk's, for 8 KiB; 18 went by until the request was on its thread, 11 until the place of what is wanted was
//! known, 6 in looking whether it is in memory, 15 until the thread was told of the disk's answer, 14 in proving and decrypting, and 18 until the
//! program had its own. The number of loop threads makes no difference.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::Cache;
use crate::crypto::VolumeKeys;
use crate::format::directory::Directory;
use crate::format::entry::Place;
use crate::format::frame::FrameKind;
use crate::format::page::Page;
use crate::id::{BlockClass, ObjectKey};
use crate::repo::Error;
use crate::store::Store;

mod fetch;

mod flights;

mod prefetch;

mod windows;

mod once;

pub use once::{Fetched, Once};

use fetch::Fetch;
use flights::Flights;
use prefetch::Prefetch;

/// What a decoded page costs beside its bytes.
const PAGE_OVERHEAD: usize = 128;

/// Reads frames of one volume. Memory use is bounded by the cache it shares, and by a fixed 64 MiB for what is under way; whoever reads
/// frames once bounds those himself.
pub struct Blocks {
    fetch: Arc<Fetch>,
    flights: Flights,
    prefetch: Prefetch,
}

impl Blocks {
    pub(super) fn new(store: Store, cache: Cache, keys: VolumeKeys) -> Self {
        let fetch = Arc::new(Fetch::new(store, cache, keys));
        let flights = Flights::default();
        Self {
            prefetch: Prefetch::new(fetch.clone(), flights.clone()),
            fetch,
            flights,
        }
    }

    /// The plaintext of the frame that holds `place`. Concurrent calls for one frame fetch it once, and share a failure too.
    /// [`Error::Missing`] names an object that is gone, [`Error::Damaged`] object and frame.
    pub async fn frame(&self, place: &Place, kind: FrameKind) -> Result<Bytes, Error> {
        let key = self.fetch.key(place);
        if let Some(plain) = self.fetch.cache().plain(&key) {
            return Ok(plain);
        }
        let flight = self.flights.join_or_start(key, || {
            let (fetch, place) = (self.fetch.clone(), place.clone());
            async move { fetch.frame(&place, kind).await }
        });
        flight.await
    }

    /// `len` bytes of file contents from `place` on; [`Error::Damaged`] if the frame ends before them.
    pub async fn read(&self, place: &Place, len: usize) -> Result<Bytes, Error> {
        if let Some(piece) = self.fetch.piece(place, len).await {
            return Ok(piece);
        }
        let frame = self.frame(place, FrameKind::Data).await?;
        let begin = place.at.inner as usize;
        match begin.checked_add(len) {
            Some(end) if end <= frame.len() => Ok(frame.slice(begin..end)),
            _ => Err(self.fetch.damaged(
                place,
                format!("it has {} bytes, not {len} from {begin} on", frame.len()),
            )),
        }
    }

    /// Fetches frames into the cache in as few ranged GETs as their places allow (4 MiB at most each),
    /// several at a time. Best effort: a failure is found again by the read itself.
    pub async fn prefetch_best_effort(&self, places: Vec<Place>) {
        self.prefetch.run_best_effort(places).await;
    }

    /// The first half of reading frames of file contents, each once, without keeping any: fetches those that are not at hand. `places` are to
    /// name each frame once.
    pub async fn fetch_once(&self, places: Vec<Place>) -> Fetched {
        once::fetch(&self.fetch, places).await
    }

    /// The other half: decrypts them, in no order, all of them in memory at once. One that does not come back could not be read, because the
    /// program is being stopped.
    pub async fn open_once(&self, fetched: Fetched) -> Vec<Once> {
        once::open(&self.fetch, fetched).await
    }

    /// Keeps a frame that was read once after all, because there is more in it than was used.
    pub async fn keep(&self, once: Once) {
        let kind = kind_of(&once.place);
        if let Ok(plain) = &once.plain {
            self.fetch.keep_plain(&once.place, kind, plain);
        }
        self.fetch
            .keep_on_disk(once.proven.into_iter().collect())
            .await;
    }

    /// The fetched object bytes that overlap `range` of the object that `place` lies in, for `check --read-data` and `debug`.
    /// As the store gives them: nothing about them is proven.
    pub async fn raw(&self, place: &Place, range: Range<u64>) -> Result<Bytes, Error> {
        let object = self.object(place)?;
        let got = self.fetch.store().get_range(&object, range).await;
        got.map_err(|error| Error::of_store(&object, error))
    }

    /// The object that `place` lies in; [`Error::Damaged`] if it is said to lie in a commit and does not say in which.
    pub fn object(&self, place: &Place) -> Result<ObjectKey, Error> {
        self.fetch.object(place)
    }

    /// The authenticated directory of the object that `place` lies in, for `check` and `debug`: which frames lie where in it.
    /// [`Error::Missing`] and [`Error::Damaged`] name the object. Three requests.
    pub async fn directory(&self, place: &Place) -> Result<Directory, Error> {
        let object = self.object(place)?;
        self.fetch.directory(&object, place.at.block).await
    }

    /// Keeps a frame that has just been written, so that it need not be fetched: on disk as it is, which whoever reads it proves, or where
    /// there is no disk cache decoded in memory, if it verifies. Blocks on the disk.
    pub fn remember(&self, place: &Place, kind: FrameKind, ciphertext: &Bytes) {
        let key = self.fetch.key(place);
        if self.fetch.cache().has_disk() {
            self.fetch.keep_encrypted(place, ciphertext);
        } else if let Ok(proven) = self.fetch.decrypt(place, kind, ciphertext.clone()) {
            let plain = proven.plain;
            match (kind, Page::decode(plain.clone())) {
                (FrameKind::Page, Ok(page)) => {
                    self.keep_page(place, page);
                }
                _ => self.fetch.cache().put_plain(key, plain),
            }
        }
    }

    /// Keeps bytes of an object from its beginning that have been fetched anyway, for frames that lie there.
    pub(super) fn remember_beginning(&self, object: &ObjectKey, bytes: Bytes) {
        self.fetch.windows().put(object.clone(), 0, bytes);
    }

    fn keep_page(&self, place: &Place, page: Page) -> Arc<Page> {
        let bytes = page.bytes().len() + PAGE_OVERHEAD;
        let page = Arc::new(page);
        self.fetch
            .cache()
            .put_page(self.fetch.key(place), page.clone(), bytes);
        page
    }
}

#[async_trait::async_trait]
impl crate::repo::tree::Pages for Arc<Blocks> {
    async fn page(&self, place: &Place) -> Result<Arc<Page>, Error> {
        if let Some(page) = self.fetch.cache().page(&self.fetch.key(place)) {
            return Ok(page);
        }
        let plain = self.frame(place, FrameKind::Page).await?;
        // Decoded pages are kept instead of their plaintext, so that no lookup decodes twice.
        match Page::decode(plain) {
            Ok(page) => Ok(self.keep_page(place, page)),
            Err(error) => Err(self.fetch.damaged(place, error)),
        }
    }
}

/// What frames of a block's own class hold, where the address alone is known.
fn kind_of(place: &Place) -> FrameKind {
    match place.at.block.class {
        BlockClass::Tree => FrameKind::Page,
        BlockClass::Data | BlockClass::Commit => FrameKind::Data,
    }
}

#[cfg(test)]
mod tests;
