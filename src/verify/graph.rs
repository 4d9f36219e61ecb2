//! One snapshot's names against its inodes: every name leads to an inode, every inode has its names, every directory hangs on the root.
//!
//! Inodes are taken a window at a time, and all names are read for each window, so that memory does not grow with the number of files;
//! only directories are kept all at once, 16 bytes each.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::format::entry::{Kind, NameEntry};
use crate::id::FileId;
use crate::repo::blocks::Blocks;
use crate::repo::commits::Found;
use crate::repo::tree::Tree;
use crate::repo::{self, Volume, layout};
use crate::verify::findings::Findings;
use crate::verify::{Error, go_on};

/// Inodes in a window: about 24 MiB.
const WINDOW: usize = 1 << 20;
/// Entries read from the tree in one go.
const BATCH: usize = 4096;

/// The comparison of one snapshot.
pub(super) struct Graph<'a> {
    tree: Tree<Arc<Blocks>>,
    object: String,
    stop: &'a AtomicBool,
}

/// An inode of the window.
struct Counted {
    id: FileId,
    kind: Kind,
    links: u32,
    names: u32,
}

/// Directories with the directory that has a name for each.
type Parents = Vec<(FileId, FileId)>;

impl<'a> Graph<'a> {
    pub(super) fn new(volume: &Volume, found: &Found, stop: &'a AtomicBool) -> Self {
        Self {
            tree: volume.tree(&found.commit),
            object: layout::commit(volume.info().id, &found.commit.name).to_string(),
            stop,
        }
    }

    /// Compares, and notes what does not fit. A tree with pages that cannot be read is not compared: `damage_before` is how much
    /// damage there was before its pages were read.
    pub(super) async fn compare(
        self,
        findings: &mut Findings,
        damage_before: usize,
    ) -> Result<(), Error> {
        let mut wrong = Vec::new();
        match self.find(&mut wrong).await {
            Ok(()) => findings.report.snapshots_compared += 1,
            Err(Error::Repository(error)) if error.is_damage() => {
                // Its pages have been met already, by this commit or by one that shares them.
                if findings.report.damage.len() == damage_before && !findings.report.is_damaged() {
                    wrong.push(error.to_string());
                }
            }
            Err(other) => return Err(other),
        }
        for what in wrong {
            findings.add(self.object.clone(), what);
        }
        Ok(())
    }

    async fn find(&self, wrong: &mut Vec<String>) -> Result<(), Error> {
        let mut parents = Parents::new();
        let mut after = None;
        let mut is_first = true;
        loop {
            let mut window = self.window(after).await?;
            let is_last = window.len() < WINDOW;
            let from = after.map_or(0, |FileId(after)| after + 1);
            let until = match is_last {
                true => u64::MAX,
                false => window.last().map_or(u64::MAX, |last| last.id.0),
            };
            let collect = is_first.then_some(&mut parents);
            self.count(&mut window, from..=until, collect, wrong)
                .await?;
            window.iter().for_each(|inode| wrong.extend(misfit(inode)));
            if is_last {
                break;
            }
            (after, is_first) = (window.last().map(|last| last.id), false);
        }
        wrong.extend(unreachable(parents));
        Ok(())
    }

    async fn window(&self, after: Option<FileId>) -> Result<Vec<Counted>, Error> {
        let mut window: Vec<Counted> = Vec::new();
        let mut after = after;
        while window.len() < WINDOW {
            go_on(self.stop)?;
            let batch = self
                .tree
                .inodes(after, BATCH.min(WINDOW - window.len()))
                .await?;
            let Some((last, _)) = batch.last() else { break };
            after = Some(*last);
            window.extend(batch.into_iter().map(|(id, inode)| Counted {
                id,
                kind: inode.kind,
                links: inode.links,
                names: 0,
            }));
        }
        Ok(window)
    }

    /// Counts the names of a window's inodes, and notes names that lead to none of them or lie in no directory.
    async fn count(
        &self,
        window: &mut [Counted],
        ids: std::ops::RangeInclusive<u64>,
        mut parents: Option<&mut Parents>,
        wrong: &mut Vec<String>,
    ) -> Result<(), Error> {
        let mut last: Option<(FileId, Vec<u8>)> = None;
        loop {
            go_on(self.stop)?;
            let after = last.as_ref().map(|(dir, name)| (*dir, name.as_slice()));
            let batch = self.names(after).await?;
            for (dir, name, entry) in &batch {
                let begins_directory = last.as_ref().is_none_or(|(before, _)| before != dir);
                if begins_directory
                    && ids.contains(&dir.0)
                    && kind_of(window, *dir) != Some(Kind::Dir)
                {
                    wrong.push(format!("there are names in {dir}, which is no directory"));
                }
                last = Some((*dir, name.clone()));
                if entry.kind == Kind::Dir
                    && let Some(parents) = &mut parents
                {
                    parents.push((entry.id, *dir));
                }
                if !ids.contains(&entry.id.0) {
                    continue;
                }
                match window.binary_search_by_key(&entry.id, |inode| inode.id) {
                    Ok(at) if window[at].kind == entry.kind => window[at].names += 1,
                    Ok(_) => wrong.push(format!(
                        "{} is not of the kind that its inode {} is",
                        shown(*dir, name),
                        entry.id
                    )),
                    Err(_) => wrong.push(format!(
                        "{} leads to inode {}, which does not exist",
                        shown(*dir, name),
                        entry.id
                    )),
                }
            }
            if batch.len() < BATCH {
                return Ok(());
            }
        }
    }

    async fn names(
        &self,
        after: Option<(FileId, &[u8])>,
    ) -> Result<Vec<(FileId, Vec<u8>, NameEntry)>, repo::Error> {
        self.tree.all_names(after, BATCH).await
    }
}

fn kind_of(window: &[Counted], id: FileId) -> Option<Kind> {
    let at = window.binary_search_by_key(&id, |inode| inode.id).ok()?;
    Some(window[at].kind)
}

/// What is wrong with the number of an inode's names.
fn misfit(inode: &Counted) -> Option<String> {
    let (id, names) = (inode.id, inode.names);
    match (inode.kind, id) {
        (Kind::Dir, FileId::ROOT) => (names > 0).then(|| "the root has a name".to_owned()),
        (_, FileId::ROOT) => Some("the root is no directory".to_owned()),
        (_, _) if names == 0 => Some(format!("inode {id} has no name")),
        (Kind::Dir, _) => (names > 1).then(|| format!("directory {id} has {names} names")),
        _ => (names != inode.links)
            .then(|| format!("inode {id} has {names} names and counts {}", inode.links)),
    }
}

/// Directories from which no way leads up to the root.
fn unreachable(mut parents: Parents) -> Vec<String> {
    parents.sort_unstable();
    let find = |id: FileId| parents.binary_search_by_key(&id, |(child, _)| *child).ok();
    // Whether the way up from each has been walked, and by which walk.
    let mut walked_by = vec![0usize; parents.len()];
    let mut wrong = Vec::new();
    for start in 0..parents.len() {
        let mut at = start;
        while walked_by[at] == 0 {
            walked_by[at] = start + 1;
            let (child, parent) = parents[at];
            if parent == FileId::ROOT {
                break;
            }
            match find(parent) {
                // A circle is noted once, by the walk that closed it.
                Some(next) if walked_by[next] == start + 1 => {
                    wrong.push(format!("directory {child} lies within itself"));
                    break;
                }
                Some(next) => at = next,
                None => {
                    wrong.push(format!(
                        "directory {child} lies in {parent}, which hangs on nothing"
                    ));
                    break;
                }
            }
        }
    }
    wrong
}

fn shown(dir: FileId, name: &[u8]) -> String {
    format!(
        "name {:?} in directory {dir}",
        String::from_utf8_lossy(name)
    )
}
