//! Object names: made here, read back here, nowhere else (FORMAT.md, "Object names").
//!
//! Numbers that a reader wants newest first are written inverted (`!n`) in fixed-width hexadecimal, so that the byte
//! order of a LIST is the order in which they are wanted. Reading back is strict: a name that this version would not
//! have written is no name, whatever it resembles. Nothing here talks to a store.

use crate::clock::Stamp;
use crate::format::claim::ClaimName;
use crate::format::entry::CommitName;
use crate::id::{BlockClass, BlockId, Era, Generation, ObjectKey, Seq, SessionId, VolumeId};

/// What every name of a key object begins with: one LIST finds all slots and all volumes.
pub const KEYS_PREFIX: &str = "k/";

/// The repository's own object: magic, version, id, feature bits.
pub fn format() -> ObjectKey {
    ObjectKey::new("format")
}

/// What a slot opens with. Stands in its name, so that a reader fetches only those that can fit what it was given;
/// it stands in clear inside the slot too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SlotKind {
    /// A password.
    Password,
    /// A recovery key.
    Recovery,
}

impl SlotKind {
    fn letter(self) -> char {
        match self {
            Self::Password => 'p',
            Self::Recovery => 'r',
        }
    }
}

/// The name of a key slot: 8 random bytes and what it opens with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotName {
    /// What it opens with.
    pub kind: SlotKind,
    /// Its own number, random.
    pub id: [u8; 8],
}

/// What a name under [`KEYS_PREFIX`] means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyName {
    /// A slot.
    Slot(SlotName),
    /// A volume's wrapped key of one key epoch.
    Volume {
        /// The volume.
        volume: VolumeId,
        /// The key epoch.
        epoch: u16,
    },
}

/// Where a key slot lies.
pub fn slot(name: SlotName) -> ObjectKey {
    ObjectKey::new(format!(
        "k/s-{}{:016x}",
        name.kind.letter(),
        u64::from_be_bytes(name.id)
    ))
}

/// Where a volume's wrapped key lies.
pub fn volume_key(volume: VolumeId, epoch: u16) -> ObjectKey {
    ObjectKey::new(format!("k/v-{volume}-{epoch:04x}"))
}

/// Reads a name under [`KEYS_PREFIX`] back; `None` if it is none of this version's.
pub fn parse_key(key: &ObjectKey) -> Option<KeyName> {
    let name = key.as_str().strip_prefix(KEYS_PREFIX)?;
    if let Some(slot) = name.strip_prefix("s-") {
        let (kind, id) = match slot.split_at_checked(1)? {
            ("p", id) => (SlotKind::Password, id),
            ("r", id) => (SlotKind::Recovery, id),
            _ => return None,
        };
        let id = SessionId::from_hex(id)?.0;
        return Some(KeyName::Slot(SlotName { kind, id }));
    }
    let (volume, epoch) = name.strip_prefix("v-")?.split_once('-')?;
    Some(KeyName::Volume {
        volume: VolumeId::from_hex(volume)?,
        epoch: u16::try_from(number(epoch, 4)?).ok()?,
    })
}

/// Where a block of data or tree pages lies. A commit's block has no name of its own, its object is named by more:
/// use [`commit`]; `None` for one.
pub fn block(volume: VolumeId, id: BlockId) -> Option<ObjectKey> {
    let letter = match id.class {
        BlockClass::Data => 'd',
        BlockClass::Tree => 't',
        BlockClass::Commit => return None,
    };
    Some(ObjectKey::new(format!(
        "v/{volume}/{letter}/{}/{:08x}",
        id.session, id.number
    )))
}

/// Reads the name of a block of data or tree pages back: class, session and number, all of its id but the key epoch.
/// `None` if it is none.
pub fn parse_block(volume: VolumeId, key: &ObjectKey) -> Option<(BlockClass, SessionId, u32)> {
    let name = key.as_str().strip_prefix(&volume_prefix(volume))?;
    let (letter, rest) = name.split_once('/')?;
    let class = match letter {
        "d" => BlockClass::Data,
        "t" => BlockClass::Tree,
        _ => return None,
    };
    let (session, number) = rest.split_once('/')?;
    Some((class, SessionId::from_hex(session)?, number32(number)?))
}

/// What the names of all objects of a volume but its keys begin with.
pub fn volume_prefix(volume: VolumeId) -> String {
    format!("v/{volume}/")
}

/// What the names of all commits of a volume begin with, newest first in a LIST.
pub fn commits_prefix(volume: VolumeId) -> String {
    format!("v/{volume}/c/")
}

/// Where a commit lies.
pub fn commit(volume: VolumeId, name: &CommitName) -> ObjectKey {
    ObjectKey::new(format!(
        "{}{:08x}{:016x}.{:016x}.{}",
        commits_prefix(volume),
        !name.era.0,
        !name.stamp.0,
        name.seq.0,
        name.session
    ))
}

/// A name after which a LIST gives the commits of `era` not later than `stamp`, newest first, and then those of the
/// eras before it. No object has this name.
pub fn commits_not_later(volume: VolumeId, era: Era, stamp: Stamp) -> ObjectKey {
    ObjectKey::new(format!(
        "{}{:08x}{:016x}",
        commits_prefix(volume),
        !era.0,
        !stamp.0
    ))
}

/// Reads a commit's object name back; `None` if it is none.
pub fn parse_commit(volume: VolumeId, key: &ObjectKey) -> Option<CommitName> {
    let name = key.as_str().strip_prefix(&commits_prefix(volume))?;
    let (when, rest) = name.split_once('.')?;
    let (seq, session) = rest.split_once('.')?;
    let (era, stamp) = when.split_at_checked(8)?;
    Some(CommitName {
        era: Era(!number32(era)?),
        stamp: Stamp(!number(stamp, 16)?),
        seq: Seq(number(seq, 16)?),
        session: SessionId::from_hex(session)?,
    })
}

/// What the names of all claims on a volume begin with, highest generation first in a LIST.
pub fn claims_prefix(volume: VolumeId) -> String {
    format!("v/{volume}/c-claims/")
}

/// What the names of all claims and all commits of a volume begin with, and no other's that we write. The claims come first in a LIST.
pub fn lineage_prefix(volume: VolumeId) -> String {
    format!("v/{volume}/c")
}

/// Where a claim lies.
pub fn claim(volume: VolumeId, name: &ClaimName) -> ObjectKey {
    ObjectKey::new(format!(
        "{}{:08x}.{:08x}.{:016x}.{}",
        claims_prefix(volume),
        !name.generation.0,
        name.era.0,
        name.base_seq.0,
        name.session
    ))
}

/// Reads a claim's object name back; `None` if it is none.
pub fn parse_claim(volume: VolumeId, key: &ObjectKey) -> Option<ClaimName> {
    let name = key.as_str().strip_prefix(&claims_prefix(volume))?;
    let mut parts = name.split('.');
    let parsed = ClaimName {
        generation: Generation(!number32(parts.next()?)?),
        era: Era(number32(parts.next()?)?),
        base_seq: Seq(number(parts.next()?, 16)?),
        session: SessionId::from_hex(parts.next()?)?,
    };
    parts.next().is_none().then_some(parsed)
}

/// Where the volume's lease lies: the only object that is ever written over.
pub fn lease(volume: VolumeId) -> ObjectKey {
    ObjectKey::new(format!("v/{volume}/lease"))
}

/// Reads exactly `digits` lower-case hexadecimal digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let lower_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.as_bytes().iter().all(lower_hex) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// Reads exactly eight.
fn number32(text: &str) -> Option<u32> {
    u32::try_from(number(text, 8)?).ok()
}

#[cfg(test)]
mod tests;
