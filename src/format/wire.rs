//! The primitive encodings that entries, pages and commits are made of: little-endian numbers, variable-length
//! numbers and tagged fields (FORMAT.md, "Tree entries and pages"). Readers never panic and never allocate more
//! than they were given; `None` always means "not what this encoding allows". Used inside `format` only.

/// Takes values off the front of a byte slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been taken yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A variable-length number. Only the shortest form is accepted, so that each number has one encoding.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    /// The next tagged field: its type and its bytes.
    pub(crate) fn field(&mut self) -> Option<(u16, &'a [u8])> {
        let kind = self.varint()?.try_into().ok()?;
        let len = self.varint()?.try_into().ok()?;
        Some((kind, self.take(len)?))
    }

    /// Says that the value ends here.
    pub(crate) fn end(self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }
}

/// Reads all of `bytes` with `read`; `None` if it wants more or leaves something.
pub(crate) fn whole<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
) -> Option<T> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader)?;
    reader.end()?;
    Some(value)
}

/// Seven bits to a byte, lowest first; the top bit says that more follow.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A tagged field: type, length, bytes.
pub(crate) fn put_field(out: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    put_varint(out, kind.into());
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads tagged fields in strictly ascending order of type and hands each to `field`; `None` as soon as it or the
/// order fails.
pub(crate) fn each_field<'a>(
    bytes: &'a [u8],
    mut field: impl FnMut(u16, &'a [u8]) -> Option<()>,
) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let mut last = None;
    while !reader.is_empty() {
        let (kind, value) = reader.field()?;
        if last.is_some_and(|last| last >= kind) {
            return None;
        }
        last = Some(kind);
        field(kind, value)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_have_one_form() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(whole(&bytes, Reader::varint), Some(value));
            for cut in 0..bytes.len() {
                assert_eq!(whole(&bytes[..cut], Reader::varint), None);
            }
        }
        assert_eq!(
            whole(&[0x80, 0x00], Reader::varint),
            None,
            "a longer form of 0"
        );
        assert_eq!(
            whole(&[0xff; 10], Reader::varint),
            None,
            "more than 64 bits"
        );
        let mut over = [0xff; 10];
        over[9] = 2;
        assert_eq!(whole(&over, Reader::varint), None, "bit 64");
    }

    #[test]
    fn fields_must_ascend() {
        let mut bytes = Vec::new();
        put_field(&mut bytes, 2, b"two");
        put_field(&mut bytes, 300, b"");
        let mut seen = Vec::new();
        let read = each_field(&bytes, |kind, value| {
            seen.push((kind, value.to_vec()));
            Some(())
        });
        assert_eq!(read, Some(()));
        assert_eq!(seen, [(2, b"two".to_vec()), (300, Vec::new())]);
        put_field(&mut bytes, 300, b"");
        assert_eq!(each_field(&bytes, |_, _| Some(())), None);
    }
}
