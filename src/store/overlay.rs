//! A store seen through the spool: objects that still wait on the local disk are read as if they were stored already.
//!
//! So a snapshot can be mounted as soon as its epoch is captured. The folder belongs to whoever spools and uploads;
//! here it is only read. Every file in it is a finished object named by [`file_name`]; what begins with a dot is not.
//! A file may vanish at any moment, once its object is in the store: then the store answers.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::id::ObjectKey;
use crate::store::{
    Body, Condition, Error, LIST_LIMIT_MAX, Listing, ObjectStore, PutOutcome, Store, Version, names,
};

/// What stands for a slash in a file's name. No key may hold it.
const SLASH: &str = "+";

/// The version of an object that is not in the store yet. No condition on it ever holds.
const VERSION: &str = "spooled";

/// The name under which the object `key` waits in the spool.
pub fn file_name(key: &ObjectKey) -> String {
    key.as_str().replace('/', SLASH)
}

/// The object that waits in the file `name`; `None` if it is not one of ours.
pub fn key_of(name: &str) -> Option<ObjectKey> {
    let key = name.replace(SLASH, "/");
    names::is_key(&key).then(|| ObjectKey::new(key))
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Overlay {
    inner: Store,
    folder: PathBuf,
}

impl Overlay {
    /// Looks into `folder` first, then into `inner`. A folder that does not exist is empty.
    pub fn new(inner: Store, folder: PathBuf) -> Self {
        Self { inner, folder }
    }

    /// Opens the file of a spooled object, with its length; `None` if it does not wait here (any more).
    async fn open(&self, key: &ObjectKey) -> Result<Option<(tokio::fs::File, u64)>, Error> {
        let doing = || format!("get {key} from the spool {}", self.folder.display());
        names::check("get an object from the spool", key)?;
        let opened = match tokio::fs::File::open(self.folder.join(file_name(key))).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| Error::from_io(doing(), error))?,
        };
        let found = opened.metadata().await;
        let found = found.map_err(|error| Error::from_io(doing(), error))?;
        Ok(found.is_file().then_some((opened, found.len())))
    }

    /// Bytes `range` of a spooled object and its whole length.
    async fn read(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
    ) -> Result<Option<(Bytes, u64)>, Error> {
        let Some((mut file, len)) = self.open(key).await? else {
            return Ok(None);
        };
        let wanted = range.end.min(len).saturating_sub(range.start);
        let read = async {
            let mut bytes = Vec::with_capacity(wanted as usize);
            if wanted > 0 {
                file.seek(io::SeekFrom::Start(range.start)).await?;
                file.take(wanted).read_to_end(&mut bytes).await?;
            }
            io::Result::Ok(bytes)
        };
        let bytes = read.await.map_err(|error| {
            Error::from_io(
                format!("get {key} from the spool {}", self.folder.display()),
                error,
            )
        })?;
        Ok(Some((bytes.into(), len)))
    }

    /// The spooled objects that begin with `prefix` and follow `after`, in byte order.
    async fn spooled(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
    ) -> Result<Vec<(ObjectKey, u64)>, Error> {
        let list = async {
            let mut found = Vec::new();
            let mut entries = match tokio::fs::read_dir(&self.folder).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
                entries => entries?,
            };
            while let Some(entry) = entries.next_entry().await? {
                let Some(key) = entry.file_name().to_str().and_then(key_of) else {
                    continue;
                };
                if !key.as_str().starts_with(prefix) || after.is_some_and(|after| key <= *after) {
                    continue;
                }
                match entry.metadata().await {
                    Ok(file) if file.is_file() => found.push((key, file.len())),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            found.sort_unstable();
            io::Result::Ok(found)
        };
        list.await.map_err(|error| {
            Error::from_io(format!("list the spool {}", self.folder.display()), error)
        })
    }
}

#[async_trait]
impl ObjectStore for Overlay {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    /// Goes to the store; nothing is ever spooled here.
    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        self.inner.put(key, body).await
    }

    /// Goes to the store; a spooled object does not count as there.
    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error> {
        self.inner.put_if(key, body, condition).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        match self.read(key, range.clone()).await? {
            Some((bytes, _)) => Ok(bytes),
            None => self.inner.get_range(key, range).await,
        }
    }

    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error> {
        match self.read(key, 0..len_max).await? {
            Some((_, len)) if len > len_max => Err(Error::too_long(
                format!("get {key} from the spool"),
                len,
                len_max,
            )),
            Some((bytes, _)) => Ok((bytes, Version(VERSION.into()))),
            None => self.inner.get(key, len_max).await,
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error> {
        let limit = limit.clamp(1, LIST_LIMIT_MAX);
        // The spool first: an object that is uploaded and removed meanwhile is then seen twice, never missed.
        let spooled = self.spooled(prefix, after).await?;
        let stored = self.inner.list(prefix, after, limit).await?;
        Ok(merge(spooled, stored, limit))
    }

    /// Goes to the store; a spooled object stays, since its owner is about to upload it.
    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.inner.delete(key).await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        match self.open(key).await? {
            Some((_, len)) => Ok(Some(len)),
            None => self.inner.head(key).await,
        }
    }
}

/// One page of both, in order, each key once. What lies beyond the last key of an unfinished page of the store waits
/// for a later page, since keys of the store may come before it.
fn merge(spooled: Vec<(ObjectKey, u64)>, stored: Listing, limit: usize) -> Listing {
    let horizon = match stored.more {
        true => stored.objects.last().map(|(key, _)| key.clone()),
        false => None,
    };
    let within = |key: &ObjectKey| horizon.as_ref().is_none_or(|last| key <= last);
    let held_back = spooled.iter().any(|(key, _)| !within(key));
    let mut objects = stored.objects;
    objects.extend(spooled.into_iter().filter(|(key, _)| within(key)));
    objects.sort();
    objects.dedup_by(|a, b| a.0 == b.0);
    let more = stored.more || held_back || objects.len() > limit;
    objects.truncate(limit);
    Listing { objects, more }
}

#[cfg(test)]
mod tests;
