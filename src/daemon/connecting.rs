//! From an open repository to a running flusher: where the volume stands there, what an earlier process still owes it, and the
//! claim to write it.
//!
//! Two occasions: before a directory is mounted, when a person has just asked for it; and behind a mount that came to be while
//! the repository was away. In the second nobody has said that this machine may go on where another one has been writing
//! meanwhile, so it does not.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::covering::trust;
use super::local::{Left, Local, Settings};
use crate::clock::{Clock, Stamp, SystemClock};
use crate::flusher::{self, Flusher, Manifest, Resume};
use crate::id::{FileId, Seq, SessionId, VolumeId};
use crate::reconcile;
use crate::repo::blocks::Blocks;
use crate::repo::commits::Found;
use crate::repo::{Repository, Volume};
use crate::source::Source;
use crate::store::overlay::Overlay;

/// Epochs with more dirty bytes are copied while they are still open, so that what is left at the seal is small.
const COPY_AHEAD_BYTES: u64 = 64 << 20;
/// A second of work on a fast disk, ten on a slow one: so long may `status` be old and SIGTERM have to wait.
const ROUND_BYTES: u64 = 1 << 30;
/// During a first backup something is published this often, so that not all is lost if the machine is.
const INCOMPLETE_INTERVAL: Duration = Duration::from_secs(600);
/// Renewed at a third of it, that is once in 100 s: three dollars a year on S3, and no longer to wait after a crash of
/// another machine than to look for what went wrong.
const LEASE: Duration = Duration::from_secs(300);

/// How often a volume is looked at that others move meanwhile. Each look costs a few requests, and it takes a commit of another's
/// between two of them to spoil one.
const LOOKS_MAX: u32 = 3;

/// What a person should know about a store that writes whatever stands there.
pub(super) const WITHOUT_CONDITIONS: &str = "the store ignores conditional writes, as a try has shown: should two machines mount this \
     volume live at one moment, nothing is overwritten and one of them stops and says so, but only after it has begun; mount it on \
     one machine at a time";

/// From whose commits this machine may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// Anybody's whose lease has run out: a person has just asked for it.
    Anybody,
    /// Its own alone.
    ItselfOnly,
}

/// Where a volume stands.
pub(super) struct Standing {
    stored: Arc<Volume>,
    volume: Arc<Volume>,
    base: Option<Found>,
    resumed: Vec<Manifest>,
}

impl Standing {
    /// Looks. [`Error::AnotherWriter`] if another machine has taken the volume and `after` does not allow for that: then nothing has
    /// been touched.
    pub(super) async fn find(
        repository: &Repository,
        id: VolumeId,
        settings: &Settings,
        left: &Left,
        after: After,
    ) -> anyhow::Result<Self> {
        let stored = repository.volume(id).await?;
        let overlay = Overlay::new(stored.store().clone(), settings.state.spool());
        let volume = repository.through(Arc::new(overlay)).volume(id).await?;
        for _ in 0..LOOKS_MAX {
            let head = stored.head().await?;
            // Asked when the head has been read: whoever takes the volume after that is noticed by our claim.
            if after == After::ItselfOnly {
                not_taken(&stored, settings).await?;
            }
            let resumed = resume(left, head.as_ref())?;
            let tag = |found: &Option<Found>| found.as_ref().map(|found| found.tag);
            let seen = tag(&head);
            let base = match resumed.is_empty() {
                true => head,
                false => volume.head().await?,
            };
            if goes_on_from(&resumed, base.as_ref()) {
                return Ok(Self {
                    stored,
                    volume,
                    base,
                    resumed,
                });
            }
            // Either another's commit came in between, or a claim of another's has cut off what waits here.
            if tag(&stored.head().await?) == seen {
                set_aside(left)?;
            }
        }
        // No reason to give the volume up: who waits for the repository tries again, and hears of the other writer if there is one.
        Err(Error::Failed(
            "the volume moves on while it is looked at; another machine seems to be publishing into it just now".into(),
        )
        .into())
    }

    /// Takes the file numbers from the newest commit, if this machine has lost them or never had any. Before [`connect`], which scans; may
    /// be given up at any point, and goes on there when it is called again.
    pub(super) async fn adopt(&self, source: &Source) -> anyhow::Result<()> {
        let Some(base) = &self.base else {
            return Ok(source.end_adoption()?);
        };
        let tree = self.volume.tree(&base.commit);
        let adopted = reconcile::adopt_numbers(source, &tree).await?;
        if adopted > 0 {
            tracing::info!(adopted, "took the file numbers from the newest snapshot");
        }
        Ok(())
    }

    /// At least one more than the numbers of its files.
    pub(super) fn next_id(&self) -> FileId {
        self.base
            .as_ref()
            .map_or(FileId(FileId::ROOT.0 + 1), |base| {
                FileId(base.commit.next_file_id)
            })
    }
}

/// Whether `base`, read after what waits in the spool was sorted out, is the last of that: else another has published in between.
fn goes_on_from(resumed: &[Manifest], base: Option<&Found>) -> bool {
    let last = flusher::heads(resumed.last()).pop();
    last.is_none() || last == base.map(|base| base.tag)
}

async fn not_taken(stored: &Volume, settings: &Settings) -> anyhow::Result<()> {
    let record = settings.state.record()?;
    let session = record.and_then(|record| SessionId::from_hex(&record.session?));
    match stored.taken_by_other(&settings.owner, session).await? {
        None => Ok(()),
        Some(other) => Err(Error::AnotherWriter(format!(
            "{other} has taken this volume while its repository could not be reached from here; nothing is backed up here until \
             you unmount (`rewindfs umount --no-wait`) and mount again, which goes on from what that machine has published"
        ))
        .into()),
    }
}

/// A running flusher, which holds back until the scan has been made.
pub(super) struct Connected {
    /// The flusher.
    pub(super) flusher: flusher::Handle,
    /// What the scan works with.
    pub(super) scan: reconcile::Parts<Arc<Blocks>>,
    /// The volume with the spool laid over it, for later scans.
    pub(super) volume: Arc<Volume>,
    /// Entries that the newest commit holds.
    pub(super) expected: u64,
    /// The session under which the volume was claimed.
    pub(super) session: SessionId,
    /// Whether the store keeps to the conditions of writes.
    pub(super) has_conditions: bool,
    /// The commit with which the scan compares.
    pub(super) compared: Option<Seq>,
}

/// Claims the volume and starts the flusher. `owed_since`: since when the open epoch has changes.
pub(super) async fn connect(
    local: &Local,
    standing: Standing,
    owed_since: Option<Stamp>,
) -> anyhow::Result<Connected> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (settings, owner) = (&local.settings, local.settings.owner.clone());
    let Standing {
        stored,
        volume,
        base,
        resumed,
    } = standing;
    let tree = base.as_ref().map(|base| volume.tree(&base.commit));
    let expected = base.as_ref().map_or(0, |base| base.commit.totals.files);
    let compared = base.as_ref().map(|base| base.commit.name.seq);
    let session = SessionId::random();
    let heads = flusher::heads(&resumed);
    let writership = stored
        .claim(session, &owner, base.as_ref(), &heads, LEASE, &*clock)
        .await?;
    let has_conditions = writership.has_conditions();
    if !has_conditions {
        tracing::warn!("{WITHOUT_CONDITIONS}");
    }
    let spool = &local.left.spool;
    let copied = flusher::find_copied(spool, stored.store(), writership.adopted()).await?;
    let options = flusher::Options {
        policy: settings.flusher_policy(),
        spool_bytes: settings.spool_bytes(),
        copy_ahead_bytes: COPY_AHEAD_BYTES,
        round_bytes: ROUND_BYTES,
        incomplete_interval: INCOMPLETE_INTERVAL,
        // Until the scan has ended.
        held: true,
        lease: LEASE,
        owner,
        host: settings.place.machine.host.clone(),
        source_path: settings.place.source_bytes().to_vec(),
        index_dir: settings.state.dir().join("index"),
    };
    if base.is_none() {
        // One that has failed has other means to say so.
        let _latched = local.journal.forget_doubt();
    }
    let scan = reconcile::Parts {
        source: local.source.clone(),
        epochs: local.epochs.clone(),
        tree,
        // Those of this life too: the open change set may have been dropped since they were made.
        intents: local.journal.records()?.into_iter().collect(),
        trust: trust(local, base.as_ref()),
        runtime: tokio::runtime::Handle::current(),
    };
    let parts = flusher::Parts {
        volume: volume.clone(),
        store: stored.store().clone(),
        writership,
        epochs: local.epochs.clone(),
        source: local.source.clone(),
        journal: local.journal.clone(),
        spool: local.left.spool.clone(),
        resumed,
        copied,
        base,
        owed_since,
        clock,
        runtime: tokio::runtime::Handle::current(),
    };
    // From here on nothing is awaited: whoever gives this up half way must not leave a flusher behind.
    let flusher = Flusher::start(parts, options)?;
    Ok(Connected {
        flusher,
        scan,
        volume,
        expected,
        session,
        has_conditions,
        compared,
    })
}

/// Sorts out what an earlier process has left in the spool: what the store has already is removed, what it lacks is returned,
/// and what another writer has overtaken is set aside. May be repeated.
fn resume(left: &Left, head: Option<&Found>) -> anyhow::Result<Vec<Manifest>> {
    let head = head.map(|head| (head.commit.name, head.tag));
    let mut manifests = left.manifests.lock();
    match flusher::resume(&manifests, head) {
        Resume::Continue { from } => {
            for published in manifests.drain(..from) {
                published.remove(&left.spool)?;
            }
        }
        Resume::Foreign => {
            drop(manifests);
            set_aside(left)?;
            return Ok(Vec::new());
        }
    }
    Ok(manifests.clone())
}

/// Another writer has overtaken what an earlier process has left: none of it will be history. May be repeated.
fn set_aside(left: &Left) -> anyhow::Result<()> {
    let mut manifests = left.manifests.lock();
    let aside = left.spool.set_aside(&manifests)?;
    manifests.clear();
    tracing::warn!(
        "another writer has gone on with this volume; what waited for upload here was set aside in {}, and the files are \
         compared anew",
        aside.display()
    );
    Ok(())
}
