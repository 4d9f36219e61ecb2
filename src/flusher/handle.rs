//! How the daemon talks to the flusher: a bounded inbox of messages, and numbers that can be read at any time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::epoch::Epochs;
use crate::flusher::error::Error;
use crate::flusher::policy::{Event, Policy};
use crate::flusher::progress::{CommitMark, Progress, Status, Who};
use crate::flusher::spool::Spool;
use crate::repo::commits::Found;

/// Messages that wait for the flow. Events beyond it are dropped, since one of their kind is waiting already.
pub(crate) const INBOX_LEN: usize = 64;

/// What the flow can be told.
pub(crate) enum Message {
    /// Seal now and say when everything up to here is in the store; with a label, a commit is made even of nothing.
    Publish {
        /// Name for the commit; empty for a mere `sync`.
        label: String,
        /// Told when it is in the store. `None` if there has never been anything to publish.
        reply: oneshot::Sender<Result<Option<CommitMark>, Error>>,
    },
    /// A scan begins or ends: while it runs only incomplete commits are sealed.
    Hold(bool),
    /// The newest captured commit, once nothing is being captured.
    Newest(oneshot::Sender<Option<Found>>),
    /// A program did something that the policy seals on.
    Event,
    /// Seal, upload for at most so long, stop.
    Stop {
        /// How long to wait for the store.
        patience: Duration,
        /// Told at the end.
        reply: oneshot::Sender<Stopped>,
    },
}

/// How a stop ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Stopped {
    /// Whether everything is in the store.
    pub published: bool,
    /// Whether everything is at least captured in the spool or the store (else the journal owes it).
    pub captured: bool,
    /// The numbers at the end.
    pub status: Status,
}

/// A running flusher. Cheap to clone; dropping all of them stops it as if by a stop without patience.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) policy: Policy,
    pub(crate) progress: Arc<Progress>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) epochs: Arc<Epochs>,
}

impl Handle {
    /// Returns when everything written before the call is in the store: the commit that holds it, or `None` if
    /// there has never been anything to publish.
    pub async fn sync(&self) -> Result<Option<CommitMark>, Error> {
        self.publish(String::new()).await
    }

    /// Seals now, names the commit `label` (not empty) and returns when it is in the store.
    pub async fn snapshot(&self, label: String) -> Result<CommitMark, Error> {
        let mark = self.publish(label).await?;
        mark.ok_or_else(|| Error::Stopped("no commit was made".to_owned()))
    }

    /// Says that a scan of the source begins (`true`) or has ended.
    pub async fn hold(&self, held: bool) -> Result<(), Error> {
        self.send(Message::Hold(held)).await
    }

    /// The newest captured commit; `None` for a volume without any. No epoch from before the call is made into a commit
    /// afterwards, so this is what everything can be compared with.
    pub async fn newest(&self) -> Result<Option<Found>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Newest(reply)).await?;
        answer.await.map_err(|_| gone())
    }

    /// Notes something a program did. Never waits; lost when the inbox is full, when a seal is due anyway. What the policy does not seal
    /// on costs nothing: this is told of every file that is closed, and waking the flow takes longer than closing one.
    pub fn note(&self, event: Event) {
        if self.policy.wants(event) {
            drop(self.inbox.try_send(Message::Event));
        }
    }

    /// Shows in the status how it went to make the journal durable.
    pub fn journal_synced(&self, synced: &std::io::Result<()>) {
        match synced {
            Ok(()) => self.progress.succeeded(Who::Journal),
            Err(error) => {
                let now = self.clock.now();
                self.progress.failed(Who::Journal, error.to_string(), now);
            }
        }
    }

    /// Seals, uploads for at most `patience`, and stops. What is not uploaded by then stays in the spool.
    pub async fn stop(&self, patience: Duration) -> Result<Stopped, Error> {
        let (reply, answer) = oneshot::channel();
        let _hurry = self.epochs.activity().hurry();
        self.send(Message::Stop { patience, reply }).await?;
        answer.await.map_err(|_| gone())
    }

    /// The numbers now.
    pub fn status(&self) -> Status {
        let now = self.clock.now();
        let folds = self.epochs.counters().folds;
        let (open, spool) = (self.epochs.open_size(), self.spool.used_bytes());
        self.progress.status(now, open, spool, folds)
    }

    async fn publish(&self, label: String) -> Result<Option<CommitMark>, Error> {
        let (reply, answer) = oneshot::channel();
        let _hurry = self.epochs.activity().hurry();
        self.send(Message::Publish { label, reply }).await?;
        answer.await.map_err(|_| gone())?
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        self.inbox.send(message).await.map_err(|_| gone())
    }
}

fn gone() -> Error {
    Error::Stopped("it no longer runs".to_owned())
}
