//! A frame's plaintext envelope (`inner` in FORMAT.md): codec, lengths, payload, zeros.
//!
//! Packing makes the very buffer that is then encrypted in place; unpacking trusts nothing that it has not checked, though it is
//! only ever given authentic bytes. Called by the flusher and the tree (pack) and by [`crate::crypto`] (unpack).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::buffers::Buffers;
use crate::compress::{self, Compression};

/// What a frame holds; authenticated with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// File contents: one chunk or several pieces.
    Data = 1,
    /// One tree page.
    Page = 2,
    /// The body of a commit; always frame 0 of its block.
    Commit = 3,
    /// A block's directory of frames.
    Directory = 4,
    /// A key slot or a wrapped volume key.
    Key = 5,
    /// A claim.
    Claim = 6,
    /// A lease.
    Lease = 7,
    /// A condemnation: what is to be deleted.
    Condemnation = 8,
    /// A forwarding map: where moved frames lie.
    Forwarding = 9,
}

impl FrameKind {
    /// Reads the number that stands in a block's directory; `None` if this version knows none such.
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Data,
            2 => Self::Page,
            3 => Self::Commit,
            4 => Self::Directory,
            5 => Self::Key,
            6 => Self::Claim,
            7 => Self::Lease,
            8 => Self::Condemnation,
            9 => Self::Forwarding,
            _ => return None,
        })
    }
}

/// The most plaintext that one frame holds: 1 MiB.
pub const FRAME_PLAIN_MAX: usize = 1 << 20;

/// Length of a frame's IV in bytes.
pub const IV_LEN: usize = 16;
/// Length of a frame's tag in bytes.
pub const TAG_LEN: usize = 32;
/// The shortest frame: IV, one AES block, tag.
pub const ENCRYPTED_LEN_MIN: usize = IV_LEN + 16 + TAG_LEN;
/// The longest frame: that of an uncompressed payload of [`FRAME_PLAIN_MAX`]. Zeros may fill a shorter one up to it.
pub const ENCRYPTED_LEN_MAX: usize = encrypted_len(FIELDS_LEN + FRAME_PLAIN_MAX);

/// Length of the envelope's own fields in bytes.
pub(crate) const FIELDS_LEN: usize = 12;
/// The payload is the plaintext.
const CODEC_PLAIN: u8 = 0;
/// The payload is Zstandard (RFC 8878).
const CODEC_ZSTD: u8 = 1;

/// Plaintext of a frame while it is being gathered, in the buffer that [`Envelope::close`] makes the frame of.
pub struct Plaintext {
    /// Room for IV and envelope fields, then the bytes.
    buffer: Vec<u8>,
}

/// What stands before the payload in a frame's buffer.
const FRONT_LEN: usize = IV_LEN + FIELDS_LEN;

impl Plaintext {
    /// None yet, with room for `capacity` bytes; more may be added.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::in_buffer(Vec::with_capacity(Self::buffer_len(capacity)))
    }

    /// The same in a buffer that was used before.
    pub(crate) fn in_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(FRONT_LEN, 0);
        Self { buffer }
    }

    /// How long a buffer for `capacity` bytes of plaintext is, so that its frame fits it too.
    pub(crate) fn buffer_len(capacity: usize) -> usize {
        encrypted_len(FIELDS_LEN + capacity)
    }

    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What has been added.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[FRONT_LEN..]
    }
}

impl From<&[u8]> for Plaintext {
    fn from(bytes: &[u8]) -> Self {
        let mut plain = Self::with_capacity(bytes.len());
        plain.extend(bytes);
        plain
    }
}

/// Plaintext ready to be encrypted: the envelope with its payload compressed where that helped.
/// Only [`crate::crypto`] consumes it.
pub struct Envelope {
    /// Room for the IV, then the envelope; capacity for padding and tag, so that encryption never copies.
    buffer: Vec<u8>,
    plain_len: usize,
    stored_len: usize,
}

impl Envelope {
    /// Compresses `plain` with `compression` where that saves anything.
    ///
    /// # Panics
    /// If `plain` is longer than [`FRAME_PLAIN_MAX`]: it would be unreadable.
    pub fn pack(plain: &[u8], compression: Compression) -> Self {
        Self::close(plain.into(), compression)
    }

    /// The same for plaintext that lies in its buffer already, which becomes the frame's: what does not compress is not copied.
    ///
    /// # Panics
    /// As [`Self::pack`].
    pub fn close(plain: Plaintext, compression: Compression) -> Self {
        let plain_len = plain.bytes().len();
        assert!(plain_len <= FRAME_PLAIN_MAX, "frames are cut before");
        let Plaintext { mut buffer } = plain;
        let codec = match compress::in_place(&mut buffer, FRONT_LEN, compression) {
            true => CODEC_ZSTD,
            false => CODEC_PLAIN,
        };
        let stored_len = buffer.len() - FRONT_LEN;
        let (_iv, fields) = buffer[..FRONT_LEN].split_at_mut(IV_LEN);
        fields[0] = codec;
        fields[4..8].copy_from_slice(&(stored_len as u32).to_le_bytes());
        fields[8..].copy_from_slice(&(plain_len as u32).to_le_bytes());
        Self {
            buffer,
            plain_len,
            stored_len,
        }
    }

    /// Plaintext length.
    pub fn plain_len(&self) -> usize {
        self.plain_len
    }

    /// Payload length after compression (numerator of ratio C).
    pub fn stored_len(&self) -> usize {
        self.stored_len
    }

    /// Length in the object once encrypted: IV, padded ciphertext, tag. Known before encryption,
    /// so that places can be handed out at once.
    pub fn encrypted_len(&self) -> u32 {
        encrypted_len(self.buffer.len() - IV_LEN) as u32
    }

    /// Appends zeros until the frame will be `encrypted_len` bytes long in its object (FORMAT.md, "Envelope"). For a commit's
    /// body, whose length must be known before what it says of the frames behind it.
    ///
    /// # Panics
    /// If it is longer already, or `encrypted_len` is not the length of any frame.
    pub(crate) fn fill(&mut self, len: u32) {
        let len = len as usize;
        assert!(
            (self.encrypted_len() as usize..=ENCRYPTED_LEN_MAX).contains(&len)
                && len.is_multiple_of(16),
            "callers choose a length that fits"
        );
        if encrypted_len(self.buffer.len() - IV_LEN) < len {
            self.buffer.reserve_exact(len - self.buffer.len());
            self.buffer.resize(len - 16 - TAG_LEN, 0);
        }
    }

    /// [`IV_LEN`] bytes of room and the envelope, with capacity for padding and tag.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Whether a decrypted envelope says that its payload is the plaintext itself, uncompressed.
    pub(crate) fn is_uncompressed(inner: &[u8]) -> bool {
        inner.first() == Some(&CODEC_PLAIN)
    }

    /// The plaintext of a decrypted envelope. Never allocates more than [`FRAME_PLAIN_MAX`] bytes, whatever it claims;
    /// says what is wrong if anything is.
    pub(crate) fn unpack(mut inner: Vec<u8>) -> Result<Vec<u8>, &'static str> {
        let payload = Payload::of(&inner)?;
        if payload.is_compressed {
            return payload.decompress(&inner, Vec::with_capacity(payload.plain_len));
        }
        inner.truncate(payload.range.end);
        inner.drain(..FIELDS_LEN);
        Ok(inner)
    }

    /// The same for an envelope in one of `buffers`, where also what comes out of it lies.
    pub(crate) fn unpack_in(inner: Vec<u8>, buffers: &Arc<Buffers>) -> Result<Bytes, &'static str> {
        let payload = Payload::of(&inner)?;
        if payload.is_compressed {
            let mut plain = buffers.take_filled(payload.plain_len);
            plain.clear();
            let plain = payload.decompress(&inner, plain)?;
            buffers.give(inner);
            return Ok(buffers.lend(plain));
        }
        Ok(buffers.lend(inner).slice(payload.range))
    }
}

/// What the fields of a decrypted envelope say of the rest, which agrees.
struct Payload {
    range: Range<usize>,
    is_compressed: bool,
    plain_len: usize,
}

impl Payload {
    fn of(inner: &[u8]) -> Result<Self, &'static str> {
        let (fields, rest) = inner
            .split_first_chunk::<FIELDS_LEN>()
            .ok_or("envelope is too short")?;
        let [codec, z0, z1, z2, s0, s1, s2, s3, p0, p1, p2, p3] = *fields;
        let stored = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let plain_len = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
        if [z0, z1, z2] != [0; 3] {
            return Err("reserved bytes of the envelope are set");
        }
        if plain_len > FRAME_PLAIN_MAX {
            return Err("plaintext is longer than a frame may hold");
        }
        let (_, zeros) = rest
            .split_at_checked(stored)
            .ok_or("payload is longer than its envelope")?;
        if zeros.iter().any(|&byte| byte != 0) {
            return Err("bytes after the payload are not zero");
        }
        let is_compressed = match codec {
            CODEC_PLAIN if stored != plain_len => {
                return Err("lengths of an uncompressed payload differ");
            }
            CODEC_PLAIN => false,
            CODEC_ZSTD => true,
            _ => return Err("codec is not known"),
        };
        Ok(Self {
            range: FIELDS_LEN..FIELDS_LEN + stored,
            is_compressed,
            plain_len,
        })
    }

    /// Decompresses it into `plain`, which is empty and has the room.
    fn decompress(&self, inner: &[u8], plain: Vec<u8>) -> Result<Vec<u8>, &'static str> {
        compress::decompress(&inner[self.range.clone()], self.plain_len, plain)
            .ok_or("payload does not decompress to its stated length")
    }
}

/// Length of a frame in its object, given that of its envelope: IV, whole blocks with PKCS#7 padding, tag.
const fn encrypted_len(inner_len: usize) -> usize {
    IV_LEN + (inner_len / 16 + 1) * 16 + TAG_LEN
}

/// Length of a frame whose payload is `plain_len` bytes of plaintext as they are.
pub(crate) fn uncompressed_len(plain_len: usize) -> u32 {
    encrypted_len(FIELDS_LEN + plain_len) as u32
}

#[cfg(test)]
mod tests;
