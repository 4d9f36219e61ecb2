//! From an address to bytes: cache, else one ranged GET; then verify, decrypt, decompress.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::format::entry::Place;
use crate::format::frame::FrameKind;
use crate::repo::Error;

/// Reads frames of one volume. Memory use is bounded by the cache it shares.
pub struct Blocks {/* store, cache, keys, volume */}

impl Blocks {
    /// The plaintext of the frame that holds `place`. Concurrent calls for one frame fetch it once.
    pub async fn frame(&self, _place: &Place, _kind: FrameKind) -> Result<Bytes, Error> {
        todo!()
    }
    /// `len` bytes from `place` on.
    pub async fn read(&self, _place: &Place, _len: usize) -> Result<Bytes, Error> {
        todo!()
    }
    /// Fetches frames into the cache in as few ranged GETs as their places allow (8 MiB at most each),
    /// several at a time. Best effort: a failure is found again by the read itself.
    pub async fn prefetch_best_effort(&self, _places: Vec<Place>) {
        todo!()
    }
    /// The fetched object bytes that overlap `range` of the object that `place` lies in, for `check --read-data` and `debug`.
    pub async fn raw(&self, _place: &Place, _range: Range<u64>) -> Result<Bytes, Error> {
        todo!()
    }
}

#[async_trait::async_trait]
impl crate::repo::tree::Pages for Arc<Blocks> {
    async fn page(&self, _place: &Place) -> Result<Arc<crate::format::page::Page>, Error> {
        todo!()
    }
}
