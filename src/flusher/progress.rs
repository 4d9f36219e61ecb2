//! What the flusher knows of itself: the numbers behind `status`, and how far publishing has come.
//!
//! Written by the flow and the uploader, read by anybody at any time without waiting for either.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Stamp;
use crate::epoch::ChangeSize;
use crate::flusher::spool::FrameBytes;
use crate::format::entry::CommitName;
use crate::id::{FileId, Seq, Tag};

/// Refused files that are named; more are only counted.
const REFUSED_NAMED_MAX: usize = 1000;

/// How old a change is said to be at least: the clock may have been set back since.
const LAG_MIN: Duration = Duration::from_millis(1);

/// What the flow is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// Waiting for changes or for their time.
    #[default]
    Idle,
    /// A scan is running; nothing but incomplete commits is sealed.
    Held,
    /// Copying dirty data of the open epoch.
    CopyingAhead,
    /// Capturing a sealed epoch.
    Capturing,
    /// Stopped; why stands in the last error if it was not asked for.
    Stopped,
}

/// A commit as `status` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitMark {
    /// Its name.
    pub name: CommitName,
    /// Its tag.
    pub tag: Tag,
    /// Wall clock at its seal.
    pub wall: Stamp,
}

/// A snapshot of the numbers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Status {
    /// What is going on.
    pub phase: Phase,
    /// Age of the oldest change that is not in the store; zero when all is, and only then.
    pub lag: Duration,
    /// Changes of the open epoch.
    pub open: ChangeSize,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Commits in the spool.
    pub spool_commits: usize,
    /// The newest commit verified in the store.
    pub last_commit: Option<CommitMark>,
    /// The newest commit that is at least in the spool.
    pub last_captured: Option<CommitMark>,
    /// The failures that have not been followed by success, the oldest first, and since when there has been one.
    pub last_error: Option<(String, Stamp)>,
    /// The same of sealing, capturing and uploading alone: what keeps changes from the store.
    pub publish_error: Option<(String, Stamp)>,
    /// Whether another writer has taken the volume: nothing will be published any more.
    pub fenced: bool,
    /// Contents captured by this process: plain, compressed, encrypted. C = compressed / plain, E = encrypted / compressed.
    pub contents: FrameBytes,
    /// Bytes of objects that this process has put into the store.
    pub uploaded_bytes: u64,
    /// Objects that this process has put into the store.
    pub uploaded_objects: u64,
    /// Epochs that were folded into the next.
    pub folds: u64,
    /// Inodes that the source refuses to show (at most the first thousand), left out of commits.
    pub refused: Vec<FileId>,
}

/// How far publishing has come.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Published {
    /// The newest commit verified in the store.
    pub(crate) newest: Option<CommitMark>,
    /// Set once nothing more will be published.
    pub(crate) stopped: Option<String>,
}

/// The shared numbers.
#[derive(Debug)]
pub(crate) struct Progress {
    inner: Mutex<Inner>,
    published: watch::Sender<Published>,
}

#[derive(Debug, Default)]
struct Inner {
    status: Status,
    open_since: Option<Stamp>,
    /// The same of an epoch that is being captured.
    sealed_since: Option<Stamp>,
    /// Wall times of commits in the spool, oldest first.
    waiting: VecDeque<(Seq, Stamp)>,
    refused: BTreeSet<FileId>,
    /// Failures of the flow and of the uploader, so that success of one does not hide failure of the other.
    errors: [Option<(String, Stamp)>; 5],
}

/// All `errors` in one sentence, the oldest first, and since when there has been one: a full disk must not be hidden by a store that has
/// been away for longer.
fn standing<'a>(errors: impl Iterator<Item = &'a (String, Stamp)>) -> Option<(String, Stamp)> {
    let mut errors: Vec<_> = errors.collect();
    errors.sort_by_key(|(_, since)| *since);
    let since = errors.first()?.1;
    let mut sentences: Vec<&str> = errors.iter().map(|(error, _)| error.as_str()).collect();
    sentences.dedup();
    Some((sentences.join("; also: "), since))
}

/// Who failed or succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// Sealing, capturing, spooling.
    Flow = 0,
    /// Uploading.
    Uploader = 1,
    /// Making the source's bytes safe.
    Source = 2,
    /// Making the journal durable.
    Journal = 3,
    /// Taking note of what the source has done.
    Notes = 4,
}

impl Progress {
    /// Nothing done yet; `base` is in the store or the spool.
    pub(crate) fn new(published: Option<CommitMark>) -> Self {
        let inner = Inner {
            status: Status {
                last_commit: published,
                last_captured: published,
                ..Status::default()
            },
            ..Inner::default()
        };
        let published = Published {
            newest: published,
            stopped: None,
        };
        Self {
            inner: Mutex::new(inner),
            published: watch::Sender::new(published),
        }
    }

    /// All numbers as of `now`; those that others keep are passed in.
    pub(crate) fn status(
        &self,
        now: Stamp,
        open: ChangeSize,
        spool_bytes: u64,
        folds: u64,
    ) -> Status {
        let inner = self.inner.lock();
        let waiting = inner.waiting.front().map(|&(_, wall)| wall);
        // The flow may not have looked since it was sealed, or since it was changed.
        let open_since = match open.is_empty() {
            true => None,
            false => inner.open_since.or(Some(now)),
        };
        let oldest = [waiting, inner.sealed_since, open_since];
        let oldest = oldest.into_iter().flatten().min();
        let publishing = [Who::Flow, Who::Uploader].map(|who| &inner.errors[who as usize]);
        Status {
            lag: oldest.map_or(Duration::ZERO, |at| {
                Duration::from_millis(now.0.saturating_sub(at.0)).max(LAG_MIN)
            }),
            open,
            spool_bytes,
            folds,
            spool_commits: inner.waiting.len(),
            last_error: standing(inner.errors.iter().flatten()),
            publish_error: standing(publishing.into_iter().flatten()),
            refused: inner
                .refused
                .iter()
                .take(REFUSED_NAMED_MAX)
                .copied()
                .collect(),
            ..inner.status.clone()
        }
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.inner.lock().status.phase = phase;
    }

    /// What the open epoch holds at `now`, which is when its first change was seen if there had been none before.
    pub(crate) fn open(&self, size: ChangeSize, now: Stamp) {
        let mut inner = self.inner.lock();
        inner.open_since = match size.is_empty() {
            true => None,
            false => inner.open_since.or(Some(now)),
        };
    }

    /// An epoch has been sealed at `now`. Returns when its first change was seen.
    pub(crate) fn sealed(&self, now: Stamp) -> Stamp {
        let mut inner = self.inner.lock();
        let since = inner.open_since.take();
        inner.sealed_since = since;
        since.unwrap_or(now)
    }

    /// There was nothing in it.
    pub(crate) fn sealed_nothing(&self) {
        self.inner.lock().sealed_since = None;
    }

    /// That epoch was folded back into the open one.
    pub(crate) fn unsealed(&self, since: Stamp) {
        let mut inner = self.inner.lock();
        inner.sealed_since = None;
        inner.open_since = Some(inner.open_since.map_or(since, |open| open.min(since)));
    }

    /// A commit is in the spool; its oldest change dates from `since`.
    pub(crate) fn captured(&self, mark: CommitMark, since: Stamp, contents: FrameBytes) {
        let mut inner = self.inner.lock();
        inner.status.last_captured = Some(mark);
        inner.status.contents += contents;
        inner.sealed_since = None;
        inner.waiting.push_back((mark.name.seq, since));
    }

    pub(crate) fn uploaded(&self, bytes: u64) {
        let mut inner = self.inner.lock();
        inner.status.uploaded_bytes += bytes;
        inner.status.uploaded_objects += 1;
    }

    /// A commit has been verified in the store.
    pub(crate) fn published(&self, mark: CommitMark) {
        let mut inner = self.inner.lock();
        inner.status.last_commit = Some(mark);
        inner.waiting.retain(|&(seq, _)| seq > mark.name.seq);
        drop(inner);
        self.published.send_modify(|p| p.newest = Some(mark));
    }

    pub(crate) fn failed(&self, who: Who, message: String, now: Stamp) {
        tracing::warn!(?who, %message, "will be tried again");
        let mut inner = self.inner.lock();
        let since = inner.errors[who as usize].as_ref().map_or(now, |e| e.1);
        inner.errors[who as usize] = Some((message, since));
    }

    /// Something is as it should not be, and has been said in the log where it began.
    pub(crate) fn stands(&self, who: Who, message: String, now: Stamp) {
        let mut inner = self.inner.lock();
        let since = inner.errors[who as usize].as_ref().map_or(now, |e| e.1);
        inner.errors[who as usize] = Some((message, since));
    }

    pub(crate) fn succeeded(&self, who: Who) {
        self.inner.lock().errors[who as usize] = None;
    }

    pub(crate) fn refuse(&self, id: FileId) {
        self.inner.lock().refused.insert(id);
    }

    /// It can be read after all, and a commit holds it.
    pub(crate) fn forgive(&self, id: FileId) {
        self.inner.lock().refused.remove(&id);
    }

    pub(crate) fn refused(&self) -> BTreeSet<FileId> {
        self.inner.lock().refused.clone()
    }

    /// Nothing more will be published; everybody who waits is told.
    pub(crate) fn stop(&self, why: &str, fenced: bool) {
        let mut inner = self.inner.lock();
        inner.status.phase = Phase::Stopped;
        inner.status.fenced |= fenced;
        drop(inner);
        self.published.send_modify(|p| {
            p.stopped.get_or_insert_with(|| why.to_owned());
        });
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.inner.lock().status.fenced
    }

    /// Commits in the spool.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Era, SessionId, Tag};

    const CHANGED: ChangeSize = ChangeSize {
        bytes: 4096,
        inodes: 1,
        names: 0,
    };

    const NOTHING: ChangeSize = ChangeSize {
        bytes: 0,
        inodes: 0,
        names: 0,
    };

    fn lag(progress: &Progress, open: ChangeSize, now: u64) -> u64 {
        let status = progress.status(Stamp(now), open, 0, 0);
        status.lag.as_millis() as u64
    }

    #[test]
    fn all_that_stands_is_told_with_the_oldest_first() {
        let progress = Progress::new(None);
        progress.failed(Who::Uploader, "the store is away".to_owned(), Stamp(1000));
        progress.failed(Who::Flow, "the disk is full".to_owned(), Stamp(2000));
        let told = |progress: &Progress| progress.status(Stamp(3000), CHANGED, 0, 0).last_error;
        let both = "the store is away; also: the disk is full".to_owned();
        assert_eq!(told(&progress), Some((both, Stamp(1000))));
        progress.succeeded(Who::Uploader);
        let one = "the disk is full".to_owned();
        assert_eq!(told(&progress), Some((one, Stamp(2000))));
        progress.succeeded(Who::Flow);
        assert_eq!(told(&progress), None);
    }

    /// It was 0 from the seal until the commit was in the spool, as if there were nothing to lose.
    #[test]
    fn the_lag_is_that_of_the_oldest_change_wherever_it_is_on_its_way() {
        let progress = Progress::new(None);
        assert_eq!(lag(&progress, NOTHING, 5000), 0);
        assert_eq!(lag(&progress, CHANGED, 5000), 1, "a moment ago");
        progress.open(CHANGED, Stamp(1000));
        let since = progress.sealed(Stamp(2000));
        assert_eq!((since, lag(&progress, NOTHING, 5000)), (Stamp(1000), 4000));
        progress.open(CHANGED, Stamp(3000));
        assert_eq!(lag(&progress, CHANGED, 5000), 4000);
        progress.unsealed(since);
        assert_eq!(lag(&progress, CHANGED, 5000), 4000);

        let since = progress.sealed(Stamp(6000));
        let name = CommitName {
            era: Era(0),
            stamp: Stamp(6000),
            seq: Seq(1),
            session: SessionId([1; 8]),
        };
        let mark = CommitMark {
            name,
            tag: Tag([0; 32]),
            wall: Stamp(6000),
        };
        progress.captured(mark, since, FrameBytes::default());
        assert_eq!(lag(&progress, NOTHING, 7000), 6000);
        progress.published(mark);
        assert_eq!(lag(&progress, NOTHING, 7000), 0);

        progress.open(CHANGED, Stamp(8000));
        progress.sealed(Stamp(8500));
        progress.sealed_nothing();
        assert_eq!(lag(&progress, NOTHING, 9000), 0);
    }

    /// It was 0 then, as if everything were in the store.
    #[test]
    fn what_is_owed_has_an_age_though_the_clock_was_set_back() {
        let progress = Progress::new(None);
        progress.open(CHANGED, Stamp(5000));
        assert_eq!(lag(&progress, CHANGED, 1000), 1);
        assert_eq!(lag(&progress, CHANGED, 5000), 1);
        assert_eq!(lag(&progress, CHANGED, 7000), 2000);
    }
}
