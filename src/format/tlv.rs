//! Fields as type, length, value: how key objects grow without breaking older readers. FORMAT.md, "Fields".
//!
//! Types ascend, none occurs twice. A reader keeps what it does not know; what it must know is a required feature bit instead.

use std::collections::BTreeMap;

/// Gathers fields, in whatever order they come: a field that is not known may belong between two that are.
#[derive(Default)]
pub(crate) struct Fields(BTreeMap<u16, Vec<u8>>);

impl Fields {
    /// Adds one. A value may have up to 64 KiB; ours have far less.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        self.0.insert(kind, value.to_vec());
    }

    /// All fields as bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in self.0 {
            let len = u16::try_from(value.len()).expect("the caller bounds its values");
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&value);
        }
        bytes
    }
}

/// The fields in `bytes`; `None` if they are cut short, out of order or double.
pub(crate) fn parse(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut fields: Vec<(u16, &[u8])> = Vec::new();
    while !bytes.is_empty() {
        let ([k0, k1, l0, l1], rest) = bytes.split_first_chunk()?;
        let kind = u16::from_le_bytes([*k0, *k1]);
        let (value, rest) = rest.split_at_checked(u16::from_le_bytes([*l0, *l1]).into())?;
        if fields.last().is_some_and(|(before, _)| *before >= kind) {
            return None;
        }
        fields.push((kind, value));
        bytes = rest;
    }
    Some(fields)
}
