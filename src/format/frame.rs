//! A frame's plaintext envelope (`inner` in FORMAT.md): codec, lengths, payload, zeros.

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

/// The most plaintext that one frame holds: 1 MiB.
pub const FRAME_PLAIN_MAX: usize = 1 << 20;

/// Plaintext ready to be encrypted: the envelope with its payload compressed where that helped.
/// Only [`crate::crypto`] consumes it.
pub struct Envelope(pub(crate) Vec<u8>);

impl Envelope {
    /// Compresses `plain` (at most [`FRAME_PLAIN_MAX`] bytes) with `compression` where that saves anything.
    pub fn pack(_plain: &[u8], _compression: crate::compress::Compression) -> Self {
        todo!()
    }
    /// Plaintext length.
    pub fn plain_len(&self) -> usize {
        todo!()
    }
    /// Payload length after compression (numerator of ratio C).
    pub fn stored_len(&self) -> usize {
        todo!()
    }
    /// Length in the object once encrypted: IV, padded ciphertext, tag. Known before encryption,
    /// so that places can be handed out at once.
    pub fn encrypted_len(&self) -> u32 {
        todo!()
    }
}
