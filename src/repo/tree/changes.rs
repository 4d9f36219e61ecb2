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

/// The changes so far, in their order. Nothing is looked up until all are there: they come nearly sorted, so that sorting them costs
/// little, and lists take less than half of the memory that maps growing in order would.
#[derive(Default)]
struct Gathered {
    /// With their number.
    entries: Vec<(usize, Entry)>,
    extents: Vec<(FileId, Extent)>,
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
        let key = key.encode();
        let number = self.entries.len();
        self.entries.push((number, Entry { key, op, value }));
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

    /// One entry hides the xattrs in older layers, and those that come before it in this list.
    fn hide_xattrs(&mut self, id: FileId) {
        self.set(&Key::Xattrs(id), Op::RangeTombstone, Vec::new());
    }

    fn put_extent(&mut self, id: FileId, extent: Extent) {
        self.extents.push((id, extent));
    }

    fn finish(self) -> Vec<Entry> {
        let Self {
            entries,
            mut extents,
        } = self;
        let mut entries = latest(entries);
        // Stable, so that those of one file stay in their order.
        extents.sort_by_key(|(id, _)| *id);
        let first_extent = Key::Extent(FileId(0), 0).encode();
        let at = entries.partition_point(|entry| entry.key < first_extent);
        let mut extents = extents.into_iter().peekable();
        let mut laid = Vec::with_capacity(extents.len());
        while let Some((id, extent)) = extents.next() {
            let mut file = Overlay::of(extent);
            while let Some((_, over)) = extents.next_if(|(next, _)| *next == id) {
                file.lay(over);
            }
            laid.extend(file.0.into_iter().map(|(end, extent)| Entry {
                key: Key::Extent(id, end).encode(),
                op: Op::Put,
                value: extent.encode(),
            }));
        }
        entries.splice(at..at, laid);
        entries
    }
}

/// What counts of numbered entries: sorted, of each key the latest, and of what a range tombstone hides nothing that came before it.
fn latest(mut entries: Vec<(usize, Entry)>) -> Vec<Entry> {
    // The latest of a key first, and of those with one key only the first is kept.
    entries.sort_by(|(m, a), (n, b)| a.key.cmp(&b.key).then(n.cmp(m)));
    entries.dedup_by(|(_, later), (_, kept)| later.key == kept.key);
    // The key of the range tombstone passed last, with which all begin that it hides, and its number.
    let mut hiding: Option<(Vec<u8>, usize)> = None;
    entries.retain(|(number, entry)| {
        if entry.op == Op::RangeTombstone {
            hiding = Some((entry.key.clone(), *number));
            return true;
        }
        let hides = |(prefix, by): &(Vec<u8>, usize)| number < by && entry.key.starts_with(prefix);
        !hiding.as_ref().is_some_and(hides)
    });
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Extents of one file by their end, never overlapping.
struct Overlay(BTreeMap<u64, Extent>);

impl Overlay {
    fn of(extent: Extent) -> Self {
        Self(BTreeMap::from([(extent.range.end, extent)]))
    }

    /// What lay in its range goes; what sticks out on either side stays.
    fn lay(&mut self, extent: Extent) {
        let (start, end) = (extent.range.start, extent.range.end);
        let hidden: Vec<u64> = self
            .0
            .range(start + 1..)
            .take_while(|(_, old)| old.range.start < end)
            .map(|(end, _)| *end)
            .collect();
        for old_end in hidden {
            let Some(old) = self.0.remove(&old_end) else {
                continue;
            };
            let range = old.range.clone();
            if range.start < start {
                let front = old.clone().cut(range.start..start);
                self.0.insert(start, front);
            }
            if end < range.end {
                self.0.insert(range.end, old.cut(end..range.end));
            }
        }
        self.0.insert(end, extent);
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
