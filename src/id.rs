//! The identifiers everything else speaks in: a type for each, so that none can be passed for another.
//!
//! Nothing here does I/O. Object names are made from these in [`crate::repo`]'s layout; their bytes
//! inside objects are specified in `FORMAT.md`.

use std::fmt;

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// A fresh identifier from the operating system's random source.
            pub fn random() -> Self {
                Self(crate::crypto::random())
            }

            /// Reads the lower-case hexadecimal form; `None` if it is anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $len];
                parse_hex(text, &mut bytes).then_some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

bytes_id!(
    /// A repository: 16 random bytes chosen at `init`.
    RepositoryId, 16
);
bytes_id!(
    /// A volume: one protected directory in a repository.
    VolumeId, 16
);
bytes_id!(
    /// One life of a writer. No object name is ever used twice because each carries a session.
    SessionId, 8
);
bytes_id!(
    /// Keyed identity of a chunk's plaintext (BLAKE3 in keyed mode, cut to 16 bytes).
    ContentId, 16
);
bytes_id!(
    /// The authentication tag of a frame (HMAC-SHA-256). A commit's tag is that of its first frame.
    Tag, 32
);

number_id!(
    /// A volume's own number for a file, directory or other inode; stable for its whole life, never reused.
    FileId, u64
);
number_id!(
    /// The number of an epoch, the local stretch of time between two seals. Starts anew with each session.
    EpochNo, u64
);
number_id!(
    /// A commit's place in its volume: strictly increasing, independent of every clock.
    Seq, u64
);
number_id!(
    /// A frame's number within its block, from 0.
    FrameNo, u32
);
number_id!(
    /// A stretch in which the volume's clock did not step back.
    Era, u32
);
number_id!(
    /// A writer's generation: raised by each claim on a volume.
    Generation, u32
);

impl FileId {
    /// The volume's root directory.
    pub const ROOT: Self = Self(1);
}

/// What a block's frames hold. Tree pages and data never share a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u16)]
pub enum BlockClass {
    /// File contents.
    Data = 1,
    /// Tree pages.
    Tree = 2,
    /// A commit, which may carry small data of its own.
    Commit = 3,
}

impl BlockClass {
    /// Reads the number that stands in a block's identifier; `None` if this version knows none such.
    pub fn from_u16(value: u16) -> Option<Self> {
        match value {
            1 => Some(Self::Data),
            2 => Some(Self::Tree),
            3 => Some(Self::Commit),
            _ => None,
        }
    }
}

/// The name of a block: 16 bytes, never used twice. Its key is derived from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlockId {
    /// Which of the volume's keys the block's own keys derive from.
    pub key_epoch: u16,
    /// What the block holds.
    pub class: BlockClass,
    /// The session that wrote it.
    pub session: SessionId,
    /// Its number within the session; all classes share one count.
    pub number: u32,
}

impl BlockId {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// The little-endian form that stands in addresses, in MAC input and in key derivation.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..2].copy_from_slice(&self.key_epoch.to_le_bytes());
        bytes[2..4].copy_from_slice(&(self.class as u16).to_le_bytes());
        bytes[4..12].copy_from_slice(&self.session.0);
        bytes[12..16].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// Reads [`Self::to_bytes`]; `None` if the class is unknown.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [k0, k1, c0, c1, s @ .., n0, n1, n2, n3] = bytes;
        Some(Self {
            key_epoch: u16::from_le_bytes([k0, k1]),
            class: BlockClass::from_u16(u16::from_le_bytes([c0, c1]))?,
            session: SessionId(s),
            number: u32::from_le_bytes([n0, n1, n2, n3]),
        })
    }
}

/// The name of an object in a store, relative to the repository's own prefix.
///
/// Only `repo`'s layout makes them; a store treats them as opaque ASCII without `//`, `.` or `..` parts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Wraps a name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads exactly `into.len()` bytes of lower-case hexadecimal; false if `text` is anything else.
fn parse_hex(text: &str, into: &mut [u8]) -> bool {
    let digit = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'a'..=b'f' => Some(d - b'a' + 10),
        _ => None,
    };
    if text.len() != into.len() * 2 {
        return false;
    }
    for (byte, pair) in into.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return false;
        };
        *byte = high << 4 | low;
    }
    true
}
