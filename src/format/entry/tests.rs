//! Round trips of entries, and bytes that are none.

use super::*;
use crate::id::BlockClass;

fn time(secs: i64) -> Timespec {
    Timespec {
        secs,
        nanos: 999_999_999,
    }
}

fn inode() -> Inode {
    Inode {
        kind: Kind::Symlink,
        mode: 0o6755,
        uid: u32::MAX,
        gid: 7,
        links: 3,
        size: 1 << 40,
        rdev: 0x0102_0304_0506,
        mtime: time(-5),
        ctime: time(i64::MAX),
        atime: time(i64::MIN),
        btime: Some(time(1)),
        target: b"../x".to_vec(),
        handle: vec![1; 128],
        racy: true,
        in_place: true,
        unknown: vec![(10, vec![]), (5000, vec![1, 2, 3])],
    }
}

fn name() -> CommitName {
    CommitName {
        era: Era(3),
        stamp: Stamp(1_700_000_000_000),
        seq: Seq(u64::MAX),
        session: SessionId([6; 8]),
    }
}

fn place(commit: Option<CommitName>) -> Place {
    Place {
        at: Address {
            block: BlockId {
                key_epoch: 2,
                class: BlockClass::Data,
                session: SessionId([1; 8]),
                number: u32::MAX,
            },
            frame: FrameNo(70_000),
            inner: 12_345,
        },
        hint: Hint {
            offset: u64::MAX,
            len: u32::MAX,
            commit,
        },
    }
}

fn history() -> HistoryEntry {
    HistoryEntry {
        name: name(),
        tag: Tag([4; 32]),
        wall: Stamp(5),
        totals: Totals {
            files: 1,
            bytes: 2,
            added: 3,
            compressed: 4,
            stored: u64::MAX,
        },
        label: "vor dem Umzug ☂".to_owned(),
        incomplete: true,
        forgotten: Some(9),
    }
}

fn extents() -> Vec<Extent> {
    let data = |commit, content| Contents::Data {
        place: place(commit),
        content,
    };
    [
        (0..u64::MAX, Contents::Hole),
        (5..6, Contents::Hole),
        (4096..8192, data(None, None)),
        (
            u64::MAX - 9..u64::MAX,
            data(Some(name()), Some(ContentId([8; 16]))),
        ),
        (0..1, data(None, Some(ContentId([0; 16])))),
    ]
    .map(|(range, contents)| Extent { range, contents })
    .to_vec()
}

/// Truncations and trailing bytes must fail; flipped bits must not panic.
fn damage<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, Malformed>, fields: bool) {
    for cut in 0..bytes.len() {
        // Tagged fields may end after any of them, if those that are needed were there.
        assert!(decode(&bytes[..cut]).is_err() || fields, "cut at {cut}");
    }
    assert!(
        decode(&[bytes, &[0]].concat()).is_err(),
        "something after the end"
    );
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        drop(decode(&flipped));
    }
}

#[test]
fn inodes_round_trip_with_what_a_newer_version_wrote() {
    let plain = Inode {
        kind: Kind::File,
        rdev: 0,
        btime: None,
        target: Vec::new(),
        handle: Vec::new(),
        racy: false,
        in_place: false,
        unknown: Vec::new(),
        ..inode()
    };
    for inode in [inode(), plain] {
        let bytes = inode.encode();
        assert_eq!(Inode::decode(&bytes).as_ref(), Ok(&inode));
        damage(&bytes, Inode::decode, true);
    }
    assert!(Inode::decode(b"").is_err(), "no stat field");
}

#[test]
fn names_places_and_extents_round_trip() {
    let entry = NameEntry {
        id: FileId(u64::MAX - 1),
        kind: Kind::BlockDevice,
    };
    assert_eq!(NameEntry::decode(&entry.encode()), Ok(entry));
    damage(&entry.encode(), NameEntry::decode, false);
    for place in [place(None), place(Some(name()))] {
        assert_eq!(Place::decode(&place.encode()).as_ref(), Ok(&place));
        damage(&place.encode(), Place::decode, false);
    }
    for extent in extents() {
        let (bytes, end) = (extent.encode(), extent.range.end);
        assert_eq!(Extent::decode(end, &bytes).as_ref(), Ok(&extent));
        let hole = extent.contents == Contents::Hole;
        assert_eq!(Extent::span(end, &bytes), Ok((extent.range.clone(), hole)));
        damage(&bytes, |bytes| Extent::decode(end, bytes), false);
        assert!(
            Extent::decode(end - extent.range.start - 1, &bytes).is_err(),
            "begins before 0"
        );
    }
}

#[test]
fn data_must_lie_within_one_frame() {
    let at = |range: Range<u64>, inner| {
        let mut place = place(None);
        place.at.inner = inner;
        let contents = Contents::Data {
            place,
            content: None,
        };
        Extent { range, contents }
    };
    assert!(at(0..1 << 20, 0).is_valid());
    for extent in [
        at(0..(1 << 20) + 1, 0),
        at(0..1 << 20, 1),
        at(0..u64::MAX, 5),
        at(3..3, 0),
    ] {
        assert!(!extent.is_valid());
        assert!(Extent::decode(extent.range.end, &extent.encode()).is_err());
    }
}

#[test]
fn a_cut_extent_is_no_longer_a_chunk_and_points_at_its_first_byte() {
    let whole = extents()[3].clone();
    assert_eq!(whole.clone().cut(whole.range.clone()), whole);
    let part = whole.cut(u64::MAX - 5..u64::MAX - 1);
    let mut expected = place(Some(name()));
    expected.at.inner += 4;
    let contents = Contents::Data {
        place: expected,
        content: None,
    };
    assert_eq!(part.contents, contents);
}

#[test]
fn history_round_trips() {
    let kept = HistoryEntry {
        label: String::new(),
        incomplete: false,
        forgotten: None,
        ..history()
    };
    for entry in [history(), kept] {
        let bytes = entry.encode();
        assert_eq!(HistoryEntry::decode(&bytes).as_ref(), Ok(&entry));
        damage(&bytes, HistoryEntry::decode, true);
    }
}
