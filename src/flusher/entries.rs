//! From an epoch's names and attributes to entries of the tree: link counts, deaths, inodes, totals.
//!
//! The source's link count is never believed for files: an inode lives as long as the *tree* has a name for it. So names come
//! first, each compared with the parent commit's; what that does to the number of names of an inode decides whether
//! it dies. Nothing here reads contents; the flow asks [`Outcome`] whose contents are wanted at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::clock::{Stamp, Timespec};
use crate::epoch::Attributes;
use crate::format::entry::{Change, Inode, Kind, NameEntry};
use crate::id::FileId;
use crate::repo::Error;
use crate::repo::tree::{Pages, Tree};
use crate::source::Node;

/// Names of a dying directory are listed in steps of this many.
const NAMES_STEP: usize = 1024;
/// Kernel timestamps advance in steps of at most a jiffy (10 ms at 100 Hz); twice that is safe.
const FINE_GRANULARITY_MS: u64 = 20;
/// File systems without sub-second times count in steps of one (ext3) or two seconds (FAT).
const COARSE_GRANULARITY_MS: u64 = 2_000;

/// What an epoch says of one inode, with its attributes as at the seal.
#[derive(Clone, Debug)]
pub(crate) struct Touched {
    /// The inode.
    pub(crate) node: Node,
    /// Created, or its contents replaced, in this epoch.
    pub(crate) fresh: bool,
    /// Dirty ranges, sorted and disjoint.
    pub(crate) dirty: Vec<Range<u64>>,
    /// What has been copied ahead of it reaches from its beginning to here without a gap.
    pub(crate) copied_front: u64,
    /// `None` if it was gone already at the seal, or is left out.
    pub(crate) attributes: Option<Box<Attributes>>,
    /// It lives, but this commit cannot say how it is: it stays as the last one has it, under the names that it has now.
    pub(crate) left_out: bool,
}

impl Touched {
    /// Whether all of it up to `end` is new: dirty in one stretch, which begins where what was copied ahead ends.
    pub(crate) fn is_new_up_to(&self, end: u64) -> bool {
        let reaches = |r: &Range<u64>| r.start <= self.copied_front && r.end >= end;
        self.dirty.iter().any(reaches)
    }
}

/// A changed name and what it points to now.
pub(crate) type NameChange = (FileId, Vec<u8>, Option<NameEntry>);

/// What becomes of the tree, contents aside.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Names, inodes and xattrs.
    pub(crate) changes: Vec<Change>,
    /// Every touched inode that lives, with what the parent commit knew of it.
    pub(crate) alive: BTreeMap<FileId, Option<Arc<Inode>>>,
    /// Change in the number of inodes that are not directories.
    pub(crate) files: i64,
    /// Change in the sum of sizes of regular files, in bytes.
    pub(crate) bytes: i64,
}

/// Works out what `touched` and `names` make of `parent`; `sealed_at` is the wall clock at the seal.
pub(crate) async fn outcome<P: Pages + Clone>(
    parent: &Tree<P>,
    touched: &BTreeMap<FileId, Touched>,
    names: &[NameChange],
    sealed_at: Stamp,
) -> Result<Outcome, Error> {
    let mut links = Links {
        parent,
        touched,
        known: HashMap::new(),
        deltas: BTreeMap::new(),
        changes: Vec::new(),
    };
    links.apply_names(names).await?;
    links.bury_directories(names).await?;
    links.into_outcome(sealed_at).await
}

/// The number of names that each inode gains and loses.
struct Links<'a, P> {
    parent: &'a Tree<P>,
    touched: &'a BTreeMap<FileId, Touched>,
    /// Inodes of the parent commit that have been asked for.
    known: HashMap<FileId, Option<Arc<Inode>>>,
    deltas: BTreeMap<FileId, i64>,
    changes: Vec<Change>,
}

impl<P: Pages + Clone> Links<'_, P> {
    async fn old(&mut self, id: FileId) -> Result<Option<Arc<Inode>>, Error> {
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let inode = self.parent.inode(id).await?.map(Arc::new);
        self.known.insert(id, inode.clone());
        Ok(inode)
    }

    /// Whether the new tree can have an inode of this number at all.
    async fn exists(&mut self, id: FileId) -> Result<bool, Error> {
        match self.touched.get(&id) {
            Some(touched) if !touched.left_out => Ok(touched.attributes.is_some()),
            _ => Ok(self.old(id).await?.is_some()),
        }
    }

    async fn apply_names(&mut self, names: &[NameChange]) -> Result<(), Error> {
        for (dir, name, now) in names {
            let old = self.parent.name(*dir, name).await?;
            let now = match now {
                // Gone before it could be read: a name must never point to nothing.
                Some(entry) if !self.exists(entry.id).await? => None,
                now => *now,
            };
            if old == now {
                continue;
            }
            if let Some(old) = old {
                *self.deltas.entry(old.id).or_default() -= 1;
            }
            if let Some(now) = now {
                *self.deltas.entry(now.id).or_default() += 1;
            }
            let (dir, name) = (*dir, name.clone());
            self.changes.push(match now {
                Some(entry) => Change::PutName { dir, name, entry },
                None => Change::DropName { dir, name },
            });
        }
        Ok(())
    }

    /// A directory that dies takes the names along that are still in it (its tree was removed behind our back).
    async fn bury_directories(&mut self, names: &[NameChange]) -> Result<(), Error> {
        let mut queue: Vec<FileId> = self.deltas.keys().copied().collect();
        if queue.iter().all(|id| self.deltas[id] >= 0) {
            return Ok(());
        }
        let said: HashSet<(FileId, &[u8])> = names
            .iter()
            .map(|(dir, name, _)| (*dir, &name[..]))
            .collect();
        let mut buried = BTreeSet::new();
        while let Some(dir) = queue.pop() {
            let old = self.old(dir).await?;
            let is_dir = old.as_ref().is_some_and(|inode| inode.kind == Kind::Dir);
            if !is_dir || self.links(dir, old.as_deref()) > 0 || !buried.insert(dir) {
                continue;
            }
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self.parent.names(dir, after.as_deref(), NAMES_STEP).await?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (name, entry) in page {
                    if !said.contains(&(dir, &name[..])) {
                        *self.deltas.entry(entry.id).or_default() -= 1;
                        queue.push(entry.id);
                        self.changes.push(Change::DropName { dir, name });
                    }
                }
            }
        }
        Ok(())
    }

    /// Names that the new tree has for an inode. A directory has one, and the root lives for ever.
    fn links(&self, id: FileId, old: Option<&Inode>) -> i64 {
        let before = match old {
            _ if id == FileId::ROOT => return 1,
            Some(inode) if inode.kind == Kind::Dir => 1,
            Some(inode) => i64::from(inode.links),
            None => 0,
        };
        before + self.deltas.get(&id).copied().unwrap_or(0)
    }

    async fn into_outcome(mut self, sealed_at: Stamp) -> Result<Outcome, Error> {
        let ids: BTreeSet<FileId> = self
            .touched
            .keys()
            .chain(self.deltas.keys())
            .copied()
            .collect();
        let mut outcome = Outcome::default();
        for id in ids {
            let old = self.old(id).await?;
            let links = self.links(id, old.as_deref());
            let attributes = self
                .touched
                .get(&id)
                .and_then(|t| t.attributes.as_ref().map(|a| (t, a)));
            let new = match (&old, attributes) {
                _ if links <= 0 => None,
                (_, Some((touched, attributes))) => Some(inode(
                    touched,
                    attributes,
                    old.as_deref(),
                    links as u32,
                    sealed_at,
                )),
                // Not readable any more but still named: it stays as it was, until reconcile sees what happened.
                (Some(old), None) => Some(relinked(old, links as u32)),
                (None, None) => None,
            };
            outcome.count(old.as_deref(), -1);
            outcome.count(new.as_ref(), 1);
            match (&old, new) {
                (Some(_), None) => self.changes.push(Change::DropInode(id)),
                (None, None) => {}
                (_, Some(new)) => {
                    if old.as_deref() != Some(&new) {
                        self.changes.push(Change::PutInode(id, new.into()));
                    }
                    if let Some((_, attributes)) = attributes {
                        self.set_xattrs(id, old.is_some(), attributes).await?;
                        outcome.alive.insert(id, old);
                    }
                }
            }
        }
        outcome.changes = self.changes;
        Ok(outcome)
    }

    async fn set_xattrs(
        &mut self,
        id: FileId,
        is_old: bool,
        attributes: &Attributes,
    ) -> Result<(), Error> {
        let before = match is_old {
            true => self.parent.xattrs(id).await?,
            false => Vec::new(),
        };
        if before != attributes.xattrs {
            self.changes
                .push(Change::SetXattrs(id, attributes.xattrs.clone()));
        }
        Ok(())
    }
}

impl Outcome {
    fn count(&mut self, inode: Option<&Inode>, sign: i64) {
        let Some(inode) = inode else { return };
        if inode.kind != Kind::Dir {
            self.files += sign;
        }
        if inode.kind == Kind::File {
            self.bytes = self
                .bytes
                .wrapping_add(sign.wrapping_mul(inode.size as i64));
        }
    }
}

fn inode(
    touched: &Touched,
    attributes: &Attributes,
    old: Option<&Inode>,
    names: u32,
    sealed_at: Stamp,
) -> Inode {
    let stat = &attributes.stat;
    Inode {
        kind: stat.kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        links: if stat.kind == Kind::Dir {
            stat.links
        } else {
            names
        },
        size: stat.size,
        rdev: stat.rdev,
        mtime: stat.mtime,
        ctime: stat.ctime,
        atime: stat.atime,
        btime: stat.btime,
        target: attributes.target.clone(),
        handle: touched.node.handle.0.to_vec(),
        racy: is_racy(stat.mtime, stat.ctime, sealed_at),
        in_place: stat.kind == Kind::File && is_in_place(touched, old),
        unknown: old.map(|inode| inode.unknown.clone()).unwrap_or_default(),
    }
}

fn relinked(old: &Inode, links: u32) -> Inode {
    let links = if old.kind == Kind::Dir {
        old.links
    } else {
        links
    };
    Inode {
        links,
        ..old.clone()
    }
}

/// Whether a file is one that is written in place: some of what the parent commit held was overwritten, and not all.
/// Appending does not count; a file that is replaced as a whole begins anew.
fn is_in_place(touched: &Touched, old: Option<&Inode>) -> bool {
    let Some(old) = old.filter(|_| !touched.fresh) else {
        return false;
    };
    // The page that holds the old end is dirtied by appending to it.
    let old_pages = old.size & !4095;
    let overwritten = touched.dirty.iter().any(|r| r.start < old_pages);
    old.in_place || (overwritten && !touched.is_new_up_to(old.size))
}

/// Whether the file could change once more without its times telling: they were younger than the clock's step when they
/// were read, and they were read at the seal or later.
fn is_racy(mtime: Timespec, ctime: Timespec, sealed_at: Stamp) -> bool {
    let step = match (mtime.nanos, ctime.nanos) {
        (0, 0) => COARSE_GRANULARITY_MS,
        _ => FINE_GRANULARITY_MS,
    };
    let changed = u64::try_from(ctime.secs).map_or(0, |secs| {
        secs.saturating_mul(1000) + u64::from(ctime.nanos / 1_000_000)
    });
    changed.saturating_add(step) > sealed_at.0
}

#[cfg(test)]
pub(crate) mod tests;
