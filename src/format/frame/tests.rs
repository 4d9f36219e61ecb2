//! Envelopes, and what lying lengths do to them.

use super::*;
use crate::crypto::random_padding;

fn inner(codec: u8, reserved: u8, stored: u32, plain: u32, rest: &[u8]) -> Vec<u8> {
    let mut inner = vec![codec, 0, reserved, 0];
    inner.extend(stored.to_le_bytes());
    inner.extend(plain.to_le_bytes());
    inner.extend(rest);
    inner
}

#[test]
fn unpacks_what_it_packed() {
    let text = b"the same words over and over, ".repeat(1000);
    for plain in [
        &[][..],
        b"a",
        &text,
        &random_padding(5000),
        &[0; FRAME_PLAIN_MAX],
    ] {
        for compression in [
            Compression::Off,
            Compression::Zstd(1),
            Compression::Zstd(-1),
        ] {
            let envelope = Envelope::pack(plain, compression);
            assert_eq!(envelope.plain_len(), plain.len());
            let buffer = envelope.into_buffer();
            assert_eq!(buffer[..IV_LEN], [0; IV_LEN]);
            assert_eq!(Envelope::unpack(buffer[IV_LEN..].to_vec()).unwrap(), plain);
        }
    }
}

/// What FORMAT.md says of a frame's length, in numbers.
#[test]
fn frames_are_as_short_and_as_long_as_the_format_says() {
    assert_eq!(ENCRYPTED_LEN_MIN, 64);
    assert_eq!(ENCRYPTED_LEN_MAX, 1_048_640);
    assert_eq!(uncompressed_len(FRAME_PLAIN_MAX), 1_048_640);
}

#[test]
fn compresses_only_what_shrinks() {
    let text = b"the same words over and over, ".repeat(1000);
    let stored = |plain: &[u8], compression| Envelope::pack(plain, compression).stored_len();
    assert!(stored(&text, Compression::Zstd(1)) < text.len() / 20);
    assert_eq!(stored(&text, Compression::Off), text.len());
    let noise = random_padding(100_000);
    assert_eq!(stored(&noise, Compression::Zstd(1)), noise.len());
    assert_eq!(stored(b"ab", Compression::Zstd(1)), 2);
}

#[test]
fn no_buffer_moves_between_packing_and_the_tag() {
    for len in [0, 3, 4, 5, 100, 4096] {
        let envelope = Envelope::pack(&random_padding(len), Compression::Off);
        let said = envelope.encrypted_len() as usize;
        assert!(envelope.into_buffer().capacity() >= said);
    }
}

#[test]
fn zeros_after_the_payload_are_passed_over() {
    assert_eq!(
        Envelope::unpack(inner(0, 0, 2, 2, b"hi\0\0\0")).unwrap(),
        b"hi"
    );
}

/// Authentic does not mean sane: a newer or broken writer had the key too.
#[test]
fn refuses_what_no_writer_of_this_version_makes() {
    let zeros = zstd::bulk::compress(&[0; FRAME_PLAIN_MAX], 1).unwrap();
    let bomb = zstd::bulk::compress(&vec![0; FRAME_PLAIN_MAX + 1], 1).unwrap();
    let len = |bytes: &[u8]| bytes.len() as u32;
    let million = FRAME_PLAIN_MAX as u32;
    let refused = [
        Vec::new(),
        vec![0; FIELDS_LEN - 1],
        inner(0, 1, 2, 2, b"hi"),
        inner(0, 0, 2, 3, b"hi\0"),
        inner(0, 0, 3, 3, b"hi"),
        inner(0, 0, u32::MAX, u32::MAX, b"hi"),
        inner(0, 0, 2, 2, b"hi\0\x01"),
        inner(2, 0, 2, 2, b"hi"),
        inner(1, 0, 2, 2, b"hi"),
        inner(1, 0, len(&zeros), million - 1, &zeros),
        inner(1, 0, len(&zeros), million + 1, &zeros),
        inner(1, 0, len(&zeros), u32::MAX, &zeros),
        inner(1, 0, len(&bomb), million, &bomb),
        inner(1, 0, len(&zeros) - 1, million, &zeros[..zeros.len() - 1]),
    ];
    for (n, inner) in refused.into_iter().enumerate() {
        assert!(Envelope::unpack(inner).is_err(), "case {n}");
    }
    assert!(Envelope::unpack(inner(1, 0, len(&zeros), million, &zeros)).is_ok());
}

#[test]
fn kinds_read_back() {
    let known: Vec<_> = (0..=255).filter_map(FrameKind::from_u8).collect();
    assert_eq!(known.len(), 9);
    assert!(
        known
            .iter()
            .all(|&kind| FrameKind::from_u8(kind as u8) == Some(kind))
    );
}
