//! One fetch for all who want a frame at the same time. Knows nothing of how it is fetched. Used by `blocks` and `prefetch`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

use crate::cache::FrameKey;
use crate::repo::Error;

/// A fetch under way. Every clone gives the same outcome; it goes on as long as anybody polls one, and stops when the last is dropped.
pub(super) type Flight = Shared<Landing>;
type Landing = BoxFuture<'static, Result<Bytes, Error>>;

/// All fetches under way, by frame. Holds them weakly: whoever waits owns them.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<FrameKey, WeakShared<Landing>>>>);

impl Flights {
    /// Whether the fetch of `key` is under way.
    pub(super) fn has(&self, key: &FrameKey) -> bool {
        // Let go of only when the lock is free: as the last one who holds it we would end it, and so take it off the list.
        let flight = self.0.lock().get(key).and_then(WeakShared::upgrade);
        flight.is_some()
    }

    /// The fetch of `key` that is under way, else a new one that `start` makes. Nothing runs before it is polled.
    pub(super) fn join_or_start<F>(&self, key: FrameKey, start: impl FnOnce() -> F) -> Flight
    where
        F: Future<Output = Result<Bytes, Error>> + Send + 'static,
    {
        let mut under_way = self.0.lock();
        if let Some(flight) = under_way.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let strip = Strip {
            flights: self.clone(),
            key,
        };
        let fetch = start();
        let flight = async move {
            let _cleared_when_done_or_dropped = strip;
            fetch.await
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            under_way.insert(key, weak);
        }
        flight
    }
}

/// Takes a flight off the list when its future is done or dropped. It may take off a successor that began in between: then that
/// frame is fetched once more than need be, which is harmless.
struct Strip {
    flights: Flights,
    key: FrameKey,
}

impl Drop for Strip {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.key);
    }
}
