//! The value of a history entry, and the totals that commits carry too. Tagged fields; unknown ones are passed over,
//! since merging carries values as they are and only a deliberate `PutHistory` rewrites one.

use crate::clock::Stamp;
use crate::format::entry::{CommitName, HistoryEntry, Malformed, Totals};
use crate::format::wire::{Reader, each_field, put_field, whole};
use crate::id::Tag;

// Field types, FORMAT.md "Tree entries and pages".
const NAME: u16 = 1;
const TAG: u16 = 2;
const WALL: u16 = 3;
const TOTALS: u16 = 4;
const LABEL: u16 = 5;
const INCOMPLETE: u16 = 6;
const FORGOTTEN: u16 = 7;

/// The longest label in bytes that a tree takes.
pub const LABEL_MAX: usize = 1024;

impl Totals {
    /// Length in bytes.
    pub const LEN: usize = 40;

    /// Files, bytes, added, compressed, stored; little-endian.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let numbers = [
            self.files,
            self.bytes,
            self.added,
            self.compressed,
            self.stored,
        ];
        let mut bytes = [0; Self::LEN];
        for (at, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            at.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(in crate::format) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            files: reader.u64()?,
            bytes: reader.u64()?,
            added: reader.u64()?,
            compressed: reader.u64()?,
            stored: reader.u64()?,
        })
    }
}

impl HistoryEntry {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.label.len());
        put_field(&mut out, NAME, &self.name.to_bytes());
        put_field(&mut out, TAG, &self.tag.0);
        put_field(&mut out, WALL, &self.wall.0.to_le_bytes());
        put_field(&mut out, TOTALS, &self.totals.to_bytes());
        if !self.label.is_empty() {
            put_field(&mut out, LABEL, self.label.as_bytes());
        }
        if self.incomplete {
            put_field(&mut out, INCOMPLETE, b"");
        }
        if let Some(condemnation) = self.forgotten {
            put_field(&mut out, FORGOTTEN, &condemnation.to_le_bytes());
        }
        out
    }

    /// Reads [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::read(bytes).ok_or(Malformed("history entry"))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (mut name, mut tag, mut wall, mut totals) = (None, None, None, None);
        let (mut label, mut incomplete, mut forgotten) = (String::new(), false, None);
        each_field(bytes, |kind, value| {
            match kind {
                NAME => name = Some(whole(value, CommitName::read)?),
                TAG => tag = Some(Tag(value.try_into().ok()?)),
                WALL => wall = Some(Stamp(whole(value, Reader::u64)?)),
                TOTALS => totals = Some(whole(value, Totals::read)?),
                LABEL => label = std::str::from_utf8(value).ok()?.to_owned(),
                INCOMPLETE => incomplete = value.is_empty().then_some(true)?,
                FORGOTTEN => forgotten = Some(whole(value, Reader::u64)?),
                _ => {}
            }
            Some(())
        })?;
        Some(Self {
            name: name?,
            tag: tag?,
            wall: wall?,
            totals: totals?,
            label,
            incomplete,
            forgotten,
        })
    }
}
