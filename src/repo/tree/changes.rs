//! From a list of changes in the order they happened to the sorted entries of one layer, in which each key stands
//! once and no two extents overlap. Pure.

use std::collections::BTreeMap;

use crate::format::entry::{Change, Contents, Extent, Inode, LABEL_MAX};
use crate::format::key::{Key, is_entry_name, is_name};
use crate::format::page::{Entry, Op, VALUE_MAX};
use crate::id::FileId;
use crate::repo::tree::Error;

/// The longest xattr value in bytes (what Linux allows).
pub const XATTR_VALUE_MAX: usize = 64 << 10;
/// Xattr values are cut into parts of this many bytes, so that a few fit a page.
const XATTR_PART: usize = 8 << 10;

const _: () = assert!(XATTR_PART <= VALUE_MAX && XATTR_VALUE_MAX / XATTR_PART <= u8::MAX as usize);

/// What the changes so far come to.
#[derive(Default)]
struct Gathered {
    keys: BTreeMap<Vec<u8>, (Op, Vec<u8>)>,
    /// By file and end; never overlapping.
    extents: BTreeMap<(FileId, u64), Extent>,
}

/// Sorts `changes`; later ones win. Fails without effect if one of them cannot be stored.
pub(super) fn sorted(changes: impl IntoIterator<Item = Change>) -> Result<Vec<Entry>, Error> {
    let mut gathered = Gathered::default();
    for change in changes {
        gathered.add(change)?;
    }
    Ok(gathered.finish())
}

impl Gathered {
    fn add(&mut self, change: Change) -> Result<(), Error> {
        match change {
            Change::PutInode(id, inode) => self.put(&Key::Inode(id), encode_inode(id, &inode)?),
            Change::DropInode(id) => {
                self.set(&Key::Inode(id), Op::Tombstone, Vec::new());
                self.hide_xattrs(id);
                self.put_extent(
                    id,
                    Extent {
                        range: 0..u64::MAX,
                        contents: Contents::Hole,
                    },
                );
            }
            Change::PutName { dir, name, entry } => {
                check_name(dir, &name)?;
                self.put(&Key::Name(dir, &name), entry.encode());
            }
            Change::DropName { dir, name } => {
                check_name(dir, &name)?;
                self.set(&Key::Name(dir, &name), Op::Tombstone, Vec::new());
            }
            Change::SetXattrs(id, xattrs) => self.set_xattrs(id, &xattrs)?,
            Change::PutExtent(id, extent) => {
                if !extent.is_valid() {
                    return Err(refused("extent", id, "empty, or beyond its frame"));
                }
                self.put_extent(id, *extent);
            }
            Change::PutHistory(entry) => {
                if entry.label.len() > LABEL_MAX {
                    return Err(refused(
                        "history label",
                        FileId(entry.name.seq.0),
                        "too long",
                    ));
                }
                self.put(&Key::History(entry.name.seq), entry.encode());
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &Key<'_>, value: Vec<u8>) {
        self.set(key, Op::Put, value);
    }

    fn set(&mut self, key: &Key<'_>, op: Op, value: Vec<u8>) {
        self.keys.insert(key.encode(), (op, value));
    }

    fn set_xattrs(&mut self, id: FileId, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Error> {
        for (name, value) in xattrs {
            if !is_name(name) {
                return Err(refused(
                    "xattr",
                    id,
                    "its name is empty, too long or holds a NUL",
                ));
            }
            if value.len() > XATTR_VALUE_MAX {
                return Err(refused("xattr", id, "its value is longer than 64 KiB"));
            }
        }
        self.hide_xattrs(id);
        // One name given twice: the later value wins whole.
        let by_name: BTreeMap<_, _> = xattrs.iter().map(|(name, value)| (name, value)).collect();
        for (name, value) in by_name {
            self.put(
                &Key::Xattr(id, name, 0),
                value[..value.len().min(XATTR_PART)].to_vec(),
            );
            for (part, bytes) in (0..).zip(value.chunks(XATTR_PART)).skip(1) {
                self.put(&Key::Xattr(id, name, part), bytes.to_vec());
            }
        }
        Ok(())
    }

    /// One entry hides the xattrs in older layers; those of this list go at once.
    fn hide_xattrs(&mut self, id: FileId) {
        let prefix = Key::Xattrs(id).encode();
        let gone: Vec<_> = self
            .keys
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.keys.remove(&key);
        }
        self.keys.insert(prefix, (Op::RangeTombstone, Vec::new()));
    }

    /// What lay in its range goes; what sticks out on either side stays.
    fn put_extent(&mut self, id: FileId, extent: Extent) {
        let (start, end) = (extent.range.start, extent.range.end);
        let hidden: Vec<u64> = self
            .extents
            .range((id, start + 1)..=(id, u64::MAX))
            .take_while(|(_, old)| old.range.start < end)
            .map(|((_, end), _)| *end)
            .collect();
        for old_end in hidden {
            let Some(old) = self.extents.remove(&(id, old_end)) else {
                continue;
            };
            let range = old.range.clone();
            if range.start < start {
                let front = old.clone().cut(range.start..start);
                self.extents.insert((id, start), front);
            }
            if end < range.end {
                self.extents
                    .insert((id, range.end), old.cut(end..range.end));
            }
        }
        self.extents.insert((id, end), extent);
    }

    fn finish(self) -> Vec<Entry> {
        let mut entries: Vec<_> = self
            .keys
            .into_iter()
            .map(|(key, (op, value))| Entry { key, op, value })
            .collect();
        let extents = self.extents.into_iter().map(|((id, end), extent)| Entry {
            key: Key::Extent(id, end).encode(),
            op: Op::Put,
            value: extent.encode(),
        });
        let first_extent = Key::Extent(FileId(0), 0).encode();
        let at = entries.partition_point(|entry| entry.key < first_extent);
        entries.splice(at..at, extents);
        entries
    }
}

fn encode_inode(id: FileId, inode: &Inode) -> Result<Vec<u8>, Error> {
    let times = [
        Some(inode.mtime),
        Some(inode.ctime),
        Some(inode.atime),
        inode.btime,
    ];
    if times
        .iter()
        .flatten()
        .any(|time| time.nanos >= 1_000_000_000)
    {
        return Err(refused("inode", id, "a time with more than 999,999,999 ns"));
    }
    let bytes = inode.encode();
    match bytes.len() <= VALUE_MAX {
        true => Ok(bytes),
        false => Err(refused("inode", id, "longer than a tree page")),
    }
}

fn check_name(dir: FileId, name: &[u8]) -> Result<(), Error> {
    match is_entry_name(name) {
        true => Ok(()),
        false => Err(refused(
            "a name",
            dir,
            "it is empty, too long, a dot or two, or holds a slash or a NUL",
        )),
    }
}

fn refused(what: &'static str, id: FileId, why: &'static str) -> Error {
    Error::Refused {
        what,
        id: id.0,
        why,
    }
}
