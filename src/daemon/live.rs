//! A live mount, from start to end. Start order: repository, lock, dead mount, spool, journal, source, claim, epochs,
//! flusher, mount, control socket, reconcile. Stop order: mount, reconcile, flusher, journal, control socket, lock.
//!
//! Whatever happens, nothing is lost: what the flusher has captured lies in the spool, and what it has not stands in the
//! journal, for the next mount.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::background::Reporter;
use super::control::Server;
use super::desk::{Desk, Ending, Reply, Wish};
use super::lock::{HANDOVER_MAX, VolumeLock};
use super::opening::{self, CONFIG_DEFAULT, Opening};
use super::signals::{Signals, until_unmounted};
use super::writing::{End as Stop, Machine, PUBLISH_PATIENCE, Place, Writing};
use super::{Error, log, runtime};
use crate::clock::{Clock, SystemClock};
use crate::config::policy::Policy;
use crate::config::select::VolumeRef;
use crate::config::state::{MountRecord, State};
use crate::fuse::session::{self, Session};
use crate::repo::{Repository, Secret, VolumeInfo};

/// After a signal programs have this long to finish the request they are in, so that a mount which nobody uses ends as
/// cleanly as after an unmount. Whoever still has a file open then is cut off by the end of the process.
const LAST_REQUESTS_MAX: Duration = Duration::from_secs(1);

/// Everything that is decided before a directory is mounted live.
pub struct LiveMount {
    /// What opens the repository.
    pub opening: Opening,
    /// Whether the repository must be made first.
    pub create: bool,
    /// The volume in it.
    pub volume: VolumeRef,
    /// The repository's place, as it is to be remembered.
    pub repo: String,
    /// The directory to protect; canonical.
    pub source: PathBuf,
    /// Where it is to appear; canonical.
    pub mountpoint: PathBuf,
    /// When to seal.
    pub policy: Policy,
    /// The most bytes in the spool; absent for the default.
    pub spool_bytes: Option<u64>,
    /// Where it is remembered.
    pub state: State,
    /// Turns an error into a line and an exit code, for those who ask through the control socket.
    pub describe: fn(&anyhow::Error) -> (String, u8),
}

impl LiveMount {
    /// Mounts, reports, and returns when everything that can be done after the unmount is done. SIGINT and SIGTERM unmount
    /// and leave the rest to the next mount.
    pub fn run(self, reporter: &mut Reporter, in_front: bool) -> anyhow::Result<()> {
        let runtime = runtime()?;
        let ran = self.run_on(&runtime, reporter, in_front);
        // Not dropped: that would wait for the threads that wait for the session, which after a signal lasts until the last
        // program closes its last file.
        runtime.shutdown_background();
        ran
    }

    fn run_on(
        self,
        runtime: &Runtime,
        reporter: &mut Reporter,
        in_front: bool,
    ) -> anyhow::Result<()> {
        let mut signals = runtime.block_on(async { Signals::catch() })?;
        let repository = runtime.block_on(self.repository(reporter))?;
        let info = runtime.block_on(self.choose_volume(&repository))?;
        let state = self.state.volume(info.id);
        state.create()?;
        log::start(&state.log(), in_front)?;
        VolumeLock::take(&state, HANDOVER_MAX)?.keep_until_exit();

        session::remove_dead(&self.mountpoint)?;
        let writing = runtime.block_on(Writing::start(
            &repository,
            &info,
            &state,
            self.place(),
            &self.policy,
            self.spool_bytes,
        ))?;
        let front = {
            let _inside = runtime.enter();
            writing.front(&self.policy)
        };
        let session = Arc::new(session::mount(
            front,
            &self.mountpoint,
            &session::Options::new(info.name.as_str()),
        )?);
        std::fs::metadata(&self.mountpoint)
            .with_context(|| format!("look at the new mount {}", self.mountpoint.display()))?;
        state.remember(&self.record(&info))?;
        let scan = {
            let _inside = runtime.enter();
            writing.start_scan()?
        };
        let (desk, mut wishes) = Desk::new(
            &writing,
            scan,
            self.record(&info),
            &self.policy,
            self.describe,
        );
        let desk = Arc::new(desk);
        let (ending, ended) = oneshot::channel();
        let serving = {
            let _inside = runtime.enter();
            runtime.spawn(Server::bind(state.dir())?.serve(desk.clone(), ended))
        };
        reporter.note_best_effort(&format!(
            "{path} backs itself up into {repo} now; `rewindfs status {path}` tells more",
            path = self.mountpoint.display(),
            repo = self.repo,
        ));
        reporter.ready();
        tracing::info!(volume = info.name, at = %self.mountpoint.display(), "mounted");

        runtime.block_on(async {
            let end = serve(&session, &writing, &mut wishes, &mut signals).await;
            desk.unmounted();
            let ended = finish(end, &session, &writing, &mut wishes, &mut signals).await;
            drop((ending, wishes));
            // Only a panic could make this fail, and it answers nobody any more.
            let _ = serving.await;
            ended
        })
    }

    /// Opens the repository, or makes the embedded default and shows its recovery key this once.
    async fn repository(&self, reporter: &mut Reporter) -> anyhow::Result<Repository> {
        if self.create {
            let (Secret::Password(text) | Secret::Recovery(text)) = &self.opening.secret;
            let password = Zeroizing::new(text.to_string());
            let (_, recovery) =
                opening::create(&self.opening.location, password, CONFIG_DEFAULT).await?;
            let line = Zeroizing::new(format!("recovery key, shown this once: {}", *recovery));
            reporter.note_best_effort(&line);
        }
        Ok(self.opening.repository().await?)
    }

    /// The volume to write into: the one that is remembered or named, the one that this directory had before, or a new one.
    async fn choose_volume(&self, repository: &Repository) -> anyhow::Result<VolumeInfo> {
        let volumes = repository.volumes().await?;
        let name = match &self.volume {
            VolumeRef::Id(_) => return Ok(opening::choose(&volumes, &self.volume)?.clone()),
            VolumeRef::Name(name) => name.clone(),
            VolumeRef::Only => self.usual_name(),
        };
        let Some(found) = volumes.iter().find(|volume| volume.name == name) else {
            return Ok(repository.create_volume(&name, SystemClock.now()).await?);
        };
        if self.volume == VolumeRef::Only {
            self.must_be_ours(repository, found).await?;
        }
        Ok(found.clone())
    }

    /// The directory's own name.
    fn usual_name(&self) -> String {
        let name = self.source.file_name().unwrap_or("root".as_ref());
        name.to_string_lossy().into_owned()
    }

    /// A volume that merely has the same name must not be gone on with unasked: its next commit would hold this
    /// directory's files instead of its own.
    async fn must_be_ours(
        &self,
        repository: &Repository,
        volume: &VolumeInfo,
    ) -> anyhow::Result<()> {
        let head = repository.volume(volume.id).await?.head().await?;
        let Some(head) = head else {
            return Ok(());
        };
        let ours = self.place();
        if head.commit.host == ours.machine.host && head.commit.source == ours.source_bytes() {
            return Ok(());
        }
        Err(crate::config::Error::Usage(format!(
            "the repository's volume {name} protects {source} on {host}; give --volume {name} to go on with it from \
             here, or --volume with another name to begin a new one",
            name = volume.name,
            source = String::from_utf8_lossy(&head.commit.source).escape_debug(),
            host = head.commit.host,
        ))
        .into())
    }

    fn place(&self) -> Place {
        Place {
            source: self.source.clone(),
            machine: Machine::this(),
        }
    }

    fn record(&self, info: &VolumeInfo) -> MountRecord {
        MountRecord::new(
            self.repo.clone(),
            info.name.clone(),
            self.source.clone(),
            self.mountpoint.clone(),
            SystemClock.now(),
        )
    }
}

/// Why the mount is gone, or must go.
enum End {
    /// By umount(8).
    Unmounted,
    /// By our `umount`, which has not been answered yet.
    Wished { ending: Ending },
    /// By a signal; still mounted.
    Signal(Error),
}

/// Until the mount is gone or must go.
async fn serve(
    session: &Arc<Session>,
    writing: &Writing,
    wishes: &mut mpsc::Receiver<Wish>,
    signals: &mut Signals,
) -> End {
    loop {
        let wish = tokio::select! {
            signal = until_unmounted(session, signals) => {
                return signal.map_or(End::Unmounted, End::Signal);
            }
            Some(wish) = wishes.recv() => wish,
        };
        let ending = match wish {
            Wish::HandOver(reply) => {
                reply.refuse("it is mounted live; unmount it first");
                continue;
            }
            Wish::Stop(ending) => ending,
        };
        if ending.publish {
            let published = tokio::select! {
                published = writing.flusher().sync() => published,
                signal = signals.next() => return End::Signal(signal),
                // The person has given up: then the mount stays.
                () = ending.reply_closed() => continue,
            };
            if let Err(error) = published {
                ending.fail(error.into());
                continue;
            }
        }
        match session.unmount() {
            Ok(()) => {
                let gone = session.clone();
                // Only a panic could make this fail, and then it is gone as well.
                let _ = tokio::task::spawn_blocking(move || gone.wait()).await;
                return End::Wished { ending };
            }
            Err(error) => ending.fail(error.into()),
        }
    }
}

/// What remains to be done once nobody can write through the mount any more.
async fn finish(
    end: End,
    session: &Arc<Session>,
    writing: &Writing,
    wishes: &mut mpsc::Receiver<Wish>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    match end {
        End::Signal(signal) => {
            session.unmount_lazily()?;
            tracing::info!("{signal}: leaving the rest to the next mount");
            let end = match has_ended(session).await {
                true => Stop::Clean,
                false => Stop::InUse,
            };
            tokio::select! {
                ended = writing.stop_now(end) => ended?,
                again = signals.next() => return Err(again.into()),
            }
            Err(signal.into())
        }
        End::Wished { ending } if ending.publish => {
            let interrupted = upload(writing, wishes, signals, PUBLISH_PATIENCE).await;
            let patience = match interrupted {
                Interrupted::Not => PUBLISH_PATIENCE,
                Interrupted::HandedOver(_) | Interrupted::Signalled(_) => Duration::ZERO,
            };
            let stopped = tokio::select! {
                stopped = writing.stop_published(patience) => stopped,
                signal = signals.next() => Err(signal.into()),
            };
            match stopped {
                Ok(()) => ending.done(),
                Err(error) => ending.fail(error),
            }
            if let Interrupted::HandedOver(reply) = interrupted {
                reply.done();
            }
            Ok(())
        }
        End::Wished { ending } => {
            ending.done();
            drain(writing, wishes, signals).await
        }
        End::Unmounted => drain(writing, wishes, signals).await,
    }
}

/// Whether nobody can write through the mount any more, a short while after it was taken off.
async fn has_ended(session: &Arc<Session>) -> bool {
    let waiting = session.clone();
    let waited = tokio::task::spawn_blocking(move || waiting.wait());
    tokio::time::timeout(LAST_REQUESTS_MAX, waited)
        .await
        .is_ok()
}

/// What has ended an upload before its time.
enum Interrupted {
    /// Nothing: it is through, or cannot be.
    Not,
    /// Another process wants to go on; it waits.
    HandedOver(Reply),
    /// A signal.
    Signalled(Error),
}

/// Goes on uploading after an unmount until everything is in the store, another process wants to go on, or a signal comes;
/// for so long at most.
async fn upload(
    writing: &Writing,
    wishes: &mut mpsc::Receiver<Wish>,
    signals: &mut Signals,
    patience: Duration,
) -> Interrupted {
    // Without the mount nobody tells us of changes any more, so a scan that is not through can make no exact moment.
    if !writing.stop_scan().await {
        return Interrupted::Not;
    }
    let synced = tokio::time::timeout(patience, writing.flusher().sync());
    tokio::pin!(synced);
    loop {
        tokio::select! {
            synced = &mut synced => {
                if let Ok(Err(error)) = synced {
                    tracing::warn!("not everything is in the repository: {error}; the next mount goes on");
                }
                return Interrupted::Not;
            }
            Some(wish) = wishes.recv() => match wish {
                Wish::HandOver(reply) => return Interrupted::HandedOver(reply),
                Wish::Stop(ending) => ending.done(),
            },
            signal = signals.next() => return Interrupted::Signalled(signal),
        }
    }
}

/// Goes on uploading in the background after an unmount that did not wait.
async fn drain(
    writing: &Writing,
    wishes: &mut mpsc::Receiver<Wish>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    tracing::info!("unmounted; uploading the rest");
    let interrupted = upload(writing, wishes, signals, Duration::MAX).await;
    let stopped = tokio::select! {
        stopped = writing.stop_now(Stop::Clean) => stopped,
        again = signals.next() => return Err(again.into()),
    };
    match interrupted {
        Interrupted::Not => stopped,
        Interrupted::HandedOver(reply) => {
            reply.done();
            stopped
        }
        Interrupted::Signalled(signal) => stopped.and(Err(signal.into())),
    }
}
