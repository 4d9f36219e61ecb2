//! What a machine remembers of a volume: the newest commit that it has seen in the store. Whoever can write to a store can take the
//! newest commits away, or put the whole back as it was, and no reader can tell that from a volume that ended there; but one who has
//! seen a later commit can, and must be told.
//!
//! Asked by `commits.rs` each time the newest commit, or the one of a time, is looked for. Where it is remembered is for others to say
//! ([`Witness`]): this module knows no local files.

use crate::clock::Stamp;
use crate::format::entry::CommitName;
use crate::id::{Tag, VolumeId};
use crate::repo::commits::{Found, Listed};
use crate::repo::lineage::Verdict;
use crate::repo::{Error, Volume, show_time};

/// A commit that has been seen in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its name.
    pub name: CommitName,
    /// Its tag.
    pub tag: Tag,
}

/// Remembers the newest commit of each volume of one repository.
pub trait Witness: Send + Sync {
    /// The newest commit seen; `None` if there is none, or what was remembered cannot be read.
    fn newest(&self, volume: VolumeId) -> Option<Seen>;

    /// Remembers `seen` as the newest. What cannot be kept is only not noticed later.
    fn note_best_effort(&self, volume: VolumeId, seen: &Seen);

    /// What a person can do who knows why an older state is right: "delete FILE".
    fn how_to_forget(&self, volume: VolumeId) -> String;
}

impl From<&Found> for Seen {
    fn from(found: &Found) -> Self {
        Self {
            name: found.commit.name,
            tag: found.tag,
        }
    }
}

impl Volume {
    /// Remembers a commit of one's own as seen, now that it has been verified in the store.
    pub fn note_published_best_effort(&self, name: CommitName, tag: Tag) {
        if let Some(witness) = &self.witness {
            witness.note_best_effort(self.info.id, &Seen { name, tag });
        }
    }

    /// That `found`, the newest commit not later than `latest`, is no older than what this machine has seen: [`Error::RolledBack`].
    /// What is newer is remembered. Costs nothing where `found` is the one remembered or a time before it was asked for, else
    /// the page of history in which that stands.
    pub(super) async fn compare_with_seen(
        &self,
        listed: &Listed,
        found: Option<&Found>,
        latest: Stamp,
    ) -> Result<(), Error> {
        let Some(witness) = &self.witness else {
            return Ok(());
        };
        let seen = witness.newest(self.info.id);
        let is_new = match (&seen, found) {
            (None, found) => found.is_some(),
            // Says nothing about a time before it.
            (Some(seen), _) if seen.name.stamp > latest => false,
            (Some(seen), Some(found)) if found.commit.name.seq == seen.name.seq => {
                match found.tag == seen.tag {
                    true => false,
                    false => self.must_be_cut_off(listed, seen, Some(found)).await?,
                }
            }
            (Some(seen), Some(found)) if found.commit.name.seq > seen.name.seq => {
                match self.remembers(found, seen).await? {
                    true => true,
                    false => self.must_be_cut_off(listed, seen, Some(found)).await?,
                }
            }
            (Some(seen), found) => self.must_be_cut_off(listed, seen, found).await?,
        };
        match found {
            Some(found) if is_new && self.is_whole_store => {
                witness.note_best_effort(self.info.id, &found.into());
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the history of `found` has the commit that was seen. Where that cannot be read nothing speaks against it: the damage
    /// is told to whoever reads the history for its own sake.
    async fn remembers(&self, found: &Found, seen: &Seen) -> Result<bool, Error> {
        let tree = self.tree(&found.commit);
        match tree.history_from(seen.name.seq, 1).await {
            Ok(entries) => Ok(entries
                .first()
                .is_some_and(|entry| (entry.name, entry.tag) == (seen.name, seen.tag))),
            Err(error) if error.is_damage() => Ok(true),
            Err(other) => Err(other),
        }
    }

    /// The commit that was seen has gone from history. Right only if its writer was replaced, and published it beyond the beginning of
    /// the later claim; then what is there now is the newest, and true is returned.
    async fn must_be_cut_off(
        &self,
        listed: &Listed,
        seen: &Seen,
        found: Option<&Found>,
    ) -> Result<bool, Error> {
        if let Verdict::CutOff { of, by } = listed.lineage.judge(&seen.name) {
            self.prove(listed, &by).await?;
            self.prove(listed, &of).await?;
            return Ok(true);
        }
        let newest = found.map(|found| found.commit.name);
        Err(Error::RolledBack {
            volume: self.info.name.clone(),
            seen: shown(&seen.name),
            newest: newest.map_or_else(|| "none".to_owned(), |name| shown(&name)),
            forget: self
                .witness
                .as_ref()
                .map(|witness| witness.how_to_forget(self.info.id))
                .unwrap_or_default(),
        })
    }
}

fn shown(name: &CommitName) -> String {
    format!("@{} of {}", name.seq, show_time(name.stamp))
}

#[cfg(test)]
mod tests;
