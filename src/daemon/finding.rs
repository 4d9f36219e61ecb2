//! Which repository and which volume a live mount writes into, and whether that can be asked of the repository itself.

use std::time::Duration;

use zeroize::Zeroizing;

use super::away::{self, PATIENCE};
use super::background::Reporter;
use super::live::LiveMount;
use super::local::Machine;
use super::opening::{self, CONFIG_DEFAULT};
use crate::clock::{Clock, SystemClock};
use crate::config::select::VolumeRef;
use crate::id::VolumeId;
use crate::repo::{Repository, Secret, VolumeInfo};
use crate::source::Source;

use std::os::unix::ffi::OsStrExt;

/// A repository whose key is proven, and the volume in it.
pub(super) struct Found {
    /// It; read from what is kept of it on this machine if it is away.
    pub(super) repository: Repository,
    /// The volume.
    pub(super) volume: VolumeInfo,
    /// Why it is away, in one line; `None` if it has answered.
    pub(super) away: Option<String>,
}

impl LiveMount {
    /// Opens the repository and chooses the volume. A volume that this machine has mounted before needs no answer from the repository, only
    /// the password.
    pub(super) async fn find(&self, reporter: &mut Reporter) -> anyhow::Result<Found> {
        let VolumeRef::Id(id) = self.volume else {
            return self.ask(reporter).await.map_err(|error| self.needed(error));
        };
        if !self.can_be_away(id) {
            return self.ask(reporter).await.map_err(|error| self.needed(error));
        }
        let why = match within(PATIENCE, self.ask(reporter)).await {
            Some(Err(error)) if away::is_away(&error) => {
                away::sentence(&self.opening.location, &error)
            }
            Some(asked) => return asked,
            None => away::no_answer(&self.opening.location),
        };
        match away::kept(&self.opening, &self.state.volume(id)).await? {
            Some(repository) => {
                let volume = repository.volume(id).await?.info().clone();
                Ok(Found {
                    repository,
                    volume,
                    away: Some(why),
                })
            }
            None => self.ask(reporter).await.map_err(|error| self.needed(error)),
        }
    }

    fn can_be_away(&self, id: VolumeId) -> bool {
        let state = self.state.volume(id);
        state.keys().exists() && Source::knows_numbers(&state.identity())
    }

    /// Asks the repository, for as long as that takes.
    async fn ask(&self, reporter: &mut Reporter) -> anyhow::Result<Found> {
        let repository = self.repository(reporter).await?;
        let volume = self.choose_volume(&repository).await?;
        Ok(Found {
            repository,
            volume,
            away: None,
        })
    }

    /// What a mount that cannot do without its repository says where that cannot be reached.
    fn needed(&self, error: anyhow::Error) -> anyhow::Error {
        let unreachable = error.chain().any(|cause| {
            matches!(cause.downcast_ref(), Some(crate::repo::Error::Store(error))
                if error.kind == crate::store::Kind::Retry)
        });
        match unreachable {
            true => crate::config::Error::NoRepository(format!(
                "{error}; the first mount of a directory on this machine needs its repository {}, later ones do not",
                self.opening.location
            ))
            .into(),
            false => error,
        }
    }

    /// Opens the repository, or makes the embedded default and shows its recovery key this once.
    async fn repository(&self, reporter: &mut Reporter) -> anyhow::Result<Repository> {
        if self.create {
            let (Secret::Password(text) | Secret::Recovery(text)) = &self.opening.secret;
            let password = Zeroizing::new(text.to_string());
            let (location, traffic) = (&self.opening.location, &self.opening.traffic);
            let (_, recovery) =
                opening::create(location, traffic, password, CONFIG_DEFAULT).await?;
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
        let source = self.source.as_os_str().as_bytes();
        if head.commit.host == Machine::this().host && head.commit.source == source {
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
}

/// What `work` comes to, if it does in time.
pub(super) async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(patience, work).await.ok()
}
