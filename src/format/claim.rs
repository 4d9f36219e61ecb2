//! Claims and leases: who may write a volume, as bytes. FORMAT.md, "Claims and lease".
//!
//! Pure. Both are plaintexts here; `repo/lease.rs` encrypts them with the volume's keys, names included, and talks to
//! the store. The *rule* (which claim wins, which commits it cuts off) is in `repo/lineage.rs`.

use crate::clock::Stamp;
use crate::id::{Era, Generation, Seq, SessionId, Tag};

/// Version of both bodies.
const VERSION: u16 = 1;
/// The most bytes of an owner's text; longer is cut at a character. Keeps both objects below one small frame.
pub const OWNER_LEN_MAX: usize = 1024;
/// The most sessions that a claim adopts: one for each unclean end of a writer whose uploads were not finished. Older ones
/// fall off, after so many restarts their blocks are either named by a commit or garbage.
pub const ADOPTED_MAX: usize = 64;
/// The longest encoded body: more is not one of ours.
pub const BODY_LEN_MAX: usize = 4096;

const _: () =
    assert!(2 + 4 + 4 + 8 + 8 + 32 + 8 + 2 + OWNER_LEN_MAX + 2 + ADOPTED_MAX * 8 <= BODY_LEN_MAX);

/// All that a claim's object name holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClaimName {
    /// One more than the highest before it.
    pub generation: Generation,
    /// The era in which this writer's commits begin.
    pub era: Era,
    /// The commit it goes on from; 0 for a volume without any. Later commits of earlier writers are not history.
    pub base_seq: Seq,
    /// The writer.
    pub session: SessionId,
}

/// A claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Its name, which its body repeats.
    pub name: ClaimName,
    /// Tag of the commit it goes on from.
    pub base_tag: Option<Tag>,
    /// When it was made, by its writer's clock: for people.
    pub made: Stamp,
    /// Machine and state directory of the writer.
    pub owner: String,
    /// Sessions whose unfinished uploads this writer goes on with: their blocks must not be condemned.
    pub adopted: Vec<SessionId>,
}

/// A lease: politeness between writers. Safety rests on claims alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Generation of the holder.
    pub generation: Generation,
    /// The holder.
    pub session: SessionId,
    /// Machine and state directory of the holder.
    pub owner: String,
    /// Since when it holds it.
    pub since: Stamp,
    /// Until when, by the holder's clock; 0 when it was given back.
    pub expires: Stamp,
}

/// Why a body was refused although it is authentic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// A version that this program does not know.
    #[error("has version {0}, which is newer than this program")]
    Newer(u16),
    /// Not what this version writes.
    #[error("is authentic but malformed")]
    Malformed,
}

impl Claim {
    /// Its body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        out.extend(self.name.generation.0.to_le_bytes());
        out.extend(self.name.era.0.to_le_bytes());
        out.extend(self.name.base_seq.0.to_le_bytes());
        out.extend(self.name.session.0);
        out.extend(self.base_tag.map_or([0; Tag::LEN], |tag| tag.0));
        out.extend(self.made.0.to_le_bytes());
        put_text(&mut out, &self.owner);
        let adopted = &self.adopted[..self.adopted.len().min(ADOPTED_MAX)];
        out.extend((adopted.len() as u16).to_le_bytes());
        adopted.iter().for_each(|session| out.extend(session.0));
        out
    }

    /// Reads [`Self::encode`]; refuses anything longer, shorter or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(bytes)?;
        let name = ClaimName {
            generation: Generation(fields.u32()?),
            era: Era(fields.u32()?),
            base_seq: Seq(fields.u64()?),
            session: SessionId(fields.array()?),
        };
        let tag: [u8; Tag::LEN] = fields.array()?;
        let made = Stamp(fields.u64()?);
        let owner = fields.text()?;
        let count = fields.u16()? as usize;
        if count > ADOPTED_MAX {
            return Err(Error::Malformed);
        }
        let adopted = (0..count)
            .map(|_| fields.array().map(SessionId))
            .collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(Self {
            name,
            base_tag: (tag != [0; Tag::LEN]).then_some(Tag(tag)),
            made,
            owner,
            adopted,
        })
    }
}

impl Lease {
    /// Its body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        out.extend(self.generation.0.to_le_bytes());
        out.extend(self.session.0);
        out.extend(self.since.0.to_le_bytes());
        out.extend(self.expires.0.to_le_bytes());
        put_text(&mut out, &self.owner);
        out
    }

    /// Reads [`Self::encode`]; refuses anything longer, shorter or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(bytes)?;
        let lease = Self {
            generation: Generation(fields.u32()?),
            session: SessionId(fields.array()?),
            since: Stamp(fields.u64()?),
            expires: Stamp(fields.u64()?),
            owner: fields.text()?,
        };
        fields.end()?;
        Ok(lease)
    }
}

/// `text` as both bodies hold it, cut to [`OWNER_LEN_MAX`] at a character: what is compared must be what is stored.
pub fn owner_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(OWNER_LEN_MAX)]
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = owner_text(text);
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
}

/// What is left to read of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads the version, which comes first.
    fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Self(bytes);
        match fields.u16()? {
            VERSION => Ok(fields),
            newer if newer > VERSION => Err(Error::Newer(newer)),
            _ => Err(Error::Malformed),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Error::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, Error> {
        let len = self.u16()? as usize;
        if len > OWNER_LEN_MAX {
            return Err(Error::Malformed);
        }
        let (text, rest) = self.0.split_at_checked(len).ok_or(Error::Malformed)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Error::Malformed)
    }

    fn end(self) -> Result<(), Error> {
        self.0.is_empty().then_some(()).ok_or(Error::Malformed)
    }
}

#[cfg(test)]
mod tests;
