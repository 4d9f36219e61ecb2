//! Every byte of one block object, read once and proven: header, frames, padding, directory, trailer.

use std::ops::Range;

use bytes::Bytes;

use crate::crypto;
use crate::format::block::{self, HEADER_LEN, Header, TRAILER_LEN, Trailer};
use crate::format::directory::{Directory, DirectoryEntry};
use crate::format::frame::{ENCRYPTED_LEN_MAX, FrameKind};
use crate::id::{BlockClass, BlockId, ObjectKey};
use crate::repo::{Error, Volume, layout};

/// Bytes of one GET: what `blocks` asks for at most, too.
const PIECE: u64 = 8 << 20;

impl Volume {
    /// Reads a block object of `len` bytes once, front to back after its end, and proves every byte of it. Each frame is shown to
    /// `on_frame`, whole or not: one that is damaged does not keep the others from being looked at. [`Error::Damaged`] says what beside the
    /// frames is not as it was written. Holds one piece of 8 MiB.
    pub async fn prove_block(
        &self,
        object: &ObjectKey,
        len: u64,
        mut on_frame: impl FnMut(&DirectoryEntry, Result<Vec<u8>, crypto::Error>) + Send,
    ) -> Result<Directory, Error> {
        let end_at = len.saturating_sub(TRAILER_LEN + ENCRYPTED_LEN_MAX as u64);
        let mut piece = Piece {
            begin: end_at,
            bytes: self.piece(object, end_at..len).await?,
        };
        if piece.bytes.len() as u64 != len - end_at {
            return Err(Error::damaged(object, "it is shorter than it was listed"));
        }
        let damaged = |why: block::Error| of_block(object, why);
        let trailer = Trailer::decode(&piece.bytes).map_err(damaged)?;
        let directory_range = trailer.directory_range(len).map_err(damaged)?;
        let tail = piece.clone();
        let header = self.at(object, &mut piece, 0..HEADER_LEN, len).await?;
        let id = self.id_of(object, &header)?;
        let of_directory = tail
            .slice(&directory_range)
            .ok_or_else(|| Error::damaged(object, "its directory is too long"))?;
        let directory = Directory::open(&of_directory, &trailer, len, &self.keys().block(id))
            .map_err(damaged)?;
        for entry in directory.entries() {
            let place = entry.place;
            let range = place.offset..place.offset + u64::from(place.len);
            let bytes = self.at(object, &mut piece, range, len).await?;
            let named = (entry.kind == FrameKind::Commit).then_some(object);
            let plain =
                self.keys()
                    .block(entry.block)
                    .decrypt(place.frame, entry.kind, named, &bytes);
            on_frame(entry, plain);
        }
        let pad = self.at(object, &mut piece, directory.pad(), len).await?;
        directory.verify_clear(&header, &pad).map_err(damaged)?;
        Ok(directory)
    }

    /// The block's id, as its header says it: it must be the one that the object is named by.
    fn id_of(&self, object: &ObjectKey, header: &Bytes) -> Result<BlockId, Error> {
        let id = Header::decode(header)
            .map_err(|why| of_block(object, why))?
            .id;
        let volume = self.info().id;
        let fits = match id.class {
            BlockClass::Commit => {
                layout::parse_commit(volume, object).is_some_and(|name| name.session == id.session)
            }
            _ => layout::block(volume, id).as_ref() == Some(object),
        };
        match fits {
            true => Ok(id),
            false => Err(Error::damaged(
                object,
                "its header is that of another object",
            )),
        }
    }

    /// Bytes `range` of the object, out of `piece` if they lie there, else out of the next piece, which replaces it.
    async fn at(
        &self,
        object: &ObjectKey,
        piece: &mut Piece,
        range: Range<u64>,
        len: u64,
    ) -> Result<Bytes, Error> {
        if let Some(bytes) = piece.slice(&range) {
            return Ok(bytes);
        }
        let end = len.min(range.end.max(range.start + PIECE));
        *piece = Piece {
            begin: range.start,
            bytes: self.piece(object, range.start..end).await?,
        };
        piece
            .slice(&range)
            .ok_or_else(|| Error::damaged(object, "it is shorter than it was listed"))
    }

    async fn piece(&self, object: &ObjectKey, range: Range<u64>) -> Result<Bytes, Error> {
        let got = self.store().get_range(object, range).await;
        got.map_err(|error| Error::of_store(object, error))
    }
}

/// A stretch of an object at hand.
#[derive(Clone)]
struct Piece {
    begin: u64,
    bytes: Bytes,
}

impl Piece {
    fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.begin)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.begin)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

fn of_block(object: &ObjectKey, why: block::Error) -> Error {
    match why {
        block::Error::NewerFormat(feature) => Error::NewerFormat {
            what: object.to_string(),
            feature,
        },
        other => Error::damaged(object, other),
    }
}
