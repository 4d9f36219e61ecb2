//! A mount whose repository does not answer: it is tried again and again.
//!
//! Everything that programs write is in the source and in the journal, and the scan that is made when the repository is back
//! finds it; so an open epoch that had to be dropped for want of memory is not lost, but for points in time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::connecting::{After, Connected, Standing, connect};
use super::writing::Writing;
use super::{Error, away};
use crate::clock::{Clock, SystemClock};
use crate::id::VolumeId;
use crate::repo::Repository;
use crate::store::url::Location;
use crate::store::{self, Traffic};

/// Between attempts, at first and at most, before chance is added (at most as much again): a laptop that comes back to its network is
/// served within a minute. Whoever wants the repository at once (`sync`, `snapshot`, `umount`) gets an attempt at once.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often the open epoch is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A repository that is waited for.
pub(super) struct Awaited {
    /// Its key, proven, and perhaps what of it is kept on this machine.
    pub(super) repository: Repository,
    /// Where it lies.
    pub(super) location: Location,
    /// Counts and paces what is moved to and from there.
    pub(super) traffic: Traffic,
    /// The volume in it.
    pub(super) volume: VolumeId,
}

impl Writing {
    /// Returns when the flusher runs, or never. May be given up at any point.
    pub(super) async fn wait_for(self: Arc<Self>, awaited: Awaited) {
        let connected = tokio::select! {
            connected = self.try_until_connected(&awaited) => connected,
            () = self.look_after_open_epoch() => return,
        };
        if let Some(connected) = connected {
            tracing::info!("the repository has answered; catching up");
            self.go_on_with(connected);
            return;
        }
        self.look_after_open_epoch().await;
    }

    /// `None` if there is no use in trying any more.
    async fn try_until_connected(&self, awaited: &Awaited) -> Option<Connected> {
        let mut pauses = store::retry::pauses(PAUSE_MIN, PAUSE_MAX);
        loop {
            match self.try_once(awaited).await {
                Ok(connected) => return Some(connected),
                Err(error) if matches!(error.downcast_ref(), Some(Error::AnotherWriter(_))) => {
                    tracing::error!("{error:#}");
                    self.link().halted(error.to_string());
                    return None;
                }
                Err(error) => {
                    let why = away::sentence(&awaited.location, &error);
                    tracing::warn!("{why}");
                    self.link().failed(why);
                }
            }
            let pause = pauses.next().unwrap_or(PAUSE_MAX);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.link().wanted() => {}
            }
        }
    }

    async fn try_once(&self, awaited: &Awaited) -> anyhow::Result<Connected> {
        let (local, volume) = (self.local(), awaited.volume);
        let store = store::open(&awaited.location, &awaited.traffic).await?;
        let repository = awaited.repository.found_in(store).await?;
        away::keep_keys_best_effort(&repository, volume, &local.settings.state).await;
        let standing = Standing::find(
            &repository,
            volume,
            &local.settings,
            &local.left,
            After::ItselfOnly,
        )
        .await?;
        // With the numbers of earlier lives: those of this one are no proof that the directory is not an old one.
        if standing.next_id() > local.source.first_id() {
            return Err(Error::AnotherWriter(
                "what this machine remembers of the volume is older than its newest snapshot, as if its state directory had been \
                 put back; nothing is backed up here until you unmount (`rewindfs umount --no-wait`) and mount again"
                    .into(),
            )
            .into());
        }
        standing.adopt(&local.source).await?;
        connect(local, standing, self.owed_since()).await
    }

    async fn look_after_open_epoch(&self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let open = self.local().epochs.open_size();
            self.note_owed(!open.is_empty(), SystemClock.now());
        }
    }
}
