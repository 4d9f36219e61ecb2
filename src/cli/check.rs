//! `rewindfs check`: whether the repository is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::context::{Context, block_on};
use super::exit::Exit;
use super::output;
use crate::config::select::VolumeRef;
use crate::daemon::opening::{Opening, choose};
use crate::repo::{Repository, VolumeInfo};
use crate::verify::{self, Progress, Report};

/// Memory for tree pages; the disk cache is left out, since what lies in it says nothing about the store.
const CACHE_BYTES: usize = 16 << 20;
/// How often the line moves.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// Verify that the repository is whole
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without --read-data: that every snapshot hangs together, and that everything it points to is there and of the right length.
With it: every byte in the store is fetched and proven as well.
Nothing is repaired. Exit code 4 means damage: a plain list says what is damaged and which snapshots and paths that touches;
everything else can still be read.

Examples:
  rewindfs check
  rewindfs check --read-data --repo s3://my-bucket/docs")]
pub(crate) struct Args {
    /// Fetch and prove every byte
    #[arg(long)]
    read_data: bool,
    /// Only this volume; otherwise all of them
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Verifies; prints what is damaged.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let selected = context.select(self.volume.as_deref())?;
        let mut opening = context.opening(&selected.repo)?;
        opening.cache.dir = None;
        opening.cache.memory_bytes = CACHE_BYTES;
        let report = block_on(self.verify(&opening))?;
        match self.json {
            true => output::json(&report)?,
            false => print(&report)?,
        }
        Ok(match report.is_damaged() {
            true => Exit::Damage,
            false => Exit::Done,
        })
    }

    async fn verify(&self, opening: &Opening) -> anyhow::Result<Report> {
        let progress = Arc::new(Progress::default());
        let line = output::spinner("check");
        let showing = tokio::spawn(show(progress.clone(), line.clone()));
        let verified = self.verify_all(opening, &progress).await;
        showing.abort();
        line.finish_and_clear();
        verified
    }

    async fn verify_all(&self, opening: &Opening, progress: &Progress) -> anyhow::Result<Report> {
        // A signal ends the process; nothing is written, so nothing need be stopped in order.
        let stop = AtomicBool::new(false);
        let repository = opening.repository().await?;
        let mut report = verify::keys(&repository).await?;
        for info in self.volumes(&repository).await? {
            let volume = repository.volume(info.id).await?;
            let structure = verify::structure(&volume, progress, &stop).await?;
            let whole = match self.read_data {
                true => structure.merge(verify::data(&volume, progress, &stop).await?),
                false => structure,
            };
            report = add(report, whole);
        }
        Ok(report)
    }

    async fn volumes(&self, repository: &Repository) -> anyhow::Result<Vec<VolumeInfo>> {
        // What keeps a volume's keys from being read is found and told by `verify::keys`.
        let (volumes, _) = repository.volumes_and_damage().await?;
        Ok(match &self.volume {
            Some(name) => vec![choose(&volumes, &VolumeRef::Name(name.clone()))?.clone()],
            None => volumes,
        })
    }
}

/// The reports of two parts of a repository that have nothing in common.
fn add(mut sum: Report, part: Report) -> Report {
    sum.snapshots += part.snapshots;
    sum.snapshots_compared += part.snapshots_compared;
    sum.pages += part.pages;
    sum.objects += part.objects;
    sum.frames += part.frames;
    // The greater of each is now in `sum`, as `merge` wants it; everything else it adds up.
    sum.merge(part)
}

async fn show(progress: Arc<Progress>, line: output::Bar) {
    let now = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    loop {
        let mut text = format!(
            "check: {} of {} snapshots, {} pages",
            now(&progress.snapshots),
            now(&progress.snapshots_total),
            now(&progress.pages)
        );
        if now(&progress.bytes_total) > 0 {
            text.push_str(&format!(
                ", {} of {} read",
                output::size(now(&progress.bytes)),
                output::size(now(&progress.bytes_total))
            ));
        }
        line.set_message(text);
        tokio::time::sleep(SHOW_EVERY).await;
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    for damage in &report.damage {
        output::line(&output::printable(damage.to_string().as_bytes()))?;
    }
    if report.damage_not_listed > 0 {
        output::line(&format!("and {} more", report.damage_not_listed))?;
    }
    for note in &report.notes {
        output::note(&output::printable(note.as_bytes()));
    }
    if report.notes_not_listed > 0 {
        output::note(&format!("and {} more remarks", report.notes_not_listed));
    }
    let read = match report.bytes {
        0 => String::new(),
        bytes => format!(", {} read and proven", output::size(bytes)),
    };
    let verdict = match report.is_damaged() {
        true => "damaged",
        false => "no damage found",
    };
    output::line(&format!(
        "{verdict}: {} snapshots, {} tree pages, {} objects{read}",
        report.snapshots, report.pages, report.objects
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_several_volumes_add_up() {
        let part = |snapshots, bytes| Report {
            snapshots,
            bytes,
            ..Report::default()
        };
        let sum = add(part(3, 10), part(2, 5));
        assert_eq!((sum.snapshots, sum.bytes), (5, 15));
    }
}
