//! The flow's thread: decides when to copy ahead and when to seal, and tells those who wait. What a seal does is in `flush.rs`, what
//! copying ahead does in `ahead.rs`, and how it ends in `end.rs`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::chunk::Gear;
use crate::clock::{Clock, Stamp};
use crate::epoch::{ChangeSize, Epochs};
use crate::flusher::ahead::Ahead;
use crate::flusher::capture::{is_refusal, is_to_be_left_out};
use crate::flusher::commit::RESERVE_FIRST;
use crate::flusher::copied::{Copied, CopiedBlock};
use crate::flusher::cut::Recent;
use crate::flusher::dedup::DedupIndex;
use crate::flusher::error::Error;
use crate::flusher::forget::Forgetting;
use crate::flusher::handle::{Handle, INBOX_LEN, Message};
use crate::flusher::manifest::Manifest;
use crate::flusher::pipeline::PipelineParts;
use crate::flusher::policy::Policy;
use crate::flusher::progress::{CommitMark, Phase, Progress, Published, Who};
use crate::flusher::session::{Follows, Session};
use crate::flusher::spool::{FrameBytes, Spool};
use crate::flusher::upload::{Job, Queue, Right, Route, Uploader};
use crate::flusher::window::Window;
use crate::flusher::withheld::Withheld;
use crate::id::{EpochNo, FileId};
use crate::journal::Journal;
use crate::repo::Volume;
use crate::repo::commits::Found;
use crate::repo::lease::Writership;
use crate::source::Source;
use crate::store::Store;

/// How often the flow looks at the open epoch. Bounds how late a seal can be, and costs nothing measurable.
pub(super) const TICK: Duration = Duration::from_millis(200);
/// Commits that may wait in the spool, whatever their size; beyond it epochs grow coarser. A day at one in nine seconds.
const SPOOL_COMMITS_MAX: usize = 10_000;
/// Pauses after a failed seal grow from one tick up to this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The source is synced this often, so that the journal does not grow for ever.
const SYNCFS_INTERVAL: Duration = Duration::from_secs(180);

/// What the flusher works with.
pub struct Parts {
    /// The volume, for reading trees: its store must show the spool's objects too
    /// ([`crate::store::overlay`]).
    pub volume: Arc<Volume>,
    /// The store that is uploaded to, without the spool laid over it.
    pub store: Store,
    /// The right to publish, claimed from `base` on.
    pub writership: Writership,
    /// The live side.
    pub epochs: Arc<Epochs>,
    /// The source.
    pub source: Arc<Source>,
    /// The journal.
    pub journal: Arc<Journal>,
    /// The spool.
    pub spool: Arc<Spool>,
    /// Captured epochs of an earlier process that are still to be uploaded, oldest first.
    pub resumed: Vec<Manifest>,
    /// What an earlier process has copied ahead and never captured: what [`find_copied`](crate::flusher::find_copied) has found.
    pub copied: Vec<CopiedBlock>,
    /// The newest commit: the last of `resumed`, else the head of the store; `None` for a new volume.
    pub base: Option<Found>,
    /// Since when the open epoch has changes, if it has had any before the flusher was started.
    pub owed_since: Option<Stamp>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the uploader runs and the flow waits for repository calls.
    pub runtime: Runtime,
}

/// Settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// When to seal.
    pub policy: Policy,
    /// The most bytes in the spool; beyond it no epoch is sealed, and the open one grows coarser.
    pub spool_bytes: u64,
    /// An open epoch with more dirty bytes than this is copied ahead before it is sealed.
    pub copy_ahead_bytes: u64,
    /// One round of copying ahead reads about this much, whether it is new or known already: nobody is answered and nothing sealed
    /// before its end.
    pub round_bytes: u64,
    /// While a scan runs, an incomplete commit is published this often.
    pub incomplete_interval: Duration,
    /// Whether a scan is running from the start.
    pub held: bool,
    /// Length of the lease.
    pub lease: Duration,
    /// Owner of the lease: machine and state directory.
    pub owner: String,
    /// Host as commits name it.
    pub host: String,
    /// Source directory as commits name it.
    pub source_path: Vec<u8>,
    /// Where the deduplication index lies.
    pub index_dir: PathBuf,
}

/// The flusher of one live mount.
pub struct Flusher;

impl Flusher {
    /// Starts the flow's thread and the uploader, which goes on with what was left in the spool.
    pub fn start(parts: Parts, options: Options) -> Result<Handle, Error> {
        let (inbox, messages) = mpsc::channel(INBOX_LEN);
        let (stop, stopped) = watch::channel(false);
        let published = parts
            .resumed
            .is_empty()
            .then_some(parts.base.as_ref())
            .flatten();
        let progress = Arc::new(Progress::new(published.map(mark)));
        if let Some(since) = parts.owed_since {
            progress.unsealed(since);
        }
        let handle = Handle {
            inbox,
            policy: options.policy.clone(),
            progress: Arc::clone(&progress),
            spool: Arc::clone(&parts.spool),
            clock: Arc::clone(&parts.clock),
            epochs: Arc::clone(&parts.epochs),
        };
        if options.held {
            parts.epochs.expect_scan();
        }
        let flow = Flow::new(parts, options, progress, stop)?;
        let uploader = flow.uploader();
        let uploading = flow.runtime.spawn(uploader.run(stopped));
        std::thread::Builder::new()
            .name("flusher".to_owned())
            .spawn(move || flow.run(messages, uploading))
            .map_err(|source| Error::Spool {
                doing: "start the flusher's thread for",
                path: handle.spool.dir().to_owned(),
                source,
            })?;
        Ok(handle)
    }
}

/// Somebody who waits for what was written before to be in the store.
pub(super) struct Waiter {
    label: String,
    reply: oneshot::Sender<Result<Option<CommitMark>, Error>>,
}

/// Everything that the flow's thread owns.
pub(super) struct Flow {
    pub(super) volume: Arc<Volume>,
    pub(super) store: Store,
    pub(super) epochs: Arc<Epochs>,
    pub(super) source: Arc<Source>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Runtime,
    pub(super) options: Options,
    pub(super) spool: Arc<Spool>,
    pub(super) queue: Arc<Queue>,
    pub(super) right: Arc<Right>,
    pub(super) progress: Arc<Progress>,
    pub(super) forgetting: Arc<Forgetting>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) pipeline: PipelineParts,
    pub(super) gear: Gear,
    pub(super) index: DedupIndex,
    pub(super) window: Window,
    pub(super) recent: Recent,
    pub(super) ahead: Ahead,
    pub(super) copied: Copied,
    pub(super) session: Session,
    pub(super) base: Option<Found>,
    pub(super) reserve: u32,
    /// A scan is running, says the daemon.
    pub(super) held: bool,
    /// The epoch that is being sealed is no exact moment.
    pub(super) inexact: bool,
    /// The open epoch holds more than a seal should take, and is being copied ahead.
    pub(super) copying: bool,
    pub(super) event: bool,
    pub(super) waiters: Vec<Waiter>,
    pub(super) last_seal: Instant,
    pub(super) last_syncfs: Instant,
    pub(super) last_epoch: Option<EpochNo>,
    pub(super) pause: Option<(Instant, Duration)>,
    /// The file at which the last seal failed, if it did.
    pub(super) struck: Option<FileId>,
    /// Refused files that were tried in vain since the last commit: not again before the next.
    pub(super) hopeless: BTreeSet<FileId>,
    /// A seal failed since the last commit at a file that may not be read.
    pub(super) suspecting: bool,
    /// There has been an exact moment.
    pub(super) has_moment: bool,
    /// Where a first backup copies ahead it rests while programs are at work.
    pub(super) resting: bool,
    /// Names of refused files, which no commit has: for when these can be read.
    pub(super) withheld: Withheld,
}

impl Flow {
    fn new(
        parts: Parts,
        options: Options,
        progress: Arc<Progress>,
        stop: watch::Sender<bool>,
    ) -> Result<Self, Error> {
        let keys = parts.volume.keys().clone();
        let now = parts.clock.now();
        progress.open(parts.epochs.open_size(), now);
        let follows = parts.base.as_ref().map(follows);
        let (id, era) = (parts.writership.session(), parts.writership.era());
        let session = Session::new(id, era, keys.key_epoch(), follows, now);
        let queue = Arc::new(Queue::default());
        let copied = Copied::new(parts.copied);
        for object in copied.objects().filter(|object| parts.spool.holds(object)) {
            queue.push(Job::Block(object.clone()));
        }
        for manifest in parts.resumed {
            let (name, tag) = manifest.name.parse().ok_or_else(|| Error::Unusable {
                path: parts.spool.dir().join(manifest.file_name()),
                why: "it names no commit".to_owned(),
            })?;
            let wall = Stamp(manifest.wall);
            let resumed = CommitMark { name, tag, wall };
            progress.captured(resumed, wall, FrameBytes::default());
            queue.push(Job::Commit(Box::new(manifest)));
        }
        let right = Right::new(parts.writership, options.lease, Arc::clone(&parts.clock));
        let long_ago = |ago| Instant::now().checked_sub(ago).unwrap_or_else(Instant::now);
        Ok(Self {
            pipeline: PipelineParts {
                keys: keys.clone(),
                compression: parts.volume.config().compression,
                spool: Arc::clone(&parts.spool),
                gives_way: false,
            },
            gear: Gear::new(keys.gear()),
            index: DedupIndex::open_best_effort(&options.index_dir),
            window: Window::default(),
            recent: Recent::default(),
            ahead: Ahead::default(),
            copied,
            forgetting: Arc::new(Forgetting::new(parts.journal)),
            right: Arc::new(right),
            last_seal: long_ago(options.policy.interval),
            held: options.held,
            inexact: options.held,
            copying: false,
            volume: parts.volume,
            store: parts.store,
            epochs: parts.epochs,
            source: parts.source,
            clock: parts.clock,
            runtime: parts.runtime,
            spool: parts.spool,
            base: parts.base,
            options,
            queue,
            progress,
            stop,
            session,
            reserve: RESERVE_FIRST,
            event: false,
            waiters: Vec::new(),
            last_syncfs: Instant::now(),
            last_epoch: None,
            pause: None,
            struck: None,
            hopeless: BTreeSet::new(),
            suspecting: false,
            has_moment: false,
            resting: true,
            withheld: Withheld::default(),
        })
    }

    fn uploader(&self) -> Uploader {
        Uploader {
            to: Route {
                store: Arc::clone(&self.store),
                spool: Arc::clone(&self.spool),
                progress: Arc::clone(&self.progress),
            },
            volume: Arc::clone(&self.volume),
            queue: Arc::clone(&self.queue),
            right: Arc::clone(&self.right),
            forgetting: Arc::clone(&self.forgetting),
            clock: Arc::clone(&self.clock),
            ahead: Default::default(),
            // An earlier life may have sent them.
            doubtful: self
                .copied
                .objects()
                .map(|object| object.key.clone())
                .collect(),
        }
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Message>, uploading: JoinHandle<()>) {
        loop {
            let rest = match self.is_to_rest() {
                // With more to copy it only looks whether there is a message.
                false => Duration::ZERO,
                true => TICK,
            };
            let next = async { tokio::time::timeout(rest, inbox.recv()).await };
            match self.runtime.block_on(next) {
                Ok(None) => return self.end(Duration::ZERO, None, uploading),
                Ok(Some(Message::Stop { patience, reply })) => {
                    return self.end(patience, Some(reply), uploading);
                }
                Ok(Some(Message::Publish { label, reply })) => {
                    self.waiters.push(Waiter { label, reply });
                    self.pause = None;
                    self.queue.hurry();
                }
                Ok(Some(Message::Hold(held))) => self.held = held,
                // Who asks may have given up meanwhile.
                Ok(Some(Message::Newest(reply))) => drop(reply.send(self.base.clone())),
                Ok(Some(Message::Event)) => self.event = true,
                Err(_tick) => {}
            }
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.has_moment |= self
            .base
            .as_ref()
            .is_some_and(|base| !base.commit.incomplete);
        let open = self.epochs.open_size();
        self.progress.open(open, self.clock.now());
        self.tell_owed();
        if self.progress.is_fenced() {
            self.refuse_waiters();
            return;
        }
        if self.pause.is_some_and(|(until, _)| Instant::now() < until) {
            return;
        }
        let done = self
            .copy_ahead_if_large(open)
            .and_then(|()| match self.wants_seal(open) {
                true => self.seal(),
                false => Ok(()),
            });
        self.settle(done);
        self.sync_source_in_background();
        let idle = if self.is_held() {
            Phase::Held
        } else {
            Phase::Idle
        };
        self.progress.phase(idle);
    }

    /// Whether there is nothing to be copied at once. While nothing is done at all, what was begun says no more than at its last turn.
    fn is_to_rest(&self) -> bool {
        let idle = self.pause.is_some() || self.progress.is_fenced();
        idle || !(self.copying && self.has_room())
    }

    fn wants_seal(&self, open: ChangeSize) -> bool {
        // What does not fit is sealed only when there is nothing to wait for.
        let used = self.spool.used_bytes();
        let fits = used.saturating_add(open.bytes) <= self.options.spool_bytes;
        if !self.has_room() || !(fits || self.progress.waiting() == 0) {
            return false;
        }
        let since = self.last_seal.elapsed();
        if self.is_held() || self.copying {
            return self.wants_inexact_seal(open, since);
        }
        !self.waiters.is_empty()
            || self.owes_moment()
            || self.options.policy.due(open, since, self.event)
    }

    /// Whether to publish what there is while no exact moment can be: from time to time during a first backup, and before memory runs
    /// out.
    fn wants_inexact_seal(&self, open: ChangeSize, since: Duration) -> bool {
        let many = self.is_held() && self.epochs.is_enough_for_a_scan();
        let large = many || self.epochs.is_crowded() || self.ahead.is_full();
        let may = self.is_held() || !self.would_spoil();
        let due = large || (may && since >= self.options.incomplete_interval);
        due && open != ChangeSize::default()
    }

    /// Whether nothing that is sealed now can be an exact moment: a scan is running, or one is owed.
    pub(super) fn is_held(&self) -> bool {
        self.held || self.epochs.is_owing()
    }

    /// Says in the status what must be looked at again, and what cannot be noted.
    fn tell_owed(&self) {
        let trouble = self.epochs.why_owing().or_else(|| self.source.trouble());
        match trouble {
            Some(why) => self.progress.stands(Who::Notes, why, self.clock.now()),
            None => self.progress.succeeded(Who::Notes),
        }
    }

    /// Whether the scan has ended and the newest commit is still one that was published while it ran.
    pub(super) fn owes_moment(&self) -> bool {
        !self.is_held()
            && self
                .base
                .as_ref()
                .is_some_and(|base| base.commit.incomplete)
    }

    /// Whether a commit made now would put an inexact moment on top of an exact one: the journal and the times of files hold
    /// what it would say, and the next mount finds it there.
    pub(super) fn would_spoil(&self) -> bool {
        let exact = |base: &Found| !base.commit.incomplete;
        (self.is_held() || self.copying) && self.base.as_ref().is_some_and(exact)
    }

    /// Whether the spool takes more. If not, the open epoch grows coarser until it does.
    pub(super) fn has_room(&self) -> bool {
        self.spool.used_bytes() < self.options.spool_bytes
            && self.progress.waiting() < SPOOL_COMMITS_MAX
    }

    /// Takes note of how a seal ended. Says whether it failed at a file that is left out from now on.
    pub(super) fn settle(&mut self, done: Result<(), Error>) -> bool {
        match done {
            Ok(()) => {
                self.pause = None;
                self.progress.succeeded(Who::Flow);
                false
            }
            // Not a failure: the changes are in the open epoch again, and the epochs see to it that this ends.
            Err(Error::Folded) => false,
            Err(error) => {
                let mended = match &error {
                    Error::Source { id, source } => self.strike(*id, source),
                    _ => false,
                };
                let now = self.clock.now();
                self.progress.failed(Who::Flow, error.to_string(), now);
                let pause = pause_after(self.pause.map(|(_, last)| last), mended);
                self.pause = Some((Instant::now() + pause, pause));
                mended
            }
        }
    }

    /// A file could not be read. One file must not keep all others from being backed up. Says whether it is left out from now on, so
    /// that the next attempt will not meet with it.
    fn strike(&mut self, id: FileId, error: &std::io::Error) -> bool {
        self.suspecting |= is_refusal(error);
        if self.progress.refused().contains(&id) {
            return self.hopeless.insert(id);
        }
        if is_to_be_left_out(error, self.struck == Some(id)) {
            self.progress.refuse(id);
            self.forgetting.left_out();
            self.hopeless.insert(id);
        } else {
            self.struck = Some(id);
            return false;
        }
        true
    }

    /// Tells those who wait that there is no use in it.
    fn refuse_waiters(&mut self) {
        for waiter in self.waiters.drain(..) {
            let why = "another writer has taken the volume".to_owned();
            drop(waiter.reply.send(Err(Error::Stopped(why))));
        }
    }

    /// Those whom the newest captured commit serves are told when it is in the store.
    pub(super) fn answer_waiters(&mut self, label: &str) {
        let target = self.base.as_ref().map(mark);
        let serves = |waiter: &mut Waiter| waiter.label.is_empty() || waiter.label == label;
        for waiter in self.waiters.extract_if(.., serves) {
            let published = self.progress.watch();
            self.runtime
                .spawn(wait_for(target, published, waiter.reply));
        }
    }

    /// The name of the next commit: the oldest that somebody asked for.
    pub(super) fn next_label(&self) -> String {
        let mut labels = self.waiters.iter().map(|waiter| &waiter.label);
        labels.find(|l| !l.is_empty()).cloned().unwrap_or_default()
    }

    /// From time to time makes the source's bytes safe, so that the journal may forget. On a thread of its own, since it
    /// may take as long as the disk needs for everybody's writes.
    fn sync_source_in_background(&mut self) {
        let Some(epoch) = self
            .last_epoch
            .filter(|_| self.last_syncfs.elapsed() > SYNCFS_INTERVAL)
        else {
            return;
        };
        self.last_syncfs = Instant::now();
        let (source, forgetting) = (Arc::clone(&self.source), Arc::clone(&self.forgetting));
        let (progress, clock) = (Arc::clone(&self.progress), Arc::clone(&self.clock));
        std::thread::spawn(move || {
            let synced = source
                .sync_filesystem()
                .and_then(|()| forgetting.synced(epoch));
            if let Err(error) = synced {
                let message = format!("syncfs of the source: {error}");
                progress.failed(Who::Source, message, clock.now());
            } else {
                progress.succeeded(Who::Source);
            }
        });
    }
}

/// How long to wait after a failure: longer than after the `last` one in a row, unless its cause is `mended`.
fn pause_after(last: Option<Duration>, mended: bool) -> Duration {
    let last = last.filter(|_| !mended);
    last.map_or(TICK, |last| (last * 2).min(PAUSE_MAX))
}

/// A commit as `status` shows it.
pub(super) fn mark(found: &Found) -> CommitMark {
    CommitMark {
        name: found.commit.name,
        tag: found.tag,
        wall: found.commit.wall,
    }
}

fn follows(found: &Found) -> Follows {
    Follows {
        name: found.commit.name,
        wall: found.commit.wall,
    }
}

pub(super) fn reaches(published: &Published, target: Option<CommitMark>) -> bool {
    let seq = |mark: CommitMark| mark.name.seq;
    published.newest.map(seq) >= target.map(seq)
}

async fn wait_for(
    target: Option<CommitMark>,
    mut published: watch::Receiver<Published>,
    reply: oneshot::Sender<Result<Option<CommitMark>, Error>>,
) {
    let answer = match published
        .wait_for(|p| reaches(p, target) || p.stopped.is_some())
        .await
    {
        Ok(now) if reaches(&now, target) => Ok(target),
        Ok(now) => Err(Error::Stopped(now.stopped.clone().unwrap_or_default())),
        Err(_) => Err(Error::Stopped("it no longer runs".to_owned())),
    };
    // Whoever asked may have given up meanwhile.
    drop(reply.send(answer));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of ten thousand files that may not be read was restored. Each of them was left out after a seal that had failed because
    /// of it, and the pause after each was half a minute: the first snapshot came after four days.
    #[test]
    fn what_is_mended_is_tried_again_at_once() {
        let mut pause = None;
        for _ in 0..20 {
            pause = Some(pause_after(pause, false));
        }
        assert_eq!(pause, Some(PAUSE_MAX));
        assert_eq!(pause_after(pause, true), TICK);
    }
}
