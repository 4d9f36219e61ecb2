//! The upload stage: from the spool to the store, in commit order, as long as it takes.
//!
//! Blocks go several at once, a commit's own object last and alone, after the right to publish has been proven. An object
//! counts only when the store, asked for it, has said that it is there at its full length: its answer to the put alone is not
//! believed, since what is uploaded is removed from this disk. That it is there with other bytes no question short of reading it
//! back would show; `check --read-data` does. A failed attempt is repeated for ever with growing pauses, or at once when somebody
//! waits for it; only a writer that was replaced stops for good.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::clock::{Clock, Stamp};
use crate::failpoint::{self, Point};
use crate::flusher::error::Error;
use crate::flusher::forget::Forgetting;
use crate::flusher::manifest::{self, Manifest, SpooledObject};
use crate::flusher::progress::{CommitMark, Progress, Who};
use crate::flusher::spool::Spool;
use crate::id::{EpochNo, Era, ObjectKey, SessionId, Tag};
use crate::repo::Volume;
use crate::repo::lease::Writership;
use crate::store::retry;
use crate::store::{Body, Condition, Kind, PutOutcome, Store};

/// Objects uploaded at once: what fills a line of a few hundred Mbit/s at 64 MiB each (FACTS: 4, 16 at most).
const UPLOADS: usize = 4;
/// The first pause after a failure; it grows up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause before chance is added, at most as much again: a laptop that comes back to its network is served within a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Between attempts to renew the lease while something is uploaded.
const RENEW_PAUSE: Duration = Duration::from_secs(5);

/// Something to upload.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// A block copied ahead of its commit.
    Block(SpooledObject),
    /// A captured epoch.
    Commit(Box<Manifest>),
}

/// What waits for upload, in order. Bounded by the spool's own bounds.
#[derive(Default)]
pub(crate) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    wake: Notify,
    hurry: Notify,
}

impl Queue {
    pub(crate) fn push(&self, job: Job) {
        self.jobs.lock().push_back(job);
        self.wake.notify_one();
    }

    /// Somebody waits for what is queued: the pause after a failure is cut short, this one or the next.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// The next jobs that may go together: some blocks, or one commit.
    fn next(&self) -> Vec<Job> {
        let jobs = self.jobs.lock();
        let blocks = jobs.iter().take_while(|job| matches!(job, Job::Block(_)));
        let blocks: Vec<Job> = blocks.take(UPLOADS).cloned().collect();
        match blocks.is_empty() {
            true => jobs.front().cloned().into_iter().collect(),
            false => blocks,
        }
    }

    /// Tags of the commits that the store's newest may be by now, going by what waits: each of them, and those they follow.
    pub(crate) fn heads(&self) -> Vec<Tag> {
        let jobs = self.jobs.lock();
        let commits = jobs.iter().filter_map(|job| match job {
            Job::Block(_) => None,
            Job::Commit(manifest) => Some(&**manifest),
        });
        manifest::heads(commits)
    }

    fn done(&self, jobs: usize) {
        self.jobs.lock().drain(..jobs);
    }
}

/// The right to publish, and when it was last proven.
pub(crate) struct Right {
    /// Never held while the store is asked: whoever makes a commit must not wait for that.
    writership: Mutex<Arc<Writership>>,
    /// Held while it is proven or replaced.
    proof: tokio::sync::Mutex<Proof>,
    lease: Duration,
    clock: Arc<dyn Clock>,
}

/// When the right was last proven, and how.
struct Proof {
    /// When the lease was last written: by a clock that goes on while the machine sleeps, since the lease does.
    renewed: Duration,
    /// Whether the claims have been listed since.
    listed: bool,
}

impl Proof {
    fn of_renewal(renewed: Duration) -> Self {
        Self {
            renewed,
            listed: false,
        }
    }
}

impl Right {
    /// A right just claimed, with a lease of this length.
    pub(crate) fn new(writership: Writership, lease: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            writership: Mutex::new(Arc::new(writership)),
            proof: tokio::sync::Mutex::new(Proof::of_renewal(clock.since_boot())),
            lease,
            clock,
        }
    }

    /// The right under which commits are made now.
    pub(crate) fn writership(&self) -> Arc<Writership> {
        Arc::clone(&self.writership.lock())
    }

    /// A new claim (after a step back of the clock) takes the place of the old. Nothing is proven or renewed meanwhile: the
    /// lease is the new session's before the claim is. Should this fail half way, the old right is not lost to it.
    pub(crate) async fn replace(
        &self,
        session: SessionId,
        claim: impl Future<Output = Result<Writership, crate::repo::Error>>,
    ) -> Result<Era, crate::repo::Error> {
        let mut proof = self.proof.lock().await;
        self.writership().will_claim_as(session);
        let began = self.clock.since_boot();
        let writership = claim.await?;
        let era = writership.era();
        *self.writership.lock() = Arc::new(writership);
        *proof = Proof::of_renewal(began);
        Ok(era)
    }

    /// Whether a claim to replace this one was begun and not ended: it may lie in the store, and cuts off what is named by the
    /// old session from now on.
    pub(crate) fn is_half_replaced(&self) -> bool {
        self.writership().has_claimed_again()
    }

    /// Asks the store whether a commit that lies in it now is history: by a list of claims once after each renewal, else by the lease,
    /// which is a cheaper request and as good unless somebody has put an old one back.
    async fn confirm(&self) -> Result<(), crate::repo::Error> {
        let mut proof = self.proof.lock().await;
        if proof.listed {
            return self.writership().confirm().await;
        }
        self.writership().verify().await?;
        proof.listed = true;
        Ok(())
    }

    /// Renews the lease in good time; asks the store first if it may have run out meanwhile.
    pub(crate) async fn prove(&self) -> Result<(), crate::repo::Error> {
        let mut proof = self.proof.lock().await;
        let writership = self.writership();
        let began = self.clock.since_boot();
        let age = began.saturating_sub(proof.renewed);
        if age < self.lease / 3 {
            return Ok(());
        }
        if age >= self.lease {
            writership.verify().await?;
        }
        writership.renew(&*self.clock).await?;
        *proof = Proof::of_renewal(began);
        Ok(())
    }

    /// Does `work`, and renews the lease meanwhile: the blocks of a large backup take longer than that lasts.
    async fn kept_during(
        &self,
        work: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let keeping = async {
            loop {
                tokio::time::sleep(self.renew_in().await.max(RENEW_PAUSE)).await;
                match self.prove().await.map_err(Error::from) {
                    Err(error) if error.is_fenced() => return error,
                    // The store may be away: then the work fails too, and is repeated.
                    Err(error) => tracing::info!(%error, "the lease could not be renewed"),
                    Ok(()) => {}
                }
            }
        };
        // Side by side, since the work proves the right too.
        tokio::select! {
            done = work => done,
            error = keeping => Err(error),
        }
    }

    /// Gives the lease back, so that another machine need not wait for it to run out.
    pub(crate) async fn release(&self) -> Result<(), crate::repo::Error> {
        let _not_proven_meanwhile = self.proof.lock().await;
        self.writership().release().await
    }

    /// How long until the lease should be renewed.
    async fn renew_in(&self) -> Duration {
        let renewed = self.proof.lock().await.renewed;
        (self.lease / 3).saturating_sub(self.clock.since_boot().saturating_sub(renewed))
    }
}

/// Uploads until told to stop.
pub(crate) struct Uploader {
    pub(crate) to: Route,
    pub(crate) volume: Arc<Volume>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) right: Arc<Right>,
    pub(crate) forgetting: Arc<Forgetting>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Objects that the store has of commits that are not proven: copied ahead, or uploaded by an attempt that failed later.
    pub(crate) ahead: HashSet<ObjectKey>,
    /// Objects that the store may have, though the attempt to put them failed.
    pub(crate) doubtful: HashSet<ObjectKey>,
}

impl Uploader {
    /// Runs until `stop` says so or the writer is replaced.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut pauses = retry::pauses(PAUSE_FIRST, PAUSE_MAX);
        loop {
            let step = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                step = self.step() => step,
            };
            match step {
                Ok(()) => {
                    self.to.progress.succeeded(Who::Uploader);
                    pauses = retry::pauses(PAUSE_FIRST, PAUSE_MAX);
                }
                Err(error) if error.is_fenced() => {
                    let now = self.clock.now();
                    self.to
                        .progress
                        .failed(Who::Uploader, error.to_string(), now);
                    return self.to.progress.stop(&error.to_string(), true);
                }
                Err(error) => {
                    let now = self.clock.now();
                    self.to
                        .progress
                        .failed(Who::Uploader, error.to_string(), now);
                    let pause = pauses.next().unwrap_or(PAUSE_MAX);
                    tokio::select! {
                        _ = stop.wait_for(|stop| *stop) => return,
                        () = self.queue.hurry.notified() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Does what is next, or waits until there is something, keeping the lease alive meanwhile.
    async fn step(&mut self) -> Result<(), Error> {
        let jobs = self.queue.next();
        let right = Arc::clone(&self.right);
        match &jobs[..] {
            [] => {
                let renew_in = self.right.renew_in().await;
                tokio::select! {
                    () = self.queue.wake.notified() => {}
                    () = tokio::time::sleep(renew_in) => self.right.prove().await?,
                }
                return Ok(());
            }
            [Job::Commit(manifest)] => right.kept_during(self.commit(manifest)).await?,
            blocks => right.kept_during(self.blocks(blocks)).await?,
        }
        self.queue.done(jobs.len());
        Ok(())
    }

    async fn blocks(&mut self, jobs: &[Job]) -> Result<(), Error> {
        let objects: Vec<SpooledObject> = jobs
            .iter()
            .filter_map(|job| match job {
                Job::Block(object) => Some(object.clone()),
                Job::Commit(_) => None,
            })
            .collect();
        self.put_all(&objects, Earlier::Never).await?;
        failpoint::reach(Point::UploadAhead);
        for object in &objects {
            self.to.spool.remove(object)?;
        }
        Ok(())
    }

    async fn commit(&mut self, manifest: &Manifest) -> Result<(), Error> {
        let (commit, blocks) = manifest.objects.split_last().expect("checked when made");
        let (name, tag) = manifest.name.parse().expect("checked when made or read");
        let earlier = match name.session == self.right.writership().session() {
            true => Earlier::Never,
            false => Earlier::Perhaps,
        };
        self.put_all(blocks, earlier).await?;
        self.right.prove().await?;
        failpoint::reach(Point::CommitPut);
        self.put_all(std::slice::from_ref(commit), Earlier::Never)
            .await?;
        failpoint::reach(Point::Committed);
        // While it was on its way the machine may have slept and the lease run out, or the store may ignore conditions. A
        // commit under a claim that was lost is not history: the spool and the journal must still owe it.
        self.right.confirm().await?;
        for object in &manifest.objects {
            self.ahead.remove(&object.key);
        }
        self.volume.note_published_best_effort(name, tag);
        // Whoever is told that it is published must not read of the failure before it.
        self.to.progress.succeeded(Who::Uploader);
        self.to.progress.published(CommitMark {
            name,
            tag,
            wall: Stamp(manifest.wall),
        });
        failpoint::reach(Point::Publish);
        manifest.remove(&self.to.spool)?;
        if let Some(epoch) = manifest.epoch {
            self.forgetting
                .published(EpochNo(epoch), name.seq)
                .map_err(|source| Error::Spool {
                    doing: "forget an epoch in the journal",
                    path: self.to.spool.dir().to_owned(),
                    source,
                })?;
        }
        Ok(())
    }

    /// Puts what the store is not known to have, and remembers each that got there, so that the next attempt need not. When one
    /// fails no other is begun, and those under way are brought to their end: on a slow line each has cost minutes.
    async fn put_all(&mut self, objects: &[SpooledObject], earlier: Earlier) -> Result<(), Error> {
        let failed = AtomicBool::new(false);
        let owed = objects
            .iter()
            .filter(|object| !self.ahead.contains(&object.key));
        let puts = owed.cloned().map(|object| {
            let (to, key, failed) = (self.to.clone(), object.key.clone(), &failed);
            let earlier = match self.doubtful.contains(&key) {
                true => Earlier::Perhaps,
                false => earlier,
            };
            async move {
                if failed.load(Ordering::Relaxed) {
                    return (key, Ok(false));
                }
                let put = to.put(object, earlier).await;
                failed.fetch_or(put.is_err(), Ordering::Relaxed);
                (key, put.map(|()| true))
            }
        });
        // Collected, since the compiler cannot see that a lazy iterator over borrowed parts may change threads.
        let puts = stream::iter(puts.collect::<Vec<_>>()).buffer_unordered(UPLOADS);
        let ended: Vec<_> = puts.collect().await;
        let mut first = Ok(());
        for (key, put) in ended {
            match put {
                Ok(false) => {}
                Ok(true) => {
                    self.doubtful.remove(&key);
                    self.ahead.insert(key);
                }
                Err(NotPut { error, doubtful }) => {
                    if doubtful {
                        self.doubtful.insert(key);
                    }
                    first = first.and(Err(error));
                }
            }
        }
        first
    }
}

/// An object could not be put.
struct NotPut {
    error: Error,
    /// Whether the store may have it all the same.
    doubtful: bool,
}

/// Whether an object may have been uploaded already, by a process before this one or by an attempt whose end nobody heard of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Earlier {
    /// It cannot have been.
    Never,
    /// Asked of the store before all of it is sent again.
    Perhaps,
}

/// Where objects come from and go to.
#[derive(Clone)]
pub(crate) struct Route {
    /// The store itself, without the spool laid over it.
    pub(crate) store: Store,
    pub(crate) spool: Arc<Spool>,
    pub(crate) progress: Arc<Progress>,
}

impl Route {
    /// Puts one object, and asks the store whether it has it.
    async fn put(self, object: SpooledObject, earlier: Earlier) -> Result<(), NotPut> {
        let len = object.len;
        let there = async || self.store.head(&object.key).await;
        let unasked = |error: crate::store::Error| NotPut {
            error: error.into(),
            doubtful: true,
        };
        let before = match earlier {
            Earlier::Perhaps => there().await.map_err(unasked)?,
            Earlier::Never => None,
        };
        if before == Some(len) {
            return Ok(());
        }
        failpoint::reach(Point::UploadBlock);
        let path = self.spool.path(&object.key);
        // Removed after an upload, and the machine went down before the manifest was.
        let spooled = path.exists();
        if spooled {
            let body = Body::File { path, len };
            // Its name is this session's alone: what is there of another length is a part of it.
            let put = match before {
                Some(_) => self
                    .store
                    .put(&object.key, body)
                    .await
                    .map(|()| PutOutcome::Done),
                None => {
                    self.store
                        .put_if(&object.key, body, Condition::Absent)
                        .await
                }
            };
            match put {
                Ok(PutOutcome::Done) => self.progress.uploaded(len),
                // An attempt of ours whose answer was lost has made it.
                Ok(PutOutcome::Refused) => {}
                Err(error) => {
                    let doubtful = error.kind == Kind::Retry;
                    let error = error.into();
                    return Err(NotPut { error, doubtful });
                }
            }
        }
        failpoint::reach(Point::UploadedBlock);
        let found = there().await.map_err(unasked)?;
        if found == Some(len) {
            return Ok(());
        }
        let error = match spooled {
            true => Error::NotStored {
                store: self.store.describe(),
                object: object.key.clone(),
                len,
                found,
            },
            false => crate::repo::Error::Missing {
                object: object.key.clone(),
            }
            .into(),
        };
        Err(NotPut {
            error,
            doubtful: true,
        })
    }
}
