//! `rewindfs sync`: returns when everything written before is in the repository.

use std::path::PathBuf;
use std::time::Duration;

use super::context::Context;
use super::exit::Exit;
use super::live;
use crate::config::size;
use crate::daemon::control::Request;

/// Return when everything written before is in the repository
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit codes: 0 everything is in the repository; 5 not yet, after --timeout.

Examples:
  rewindfs sync ~/Documents
  rewindfs sync --timeout 30s ~/Documents || echo 'not yet'")]
pub(crate) struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// Give up after so long, with exit code 5
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
    timeout: Option<Duration>,
}

impl Args {
    /// Waits for the repository.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mount = live::find(context, &self.mountpoint)?;
        mount.hand_over_writes()?;
        let timeout_ms = self
            .timeout
            .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        mount.ask(Request::Sync { timeout_ms }, "sync")?;
        Ok(Exit::Done)
    }
}
