//! What `umount`, `sync`, `snapshot` and `status` share: finding the live mount that a path means, and waiting for it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::context::Context;
use super::output;
use crate::config::dirs::{absolute, canonical};
use crate::config::shown::Shown;
use crate::config::state::{Known, VolumeState};
use crate::daemon::control::{Answer, Client, Request};
use crate::daemon::status::Status;
use crate::daemon::{self};
use crate::sys;

/// How often the person sees how far it is.
const SHOW_EVERY: Duration = Duration::from_millis(250);

/// A live mount that answers.
pub(crate) struct LiveMount {
    /// Its files.
    pub(crate) state: VolumeState,
    /// Where it is mounted.
    pub(crate) mountpoint: PathBuf,
    /// What is wrong with it.
    pub(crate) trouble: Option<String>,
}

/// Both readings of a path: as its text says, and as the kernel resolves it (which a dead mount may prevent).
pub(crate) fn readings(path: &Path) -> [PathBuf; 2] {
    [absolute(path), canonical(path)]
}

/// The remembered volume that is mounted on `path`, or whose source it is.
pub(crate) fn known<'a>(context: &'a Context, path: &Path) -> Option<&'a Known> {
    let readings = readings(path);
    let is = |at: &Path| readings.iter().any(|reading| reading == at);
    let mut known = context.known.iter();
    known
        .clone()
        .find(|known| is(&known.record.mountpoint))
        .or_else(|| known.find(|known| is(&known.record.source)))
}

/// The snapshot that is mounted on `path`.
pub(crate) fn shown<'a>(shown: &'a [Shown], path: &Path) -> Option<&'a Shown> {
    let readings = readings(path);
    shown
        .iter()
        .find(|shown| readings.contains(&shown.mountpoint))
}

/// The live mount on `path`.
pub(crate) fn find(context: &Context, path: &Path) -> anyhow::Result<LiveMount> {
    let not_mounted = || daemon::Error::NotMounted(path.to_owned());
    let known = known(context, path).ok_or_else(not_mounted)?;
    let mut client = Client::connect(known.state.dir()).map_err(|_| not_mounted())?;
    let status = client.status()?;
    match status.mounted {
        true => Ok(LiveMount {
            trouble: status.last_error,
            state: known.state.clone(),
            mountpoint: known.record.mountpoint.clone(),
        }),
        false => Err(not_mounted().into()),
    }
}

impl LiveMount {
    /// Hands what programs have written through mappings, and what the kernel still holds, to the mount: it counts as
    /// written only then.
    pub(crate) fn hand_over_writes(&self) -> anyhow::Result<()> {
        File::open(&self.mountpoint)
            .and_then(|root| sys::sync_filesystem(&root))
            .with_context(|| format!("sync {}", self.mountpoint.display()))
    }

    /// Asks, and shows on a terminal how far it is until the answer comes.
    pub(crate) fn ask(&self, request: Request, what: &str) -> anyhow::Result<Answer> {
        let mut client = Client::connect(self.state.dir())?;
        let bar = output::spinner(what);
        let (answer, answered) = mpsc::channel();
        // Should this end meanwhile, nobody wants the answer.
        thread::spawn(move || drop(answer.send(client.ask(&request, None))));
        let answer = loop {
            self.show(&bar, what);
            match answered.recv_timeout(SHOW_EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                answer => break answer,
            }
        };
        bar.finish_and_clear();
        match answer {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(daemon::Error::Failed("internal error while waiting".into()).into()),
        }
    }

    fn show(&self, bar: &output::Bar, what: &str) {
        if bar.is_hidden() {
            return;
        }
        let status = Client::connect(self.state.dir()).and_then(|mut client| client.status());
        if let Ok(status) = status {
            bar.set_message(format!("{what}: {}", owed(&status)));
        }
    }
}

/// What is not in the repository yet, in words.
pub(crate) fn owed(status: &Status) -> String {
    let mut parts = Vec::new();
    if let Some(progress) = &status.progress {
        parts.push(match progress.expected {
            // What the newest snapshot has; there may be more since.
            expected if expected > 0 && progress.scanned <= expected => {
                format!("compared {} of {expected} files", progress.scanned)
            }
            _ => format!("compared {} files", progress.scanned),
        });
    }
    if status.dirty_bytes > 0 {
        parts.push(format!("{} changed", output::size(status.dirty_bytes)));
    }
    if status.spool_bytes > 0 {
        parts.push(format!("{} to upload", output::size(status.spool_bytes)));
    }
    match parts.is_empty() {
        true => "nothing".into(),
        false => parts.join(", "),
    }
}
