//! Blocks: every byte is proven by something.

use super::*;
use crate::crypto::{BlockCipher, VolumeKeys};
use crate::format::directory::{self, Directory, DirectoryEntry};
use crate::id::{BlockClass, SessionId};

fn id(number: u32) -> BlockId {
    BlockId {
        key_epoch: 0,
        class: BlockClass::Data,
        session: SessionId([5; 8]),
        number,
    }
}

/// A whole object, as the flusher makes it.
fn object(id: BlockId, cipher: &BlockCipher, plains: &[&[u8]]) -> Vec<u8> {
    let mut layout = BlockLayout::new(id);
    let pack = |plain: &&[u8]| Envelope::pack(plain, Compression::default());
    let envelopes: Vec<_> = plains.iter().map(pack).collect();
    for envelope in &envelopes {
        layout.add(FrameKind::Data, envelope);
    }
    let mut object = layout.header().to_vec();
    for frame in cipher.encrypt(FrameNo(0), FrameKind::Data, None, envelopes) {
        object.extend_from_slice(frame.bytes());
    }
    assert_eq!(object.len() as u64, layout.object_len());
    object.extend(layout.finish(|number, directory| {
        let frames = cipher.encrypt(number, FrameKind::Directory, None, vec![directory]);
        frames.into_iter().next().unwrap()
    }));
    object
}

/// Reads every byte of an object and proves it, as `check --read-data` does.
fn read_all(object: &[u8], expected: BlockId, keys: &VolumeKeys) -> Result<Vec<Vec<u8>>, Error> {
    let header = Header::decode(object)?;
    if header.id != expected {
        return Err(Error::Damaged("another block"));
    }
    let trailer = Trailer::decode(object)?;
    let at = trailer.directory_range(object.len() as u64)?;
    let cut = |range: Range<u64>| &object[range.start as usize..range.end as usize];
    let cipher = keys.block(header.id);
    let directory = Directory::open(cut(at), &trailer, object.len() as u64, &cipher)?;
    directory.verify_clear(cut(0..HEADER_LEN), cut(directory.pad()))?;
    let mut plains = Vec::new();
    for entry in directory.entries() {
        let begin = entry.place.offset;
        let bytes = cut(begin..begin + u64::from(entry.place.len));
        let cipher = keys.block(entry.block);
        plains.push(cipher.decrypt(entry.place.frame, entry.kind, None, bytes)?);
    }
    Ok(plains)
}

fn example() -> (Vec<u8>, VolumeKeys) {
    let keys = VolumeKeys::for_tests();
    let plains: [&[u8]; 3] = [b"one", &[7; 700], b""];
    let object = object(id(1), &keys.block(id(1)), &plains);
    (object, keys)
}

#[test]
fn reads_back_what_was_laid_out() {
    let (object, keys) = example();
    let plains = read_all(&object, id(1), &keys).unwrap();
    assert_eq!(plains, [b"one".to_vec(), vec![7; 700], Vec::new()]);
    assert_eq!(padme(object.len() as u64), object.len() as u64);
}

#[test]
fn a_commit_is_found_with_one_request() {
    let (object, keys) = example();
    let header = Header::decode(&object).unwrap();
    let first = &object[64..64 + header.first_len as usize];
    let plain = keys
        .block(header.id)
        .decrypt(FrameNo(0), FrameKind::Data, None, first);
    assert_eq!(plain.unwrap(), b"one");
}

#[test]
fn an_empty_block_and_a_full_one_have_directories() {
    let keys = VolumeKeys::for_tests();
    let empty = object(id(1), &keys.block(id(1)), &[]);
    assert_eq!(
        read_all(&empty, id(1), &keys).unwrap(),
        Vec::<Vec<u8>>::new()
    );
    let many = vec![&b"x"[..]; FRAMES_MAX as usize];
    let full = object(id(1), &keys.block(id(1)), &many);
    assert_eq!(read_all(&full, id(1), &keys).unwrap(), many);
}

#[test]
fn a_directory_that_no_writer_makes_is_refused() {
    let decode = |count: u32, len: u32| {
        let entry = |number: u32| DirectoryEntry {
            block: id(1),
            place: FramePlace {
                frame: FrameNo(number),
                offset: HEADER_LEN + u64::from(number) * u64::from(len),
                len,
            },
            kind: FrameKind::Data,
        };
        let entries: Vec<_> = (0..count).map(entry).collect();
        let pad_end = HEADER_LEN + u64::from(count) * u64::from(len);
        let end_len = u64::from(directory::encrypted_len(entries.len())) + TRAILER_LEN;
        let bytes = directory::encode(&[0; 32], pad_end + end_len, &entries);
        directory::decode(&bytes, pad_end)
    };
    assert_eq!(decode(2, 64).unwrap().entries().len(), 2);
    for no_frame in [0, 16, 63, 65, ENCRYPTED_LEN_MAX as u32 + 16, u32::MAX] {
        assert!(decode(2, no_frame).is_err(), "{no_frame}");
    }
    assert!(decode(FRAMES_MAX, 64).is_ok());
    assert!(decode(FRAMES_MAX + 1, 64).is_err());

    // The sum of what stands before the end and of the end itself is more than a number can hold: that overflowed.
    let bytes = directory::encode(&[0; 32], 0, &[]);
    assert!(directory::decode(&bytes, u64::MAX).is_err());
}

/// The promise of FORMAT.md: every byte of an object is proven, whatever class it is of.
#[test]
fn every_flipped_byte_is_noticed() {
    let (object, keys) = example();
    for at in 0..object.len() {
        let mut damaged = object.clone();
        damaged[at] ^= 1;
        assert!(read_all(&damaged, id(1), &keys).is_err(), "byte {at}");
    }
}

#[test]
fn truncated_extended_and_joined_objects_are_noticed() {
    let (object, keys) = example();
    for len in 0..object.len() {
        assert!(read_all(&object[..len], id(1), &keys).is_err());
    }
    let mut longer = object.clone();
    longer.push(0);
    assert!(read_all(&longer, id(1), &keys).is_err());
    let doubled = [&object[..], &object].concat();
    assert!(read_all(&doubled, id(1), &keys).is_err());
    let mut stretched = object.clone();
    stretched.splice(200..200, [0; 16]);
    assert!(read_all(&stretched, id(1), &keys).is_err());
}

#[test]
fn another_blocks_object_is_noticed_even_if_its_header_is_changed() {
    let keys = VolumeKeys::for_tests();
    let other = object(id(2), &keys.block(id(2)), &[b"other"]);
    assert!(read_all(&other, id(1), &keys).is_err());
    let mut disguised = other;
    let header = Header {
        id: id(1),
        ..Header::decode(&disguised).unwrap()
    };
    disguised[..64].copy_from_slice(&header.encode());
    assert!(read_all(&disguised, id(1), &keys).is_err());
}

#[test]
fn a_frame_put_in_anothers_place_is_noticed() {
    let keys = VolumeKeys::for_tests();
    let mut object = object(id(1), &keys.block(id(1)), &[b"one", b"two"]);
    let len = Header::decode(&object).unwrap().first_len as usize;
    let (first, second) = object[64..64 + 2 * len].split_at_mut(len);
    first.swap_with_slice(second);
    assert!(read_all(&object, id(1), &keys).is_err());
}

#[test]
fn a_newer_block_says_which_feature_it_needs() {
    let (mut object, _) = example();
    object[28] = 0b100;
    assert_eq!(Header::decode(&object), Err(Error::NewerFormat(2)));
}

/// Nothing of a block that is not ciphertext tells more than its own name.
#[test]
fn clear_parts_hold_names_and_lengths_only() {
    let (object, _) = example();
    let header = Header::decode(&object).unwrap();
    let expected = [
        &b"RWFSblk1"[..],
        &header.id.to_bytes(),
        &header.first_len.to_le_bytes(),
        &[0; 36],
    ];
    assert_eq!(object[..64], expected.concat());
    assert!(!object.windows(16).any(|window| window == [7; 16]));
}

#[test]
fn padding_follows_padme() {
    // From the paper: 9 -> 10 (exponent 3, two bits kept), and never more than 12 %.
    assert_eq!([1, 2, 8, 9, 10, 11].map(padme), [1, 2, 8, 10, 10, 12]);
    for len in (1..100_000).chain([64 << 20, (64 << 20) + 1, u64::from(u32::MAX)]) {
        let padded = padme(len);
        assert!(
            padded >= len && padded * 100 <= len * 112,
            "{len} -> {padded}"
        );
        assert_eq!(padme(padded), padded);
    }
}

/// The object in FORMAT.md's worked example, which nobody may change without a new version of the format: everything
/// that the document says of it must be so, and this version must read it.
#[test]
fn the_worked_example_is_what_the_document_says() {
    let document = include_str!("../FORMAT.md");
    let example = document.split("# Worked example").nth(1).unwrap();
    let shown: Vec<&str> = example.split("```text").skip(1).collect();
    let hex_of = |text: &str| {
        let text = text.split("```").next().unwrap();
        let digits: String = text
            .split_whitespace()
            .filter(|word| is_hex(word))
            .collect();
        decode_hex(&digits)
    };
    let object = hex_of(shown[0]);
    let example_id = BlockId {
        session: SessionId([1, 2, 3, 4, 5, 6, 7, 8]),
        ..id(9)
    };
    let keys = VolumeKeys::for_tests();
    let plains = read_all(&object, example_id, &keys).unwrap();
    assert_eq!(plains, [b"hello, world\n"]);

    let trailer = Trailer::decode(&object).unwrap();
    let at = trailer.directory_range(object.len() as u64).unwrap();
    assert_eq!((at.start, at.end, object.len()), (144, 288, 304));
    let cipher = keys.block(example_id);
    let directory = &object[144..288];
    let plain = cipher.decrypt(FrameNo(1), FrameKind::Directory, None, directory);
    assert_eq!(plain.unwrap(), hex_of(shown[4]));
}

fn is_hex(word: &str) -> bool {
    word.len().is_multiple_of(2) && word.bytes().all(|b| b.is_ascii_hexdigit())
}

fn decode_hex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}
