//! Places and commit names as they stand in extents, in inner pages and in commits.

use crate::clock::Stamp;
use crate::format::entry::{Address, CommitName, Hint, Malformed, Place};
use crate::format::frame::FRAME_PLAIN_MAX;
use crate::format::wire::{Reader, put_varint, whole};
use crate::id::{BlockId, Era, FrameNo, Seq, SessionId};

/// The hint names a commit.
const IN_COMMIT: u8 = 1;

impl CommitName {
    /// Length in bytes.
    pub const LEN: usize = 28;

    /// Era, stamp, sequence number, session; little-endian.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.era.0.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.stamp.0.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.session.0);
        bytes
    }

    pub(in crate::format) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            era: Era(reader.u32()?),
            stamp: Stamp(reader.u64()?),
            seq: Seq(reader.u64()?),
            session: SessionId(reader.array()?),
        })
    }
}

impl Place {
    /// Appends its bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.hint.commit.is_some()) * IN_COMMIT);
        out.extend_from_slice(&self.at.block.to_bytes());
        put_varint(out, self.at.frame.0.into());
        put_varint(out, self.at.inner.into());
        put_varint(out, self.hint.offset);
        put_varint(out, self.hint.len.into());
        if let Some(commit) = &self.hint.commit {
            out.extend_from_slice(&commit.to_bytes());
        }
    }

    /// Its bytes: the value of an inner page's entry.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        self.encode_into(&mut out);
        out
    }

    /// Reads [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        whole(bytes, Self::read).ok_or(Malformed("place"))
    }

    pub(in crate::format) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let flags = reader.u8()?;
        if flags & !IN_COMMIT != 0 {
            return None;
        }
        let at = Address {
            block: BlockId::from_bytes(reader.array()?)?,
            frame: FrameNo(reader.varint_u32()?),
            inner: reader.varint_u32()?,
        };
        let hint = Hint {
            offset: reader.varint()?,
            len: reader.varint_u32()?,
            commit: match flags {
                IN_COMMIT => Some(CommitName::read(reader)?),
                _ => None,
            },
        };
        // An offset at the very end would name no byte.
        ((at.inner as usize) < FRAME_PLAIN_MAX).then_some(Self { at, hint })
    }
}
