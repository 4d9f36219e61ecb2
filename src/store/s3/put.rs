//! Objects on their way to the server: bodies in memory or streamed from a file, with their checksum, storage class and tags.
//!
//! Bodies carry a CRC-64/NVME of our own, computed here in one pass, so that a server which checks it never stores what the network has
//! damaged; over TLS the payload is not hashed a second time for the signature. One PUT for each object: the largest is a block of
//! 64 MiB, which `line.rs` lets travel for as long as it moves. Called by the store in `mod.rs`.

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::StorageClass;
use aws_smithy_types::base64;
use aws_smithy_types::byte_stream::{ByteStream, Length};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::S3;
use super::error::{self, Act};
use crate::id::ObjectKey;
use crate::store::{Body, Error, body, names};

/// How much of a file is read at a time, for its checksum and for sending it.
const FILE_STEP: usize = 256 * 1024;

impl S3 {
    /// A request that puts `body`, with its checksum.
    pub(super) async fn put_request(
        &self,
        key: &ObjectKey,
        body: Body,
        doing: &str,
    ) -> Result<PutObjectFluentBuilder, Error> {
        names::check(doing, key)?;
        let (stream, len, crc) = match body {
            Body::Bytes(bytes) => {
                let crc = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes);
                let len = bytes.len() as u64;
                (ByteStream::from(bytes), len, crc)
            }
            Body::File { path, len } => {
                let crc = file_checksum(&path, len, doing).await?;
                let stream = ByteStream::read_from()
                    .path(&path)
                    .length(Length::Exact(len))
                    .buffer_size(FILE_STEP)
                    .build()
                    .await
                    .map_err(|error| body::unreadable(doing, std::io::Error::other(error)))?;
                (stream, len, crc)
            }
        };
        let request = self.client.put_object();
        let crc = base64::encode(crc.to_be_bytes());
        let class = self.place.storage_class.as_deref();
        Ok(request
            .bucket(&self.place.bucket)
            .key(self.full_key(key))
            .content_length(len as i64)
            .set_checksum_crc64_nvme(Some(crc).filter(|_| self.place.checksum != Some(false)))
            .set_storage_class(class.map(StorageClass::from))
            .set_tagging(self.place.encoded_tags())
            .body(stream))
    }

    pub(super) async fn send_put(
        &self,
        request: PutObjectFluentBuilder,
    ) -> Result<(), error::PutError> {
        let request = request.customize();
        let request = match self.unsigned_payload {
            true => request.disable_payload_signing(),
            false => request,
        };
        request.send().await.map(drop)
    }

    pub(super) async fn put_plain(&self, key: &ObjectKey, body: Body) -> Result<(), Error> {
        let doing = self.doing("put", key);
        let request = self.put_request(key, body, &doing).await?;
        let edition = self.keys.edition().await;
        match self.send_put(request).await {
            Ok(()) => Ok(()),
            Err(failed) => Err(self.judge(Act::Put, &doing, edition, failed).await),
        }
    }

    /// Whether the server refuses an object whose checksum is wrong: puts one, in vain if so. `None` if none are sent there.
    pub async fn refuses_wrong_checksum(&self, key: &ObjectKey) -> Result<Option<bool>, Error> {
        if self.place.checksum == Some(false) {
            return Ok(None);
        }
        let doing = self.doing("put", key);
        let body = Bytes::from_static(b"checked");
        let wrong = !crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &body);
        let request = self.put_request(key, Body::Bytes(body), &doing).await?;
        let request = request.checksum_crc64_nvme(base64::encode(wrong.to_be_bytes()));
        let edition = self.keys.edition().await;
        match self.send_put(request).await {
            Ok(()) => Ok(Some(false)),
            Err(failed) if error::is_bad_request(&failed) => Ok(Some(true)),
            Err(failed) => Err(self.judge(Act::Put, &doing, edition, failed).await),
        }
    }
}

/// The CRC-64/NVME of a file of `len` bytes, read once off the async threads.
async fn file_checksum(path: &std::path::Path, len: u64, doing: &str) -> Result<u64, Error> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || -> std::io::Result<(u64, u64)> {
        let mut file = std::fs::File::open(path)?;
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut step = vec![0; FILE_STEP];
        let mut found = 0;
        loop {
            match std::io::Read::read(&mut file, &mut step)? {
                0 => return Ok((digest.finalize(), found)),
                n => {
                    digest.update(&step[..n]);
                    found += n as u64;
                }
            }
        }
    });
    let read = read.await.unwrap_or_else(|stopped| Err(stopped.into()));
    match read.map_err(|error| body::unreadable(doing, error))? {
        (crc, found) if found == len => Ok(crc),
        (_, found) => Err(body::wrong_len(doing, len, found)),
    }
}
