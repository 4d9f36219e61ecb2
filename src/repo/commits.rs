//! Finding and reading commits. A reader lists claims and commits before anything else, both in one LIST (`listed.rs`).
//!
//! Names are enough to find a commit (`lineage.rs` says which are history); nothing is believed until its body is
//! proven under its name (`read.rs`). Which commit a person means by a time or a name is in `find.rs`.

use crate::clock::Stamp;
use crate::format::commit::Commit;
use crate::format::entry::{CommitName, HistoryEntry};
use crate::id::{Era, ObjectKey, Seq, Tag};
use crate::repo::lineage::{Unclaimed, Verdict};
use crate::repo::{Error, Volume, layout};
use crate::store::Listing;

mod find;

mod listed;

mod read;

pub(super) use listed::Listed;

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
    /// What is listed before it: the next later commit, if its name can be believed.
    newer: Newer,
}

/// What is listed right before a commit.
#[derive(Default)]
enum Newer {
    /// Nothing: it is among the newest.
    #[default]
    None,
    /// This one, whose object has so many bytes.
    Name(CommitName, u64),
    /// Not known: part of the listing was passed over.
    Unknown,
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
    /// The newest commit of the valid chain, an incomplete one too; `None` for a volume without any. [`Error::RolledBack`] if this
    /// machine has seen a newer one.
    pub async fn head(&self) -> Result<Option<Found>, Error> {
        let seen = self.seen_before();
        let listed = self.list_commits().await?;
        let newest = Stamp(u64::MAX);
        let looked = self.newest_from(&listed, None, newest).await?;
        self.compare_with_seen(&listed, seen, looked.found.as_ref(), newest)
            .await?;
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

    /// The newest commit of history that is not later than `latest` and listed behind `after`. No further LIST where it is among the
    /// newest; else one, and for each era further back whose newest commits are later than `latest`: there the clock was set
    /// back. One more in an era whose commits do not come about as often as those listed first; never more, however many
    /// there are or whatever times the names say that others have put there.
    pub(super) async fn newest_from(
        &self,
        listed: &Listed,
        mut after: Option<ObjectKey>,
        latest: Stamp,
    ) -> Result<Looked, Error> {
        let mut looked = Looked {
            newer: match after {
                None => Newer::None,
                Some(_) => Newer::Unknown,
            },
            ..Looked::default()
        };
        // The era in which a page has been listed that was to begin shortly before what is looked for.
        let mut neared: Option<Era> = None;
        loop {
            let page = self.commits_after(listed, after.as_ref()).await?;
            let mut too_late: Option<Era> = None;
            for (key, len) in &page.objects {
                let Some(name) = layout::parse_commit(self.info.id, key) else {
                    continue;
                };
                if name.stamp <= latest {
                    looked.found = self.read_if_history(listed, &name, *len).await?;
                    if looked.found.is_some() {
                        return Ok(looked);
                    }
                    continue;
                }
                looked.newer = Newer::Name(name, *len);
                too_late = Some(name.era);
            }
            let last = match page.objects.last() {
                Some((last, _)) if page.more => last.clone(),
                _ => return Ok(looked),
            };
            let jump = too_late.map(|era| {
                // What was to be near is not: right to it, then.
                let run_up = match neared.replace(era) == Some(era) {
                    true => 0,
                    false => self.run_up(&page, era),
                };
                let from = Stamp(latest.0.saturating_add(run_up));
                layout::commits_not_later(self.info.id, era, from)
            });
            // Lies behind what was listed, so that this comes to an end.
            after = match jump.filter(|jump| *jump > last) {
                Some(jump) => {
                    looked.newer = Newer::Unknown;
                    Some(jump)
                }
                None => Some(last),
            };
        }
    }

    /// How far before a time a listing begins that looks for it, in ms: half of what a page of it spans. So the commit that
    /// follows is most often listed too, which saves looking for it.
    fn run_up(&self, page: &Listing, era: Era) -> u64 {
        let names = page.objects.iter();
        let names = names.filter_map(|(key, _)| layout::parse_commit(self.info.id, key));
        let mut stamps = names
            .filter(|name| name.era == era)
            .map(|name| name.stamp.0);
        match (stamps.next(), stamps.next_back()) {
            (Some(newest), Some(oldest)) => newest.saturating_sub(oldest) / 2,
            _ => 0,
        }
    }

    /// Reads a commit if it is part of history. A claim that would cut it off is proven before it is believed; so is the claim
    /// that admits it, wherever the generation that its own body states does not say as much.
    async fn read_if_history(
        &self,
        listed: &Listed,
        name: &CommitName,
        len: u64,
    ) -> Result<Option<Found>, Error> {
        match listed.lineage.judge(name) {
            Verdict::Admitted { by, is_alone } => {
                let found = self.read(name, Some(len)).await?;
                if found.commit.generation != by.generation {
                    let object = layout::commit(self.info.id, name);
                    return Err(Error::damaged(
                        &object,
                        "its generation is not that of its writer's claim",
                    ));
                }
                if !is_alone {
                    self.prove(listed, &by).await?;
                }
                Ok(Some(found))
            }
            Verdict::CutOff { of, by } => {
                self.prove(listed, &by).await?;
                self.prove(listed, &of).await?;
                Ok(None)
            }
            Verdict::Unclaimed => self.read_unclaimed(listed, name, len).await,
        }
    }

    /// The same for a commit whose writer has no claim (any more).
    async fn read_unclaimed(
        &self,
        listed: &Listed,
        name: &CommitName,
        len: u64,
    ) -> Result<Option<Found>, Error> {
        let found = self.read(name, Some(len)).await?;
        match listed
            .lineage
            .judge_unclaimed(found.commit.generation, name.seq)
        {
            Unclaimed::Admitted => Ok(Some(found)),
            Unclaimed::CutOff(by) => self.prove(listed, &by).await.map(|()| None),
            Unclaimed::Undecided => Err(Error::damaged(
                &layout::commit(self.info.id, name),
                "the claim of its writer is missing, and another writer has claimed the same generation",
            )),
        }
    }
}

/// A snapshot's id as shown to people: the first 16 hexadecimal digits of its tag.
pub fn snapshot_id(tag: &Tag) -> String {
    tag.to_string()[..16].to_owned()
}

#[cfg(test)]
mod tests;
