//! AES-CBC over several frames at once. Encryption only: no padding, no authentication, no formats.
//!
//! CBC is serial within one frame: each block waits for the one before, and the processor's AES units stand idle meanwhile.
//! Frames do not wait for each other, so eight of them go side by side through the cipher's block-closure interface, which
//! keeps the round keys in registers. Decryption is parallel by nature and left to the `cbc` crate.
//!
//! Called by [`crate::crypto::BlockCipher`]; public only so that `scripts/bench/cipher.rs` can measure it without the MAC.

use aes::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt,
    BlockModeDecrypt, BlockSizeUser, InnerIvInit, KeyInit, block_padding::Pkcs7, consts::U16,
};
use aes::{Aes128, Aes192, Aes256};

use crate::crypto::{AesKeyLen, EncryptionKey};

/// Length of an AES block and of an IV in bytes.
pub const AES_BLOCK_LEN: usize = 16;

/// Frames encrypted side by side: AES latency times throughput of current processors. More spill registers and slow down
/// again (measured: 2, 4, 8, 16 lanes give 1.5, 3.0, 5.5, 3.2 GB/s).
const LANES: usize = 8;

type AesBlock = Array<u8, U16>;

/// An expanded AES key, to be used in CBC mode. Wiped on drop.
pub enum Cbc {
    /// With a key of 128 bits.
    Aes128(Aes128),
    /// With a key of 192 bits.
    Aes192(Aes192),
    /// With a key of 256 bits.
    Aes256(Aes256),
}

impl Cbc {
    /// Expands the first 16, 24 or 32 bytes of `key`.
    pub fn new(len: AesKeyLen, key: &EncryptionKey) -> Self {
        let [k @ .., _, _, _, _, _, _, _, _] = &*key.0;
        let k192: &[u8; 24] = k;
        let [k @ .., _, _, _, _, _, _, _, _] = k192;
        let k128: &[u8; 16] = k;
        match len {
            AesKeyLen::Aes128 => Self::Aes128(Aes128::new(k128.into())),
            AesKeyLen::Aes192 => Self::Aes192(Aes192::new(k192.into())),
            AesKeyLen::Aes256 => Self::Aes256(Aes256::new((&*key.0).into())),
        }
    }

    /// Encrypts frames in place. Each is an IV, which stays, and whole blocks of padded plaintext; lengths may differ.
    pub fn encrypt(&self, frames: &mut [&mut [u8]]) {
        match self {
            Self::Aes128(aes) => encrypt_side_by_side(aes, frames),
            Self::Aes192(aes) => encrypt_side_by_side(aes, frames),
            Self::Aes256(aes) => encrypt_side_by_side(aes, frames),
        }
    }

    /// Decrypts into `plain`, whatever that holds, and takes off the PKCS#7 padding; `None` if there is none or no whole number of blocks.
    /// Call it only after the tag was verified: what it tells about the padding is then no secret.
    pub fn decrypt(
        &self,
        iv: &[u8; AES_BLOCK_LEN],
        ciphertext: &[u8],
        plain: Vec<u8>,
    ) -> Option<Vec<u8>> {
        match self {
            Self::Aes128(aes) => decrypt_chain(aes, iv, ciphertext, plain),
            Self::Aes192(aes) => decrypt_chain(aes, iv, ciphertext, plain),
            Self::Aes256(aes) => decrypt_chain(aes, iv, ciphertext, plain),
        }
    }
}

impl Cbc {
    /// Decrypts whole blocks of a chain in place, of which `before` is the one in front; `None` if they are not whole. What padding there is
    /// stays.
    pub fn decrypt_blocks(&self, before: &[u8; AES_BLOCK_LEN], blocks: &mut [u8]) -> Option<()> {
        match self {
            Self::Aes128(aes) => decrypt_blocks(aes, before, blocks),
            Self::Aes192(aes) => decrypt_blocks(aes, before, blocks),
            Self::Aes256(aes) => decrypt_blocks(aes, before, blocks),
        }
    }
}

fn decrypt_blocks<C>(aes: &C, before: &[u8; AES_BLOCK_LEN], blocks: &mut [u8]) -> Option<()>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    let (blocks, rest) = AesBlock::slice_as_chunks_mut(blocks);
    if !rest.is_empty() {
        return None;
    }
    cbc::Decryptor::inner_iv_init(aes, before.into()).decrypt_blocks(blocks);
    Some(())
}

fn decrypt_chain<C>(
    aes: &C,
    iv: &[u8; AES_BLOCK_LEN],
    ciphertext: &[u8],
    mut plain: Vec<u8>,
) -> Option<Vec<u8>>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    plain.resize(ciphertext.len(), 0);
    let len = cbc::Decryptor::inner_iv_init(aes, iv.into())
        .decrypt_padded_b2b::<Pkcs7>(ciphertext, &mut plain)
        .ok()?
        .len();
    plain.truncate(len);
    Some(plain)
}

/// One frame on its way: the block that the next one is chained to, and what is still plain.
struct Lane<'a> {
    chain: AesBlock,
    rest: &'a mut [AesBlock],
}

impl<'a> Lane<'a> {
    fn new(frame: &'a mut [u8]) -> Option<Self> {
        let (blocks, tail) = AesBlock::slice_as_chunks_mut(frame);
        assert!(tail.is_empty(), "frames are padded before they come here");
        let (iv, rest) = blocks.split_first_mut()?;
        (!rest.is_empty()).then_some(Self { chain: *iv, rest })
    }
}

/// Keeps up to [`LANES`] frames going until the shortest of them ends, puts the next into its place, and so on. The
/// longest begin, so that no long one is left over to run alone at the end.
fn encrypt_side_by_side<C>(aes: &C, frames: &mut [&mut [u8]])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let mut waiting: Vec<_> = frames.iter_mut().filter_map(|f| Lane::new(f)).collect();
    waiting.sort_by_key(|lane| lane.rest.len());
    let mut lanes: Vec<Lane<'_>> = Vec::with_capacity(LANES);
    loop {
        while lanes.len() < LANES
            && let Some(lane) = waiting.pop()
        {
            lanes.push(lane);
        }
        match lanes.len() {
            0 => return,
            1 => advance::<1, C>(aes, &mut lanes),
            2 => advance::<2, C>(aes, &mut lanes),
            3 => advance::<3, C>(aes, &mut lanes),
            4 => advance::<4, C>(aes, &mut lanes),
            5 => advance::<5, C>(aes, &mut lanes),
            6 => advance::<6, C>(aes, &mut lanes),
            7 => advance::<7, C>(aes, &mut lanes),
            _ => advance::<LANES, C>(aes, &mut lanes),
        }
        lanes.retain(|lane| !lane.rest.is_empty());
    }
}

/// Encrypts as many blocks of each of the `N` lanes as the shortest of them still has.
fn advance<const N: usize, C>(aes: &C, lanes: &mut [Lane<'_>])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let steps = lanes.iter().map(|lane| lane.rest.len()).min().unwrap_or(0);
    let mut chains: [AesBlock; N] = std::array::from_fn(|n| lanes[n].chain);
    let mut rest = lanes.iter_mut();
    let blocks: [&mut [AesBlock]; N] = std::array::from_fn(|_| {
        let lane = rest.next().expect("the caller chose N by their number");
        let (now, later) = std::mem::take(&mut lane.rest).split_at_mut(steps);
        lane.rest = later;
        now
    });
    aes.encrypt_with_backend(Interleaved {
        steps,
        chains: &mut chains,
        blocks,
    });
    for (lane, chain) in lanes.iter_mut().zip(chains) {
        lane.chain = chain;
    }
}

/// `N` chains, one block of each in turn, run where the cipher's instructions are enabled.
struct Interleaved<'a, const N: usize> {
    steps: usize,
    chains: &'a mut [AesBlock; N],
    blocks: [&'a mut [AesBlock]; N],
}

impl<const N: usize> BlockSizeUser for Interleaved<'_, N> {
    type BlockSize = U16;
}

impl<const N: usize> BlockCipherEncClosure for Interleaved<'_, N> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let Self {
            steps,
            chains,
            mut blocks,
        } = self;
        for step in 0..steps {
            for (lane, chain) in blocks.iter_mut().zip(chains.iter_mut()) {
                let mut block = xor(&lane[step], chain);
                backend.encrypt_block((&mut block).into());
                *chain = block;
                lane[step] = block;
            }
        }
    }
}

#[inline(always)]
fn xor(a: &AesBlock, b: &AesBlock) -> AesBlock {
    let mixed = u128::from_le_bytes(a.0) ^ u128::from_le_bytes(b.0);
    Array(mixed.to_le_bytes())
}
