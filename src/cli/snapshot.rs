//! `rewindfs snapshot`: a point in time now, with a name.

use std::path::PathBuf;

use anyhow::bail;

use super::context::Context;
use super::exit::Exit;
use super::{live, output, time};
use crate::daemon::control::{Answer, Request};

/// Make a point in time now, and give it a name; prints its id when it is in the repository
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Snapshots happen by themselves all the time. This makes one at this instant, so that it can be asked for by name.

Examples:
  rewindfs snapshot ~/Documents before-upgrade
  rewindfs mount ~/Documents --at before-upgrade /mnt/before")]
pub(crate) struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// Its name: a word or a few
    name: Option<String>,
}

impl Args {
    /// Makes the snapshot and prints its id.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let name = self.name.unwrap_or_default();
        if !name.is_empty() {
            time::check_name(&name, &context.now)?;
        }
        let mount = live::find(context, &self.mountpoint)?;
        mount.hand_over_writes()?;
        match mount.ask(Request::Snapshot { name }, "snapshot")? {
            Answer::Snapshot(id) => output::line(&id)?,
            other => bail!("the background process answered {other:?} to a request for a snapshot"),
        }
        Ok(Exit::Done)
    }
}
