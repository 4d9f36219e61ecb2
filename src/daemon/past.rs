//! A snapshot mount, from start to end: open the volume, find the moment, mount it read-only, wait until it is unmounted.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::background::Reporter;
use super::opening::{Opening, find};
use super::signals::{Signals, until_unmounted};
use super::{log, runtime};
use crate::config::select::VolumeRef;
use crate::config::shown::Shown;
use crate::config::state::State;
use crate::fuse::bridge::{Bridge, IN_FLIGHT_MAX};
use crate::fuse::session::{self, Flag};
use crate::id::FileId;
use crate::repo::commits::{Found, Point, snapshot_id};
use crate::snapshot::Snapshot;
use crate::snapshot::tree_fs::TreeFs;

/// Says in words which snapshot has been found.
pub type Describe = Box<dyn Fn(&Found) -> Vec<String>>;

/// Everything that is decided before a snapshot is mounted.
pub struct PastMount {
    /// What opens the repository.
    pub opening: Opening,
    /// The volume in it.
    pub volume: VolumeRef,
    /// The moment.
    pub point: Point,
    /// Where it is to appear; canonical.
    pub mountpoint: PathBuf,
    /// How to mount it; read-only in any case.
    pub options: Vec<Flag>,
    /// Where the log goes.
    pub state: State,
    /// Tells the person what has been found.
    pub describe: Describe,
}

impl PastMount {
    /// Mounts, reports, and returns when it is unmounted. SIGINT and SIGTERM unmount it.
    pub fn run(self, reporter: &mut Reporter, in_front: bool) -> anyhow::Result<()> {
        let runtime = runtime()?;
        let mut signals = runtime.block_on(async { Signals::catch() })?;
        let (volume, found) = runtime.block_on(async {
            let volume = self.opening.volume(&self.volume).await?;
            let found = find(&volume, &self.point).await?;
            anyhow::Ok((volume, found))
        })?;
        let state = self.state.volume(volume.info().id);
        state.create()?;
        log::start(&state.snapshot_log(), in_front)?;
        for line in (self.describe)(&found) {
            reporter.note_best_effort(&line);
        }

        let fs = Arc::new(TreeFs::new(&volume, &found.commit));
        // Without it nothing in the mount could be reached, and the kernel could not say what is damaged.
        let root = runtime.block_on(fs.inode(FileId::ROOT));
        root.map_err(|error| match error.is_damage() {
            true => anyhow::Error::from(error)
                .context("the root of this snapshot cannot be shown; `rewindfs restore` brings back what is whole"),
            false => error.into(),
        })?;
        runtime.block_on(fs.look_around_best_effort());
        let front = Snapshot::new(fs, Bridge::new(runtime.handle().clone(), IN_FLIGHT_MAX));
        let shown = self.shown(&volume.info().name, &found);
        let options = session::Options {
            read_only: true,
            ..session::Options::new(&shown.mounted_as).with(&self.options)
        };
        let session = Arc::new(session::mount(front, &self.mountpoint, &options)?);
        std::fs::metadata(&self.mountpoint)
            .with_context(|| format!("look at the new mount {}", self.mountpoint.display()))?;
        let _registered = shown.register(&state)?;
        tracing::info!(seq = %found.commit.name.seq, at = %self.mountpoint.display(), "mounted");
        reporter.note_best_effort(&format!(
            "mounted read-only on {path}; `rewindfs umount {path}` ends it",
            path = self.mountpoint.display()
        ));
        reporter.ready();

        let signal = runtime.block_on(until_unmounted(&session, &mut signals));
        // Not dropped, which would wait for programs that still have files open after a signal.
        runtime.shutdown_background();
        if let Some(signal) = signal {
            session.unmount_lazily()?;
            return Err(signal.into());
        }
        tracing::info!("unmounted");
        Ok(())
    }

    fn shown(&self, volume: &str, found: &Found) -> Shown {
        let (commit, seq) = (&found.commit, found.commit.name.seq);
        Shown {
            pid: std::process::id(),
            repo: self.opening.location.to_string(),
            volume: volume.to_owned(),
            mountpoint: self.mountpoint.clone(),
            mounted_as: session::shown_name(&format!("{volume}@{seq}")),
            seq: seq.0,
            id: snapshot_id(&found.tag),
            name: commit.label.clone(),
            time: commit.name.stamp.to_rfc3339(),
        }
    }
}
