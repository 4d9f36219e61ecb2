//! The directory of a block: a frame that says what frames lie where, and vouches for the bytes that no tag covers.
//! FORMAT.md, "Directory". Written by [`BlockLayout`](crate::format::block::BlockLayout); read by `check`, `debug`, and
//! whoever looks for a frame that an address's hint no longer finds.

use std::ops::Range;

use crate::crypto::BlockCipher;
use crate::format::block::{
    Error, FRAMES_MAX, FramePlace, HEADER_LEN, TRAILER_LEN, Trailer, hash_clear, is_frame_len,
};
use crate::format::frame::{self, FrameKind};
use crate::id::{BlockId, FrameNo};

/// Hash of the clear bytes, object length, number of entries.
const FIXED_LEN: usize = 32 + 8 + 4;
/// Block id, frame, offset, length, kind, zeros.
const ENTRY_LEN: usize = 16 + 4 + 8 + 4 + 4;

const _: () = assert!(
    FIXED_LEN + FRAMES_MAX as usize * ENTRY_LEN <= frame::FRAME_PLAIN_MAX,
    "the directory of a full block is one frame"
);

/// One frame as a block's directory names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// The block that the frame was written into, whose key it has. Another than the object's own after a repack.
    pub block: BlockId,
    /// Its place in this object, and its number in the block that it was written into.
    pub place: FramePlace,
    /// What it holds.
    pub kind: FrameKind,
}

/// A block's directory, decoded and authenticated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    clear_hash: [u8; 32],
    entries: Vec<DirectoryEntry>,
    pad: Range<u64>,
}

impl Directory {
    /// Decrypts and checks the directory: `bytes` are those of [`Trailer::directory_range`].
    pub fn open(
        bytes: &[u8],
        trailer: &Trailer,
        object_len: u64,
        cipher: &BlockCipher,
    ) -> Result<Self, Error> {
        let frame = trailer.directory_frame;
        let plain = cipher.decrypt(frame, FrameKind::Directory, None, bytes)?;
        let pad_end = trailer.directory_range(object_len)?.start;
        decode(&plain, pad_end)
    }

    /// The frames, in the order in which they lie, without gaps from the end of the header on.
    pub fn entries(&self) -> &[DirectoryEntry] {
        &self.entries
    }

    /// Where the padding lies: after the last frame.
    pub fn pad(&self) -> Range<u64> {
        self.pad.clone()
    }

    /// Whether these are the header and the padding that were written: the only bytes of the object, beside the trailer, that
    /// stand under no tag. With this, the tags of all frames and the directory's own, every byte is proven.
    pub fn verify_clear(&self, header: &[u8], pad: &[u8]) -> Result<(), Error> {
        if hash_clear(header, pad) != self.clear_hash {
            return Err(Error::Damaged("header or padding"));
        }
        Ok(())
    }
}

/// Length of the directory frame of a block of so many frames.
pub(super) fn encrypted_len(entries: usize) -> u32 {
    frame::uncompressed_len(FIXED_LEN + entries * ENTRY_LEN)
}

pub(super) fn encode(
    clear_hash: &[u8; 32],
    object_len: u64,
    entries: &[DirectoryEntry],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED_LEN + entries.len() * ENTRY_LEN);
    bytes.extend_from_slice(clear_hash);
    bytes.extend_from_slice(&object_len.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        bytes.extend_from_slice(&entry.block.to_bytes());
        bytes.extend_from_slice(&entry.place.frame.0.to_le_bytes());
        bytes.extend_from_slice(&entry.place.offset.to_le_bytes());
        bytes.extend_from_slice(&entry.place.len.to_le_bytes());
        bytes.extend_from_slice(&[entry.kind as u8, 0, 0, 0]);
    }
    bytes
}

/// `pad_end` is where the directory frame begins in the object.
pub(super) fn decode(plain: &[u8], pad_end: u64) -> Result<Directory, Error> {
    const MALFORMED: Error = Error::Damaged("its directory is malformed");
    let (fixed, rest) = plain.split_first_chunk::<FIXED_LEN>().ok_or(MALFORMED)?;
    let (clear_hash, counts) = fixed.split_first_chunk::<32>().ok_or(MALFORMED)?;
    let (object_len, count) = counts.split_first_chunk::<8>().ok_or(MALFORMED)?;
    let count = u32::from_le_bytes(count.try_into().map_err(|_| MALFORMED)?);
    let (entries, tail) = rest.as_chunks::<ENTRY_LEN>();
    if !tail.is_empty() || entries.len() as u64 != u64::from(count) || count > FRAMES_MAX {
        return Err(MALFORMED);
    }
    let end_len = u64::from(encrypted_len(entries.len())) + TRAILER_LEN;
    if Some(u64::from_le_bytes(*object_len)) != pad_end.checked_add(end_len) {
        return Err(Error::Damaged("its length is not what its directory says"));
    }
    let mut end = HEADER_LEN;
    let mut decoded = Vec::with_capacity(entries.len());
    for bytes in entries {
        let entry = decode_entry(bytes).ok_or(MALFORMED)?;
        if entry.place.offset != end || !is_frame_len(entry.place.len) {
            return Err(MALFORMED);
        }
        end += u64::from(entry.place.len);
        decoded.push(entry);
    }
    if end > pad_end {
        return Err(MALFORMED);
    }
    Ok(Directory {
        clear_hash: *clear_hash,
        entries: decoded,
        pad: end..pad_end,
    })
}

fn decode_entry(bytes: &[u8; ENTRY_LEN]) -> Option<DirectoryEntry> {
    let (block, rest) = bytes.split_first_chunk()?;
    let (frame, rest) = rest.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let [kind, 0, 0, 0] = rest else {
        return None;
    };
    Some(DirectoryEntry {
        block: BlockId::from_bytes(*block)?,
        place: FramePlace {
            frame: FrameNo(u32::from_le_bytes(*frame)),
            offset: u64::from_le_bytes(*offset),
            len: u32::from_le_bytes(*len),
        },
        kind: FrameKind::from_u8(*kind)?,
    })
}
