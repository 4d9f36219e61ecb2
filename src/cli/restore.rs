//! `rewindfs restore`: writes a snapshot, or parts of it, into a plain directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::at::{At, Opened};
use super::context::{Context, block_on};
use super::exit::Exit;
use super::output;
use crate::config;
use crate::config::dirs::canonical;
use crate::config::select::Selected;
use crate::path::RepoPath;
use crate::restore::plan::{Step, Walk};
use crate::restore::{self, Progress, Summary};

/// Steps printed at once by `--dry-run`.
const STEPS_AT_ONCE: usize = 1024;
/// How often the bar moves.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// Write a snapshot, or parts of it, into a directory
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Owner, mode, times to the nanosecond, xattrs, ACLs, hard links, symlinks, holes and special files come back. What is there
already with the same size and time is kept, so that an interrupted restore is simply run again.
Each PATH keeps its whole path below the target. One inside a directory that is (or was) mounted live means the file there;
any other is taken from the volume's root. Exit code 3 means that something could not be restored; it has been named. Exit code 4
means that the latest snapshot is damaged or gone: the newest that can be read has been restored instead, or nothing if there is none.

Examples:
  rewindfs restore --target /mnt/new                                  everything, as it is now
  rewindfs restore --at yesterday --target /tmp/then reports/2026
  rewindfs restore --at release-1 --target /tmp/then --dry-run        what would be written")]
pub(crate) struct Args {
    #[command(flatten)]
    at: At,
    /// Where to write; made if it is missing
    #[arg(long, value_name = "DIR")]
    target: PathBuf,
    /// What to restore; everything if left out
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    /// Restores, or prints the plan.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let point = self.at.point(context)?;
        let (selected, paths) = self.select(context)?;
        let target = canonical(&self.target);
        let opening = context.opening(&selected.repo)?;
        block_on(async {
            let (snapshot, damage) = Opened::open_readable(&opening, &selected, &point).await?;
            if let Some(damage) = &damage {
                output::warning(&format!(
                    "{damage}; the newest snapshot that can be read is restored instead"
                ));
            }
            context.echo(&snapshot.found);
            let exit = match self.dry_run {
                true => print_plan(&snapshot, &paths).await?,
                false => write(&snapshot, &paths, target).await?,
            };
            Ok(match damage {
                Some(_) => Exit::Damage,
                None => exit,
            })
        })
    }

    /// The volume, and the paths in it. All paths must mean the same volume.
    fn select(&self, context: &Context) -> anyhow::Result<(Selected, Vec<RepoPath>)> {
        let mut selected: Option<Selected> = None;
        let mut paths = Vec::new();
        for typed in &self.paths {
            let (meant, path) = self.at.select_path(context, typed)?;
            if selected.as_ref().is_some_and(|before| *before != meant) {
                let why = "the paths lie in different volumes; restore one volume at a time";
                return Err(config::Error::Usage(why.into()).into());
            }
            selected = Some(meant);
            paths.push(path);
        }
        let selected = match selected {
            Some(selected) => selected,
            None => self.at.select(context)?,
        };
        Ok((selected, paths))
    }
}

async fn print_plan(snapshot: &Opened, paths: &[RepoPath]) -> anyhow::Result<Exit> {
    let mut walk = Walk::begin(snapshot.tree(), paths).await?;
    let (mut entries, mut bytes, mut unreadable) = (0u64, 0u64, 0u64);
    loop {
        let steps = walk.next_batch(STEPS_AT_ONCE).await?;
        if steps.is_empty() {
            break;
        }
        for step in steps {
            match step {
                Step::Enter(path) => output::line(&format!("{path}/"))?,
                Step::Make(item) => {
                    entries += 1;
                    bytes += item.inode.size;
                    output::line(&item.path.to_string())?;
                }
                Step::Leave { .. } => {}
                Step::Unreadable { path, error } => {
                    unreadable += 1;
                    output::warning(&format!("{path} cannot be restored: {error}"));
                }
            }
        }
    }
    output::note(&format!(
        "would write {entries} files, {}",
        output::size(bytes)
    ));
    Ok(in_part(unreadable))
}

async fn write(snapshot: &Opened, paths: &[RepoPath], target: PathBuf) -> anyhow::Result<Exit> {
    let progress = Arc::new(Progress::default());
    let bar = output::bytes_bar("restore", snapshot.found.commit.totals.bytes);
    let showing = tokio::spawn({
        let (progress, bar) = (progress.clone(), bar.clone());
        async move {
            loop {
                bar.set_position(progress.bytes.load(Ordering::Relaxed));
                tokio::time::sleep(SHOW_EVERY).await;
            }
        }
    });
    // A signal ends the process between two files, each of which is whole or absent; nothing else need be stopped.
    let stop = AtomicBool::new(false);
    let done = restore::run(
        &snapshot.volume,
        &snapshot.found.commit,
        paths,
        &target,
        &progress,
        &stop,
    )
    .await;
    showing.abort();
    bar.finish_and_clear();
    let summary = match done {
        Ok(summary) => summary,
        Err(cut) => {
            report(&cut.summary);
            return Err(cut.error.into());
        }
    };
    report(&summary);
    Ok(in_part(summary.failures.len() as u64))
}

fn report(summary: &Summary) {
    for failure in &summary.failures {
        output::warning(&format!("{} not restored: {}", failure.path, failure.why));
    }
    let kept = match summary.kept {
        0 => String::new(),
        kept => format!("; there already: {kept}"),
    };
    output::note(&format!(
        "restored: {} files and directories, {}{kept}",
        summary.written,
        output::size(summary.bytes)
    ));
}

fn in_part(failures: u64) -> Exit {
    match failures {
        0 => Exit::Done,
        _ => Exit::InPart,
    }
}
