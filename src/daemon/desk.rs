//! Who answers at the control socket: what can be said at once is said here, what ends the mount is handed to its owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::control::{Answer, Live, Request};
use super::link::{Stage, TAKEN};
use super::opening::Opening;
use super::status::{LastCommit, Phase, Progress, Ratios, Requests, Status, ratio};
use super::writing::Writing;
use crate::clock::Stamp;
use crate::config::state::MountRecord;
use crate::flusher;
use crate::reconcile;
use crate::repo::commits::snapshot_id;
use crate::store::metered::Meter;
use crate::store::url::Location;

/// Wishes that wait for the owner: more than one at a time is a mistake of somebody's script.
const WISHES_MAX: usize = 4;

/// Something that ends the mount, or its process.
pub(super) enum Wish {
    /// Unmount, and end.
    Stop(Ending),
    /// End, so that another process can go on.
    HandOver(Reply),
}

/// A wish to end, whose sender waits.
pub(super) struct Ending {
    /// Whether everything is to be in the repository first.
    pub(super) publish: bool,
    reply: Reply,
}

/// The way back to who waits.
pub(super) struct Reply {
    to: oneshot::Sender<Answer>,
    describe: fn(&anyhow::Error) -> (String, u8),
}

impl Reply {
    /// It is done. Who has stopped waiting is not told.
    pub(super) fn done(self) {
        let _ = self.to.send(Answer::Done);
    }

    /// It cannot be.
    pub(super) fn refuse(self, why: &str) {
        self.fail(Error::AnotherWriter(why.to_owned()).into());
    }

    fn fail(self, error: anyhow::Error) {
        let (message, exit) = (self.describe)(&error);
        let _ = self.to.send(Answer::Failed { message, exit });
    }
}

impl Ending {
    /// It is done.
    pub(super) fn done(self) {
        self.reply.done();
    }

    /// It could not be done.
    pub(super) fn fail(self, error: anyhow::Error) {
        self.reply.fail(error);
    }

    /// Returns when nobody waits for it any more. To be waited for beside what is being done.
    pub(super) async fn reply_closed(&self) {
        // A closed sender shows only when it is looked at: often enough for a person who has pressed Ctrl-C.
        while !self.reply.to.is_closed() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Answers for one live mount.
pub(super) struct Desk {
    record: MountRecord,
    mounted: AtomicBool,
    writing: Arc<Writing>,
    location: Location,
    meter: Arc<Meter>,
    wishes: mpsc::Sender<Wish>,
    describe: fn(&anyhow::Error) -> (String, u8),
}

impl Desk {
    /// A desk, and where the wishes arrive that it cannot grant itself.
    pub(super) fn new(
        writing: Arc<Writing>,
        record: MountRecord,
        opening: &Opening,
        describe: fn(&anyhow::Error) -> (String, u8),
    ) -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, arriving) = mpsc::channel(WISHES_MAX);
        let desk = Self {
            record,
            mounted: AtomicBool::new(true),
            writing,
            location: opening.location.clone(),
            meter: opening.traffic.meter.clone(),
            wishes,
            describe,
        };
        (desk, arriving)
    }

    /// The mount is gone.
    pub(super) fn unmounted(&self) {
        self.mounted.store(false, Ordering::Relaxed);
    }

    fn status(&self) -> Status {
        let (flusher, stage) = (self.writing.status(), self.writing.link().stage());
        let local = self.writing.local();
        let counters = local.epochs.counters();
        let mounted = self.mounted.load(Ordering::Relaxed);
        let connected = matches!(stage, Stage::Publishing(_));
        let progress = scan_progress(&self.writing.sight().progress).filter(|_| connected);
        let sight = self.writing.sight();
        let stuck = sight.stuck();
        let error = last_error(&flusher).or_else(|| {
            let trouble = stuck.clone().or_else(|| sight.left_out());
            trouble.map(|trouble| (trouble.message, Some(trouble.since)))
        });
        let (last_error, since) = error.unzip();
        let phase = match stage {
            _ if !mounted => Phase::Draining,
            Stage::Waiting(_) => Phase::Waiting,
            Stage::Halted(_) => Phase::Halted,
            _ if flusher.fenced => Phase::Halted,
            _ if flusher.last_error.is_some() || stuck.is_some() => Phase::Failing,
            _ if progress.is_some() => Phase::Reconcile,
            _ if flusher.spool_commits > 0 || is_capturing(flusher.phase) => Phase::Publishing,
            _ => Phase::Idle,
        };
        let text = |path: &std::path::Path| path.display().to_string();
        Status {
            pid: std::process::id(),
            volume: self.record.volume.clone(),
            repo: self.record.repo.clone(),
            source: text(&self.record.source),
            mountpoint: text(&self.record.mountpoint),
            mounted,
            mode: local.settings.policy.mode.as_str().to_owned(),
            snapshot: None,
            phase,
            progress,
            lag_seconds: flusher.lag.as_secs_f64(),
            dirty_bytes: flusher.open.bytes,
            spool_bytes: flusher.spool_bytes,
            last_commit: flusher.last_commit.map(|mark| LastCommit {
                seq: mark.name.seq.0,
                time: mark.name.stamp.to_rfc3339(),
            }),
            last_error,
            last_error_since: since.flatten().map(|since: Stamp| since.to_rfc3339()),
            folds: counters.folds,
            waits: counters.waits,
            preserving: counters.preserving,
            preserved_bytes: counters.preserved_bytes,
            ratios: Ratios {
                c: ratio(flusher.contents.compressed, flusher.contents.plain),
                e: ratio(flusher.contents.encrypted, flusher.contents.compressed),
            },
            requests: Requests::counted(&self.meter, &self.location),
        }
    }

    async fn sync(&self, timeout: Option<Duration>) -> anyhow::Result<Answer> {
        let synced = self.writing.link().sync();
        match timeout {
            None => synced.await?,
            Some(timeout) => match tokio::time::timeout(timeout, synced).await {
                Ok(synced) => synced?,
                Err(_) => return Err(not_yet(timeout, &self.status()).into()),
            },
        };
        Ok(Answer::Done)
    }

    async fn wish(&self, wish: impl FnOnce(Reply) -> Wish) -> anyhow::Result<Answer> {
        let (to, answer) = oneshot::channel();
        let describe = self.describe;
        let ending = || Error::Failed("the mount is ending already".into());
        let sent = self.wishes.try_send(wish(Reply { to, describe }));
        sent.map_err(|_| ending())?;
        Ok(answer.await.map_err(|_| ending())?)
    }

    async fn carry_out(&self, request: Request) -> anyhow::Result<Answer> {
        match request {
            Request::Status => Ok(Answer::Status(Box::new(self.status()))),
            Request::Sync { timeout_ms } => self.sync(timeout_ms.map(Duration::from_millis)).await,
            Request::Snapshot { name } => {
                let mark = match name.is_empty() {
                    true => self.writing.link().sync().await?,
                    false => Some(self.writing.link().snapshot(name).await?),
                };
                let mark =
                    mark.ok_or_else(|| Error::Failed("there is nothing to snapshot".into()))?;
                Ok(Answer::Snapshot(snapshot_id(&mark.tag)))
            }
            Request::Stop { publish } => {
                self.wish(|reply| Wish::Stop(Ending { publish, reply }))
                    .await
            }
            Request::HandOver => self.wish(Wish::HandOver).await,
        }
    }
}

#[async_trait]
impl Live for Desk {
    async fn answer(&self, request: Request) -> Answer {
        match self.carry_out(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let (message, exit) = (self.describe)(&error);
                Answer::Failed { message, exit }
            }
        }
    }
}

fn scan_progress(scan: &reconcile::Progress) -> Option<Progress> {
    let running = !scan.ended.load(Ordering::Relaxed);
    running.then(|| Progress {
        scanned: scan.scanned.load(Ordering::Relaxed),
        expected: scan.expected.load(Ordering::Relaxed),
        marked: scan.marked.load(Ordering::Relaxed),
    })
}

fn is_capturing(phase: flusher::Phase) -> bool {
    matches!(
        phase,
        flusher::Phase::Capturing | flusher::Phase::CopyingAhead
    )
}

/// What is wrong, and since when where that is known.
fn last_error(flusher: &flusher::Status) -> Option<(String, Option<Stamp>)> {
    if flusher.fenced {
        let since = flusher.last_error.as_ref().map(|(_, since)| *since);
        return Some((TAKEN.to_owned(), since));
    }
    if let Some((message, since)) = &flusher.last_error {
        return Some((message.clone(), Some(*since)));
    }
    match flusher.refused.len() {
        0 => None,
        1 => Some((
            "one file cannot be read and is not backed up; the log names it".into(),
            None,
        )),
        several => Some((
            format!("{several} files cannot be read and are not backed up; the log names them"),
            None,
        )),
    }
}

fn not_yet(timeout: Duration, status: &Status) -> Error {
    let why = match &status.last_error {
        Some(error) => format!(" ({error})"),
        None => String::new(),
    };
    Error::NotYetRemote(format!(
        "not everything is in the repository after {timeout:?}{why}: {} bytes changed, {} to upload",
        status.dirty_bytes, status.spool_bytes
    ))
}
