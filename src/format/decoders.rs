//! Every decoder of the format behind one kind of door, for those who throw anything at them: the fuzzers of `tests/fuzz` and the
//! short test beside this. Not part of the program.
//!
//! A decoder must return, whatever it is given; what it accepts must be all that was said, so that it comes back the same when it is
//! written and read again.

use crate::compress::Compression;
use crate::crypto::{RecoveryKey, RepositoryKey};
use crate::format::block::{HEADER_LEN, Header, TRAILER_LEN, Trailer};
use crate::format::claim::{Claim, Lease};
use crate::format::commit::Commit;
use crate::format::entry::{Contents, Extent, HistoryEntry, Inode, NameEntry, Place};
use crate::format::frame::{Envelope, FRAME_PLAIN_MAX, IV_LEN};
use crate::format::key::{Key, extent_key, is_malformed, name_key};
use crate::format::marker::Marker;
use crate::format::page::{self, Page};
use crate::format::{directory, marker, slot};
use crate::id::VolumeId;

/// One of them.
pub struct Decoder {
    /// What it reads.
    pub name: &'static str,
    /// Reads anything. Panics if what was accepted does not come back the same.
    pub read: fn(&[u8]),
}

/// All of them.
pub const ALL: [Decoder; 18] = [
    of("marker", format_marker),
    of("slot", slot_object),
    of("slot_contents", slot_contents),
    of("volume_record", volume_record),
    of("header", header),
    of("trailer", trailer),
    of("directory", block_directory),
    of("envelope", envelope),
    of("page", tree_page),
    of("commit", commit),
    of("claim", claim),
    of("lease", lease),
    of("inode", inode),
    of("name", name_entry),
    of("extent", extent),
    of("history", history),
    of("key", key),
    of("recovery_key", recovery_key),
];

const fn of(name: &'static str, read: fn(&[u8])) -> Decoder {
    Decoder { name, read }
}

/// The decoder of this name.
///
/// # Panics
/// If there is none.
pub fn named(name: &str) -> &'static Decoder {
    const DECODERS: &[Decoder] = &ALL;
    let found = DECODERS.iter().find(|decoder| decoder.name == name);
    found.expect("the name of a decoder")
}

/// The bytes, and the same with a checksum that is right, for nothing gets past a wrong one.
fn format_marker(bytes: &[u8]) {
    let mut right = bytes.to_vec();
    if let Some((checked, sum)) = right.split_last_chunk_mut() {
        *sum = marker::checksum(checked);
    }
    for bytes in [bytes, &right] {
        if let Ok(marker) = Marker::decode(bytes) {
            assert_eq!(marker.encode(), bytes);
        }
    }
}

/// A slot's clear part; its checksum is set right, for nothing gets past a wrong one.
fn slot_object(bytes: &[u8]) {
    let _ = slot::kind(bytes);
    let mut right = bytes.to_vec();
    right.extend_from_slice(&marker::checksum(bytes));
    let _ = slot::kind(&right);
}

fn slot_contents(bytes: &[u8]) {
    if let Ok(contents) = slot::decode_contents(RepositoryKey::random(), bytes) {
        let written = slot::encode_contents(&contents);
        let again = slot::decode_contents(RepositoryKey::random(), &written);
        let again = again.expect("what was accepted is accepted again");
        assert_eq!(slot::encode_contents(&again), written);
    }
}

fn volume_record(bytes: &[u8]) {
    let decode = |bytes| slot::decode_record(VolumeId([1; VolumeId::LEN]), 1, bytes);
    if let Ok(record) = decode(bytes) {
        assert!(decode(&slot::encode_record(&record)).is_ok_and(|again| again == record));
    }
}

fn header(bytes: &[u8]) {
    if let Ok(header) = Header::decode(bytes) {
        assert!(bytes.starts_with(&header.encode()));
    }
}

/// The trailer of an object of this length, and of impossible ones.
fn trailer(bytes: &[u8]) {
    if let Ok(trailer) = Trailer::decode(bytes) {
        assert!(bytes.ends_with(&trailer.encode()));
        for len in [0, TRAILER_LEN, bytes.len() as u64, 64 << 20, u64::MAX] {
            if let Ok(range) = trailer.directory_range(len) {
                assert!(range.start <= range.end && range.end <= len);
            }
        }
    }
}

/// A directory that lies at a place of which its own length field says where.
fn block_directory(bytes: &[u8]) {
    let Some(len) = bytes.get(32..40) else { return };
    let len = u64::from_le_bytes(len.try_into().expect("eight bytes"));
    let entries = bytes.len().saturating_sub(44) / 36;
    let own = u64::from(directory::encrypted_len(entries)) + TRAILER_LEN;
    for pad_end in [len.wrapping_sub(own), 64, u64::MAX - own] {
        if let Ok(directory) = directory::decode(bytes, pad_end) {
            let mut end = HEADER_LEN;
            for entry in directory.entries() {
                assert_eq!(entry.place.offset, end);
                end += u64::from(entry.place.len);
            }
            assert_eq!(directory.pad(), end..pad_end);
            let clear: &[u8; 32] = bytes.first_chunk().expect("it has a length behind it");
            let written = directory::encode(clear, len, directory.entries());
            assert_eq!(written, bytes);
        }
    }
}

fn envelope(bytes: &[u8]) {
    if let Ok(plain) = Envelope::unpack(bytes.to_vec()) {
        assert!(plain.len() <= FRAME_PLAIN_MAX);
        let mut again = Envelope::pack(&plain, Compression::Off).into_buffer();
        again.drain(..IV_LEN);
        if bytes.first() == again.first() {
            assert!(bytes.starts_with(&again), "it was not compressed either");
        }
        assert_eq!(Envelope::unpack(again), Ok(plain));
    }
}

fn tree_page(bytes: &[u8]) {
    let Ok(page) = Page::decode(bytes.to_vec()) else {
        return;
    };
    let entries: Vec<_> = page.entries().collect();
    for (i, entry) in entries.iter().enumerate() {
        assert_eq!(page.find(&entry.key), Some(i));
        assert_eq!(page.lower_bound(&entry.key), i);
        assert!(page.key_is(i, &entry.key));
        assert_eq!(page.child_of(&entry.key), i);
        match page.level() {
            0 => map_entry(entry),
            _ => assert_eq!(Place::decode(&entry.value), Ok(page.child(i))),
        }
    }
    let again = Page::decode(page::encode(page.level(), &entries));
    let again = again.expect("what was accepted is accepted again");
    assert!(again.entries().eq(entries));
}

/// A leaf's entry, its key and its value alike.
fn map_entry(entry: &page::Entry) {
    key(&entry.key);
    let value = entry.value.as_slice();
    match Key::parse(&entry.key) {
        Some(Key::Inode(_)) => inode(value),
        Some(Key::Name(..)) => name_entry(value),
        Some(Key::Extent(_, end)) => extent_of(end, value),
        Some(Key::History(_)) => history(value),
        Some(Key::Xattrs(_) | Key::Xattr(..)) | None => {}
    }
}

fn commit(bytes: &[u8]) {
    if let Ok(commit) = Commit::decode(bytes) {
        assert!(Commit::decode(&commit.encode()).is_ok_and(|again| again == commit));
        tree_page(&commit.tree.inline);
    }
}

fn claim(bytes: &[u8]) {
    if let Ok(claim) = Claim::decode(bytes) {
        assert_eq!(claim.encode(), bytes);
    }
}

fn lease(bytes: &[u8]) {
    if let Ok(lease) = Lease::decode(bytes) {
        assert_eq!(lease.encode(), bytes);
    }
}

fn inode(bytes: &[u8]) {
    if let Ok(inode) = Inode::decode(bytes) {
        assert_eq!(Inode::decode(&inode.encode()).as_ref(), Ok(&inode));
    }
}

fn name_entry(bytes: &[u8]) {
    if let Ok(entry) = NameEntry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
    }
}

/// An extent's end, and its value.
fn extent(bytes: &[u8]) {
    let Some((end, value)) = bytes.split_first_chunk() else {
        return;
    };
    extent_of(u64::from_le_bytes(*end), value);
}

fn extent_of(end: u64, value: &[u8]) {
    let span = Extent::span(end, value);
    if let Ok(extent) = Extent::decode(end, value) {
        assert!(extent.is_valid() && extent.range.end == end);
        assert_eq!(extent.encode(), value);
        let is_hole = matches!(extent.contents, Contents::Hole);
        assert_eq!(span, Ok((extent.range, is_hole)));
    }
}

fn history(bytes: &[u8]) {
    if let Ok(entry) = HistoryEntry::decode(bytes) {
        assert_eq!(HistoryEntry::decode(&entry.encode()).as_ref(), Ok(&entry));
    }
}

fn key(bytes: &[u8]) {
    match Key::parse(bytes) {
        Some(key) => {
            assert_eq!(key.encode(), bytes);
            assert!(!is_malformed(bytes));
            assert_eq!(matches!(key, Key::Extent(..)), extent_key(bytes).is_some());
            assert_eq!(matches!(key, Key::Name(..)), name_key(bytes).is_some());
        }
        None => assert_eq!(extent_key(bytes), None),
    }
}

fn recovery_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(key) = RecoveryKey::parse(text) {
        let shown = key.to_text();
        let again = RecoveryKey::parse(&shown).expect("what was shown is read");
        assert_eq!(again.to_text(), shown);
    }
}

#[cfg(test)]
mod tests;
