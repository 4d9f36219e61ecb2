//! A live mount's way to its repository: awaited, there, or given up. Everybody who wants something of the flusher asks here, since
//! a mount may be older than the first word from its repository.
//!
//! Held by `writing.rs`, which owns what is behind it; read by the desk and by the front's hooks, on whatever thread those run.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Error;
use crate::clock::{Clock, Stamp, SystemClock};
use crate::flusher::{self, CommitMark};

/// What a person should know when another machine has taken the volume under a live mount.
pub(super) const TAKEN: &str = "another writer has taken the volume; nothing is backed up here until you unmount (`rewindfs umount \
     --no-wait`) and mount again";

/// What is wrong, and since when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trouble {
    /// One line: what is wrong and what to do.
    pub(super) message: String,
    /// When it began.
    pub(super) since: Stamp,
}

/// How a mount stands with its repository.
#[derive(Clone)]
pub(super) enum Stage {
    /// The repository has not answered yet. It is tried again and again.
    Waiting(Option<Trouble>),
    /// What is written is published.
    Publishing(flusher::Handle),
    /// This process publishes nothing any more; the directory stays what it is.
    Halted(Trouble),
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    stage: watch::Sender<Stage>,
    /// Somebody wants the repository now: no use in a long pause.
    wanted: Notify,
    /// What is wrong with the journal, as long as no flusher keeps that.
    journal: Mutex<Option<Trouble>>,
}

impl Link {
    /// Awaited from now on.
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            stage: watch::Sender::new(Stage::Waiting(None)),
            wanted: Notify::new(),
            journal: Mutex::default(),
        }))
    }

    /// How it stands.
    pub(super) fn stage(&self) -> Stage {
        self.0.stage.borrow().clone()
    }

    /// What is wrong, if the repository is awaited or given up.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match &*self.0.stage.borrow() {
            Stage::Waiting(trouble) => trouble.clone().or_else(|| self.0.journal.lock().clone()),
            Stage::Halted(trouble) => Some(trouble.clone()),
            Stage::Publishing(_) => None,
        }
    }

    /// The repository has answered, and the flusher runs.
    pub(super) fn established(&self, flusher: flusher::Handle) {
        self.0.stage.send_replace(Stage::Publishing(flusher));
    }

    /// It was tried in vain.
    pub(super) fn failed(&self, message: String) {
        let now = SystemClock.now();
        self.0.stage.send_modify(|stage| {
            let since = match stage {
                Stage::Waiting(Some(before)) => before.since,
                _ => now,
            };
            *stage = Stage::Waiting(Some(Trouble { message, since }));
        });
    }

    /// It is given up.
    pub(super) fn halted(&self, message: String) {
        let since = SystemClock.now();
        let trouble = Trouble { message, since };
        self.0.stage.send_replace(Stage::Halted(trouble));
    }

    /// The flusher, if the repository has answered.
    pub(super) fn flusher(&self) -> Option<flusher::Handle> {
        match &*self.0.stage.borrow() {
            Stage::Publishing(flusher) => Some(flusher.clone()),
            Stage::Waiting(_) | Stage::Halted(_) => None,
        }
    }

    /// Returns when everything written before the call is in the repository, however long that is away.
    pub(super) async fn sync(&self) -> anyhow::Result<Option<CommitMark>> {
        let flusher = self.awaited().await?;
        let synced = flusher.sync().await;
        synced.map_err(|error| unless_fenced(&flusher, error))
    }

    /// A snapshot with a name.
    pub(super) async fn snapshot(&self, name: String) -> anyhow::Result<CommitMark> {
        let flusher = self.awaited().await?;
        let made = flusher.snapshot(name).await;
        made.map_err(|error| unless_fenced(&flusher, error))
    }

    /// Tells the flusher of something that a program did. Never waits.
    pub(super) fn note(&self, event: flusher::Event) {
        if let Stage::Publishing(flusher) = &*self.0.stage.borrow() {
            flusher.note(event);
        }
    }

    /// Shows how it went to make the journal durable.
    pub(super) fn journal_synced(&self, synced: &io::Result<()>) {
        if let Some(flusher) = self.flusher() {
            return flusher.journal_synced(synced);
        }
        let mut journal = self.0.journal.lock();
        match (synced, &*journal) {
            (Ok(()), _) => *journal = None,
            (Err(_), Some(_)) => {}
            (Err(error), None) => {
                *journal = Some(Trouble {
                    message: error.to_string(),
                    since: SystemClock.now(),
                });
            }
        }
    }

    /// Returns when somebody wants the repository now.
    pub(super) async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    /// The flusher, once the repository has answered; the attempt is hurried.
    async fn awaited(&self) -> Result<flusher::Handle, Error> {
        self.0.wanted.notify_one();
        let mut stage = self.0.stage.subscribe();
        let answered = |stage: &Stage| !matches!(stage, Stage::Waiting(_));
        let stage = stage.wait_for(answered).await;
        match stage.as_deref() {
            Ok(Stage::Publishing(flusher)) => Ok(flusher.clone()),
            Ok(Stage::Halted(trouble)) => Err(Error::AnotherWriter(trouble.message.clone())),
            // The sender lives as long as this value does.
            Ok(Stage::Waiting(_)) | Err(_) => Err(Error::Failed("the mount has ended".into())),
        }
    }
}

/// Who waits for a writer that was replaced is told of the other one: there is no use in trying again.
fn unless_fenced(flusher: &flusher::Handle, error: flusher::Error) -> anyhow::Error {
    match flusher.status().fenced {
        true => Error::AnotherWriter(TAKEN.to_owned()).into(),
        false => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_repository_hurries_it_and_hears_when_it_is_given_up() {
        let link = Link::new();
        let waiting = tokio::spawn({
            let link = link.clone();
            async move { link.sync().await }
        });
        link.wanted().await;
        link.failed("no route".into());
        let begun = link.trouble().unwrap();
        assert_eq!(begun.message, "no route");
        link.failed("refused".into());
        let later = link.trouble().unwrap();
        assert_eq!(
            (later.message.as_str(), later.since),
            ("refused", begun.since)
        );
        assert!(!waiting.is_finished());

        link.halted("taken".into());
        let told = waiting.await.unwrap().unwrap_err();
        let another = told.downcast_ref();
        assert!(matches!(another, Some(Error::AnotherWriter(why)) if why == "taken"));
        assert!(link.flusher().is_none());
    }

    #[test]
    fn a_journal_that_fails_while_the_repository_is_awaited_is_told_until_it_is_mended() {
        let link = Link::new();
        assert_eq!(link.trouble(), None);
        link.journal_synced(&Err(io::Error::other("disk full")));
        assert_eq!(link.trouble().unwrap().message, "disk full");
        link.journal_synced(&Ok(()));
        assert_eq!(link.trouble(), None);
    }
}
