//! Round trips of commit bodies, and bytes that are none.

use super::*;
use crate::format::entry::{Address, Hint};
use crate::format::page::{Entry, Op, encode};
use crate::id::{BlockClass, BlockId, Era, FrameNo, Seq, SessionId};

fn name(seq: u64) -> CommitName {
    CommitName {
        era: Era(1),
        stamp: Stamp(1000 + seq),
        seq: Seq(seq),
        session: SessionId([2; 8]),
    }
}

fn root(number: u32) -> PageRoot {
    let at = Address {
        block: BlockId {
            key_epoch: 1,
            class: BlockClass::Tree,
            session: SessionId([3; 8]),
            number,
        },
        frame: FrameNo(4),
        inner: 0,
    };
    PageRoot {
        place: Place {
            at,
            hint: Hint {
                offset: 64,
                len: 5000,
                commit: None,
            },
        },
        height: 2,
        entries: 1000,
        bytes: 1 << 33,
    }
}

fn commit() -> Commit {
    let entry = Entry {
        key: b"A12345678".to_vec(),
        op: Op::Tombstone,
        value: Vec::new(),
    };
    Commit {
        name: name(8),
        previous: Some((name(7), Tag([5; 32]))),
        wall: Stamp(999),
        generation: Generation(6),
        condemned_seen: 3,
        tree: TreeRoot {
            base: Some(root(1)),
            runs: (2..6).map(root).collect(),
            inline: encode(0, &[entry]),
        },
        totals: Totals {
            files: 1,
            bytes: 2,
            added: 3,
            compressed: 4,
            stored: 5,
        },
        host: "büro".to_owned(),
        source: b"/home/\xff".to_vec(),
        label: "a label".to_owned(),
        incomplete: true,
        next_file_id: 1 << 40,
    }
}

fn first() -> Commit {
    Commit {
        previous: None,
        tree: TreeRoot::default(),
        label: String::new(),
        incomplete: false,
        ..commit()
    }
}

#[test]
fn commits_round_trip() {
    for commit in [commit(), first()] {
        assert_eq!(Commit::decode(&commit.encode()).as_ref(), Ok(&commit));
    }
}

#[test]
fn fields_of_a_newer_version_are_passed_over_unless_required() {
    let mut bytes = commit().encode();
    put_field(&mut bytes, 900, b"from the future");
    bytes[10] = 0xff;
    assert_eq!(Commit::decode(&bytes).as_ref(), Ok(&commit()), "optional");
    bytes[4] = 0b1000;
    assert_eq!(Commit::decode(&bytes), Err(Error::Feature(19)), "required");
    bytes[0] = 2;
    assert_eq!(Commit::decode(&bytes), Err(Error::Version(2)));
}

#[test]
fn truncated_and_flipped_bodies_never_panic() {
    let bytes = commit().encode();
    for cut in 0..bytes.len() {
        match Commit::decode(&bytes[..cut]) {
            // Only a whole field can be missing at the end, and only one that may be.
            Ok(read) => assert_eq!((read.tree.inline.len(), read.name), (0, name(8))),
            Err(error) => assert!(
                matches!(error, Error::Malformed(_)),
                "cut at {cut}: {error}"
            ),
        }
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Commit::decode(&flipped) {
            drop(read.encode());
        }
    }
}

#[test]
fn trees_beyond_the_limits_are_refused() {
    let mut header = 1u16.to_le_bytes().to_vec();
    header.extend([0; 16]);
    let body = commit().encode();
    let with = |field: u16, value: &[u8]| {
        let mut bytes = header.clone();
        each_field(&body[header.len()..], |kind, old| {
            put_field(&mut bytes, kind, if kind == field { value } else { old });
            Some(())
        })
        .expect("fields");
        Commit::decode(&bytes)
    };
    assert!(with(RUNS, &page_roots(&(0..4).map(root).collect::<Vec<_>>())).is_ok());
    assert!(
        with(RUNS, &page_roots(&(0..5).map(root).collect::<Vec<_>>())).is_err(),
        "five runs"
    );
    let mut flat = root(1);
    flat.height = 0;
    assert!(
        with(BASE, &page_roots(&[flat])).is_err(),
        "a root without a level"
    );
    assert!(
        with(BASE, &page_roots(&[root(1), root(2)])).is_err(),
        "two bases"
    );
    let long: Vec<_> = (0..2000u32)
        .map(|i| Entry {
            key: [&b"A"[..], &u64::from(i).to_be_bytes()].concat(),
            op: Op::Put,
            value: vec![1; 5],
        })
        .collect();
    assert!(with(INLINE, &encode(0, &long)).is_err(), "more than 16 KiB");
    assert!(with(INLINE, &encode(0, &long[..1000])).is_ok());
    assert!(with(INLINE, b"nonsense").is_err());
    assert!(with(HOST, b"\xff").is_err(), "not text");
}
