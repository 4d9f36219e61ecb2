//! Which snapshots and which paths damage touches. Looked for only when there is damage.
//!
//! Snapshots: each tree is walked from its root, a page that many share once, and the damage below a page is remembered with it. Paths: in the
//! newest snapshot that a piece of damage touches, by the inodes whose stretches, or whose own entries, are lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use futures::future::{BoxFuture, FutureExt};

use crate::format::commit::PageRoot;
use crate::format::entry::{Contents, NameEntry, Place};
use crate::format::key::Key;
use crate::format::page::{Op, Page};
use crate::id::{BlockId, FileId, FrameNo};
use crate::path::RepoPath;
use crate::repo::Volume;
use crate::repo::commits::Found;
use crate::repo::tree::Pages;
use crate::verify::findings::Findings;
use crate::verify::references::extents_of;
use crate::verify::report::Sample;
use crate::verify::walk::{Met, Walk};
use crate::verify::{Error, go_on};

/// Pieces of damage told apart: the bits of a number. Those beyond share the last bit, and are shown with what any of them touches.
const TOLD_APART: usize = 64;
/// Levels of directories that are climbed for a path.
const DEPTH_MAX: usize = 256;

/// A set of pieces of damage.
type Marks = u64;

fn mark(at: usize) -> Marks {
    1 << at.min(TOLD_APART - 1)
}

/// Fills in the snapshots and paths of all damage in the report. `kept` are the snapshots, newest first.
pub(super) async fn find(
    volume: &Volume,
    kept: &[Found],
    findings: &mut Findings,
    stop: &AtomicBool,
) -> Result<(), Error> {
    if findings.report.damage.is_empty() {
        return Ok(());
    }
    let mut below = Below {
        volume,
        findings,
        stop,
        known: HashMap::new(),
    };
    let mut told: Marks = 0;
    let mut newest: Vec<(usize, Marks)> = Vec::new();
    let mut touched: Vec<(usize, Marks)> = Vec::new();
    for (index, found) in kept.iter().enumerate() {
        let marks = below.of_tree(found).await?;
        touched.push((index, marks));
        if marks & !told != 0 {
            newest.push((index, marks & !told));
            told |= marks;
        }
    }
    for (index, marks) in touched {
        let seq = kept[index].commit.name.seq;
        each(findings, marks, |damage| {
            damage.snapshots.add(format!("@{seq}"))
        });
    }
    for (index, marks) in newest {
        let found = &kept[index];
        let lost = lost_inodes(volume, found, findings, marks, stop).await?;
        let paths = paths(volume, found, &lost, stop).await?;
        for (at, inodes) in lost {
            let sample = Sample {
                first: inodes
                    .first
                    .iter()
                    .filter_map(|id| paths.get(id).cloned())
                    .collect(),
                count: inodes.count,
            };
            if let Some(damage) = findings.report.damage.get_mut(at) {
                damage.paths = sample;
            }
        }
    }
    Ok(())
}

fn each(
    findings: &mut Findings,
    marks: Marks,
    mut does: impl FnMut(&mut crate::verify::report::Damage),
) {
    for (at, damage) in findings.report.damage.iter_mut().enumerate() {
        if marks & mark(at) != 0 {
            does(damage);
        }
    }
}

/// Damage below each page, remembered.
struct Below<'a> {
    volume: &'a Volume,
    findings: &'a Findings,
    stop: &'a AtomicBool,
    known: HashMap<(BlockId, FrameNo), Marks>,
}

impl Below<'_> {
    async fn of_tree(&mut self, found: &Found) -> Result<Marks, Error> {
        let tree = &found.commit.tree;
        let mut marks = 0;
        for PageRoot { place, .. } in tree.base.iter().chain(&tree.runs) {
            marks |= self.of_page(place.clone()).await?;
        }
        if let Ok(page) = Page::decode(tree.inline.clone()) {
            marks |= self.of_leaf(&page);
        }
        Ok(marks)
    }

    fn of_page(&mut self, place: Place) -> BoxFuture<'_, Result<Marks, Error>> {
        async move {
            go_on(self.stop)?;
            let name = (place.at.block, place.at.frame);
            if let Some(known) = self.known.get(&name) {
                return Ok(*known);
            }
            // A page that names itself below itself is answered by this.
            self.known.insert(name, 0);
            let marks = match self.volume.blocks().page(&place).await {
                Ok(page) if page.level() == 0 => self.of_leaf(&page),
                Ok(page) => {
                    let mut marks = 0;
                    for i in 0..page.len() {
                        marks |= self.of_page(page.child(i)).await?;
                    }
                    marks
                }
                Err(error) => self.findings.of_page(self.volume, &error).map_or(0, mark),
            };
            self.known.insert(name, marks);
            Ok(marks)
        }
        .boxed()
    }

    fn of_leaf(&self, page: &Page) -> Marks {
        let (extents, _) = extents_of(page);
        let marks = extents
            .iter()
            .filter_map(|(_, extent)| lost(self.findings, &extent.contents));
        marks.fold(0, |all, at| all | mark(at))
    }
}

fn lost(findings: &Findings, contents: &Contents) -> Option<usize> {
    match contents {
        Contents::Data { place, .. } => findings.lost(place.at.block, place.at.frame),
        Contents::Hole => None,
    }
}

/// The first few inodes that damage touches, and how many.
#[derive(Default)]
struct Inodes {
    first: BTreeSet<FileId>,
    last: Option<FileId>,
    count: u64,
}

impl Inodes {
    /// Stretches of one file come one after another, so the last one tells whether it has been counted.
    fn add(&mut self, id: FileId) {
        if self.last.replace(id) == Some(id) || self.first.contains(&id) {
            return;
        }
        self.count += 1;
        if self.first.len() < Sample::room() {
            self.first.insert(id);
        }
    }
}

/// The inodes that each of these pieces of damage touches in one snapshot.
async fn lost_inodes(
    volume: &Volume,
    found: &Found,
    findings: &Findings,
    marks: Marks,
    stop: &AtomicBool,
) -> Result<BTreeMap<usize, Inodes>, Error> {
    let pages = AtomicU64::new(0);
    let walk = Walk {
        blocks: volume.blocks(),
        stop,
        pages: &pages,
        kind: None,
    };
    let mut inodes: BTreeMap<usize, Inodes> = BTreeMap::new();
    let mut add = |at: usize, id: FileId| {
        if marks & mark(at) != 0 {
            inodes.entry(at).or_default().add(id);
        }
    };
    let mut met = |met: Met| {
        match met {
            Met::Leaf(page) => {
                for (id, extent) in extents_of(&page).0 {
                    if let Some(at) = lost(findings, &extent.contents) {
                        add(at, FileId(id));
                    }
                }
            }
            Met::Lost { error, from, until } => {
                let at = findings.of_page(volume, &error);
                let ends = [Some(from), until];
                for id in ends.iter().flatten().filter_map(|key| owner(key)) {
                    at.into_iter().for_each(|at| add(at, id));
                }
            }
        }
        Ok(())
    };
    walk.tree(&found.commit.tree, None, &mut met).await?;
    Ok(inodes)
}

/// The inode that an entry belongs to: for a name its directory.
fn owner(key: &[u8]) -> Option<FileId> {
    match Key::parse(key)? {
        Key::Inode(id)
        | Key::Name(id, _)
        | Key::Extent(id, _)
        | Key::Xattrs(id)
        | Key::Xattr(id, _, _) => Some(id),
        Key::History(_) => None,
    }
}

/// A path for each of these inodes, as far as the names on the way can be read: one of its names if it has several.
async fn paths(
    volume: &Volume,
    found: &Found,
    lost: &BTreeMap<usize, Inodes>,
    stop: &AtomicBool,
) -> Result<HashMap<FileId, String>, Error> {
    let sought: BTreeSet<FileId> = lost
        .values()
        .flat_map(|inodes| inodes.first.iter().copied())
        .collect();
    let mut names: HashMap<FileId, (FileId, Vec<u8>)> = HashMap::new();
    let mut wanted = sought.clone();
    wanted.remove(&FileId::ROOT);
    for _ in 0..DEPTH_MAX {
        if wanted.is_empty() {
            break;
        }
        let met = names_of(volume, found, &wanted, stop).await?;
        wanted = met
            .values()
            .map(|(dir, _)| *dir)
            .filter(|dir| *dir != FileId::ROOT)
            .collect();
        names.extend(met);
        wanted.retain(|dir| !names.contains_key(dir));
    }
    Ok(sought
        .into_iter()
        .map(|id| (id, path_of(id, &names)))
        .collect())
}

/// Where `wanted` have a name.
async fn names_of(
    volume: &Volume,
    found: &Found,
    wanted: &BTreeSet<FileId>,
    stop: &AtomicBool,
) -> Result<HashMap<FileId, (FileId, Vec<u8>)>, Error> {
    let pages = AtomicU64::new(0);
    let walk = Walk {
        blocks: volume.blocks(),
        stop,
        pages: &pages,
        kind: Key::Name(FileId(0), b"").encode().first().copied(),
    };
    let mut candidates: Vec<(FileId, FileId, Vec<u8>)> = Vec::new();
    let mut met = |met: Met| {
        if let Met::Leaf(page) = met {
            candidates.extend(names_in(&page, wanted));
        }
        Ok(())
    };
    walk.tree(&found.commit.tree, None, &mut met).await?;
    let tree = volume.tree(&found.commit);
    let mut names = HashMap::new();
    for (id, dir, name) in candidates {
        // A newer layer may say otherwise; where that cannot be read, the name is as good as any.
        let holds = match tree.name(dir, &name).await {
            Ok(entry) => entry.is_some_and(|entry| entry.id == id),
            Err(error) if error.is_damage() => true,
            Err(error) => return Err(error.into()),
        };
        if holds {
            names.entry(id).or_insert((dir, name));
        }
    }
    Ok(names)
}

fn names_in(page: &Arc<Page>, wanted: &BTreeSet<FileId>) -> Vec<(FileId, FileId, Vec<u8>)> {
    let mut names = Vec::new();
    for i in (0..page.len()).filter(|&i| page.op(i) == Op::Put) {
        let key = page.key(i);
        let (Some(Key::Name(dir, name)), Ok(entry)) =
            (Key::parse(&key), NameEntry::decode(page.value(i)))
        else {
            continue;
        };
        if wanted.contains(&entry.id) {
            names.push((entry.id, dir, name.to_vec()));
        }
    }
    names
}

fn path_of(id: FileId, names: &HashMap<FileId, (FileId, Vec<u8>)>) -> String {
    let mut components: Vec<&[u8]> = Vec::new();
    let mut at = id;
    while at != FileId::ROOT {
        match names.get(&at) {
            Some((dir, name)) if components.len() < DEPTH_MAX => {
                components.push(name);
                at = *dir;
            }
            _ => return format!("inode {id}, whose path cannot be read"),
        }
    }
    let path = components
        .iter()
        .rev()
        .fold(RepoPath::root(), |path, name| path.join(name));
    path.to_string()
}
