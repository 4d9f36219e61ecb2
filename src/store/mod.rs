//! Where objects lie: one small trait, three stores, and wrappers that add retries, counting, faults.
//!
//! A store knows nothing of what it holds. Keys are opaque names made by `repo`'s layout; what every store takes
//! as a name stands in [`names`]. `daemon` and `cli` open stores with [`open`] and hand them to `repo`, the only
//! module that talks to one.

pub mod url;

mod body;
mod error;
pub mod names;

pub mod local;
pub mod memory;
pub mod s3;

pub mod cost;
pub mod fault;
pub mod metered;
pub mod overlay;
pub mod pace;
pub mod retry;
pub mod trial;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::id::ObjectKey;
use crate::store::metered::Meter;
use crate::store::pace::{Pace, Paced};
use crate::store::url::Location;

/// The most keys that one listing returns: what S3 gives for one request.
pub const LIST_LIMIT_MAX: usize = 1000;

/// The most objects that are removed together: what S3 takes in one request, and as many as it lists.
pub const DELETE_TOGETHER_MAX: usize = LIST_LIMIT_MAX;

/// What an object is to be made of.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A finished file on the local disk, streamed. A local store may link it instead of copying.
    File {
        /// Where it lies.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
}

/// An opaque version of an object, for conditional writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version(pub String);

/// What must hold for a conditional write.
#[derive(Clone, Debug)]
pub enum Condition {
    /// No such object yet.
    Absent,
    /// The object is still of this version.
    Is(Version),
}

/// How a conditional write ended. A store that ignores conditions says [`PutOutcome::Done`] always:
/// the caller must not take it for proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// Written.
    Done,
    /// The condition did not hold; nothing was written.
    Refused,
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Keys in byte order with their lengths in bytes.
    pub objects: Vec<(ObjectKey, u64)>,
    /// Whether more follow the last one.
    pub more: bool,
}

/// Storage for immutable objects.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// What to call it in messages, without credentials: `s3://bucket/prefix`, `/dir`.
    fn describe(&self) -> String;
    /// Writes an object whole, replacing any of that name. Durable when it returns.
    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error>;
    /// Writes an object if `condition` holds.
    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error>;
    /// Bytes `range` of an object; shorter if it ends earlier, [`Kind::Missing`] if there is none.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error>;
    /// A whole object of at most `len_max` bytes with its version; longer is [`Kind::Corrupt`].
    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error>;
    /// Up to `limit` keys (at most 1000) that begin with `prefix`, in byte order, strictly after `after`.
    /// What lies there under names that cannot be keys is passed over, and never ends or empties a page: one that says that more
    /// follow holds at least one key.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error>;
    /// Removes an object; success if there was none.
    async fn delete(&self, key: &ObjectKey) -> Result<(), Error>;
    /// Removes at most [`DELETE_TOGETHER_MAX`] objects, with one request where the store has such; success if there were none. After an
    /// error any of them may be gone.
    async fn delete_together(&self, keys: &[ObjectKey]) -> Result<(), Error> {
        one_by_one(self, keys).await
    }
    /// Length in bytes; `None` if there is no such object.
    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error>;
}

/// Removes each with a request of its own.
async fn one_by_one(store: &(impl ObjectStore + ?Sized), keys: &[ObjectKey]) -> Result<(), Error> {
    for key in keys {
        store.delete(key).await?;
    }
    Ok(())
}

/// A shared store.
pub type Store = Arc<dyn ObjectStore>;

/// What a process moves to and from its stores. Copies share the counts and the limits.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Counts each request that really goes out, retries included.
    pub meter: Arc<Meter>,
    /// How fast bodies may travel.
    pub pace: Pace,
}

impl Traffic {
    /// Counts from nothing, and keeps to `limits`.
    pub fn limited(limits: pace::Limits) -> Self {
        Self {
            meter: Arc::default(),
            pace: Pace::new(limits),
        }
    }
}

/// Opens the store at `location` for use: every request is retried within bounds ([`retry::Policy::default`]), counted and paced as
/// `traffic` says.
///
/// A folder must exist ([`Kind::Missing`] otherwise; [`create`] makes it). No request is sent to S3 yet, so wrong
/// credentials or a wrong bucket show with the first one.
pub async fn open(location: &Location, traffic: &Traffic) -> Result<Store, Error> {
    let pace = traffic.pace.clone();
    let bare: Store = match location {
        Location::Folder(root) => Arc::new(Paced::new(Arc::new(local::Local::open(root)?), pace)),
        Location::S3(place) => {
            Arc::new(s3::S3::connect(place, s3::Credentials::Chain, pace).await?)
        }
    };
    let metered: Store = Arc::new(metered::Metered::new(bare, traffic.meter.clone()));
    Ok(Arc::new(retry::Retry::new(
        metered,
        retry::Policy::default(),
    )))
}

/// Prepares `location` to be opened for the first time: makes the folder, with its parents, if there is none.
/// An S3 bucket is never created: its owner, region and rights are not ours to choose.
pub async fn create(location: &Location) -> Result<(), Error> {
    match location {
        Location::Folder(root) => local::Local::create(root),
        Location::S3(_) => Ok(()),
    }
}

/// What a caller should do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Try again later.
    Retry,
    /// It is not there.
    Missing,
    /// Credentials are absent, wrong or not allowed to.
    Denied,
    /// What came back cannot be what was stored.
    Corrupt,
    /// The location is wrong: there is no such bucket, or it lies in another region.
    Misplaced,
    /// The request can never succeed: a bad name, a certificate that is not trusted, something that the server does not know.
    Invalid,
    /// The store is full.
    Full,
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct Error {
    /// What to do about it.
    pub kind: Kind,
    /// What was being done to which object of which store.
    pub doing: String,
    /// What went wrong, with what to do where that is known.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[cfg(test)]
mod tests;
