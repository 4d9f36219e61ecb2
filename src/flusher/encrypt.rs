//! The encrypt stage: frames of one block, up to eight side by side. A plain function without I/O.

use crate::compress::Compression;
use crate::crypto::{Ciphertext, VolumeKeys};
use crate::flusher::spool::FrameBytes;
use crate::format::frame::{Envelope, FrameKind, Plaintext};
use crate::id::{BlockId, FrameNo};

/// Frames encrypted by one call: the lanes that the cipher runs side by side.
pub(crate) const BATCH_FRAMES: usize = 8;

/// Plaintext of consecutive frames of one data block.
pub(crate) struct Batch {
    /// Its place among all batches, from 0 without gaps.
    pub(crate) order: u64,
    /// The block.
    pub(crate) block: BlockId,
    /// Number of the first frame.
    pub(crate) first: FrameNo,
    /// At most [`BATCH_FRAMES`]; may be empty when it only ends its block.
    pub(crate) frames: Vec<Plaintext>,
    /// Whether the block ends here.
    pub(crate) last: bool,
}

/// The same, ready for the spool.
pub(crate) struct EncryptedBatch {
    /// As in [`Batch`].
    pub(crate) order: u64,
    /// As in [`Batch`].
    pub(crate) block: BlockId,
    /// Each frame with its lengths, which the block's layout needs.
    pub(crate) frames: Vec<(FrameBytes, Ciphertext)>,
    /// As in [`Batch`].
    pub(crate) last: bool,
}

/// Compresses and encrypts a batch. Plaintext is freed frame by frame.
pub(crate) fn encrypt(batch: Batch, keys: &VolumeKeys, compression: Compression) -> EncryptedBatch {
    let Batch {
        order,
        block,
        first,
        frames,
        last,
    } = batch;
    let envelopes: Vec<Envelope> = frames
        .into_iter()
        .map(|plain| Envelope::close(plain, compression))
        .collect();
    let lengths: Vec<FrameBytes> = envelopes.iter().map(FrameBytes::of).collect();
    let ciphertexts = match envelopes.is_empty() {
        true => Vec::new(),
        false => keys
            .block(block)
            .encrypt(first, FrameKind::Data, None, envelopes),
    };
    debug_assert_eq!(lengths.len(), ciphertexts.len());
    EncryptedBatch {
        order,
        block,
        frames: lengths.into_iter().zip(ciphertexts).collect(),
        last,
    }
}
