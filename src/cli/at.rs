//! `--at TIME`, `--volume NAME` and paths inside a snapshot: what `ls`, `cat`, `restore` and snapshot mounts share.

use std::path::Path;
use std::sync::Arc;

use super::context::{Context, here};
use super::time;
use crate::config::dirs::absolute;
use crate::config::select::Selected;
use crate::daemon::opening::{self, Opening};
use crate::format::entry::Inode;
use crate::id::FileId;
use crate::path::RepoPath;
use crate::repo::commits::{Found, Point};
use crate::repo::tree::Tree;
use crate::repo::{self, Volume, blocks::Blocks};

/// A moment and a volume.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct At {
    /// The moment: 10m, 'yesterday 14:00', '2026-11-21 10:00', latest~3, @17, a snapshot's name or id
    #[arg(long, value_name = "TIME", default_value = "latest", long_help = time::HELP)]
    at: String,
    /// The volume, where the repository holds several
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
}

/// A snapshot that is open for looking.
pub(crate) struct Opened {
    /// The volume.
    pub(crate) volume: Arc<Volume>,
    /// The commit.
    pub(crate) found: Found,
}

impl At {
    /// The moment, read.
    pub(crate) fn point(&self, context: &Context) -> anyhow::Result<Point> {
        Ok(time::parse(&self.at, &context.now)?)
    }

    /// The volume that a command means that names no path.
    pub(crate) fn select(&self, context: &Context) -> anyhow::Result<Selected> {
        context.select(self.volume.as_deref())
    }

    /// The volume and the path in it that a typed path means: one inside a remembered directory, else one from the
    /// volume's root.
    pub(crate) fn select_path(
        &self,
        context: &Context,
        typed: &Path,
    ) -> anyhow::Result<(Selected, RepoPath)> {
        let wanted = context.wanted(self.volume.as_deref())?;
        Ok(wanted.select_path(&context.known, typed, &absolute(typed), &here())?)
    }
}

impl Opened {
    /// Opens the snapshot that `point` means in the selected volume.
    pub(crate) async fn open(
        opening: &Opening,
        selected: &Selected,
        point: &Point,
    ) -> anyhow::Result<Self> {
        let volume = opening.volume(&selected.volume).await?;
        let found = opening::find(&volume, point).await?;
        Ok(Self { volume, found })
    }

    /// The same; but where the latest was asked for and is damaged or gone, the newest that can be read, and what is wrong.
    pub(crate) async fn open_readable(
        opening: &Opening,
        selected: &Selected,
        point: &Point,
    ) -> anyhow::Result<(Self, Option<repo::Error>)> {
        let volume = opening.volume(&selected.volume).await?;
        let (found, damage) = match volume.find(point).await {
            Err(damage) if damage.is_damage() && *point == Point::Latest => {
                let readable = volume.latest_readable().await?;
                (readable.ok_or_else(|| damage.clone())?, Some(damage))
            }
            found => (found?, None),
        };
        Ok((Self { volume, found }, damage))
    }

    /// Its tree.
    pub(crate) fn tree(&self) -> Tree<Arc<Blocks>> {
        self.volume.tree(&self.found.commit)
    }

    /// What lies at `path`; not being there is an error that says so.
    pub(crate) async fn resolve(&self, path: &RepoPath) -> anyhow::Result<(FileId, Inode)> {
        let found = self.tree().resolve(path).await?;
        Ok(found.ok_or_else(|| {
            let when = self.found.commit.name.stamp.to_rfc3339();
            repo::Error::NotFound(format!("{path} did not exist at {when}"))
        })?)
    }
}
