//! Tree pages: sorted entries, 32 KiB plain (FORMAT.md, "Tree entries and pages").
//!
//! A page is searched as it lies: decoding checks every offset and the order of the keys once, and allocates nothing.
//! What keys and values mean is not known here. `repo/tree` builds and searches pages, `repo/blocks` decodes them.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::format::entry::Place;
use crate::format::key::KEY_MAX;

#[cfg(test)]
mod tests;

/// The longest encoded page in bytes.
pub const PAGE_MAX: usize = 32 << 10;
/// The longest value in bytes: a page can hold it together with the longest key.
pub const VALUE_MAX: usize = PAGE_MAX - HEADER - ENTRY_OVERHEAD - KEY_MAX;
/// The most levels of pages. With two entries to a page, the least a split leaves, this is more than any tree needs
/// that fits a store; it bounds what a damaged root can make a reader do.
pub const HEIGHT_MAX: u8 = 32;

const VERSION: u8 = 1;
/// Version, level, count, length of the common prefix.
const HEADER: usize = 6;
/// An entry's offset in the table and the two bytes of operation and key length.
const ENTRY_OVERHEAD: usize = 4;
/// The operation stands above the key's length in one 16-bit number.
const OP_SHIFT: u16 = 14;

const _: () = assert!(PAGE_MAX <= u16::MAX as usize && KEY_MAX < 1 << OP_SHIFT);

/// Why bytes are no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Written by a newer version.
    #[error("tree page of version {0}, this program knows {VERSION}")]
    Version(u8),
    /// Not a page at all.
    #[error("malformed tree page: {0}")]
    Malformed(&'static str),
}

/// What an entry says of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Op {
    /// It has this value.
    Put = 0,
    /// Older layers' entry under this key is gone.
    Tombstone = 1,
    /// Older layers' entries under all keys that begin with this one are gone.
    RangeTombstone = 2,
}

/// An entry that owns its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its key.
    pub key: Vec<u8>,
    /// What it says.
    pub op: Op,
    /// The value; empty for tombstones.
    pub value: Vec<u8>,
}

/// Bytes that encoded entries take, kept up while they are gathered.
#[derive(Clone, Copy, Default, Debug)]
pub struct Weight {
    entries: usize,
    bytes: usize,
}

impl Weight {
    /// With one entry more.
    pub fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.bytes += ENTRY_OVERHEAD + entry.key.len() + entry.value.len();
    }

    /// Bytes of a page of entries that weigh this and whose keys share the first `prefix` bytes.
    pub fn page_len(&self, prefix: usize) -> usize {
        HEADER + prefix + self.bytes - self.entries * prefix
    }
}

/// The length of the page that [`encode`] makes.
pub fn encoded_len(entries: &[Entry]) -> usize {
    let mut weight = Weight::default();
    entries.iter().for_each(|entry| weight.add(entry));
    weight.page_len(common_prefix_of(entries))
}

/// How many bytes two keys have in common at their front.
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Encodes entries, which must be sorted by key without duplicates, not empty and of at most [`PAGE_MAX`] bytes
/// ([`encoded_len`]). Level 0 is a leaf; entries of other levels are puts of places.
pub fn encode(level: u8, entries: &[Entry]) -> Vec<u8> {
    let prefix_len = common_prefix_of(entries);
    let len = encoded_len(entries);
    assert!(
        !entries.is_empty() && len <= PAGE_MAX,
        "a page of {} entries and {len} bytes",
        entries.len()
    );
    debug_assert!(entries.is_sorted_by(|a, b| a.key < b.key));
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&[VERSION, level]);
    // Each cast fits: the page is no longer than PAGE_MAX, which is checked against u16 above.
    out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    out.extend_from_slice(&(prefix_len as u16).to_le_bytes());
    out.extend_from_slice(&entries[0].key[..prefix_len]);
    let mut at = HEADER + prefix_len + 2 * entries.len();
    for entry in entries {
        out.extend_from_slice(&(at as u16).to_le_bytes());
        at += 2 + entry.key.len() - prefix_len + entry.value.len();
    }
    for entry in entries {
        let suffix = &entry.key[prefix_len..];
        let head = (entry.op as u16) << OP_SHIFT | suffix.len() as u16;
        out.extend_from_slice(&head.to_le_bytes());
        out.extend_from_slice(suffix);
        out.extend_from_slice(&entry.value);
    }
    out
}

fn common_prefix_of(entries: &[Entry]) -> usize {
    match entries {
        [] => 0,
        // Sorted: what the first and the last share, all share.
        [first, .., last] => common_prefix(&first.key, &last.key),
        [only] => only.key.len(),
    }
}

/// A decoded page. Cheap to keep: one buffer.
#[derive(Clone, Debug)]
pub struct Page {
    bytes: Bytes,
    level: u8,
    count: usize,
    prefix_len: usize,
}

impl Page {
    /// Checks a page's bytes. Safe for any input; costs one pass over it.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, Error> {
        let bytes = bytes.into();
        if bytes.len() > PAGE_MAX {
            return Err(Error::Malformed("too long"));
        }
        let Some(&[version, level, c0, c1, p0, p1]) = bytes.first_chunk::<HEADER>() else {
            return Err(Error::Malformed("shorter than its header"));
        };
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let page = Self {
            level,
            count: u16::from_le_bytes([c0, c1]).into(),
            prefix_len: u16::from_le_bytes([p0, p1]).into(),
            bytes,
        };
        page.check()?;
        Ok(page)
    }

    fn check(&self) -> Result<(), Error> {
        if self.level >= HEIGHT_MAX {
            return Err(Error::Malformed("too high"));
        }
        if self.count == 0 {
            return Err(Error::Malformed("empty"));
        }
        let mut at = HEADER + self.prefix_len + 2 * self.count;
        if at > self.bytes.len() {
            return Err(Error::Malformed("table of offsets outside the page"));
        }
        for i in 0..self.count {
            if self.u16_at(self.table() + 2 * i) != at {
                return Err(Error::Malformed("offsets out of order"));
            }
            let end = match i + 1 < self.count {
                true => self.u16_at(self.table() + 2 * (i + 1)),
                false => self.bytes.len(),
            };
            self.check_entry(i, at, end)?;
            at = end;
        }
        Ok(())
    }

    fn check_entry(&self, i: usize, at: usize, end: usize) -> Result<(), Error> {
        if at + 2 > end || end > self.bytes.len() {
            return Err(Error::Malformed("entry outside the page"));
        }
        let head = self.u16_at(at);
        let key_len = self.prefix_len + (head & ((1 << OP_SHIFT) - 1));
        if at + 2 + key_len - self.prefix_len > end || !(1..=KEY_MAX).contains(&key_len) {
            return Err(Error::Malformed("key outside its entry"));
        }
        let Some(op) = op_of(head) else {
            return Err(Error::Malformed("unknown operation"));
        };
        if op != Op::Put && !self.value(i).is_empty() {
            return Err(Error::Malformed("tombstone with a value"));
        }
        if i > 0 && self.suffix(i - 1) >= self.suffix(i) {
            return Err(Error::Malformed("keys out of order"));
        }
        if self.level > 0 && (op != Op::Put || Place::decode(self.value(i)).is_err()) {
            return Err(Error::Malformed("inner entry without a place"));
        }
        Ok(())
    }

    /// 0 for a leaf, else one more than that of the pages it points to.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Number of entries, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "no page is empty")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Its bytes as encoded.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What entry `i` says.
    pub fn op(&self, i: usize) -> Op {
        op_of(self.u16_at(self.offset(i))).expect("checked by decode")
    }

    /// Value of entry `i`.
    pub fn value(&self, i: usize) -> &[u8] {
        let at = self.offset(i);
        let suffix_len = self.u16_at(at) & ((1 << OP_SHIFT) - 1);
        &self.bytes[at + 2 + suffix_len..self.end(i)]
    }

    /// Key of entry `i`.
    pub fn key(&self, i: usize) -> Vec<u8> {
        [self.prefix(), self.suffix(i)].concat()
    }

    /// Key of entry `i`, written over `out`: saves the allocation where a page is walked.
    pub fn key_into(&self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.suffix(i));
    }

    /// Whether entry `i` has this key.
    pub fn key_is(&self, i: usize, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix()) == Some(self.suffix(i))
    }

    /// The place that entry `i` of an inner page points to.
    pub fn child(&self, i: usize) -> Place {
        Place::decode(self.value(i))
            .expect("checked by decode for inner pages, the only ones asked")
    }

    /// The entries in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.count).map(|i| Entry {
            key: self.key(i),
            op: self.op(i),
            value: self.value(i).to_vec(),
        })
    }

    /// The first entry whose key is not less than `key`; [`Self::len`] if there is none.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        self.first_where(key, Ordering::is_ge)
    }

    /// The entry of an inner page under which `key` lies: the last that is not greater, else the first.
    pub fn child_of(&self, key: &[u8]) -> usize {
        self.first_where(key, Ordering::is_gt).saturating_sub(1)
    }

    /// The entry with exactly this key.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let i = self.lower_bound(key);
        (i < self.count && self.key_is(i, key)).then_some(i)
    }

    /// The first entry whose key compares to `key` as wanted, which must hold for all after it too.
    fn first_where(&self, key: &[u8], wanted: impl Fn(Ordering) -> bool) -> usize {
        let Some(suffix) = key.strip_prefix(self.prefix()) else {
            // All keys compare alike: by the prefix that they share and `key` does not have.
            return match wanted(self.prefix().cmp(key)) {
                true => 0,
                false => self.count,
            };
        };
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match wanted(self.suffix(middle).cmp(suffix)) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        low
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[HEADER..HEADER + self.prefix_len]
    }

    fn suffix(&self, i: usize) -> &[u8] {
        let at = self.offset(i);
        let suffix_len = self.u16_at(at) & ((1 << OP_SHIFT) - 1);
        &self.bytes[at + 2..at + 2 + suffix_len]
    }

    fn table(&self) -> usize {
        HEADER + self.prefix_len
    }

    fn offset(&self, i: usize) -> usize {
        assert!(i < self.count, "entry {i} of {}", self.count);
        self.u16_at(self.table() + 2 * i)
    }

    fn end(&self, i: usize) -> usize {
        match i + 1 < self.count {
            true => self.offset(i + 1),
            false => self.bytes.len(),
        }
    }

    fn u16_at(&self, at: usize) -> usize {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]).into()
    }
}

fn op_of(head: usize) -> Option<Op> {
    match head >> OP_SHIFT {
        0 => Some(Op::Put),
        1 => Some(Op::Tombstone),
        2 => Some(Op::RangeTombstone),
        _ => None,
    }
}
