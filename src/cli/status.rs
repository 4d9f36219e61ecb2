//! `rewindfs status`: how live mounts stand, and which snapshots are mounted.

use std::path::PathBuf;

use super::context::Context;
use super::exit::Exit;
use super::{live, output};
use crate::config::dirs::is_dead_mount;
use crate::config::shown::Shown;
use crate::config::state::Known;
use crate::daemon::control::Client;
use crate::daemon::status::{Moment, Phase, Requests, Status};
use crate::daemon::{self};
use crate::fuse::mountinfo::{self, Entry};

/// Show what is mounted, and of live mounts what is in the repository and what is not
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without MOUNTPOINT all volumes are shown that have been mounted live on this machine, and then the snapshots that are mounted;
with --json as a list.

Examples:
  rewindfs status
  rewindfs status ~/Documents --json | jq .lag_seconds")]
pub(crate) struct Args {
    /// Where it is mounted
    mountpoint: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Prints one status, or all.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let shown = context.state.shown()?;
        if let Some(path) = &self.mountpoint {
            // What is mounted there now comes before what usually is.
            let status = match live::shown(&shown, path) {
                Some(shown) => moment(shown),
                None => live::known(context, path)
                    .map(|known| status(known, &shown))
                    .ok_or_else(|| daemon::Error::NotMounted(path.clone()))?,
            };
            match self.json {
                true => output::json(&status)?,
                false => print(&status)?,
            }
            return Ok(Exit::Done);
        }
        let live = context.known.iter().map(|known| status(known, &shown));
        let all: Vec<Status> = live.chain(shown.iter().map(moment)).collect();
        if self.json {
            output::json(&all)?;
            return Ok(Exit::Done);
        }
        for status in &all {
            print(status)?;
        }
        if all.is_empty() {
            output::note("nothing has been mounted here yet; begin with `rewindfs mount DIR`");
        }
        Ok(Exit::Done)
    }
}

/// What the background process says, or what is remembered where none is running. `shown`: the mounted snapshots, which have processes
/// of their own.
fn status(known: &Known, shown: &[Shown]) -> Status {
    let answer = Client::connect(known.state.dir()).and_then(|mut client| client.status());
    let place = &known.record.mountpoint;
    let mount = || mountinfo::uppermost(place).ok().flatten();
    let is_live = |entry: &Entry| entry.is_ours() && live::shown(shown, place).is_none();
    answer.unwrap_or_else(|_| Status {
        last_error: mount().filter(is_live).map(|_| {
            let place = place.display();
            format!("{place} is mounted, but its live process does not answer; a dead one is replaced by mounting again")
        }),
        volume: known.record.volume.clone(),
        repo: known.record.repo.clone(),
        source: known.record.source.display().to_string(),
        mountpoint: known.record.mountpoint.display().to_string(),
        ..Status::default()
    })
}

/// A mounted snapshot. Its process has nothing to tell but that it is there.
fn moment(shown: &Shown) -> Status {
    let dead = mountinfo::look(&shown.mountpoint).is_err_and(|error| is_dead_mount(&error));
    let place = shown.mountpoint.display();
    Status {
        pid: if dead { 0 } else { shown.pid },
        volume: shown.volume.clone(),
        repo: shown.repo.clone(),
        mountpoint: place.to_string(),
        mounted: true,
        mode: "snapshot".into(),
        phase: if dead { Phase::Stopped } else { Phase::Idle },
        snapshot: Some(Moment {
            seq: shown.seq,
            time: shown.time.clone(),
            id: shown.id.clone(),
            name: shown.name.clone(),
        }),
        last_error: dead
            .then(|| format!("its process has died; `rewindfs umount {place}` takes it off")),
        ..Status::default()
    }
}

/// A program that waits for less does not notice, microseconds.
const NOTICED_US: u64 = 50_000;

fn print_moment(status: &Status, moment: &Moment) -> anyhow::Result<()> {
    let text = |text: &str| output::printable(text.as_bytes());
    let name = match moment.name.as_str() {
        "" => String::new(),
        name => format!(" ({})", text(name)),
    };
    let time = &moment.time;
    output::line(&format!(
        "  snapshot     {}{name} of {time}, read-only",
        moment.id
    ))?;
    output::line(&format!(
        "  repository   {}, volume {}",
        text(&status.repo),
        text(&status.volume)
    ))?;
    if let Some(error) = &status.last_error {
        output::line(&format!("  last error   {}", text(error)))?;
    }
    Ok(())
}

fn print(status: &Status) -> anyhow::Result<()> {
    let text = |text: &str| output::printable(text.as_bytes());
    output::line(&text(&status.mountpoint))?;
    if let Some(moment) = &status.snapshot {
        return print_moment(status, moment);
    }
    output::line(&format!("  state        {}", state(status)))?;
    output::line(&format!("  source       {}", text(&status.source)))?;
    output::line(&format!(
        "  repository   {}, volume {}",
        text(&status.repo),
        text(&status.volume)
    ))?;
    if let Some(last) = &status.last_commit {
        output::line(&format!("  last commit  {} (@{})", last.time, last.seq))?;
    }
    if status.phase != Phase::Stopped {
        let waits = match status.lag_seconds as u64 {
            0 => String::new(),
            lag => format!("; the oldest change waits for {}", output::seconds(lag)),
        };
        output::line(&format!("  owed         {}{waits}", live::owed(status)))?;
        output::line(&format!(
            "  ratios       C {} (compressed / original), E {} (encrypted / compressed)",
            output::ratio(status.ratios.c),
            output::ratio(status.ratios.e)
        ))?;
    }
    if status.folds > 0 {
        output::line(&format!(
            "  folds        {} (points in time given up to keep up)",
            status.folds
        ))?;
    }
    if let Some(kept) = keeping(status) {
        output::line(&format!("  waits        {kept}"))?;
    }
    if status.phase != Phase::Stopped {
        output::line(&format!("  requests     {}", asked(&status.requests)))?;
    }
    if let Some(error) = &status.last_error {
        let since = match &status.last_error_since {
            Some(since) => format!(" (since {since})"),
            None => String::new(),
        };
        output::line(&format!("  last error   {}{since}", text(error)))?;
    }
    Ok(())
}

/// How long programs were kept waiting, where one of them may have noticed. All of it is in the JSON.
fn keeping(status: &Status) -> Option<String> {
    let kept = [
        (status.waits, "behind others on the same file"),
        (status.preserving, "to keep what a snapshot needed"),
    ];
    let noticed = kept
        .iter()
        .filter(|(spread, _)| spread.max_us >= NOTICED_US);
    let said: Vec<String> = noticed
        .map(|(spread, why)| {
            let millis = |micros: u64| micros.div_ceil(1000);
            let (longest, most) = (millis(spread.max_us), millis(spread.p99_us));
            format!(
                "at most {longest} ms {why} (99 % of {} at most {most} ms)",
                spread.count
            )
        })
        .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// What has been asked of the store, and what that comes to.
fn asked(requests: &Requests) -> String {
    let Requests {
        put,
        list,
        get,
        head,
        delete,
        ..
    } = requests;
    let kinds = [
        (put, "PUT"),
        (list, "LIST"),
        (get, "GET"),
        (head, "HEAD"),
        (delete, "DELETE"),
    ];
    let kinds = kinds.iter().filter(|(count, _)| **count > 0);
    let kinds: Vec<String> = kinds
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    let (sent, received) = (
        output::size(requests.sent_bytes),
        output::size(requests.received_bytes),
    );
    let what = match kinds.is_empty() {
        true => "none".to_owned(),
        false => format!("{}; {sent} sent, {received} received", kinds.join(", ")),
    };
    let watched = output::seconds(requests.seconds as u64);
    let cost = requests.usd_per_month.map_or(String::new(), |month| {
        format!(
            "; about ${:.2} a month at AWS's list prices, and ${:.2} a month for keeping what each month adds",
            month.requests, month.storage_added
        )
    });
    format!("{what} in {watched}{cost}")
}

fn state(status: &Status) -> String {
    let doing = match status.phase {
        Phase::Stopped => return "not mounted".into(),
        Phase::Reconcile => "comparing the source with the last commit",
        Phase::Idle => "up to date",
        Phase::Publishing => "publishing",
        Phase::Draining => "unmounted, uploading the rest",
        Phase::Failing => "publishing fails, trying again",
        Phase::Waiting => "waiting for the repository; changes are kept on this machine",
        Phase::Halted => "not backed up any more",
    };
    format!("{doing} (process {}, {})", status.pid, status.mode)
}
