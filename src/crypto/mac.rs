//! The tag of a frame: HMAC-SHA-256 (RFC 2104) over everything that gives the frame its meaning, then IV and ciphertext.
//! FORMAT.md, "Frame". Called by [`crate::crypto::BlockCipher`] and its siblings only.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::crypto::{AesKeyLen, MacKey};
use crate::format::frame::FrameKind;
use crate::id::{BlockId, FrameNo, ObjectKey, RepositoryId, Tag, VolumeId};

/// Begins the MAC input, so that a tag made for anything else can never be taken for a frame's.
const MAGIC: &[u8; 8] = b"RWFSfrm1";
/// Bytes of MAC input before the IV.
const CONTEXT_LEN: usize = 100;

/// What a frame is and where it belongs. All of it is authenticated, none of it stands in the frame.
#[derive(Clone, Copy)]
pub(super) struct FrameContext<'a> {
    pub(super) repository: RepositoryId,
    pub(super) volume: VolumeId,
    /// The block's name, or what stands for it outside blocks.
    pub(super) block: [u8; BlockId::LEN],
    pub(super) frame: FrameNo,
    pub(super) kind: FrameKind,
    pub(super) suite: AesKeyLen,
    pub(super) object: Option<&'a ObjectKey>,
}

impl FrameContext<'_> {
    fn encode(&self, ciphertext_len: u32) -> [u8; CONTEXT_LEN] {
        let object = self.object.map_or([0; 32], |name| {
            Sha256::digest(name.as_str().as_bytes()).into()
        });
        let parts: [&[u8]; 10] = [
            MAGIC,
            &self.repository.0,
            &self.volume.0,
            &self.block,
            &self.frame.0.to_le_bytes(),
            &[self.kind as u8],
            &[self.suite as u8],
            &0u16.to_le_bytes(),
            &ciphertext_len.to_le_bytes(),
            &object,
        ];
        let mut bytes = [0; CONTEXT_LEN];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        debug_assert_eq!(at, CONTEXT_LEN);
        bytes
    }
}

/// A keyed MAC. The key's two hash states are computed once and wiped on drop.
#[derive(Clone)]
pub(super) struct FrameMac(Hmac<Sha256>);

impl FrameMac {
    pub(super) fn new(key: &MacKey) -> Self {
        Self(Hmac::new_from_slice(&*key.0).expect("HMAC takes keys of any length"))
    }

    /// The tag of an IV and a ciphertext.
    pub(super) fn tag(&self, context: &FrameContext<'_>, iv_and_ciphertext: &[u8]) -> Tag {
        let tag = self.fed(context, iv_and_ciphertext).finalize();
        Tag(tag.into_bytes().into())
    }

    /// Whether `tag` is that of this IV and ciphertext, in constant time.
    pub(super) fn fits(
        &self,
        context: &FrameContext<'_>,
        iv_and_ciphertext: &[u8],
        tag: &[u8],
    ) -> bool {
        let mac = self.fed(context, iv_and_ciphertext);
        mac.verify_slice(tag).is_ok()
    }

    fn fed(&self, context: &FrameContext<'_>, iv_and_ciphertext: &[u8]) -> Hmac<Sha256> {
        let ciphertext_len = iv_and_ciphertext.len() - super::cipher::AES_BLOCK_LEN;
        let ciphertext_len = u32::try_from(ciphertext_len).expect("frames are of bounded length");
        let mut mac = self.0.clone();
        mac.update(&context.encode(ciphertext_len));
        mac.update(iv_and_ciphertext);
        mac
    }
}
