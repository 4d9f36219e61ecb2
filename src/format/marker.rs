//! The clear `format` object: the first that anybody reads of a repository. FORMAT.md, "The format object".
//!
//! Nothing in it is secret. It is not authenticated by itself: its repository id stands in the MAC of every
//! frame and its feature bits stand again inside each key slot, where `repo` compares them.

use sha2::{Digest, Sha256};

use crate::id::RepositoryId;

/// The version of the format that this program writes.
pub const VERSION: u16 = 1;

/// Feature bits. A reader stops at a required bit that it does not know and passes over an optional one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// Needed to read what is there.
    pub required: u64,
    /// Useful to know of.
    pub optional: u64,
}

impl Features {
    /// The lowest required bit that this version does not know; `None` if it knows all.
    pub fn unknown_required(&self) -> Option<u32> {
        (self.required != 0).then(|| self.required.trailing_zeros())
    }
}

/// The decoded `format` object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    /// The repository.
    pub repository: RepositoryId,
    /// Feature bits.
    pub features: Features,
}

/// Why it could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the bytes that were written, or not of a repository at all.
    #[error("the format object is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a newer version: this format version or feature bit is not known.
    #[error("the repository needs {0} of a newer version")]
    Newer(Needs),
}

/// What a newer repository needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// This format version.
    Version(u16),
    /// This feature bit.
    Feature(u32),
}

impl std::fmt::Display for Needs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => write!(f, "format version {version}"),
            Self::Feature(bit) => write!(f, "feature {bit}"),
        }
    }
}

impl Marker {
    /// Its bytes.
    pub fn encode(&self) -> [u8; MARKER_LEN] {
        let mut bytes = [0; MARKER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.repository.0);
        bytes[32..40].copy_from_slice(&self.features.required.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.features.optional.to_le_bytes());
        let checksum = checksum(&bytes[..CHECKED_LEN]);
        bytes[CHECKED_LEN..].copy_from_slice(&checksum);
        bytes
    }

    /// Reads [`Self::encode`]; refuses versions and required features that it does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: &[u8; MARKER_LEN] = bytes
            .try_into()
            .map_err(|_| Error::Damaged("wrong length"))?;
        if &bytes[..8] != MAGIC {
            return Err(Error::Damaged("it does not begin like one"));
        }
        if checksum(&bytes[..CHECKED_LEN]) != bytes[CHECKED_LEN..] {
            return Err(Error::Damaged("its checksum does not fit"));
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(Error::Newer(Needs::Version(version)));
        }
        let (fields, _) = bytes[16..CHECKED_LEN].as_chunks::<8>();
        let [id0, id1, required, optional, reserved] = fields else {
            return Err(Error::Damaged("wrong length"));
        };
        let features = Features {
            required: u64::from_le_bytes(*required),
            optional: u64::from_le_bytes(*optional),
        };
        if let Some(bit) = features.unknown_required() {
            return Err(Error::Newer(Needs::Feature(bit)));
        }
        if bytes[10..16] != [0; 6] || *reserved != [0; 8] {
            return Err(Error::Damaged("reserved bytes are set"));
        }
        let mut repository = RepositoryId([0; RepositoryId::LEN]);
        repository.0[..8].copy_from_slice(id0);
        repository.0[8..].copy_from_slice(id1);
        Ok(Self {
            repository,
            features,
        })
    }
}

const MAGIC: &[u8; 8] = b"RWFSrepo";
/// Length of the `format` object in bytes. Later versions keep it.
pub const MARKER_LEN: usize = 64;
/// All but the checksum.
const CHECKED_LEN: usize = MARKER_LEN - CHECKSUM_LEN;

/// Length of [`checksum`] in bytes.
pub(crate) const CHECKSUM_LEN: usize = 8;

/// The first bytes of SHA-256. Tells damage from a wrong password where no key is at hand yet; proves nothing against
/// somebody who writes on purpose, which is what the MACs are for.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let [
        sum @ ..,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
    ] = digest;
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            repository: RepositoryId(*b"0123456789abcdef"),
            features: Features {
                required: 0,
                optional: 1 << 40,
            },
        }
    }

    #[test]
    fn reads_back_and_notices_every_damaged_byte() {
        let bytes = marker().encode();
        assert_eq!(Marker::decode(&bytes).unwrap(), marker());
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert!(matches!(Marker::decode(&damaged), Err(Error::Damaged(_))));
        }
        assert!(Marker::decode(&bytes[1..]).is_err());
        assert!(Marker::decode(&[]).is_err());
    }

    /// The checksum was right and they were passed over, although FORMAT.md says that a reader refuses them.
    #[test]
    fn refuses_reserved_bytes_that_are_set() {
        for at in (10..16).chain(48..56) {
            let mut bytes = marker().encode();
            bytes[at] = 1;
            let sum = checksum(&bytes[..CHECKED_LEN]);
            bytes[CHECKED_LEN..].copy_from_slice(&sum);
            let refused = Marker::decode(&bytes);
            assert!(matches!(refused, Err(Error::Damaged(_))), "{at}");
        }
    }

    #[test]
    fn stops_at_a_newer_version_and_at_an_unknown_required_feature() {
        let mut newer = marker();
        newer.features.required = 1 << 7;
        let refused = Marker::decode(&newer.encode());
        assert!(matches!(refused, Err(Error::Newer(Needs::Feature(7)))));

        let mut bytes = marker().encode();
        bytes[8] = 2;
        let sum = checksum(&bytes[..CHECKED_LEN]);
        bytes[CHECKED_LEN..].copy_from_slice(&sum);
        let refused = Marker::decode(&bytes);
        assert!(matches!(refused, Err(Error::Newer(Needs::Version(2)))));
    }
}
