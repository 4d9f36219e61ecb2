//! A store in a bucket: AWS's S3 and the many servers that speak its language, through `aws-sdk-s3`.
//!
//! Requests are sent once: trying again is [`super::retry`]'s work. `connect` sets the client up, with what `credentials` and `trust`
//! find, over the `line` that paces bodies and gives up on a silent server; `put` makes and sends objects, `remove` removes them; `error`
//! turns what fails into what a person can act on, `page` reads listings.

mod connect;
mod credentials;
mod error;
mod line;
mod page;
mod put;
mod remove;
mod silence;
mod skew;
mod trust;

pub use connect::Credentials;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

use crate::buffers::Buffers;
use crate::id::ObjectKey;
use crate::store::pace::Pace;
use crate::store::s3::credentials::Keys;
use crate::store::s3::error::{Act, Asked};
use crate::store::s3::page::Page;
use crate::store::s3::skew::Skew;
use crate::store::url::S3Place;
use crate::store::{
    Body, Condition, Error, Kind, LIST_LIMIT_MAX, Listing, ObjectStore, PutOutcome, Version, names,
};

/// Answers from this length in bytes on are worth a buffer that is used again.
const LARGE_LEN: usize = 256 << 10;
/// The most room in bytes that is made for an answer because of the length that it states: a server may lie.
const ROOM_MAX: usize = 8 << 20;
/// Such buffers that are kept, a few MiB each: what a reader far away has on its way at once.
const BUFFERS_MAX: usize = 8;

/// A place in a bucket.
#[derive(Debug)]
pub struct S3 {
    client: Client,
    place: S3Place,
    /// Whether bodies travel without a hash in the signature, because TLS protects them.
    unsigned_payload: bool,
    keys: Arc<Keys>,
    skew: Arc<Skew>,
    buffers: Arc<Buffers>,
}

impl S3 {
    /// Prepares a client for `place`. Nothing is sent to the server yet; without a region in `place` or in the
    /// environment an EC2 instance is asked for its own.
    pub async fn connect(
        place: &S3Place,
        credentials: Credentials,
        pace: Pace,
    ) -> Result<Self, Error> {
        let connected = connect::connect(place, credentials, pace).await?;
        Ok(Self {
            client: connected.client,
            place: place.clone(),
            unsigned_payload: connected.tls,
            keys: connected.keys,
            skew: connected.skew,
            buffers: Arc::new(Buffers::new(BUFFERS_MAX)),
        })
    }

    /// How many milliseconds this machine's clock is ahead of the server's (behind if negative), exact to about a second; `None` before
    /// the first answer that says.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.skew.offset_ms()
    }

    /// The same bucket without the prefix: for looking at what is there that is not ours.
    pub fn whole_bucket(&self) -> Self {
        Self {
            client: self.client.clone(),
            place: S3Place {
                prefix: String::new(),
                ..self.place.clone()
            },
            unsigned_payload: self.unsigned_payload,
            keys: self.keys.clone(),
            skew: self.skew.clone(),
            buffers: self.buffers.clone(),
        }
    }

    /// Judges what came of a request that was signed with this edition of the keys.
    async fn judge<E>(
        &self,
        act: Act,
        doing: &str,
        edition: u64,
        failed: SdkError<E, HttpResponse>,
    ) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let refused = failed.raw_response().is_some();
        let error = error::judge(&self.asked(act, doing), failed);
        match refused {
            true => self.with_other_keys(edition, error).await,
            false => error,
        }
    }

    /// What the server said, which is worth another attempt if it is a refusal and the keys are others by now.
    async fn with_other_keys(&self, edition: u64, mut error: Error) -> Error {
        if error.kind == Kind::Denied && self.keys.are_others_than(edition).await {
            tracing::info!(%error, "the credentials have changed; trying with the new ones");
            error.kind = Kind::Retry;
        }
        error
    }

    fn asked<'a>(&'a self, act: Act, doing: &'a str) -> Asked<'a> {
        Asked {
            place: &self.place,
            act,
            doing,
            skew: self.skew.words(),
        }
    }

    fn doing(&self, verb: &str, what: impl std::fmt::Display) -> String {
        format!("{verb} {what} in {}", self.describe())
    }

    fn full_key(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.place.prefix)
    }

    /// Sends one LIST for up to `limit` names of anybody's that follow the full key `after`.
    async fn list_page(
        &self,
        prefix: &str,
        after: Option<String>,
        limit: usize,
        doing: &str,
    ) -> Result<Page, Error> {
        let request = self.client.list_objects_v2();
        let request = request
            .bucket(&self.place.bucket)
            .prefix(format!("{}{prefix}", self.place.prefix))
            .set_start_after(after.clone())
            .max_keys(limit as i32);
        let edition = self.keys.edition().await;
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(failed) => return Err(self.judge(Act::List, doing, edition, failed).await),
        };
        Page::read(answer, &self.place.prefix, after.as_deref(), doing)
    }

    /// Sends a GET, of a range or of the whole object, and collects at most `len_max` bytes of it; none if the range
    /// begins behind the object's end.
    async fn fetch(
        &self,
        key: &ObjectKey,
        range: Option<String>,
        len_max: u64,
        doing: &str,
    ) -> Result<(Bytes, Version), Error> {
        let request = self.client.get_object();
        let request = request
            .bucket(&self.place.bucket)
            .key(self.full_key(key))
            .set_range(range);
        let edition = self.keys.edition().await;
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(failed) if error::is_beyond_end(&failed) => {
                return Ok((Bytes::new(), Version(String::new())));
            }
            Err(failed) => return Err(self.judge(Act::Get, doing, edition, failed).await),
        };
        let stated = answer.content_length().unwrap_or(0);
        let len = u64::try_from(stated).unwrap_or(0);
        if len > len_max {
            return Err(Error::too_long(doing, len, len_max));
        }
        let version = Version(answer.e_tag().unwrap_or_default().to_owned());
        let bytes = self.collect(answer.body, len as usize, len_max, doing);
        Ok((bytes.await?, version))
    }

    /// What comes of `body`, which says that it has `len` bytes, and must not have more than `len_max`.
    async fn collect(
        &self,
        mut body: ByteStream,
        len: usize,
        len_max: u64,
        doing: &str,
    ) -> Result<Bytes, Error> {
        let is_large = (LARGE_LEN..=ROOM_MAX).contains(&len);
        let mut bytes = match is_large {
            true => self.buffers.take(len),
            false => Vec::with_capacity(len.min(ROOM_MAX)),
        };
        while let Some(part) = body.next().await {
            let part = part.map_err(|cut| {
                let message = error::chain("the answer broke off", &cut);
                Error::new(Kind::Retry, doing, message).because(cut)
            })?;
            let found = (bytes.len() + part.len()) as u64;
            if found > len_max {
                return Err(Error::too_long(doing, found, len_max));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(match is_large && bytes.len() == len {
            true => self.buffers.lend(bytes),
            false => bytes.into(),
        })
    }
}

#[async_trait]
impl ObjectStore for S3 {
    fn describe(&self) -> String {
        let prefix = self.place.prefix.trim_end_matches('/');
        format!("s3://{}/{prefix}", self.place.bucket)
    }

    async fn put(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        self.put_plain(key, body).await
    }

    /// A server that says it knows no conditions is taken like one that ignores them.
    async fn put_if(
        &self,
        key: &ObjectKey,
        body: Body,
        condition: Condition,
    ) -> Result<PutOutcome, Error> {
        let doing = self.doing("put", key);
        let request = self.put_request(key, body.clone(), &doing).await?;
        let replaces = matches!(condition, Condition::Is(_));
        let request = match condition {
            Condition::Absent => request.if_none_match("*"),
            Condition::Is(version) => request.if_match(version.0),
        };
        let edition = self.keys.edition().await;
        match self.send_put(request).await {
            Ok(()) => Ok(PutOutcome::Done),
            Err(failed) if error::is_refusal(&failed, replaces) => Ok(PutOutcome::Refused),
            Err(failed) if error::is_unsupported(&failed) => {
                self.put_plain(key, body).await?;
                Ok(PutOutcome::Done)
            }
            Err(failed) => Err(self.judge(Act::Put, &doing, edition, failed).await),
        }
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        let doing = self.doing("get", key);
        names::check(&doing, key)?;
        if range.is_empty() {
            // HTTP has no empty ranges.
            return match self.head(key).await? {
                Some(_) => Ok(Bytes::new()),
                None => Err(Error::new(Kind::Missing, doing, "no such object")),
            };
        }
        let wanted = format!("bytes={}-{}", range.start, range.end - 1);
        let len_max = range.end - range.start;
        let (bytes, _) = self.fetch(key, Some(wanted), len_max, &doing).await?;
        Ok(bytes)
    }

    async fn get(&self, key: &ObjectKey, len_max: u64) -> Result<(Bytes, Version), Error> {
        let doing = self.doing("get", key);
        names::check(&doing, key)?;
        self.fetch(key, None, len_max, &doing).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing, Error> {
        let doing = self.doing("list", format_args!("{prefix}*"));
        let limit = limit.clamp(1, LIST_LIMIT_MAX);
        // What lies before the prefix excludes nothing; Garage would stop there.
        let after = after.filter(|after| after.as_str() >= prefix);
        let mut after = after.map(|after| self.full_key(after));
        let mut wanted = limit;
        loop {
            let mut page = self.list_page(prefix, after, wanted, &doing).await?;
            if !page.objects.is_empty() || page.next.is_none() {
                let more = page.next.is_some() || page.objects.len() > limit;
                page.objects.truncate(limit);
                let objects = page.objects;
                return Ok(Listing { objects, more });
            }
            // All of it was others', and ours may follow: an empty page would be taken for the end. As many at once as
            // there can be, since whoever put those there may have put thousands.
            after = page.next;
            wanted = LIST_LIMIT_MAX;
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.remove(key).await
    }

    async fn delete_together(&self, keys: &[ObjectKey]) -> Result<(), Error> {
        self.remove_together(keys).await
    }

    /// S3 answers a HEAD without words, so a bucket that does not exist looks like a missing object here.
    async fn head(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        let doing = self.doing("head", key);
        names::check(&doing, key)?;
        let request = self.client.head_object();
        let request = request.bucket(&self.place.bucket).key(self.full_key(key));
        let edition = self.keys.edition().await;
        match request.send().await {
            Ok(answer) => {
                let len = answer.content_length().and_then(|len| len.try_into().ok());
                let unsaid = || Error::new(Kind::Corrupt, doing, "the server gave no length");
                len.map(Some).ok_or_else(unsaid)
            }
            Err(failed) => match self.judge(Act::Get, &doing, edition, failed).await {
                error if error.kind == Kind::Missing => Ok(None),
                error => Err(error),
            },
        }
    }
}
