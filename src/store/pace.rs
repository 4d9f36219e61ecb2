//! How fast bodies may travel: one measure for each direction, shared by everything that a process asks of its stores.
//!
//! Bytes are let through in small steps, in the order in which they were asked for, so that several bodies at once share the line and
//! none stands still for long. The S3 client paces bodies while they travel; [`Paced`] does it for folders, whole objects at a time.
//! `cli` reads the limits, `daemon` hands them to [`super::open`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use leaky_bucket::{AcquireOwned, RateLimiter};

use crate::id::ObjectKey;
use crate::store::{Body, Condition, Error, Listing, ObjectStore, PutOutcome, Store, Version};

/// The lowest limit, bytes a second. Below it several bodies at once would each stand still so long that a server (AWS after 20 s) or a
/// router takes the connection for dead.
pub const RATE_MIN: u64 = 16 << 10;

/// How often the measure is filled. What a limit allows in this time is exact to a thousandth even for the lowest.
const FILL_EVERY: Duration = Duration::from_millis(100);
/// Fillings that are kept while nothing travels or a busy machine wakes us late: half a second of the limit.
const KEPT: u64 = 5;
/// The largest step that travels at once: what is read of a file at a time.
const STEP_MAX: usize = 256 << 10;
/// Steps in a second: often enough for four uploads at the lowest limit to look alive.
const STEPS_A_SECOND: u64 = 8;

/// Bytes a second in each direction; absent for as fast as it goes. Both at least [`RATE_MIN`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// To the store.
    pub upload: Option<u64>,
    /// From the store.
    pub download: Option<u64>,
}

/// The measures of both directions. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    pub(crate) up: Lane,
    pub(crate) down: Lane,
}

impl Pace {
    /// Holds to `limits` from now on.
    pub fn new(limits: Limits) -> Self {
        Self {
            up: Lane::new(limits.upload),
            down: Lane::new(limits.download),
        }
    }
}

/// One direction.
#[derive(Clone, Default)]
pub(crate) struct Lane {
    limiter: Option<Arc<RateLimiter>>,
    step: usize,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("limited", &self.limiter.is_some())
            .finish_non_exhaustive()
    }
}

impl Lane {
    fn new(limit: Option<u64>) -> Self {
        let Some(rate) = limit.map(|rate| rate.max(RATE_MIN)) else {
            return Self::default();
        };
        let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let fillings_a_second = 1000 / FILL_EVERY.as_millis() as u64;
        let filling = rate.div_ceil(fillings_a_second);
        let limiter = RateLimiter::builder()
            .initial(0)
            .interval(FILL_EVERY)
            .refill(bytes(filling))
            .max(bytes(filling.saturating_mul(KEPT)))
            .fair(true)
            .build();
        Self {
            limiter: Some(Arc::new(limiter)),
            step: bytes(rate / STEPS_A_SECOND).min(STEP_MAX),
        }
    }

    /// How many of `len` bytes may travel together.
    pub(crate) fn step(&self, len: usize) -> usize {
        match self.limiter {
            Some(_) => len.min(self.step),
            None => len.min(STEP_MAX),
        }
    }

    /// Ends when a step of `len` bytes may travel; `None` if it may at once.
    pub(crate) fn turn(&self, len: usize) -> Option<AcquireOwned> {
        let limiter = self.limiter.as_ref()?;
        Some(Arc::clone(limiter).acquire_owned(len))
    }

    /// Waits until `len` bytes have had their turn, step by step.
    async fn pass(&self, len: u64) {
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        while left > 0 {
            let step = self.step(left);
            match self.turn(step) {
                Some(turn) => turn.await,
                None => return,
            }
            left -= step;
        }
    }
}

/// A store that waits before it takes an object and before it gives one, as long as that would travel at the limit. For folders, whose
/// copying has no inside where it could be slowed down; a folder may lie on a file server behind a thin line.
#[derive(Debug)]
pub struct Paced {
    inner: Store,
    pace: Pace,
}

impl Paced {
    /// Keeps what goes to and comes from `inner` to `pace`.
    pub fn new(inner: Store, pace: Pace) -> Self {
        Self { inner, pace }
    }
}

#[async_trait]
impl ObjectStore for Paced {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        self.pace.up.pass(body.len()).await;
        self.inner.put(key, body).await
    }

    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error> {
        self.pace.up.pass(body.len()).await;
        self.inner.put_if(key, body, condition).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        let bytes = self.inner.get_range(key, range).await?;
        self.pace.down.pass(bytes.len() as u64).await;
        Ok(bytes)
    }

    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error> {
        let (bytes, version) = self.inner.get(key, len_max).await?;
        self.pace.down.pass(bytes.len() as u64).await;
        Ok((bytes, version))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.inner.delete(key).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        self.inner.head(key).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::store::memory::Memory;

    #[test]
    fn steps_are_small_where_there_is_a_limit() {
        let free = Lane::default();
        assert!(free.turn(1).is_none());
        assert_eq!(free.step(usize::MAX), STEP_MAX);
        assert_eq!(free.step(7), 7);
        let slow = Lane::new(Some(1));
        assert_eq!(
            slow.step(1 << 20),
            2 << 10,
            "at the lowest limit that there is"
        );
        assert_eq!(Lane::new(Some(u64::MAX)).step(1 << 20), STEP_MAX);
    }

    /// Faster than the limit it cannot be, on however fast a machine; and both directions have their own.
    #[tokio::test(flavor = "multi_thread")]
    async fn objects_take_as_long_as_the_limit_says() {
        const RATE: u64 = 1 << 20;
        let limits = Limits {
            upload: Some(RATE),
            download: None,
        };
        let store = Paced::new(Arc::new(Memory::new()), Pace::new(limits));
        let (key, body) = (ObjectKey::new("x"), Bytes::from(vec![7; 1 << 20]));
        let began = Instant::now();
        store.put(&key, Body::Bytes(body.clone())).await.unwrap();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(800), "{took:?}");
        for _ in 0..20 {
            assert_eq!(store.get(&key, RATE).await.unwrap().0, body);
        }
        assert!(began.elapsed() < Duration::from_secs(20), "not limited");
    }
}
