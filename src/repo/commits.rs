//! Finding and reading commits. A reader lists claims and commits before anything else.
//!
//! Names are enough to find a commit (`lineage.rs` says which are history); nothing is believed until its body is
//! proven under its name (`read.rs`). Which commit a person means by a time or a name is in `find.rs`.

use crate::clock::Stamp;
use crate::format::commit::Commit;
use crate::format::entry::{CommitName, HistoryEntry};
use crate::id::{ObjectKey, Seq, Tag};
use crate::repo::lineage::{Lineage, Verdict};
use crate::repo::{Error, Volume, layout};

mod find;

mod read;

/// Commits asked for in one LIST while looking for the newest that is history. The first nearly always is; the rest are
/// there for those of a writer that was replaced.
const CANDIDATES: usize = 100;

/// A point in time as a person asks for it, already turned from text into this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Point {
    /// The newest commit, by era and sequence.
    Latest,
    /// The n-th before the newest.
    Back(u64),
    /// The newest not later than this wall time.
    At(Stamp),
    /// This sequence number.
    Seq(Seq),
    /// A snapshot's name or the beginning of its id (hexadecimal of its tag).
    Named(String),
}

/// A commit that has been read and proven, with its own tag and object length.
#[derive(Clone, Debug)]
pub struct Found {
    /// It.
    pub commit: Commit,
    /// Tag of its first frame: its id.
    pub tag: Tag,
    /// Bytes of its object.
    pub object_len: u64,
}

/// What a look through the listing of commits came to.
#[derive(Default)]
pub(super) struct Looked {
    /// The commit that was looked for.
    pub(super) found: Option<Found>,
    /// The commit listed right before it with the length of its object, which is the next later one if its name can be believed;
    /// `None` where none was listed.
    newer: Option<(CommitName, u64)>,
    /// Whether it is among the newest, so that `newer` is known if there is one.
    among_newest: bool,
}

impl Found {
    /// What the next commit's tree remembers of this one.
    pub fn history_entry(&self) -> HistoryEntry {
        HistoryEntry {
            name: self.commit.name,
            tag: self.tag,
            wall: self.commit.wall,
            totals: self.commit.totals,
            label: self.commit.label.clone(),
            incomplete: self.commit.incomplete,
            forgotten: None,
        }
    }
}

impl Volume {
    /// The newest commit of the valid chain, an incomplete one too; `None` for a volume without any.
    pub async fn head(&self) -> Result<Option<Found>, Error> {
        let lineage = self.claims.lineage().await?;
        let looked = self.newest_from(&lineage, None, Stamp(u64::MAX)).await?;
        Ok(looked.found)
    }

    /// Reads one commit by name and proves it. [`Error::Missing`] if it is not there.
    pub async fn read_commit(&self, name: &CommitName) -> Result<Found, Error> {
        self.read(name, None).await
    }

    /// The history as `head` knows it, itself included, oldest first. Authenticated by the chain: the tree that holds it
    /// is named by `head`, and its last entry must be the commit that `head` names as the one before it.
    pub async fn history(&self, head: &Found) -> Result<Vec<HistoryEntry>, Error> {
        let mut entries = self.tree(&head.commit).history().await?;
        let object = layout::commit(self.info.id, &head.commit.name);
        let last = entries.last().map(|entry| (entry.name, entry.tag));
        if last != head.commit.previous {
            return Err(Error::damaged(
                &object,
                "its history does not end with the commit before it",
            ));
        }
        entries.push(head.history_entry());
        if !entries.is_sorted_by(|a, b| a.name.seq < b.name.seq) {
            return Err(Error::damaged(&object, "its history is not in order"));
        }
        Ok(entries)
    }

    /// The newest commit of history that is not later than `latest`, listing from `after` on. One LIST where it is among the newest;
    /// one more where it is not, and for each era further back whose newest commits are later than `latest`: there the clock was set back.
    pub(super) async fn newest_from(
        &self,
        lineage: &Lineage,
        mut after: Option<ObjectKey>,
        latest: Stamp,
    ) -> Result<Looked, Error> {
        let (volume, prefix) = (self.info.id, layout::commits_prefix(self.info.id));
        let mut looked = Looked {
            among_newest: after.is_none(),
            ..Looked::default()
        };
        loop {
            let page = self.store.list(&prefix, after.as_ref(), CANDIDATES).await?;
            let mut jump: Option<ObjectKey> = None;
            for (key, len) in &page.objects {
                let Some(name) = layout::parse_commit(volume, key) else {
                    continue;
                };
                let passed = jump.as_ref().is_some_and(|jump| key < jump);
                if passed || name.stamp > latest {
                    if !passed {
                        jump = Some(layout::commits_not_later(volume, name.era, latest));
                    }
                    looked.newer = Some((name, *len));
                    continue;
                }
                looked.found = self.read_if_history(lineage, &name, *len).await?;
                if looked.found.is_some() {
                    return Ok(looked);
                }
            }
            let last = page.objects.last().map(|(key, _)| key.clone());
            // Lies behind the name that was too late, so that this comes to an end.
            let jump = jump.filter(|jump| last.as_ref().is_some_and(|last| jump > last));
            looked.among_newest &= jump.is_none();
            after = match last {
                Some(last) if page.more => jump.or(Some(last)),
                _ => return Ok(looked),
            };
        }
    }

    /// Reads a commit if it is part of history. A claim that would cut it off is proven before it is believed, and so is
    /// that its writer had the claim which admits it.
    async fn read_if_history(
        &self,
        lineage: &Lineage,
        name: &CommitName,
        len: u64,
    ) -> Result<Option<Found>, Error> {
        match lineage.judge(name) {
            Verdict::Admitted(generation) => {
                let found = self.read(name, Some(len)).await?;
                if found.commit.generation != generation {
                    let object = layout::commit(self.info.id, name);
                    return Err(Error::damaged(
                        &object,
                        "its generation is not that of its writer's claim",
                    ));
                }
                Ok(Some(found))
            }
            Verdict::CutOff(claim) => {
                self.claims.read(&claim).await?;
                Ok(None)
            }
            Verdict::Unclaimed => {
                let found = self.read(name, Some(len)).await?;
                match lineage.judge_unclaimed(found.commit.generation, name.seq) {
                    Verdict::CutOff(claim) => self.claims.read(&claim).await.map(|_| None),
                    _ => Ok(Some(found)),
                }
            }
        }
    }
}

/// A snapshot's id as shown to people: the first 16 hexadecimal digits of its tag.
pub fn snapshot_id(tag: &Tag) -> String {
    tag.to_string()[..16].to_owned()
}

#[cfg(test)]
mod tests;
