//! `rewindfs umount`: publishes what is owed, then unmounts.

use std::path::PathBuf;

use super::context::Context;
use super::exit::Exit;
use super::{live, output};
use crate::daemon::control::Request;
use crate::daemon::lock::{HANDOVER_MAX, VolumeLock};
use crate::daemon::{self};
use crate::fuse::session;

/// Put what is owed into the repository, then unmount
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Everything written before is put into the repository first, with progress shown; then the directory is unmounted.
Plain umount(8) works too and loses nothing: what is owed then goes up in the background, or with the next mount.
A mounted snapshot is simply unmounted.

Examples:
  rewindfs umount ~/Documents
  rewindfs umount --no-wait ~/Documents     leave the upload to the background")]
pub(crate) struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// Do not wait until everything is in the repository
    #[arg(long)]
    no_wait: bool,
}

impl Args {
    /// Unmounts a live mount or a snapshot.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        // A snapshot on the source of a volume that is mounted live elsewhere is still a snapshot.
        let shown = live::shown(&context.state.shown()?, &self.mountpoint).is_some();
        let live = (!shown).then(|| live::find(context, &self.mountpoint));
        let Some(Ok(mount)) = live else {
            return match session::unmount_at(&self.mountpoint)? {
                true => Ok(Exit::Done),
                false => Err(daemon::Error::NotMounted(self.mountpoint).into()),
            };
        };
        mount.hand_over_writes()?;
        let publish = !self.no_wait;
        if let Some(trouble) = mount.trouble.as_ref().filter(|_| publish) {
            output::note(&format!(
                "waiting until everything is in the repository, but: {trouble} (--no-wait unmounts at once, and the next mount goes on)"
            ));
        }
        mount.ask(Request::Stop { publish }, "publish and unmount")?;
        if publish {
            // The process ends right after its answer. Who unmounts and then removes the state must not race with it.
            VolumeLock::take(&mount.state, HANDOVER_MAX)?;
            output::note("everything is in the repository");
        }
        Ok(Exit::Done)
    }
}
