//! A store in memory, for tests. Every operation is atomic, conditional writes included.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::id::ObjectKey;
use crate::store::{
    Body, Condition, Error, Kind, LIST_LIMIT_MAX, Listing, ObjectStore, PutOutcome, Version, names,
};

/// A store that lives as long as this value.
#[derive(Debug, Default)]
pub struct Memory {
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    by_key: BTreeMap<ObjectKey, Object>,
    /// How many writes there have been: the next object's version.
    writes: u64,
}

// Contents are ciphertext by the gigabyte: a count says more.
impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} objects", self.by_key.len())
    }
}

struct Object {
    bytes: Bytes,
    version: u64,
}

impl Object {
    fn version(&self) -> Version {
        Version(self.version.to_string())
    }
}

impl Objects {
    fn insert(&mut self, key: &ObjectKey, bytes: Bytes) {
        self.writes += 1;
        let version = self.writes;
        self.by_key.insert(key.clone(), Object { bytes, version });
    }

    fn holds(&self, key: &ObjectKey, condition: &Condition) -> bool {
        match (self.by_key.get(key), condition) {
            (found, Condition::Absent) => found.is_none(),
            (Some(object), Condition::Is(version)) => object.version() == *version,
            (None, Condition::Is(_)) => false,
        }
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl ObjectStore for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        let doing = format!("put {key} into memory");
        names::check(&doing, key)?;
        let bytes = body.into_bytes(&doing).await?;
        self.objects.lock().insert(key, bytes);
        Ok(())
    }

    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error> {
        let doing = format!("put {key} into memory");
        names::check(&doing, key)?;
        let bytes = body.into_bytes(&doing).await?;
        let mut objects = self.objects.lock();
        if !objects.holds(key, &condition) {
            return Ok(PutOutcome::Refused);
        }
        objects.insert(key, bytes);
        Ok(PutOutcome::Done)
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        let objects = self.objects.lock();
        let object = objects.by_key.get(key).ok_or_else(|| missing(key))?;
        let len = object.bytes.len() as u64;
        let end = range.end.min(len);
        let start = range.start.min(end);
        Ok(object.bytes.slice(start as usize..end as usize))
    }

    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error> {
        let objects = self.objects.lock();
        let object = objects.by_key.get(key).ok_or_else(|| missing(key))?;
        let len = object.bytes.len() as u64;
        if len > len_max {
            return Err(Error::too_long(
                format!("get {key} from memory"),
                len,
                len_max,
            ));
        }
        Ok((object.bytes.clone(), object.version()))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error> {
        let limit = limit.clamp(1, LIST_LIMIT_MAX);
        let first = ObjectKey::new(prefix);
        let from = match after {
            Some(after) if *after >= first => Bound::Excluded(after.clone()),
            _ => Bound::Included(first),
        };
        let objects = self.objects.lock();
        let mut rest = objects
            .by_key
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, object)| (key.clone(), object.bytes.len() as u64));
        Ok(Listing {
            objects: rest.by_ref().take(limit).collect(),
            more: rest.next().is_some(),
        })
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.objects.lock().by_key.remove(key);
        Ok(())
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        let objects = self.objects.lock();
        Ok(objects.by_key.get(key).map(|o| o.bytes.len() as u64))
    }
}

fn missing(key: &ObjectKey) -> Error {
    Error::new(
        Kind::Missing,
        format!("get {key} from memory"),
        "no such object",
    )
}
