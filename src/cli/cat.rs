//! `rewindfs cat`: prints a file of a snapshot without FUSE.

use std::path::PathBuf;

use super::at::{At, Opened};
use super::context::{Context, block_on};
use super::exit::Exit;
use super::output;
use crate::config;
use crate::format::entry::{Contents, Kind};
use crate::path::RepoPath;

/// Bytes of the file looked up and fetched ahead at once.
const STRETCH: u64 = 16 << 20;
/// Zeros of a hole written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Print a file as it was, without mounting anything
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A PATH inside a directory that is (or was) mounted live means the file there; any other is taken from the volume's root.

Examples:
  rewindfs cat --at 10m ~/Documents/notes.txt
  rewindfs cat --at release-1 --repo s3://my-bucket/docs notes.txt | diff - notes.txt")]
pub(crate) struct Args {
    #[command(flatten)]
    at: At,
    /// The file
    path: PathBuf,
}

impl Args {
    /// Writes the file's bytes to standard output.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let point = self.at.point(context)?;
        let (selected, path) = self.at.select_path(context, &self.path)?;
        let opening = context.opening(&selected.repo)?;
        block_on(async {
            let snapshot = Opened::open(&opening, &selected, &point).await?;
            context.echo(&snapshot.found);
            print(&snapshot, &path).await
        })?;
        Ok(Exit::Done)
    }
}

async fn print(snapshot: &Opened, path: &RepoPath) -> anyhow::Result<()> {
    let (id, inode) = snapshot.resolve(path).await?;
    if inode.kind != Kind::File {
        return Err(config::Error::Usage(format!("{path} is not a regular file")).into());
    }
    let tree = snapshot.tree();
    let blocks = snapshot.volume.blocks();
    let mut from = 0;
    while from < inode.size {
        let to = inode.size.min(from + STRETCH);
        let extents = tree.extents(id, from..to).await?;
        let places = extents.iter().filter_map(|extent| match &extent.contents {
            Contents::Data { place, .. } => Some(place.clone()),
            Contents::Hole => None,
        });
        blocks.prefetch_best_effort(places.collect()).await;
        for extent in extents {
            let len = extent.range.end - extent.range.start;
            match extent.contents {
                Contents::Hole => zeros(len)?,
                Contents::Data { place, .. } => {
                    // A stretch is short, so a part of it fits.
                    output::bytes(&blocks.read(&place, len as usize).await?)?;
                }
            }
        }
        from = to;
    }
    Ok(())
}

fn zeros(mut len: u64) -> anyhow::Result<()> {
    while len > 0 {
        let now = len.min(ZEROS.len() as u64);
        output::bytes(&ZEROS[..now as usize])?;
        len -= now;
    }
    Ok(())
}
