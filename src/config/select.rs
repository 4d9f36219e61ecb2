//! Which repository, which volume and which path inside it a person means. Pure: remembered mounts and words in, decision out.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::state::Known;
use crate::id::VolumeId;
use crate::path::RepoPath;

/// Where a repository may be named, from the strongest to the weakest.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--repo` or `REWINDFS_REPO`, in its normal form.
    pub repo: Option<String>,
    /// `--volume`.
    pub volume: Option<String>,
    /// The configuration file's repository and volume.
    pub configured: Option<(String, Option<String>)>,
    /// The embedded default's repository, where it exists.
    pub default: Option<String>,
}

/// How a volume is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VolumeRef {
    /// By its id, from the state directory.
    Id(VolumeId),
    /// By the name that was typed.
    Name(String),
    /// Not at all: the only one that the repository holds.
    Only,
}

/// A decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selected {
    /// The repository.
    pub repo: String,
    /// The volume in it.
    pub volume: VolumeRef,
}

impl Wanted {
    /// The remembered mount that covers `path`, by source or mount point, whichever reaches deepest; among equals the one
    /// mounted last. With the path below it.
    pub fn covering<'a>(&self, known: &'a [Known], path: &Path) -> Option<(&'a Known, PathBuf)> {
        let mut best: Option<(&Known, &Path)> = None;
        for candidate in known.iter().filter(|known| self.admits(known)) {
            for root in [&candidate.record.source, &candidate.record.mountpoint] {
                let deeper =
                    best.is_none_or(|(_, b)| root.components().count() > b.components().count());
                if path.starts_with(root) && deeper {
                    best = Some((candidate, root));
                }
            }
        }
        let (found, root) = best?;
        let rest = path.strip_prefix(root).ok()?;
        Some((found, rest.to_owned()))
    }

    /// The remembered mount of exactly `dir`.
    pub fn exactly<'a>(&self, known: &'a [Known], dir: &Path) -> Option<&'a Known> {
        known
            .iter()
            .filter(|known| self.admits(known))
            .find(|known| known.record.source == dir || known.record.mountpoint == dir)
    }

    fn admits(&self, known: &Known) -> bool {
        let fits = |wanted: &Option<String>, have: &str| wanted.as_ref().is_none_or(|w| w == have);
        fits(&self.repo, &known.record.repo) && fits(&self.volume, &known.record.volume)
    }

    /// What a command means that looks into a repository from the directory `here`.
    pub fn select(&self, known: &[Known], here: &Path) -> Result<Selected, Error> {
        let repo_volume = |repo: &String, volume: Option<&String>| Selected {
            repo: repo.clone(),
            volume: volume.map_or(VolumeRef::Only, |name| VolumeRef::Name(name.clone())),
        };
        if let Some(repo) = &self.repo {
            return Ok(match self.covering(known, here) {
                Some((found, _)) if self.volume.is_none() => remembered(found),
                _ => repo_volume(repo, self.volume.as_ref()),
            });
        }
        if let Some((found, _)) = self.covering(known, here) {
            return Ok(remembered(found));
        }
        if let Some((repo, volume)) = &self.configured {
            return Ok(repo_volume(repo, self.volume.as_ref().or(volume.as_ref())));
        }
        self.select_remembered(known)?
            .or_else(|| {
                self.default
                    .as_ref()
                    .map(|repo| repo_volume(repo, self.volume.as_ref()))
            })
            .ok_or_else(|| {
                Error::NoRepository(
                    "no repository is named: give --repo or set REWINDFS_REPO, \
                     or make one and mount with `rewindfs mount DIR`"
                        .into(),
                )
            })
    }

    /// The only volume that is remembered here (and fits); several are an error that lists them.
    fn select_remembered(&self, known: &[Known]) -> Result<Option<Selected>, Error> {
        let fitting: Vec<&Known> = known.iter().filter(|known| self.admits(known)).collect();
        let Some(first) = fitting.first() else {
            return Ok(None);
        };
        if fitting.len() == 1 {
            return Ok(Some(remembered(first)));
        }
        if fitting.iter().all(|k| k.record.repo == first.record.repo) {
            return Ok(Some(Selected {
                repo: first.record.repo.clone(),
                volume: self.volume.clone().map_or(VolumeRef::Only, VolumeRef::Name),
            }));
        }
        let list: Vec<String> = fitting
            .iter()
            .map(|k| format!("{} in {}", k.record.volume, k.record.repo))
            .collect();
        Err(Error::Usage(format!(
            "several repositories are known here ({}); name one with --repo",
            list.join(", ")
        )))
    }

    /// What a command means that is given a path: one inside a remembered directory, else one from the volume's root.
    /// `typed` is the path as typed, `absolute` the same made absolute.
    pub fn select_path(
        &self,
        known: &[Known],
        typed: &Path,
        absolute: &Path,
        here: &Path,
    ) -> Result<(Selected, RepoPath), Error> {
        if let Some((found, below)) = self.covering(known, absolute) {
            return Ok((remembered(found), repo_path(&below)?));
        }
        Ok((self.select(known, here)?, repo_path(typed)?))
    }
}

fn remembered(known: &Known) -> Selected {
    Selected {
        repo: known.record.repo.clone(),
        volume: VolumeRef::Id(known.state.id()),
    }
}

/// A path from the volume's root; `..` is refused.
pub fn repo_path(path: &Path) -> Result<RepoPath, Error> {
    RepoPath::parse(path.as_os_str().as_bytes()).ok_or_else(|| {
        Error::Usage(format!(
            "{} cannot be looked up in a snapshot: leave out `..`",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests;
