//! Round trips, searching, and bytes that are no page.

use super::*;
use crate::format::entry::{Address, Hint};
use crate::id::{BlockClass, BlockId, FrameNo, SessionId};

fn entry(key: &[u8], op: Op, value: &[u8]) -> Entry {
    Entry {
        key: key.to_vec(),
        op,
        value: value.to_vec(),
    }
}

fn place() -> Place {
    let block = BlockId {
        key_epoch: 1,
        class: BlockClass::Tree,
        session: SessionId([1; 8]),
        number: 2,
    };
    Place {
        at: Address {
            block,
            frame: FrameNo(300),
            inner: 0,
        },
        hint: Hint {
            offset: 64,
            len: 1000,
            commit: None,
        },
    }
}

fn some() -> Vec<Entry> {
    vec![
        entry(b"Dxx", Op::RangeTombstone, b""),
        entry(b"Dxxa", Op::Put, b"value"),
        entry(b"Dxxab", Op::Tombstone, b""),
        entry(b"Dxxb", Op::Put, b""),
        entry(b"Dxxc\0\0", Op::Put, &[9; 300]),
    ]
}

#[test]
fn pages_round_trip() {
    let inner = [entry(b"A", Op::Put, &place().encode())];
    for (level, entries) in [(0, &some()[..]), (0, &some()[..1]), (3, &inner)] {
        let bytes = encode(level, entries);
        assert_eq!(bytes.len(), encoded_len(entries));
        let page = Page::decode(bytes.clone()).expect("a page");
        assert_eq!((page.level(), page.len()), (level, entries.len()));
        assert_eq!(page.entries().collect::<Vec<_>>(), entries);
        assert_eq!(&page.bytes()[..], bytes);
        if level > 0 {
            assert_eq!(page.child(0), place());
        }
    }
}

#[test]
fn the_worked_example_of_the_specification() {
    let entries = [
        entry(b"Dxxa", Op::Put, b"v"),
        entry(b"Dxxbc", Op::Tombstone, b""),
    ];
    let expected = [
        &[1, 0, 2, 0, 3, 0][..],
        b"Dxx",
        &[13, 0, 17, 0],
        &[1, 0],
        b"av",
        &[2, 0x40],
        b"bc",
    ];
    assert_eq!(encode(0, &entries), expected.concat());
}

#[test]
fn the_largest_entry_fits() {
    let entries = [entry(&[b'X'; KEY_MAX], Op::Put, &vec![7; VALUE_MAX])];
    let page = Page::decode(encode(0, &entries)).expect("a page");
    assert_eq!(page.value(0).len(), VALUE_MAX);
}

#[test]
fn searching_agrees_with_a_sorted_list() {
    let entries = some();
    let page = Page::decode(encode(0, &entries)).expect("a page");
    let mut keys: Vec<Vec<u8>> = entries.iter().map(|entry| entry.key.clone()).collect();
    keys.extend(
        [
            &b""[..],
            b"D",
            b"Dx",
            b"Dxw",
            b"Dy",
            b"E",
            b"Dxx\0",
            b"Dxxaa",
            b"Dxxz",
        ]
        .map(<[u8]>::to_vec),
    );
    for key in keys {
        let at = entries.partition_point(|entry| entry.key < key);
        assert_eq!(page.lower_bound(&key), at, "{key:?}");
        let found = entries.iter().position(|entry| entry.key == key);
        assert_eq!(page.find(&key), found, "{key:?}");
        let child = entries
            .partition_point(|entry| entry.key <= key)
            .saturating_sub(1);
        assert_eq!(page.child_of(&key), child, "{key:?}");
    }
}

#[test]
fn truncated_pages_are_refused_or_shorter_values() {
    let bytes = encode(0, &some());
    for cut in 0..bytes.len() {
        if let Ok(page) = Page::decode(bytes[..cut].to_vec()) {
            // Nothing marks the end of the last value; the frame around the page does.
            assert!(cut >= bytes.len() - 300 && page.len() == some().len());
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_a_sound_page() {
    let leaf = encode(0, &some());
    let inner = encode(
        1,
        &[
            entry(b"A", Op::Put, &place().encode()),
            entry(b"B", Op::Put, &place().encode()),
        ],
    );
    for bytes in [leaf, inner] {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            use_everything(flipped);
        }
    }
}

#[test]
fn arbitrary_bytes_are_an_error_or_a_sound_page() {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    for len in 0..400 {
        for level in [0, 1] {
            let mut bytes: Vec<u8> = (0..len).map(|_| next()).collect();
            use_everything(bytes.clone());
            // Behind a sound header, and with a table that is nearly right.
            let count = next() % 5;
            let table: Vec<u8> = (0..count)
                .flat_map(|i| [6 + 2 * count + i * (next() % 8), 0])
                .collect();
            bytes.splice(
                ..bytes.len().min(6),
                [1, level, count, 0, 0, 0].into_iter().chain(table),
            );
            use_everything(bytes);
        }
    }
    assert_eq!(
        Page::decode(vec![1; PAGE_MAX + 1]).err(),
        Some(Error::Malformed("too long"))
    );
    assert_eq!(Page::decode(vec![9; 100]).err(), Some(Error::Version(9)));
}

fn use_everything(bytes: Vec<u8>) {
    let Ok(page) = Page::decode(bytes) else {
        return;
    };
    let entries: Vec<_> = page.entries().collect();
    assert!(!entries.is_empty() && entries.is_sorted_by(|a, b| a.key < b.key));
    for (i, entry) in entries.iter().enumerate() {
        assert_eq!(page.find(&entry.key), Some(i));
        if page.level() > 0 {
            page.child(i);
        }
    }
    assert_eq!(encode(page.level(), &entries).len(), encoded_len(&entries));
}
