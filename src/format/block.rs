//! The layout of a block: header, frames, padding, directory of frames, trailer. Pure.

use crate::crypto::Ciphertext;
use crate::format::frame::{Envelope, FrameKind};
use crate::id::{BlockId, FrameNo};

/// Length of a block's clear header in bytes.
pub const HEADER_LEN: u64 = 64;

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

/// Hands out places while a block is being filled; knows nothing of keys.
pub struct BlockLayout {/* id, next frame, next offset, directory, plaintext so far */}

impl BlockLayout {
    /// An empty block.
    pub fn new(_id: BlockId) -> Self {
        todo!()
    }
    /// Adds a frame at the end and says where it will lie.
    pub fn add(&mut self, _kind: FrameKind, _envelope: &Envelope) -> FramePlace {
        todo!()
    }
    /// The same for a frame whose envelope has been consumed already: only its lengths matter.
    pub(crate) fn add_lengths(
        &mut self,
        _kind: FrameKind,
        _plain_len: usize,
        _encrypted_len: u32,
    ) -> FramePlace {
        todo!()
    }
    /// Frames so far.
    pub fn frames(&self) -> u32 {
        todo!()
    }
    /// Plaintext bytes so far (a block holds at most its repository's block size).
    pub fn plain_len(&self) -> u64 {
        todo!()
    }
    /// Bytes of object so far: header and frames.
    pub fn object_len(&self) -> u64 {
        todo!()
    }
    /// The 64 clear bytes at the beginning.
    pub fn header(&self) -> [u8; HEADER_LEN as usize] {
        todo!()
    }
    /// The end of the object: random Padme padding, the directory frame (encrypted by `encrypt`), the trailer.
    pub fn finish(self, _encrypt: impl FnOnce(FrameNo, Envelope) -> Ciphertext) -> Vec<u8> {
        todo!()
    }
}
