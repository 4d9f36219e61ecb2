//! The parts of a live mount, put together: spool, journal, source, claim, epochs, flusher, reconcile.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;

use super::Error;
use super::scanning::{Scanning, Sight};
use super::spilling::Spilling;
use crate::clock::{Clock, SystemClock};
use crate::config::policy::{Mode, Policy, SealOn};
use crate::config::state::VolumeState;
use crate::epoch::{self, Epochs};
use crate::flusher::{self, Flusher, Manifest, Resume, Spool};
use crate::id::{FileId, SessionId, Tag};
use crate::journal::Journal;
use crate::mount;
use crate::reconcile::{self, Trust};
use crate::repo::blocks::Blocks;
use crate::repo::commits::Found;
use crate::repo::{Repository, Volume, VolumeInfo};
use crate::source::Source;
use crate::store::overlay::Overlay;

/// Finished objects on the local disk that may wait for upload: a working day of a slow line.
const SPOOL_BYTES_DEFAULT: u64 = 8 << 30;
/// Epochs with more dirty bytes are copied while they are still open, so that what is left at the seal is small.
const COPY_AHEAD_BYTES: u64 = 64 << 20;
/// Old bytes that writers may preserve: a quarter of what a live mount may use of memory.
const PRESERVE_BYTES: usize = 64 << 20;
/// Unlinked files kept open for a sealed epoch: well under the usual limit of open files.
const KEPT_FILES: usize = 512;
/// During a first backup something is published this often, so that not all is lost if the machine is.
const INCOMPLETE_INTERVAL: Duration = Duration::from_secs(600);
/// Renewed at a third of it, that is once in 100 s: three dollars a year on S3, and no longer to wait after a crash of
/// another machine than to look for what went wrong.
const LEASE: Duration = Duration::from_secs(300);
/// How long `umount` waits for the repository at the end, after everything up to then has been published: only what was
/// written in between is left.
pub(super) const PUBLISH_PATIENCE: Duration = Duration::from_secs(3600);

/// This machine, as commits and leases name it.
pub(super) struct Machine {
    /// The host's name.
    pub(super) host: String,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match name.trim() {
            "" => "unknown host".to_owned(),
            name => name.to_owned(),
        };
        Self { host }
    }

    /// Owner of a lease: who comes back with the same state directory takes it over at once.
    fn owner(&self, state: &VolumeState) -> String {
        format!("{} ({})", self.host, state.dir().display())
    }
}

/// What is protected, and where.
pub(super) struct Place {
    /// The source; canonical.
    pub(super) source: PathBuf,
    /// The machine.
    pub(super) machine: Machine,
}

impl Place {
    /// The source as commits name it.
    pub(super) fn source_bytes(&self) -> &[u8] {
        self.source.as_os_str().as_bytes()
    }
}

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
    /// The volume as the store alone has it.
    stored: Arc<Volume>,
    epochs: Arc<Epochs>,
    source: Arc<Source>,
    journal: Arc<Journal>,
    spilling: Mutex<Option<Spilling>>,
    flusher: flusher::Handle,
    scan: Mutex<Option<Scan>>,
}

/// What a scan compares with, until it is started; then the scan.
enum Scan {
    Ready {
        parts: reconcile::Parts<Arc<Blocks>>,
        expected: u64,
    },
    Running(Scanning),
}

impl Writing {
    /// Starts everything but the mount. The caller holds the volume's lock, and has taken off a dead mount.
    pub(super) async fn start(
        repository: &Repository,
        info: &VolumeInfo,
        state: &VolumeState,
        place: Place,
        policy: &Policy,
        spool_bytes: Option<u64>,
    ) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let stored = repository.volume(info.id).await?;
        let (spool, manifests) = Spool::open(&state.spool())?;
        let head = stored.head().await?;
        let resumed = resume(&spool, manifests, head.as_ref())?;

        let overlay = Overlay::new(stored.store().clone(), state.spool());
        let volume = repository
            .through(Arc::new(overlay))
            .volume(info.id)
            .await?;
        let base = match resumed.is_empty() {
            true => head,
            false => volume.head().await?,
        };
        let next_id = base.as_ref().map_or(FileId(FileId::ROOT.0 + 1), |base| {
            FileId(base.commit.next_file_id)
        });
        let (journal, last_stop) = Journal::open(&state.journal())
            .with_context(|| format!("open the journal {}", state.journal().display()))?;
        let journal = Arc::new(journal);
        let source = Arc::new(Source::open(&place.source, &state.identity(), next_id)?);
        tracing::info!(?last_stop, resumed = resumed.len(), "opened");
        let tree = base.as_ref().map(|base| volume.tree(&base.commit));
        if let Some(tree) = &tree {
            let adopted = reconcile::adopt_numbers(&source, tree).await?;
            if adopted > 0 {
                tracing::info!(adopted, "took the file numbers from the newest snapshot");
            }
        }
        // What was published during a scan that never ended says little of what it had not come to yet.
        let trust = match base.as_ref().is_some_and(|base| base.commit.incomplete) {
            true => Trust::Nothing,
            false => Trust::after(&last_stop),
        };
        let expected = base.as_ref().map_or(0, |base| base.commit.totals.files);

        let writership = stored
            .claim(
                SessionId::random(),
                &place.machine.owner(state),
                base.as_ref(),
                &flusher::heads(&resumed),
                LEASE,
                clock.as_ref(),
            )
            .await?;
        let epochs = Epochs::new(
            source.clone(),
            journal.clone(),
            epoch::Options {
                preserve_bytes: PRESERVE_BYTES,
                kept_files: KEPT_FILES,
            },
        );
        let options = flusher::Options {
            policy: flusher_policy(policy),
            spool_bytes: spool_bytes.unwrap_or(SPOOL_BYTES_DEFAULT),
            copy_ahead_bytes: COPY_AHEAD_BYTES,
            incomplete_interval: INCOMPLETE_INTERVAL,
            // Until the scan has ended.
            held: true,
            lease: LEASE,
            owner: place.machine.owner(state),
            host: place.machine.host.clone(),
            source_path: place.source_bytes().to_vec(),
            index_dir: state.dir().join("index"),
        };
        let parts = flusher::Parts {
            volume,
            store: stored.store().clone(),
            writership,
            epochs: epochs.clone(),
            source: source.clone(),
            journal: journal.clone(),
            spool,
            resumed,
            base,
            clock,
            runtime: tokio::runtime::Handle::current(),
        };
        let flusher = Flusher::start(parts, options)?;
        let parts = reconcile::Parts {
            source: source.clone(),
            epochs: epochs.clone(),
            tree,
            intents: journal.records()?.into_iter().collect(),
            trust,
            runtime: tokio::runtime::Handle::current(),
        };
        let spilling = {
            let flusher = flusher.clone();
            let (stored, noted) = (stored.clone(), Mutex::new(None));
            Spilling::start(journal.clone(), move |synced| {
                flusher.journal_synced(synced);
                note_published(&stored, &flusher, &mut noted.lock());
            })
            .context("start to sync the journal")?
        };
        Ok(Self {
            stored,
            epochs,
            source,
            journal,
            spilling: Mutex::new(Some(spilling)),
            flusher,
            scan: Mutex::new(Some(Scan::Ready { parts, expected })),
        })
    }

    /// Begins to compare the source with the newest commit, once the mount is there. Until that has ended nothing is published
    /// but incomplete commits.
    pub(super) fn start_scan(&self) -> anyhow::Result<Sight> {
        let mut scan = self.scan.lock();
        let scanning = match scan.take() {
            Some(Scan::Ready { parts, expected }) => {
                Scanning::start(parts, self.flusher.clone(), expected)
                    .context("start the scan of the source")?
            }
            Some(Scan::Running(scanning)) => scanning,
            None => anyhow::bail!("the scan has been stopped already"),
        };
        let sight = scanning.sight();
        *scan = Some(Scan::Running(scanning));
        Ok(sight)
    }

    /// Ends the scan where it stands. Returns whether it had been through; if not, the flusher goes on holding back.
    pub(super) async fn stop_scan(&self) -> bool {
        let Some(Scan::Running(scanning)) = self.scan.lock().take() else {
            return false;
        };
        // Waits for one entry at most. Only a panic could make it fail.
        let stopping = tokio::task::spawn_blocking(move || scanning.stop());
        stopping.await.unwrap_or(false)
    }

    /// The live mount's front, which tells the flusher what programs do.
    pub(super) fn front(&self, policy: &Policy) -> mount::Live {
        let flusher = self.flusher.clone();
        let notice: mount::Notice = Arc::new(move |event| {
            flusher.note(match event {
                mount::Event::Fsync(_) => flusher::Event::Fsync,
                mount::Event::Closed(_) => flusher::Event::Close,
            });
        });
        let options = mount::Options {
            notice: Some(notice),
            on_fsync: (policy.mode == Mode::Hot).then(|| self.wait_for_store()),
            ..mount::Options::default()
        };
        mount::Live::new(
            self.epochs.clone(),
            self.source.clone(),
            self.journal.clone(),
            options,
        )
    }

    /// Hot mode: what fsync waits for. Called on a FUSE thread, which may block.
    fn wait_for_store(&self) -> mount::FsyncHook {
        let (flusher, runtime) = (self.flusher.clone(), tokio::runtime::Handle::current());
        Arc::new(move |_| {
            let synced = runtime.block_on(flusher.sync());
            synced.map(drop).map_err(std::io::Error::other)
        })
    }

    /// The flusher.
    pub(super) fn flusher(&self) -> &flusher::Handle {
        &self.flusher
    }

    /// The live side's shared state.
    pub(super) fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// Seals and captures what is left, and ends; what is not uploaded stays in the spool. To be called when nothing is mounted.
    pub(super) async fn stop_now(&self, end: End) -> anyhow::Result<()> {
        self.stop(Duration::ZERO, end).await.map(drop)
    }

    /// The same, and everything is in the repository within `patience`; an error if it is not.
    pub(super) async fn stop_published(&self, patience: Duration) -> anyhow::Result<()> {
        let stopped = self.stop(patience, End::Clean).await?;
        match stopped.published {
            true => Ok(()),
            false => Err(Error::NotYetRemote(
                "unmounted, but not everything is in the repository; the next mount goes on".into(),
            )
            .into()),
        }
    }

    async fn stop(&self, patience: Duration, end: End) -> anyhow::Result<flusher::Stopped> {
        self.stop_scan().await;
        let stopped = self.flusher.stop(patience).await?;
        note_published(&self.stored, &self.flusher, &mut None);
        let (journal, spilling) = (self.journal.clone(), self.spilling.lock().take());
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
        tracing::info!(
            published = stopped.published,
            captured = stopped.captured,
            "stopped"
        );
        Ok(stopped)
    }
}

/// Remembers the newest commit that has been published, so that it is missed if the store loses it. `noted` is the last one.
fn note_published(stored: &Volume, flusher: &flusher::Handle, noted: &mut Option<Tag>) {
    if let Some(mark) = flusher
        .status()
        .last_commit
        .filter(|mark| *noted != Some(mark.tag))
    {
        stored.note_published_best_effort(mark.name, mark.tag);
        *noted = Some(mark.tag);
    }
}

/// Sorts out what an earlier process has left in the spool: what the store has already is removed, what it lacks is returned,
/// and what another writer has overtaken is set aside.
fn resume(
    spool: &Spool,
    mut manifests: Vec<Manifest>,
    head: Option<&Found>,
) -> anyhow::Result<Vec<Manifest>> {
    let head = head.map(|head| (head.commit.name, head.tag));
    match flusher::resume(&manifests, head) {
        Resume::Continue { from } => {
            for published in manifests.drain(..from) {
                published.remove(spool)?;
            }
            Ok(manifests)
        }
        Resume::Foreign => {
            let aside = spool.set_aside(&manifests)?;
            tracing::warn!(
                "another writer has gone on with this volume; what waited for upload here was set aside in {}, and the \
                 files are compared anew",
                aside.display()
            );
            Ok(Vec::new())
        }
    }
}

fn flusher_policy(policy: &Policy) -> flusher::Policy {
    flusher::Policy {
        interval: policy.interval,
        dirty_bytes_max: Some(policy.max_dirty_bytes),
        on_fsync: policy.seal_on.contains(&SealOn::Fsync),
        on_close: policy.seal_on.contains(&SealOn::Close),
        mode: match policy.mode {
            Mode::Hot => flusher::Mode::Hot,
            Mode::Warm => flusher::Mode::Warm,
            Mode::Cold => flusher::Mode::Cold,
        },
    }
}
