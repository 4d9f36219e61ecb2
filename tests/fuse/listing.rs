//! What a directory tree looks like to a program: everything `stat`, `read`, `readlink` and `getxattr` say, as one
//! comparable value.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// One entry of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Zero for directories, whose size and links are the file system's own affair.
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) device: u64,
    pub(crate) mtime: (i64, i64),
    pub(crate) number: u64,
    /// Contents as a hash, target of a symlink in plain.
    pub(crate) contents: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Entries by path relative to the root.
pub(crate) type Listing = BTreeMap<Vec<u8>, Entry>;

/// Walks `root`.
pub(crate) fn of(root: &Path) -> Listing {
    let mut listing = Listing::new();
    visit(root, root, &mut listing);
    listing
}

fn visit(root: &Path, path: &Path, listing: &mut Listing) {
    let relative = path
        .strip_prefix(root)
        .unwrap()
        .as_os_str()
        .as_bytes()
        .to_vec();
    let entry = entry(path);
    let is_dir = entry.kind == "directory";
    listing.insert(relative, entry);
    if is_dir {
        for child in std::fs::read_dir(path).unwrap() {
            visit(root, &child.unwrap().path(), listing);
        }
    }
}

fn entry(path: &Path) -> Entry {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let file_type = metadata.file_type();
    let (kind, contents) = match () {
        () if file_type.is_dir() => ("directory", Vec::new()),
        () if file_type.is_symlink() => (
            "symlink",
            std::fs::read_link(path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec(),
        ),
        () if file_type.is_file() => (
            "file",
            Sha256::digest(std::fs::read(path).unwrap()).to_vec(),
        ),
        () if file_type.is_fifo() => ("pipe", Vec::new()),
        () if file_type.is_socket() => ("socket", Vec::new()),
        () => ("device", Vec::new()),
    };
    let is_dir = kind == "directory";
    Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        size: if is_dir { 0 } else { metadata.size() },
        links: if is_dir { 0 } else { metadata.nlink() },
        device: metadata.rdev(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        number: metadata.ino(),
        contents,
        xattrs: xattrs(path),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let fd: File = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .unwrap();
    let mut names = vec![0; 64 << 10];
    let len = rewindfs::sys::list_xattrs(&fd, &mut names).unwrap_or(0);
    let names = names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = rewindfs::sys::get_xattr(&fd, name, &mut value).unwrap();
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect()
}

/// Fails with the entries that differ, and no others.
#[track_caller]
pub(crate) fn assert_same(left: &Listing, right: &Listing, what: &str) {
    let paths: std::collections::BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    let differing: Vec<String> = paths
        .into_iter()
        .filter(|path| left.get(*path) != right.get(*path))
        .map(|path| {
            format!(
                "{}\n  {:?}\n  {:?}",
                String::from_utf8_lossy(path),
                left.get(path),
                right.get(path)
            )
        })
        .collect();
    assert!(
        differing.is_empty(),
        "{what}: {} differ\n{}",
        differing.len(),
        differing.join("\n")
    );
}

/// Without what two different file systems never agree on: times and numbers.
pub(crate) fn timeless(listing: &Listing) -> Listing {
    let mut plain = listing.clone();
    for entry in plain.values_mut() {
        (entry.mtime, entry.number) = ((0, 0), 0);
    }
    plain
}
