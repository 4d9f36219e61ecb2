//! The parts of a live mount that lie on this machine, and with which it can be mounted whether or not its repository answers:
//! source, journal, spool, epochs.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;

use super::covering::{Mark, Uncovered};
use super::ordering;
use crate::config::policy::{Mode, Policy, SealOn};
use crate::config::state::VolumeState;
use crate::epoch::{self, Epochs};
use crate::flusher::{self, Manifest, Spool};
use crate::id::FileId;
use crate::journal::{Journal, LastStop};
use crate::source::Source;
use crate::sys;

/// Finished objects on the local disk that may wait for upload: a working day of a slow line.
const SPOOL_BYTES_DEFAULT: u64 = 8 << 30;
/// Old bytes that writers may preserve: a quarter of what a live mount may use of memory.
const PRESERVE_BYTES: usize = 64 << 20;
/// Unlinked files kept open for a sealed epoch: enough for a program that removes its temporary files while they are backed up.
const KEPT_FILES: usize = 512;
/// What is remembered of changes while no epoch can be sealed; with more of them everything is scanned when that is over.
const CHANGES_BYTES: u64 = 128 << 20;
/// The part of the process's descriptors that they may take where that is less: the source's own take half, and programs need
/// theirs.
const KEPT_SHARE: u64 = 8;

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
}

/// What is protected, and where.
pub(super) struct Place {
    /// The source; canonical.
    pub(super) source: PathBuf,
    /// Where it appears; canonical.
    pub(super) mountpoint: PathBuf,
    /// The machine.
    pub(super) machine: Machine,
}

impl Place {
    /// The source as commits name it.
    pub(super) fn source_bytes(&self) -> &[u8] {
        self.source.as_os_str().as_bytes()
    }

    /// Whether the mount lies over the source itself, so that there is no way around it.
    pub(super) fn is_covered_by_mount(&self) -> bool {
        self.source == self.mountpoint
    }
}

/// How a live mount is to be.
pub(super) struct Settings {
    /// The volume's files on this machine.
    pub(super) state: VolumeState,
    /// What is protected.
    pub(super) place: Place,
    /// Owner of the lease: who comes back with the same state directory takes it over at once.
    pub(super) owner: String,
    /// When to seal.
    pub(super) policy: Policy,
    /// The most bytes in the spool; absent for the default.
    pub(super) spool_bytes: Option<u64>,
}

impl Settings {
    /// Whether it can be mounted without its repository: if not, only the newest commit knows which numbers files may be given.
    pub(super) fn can_wait(&self) -> bool {
        Source::knows_numbers(&self.state.identity())
    }

    /// The most bytes in the spool.
    pub(super) fn spool_bytes(&self) -> u64 {
        self.spool_bytes.unwrap_or(SPOOL_BYTES_DEFAULT)
    }

    /// The policy in the flusher's words.
    pub(super) fn flusher_policy(&self) -> flusher::Policy {
        let policy = &self.policy;
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
}

/// What an earlier process has left for the repository.
pub(super) struct Left {
    /// The spool.
    pub(super) spool: Arc<Spool>,
    /// What is to be uploaded from it, oldest first, as far as is known.
    pub(super) manifests: Mutex<Vec<Manifest>>,
}

impl Left {
    /// Opens the spool.
    pub(super) fn open(state: &VolumeState) -> anyhow::Result<Self> {
        let (spool, manifests) = Spool::open(&state.spool())?;
        let manifests = Mutex::new(manifests);
        Ok(Self { spool, manifests })
    }
}

/// The parts.
pub(super) struct Local {
    /// How it is to be.
    pub(super) settings: Settings,
    /// What was left in the spool.
    pub(super) left: Left,
    /// The protected directory.
    pub(super) source: Arc<Source>,
    /// The journal.
    pub(super) journal: Arc<Journal>,
    /// How the journal's last life ended.
    pub(super) last_stop: LastStop,
    /// What the place of the mount was like before.
    pub(super) uncovered: Uncovered,
    /// What this mount is known by.
    pub(super) mark: Mark,
    /// The live side's shared state.
    pub(super) epochs: Arc<Epochs>,
}

impl Local {
    /// Opens them. No file is given a number below `next_id`, nor one that this machine has given before. The caller holds the
    /// volume's lock.
    pub(super) fn open(
        settings: Settings,
        left: Left,
        uncovered: Uncovered,
        next_id: FileId,
    ) -> anyhow::Result<Self> {
        let state = &settings.state;
        let keeps_order = ordering::is_kept_at(&settings.place.source);
        let is_doubtful = |stop: &LastStop| ordering::is_doubtful(stop, keeps_order);
        let (journal, last_stop) = Journal::open_doubting(&state.journal(), is_doubtful)
            .with_context(|| format!("open the journal {}", state.journal().display()))?;
        let journal = Arc::new(journal);
        let source = Source::open(&settings.place.source, &state.identity(), next_id)?;
        let source = Arc::new(source);
        let epochs = Epochs::new(
            source.clone(),
            journal.clone(),
            epoch::Options {
                preserve_bytes: PRESERVE_BYTES,
                kept_files: kept_files()?,
                changes_bytes: CHANGES_BYTES,
            },
        );
        tracing::info!(?last_stop, left = left.manifests.lock().len(), "opened");
        Ok(Self {
            settings,
            left,
            source,
            journal,
            last_stop,
            uncovered,
            mark: Mark::random(),
            epochs,
        })
    }
}

fn kept_files() -> anyhow::Result<usize> {
    let share = sys::open_files_max().context("ask for the limit of open files")? / KEPT_SHARE;
    Ok(usize::try_from(share).unwrap_or(usize::MAX).min(KEPT_FILES))
}
