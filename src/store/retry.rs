//! A store that tries again: what may succeed later is repeated, with growing pauses, within bounds.
//!
//! Only [`Kind::Retry`] is repeated. The queue in front of the uploader goes on after these attempts are spent; this
//! wrapper is for the hiccups in between. The S3 client itself never retries, so that a conditional write whose
//! answer was lost is noticed here.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bytes::Bytes;
use tokio::time::Instant;

use crate::id::ObjectKey;
use crate::store::{
    Body, Condition, Error, Kind, Listing, ObjectStore, PutOutcome, Store, Version,
};

/// How patiently to try again.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Attempts in all, the first included.
    pub attempts_max: usize,
    /// The pause after the first failure; each next one is twice as long, plus up to as much again by chance.
    pub first_pause: Duration,
    /// The longest pause before chance is added.
    pub pause_max: Duration,
    /// No attempt but the second begins later than this after the first: where each takes its whole time limit, who waits hears of it.
    pub patience: Duration,
}

impl Default for Policy {
    /// Six attempts within some ten seconds: longer than a server's restart of one node or a throttle's window,
    /// short enough that `ls` in a snapshot mount still ends with an error rather than never.
    fn default() -> Self {
        Self {
            attempts_max: 6,
            first_pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(4),
            patience: Duration::from_secs(10),
        }
    }
}

impl Policy {
    fn backoff(&self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.first_pause)
            .with_max_delay(self.pause_max)
            .with_max_times(self.attempts_max.saturating_sub(1))
    }
}

/// However long the first attempt took: a connection that has died unnoticed costs one whole time limit, and the next one works.
const ATTEMPTS_MIN: u32 = 2;

/// Pauses between attempts at something that is tried for ever: from `first` on each is twice as long up to `max`, plus up to as much
/// again by chance, so that all machines that a store has turned away do not come back at one moment.
pub fn pauses(first: Duration, max: Duration) -> impl Iterator<Item = Duration> + Send {
    let endless = ExponentialBuilder::new().without_max_times();
    let pauses = endless.with_min_delay(first).with_max_delay(max);
    pauses.with_jitter().build()
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Retry {
    inner: Store,
    policy: Policy,
}

impl Retry {
    /// Tries again on `inner` as `policy` says.
    pub fn new(inner: Store, policy: Policy) -> Self {
        Self { inner, policy }
    }

    async fn run<T, F: Future<Output = Result<T, Error>>>(
        &self,
        attempt: impl FnMut() -> F,
    ) -> Result<T, Error> {
        let (began, patience) = (Instant::now(), self.policy.patience);
        let mut failures = 0;
        attempt
            .retry(self.policy.backoff())
            .when(|error: &Error| {
                failures += 1;
                let may = failures < ATTEMPTS_MIN || began.elapsed() < patience;
                error.kind == Kind::Retry && may
            })
            .notify(|error, pause| tracing::debug!(%error, ?pause, "will try again"))
            .await
    }

    /// Whether `key` holds exactly `body`.
    async fn holds(&self, key: &ObjectKey, body: &Body) -> Result<bool, Error> {
        let found = match self.inner.get(key, body.len()).await {
            Ok((found, _)) => found,
            Err(error) if matches!(error.kind, Kind::Missing | Kind::Corrupt) => return Ok(false),
            Err(error) => return Err(error),
        };
        let wanted = body.clone().into_bytes("compare what was put").await?;
        Ok(found == wanted)
    }
}

#[async_trait]
impl ObjectStore for Retry {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        self.run(|| self.inner.put(key, body.clone())).await
    }

    /// An attempt that failed may still have had its effect, and then the next one is refused because of it. Such a
    /// refusal is only believed if what lies there is not what we put: no two writers put the same bytes, since each
    /// carries its writer's session.
    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error> {
        let (doubtful, refused) = (AtomicBool::new(false), AtomicBool::new(false));
        self.run(|| async {
            // Once is enough: what lies there may have to be asked for more than once.
            let outcome = match refused.load(Ordering::Relaxed) {
                true => Ok(PutOutcome::Refused),
                false => {
                    self.inner
                        .put_if(key, body.clone(), condition.clone())
                        .await
                }
            };
            match outcome {
                Ok(PutOutcome::Refused) if doubtful.load(Ordering::Relaxed) => {
                    refused.store(true, Ordering::Relaxed);
                    Ok(match self.holds(key, &body).await? {
                        true => PutOutcome::Done,
                        false => PutOutcome::Refused,
                    })
                }
                Err(error) => {
                    doubtful.fetch_or(error.kind == Kind::Retry, Ordering::Relaxed);
                    Err(error)
                }
                outcome => outcome,
            }
        })
        .await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        self.run(|| self.inner.get_range(key, range.clone())).await
    }

    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error> {
        self.run(|| self.inner.get(key, len_max)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error> {
        self.run(|| self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.run(|| self.inner.delete(key)).await
    }

    async fn delete_together(&self, keys: &[ObjectKey]) -> Result<(), Error> {
        self.run(|| self.inner.delete_together(keys)).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        self.run(|| self.inner.head(key)).await
    }
}

#[cfg(test)]
mod tests;
