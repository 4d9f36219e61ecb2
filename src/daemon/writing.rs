//! The parts of a live mount, put together: what lies on this machine, the way to the repository, and the scan that brings both
//! to agreement.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Error;
use super::away::{self, PATIENCE};
use super::connecting::{After, Connected, Standing, WITHOUT_CONDITIONS, connect};
use super::covering::Uncovered;
use super::finding::{Found, within};
use super::link::{Link, Stage};
use super::local::{Left, Local, Settings};
use super::scanning::{Renew, Scanning, Sight};
use super::spilling::Spilling;
use super::waiting::Awaited;
use crate::clock::{Clock, Stamp, SystemClock};
use crate::config::policy::Mode;
use crate::flusher;
use crate::id::{EpochNo, FileId, SessionId};
use crate::journal::{ANY_FILE, Cover, Journal};
use crate::mount;
use crate::reconcile::{self, Trust, Waiting};
use crate::repo::Volume;
use crate::repo::blocks::Blocks;
use crate::store::Traffic;
use crate::store::url::Location;

/// How long `umount` waits for the repository at the end, after everything up to then has been published: only what was
/// written in between is left.
pub(super) const PUBLISH_PATIENCE: Duration = Duration::from_secs(3600);

/// How the mount has ended, when the parts are stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Nobody can write any more.
    Clean,
    /// Programs still have files open: what they write until this process ends is refused, and the next mount looks closely.
    InUse,
}

/// The running parts.
pub(super) struct Writing {
    local: Local,
    link: Link,
    sight: Sight,
    /// Since when the open epoch has changes, while the repository is awaited.
    owed_since: Mutex<Option<Stamp>>,
    spilling: Mutex<Option<Spilling>>,
    next: Mutex<Option<Next>>,
    /// What a person should know about the store, as far as it has been seen when the mount was made.
    advice: Option<&'static str>,
}

/// What happens beside the mount: until it has begun, what is to happen.
enum Next {
    /// To be scanned as soon as the mount is there.
    Scan(Box<Connected>),
    /// To be waited for as soon as the mount is there.
    Wait(Box<Awaited>),
    Scanning(Scanning),
    Waiting(JoinHandle<()>),
}

impl Writing {
    /// Starts everything but the mount. The caller holds the volume's lock. Also returns the
    /// session under which the volume has been claimed, if the repository has answered.
    pub(super) async fn start(
        found: Found,
        (location, traffic): (Location, Traffic),
        settings: Settings,
        uncovered: Uncovered,
    ) -> anyhow::Result<(Self, Option<SessionId>)> {
        let left = Left::open(&settings.state)?;
        let can_wait = settings.can_wait();
        let standing = match &found.away {
            Some(why) => Err(why.clone()),
            None => {
                let (repository, id) = (&found.repository, found.volume.id);
                let standing = async {
                    // One does not need the other, and a store far away takes its time for each.
                    let keeping = away::keep_keys_best_effort(repository, id, &settings.state);
                    let finding = Standing::find(repository, id, &settings, &left, After::Anybody);
                    let ((), standing) = futures::join!(keeping, finding);
                    standing
                };
                in_time(can_wait, &location, standing).await?
            }
        };
        let next_id = standing
            .as_ref()
            .map_or(FileId(FileId::ROOT.0 + 1), Standing::next_id);
        let local = Local::open(settings, left, uncovered, next_id)?;
        let connected = match standing {
            // Without a limit of time: what a lost map lacks then would be numbered anew by the mount.
            Ok(standing) => {
                match unless_away(can_wait, &location, standing.adopt(&local.source)).await? {
                    Ok(()) => in_time(can_wait, &location, connect(&local, standing, None)).await?,
                    Err(why) => Err(why),
                }
            }
            Err(why) => Err(why),
        };

        let link = Link::new();
        let spilling = {
            let link = link.clone();
            Spilling::start(local.journal.clone(), move |synced| {
                link.journal_synced(synced);
            })
            .context("start to sync the journal")?
        };
        let unguarded = matches!(&connected, Ok(connected) if !connected.has_conditions);
        let advice = unguarded.then_some(WITHOUT_CONDITIONS);
        let (next, session) = match connected {
            Ok(connected) => {
                link.established(connected.flusher.clone());
                let session = connected.session;
                (Next::Scan(Box::new(connected)), Some(session))
            }
            Err(why) => {
                tracing::warn!("{why}");
                link.failed(why);
                let awaited = Awaited {
                    repository: found.repository,
                    location,
                    traffic,
                    volume: found.volume.id,
                };
                (Next::Wait(Box::new(awaited)), None)
            }
        };
        let writing = Self {
            local,
            link,
            sight: Sight::default(),
            owed_since: Mutex::default(),
            spilling: Mutex::new(Some(spilling)),
            next: Mutex::new(Some(next)),
            advice,
        };
        Ok((writing, session))
    }

    /// Begins what happens beside the mount, once that is there: compares the source with the newest commit, or waits for the
    /// repository to do that. Until it has been done nothing is published but incomplete commits. Within the runtime.
    pub(super) fn begin(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut next = self.next.lock();
        *next = match next.take() {
            Some(Next::Scan(connected)) => {
                let scanning = self.scan(*connected);
                Some(Next::Scanning(
                    scanning.context("start the scan of the source")?,
                ))
            }
            Some(Next::Wait(awaited)) => {
                let waiting = tokio::spawn(self.clone().wait_for(*awaited));
                Some(Next::Waiting(waiting))
            }
            begun => begun,
        };
        Ok(())
    }

    /// The repository has answered behind the mount's back: publishes from now on.
    pub(super) fn go_on_with(&self, connected: Connected) {
        if let Err(error) = self
            .local
            .settings
            .state
            .remember_session(connected.session)
        {
            tracing::warn!(%error, "the session was not remembered");
        }
        // Held throughout: whoever stops everything finds either the wait or the scan.
        let mut next = self.next.lock();
        self.link.established(connected.flusher.clone());
        match self.scan(connected) {
            Ok(scanning) => *next = Some(Next::Scanning(scanning)),
            Err(error) => {
                let why = format!("start the scan of the source: {error}; mount again");
                tracing::error!("{why}");
                self.sight.fail(why);
            }
        }
    }

    /// Starts the scan; the mount is there.
    fn scan(&self, connected: Connected) -> std::io::Result<Scanning> {
        let local = &self.local;
        let mut parts = connected.scan;
        if !local.uncovered.clock_is_steady() && matches!(parts.trust, Trust::Covered { .. }) {
            parts.trust = Trust::Stat;
        }
        let (journal, mark) = (local.journal.clone(), local.mark.clone());
        let covered = local.settings.place.is_covered_by_mount();
        let compared = connected.compared.filter(|_| covered);
        let through = move || {
            let Some(commit) = compared else { return };
            let mount = mark.as_str().to_owned();
            // Without it, large files are compared as a whole if this process is killed.
            if let Err(error) = journal.give_cover(Cover { mount, commit }) {
                tracing::info!(%error, "the journal cannot vouch for this mount");
            }
        };
        let renew = renew(
            &parts,
            connected.volume,
            connected.flusher.clone(),
            local.journal.clone(),
            connected.session,
        );
        let (flusher, expected) = (connected.flusher, connected.expected);
        Scanning::start(
            parts,
            renew,
            flusher,
            expected,
            self.sight.clone(),
            Box::new(through),
        )
    }

    /// Ends the scan where it stands. Returns whether it had been through; if not, the flusher goes on holding back. A repository
    /// that is awaited is awaited no longer.
    pub(super) async fn stop_scan(&self) -> bool {
        let next = self.next.lock().take();
        match next {
            Some(Next::Scanning(scanning)) => {
                // Waits for one entry at most. Only a panic could make it fail.
                let stopping = tokio::task::spawn_blocking(move || scanning.stop());
                stopping.await.unwrap_or(false)
            }
            Some(Next::Waiting(waiting)) => {
                waiting.abort();
                // It ends where it waits, or has just connected: then there is a scan to be stopped.
                let _ = waiting.await;
                if let Some(Next::Scanning(scanning)) = self.next.lock().take() {
                    scanning.stop();
                }
                false
            }
            Some(Next::Scan(_) | Next::Wait(_)) | None => false,
        }
    }

    /// The live mount's front, which tells the flusher what programs do. Within the runtime.
    pub(super) fn front(&self) -> mount::Live {
        let link = self.link.clone();
        let notice: mount::Notice = Arc::new(move |event| {
            link.note(match event {
                mount::Event::Fsync(_) => flusher::Event::Fsync,
                mount::Event::Closed(_) => flusher::Event::Close,
            });
        });
        let hot = self.local.settings.policy.mode == Mode::Hot;
        let usual = match self.local.settings.place.is_covered_by_mount() {
            true => mount::Options::over_itself(),
            false => mount::Options::default(),
        };
        let options = mount::Options {
            notice: Some(notice),
            on_fsync: hot.then(|| self.wait_for_store()),
            ..usual
        };
        mount::Live::new(
            self.local.epochs.clone(),
            self.local.source.clone(),
            self.local.journal.clone(),
            options,
        )
    }

    /// Hot mode: what fsync waits for. Called on a FUSE thread, which may block.
    fn wait_for_store(&self) -> mount::FsyncHook {
        let (link, runtime) = (self.link.clone(), tokio::runtime::Handle::current());
        Arc::new(move |_| {
            let synced = runtime.block_on(link.sync());
            synced.map(drop).map_err(std::io::Error::other)
        })
    }

    /// What lies on this machine.
    pub(super) fn local(&self) -> &Local {
        &self.local
    }

    /// The way to the repository.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// What a person should know about the store, if there is something.
    pub(super) fn advice(&self) -> Option<&'static str> {
        self.advice
    }

    /// What can be seen of the scan, begun or not.
    pub(super) fn sight(&self) -> &Sight {
        &self.sight
    }

    /// Since when the open epoch has changes, as far as has been seen while the repository is awaited.
    pub(super) fn owed_since(&self) -> Option<Stamp> {
        *self.owed_since.lock()
    }

    /// The open epoch was seen `changed` at `now`. What is shed later stays owed.
    pub(super) fn note_owed(&self, changed: bool, now: Stamp) {
        if changed {
            self.owed_since.lock().get_or_insert(now);
        }
    }

    /// The numbers now; while the repository is awaited, those that are known without it.
    pub(super) fn status(&self) -> flusher::Status {
        if let Stage::Publishing(flusher) = self.link.stage() {
            return flusher.status();
        }
        let local = &self.local;
        let manifests = local.left.manifests.lock();
        let spooled = manifests.first().map(|manifest| Stamp(manifest.wall));
        let oldest = spooled.into_iter().chain(self.owed_since()).min();
        let age = |since: Stamp| SystemClock.now().0.saturating_sub(since.0);
        let trouble = self.link.trouble();
        flusher::Status {
            lag: oldest.map_or(Duration::ZERO, |since| Duration::from_millis(age(since))),
            open: local.epochs.open_size(),
            spool_bytes: local.left.spool.used_bytes(),
            spool_commits: manifests.len(),
            last_error: trouble.map(|trouble| (trouble.message, trouble.since)),
            ..flusher::Status::default()
        }
    }

    /// Seals and captures what is left, and ends; what is not uploaded stays in the spool. To be called when nothing is mounted.
    pub(super) async fn stop_now(&self, end: End) -> anyhow::Result<()> {
        self.stop(Duration::ZERO, end).await.map(drop)
    }

    /// The same, and everything is in the repository within `patience`; an error if it is not.
    pub(super) async fn stop_published(&self, patience: Duration) -> anyhow::Result<()> {
        match self.stop(patience, End::Clean).await? {
            true => Ok(()),
            false => Err(Error::NotYetRemote(
                "unmounted, but not everything is in the repository; the next mount goes on".into(),
            )
            .into()),
        }
    }

    /// Whether everything is in the repository.
    async fn stop(&self, patience: Duration, end: End) -> anyhow::Result<bool> {
        self.stop_scan().await;
        let stopped = match self.link.flusher() {
            Some(flusher) => Some(flusher.stop(patience).await?),
            None => None,
        };
        let (journal, spilling) = (self.local.journal.clone(), self.spilling.lock().take());
        let close = move || {
            drop(spilling);
            match end {
                End::Clean => journal.close_clean(),
                End::InUse => journal.close_owing(),
            }
        };
        tokio::task::spawn_blocking(close)
            .await
            .context("close the journal")?
            .context("close the journal")?;
        match &stopped {
            Some(stopped) => tracing::info!(
                published = stopped.published,
                captured = stopped.captured,
                "stopped"
            ),
            None => tracing::info!(
                "stopped before the repository could be reached; the next mount compares"
            ),
        }
        Ok(stopped.is_some_and(|stopped| stopped.published))
    }
}

/// What `work` comes to; why it is not waited for any longer, where that `can_wait` and the repository does not answer.
async fn in_time<T>(
    can_wait: bool,
    location: &Location,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Result<T, String>> {
    if !can_wait {
        return work.await.map(Ok);
    }
    match within(PATIENCE, unless_away(can_wait, location, work)).await {
        Some(done) => done,
        None => Ok(Err(away::no_answer(location))),
    }
}

/// The same for as long as it takes, where the repository may say itself that it is away.
async fn unless_away<T>(
    can_wait: bool,
    location: &Location,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Result<T, String>> {
    match work.await {
        Ok(done) => Ok(Ok(done)),
        Err(error) if can_wait && away::is_away(&error) => {
            Ok(Err(away::sentence(location, &error)))
        }
        Err(error) => Err(error),
    }
}

/// What a later scan compares with: the newest commit then, and what the journal owes then.
fn renew(
    first: &reconcile::Parts<Arc<Blocks>>,
    volume: Arc<Volume>,
    flusher: flusher::Handle,
    journal: Arc<Journal>,
    session: SessionId,
) -> Renew<Arc<Blocks>> {
    let (source, epochs) = (first.source.clone(), first.epochs.clone());
    let (trust, runtime) = (first.trust, first.runtime.clone());
    Box::new(move |stop| {
        let runtime = &runtime;
        let newest = Waiting { runtime, stop }.unless_stopped(flusher.newest());
        let newest = newest.ok_or(reconcile::Error::Stopped)??;
        // Once there has been an exact moment of its own, this process has seen every change since; before that, it knows no more than at
        // its start.
        let exact = newest
            .as_ref()
            .is_some_and(|found| !found.commit.incomplete && found.commit.name.session == session);
        Ok(reconcile::Parts {
            source: source.clone(),
            epochs: epochs.clone(),
            tree: newest.map(|found| volume.tree(&found.commit)),
            intents: journal
                .records()?
                .into_iter()
                // What was doubted at the start has been compared for that moment, unless it could not be looked at.
                .filter(|&(id, _, epoch)| {
                    let at_start = id == ANY_FILE && epoch == EpochNo(0);
                    !(exact && at_start) || journal.spares_earlier()
                })
                .collect(),
            trust: if exact { Trust::Stat } else { trust },
            runtime: runtime.clone(),
        })
    })
}
