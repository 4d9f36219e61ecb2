//! The server's memory: buckets of objects, and the S3 operations on them. One lock makes every operation atomic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use parking_lot::Mutex;
use s3s::dto::{self, ETag, ETagCondition, StreamingBlob, Timestamp};
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

/// The most keys in one page, as with AWS.
const PAGE_MAX: usize = 1000;

/// Everything stored.
pub(super) struct Buckets {
    stored: Mutex<BTreeMap<String, Objects>>,
    /// How many objects came without a checksum in the header.
    unchecked: AtomicU64,
    /// Whether conditions of writes are ignored, as many servers do.
    unconditional: AtomicBool,
    /// Bytes of objects that came, refused ones included.
    received: AtomicU64,
}

type Objects = BTreeMap<String, Object>;

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    tag: String,
    modified: SystemTime,
    /// The storage class and the tags that it was put with.
    extras: Extras,
}

/// A storage class, and tags as their header has them.
pub(super) type Extras = (Option<String>, Option<String>);

impl Object {
    fn new(bytes: Bytes) -> Self {
        Self {
            tag: blake3::hash(&bytes).to_hex()[..32].to_owned(),
            bytes,
            modified: SystemTime::now(),
            extras: Extras::default(),
        }
    }

    fn etag(&self) -> ETag {
        ETag::Strong(self.tag.clone())
    }

    fn matches(&self, condition: &ETagCondition) -> bool {
        match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(tag) => tag.value() == self.tag,
        }
    }
}

impl Buckets {
    pub(super) fn new(bucket: &str) -> Self {
        Self {
            stored: Mutex::new(BTreeMap::from([(bucket.to_owned(), Objects::new())])),
            unchecked: AtomicU64::new(0),
            unconditional: AtomicBool::new(false),
            received: AtomicU64::new(0),
        }
    }

    pub(super) fn ignore_conditions(&self) {
        self.unconditional.store(true, Ordering::Relaxed);
    }

    pub(super) fn objects(&self, bucket: &str) -> Vec<(String, Bytes)> {
        let buckets = self.stored.lock();
        let objects = buckets.get(bucket).into_iter().flatten();
        objects
            .map(|(key, object)| (key.clone(), object.bytes.clone()))
            .collect()
    }

    pub(super) fn extras(&self, bucket: &str) -> Vec<Extras> {
        let buckets = self.stored.lock();
        let objects = buckets.get(bucket).into_iter().flatten();
        objects.map(|(_, object)| object.extras.clone()).collect()
    }

    pub(super) fn unchecked(&self) -> u64 {
        self.unchecked.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn tamper(&self, bucket: &str, key: &str, bytes: Option<Bytes>) {
        let mut buckets = self.stored.lock();
        let objects = buckets.entry(bucket.to_owned()).or_default();
        match bytes {
            Some(bytes) => objects.insert(key.to_owned(), Object::new(bytes)),
            None => objects.remove(key),
        };
    }

    fn with<T>(&self, bucket: &str, work: impl FnOnce(&mut Objects) -> S3Result<T>) -> S3Result<T> {
        let mut buckets = self.stored.lock();
        let objects = buckets
            .get_mut(bucket)
            .ok_or_else(|| s3_error!(NoSuchBucket))?;
        work(objects)
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Object> {
        self.with(bucket, |objects| {
            let found = objects.get(key).cloned();
            found.ok_or_else(|| s3_error!(NoSuchKey))
        })
    }
}

/// The operations that RewindFS uses, and those that people's tools need to look around.
pub(super) struct Backend(pub(super) Arc<Buckets>);

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(
        &self,
        req: S3Request<dto::PutObjectInput>,
    ) -> S3Result<S3Response<dto::PutObjectOutput>> {
        let mut input = req.input;
        if self.0.unconditional.load(Ordering::Relaxed) {
            (input.if_match, input.if_none_match) = (None, None);
        }
        let bytes = collect(input.body.take(), input.content_length).await?;
        let len = bytes.len() as u64;
        self.0.received.fetch_add(len, Ordering::Relaxed);
        check_crc(&bytes, input.checksum_crc64nvme.as_deref())?;
        let unchecked = u64::from(input.checksum_crc64nvme.is_none());
        self.0.unchecked.fetch_add(unchecked, Ordering::Relaxed);
        let mut object = Object::new(bytes);
        let class = input
            .storage_class
            .as_ref()
            .map(|class| class.as_str().to_owned());
        object.extras = (class, input.tagging.clone());
        let etag = object.etag();
        self.0.with(&input.bucket, |objects| {
            let found = objects.get(&input.key);
            if let Some(condition) = &input.if_none_match
                && found.is_some_and(|found| found.matches(condition))
            {
                return Err(s3_error!(PreconditionFailed));
            }
            match (&input.if_match, found) {
                (Some(_), None) => return Err(s3_error!(NoSuchKey)),
                (Some(condition), Some(found)) if !found.matches(condition) => {
                    return Err(s3_error!(PreconditionFailed));
                }
                _ => {}
            }
            objects.insert(input.key.clone(), object);
            Ok(())
        })?;
        Ok(S3Response::new(dto::PutObjectOutput {
            e_tag: Some(etag),
            checksum_crc64nvme: input.checksum_crc64nvme,
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        req: S3Request<dto::GetObjectInput>,
    ) -> S3Result<S3Response<dto::GetObjectOutput>> {
        let object = self.0.find(&req.input.bucket, &req.input.key)?;
        let len = object.bytes.len() as u64;
        let etag = object.etag();
        let (bytes, content_range) = match req.input.range {
            None => (object.bytes, None),
            Some(range) => {
                let range = range.check(len)?;
                let said = format!("bytes {}-{}/{len}", range.start, range.end - 1);
                let part = object.bytes.slice(range.start as usize..range.end as usize);
                (part, Some(said))
            }
        };
        Ok(S3Response::new(dto::GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(bytes.len() as i64),
            content_range,
            body: Some(StreamingBlob::from(Body::from(bytes))),
            e_tag: Some(etag),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        req: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        let object = self.0.find(&req.input.bucket, &req.input.key)?;
        Ok(S3Response::new(dto::HeadObjectOutput {
            content_length: Some(object.bytes.len() as i64),
            e_tag: Some(object.etag()),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        self.0.with(&req.input.bucket, |objects| {
            objects.remove(&req.input.key);
            Ok(())
        })?;
        Ok(S3Response::new(dto::DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let keys: Vec<_> = req
            .input
            .delete
            .objects
            .into_iter()
            .map(|o| o.key)
            .collect();
        self.0.with(&req.input.bucket, |objects| {
            for key in &keys {
                objects.remove(key);
            }
            Ok(())
        })?;
        let deleted = keys.into_iter().map(|key| dto::DeletedObject {
            key: Some(key),
            ..Default::default()
        });
        Ok(S3Response::new(dto::DeleteObjectsOutput {
            deleted: Some(deleted.collect()),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        let input = req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        // The continuation token is the last key of the page before.
        let after = [&input.start_after, &input.continuation_token];
        let after = after.into_iter().flatten().max().cloned();
        // As Garage has it; AWS takes no notice of one that lies before the prefix.
        let none = input
            .start_after
            .as_ref()
            .is_some_and(|start| *start < prefix);
        let wanted = input
            .max_keys
            .map_or(PAGE_MAX, |n| n.clamp(0, 1000) as usize);
        let (contents, more) = self.0.with(&input.bucket, |objects| {
            let mut rest = objects
                .range(prefix.clone()..)
                .skip_while(|(key, _)| after.as_ref().is_some_and(|after| *key <= after))
                .take_while(|(key, _)| !none && key.starts_with(&prefix));
            let page: Vec<_> = rest.by_ref().take(wanted).map(describe).collect();
            Ok((page, rest.next().is_some()))
        })?;
        Ok(S3Response::new(dto::ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            key_count: Some(contents.len() as i32),
            max_keys: Some(wanted as i32),
            is_truncated: Some(more),
            next_continuation_token: match more {
                true => contents.last().and_then(|last| last.key.clone()),
                false => None,
            },
            start_after: input.start_after,
            contents: Some(contents),
            ..Default::default()
        }))
    }

    async fn head_bucket(
        &self,
        req: S3Request<dto::HeadBucketInput>,
    ) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        self.0.with(&req.input.bucket, |_| Ok(()))?;
        Ok(S3Response::new(dto::HeadBucketOutput::default()))
    }

    async fn create_bucket(
        &self,
        req: S3Request<dto::CreateBucketInput>,
    ) -> S3Result<S3Response<dto::CreateBucketOutput>> {
        self.0.stored.lock().entry(req.input.bucket).or_default();
        Ok(S3Response::new(dto::CreateBucketOutput::default()))
    }
}

fn describe((key, object): (&String, &Object)) -> dto::Object {
    dto::Object {
        key: Some(key.clone()),
        size: Some(object.bytes.len() as i64),
        e_tag: Some(object.etag()),
        last_modified: Some(Timestamp::from(object.modified)),
        ..Default::default()
    }
}

/// Takes a whole body; one that breaks off or is shorter than announced is refused, as S3 does.
async fn collect(body: Option<StreamingBlob>, announced: Option<i64>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        let broken = |error: s3s::StdError| {
            S3Error::with_message(S3ErrorCode::IncompleteBody, error.to_string())
        };
        while let Some(part) = body.try_next().await.map_err(broken)? {
            bytes.extend_from_slice(&part);
        }
    }
    match announced {
        Some(len) if len != bytes.len() as i64 => Err(s3_error!(IncompleteBody)),
        _ => Ok(bytes.freeze()),
    }
}

fn check_crc(bytes: &[u8], stated: Option<&str>) -> S3Result<()> {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    let found = aws_smithy_types::base64::encode(crc.to_be_bytes());
    match stated {
        Some(stated) if stated != found => Err(s3_error!(BadDigest)),
        _ => Ok(()),
    }
}
