//! Structure: the chain of commits, every tree page, and that all of it fits together. Contents are not read, only looked for.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::format::entry::{CommitName, HistoryEntry};
use crate::id::{Seq, Tag};
use crate::repo::commits::Found;
use crate::repo::{Error as RepoError, Repository, Volume, layout};
use crate::verify::affected;
use crate::verify::findings::Findings;
use crate::verify::graph::Graph;
use crate::verify::references::{References, extents_of, unsound_keys};
use crate::verify::report::{Damage, Report};
use crate::verify::walk::{Met, Visited, Walk};
use crate::verify::{Error, Progress, go_on};

/// Tree entries that are compared with each other, over all snapshots. The newest snapshot is compared whatever its size; then older ones
/// as long as this lasts, which is minutes; the report says how many.
const COMPARED_ENTRIES_MAX: u64 = 50_000_000;

/// Checks what belongs to no volume alone: the `format` object, the key slots, the volumes' keys.
pub async fn keys(repository: &Repository) -> Result<Report, Error> {
    let mut report = Report::default();
    for error in repository.damaged_keys().await? {
        let (object, what) = match error {
            RepoError::Damaged { object, why } => (object.to_string(), why),
            RepoError::Missing { object } => (object.to_string(), "it is missing".to_owned()),
            other => (String::new(), other.to_string()),
        };
        report.add_damage(Damage {
            object,
            what,
            ..Damage::default()
        });
    }
    Ok(report)
}

/// Checks that `volume` hangs together: claims and lease, every commit that history keeps and the chain between them, every page of
/// their trees (a page that many share is read once), names against inodes, and that every frame that is pointed to is where it is
/// said to be. Memory is bounded but for about 50 bytes a tree page and 30 a directory. Set `stop` to end early.
pub async fn structure(
    volume: &Volume,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Report, Error> {
    let mut findings = Findings::default();
    for error in volume.damaged_claims().await? {
        findings.note(volume, error)?;
    }
    let kept = chain(volume, &mut findings, progress, stop).await?;
    let walk = Walk {
        blocks: volume.blocks(),
        stop,
        pages: &progress.pages,
        kind: None,
    };
    let mut visited = Visited::new();
    let mut references = References::default();
    let mut budget = COMPARED_ENTRIES_MAX;
    for (index, found) in kept.iter().enumerate() {
        go_on(stop)?;
        let before = findings.report.damage.len();
        pages(
            volume,
            found,
            &walk,
            &mut visited,
            &mut references,
            &mut findings,
        )
        .await?;
        let cost = entries(found);
        if index == 0 || cost <= budget {
            budget = budget.saturating_sub(cost);
            Graph::new(volume, found, stop)
                .compare(&mut findings, before)
                .await?;
        }
        progress.snapshots.fetch_add(1, Ordering::Relaxed);
    }
    references.look_up(volume, &mut findings).await?;
    findings.report.pages = visited.len() as u64;
    affected::find(volume, &kept, &mut findings, stop).await?;
    Ok(findings.report)
}

fn entries(found: &Found) -> u64 {
    let tree = &found.commit.tree;
    tree.base
        .iter()
        .chain(&tree.runs)
        .map(|root| root.entries)
        .sum()
}

/// All commits of history that are kept and whole, newest first; the damage of the others is noted.
pub(super) async fn chain(
    volume: &Volume,
    findings: &mut Findings,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Vec<Found>, Error> {
    let (head, damage) = volume.newest_readable().await?;
    for error in damage {
        let seq = seq_of(volume, &error);
        let at = findings.note(volume, error)?;
        if let (Some(at), Some(seq)) = (at, seq) {
            findings.report.damage[at].snapshots.add(format!("@{seq}"));
        }
    }
    if let Err(error @ RepoError::RolledBack { .. }) = volume.head().await {
        findings.note(volume, error)?;
    }
    let Some(head) = head else {
        return Ok(Vec::new());
    };
    let history = match volume.history(&head).await {
        Ok(history) => history,
        Err(error) => {
            findings.note(volume, error)?;
            return by_links(volume, head, findings, progress, stop).await;
        }
    };
    progress
        .snapshots_total
        .store(history.len() as u64, Ordering::Relaxed);
    let mut kept = Vec::new();
    for (index, entry) in history.iter().enumerate().rev() {
        go_on(stop)?;
        if entry.forgotten.is_some() {
            continue;
        }
        let before = index
            .checked_sub(1)
            .map(|before| (history[before].name, history[before].tag));
        if let Some(found) = link(volume, entry, before, &head, findings).await? {
            kept.push(found);
        }
    }
    findings.report.snapshots = kept.len() as u64;
    findings.report.objects += kept.len() as u64;
    Ok(kept)
}

/// Reads one commit that history names, and compares it with what history says of it.
async fn link(
    volume: &Volume,
    entry: &HistoryEntry,
    before: Option<(CommitName, Tag)>,
    head: &Found,
    findings: &mut Findings,
) -> Result<Option<Found>, Error> {
    let object = layout::commit(volume.info().id, &entry.name);
    let read = match entry.name == head.commit.name {
        true => Ok(head.clone()),
        false => volume.read_commit(&entry.name).await,
    };
    let wrong = match read {
        Ok(found) if found.tag != entry.tag => "it is not the commit that later ones remember",
        Ok(found) if found.commit.previous != before => {
            "the commit before it is not the one that history has there"
        }
        Ok(found) => return Ok(Some(found)),
        Err(error) => {
            let at = findings.note(volume, error)?;
            mark(findings, at, entry.name.seq);
            return Ok(None);
        }
    };
    let at = findings.add(object.to_string(), wrong.to_owned());
    mark(findings, at, entry.name.seq);
    Ok(None)
}

fn mark(findings: &mut Findings, at: Option<usize>, seq: Seq) {
    if let Some(damage) = at.and_then(|at| findings.report.damage.get_mut(at)) {
        damage.snapshots.add(format!("@{seq}"));
    }
}

/// The history itself cannot be read: from each commit to the one that it names as the one before it, as far as that leads.
async fn by_links(
    volume: &Volume,
    head: Found,
    findings: &mut Findings,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Vec<Found>, Error> {
    let mut kept = vec![head];
    while let Some((name, tag)) = kept.last().and_then(|last| last.commit.previous) {
        go_on(stop)?;
        match volume.read_commit(&name).await {
            Ok(found) if found.tag == tag => kept.push(found),
            Ok(_) => {
                let object = layout::commit(volume.info().id, &name).to_string();
                findings.add(
                    object,
                    "it is not the commit that the next one names".to_owned(),
                );
                break;
            }
            // Retention may have removed it; the history that would tell cannot be read.
            Err(RepoError::Missing { object }) => {
                findings.report.add_note(format!(
                    "{object} is missing, and the history that would say why cannot be read"
                ));
                break;
            }
            Err(error) => {
                findings.note(volume, error)?;
                break;
            }
        }
        progress.snapshots_total.fetch_add(1, Ordering::Relaxed);
    }
    findings.report.snapshots = kept.len() as u64;
    Ok(kept)
}

/// Reads the pages of one commit that no commit before has shown, and gathers what they point to.
async fn pages(
    volume: &Volume,
    found: &Found,
    walk: &Walk<'_>,
    visited: &mut Visited,
    references: &mut References,
    findings: &mut Findings,
) -> Result<(), Error> {
    let object = layout::commit(volume.info().id, &found.commit.name);
    let mut lost = Vec::new();
    let mut wrong = Vec::new();
    let mut met = |met: Met| {
        match met {
            Met::Leaf(page) => {
                let (extents, malformed) = extents_of(&page);
                extents
                    .iter()
                    .for_each(|(_, extent)| references.add(extent));
                wrong.extend(malformed);
                wrong.extend(unsound_keys(&page));
            }
            Met::Lost { error, .. } => lost.push(error),
        }
        Ok(())
    };
    walk.tree(&found.commit.tree, Some(visited), &mut met)
        .await?;
    for error in lost {
        findings.note(volume, error)?;
    }
    for what in wrong {
        findings.add(object.to_string(), what);
    }
    if references.is_full() {
        references.look_up(volume, findings).await?;
    }
    Ok(())
}

fn seq_of(volume: &Volume, error: &RepoError) -> Option<Seq> {
    Some(layout::parse_commit(volume.info().id, &error.object()?)?.seq)
}
