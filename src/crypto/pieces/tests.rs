//! What is cut comes back, whole and in pieces; and nothing that is not exactly that.

use super::*;
use crate::compress::Compression;
use crate::crypto::VolumeKeys;
use crate::format::frame::Envelope;
use crate::id::{BlockClass, BlockId, SessionId};

fn block(number: u32) -> BlockId {
    BlockId {
        key_epoch: 0,
        class: BlockClass::Data,
        session: SessionId([7; 8]),
        number,
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

const FRAME: FrameNo = FrameNo(3);
const KIND: FrameKind = FrameKind::Data;

/// A frame of block 1 that holds `plain`, filled up with as many zeros.
fn frame(plain: &[u8], zeros: u32) -> Vec<u8> {
    let mut envelope = Envelope::pack(plain, Compression::Off);
    let len = envelope.encrypted_len() + zeros;
    envelope.fill(len);
    let cipher = VolumeKeys::for_tests().block(block(1));
    let frames = cipher.encrypt(FRAME, KIND, None, vec![envelope]);
    frames[0].bytes().to_vec()
}

/// Reads `wanted` as the disk cache does.
fn open(cut: &[u8], frame_len: u32, wanted: Range<usize>) -> Option<Vec<u8>> {
    let stretch = Stretch::of(frame_len, wanted)?;
    let bytes = &cut[stretch.bytes.start as usize..stretch.bytes.end as usize];
    let cipher = VolumeKeys::for_tests().pieces(block(1))?;
    cipher.open(FRAME, KIND, &stretch, bytes)
}

fn cut(frame: &[u8], plain_len: usize) -> Vec<u8> {
    let cipher = VolumeKeys::for_tests().pieces(block(1)).unwrap();
    let mut cut = Vec::new();
    cipher.cut(FRAME, KIND, frame, plain_len, &mut cut).unwrap();
    cut
}

#[test]
fn what_was_cut_comes_back_whole_and_in_pieces() {
    for len in [
        1,
        4096,
        BODY_LEN - 13,
        BODY_LEN - 12,
        BODY_LEN,
        3 * BODY_LEN + 5,
        1 << 20,
    ] {
        for zeros in [0, 16, 4096] {
            if len == 1 << 20 && zeros > 0 {
                continue;
            }
            let plain = noise(len);
            let frame = frame(&plain, zeros);
            let frame_len = frame.len() as u32;
            let cut = cut(&frame, len);
            assert_eq!(cut.len(), cut_len(frame_len) as usize);
            let mut whole = Vec::new();
            put_together(&cut, frame_len, &mut whole).unwrap();
            assert_eq!(whole, frame);
            let places = [
                0,
                1,
                len / 2,
                BODY_LEN - 13,
                BODY_LEN - 12,
                BODY_LEN,
                len - 1,
            ];
            for begin in places.into_iter().filter(|&begin| begin < len) {
                for count in [1, 4096, BODY_LEN, 40_000] {
                    let wanted = begin..(begin + count).min(len);
                    assert_eq!(
                        open(&cut, frame_len, wanted.clone()).as_deref(),
                        Some(&plain[wanted.clone()]),
                        "{len} {zeros} {wanted:?}"
                    );
                }
            }
            // What lies behind the plaintext is not plaintext.
            assert_eq!(open(&cut, frame_len, len - 1..len + 1), None);
            assert_eq!(open(&cut, frame_len, len..len + 1), None);
        }
    }
}

#[test]
fn no_flipped_bit_of_what_is_read_goes_unnoticed() {
    let plain = noise(3 * BODY_LEN);
    let frame = frame(&plain, 0);
    let frame_len = frame.len() as u32;
    let whole = cut(&frame, plain.len());
    for wanted in [0..100, BODY_LEN + 50..BODY_LEN + 60, BODY_LEN..2 * BODY_LEN] {
        let read = Stretch::of(frame_len, wanted.clone()).unwrap().bytes;
        for at in (read.start as usize..read.end as usize).step_by(7) {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 1 << (at % 8);
            assert_eq!(open(&spoilt, frame_len, wanted.clone()), None, "byte {at}");
        }
    }
}

#[test]
fn a_piece_of_something_else_is_none() {
    let plain = noise(4 * BODY_LEN);
    let bytes = frame(&plain, 0);
    let frame_len = bytes.len() as u32;
    let whole = cut(&bytes, plain.len());
    let stretch = Stretch::of(frame_len, 10..20).unwrap();
    let read = &whole[stretch.bytes.start as usize..stretch.bytes.end as usize];
    let keys = VolumeKeys::for_tests();
    let with = |number: u32, frame: FrameNo, kind: FrameKind| {
        let cipher = keys.pieces(block(number)).unwrap();
        cipher.open(frame, kind, &stretch, read)
    };
    assert!(with(1, FRAME, KIND).is_some());
    assert_eq!(with(2, FRAME, KIND), None);
    assert_eq!(with(1, FrameNo(4), KIND), None);
    assert_eq!(with(1, FRAME, FrameKind::Page), None);
    // The next piece in its place, the same of another frame, and too little.
    let step = PIECE_LEN;
    assert_eq!(open(&whole[step..], frame_len, 10..20), None);
    // Two genuine ones where the second stands in the first one's place, or follows another.
    let two = Stretch::of(frame_len, 10..BODY_LEN + 10).unwrap();
    let read_two = &whole[..two.bytes.end as usize];
    let opens = |bytes: &[u8]| {
        let cipher = keys.pieces(block(1)).unwrap();
        cipher.open(FRAME, KIND, &two, bytes).is_some()
    };
    assert!(opens(read_two));
    let (first, second) = read_two.split_at(step);
    assert!(!opens(&[second, first].concat()));
    assert!(!opens(&[first, first].concat()));
    assert!(!opens(&[first, &whole[2 * step..3 * step]].concat()));
    let again = cut(&frame(&plain, 0), plain.len());
    assert!(opens(&again[..read_two.len()]));
    assert!(
        !opens(&[first, &again[step..2 * step]].concat()),
        "of the same frame, encrypted once more"
    );
    let other = cut(&frame(&plain, 16), plain.len());
    assert_eq!(open(&other, frame_len, 10..20), None);
    let cipher = keys.pieces(block(1)).unwrap();
    for len in [0, 15, 16, 40, read.len() - 1] {
        assert_eq!(cipher.open(FRAME, KIND, &stretch, &read[..len]), None);
    }
    let strange = BlockId {
        key_epoch: 9,
        ..block(1)
    };
    assert!(keys.pieces(strange).is_none());
}

#[test]
fn impossible_stretches_and_cuts_are_none() {
    assert_eq!(Stretch::of(1000, 5..5), None);
    assert_eq!(Stretch::of(1000, 900..1000), None);
    assert_eq!(Stretch::of(0, 0..1), None);
    assert_eq!(Stretch::of(u32::MAX, 0..1), None);
    assert_eq!(Stretch::of(1000, 0..usize::MAX), None);
    for frame_len in [0, 16, 48, 64, 20_000] {
        let len = cut_len(frame_len) as usize;
        assert_eq!(
            put_together(&vec![0; len + 1], frame_len, &mut Vec::new()),
            None
        );
    }
    assert_eq!(cut_len(u32::MAX), u32::MAX);
    let cipher = VolumeKeys::for_tests().pieces(block(1)).unwrap();
    let mut nothing = Vec::new();
    assert_eq!(cipher.cut(FRAME, KIND, &[0; 20], 1, &mut nothing), None);
}
