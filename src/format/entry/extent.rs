//! The values of names and of extents. An extent's end stands in its key; its value says how long it is.

use std::ops::Range;

use crate::format::entry::{Contents, Extent, Kind, Malformed, NameEntry, Place};
use crate::format::frame::FRAME_PLAIN_MAX;
use crate::format::wire::{Reader, put_varint, whole};
use crate::id::{ContentId, FileId};

const DATA: u8 = 1;
const CONTENT: u8 = 2;

impl NameEntry {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.id.0.to_le_bytes().to_vec();
        out.push(self.kind as u8);
        out
    }

    /// Reads [`Self::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        whole(bytes, |reader| {
            Some(Self {
                id: FileId(reader.u64()?),
                kind: Kind::from_u8(reader.u8()?)?,
            })
        })
        .ok_or(Malformed("directory entry"))
    }
}

impl Extent {
    /// Whether it is what a tree can hold: not empty, and data within one frame.
    pub fn is_valid(&self) -> bool {
        let Some(len) = self.range.end.checked_sub(self.range.start) else {
            return false;
        };
        len > 0
            && match &self.contents {
                Contents::Hole => true,
                Contents::Data { place, .. } => u64::from(place.at.inner)
                    .checked_add(len)
                    .is_some_and(|end| end <= FRAME_PLAIN_MAX as u64),
            }
    }

    /// The bytes of its value; its end belongs into the key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        let len = self.range.end - self.range.start;
        match &self.contents {
            Contents::Hole => {
                out.push(0);
                put_varint(&mut out, len);
            }
            Contents::Data { place, content } => {
                out.push(DATA | (u8::from(content.is_some()) * CONTENT));
                put_varint(&mut out, len);
                place.encode_into(&mut out);
                if let Some(content) = content {
                    out.extend_from_slice(&content.0);
                }
            }
        }
        out
    }

    /// Reads the value under a key that ends at `end`.
    pub fn decode(end: u64, bytes: &[u8]) -> Result<Self, Malformed> {
        whole(bytes, |reader| {
            let (flags, range) = read_span(end, reader)?;
            let contents = match flags & DATA {
                0 => Contents::Hole,
                _ => Contents::Data {
                    place: Place::read(reader)?,
                    content: match flags & CONTENT {
                        0 => None,
                        _ => Some(ContentId(reader.array()?)),
                    },
                },
            };
            Some(Self { range, contents })
        })
        .filter(Self::is_valid)
        .ok_or(Malformed("extent"))
    }

    /// The stretch alone, without reading where it points; and whether it is a hole.
    pub fn span(end: u64, bytes: &[u8]) -> Result<(Range<u64>, bool), Malformed> {
        let (flags, range) = read_span(end, &mut Reader::new(bytes)).ok_or(Malformed("extent"))?;
        Ok((range, flags & DATA == 0))
    }

    /// The part of it within `range`, which must lie inside it. A part is no longer a whole chunk, and what is cut
    /// off its front moves the address on.
    pub fn cut(self, range: Range<u64>) -> Self {
        debug_assert!(self.range.start <= range.start && range.end <= self.range.end);
        if range == self.range {
            return self;
        }
        let contents = match self.contents {
            Contents::Hole => Contents::Hole,
            Contents::Data { mut place, .. } => {
                // Fits: data lies within one frame (`is_valid`).
                place.at.inner += (range.start - self.range.start) as u32;
                Contents::Data {
                    place,
                    content: None,
                }
            }
        };
        Self { range, contents }
    }
}

/// Flags and stretch. A content id without data is refused, so that each extent has one encoding.
fn read_span(end: u64, reader: &mut Reader<'_>) -> Option<(u8, Range<u64>)> {
    let flags = reader.u8()?;
    if !matches!(flags, 0 | 1 | 3) {
        return None;
    }
    let len = reader.varint()?;
    let start = end.checked_sub(len)?;
    (len > 0).then_some((flags, start..end))
}
