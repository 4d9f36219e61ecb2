//! Encrypt-then-MAC of whole frames: envelope, AES-CBC, tag. FORMAT.md, "Frame".
//!
//! Both directions side by side. Used for the frames of blocks ([`BlockCipher`]), for objects that are one frame, and for wrapped keys.

use std::sync::Arc;

use bytes::Bytes;

use crate::buffers::Buffers;
use crate::crypto::cipher::{AES_BLOCK_LEN, Cbc};
use crate::crypto::kdf;
use crate::crypto::mac::{FrameContext, FrameMac};
use crate::crypto::{AesKeyLen, Ciphertext, Error};
use crate::format::frame::{
    ENCRYPTED_LEN_MAX, ENCRYPTED_LEN_MIN, Envelope, FrameKind, IV_LEN, TAG_LEN,
};
use crate::id::{BlockId, FrameNo, ObjectKey, RepositoryId, VolumeId};

const _: () = assert!(IV_LEN == AES_BLOCK_LEN, "CBC's IV is one block");

/// Encrypts and decrypts the frames of one block, under that block's own two keys. Cheap to make (about 2 us).
pub struct BlockCipher {
    id: BlockId,
    /// Absent when the volume has no key of the block's key epoch: then nothing of the block can be read.
    frames: Option<FrameCipher>,
}

impl BlockCipher {
    pub(super) fn new(id: BlockId, frames: Option<FrameCipher>) -> Self {
        Self { id, frames }
    }

    /// Encrypts frames `first`, `first + 1`, ... of the block, eight side by side. `object` is given for
    /// kinds whose object name is authenticated (commits). The more frames in one call, the faster.
    ///
    /// # Panics
    /// If the block's id carries a key epoch that its volume has no key of: ids of new blocks carry
    /// [`VolumeKeys::key_epoch`](crate::crypto::VolumeKeys::key_epoch).
    pub fn encrypt(
        &self,
        first: FrameNo,
        kind: FrameKind,
        object: Option<&ObjectKey>,
        frames: Vec<Envelope>,
    ) -> Vec<Ciphertext> {
        let cipher = self.frames.as_ref();
        cipher
            .expect("new blocks are named with the volume's own key epoch")
            .encrypt(first, kind, object, frames)
    }

    /// Verifies, decrypts, decompresses one frame. Nothing is decrypted before the tag has been found right.
    pub fn decrypt(
        &self,
        frame: FrameNo,
        kind: FrameKind,
        object: Option<&ObjectKey>,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.cipher()?.decrypt(frame, kind, object, bytes)
    }

    /// The same in one of `buffers`, and whether the plaintext lies in the frame as it is.
    pub fn open(
        &self,
        frame: FrameNo,
        kind: FrameKind,
        object: Option<&ObjectKey>,
        bytes: &[u8],
        buffers: &Arc<Buffers>,
    ) -> Result<Opened, Error> {
        self.cipher()?.open(frame, kind, object, bytes, buffers)
    }

    fn cipher(&self) -> Result<&FrameCipher, Error> {
        let cipher = self.frames.as_ref();
        cipher.ok_or(Error::NoKey(self.id.key_epoch))
    }
}

/// A frame that has been proven and decrypted.
pub struct Opened {
    /// Its plaintext.
    pub plain: Bytes,
    /// Whether that is what was encrypted, and not compressed before.
    pub is_uncompressed: bool,
}

/// A pair of keys with the context that they are used in.
pub(super) struct FrameCipher {
    repository: RepositoryId,
    volume: VolumeId,
    block: [u8; BlockId::LEN],
    suite: AesKeyLen,
    cbc: Cbc,
    mac: FrameMac,
}

/// What frames belong to, beside their own number, kind and object.
#[derive(Clone, Copy)]
pub(super) struct Scope {
    pub(super) repository: RepositoryId,
    pub(super) volume: VolumeId,
    /// The block's name; for frames outside blocks what FORMAT.md puts there.
    pub(super) block: [u8; BlockId::LEN],
}

impl FrameCipher {
    pub(super) fn new(scope: Scope, suite: AesKeyLen, keys: &kdf::KeyPair) -> Self {
        Self {
            repository: scope.repository,
            volume: scope.volume,
            block: scope.block,
            suite,
            cbc: Cbc::new(suite, &keys.encryption),
            mac: FrameMac::new(&keys.mac),
        }
    }

    fn context<'a>(
        &self,
        frame: FrameNo,
        kind: FrameKind,
        object: Option<&'a ObjectKey>,
    ) -> FrameContext<'a> {
        FrameContext {
            repository: self.repository,
            volume: self.volume,
            block: self.block,
            frame,
            kind,
            suite: self.suite,
            object,
        }
    }

    pub(super) fn encrypt(
        &self,
        first: FrameNo,
        kind: FrameKind,
        object: Option<&ObjectKey>,
        frames: Vec<Envelope>,
    ) -> Vec<Ciphertext> {
        let mut buffers: Vec<Vec<u8>> = frames.into_iter().map(pad).collect();
        let mut ivs = vec![0; buffers.len() * IV_LEN];
        super::fill_random(&mut ivs);
        for (buffer, iv) in buffers.iter_mut().zip(ivs.chunks_exact(IV_LEN)) {
            buffer[..IV_LEN].copy_from_slice(iv);
        }
        let mut lanes: Vec<&mut [u8]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
        self.cbc.encrypt(&mut lanes);
        let contexts = (first.0..).map(|number| self.context(FrameNo(number), kind, object));
        let frames: Vec<_> = contexts.zip(buffers.iter().map(Vec::as_slice)).collect();
        let tags = self.mac.tags(&frames);
        buffers
            .into_iter()
            .zip(tags)
            .map(|(mut buffer, tag)| {
                buffer.extend_from_slice(&tag.0);
                Ciphertext(Bytes::from(buffer))
            })
            .collect()
    }

    /// One frame alone, of an object that is nothing else.
    pub(super) fn encrypt_one(
        &self,
        kind: FrameKind,
        object: &ObjectKey,
        frame: Envelope,
    ) -> Ciphertext {
        let mut frames = self.encrypt(FrameNo(0), kind, Some(object), vec![frame]);
        frames.pop().expect("as many frames come out as went in")
    }

    pub(super) fn decrypt(
        &self,
        frame: FrameNo,
        kind: FrameKind,
        object: Option<&ObjectKey>,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let context = self.context(frame, kind, object);
        let inner = self.envelope(&context, bytes, |_| Vec::new())?;
        Envelope::unpack(inner).map_err(Error::Malformed)
    }

    fn open(
        &self,
        frame: FrameNo,
        kind: FrameKind,
        object: Option<&ObjectKey>,
        bytes: &[u8],
        buffers: &Arc<Buffers>,
    ) -> Result<Opened, Error> {
        let context = self.context(frame, kind, object);
        let inner = self.envelope(&context, bytes, |len| buffers.take_filled(len))?;
        let is_uncompressed = Envelope::is_uncompressed(&inner);
        let plain = Envelope::unpack_in(inner, buffers).map_err(Error::Malformed)?;
        Ok(Opened {
            plain,
            is_uncompressed,
        })
    }

    /// Proves a frame, then decrypts it into the buffer that it is given, whatever that holds.
    fn envelope(
        &self,
        context: &FrameContext<'_>,
        bytes: &[u8],
        buffer: impl FnOnce(usize) -> Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        if !(ENCRYPTED_LEN_MIN..=ENCRYPTED_LEN_MAX).contains(&bytes.len()) {
            return Err(Error::Unauthentic);
        }
        let (iv_and_ciphertext, tag) = bytes.split_at(bytes.len() - TAG_LEN);
        if !self.mac.fits(context, iv_and_ciphertext, tag) {
            return Err(Error::Unauthentic);
        }
        let (iv, ciphertext) = iv_and_ciphertext
            .split_first_chunk()
            .ok_or(Error::Unauthentic)?;
        self.cbc
            .decrypt(iv, ciphertext, buffer(ciphertext.len()))
            .ok_or(Error::Malformed("padding"))
    }
}

/// PKCS#7 (RFC 5652, section 6.3): always at least one byte.
fn pad(envelope: Envelope) -> Vec<u8> {
    let mut buffer = envelope.into_buffer();
    let padding = AES_BLOCK_LEN - buffer.len() % AES_BLOCK_LEN;
    buffer.resize(buffer.len() + padding, padding as u8);
    buffer
}
