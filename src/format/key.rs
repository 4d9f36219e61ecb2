//! The keys of the tree (FORMAT.md, "Tree entries and pages"): made so that the order of their bytes is the order
//! of the map. `repo/tree` makes and reads them; pages treat them as plain bytes.

use crate::id::{FileId, Seq};

/// The longest name of a directory entry or an xattr in bytes (what Linux allows).
pub const NAME_MAX: usize = 255;
/// The longest key in bytes: kind, file id, name, NUL and part number of an xattr.
pub const KEY_MAX: usize = 1 + 8 + NAME_MAX + 1 + 1;

const INODE: u8 = b'A';
const NAME: u8 = b'D';
const EXTENT: u8 = b'E';
const HISTORY: u8 = b'H';
const XATTR: u8 = b'X';

/// A key taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key<'a> {
    /// An inode.
    Inode(FileId),
    /// A name in a directory.
    Name(FileId, &'a [u8]),
    /// A stretch of a file, by the byte after its last.
    Extent(FileId, u64),
    /// One commit of the history.
    History(Seq),
    /// All xattrs of an inode: sorts right before them, and stands where a range tombstone hides older ones.
    Xattrs(FileId),
    /// One part of one xattr's value.
    Xattr(FileId, &'a [u8], u8),
}

impl<'a> Key<'a> {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let with = |kind: u8, number: u64, rest: &[u8]| {
            let mut bytes = Vec::with_capacity(11 + rest.len());
            bytes.push(kind);
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.extend_from_slice(rest);
            bytes
        };
        match *self {
            Self::Inode(id) => with(INODE, id.0, b""),
            Self::Name(dir, name) => with(NAME, dir.0, name),
            Self::Extent(id, end) => with(EXTENT, id.0, &end.to_be_bytes()),
            Self::History(seq) => with(HISTORY, seq.0, b""),
            Self::Xattrs(id) => with(XATTR, id.0, b""),
            Self::Xattr(id, name, part) => {
                let mut bytes = with(XATTR, id.0, name);
                // No name holds a NUL, so this keeps "ab" part 1 before "abc" part 0.
                bytes.extend_from_slice(&[0, part]);
                bytes
            }
        }
    }

    /// Takes a key apart; `None` if this version knows no such key.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        let id = FileId(number);
        match (kind, rest) {
            (INODE, []) => Some(Self::Inode(id)),
            (NAME, name) if is_name(name) => Some(Self::Name(id, name)),
            (EXTENT, end) => Some(Self::Extent(id, u64::from_be_bytes(end.try_into().ok()?))),
            (HISTORY, []) => Some(Self::History(Seq(number))),
            (XATTR, []) => Some(Self::Xattrs(id)),
            (XATTR, [name @ .., 0, part]) if is_name(name) => Some(Self::Xattr(id, name, *part)),
            _ => None,
        }
    }
}

/// File id and end of an extent's key; `None` for any other key. What [`Key::parse`] would say, but cheaper: merging
/// asks it of every key.
pub fn extent_key(bytes: &[u8]) -> Option<(FileId, u64)> {
    let (&[EXTENT], rest) = bytes.split_first_chunk()? else {
        return None;
    };
    let (id, end) = rest.split_first_chunk()?;
    let end = end.try_into().ok()?;
    Some((FileId(u64::from_be_bytes(*id)), u64::from_be_bytes(end)))
}

/// Directory and name of a directory entry's key, whatever stands there as a name; `None` for any other key. Who reads names must see
/// those that cannot be one too, so as to pass over them and not over what follows ([`is_entry_name`]).
pub fn name_key(bytes: &[u8]) -> Option<(FileId, &[u8])> {
    let (&[NAME], rest) = bytes.split_first_chunk()? else {
        return None;
    };
    let (dir, name) = rest.split_first_chunk()?;
    Some((FileId(u64::from_be_bytes(*dir)), name))
}

/// Whether this is a key of a kind that this version knows, and none that it would write: not to be taken for the end of what is
/// looked for, as a key of another kind is.
pub fn is_malformed(bytes: &[u8]) -> bool {
    let is_known = matches!(
        bytes.first(),
        Some(&(INODE | NAME | EXTENT | HISTORY | XATTR))
    );
    is_known && Key::parse(bytes).is_none()
}

/// Whether `bytes` can name a directory entry or an xattr: 1 to [`NAME_MAX`] bytes, none of them NUL.
pub fn is_name(bytes: &[u8]) -> bool {
    (1..=NAME_MAX).contains(&bytes.len()) && !bytes.contains(&0)
}

/// Whether `bytes` can name a directory entry: [`is_name`], without a slash, and neither `.` nor `..`. Asked by whoever writes
/// a name, and again by whoever reads one: that a page is authentic does not say that its writer was sound.
pub fn is_entry_name(bytes: &[u8]) -> bool {
    is_name(bytes) && !bytes.contains(&b'/') && bytes != b"." && bytes != b".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_lead_out_of_their_directory_are_none() {
        for name in [
            &b"a"[..],
            b"...",
            b".a",
            b"..a",
            b"\xff\n",
            &[b'a'; NAME_MAX],
        ] {
            assert!(is_entry_name(name), "{name:?}");
        }
        for name in [
            &b""[..],
            b".",
            b"..",
            b"/",
            b"a/b",
            b"../a",
            b"a\0",
            &[b'a'; NAME_MAX + 1],
        ] {
            assert!(!is_entry_name(name), "{name:?}");
        }
    }

    #[test]
    fn keys_round_trip_in_the_order_of_the_map() {
        let long = [0xff; NAME_MAX];
        let keys = [
            Key::Inode(FileId(1)),
            Key::Inode(FileId(256)),
            Key::Inode(FileId(u64::MAX)),
            Key::Name(FileId(1), b"\x01"),
            Key::Name(FileId(1), b"a"),
            Key::Name(FileId(1), b"a\x01"),
            Key::Name(FileId(1), &long),
            Key::Name(FileId(2), b"a"),
            Key::Extent(FileId(1), 1),
            Key::Extent(FileId(1), u64::MAX),
            Key::Extent(FileId(2), 4096),
            Key::History(Seq(0)),
            Key::History(Seq(u64::MAX)),
            Key::Xattrs(FileId(1)),
            Key::Xattr(FileId(1), b"user.a", 0),
            Key::Xattr(FileId(1), b"user.a", 1),
            Key::Xattr(FileId(1), b"user.a\x01", 0),
            Key::Xattr(FileId(1), &long, 255),
            Key::Xattrs(FileId(2)),
        ];
        let encoded: Vec<_> = keys.iter().map(Key::encode).collect();
        assert!(encoded.is_sorted_by(|a, b| a < b));
        for (key, bytes) in keys.iter().zip(&encoded) {
            assert!(bytes.len() <= KEY_MAX);
            assert_eq!(Key::parse(bytes).as_ref(), Some(key));
        }
    }

    #[test]
    fn foreign_keys_are_not_taken_apart() {
        let id = [0; 8];
        for (kind, rest) in [
            (b'A', &b"x"[..]),
            (b'D', b""),
            (b'D', b"a\0b"),
            (b'E', b"1234567"),
            (b'X', b"a"),
            (b'Z', b""),
        ] {
            let bytes = [&[kind], &id[..], rest].concat();
            assert_eq!(Key::parse(&bytes), None, "{bytes:?}");
        }
        assert_eq!(Key::parse(b""), None);
        assert_eq!(Key::parse(b"A123"), None);
    }
}
