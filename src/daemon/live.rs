//! A live mount, from start to end. Start order: repository or what is kept of it, lock, dead mount, spool, source, journal, epochs, claim,
//! flusher, mount, reconcile, control socket. Where the repository does not answer, claim and flusher come after the mount, whenever
//! it does. Stop order: mount, reconcile, flusher, journal, control socket, lock.
//!
//! Whatever happens, nothing is lost: what the flusher has captured lies in the spool, and what it has not stands in the
//! journal, for the next mount.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::background::Reporter;
use super::control::Server;
use super::covering::Uncovered;
use super::desk::{Desk, Ending, Reply, Wish};
use super::link::Trouble;
use super::local::{Machine, Place, Settings};
use super::lock::{HANDOVER_MAX, VolumeLock};
use super::opening::Opening;
use super::signals::{Signals, until_unmounted};
use super::writing::{End as Stop, PUBLISH_PATIENCE, Writing};
use super::{Error, log, runtime};
use crate::clock::{Clock, Stamp, SystemClock};
use crate::config::policy::Policy;
use crate::config::select::VolumeRef;
use crate::config::state::{MountRecord, State, VolumeState};
use crate::flusher;
use crate::fuse::session::{self, Flag, Session};
use crate::id::SessionId;
use crate::repo::VolumeInfo;

/// After a signal programs have this long to finish the request they are in, so that a mount which nobody uses ends as
/// cleanly as after an unmount. Whoever still has a file open then is cut off by the end of the process.
const LAST_REQUESTS_MAX: Duration = Duration::from_secs(1);

/// Once nothing is mounted, a process to which the repository does not answer for this long ends: long enough for a way home
/// or a server's repair, and too short for a process that a person finds weeks later and wonders about.
const IN_VAIN_MAX: Duration = Duration::from_secs(3600);
/// How often it looks whether that is so.
const LOOK_EVERY: Duration = Duration::from_secs(10);

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
    /// How to mount it.
    pub options: Vec<Flag>,
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
        let found = runtime.block_on(self.find(reporter))?;
        let info = found.volume.clone();
        let state = self.state.volume(info.id);
        state.create()?;
        log::start(&state.log(), in_front)?;
        VolumeLock::take(&state, HANDOVER_MAX)?.keep_until_exit();

        let uncovered = Uncovered::take_off(&self.mountpoint)?;
        let settings = self.settings(&state)?;
        let remote = (self.opening.location.clone(), self.opening.traffic.clone());
        let (writing, session_id) =
            runtime.block_on(Writing::start(found, remote, settings, uncovered))?;
        let writing = Arc::new(writing);
        let front = {
            let _inside = runtime.enter();
            writing.front()
        };
        let name = writing.local().mark.name(&info.name);
        let options = session::Options::new(name).with(&self.options);
        let session = Arc::new(front.mount(&self.mountpoint, &options)?);
        std::fs::metadata(&self.mountpoint)
            .with_context(|| format!("look at the new mount {}", self.mountpoint.display()))?;
        let record = self.record(&info, session_id);
        state.remember(&record)?;
        let (desk, mut wishes) = Desk::new(writing.clone(), record, &self.opening, self.describe);
        let desk = Arc::new(desk);
        let (ending, ended) = oneshot::channel();
        let serving = {
            let _inside = runtime.enter();
            writing.begin()?;
            runtime.spawn(Server::bind(state.dir())?.serve(desk.clone(), ended))
        };
        self.announce(reporter, writing.link().trouble());
        if let Some(advice) = writing.advice() {
            reporter.note_best_effort(advice);
        }
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

    /// Tells the person that the mount answers, and what it lacks.
    fn announce(&self, reporter: &mut Reporter, trouble: Option<Trouble>) {
        let path = self.mountpoint.display();
        match trouble {
            None => reporter.note_best_effort(&format!(
                "{path} backs itself up into {repo} now; `rewindfs status {path}` tells more",
                repo = self.repo,
            )),
            Some(trouble) => {
                reporter.note_best_effort(&format!("{path} is mounted, but {}", trouble.message));
                reporter.note_best_effort(&format!(
                    "{path} backs itself up as soon as the repository answers, without being mounted again; \
                     `rewindfs status {path}` tells when"
                ));
            }
        }
    }

    fn settings(&self, state: &VolumeState) -> anyhow::Result<Settings> {
        let machine = Machine::this();
        Ok(Settings {
            state: state.clone(),
            owner: state.owner(&machine.host)?,
            place: Place {
                source: self.source.clone(),
                mountpoint: self.mountpoint.clone(),
                machine,
            },
            policy: self.policy.clone(),
            spool_bytes: self.spool_bytes,
        })
    }

    fn record(&self, info: &VolumeInfo, session: Option<SessionId>) -> MountRecord {
        let mut record = MountRecord::new(
            self.repo.clone(),
            info.name.clone(),
            self.source.clone(),
            self.mountpoint.clone(),
            SystemClock.now(),
        );
        // Without an answer from the repository the last session is still the one that it knows this machine by. An old record that
        // cannot be read has been complained of where the volume was looked for.
        let before = || self.state.volume(info.id).record().ok().flatten()?.session;
        record.session = session.map(|session| session.to_string()).or_else(before);
        record
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
                published = writing.link().sync() => published,
                signal = signals.next() => return End::Signal(signal),
                // The person has given up: then the mount stays.
                () = ending.reply_closed() => continue,
            };
            if let Err(error) = published {
                ending.fail(error);
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
                Interrupted::GivenUp | Interrupted::HandedOver(_) | Interrupted::Signalled(_) => {
                    Duration::ZERO
                }
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
    /// It has been waited for long enough.
    GivenUp,
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
    let synced = tokio::time::timeout(patience, writing.link().sync());
    tokio::pin!(synced);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut failing = Failing::default();
    loop {
        tokio::select! {
            _ = looks.tick() => if let Some(error) = failing.in_vain(&writing.status(), Instant::now()) {
                tracing::warn!(
                    "nothing could be put into the repository for {} minutes ({error}); ending, and the next mount goes on",
                    IN_VAIN_MAX.as_secs() / 60
                );
                return Interrupted::GivenUp;
            },
            synced = &mut synced => return match synced {
                Ok(Ok(_)) => Interrupted::Not,
                Ok(Err(error)) => {
                    tracing::warn!("not everything is in the repository: {error}; the next mount goes on");
                    Interrupted::Not
                }
                Err(_elapsed) => Interrupted::GivenUp,
            },
            Some(wish) = wishes.recv() => match wish {
                Wish::HandOver(reply) => return Interrupted::HandedOver(reply),
                Wish::Stop(ending) => ending.done(),
            },
            signal = signals.next() => return Interrupted::Signalled(signal),
        }
    }
}

/// A failure that stands, by the wall clock at which it began, and since when it has been seen, by a clock that nobody sets.
#[derive(Default)]
struct Failing(Option<(Stamp, Instant)>);

impl Failing {
    /// Why there is no use in trying any longer once nothing is mounted: it has failed all the time. What is owed is in the spool. A
    /// journal that has failed, or a file that cannot be read, keeps nothing from being uploaded.
    fn in_vain<'a>(&mut self, status: &'a flusher::Status, now: Instant) -> Option<&'a str> {
        let Some((error, began)) = &status.publish_error else {
            self.0 = None;
            return None;
        };
        let seen = match self.0 {
            Some((known, seen)) if known == *began => seen,
            _ => now,
        };
        self.0 = Some((*began, seen));
        (now.saturating_duration_since(seen) >= IN_VAIN_MAX).then_some(error)
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
        Interrupted::Not | Interrupted::GivenUp => stopped,
        Interrupted::HandedOver(reply) => {
            reply.done();
            stopped
        }
        Interrupted::Signalled(signal) => stopped.and(Err(signal.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unmounted_process_gives_up_when_it_has_failed_all_the_time_and_not_before() {
        let begun = Instant::now();
        let failing = |since: u64| flusher::Status {
            publish_error: Some(("no folder".into(), Stamp(since))),
            ..flusher::Status::default()
        };
        let mut seen = Failing::default();
        assert_eq!(seen.in_vain(&failing(5), begun), None);
        assert_eq!(seen.in_vain(&failing(5), begun + IN_VAIN_MAX / 2), None);
        let why = "no folder";
        assert_eq!(seen.in_vain(&failing(5), begun + IN_VAIN_MAX), Some(why));
        // Another failure, between which and that one something got through.
        assert_eq!(seen.in_vain(&failing(6), begun + IN_VAIN_MAX), None);
        let well = flusher::Status {
            last_error: Some(("the journal is latched".into(), Stamp(5))),
            ..flusher::Status::default()
        };
        assert_eq!(seen.in_vain(&well, begun + IN_VAIN_MAX * 9), None);
    }
}
