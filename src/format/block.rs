//! The layout of a block: header, frames, padding, directory of frames, trailer. Pure. FORMAT.md, "Block".
//!
//! [`BlockLayout`] hands out places while the flusher or the tree fills a block; [`Header`], [`Trailer`] and
//! [`Directory`](crate::format::directory::Directory) read one, for commits, `check`, `debug` and for rebuilding what was
//! lost. A normal read needs none of them: an address's hint says where its frame lies.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::compress::Compression;
use crate::crypto::{self, Ciphertext};
use crate::format::directory::{self, DirectoryEntry};
use crate::format::frame::{ENCRYPTED_LEN_MAX, ENCRYPTED_LEN_MIN, Envelope, FrameKind};
use crate::id::{BlockId, FrameNo};

/// Length of a block's clear header in bytes.
pub const HEADER_LEN: u64 = 64;
/// Length of a block's clear trailer in bytes.
pub const TRAILER_LEN: u64 = 16;
/// The most frames in one block: its directory must fit one frame. A block of 64 MiB has as many at 4 KiB each.
pub const FRAMES_MAX: u32 = 16384;

const HEADER_MAGIC: &[u8; 8] = b"RWFSblk1";
const TRAILER_MAGIC: &[u8; 8] = b"RWFSend1";

/// Where a frame lies in its object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FramePlace {
    /// The frame.
    pub frame: FrameNo,
    /// Offset of its IV in the object.
    pub offset: u64,
    /// Length in the object.
    pub len: u32,
}

/// Why a block could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Not the bytes that were written.
    #[error("block is damaged: {0}")]
    Damaged(&'static str),
    /// A newer version wrote it: it needs feature bit `.0`.
    #[error("block needs feature {0} of a newer version")]
    NewerFormat(u32),
    /// Its directory was refused.
    #[error("directory of the block: {0}")]
    Directory(#[from] crypto::Error),
}

/// Hands out places while a block is being filled; knows nothing of keys.
pub struct BlockLayout {
    id: BlockId,
    entries: Vec<DirectoryEntry>,
    plain_len: u64,
    object_len: u64,
}

impl BlockLayout {
    /// An empty block.
    pub fn new(id: BlockId) -> Self {
        Self {
            id,
            entries: Vec::new(),
            plain_len: 0,
            object_len: HEADER_LEN,
        }
    }

    /// Adds a frame at the end and says where it will lie.
    ///
    /// # Panics
    /// If the block has [`FRAMES_MAX`] frames already: its directory would be unreadable.
    pub fn add(&mut self, kind: FrameKind, envelope: &Envelope) -> FramePlace {
        self.add_lengths(kind, envelope.plain_len(), envelope.encrypted_len())
    }

    /// The same for a frame whose envelope encryption has consumed already: only its lengths matter here.
    ///
    /// # Panics
    /// As [`Self::add`].
    pub fn add_lengths(&mut self, kind: FrameKind, plain_len: usize, len: u32) -> FramePlace {
        assert!(self.frames() < FRAMES_MAX, "ask `frames` before adding");
        let place = FramePlace {
            frame: FrameNo(self.frames()),
            offset: self.object_len,
            len,
        };
        self.plain_len += plain_len as u64;
        self.object_len += u64::from(len);
        self.entries.push(DirectoryEntry {
            block: self.id,
            place,
            kind,
        });
        place
    }

    /// Frames so far, at most [`FRAMES_MAX`].
    pub fn frames(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Plaintext bytes so far (a block holds at most its repository's block size).
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// Bytes of object so far: header and frames.
    pub fn object_len(&self) -> u64 {
        self.object_len
    }

    /// The 64 clear bytes at the beginning. They hold the length of the first frame: ask when that has been added.
    pub fn header(&self) -> [u8; HEADER_LEN as usize] {
        let first_len = self.entries.first().map_or(0, |entry| entry.place.len);
        let header = Header {
            id: self.id,
            first_len,
        };
        header.encode()
    }

    /// The end of the object: random Padme padding, the directory frame (encrypted by `encrypt`), the trailer.
    pub fn finish(self, encrypt: impl FnOnce(FrameNo, Envelope) -> Ciphertext) -> Vec<u8> {
        let directory_len = directory::encrypted_len(self.entries.len());
        let end_len = u64::from(directory_len) + TRAILER_LEN;
        let object_len = padme(self.object_len + end_len);
        let mut end = crypto::random_padding((object_len - end_len - self.object_len) as usize);

        let clear_hash = hash_clear(&self.header(), &end);
        let plain = directory::encode(&clear_hash, object_len, &self.entries);
        // Never compressed: its length must be known before the padding, whose hash stands in it.
        let envelope = Envelope::pack(&plain, Compression::Off);
        let frame = FrameNo(self.frames());
        let encrypted = encrypt(frame, envelope);
        debug_assert_eq!(encrypted.bytes().len(), directory_len as usize);
        end.extend_from_slice(encrypted.bytes());
        let trailer = Trailer {
            directory_len,
            directory_frame: frame,
        };
        end.extend_from_slice(&trailer.encode());
        end
    }
}

/// A block's clear header. Not authenticated by itself: a wrong id or length makes the first frame's tag fail, and the
/// directory holds a hash of all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The block. A commit's object has another name: here its block id is learnt.
    pub id: BlockId,
    /// Length of the first frame, which begins at [`HEADER_LEN`], so that a commit can be read with one ranged GET. 0 in a
    /// block without frames.
    pub first_len: u32,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..24].copy_from_slice(&self.id.to_bytes());
        bytes[24..28].copy_from_slice(&self.first_len.to_le_bytes());
        bytes
    }

    /// Reads the first [`HEADER_LEN`] bytes of an object; what follows them in `bytes` is ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let header: &[u8; HEADER_LEN as usize] = bytes
            .first_chunk()
            .ok_or(Error::Damaged("header is cut short"))?;
        let (fields, _) = header.as_chunks::<4>();
        let [m0, m1, i0, i1, i2, i3, first_len, required, zeros @ ..] = fields else {
            return Err(Error::Damaged("header is cut short"));
        };
        if [*m0, *m1].as_flattened() != HEADER_MAGIC {
            return Err(Error::Damaged("it does not begin like a block"));
        }
        match u32::from_le_bytes(*required) {
            0 => {}
            bits => return Err(Error::NewerFormat(bits.trailing_zeros())),
        }
        if zeros.as_flattened().iter().any(|&byte| byte != 0) {
            return Err(Error::Damaged("reserved bytes of the header are set"));
        }
        let mut id = [0; BlockId::LEN];
        id.copy_from_slice([*i0, *i1, *i2, *i3].as_flattened());
        let first_len = u32::from_le_bytes(*first_len);
        if first_len != 0 && !is_frame_len(first_len) {
            return Err(Error::Damaged("no frame is of the first one's length"));
        }
        Ok(Self {
            id: BlockId::from_bytes(id).ok_or(Error::Damaged("block class is not known"))?,
            first_len,
        })
    }
}

/// A block's clear trailer: where the directory is. A wrong one makes the directory's tag fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Length of the directory frame, which ends where the trailer begins.
    pub directory_len: u32,
    /// Its frame number: the number of frames before it.
    pub directory_frame: FrameNo,
}

impl Trailer {
    pub(super) fn encode(&self) -> [u8; TRAILER_LEN as usize] {
        let mut bytes = [0; TRAILER_LEN as usize];
        bytes[..4].copy_from_slice(&self.directory_len.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.directory_frame.0.to_le_bytes());
        bytes[8..].copy_from_slice(TRAILER_MAGIC);
        bytes
    }

    /// Reads the last [`TRAILER_LEN`] bytes of an object; what stands before them in `bytes` is ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let trailer: &[u8; TRAILER_LEN as usize] = bytes
            .last_chunk()
            .ok_or(Error::Damaged("trailer is cut short"))?;
        let [l0, l1, l2, l3, f0, f1, f2, f3, magic @ ..] = trailer;
        if magic != TRAILER_MAGIC {
            return Err(Error::Damaged("it does not end like a block"));
        }
        let directory_len = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
        let directory_frame = FrameNo(u32::from_le_bytes([*f0, *f1, *f2, *f3]));
        if !is_frame_len(directory_len) || directory_frame.0 > FRAMES_MAX {
            return Err(Error::Damaged("trailer is out of bounds"));
        }
        Ok(Self {
            directory_len,
            directory_frame,
        })
    }

    /// Where the directory frame lies in an object of this length.
    pub fn directory_range(&self, object_len: u64) -> Result<Range<u64>, Error> {
        let end = object_len.checked_sub(TRAILER_LEN);
        let begin = end.and_then(|end| end.checked_sub(self.directory_len.into()));
        match (begin, end) {
            (Some(begin), Some(end)) if begin >= HEADER_LEN => Ok(begin..end),
            _ => Err(Error::Damaged("directory is longer than the object")),
        }
    }
}

/// SHA-256 over header and padding: all bytes of an object that no tag covers, but the trailer.
pub(super) fn hash_clear(header: &[u8], pad: &[u8]) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(header).chain_update(pad);
    hash.finalize().into()
}

/// Whether a frame can take so many bytes in its object.
pub(super) fn is_frame_len(len: u32) -> bool {
    (ENCRYPTED_LEN_MIN..=ENCRYPTED_LEN_MAX).contains(&(len as usize)) && len.is_multiple_of(16)
}

/// The length to which an object of `len` bytes is padded: at most 12 % more, and lengths keep only as many leading
/// bits as their exponent needs (Padme: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files", PETS 2019).
fn padme(len: u64) -> u64 {
    let exponent = len.max(2).ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1u64 << (exponent - kept.min(exponent))) - 1;
    (len + mask) & !mask
}

#[cfg(test)]
mod tests;
