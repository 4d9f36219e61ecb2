//! Reading one commit: one ranged GET of its beginning, proven under its own name.

use bytes::Bytes;

use crate::format::block::{self, HEADER_LEN, Header};
use crate::format::commit::{self, Commit};
use crate::format::entry::CommitName;
use crate::format::frame::{FrameKind, TAG_LEN};
use crate::id::{BlockClass, FrameNo, ObjectKey, Tag};
use crate::repo::commits::Found;
use crate::repo::{Error, Volume, layout};

/// How much of a commit is asked for before its length is known: its body with 16 KiB of changes, and often the small
/// data that rides with it. A longer body costs a second GET.
const FIRST_GET: u64 = 64 << 10;

impl Volume {
    /// Reads and proves a commit; `object_len` where a LIST has told it.
    pub(super) async fn read(
        &self,
        name: &CommitName,
        object_len: Option<u64>,
    ) -> Result<Found, Error> {
        let object = layout::commit(self.info.id, name);
        let beginning = self.get(&object, 0..FIRST_GET).await?;
        let (header, frame) = self.body(&object, name, &beginning).await?;
        let tag = match frame.last_chunk::<TAG_LEN>() {
            Some(tag) => Tag(*tag),
            None => return Err(Error::damaged(&object, "its first frame is cut short")),
        };
        let plain = self
            .keys
            .block(header.id)
            .decrypt(FrameNo(0), FrameKind::Commit, Some(&object), &frame)
            .map_err(|why| Error::damaged(&object, why))?;
        let commit = Commit::decode(&plain).map_err(|why| of_body(&object, why))?;
        if commit.name != *name {
            return Err(Error::damaged(&object, "its body states another name"));
        }
        let object_len = match object_len {
            Some(len) => len,
            None if (beginning.len() as u64) < FIRST_GET => beginning.len() as u64,
            None => self
                .store
                .head(&object)
                .await?
                .ok_or_else(|| Error::Missing {
                    object: object.clone(),
                })?,
        };
        self.blocks.remember_beginning(&object, beginning);
        Ok(Found {
            commit,
            tag,
            object_len,
        })
    }

    /// The header and the encrypted body, of which the header says how long it is.
    async fn body(
        &self,
        object: &ObjectKey,
        name: &CommitName,
        beginning: &Bytes,
    ) -> Result<(Header, Bytes), Error> {
        let header = Header::decode(beginning).map_err(|why| of_header(object, why))?;
        if header.id.class != BlockClass::Commit || header.id.session != name.session {
            return Err(Error::damaged(
                object,
                "its header is that of another object",
            ));
        }
        let end = HEADER_LEN + u64::from(header.first_len);
        if end <= beginning.len() as u64 {
            return Ok((header, beginning.slice(HEADER_LEN as usize..end as usize)));
        }
        if (beginning.len() as u64) < FIRST_GET {
            return Err(Error::damaged(object, "it is cut short"));
        }
        Ok((header, self.get(object, HEADER_LEN..end).await?))
    }

    async fn get(&self, object: &ObjectKey, range: std::ops::Range<u64>) -> Result<Bytes, Error> {
        let got = self.store.get_range(object, range).await;
        got.map_err(|error| Error::of_store(object, error))
    }
}

fn of_header(object: &ObjectKey, why: block::Error) -> Error {
    match why {
        block::Error::NewerFormat(feature) => Error::NewerFormat {
            what: object.to_string(),
            feature,
        },
        other => Error::damaged(object, other),
    }
}

fn of_body(object: &ObjectKey, why: commit::Error) -> Error {
    let feature = match why {
        commit::Error::Version(version) => u32::from(version),
        commit::Error::Feature(bit) => bit,
        commit::Error::Malformed(why) => return Error::damaged(object, why),
    };
    Error::NewerFormat {
        what: object.to_string(),
        feature,
    }
}
