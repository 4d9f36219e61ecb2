//! A store that counts requests and bytes, by operation. `status` and the benchmarks read the [`Meter`].

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::id::ObjectKey;
use crate::store::{Body, Condition, Error, Listing, ObjectStore, PutOutcome, Store, Version};
use crate::sys::since_boot;

/// What can be asked of a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// [`ObjectStore::put`].
    Put,
    /// [`ObjectStore::put_if`].
    PutIf,
    /// [`ObjectStore::get_range`].
    GetRange,
    /// [`ObjectStore::get`].
    Get,
    /// [`ObjectStore::list`].
    List,
    /// [`ObjectStore::delete`] and [`ObjectStore::delete_together`].
    Delete,
    /// [`ObjectStore::head`].
    Head,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Put,
        Self::PutIf,
        Self::GetRange,
        Self::Get,
        Self::List,
        Self::Delete,
        Self::Head,
    ];
}

/// Counts since it was made; shared by whoever counts and whoever shows.
#[derive(Debug)]
pub struct Meter {
    counts: [Count; Operation::ALL.len()],
    /// On a clock that goes on while the machine sleeps: a month of a laptop is a month.
    began: Duration,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            began: since_boot(),
        }
    }
}

#[derive(Debug, Default)]
struct Count {
    requests: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
}

/// What one operation has cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Requests begun.
    pub requests: u64,
    /// Those that ended with an error, missing objects included.
    pub failures: u64,
    /// Bytes of objects moved by those that succeeded (and were not refused).
    pub bytes: u64,
}

impl Meter {
    /// What `operation` has cost so far.
    pub fn usage(&self, operation: Operation) -> Usage {
        let count = &self.counts[operation as usize];
        Usage {
            requests: count.requests.load(Ordering::Relaxed),
            failures: count.failures.load(Ordering::Relaxed),
            bytes: count.bytes.load(Ordering::Relaxed),
        }
    }

    /// How long it has been counting.
    pub fn watched(&self) -> Duration {
        since_boot().saturating_sub(self.began)
    }

    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.sum(&Operation::ALL, |usage| usage.requests)
    }

    /// Bytes put into the store.
    pub fn bytes_put(&self) -> u64 {
        self.sum(&[Operation::Put, Operation::PutIf], |usage| usage.bytes)
    }

    /// Bytes read from the store.
    pub fn bytes_got(&self) -> u64 {
        self.sum(&[Operation::Get, Operation::GetRange], |usage| usage.bytes)
    }

    fn sum(&self, operations: &[Operation], part: impl Fn(Usage) -> u64) -> u64 {
        operations.iter().map(|&op| part(self.usage(op))).sum()
    }

    /// Runs one request and counts it; `bytes` tells what a success has moved.
    async fn count<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = Result<T, Error>>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T, Error> {
        let count = &self.counts[operation as usize];
        count.requests.fetch_add(1, Ordering::Relaxed);
        let result = request.await;
        match &result {
            Ok(done) => count.bytes.fetch_add(bytes(done), Ordering::Relaxed),
            Err(_) => count.failures.fetch_add(1, Ordering::Relaxed),
        };
        result
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Metered {
    inner: Store,
    meter: Arc<Meter>,
}

impl Metered {
    /// Counts what goes to `inner` in `meter`.
    pub fn new(inner: Store, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

#[async_trait]
impl ObjectStore for Metered {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        let len = body.len();
        let request = self.inner.put(key, body);
        self.meter.count(Operation::Put, request, |()| len).await
    }

    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error> {
        let len = body.len();
        let request = self.inner.put_if(key, body, condition);
        let written = |outcome: &PutOutcome| match outcome {
            PutOutcome::Done => len,
            PutOutcome::Refused => 0,
        };
        self.meter.count(Operation::PutIf, request, written).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        let request = self.inner.get_range(key, range);
        let read = |bytes: &Bytes| bytes.len() as u64;
        self.meter.count(Operation::GetRange, request, read).await
    }

    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error> {
        let request = self.inner.get(key, len_max);
        let read = |(bytes, _): &(Bytes, Version)| bytes.len() as u64;
        self.meter.count(Operation::Get, request, read).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error> {
        let request = self.inner.list(prefix, after, limit);
        self.meter.count(Operation::List, request, |_| 0).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        let request = self.inner.delete(key);
        self.meter.count(Operation::Delete, request, |()| 0).await
    }

    async fn delete_together(&self, keys: &[ObjectKey]) -> Result<(), Error> {
        let request = self.inner.delete_together(keys);
        self.meter.count(Operation::Delete, request, |()| 0).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        let request = self.inner.head(key);
        self.meter.count(Operation::Head, request, |_| 0).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn counts_requests_failures_and_bytes() {
        let meter = Arc::new(Meter::default());
        let store = Metered::new(Arc::new(Memory::new()), Arc::clone(&meter));
        let key = ObjectKey::new("a");
        let body = || Body::Bytes(Bytes::from_static(b"12345"));
        store.put(&key, body()).await.unwrap();
        let refused = store.put_if(&key, body(), Condition::Absent).await;
        assert_eq!(refused.unwrap(), PutOutcome::Refused);
        store.get_range(&key, 1..3).await.unwrap();
        store
            .get_range(&ObjectKey::new("b"), 0..1)
            .await
            .unwrap_err();
        let usage = |requests, failures, bytes| Usage {
            requests,
            failures,
            bytes,
        };
        assert_eq!(meter.usage(Operation::Put), usage(1, 0, 5));
        assert_eq!(meter.usage(Operation::PutIf), usage(1, 0, 0));
        assert_eq!(meter.usage(Operation::GetRange), usage(2, 1, 2));
        assert_eq!(
            (meter.requests(), meter.bytes_put(), meter.bytes_got()),
            (4, 5, 2)
        );
    }
}
