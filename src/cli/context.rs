//! What every command begins with: directories, configuration file, remembered mounts, the time, the named repository.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Zoned;
use zeroize::Zeroizing;

use super::{output, password, time};
use crate::cache;
use crate::config::dirs::{self, Dirs};
use crate::config::file::File;
use crate::config::secret::{SecretEnvironment, SecretSource};
use crate::config::seen::SeenHere;
use crate::config::select::{Selected, Wanted};
use crate::config::state::{Known, State};
use crate::daemon::opening::{self, Opening};
use crate::daemon::signals::Signals;
use crate::id::Tag;
use crate::repo::commits::{Found, snapshot_id};
use crate::store::Traffic;
use crate::store::pace::Limits;
use crate::store::url::Location;

/// Plain frames kept in memory unless the configuration file says otherwise: well inside the 256 MiB that a mount may use.
const MEMORY_CACHE_DEFAULT: u64 = 64 << 20;
/// Encrypted frames kept on disk unless the configuration file says otherwise.
const DISK_CACHE_DEFAULT: u64 = 2 << 30;

/// What a command knows before it does anything.
pub(crate) struct Context {
    /// Our directories.
    pub(crate) dirs: Dirs,
    /// The configuration file.
    pub(crate) file: File,
    /// The state directory.
    pub(crate) state: State,
    /// The volumes that have been mounted live here.
    pub(crate) known: Vec<Known>,
    /// The time at the start, in the local time zone.
    pub(crate) now: Zoned,
    /// `--repo` or `REWINDFS_REPO`.
    pub(crate) repo: Option<Location>,
    /// `--limit-upload` and `--limit-download`.
    limits: Limits,
}

impl Context {
    /// Reads the environment, the configuration file and the state directory.
    pub(crate) fn new(repo: Option<Location>, limits: Limits) -> anyhow::Result<Self> {
        let dirs = Dirs::from_environment()?;
        let file = File::read(&dirs.config_file())?;
        let state = State::new(&dirs.state);
        let known = state.known()?;
        Ok(Self {
            dirs,
            file,
            state,
            known,
            now: Zoned::now(),
            repo,
            limits,
        })
    }

    /// The embedded default's repository.
    pub(crate) fn default_location(&self) -> Location {
        Location::Folder(self.dirs.default_repository.clone())
    }

    /// The repository that the configuration file names.
    pub(crate) fn configured_location(&self) -> anyhow::Result<Option<Location>> {
        let named = self.file.repo.as_deref();
        named
            .map(|text| location(text).context("`repo` in the configuration file"))
            .transpose()
    }

    /// Where a repository and a volume are named.
    pub(crate) fn wanted(&self, volume: Option<&str>) -> anyhow::Result<Wanted> {
        let default = self.default_location();
        Ok(Wanted {
            repo: self.repo.as_ref().map(Location::to_string),
            volume: volume.map(str::to_owned),
            configured: self
                .configured_location()?
                .map(|location| (location.to_string(), self.file.volume.clone())),
            default: self
                .dirs
                .default_repository
                .exists()
                .then(|| default.to_string()),
        })
    }

    /// The repository and the volume that a command means that looks into one.
    pub(crate) fn select(&self, volume: Option<&str>) -> anyhow::Result<Selected> {
        Ok(self.wanted(volume)?.select(&self.known, &here())?)
    }

    /// The password for `location`, from wherever it comes; asked for on the terminal if from nowhere else.
    pub(crate) fn password(&self, location: &Location) -> anyhow::Result<Zeroizing<String>> {
        match self.secret_source(location)?.read()? {
            Some(password) => Ok(password),
            None => password::ask(location),
        }
    }

    /// Where the password for `location` is to be taken from.
    pub(crate) fn secret_source(&self, location: &Location) -> anyhow::Result<SecretSource> {
        Ok(SecretSource::choose(
            SecretEnvironment::read()?,
            &self.file,
            &self.dirs,
            *location == self.default_location(),
        ))
    }

    /// What opens the repository `repo`.
    pub(crate) fn opening(&self, repo: &str) -> anyhow::Result<Opening> {
        let location = location(repo)?;
        let password = self.password(&location)?;
        Ok(self.opening_with(location, password))
    }

    /// The same with a password that is known already.
    pub(crate) fn opening_with(&self, location: Location, password: Zeroizing<String>) -> Opening {
        let repo = location.to_string();
        let here = self.known.iter().filter(|known| known.record.repo == repo);
        let spools = here.map(|known| known.state.spool()).collect();
        Opening {
            spools,
            witness: Arc::new(SeenHere::new(self.state.clone(), repo)),
            location,
            traffic: self.traffic(),
            secret: opening::secret(password),
            cache: self.cache_options(),
        }
    }

    /// What counts and paces a command's traffic: the command line's limits before the configuration file's.
    pub(crate) fn traffic(&self) -> Traffic {
        let Limits { upload, download } = self.file.limits;
        Traffic::limited(Limits {
            upload: self.limits.upload.or(upload),
            download: self.limits.download.or(download),
        })
    }

    fn cache_options(&self) -> cache::Options {
        let memory = self.file.memory_cache_bytes.unwrap_or(MEMORY_CACHE_DEFAULT);
        let disk = self.file.disk_cache_bytes.unwrap_or(DISK_CACHE_DEFAULT);
        cache::Options {
            memory_bytes: usize::try_from(memory).unwrap_or(usize::MAX),
            dir: (disk > 0).then(|| self.dirs.cache.join("frames")),
            disk_bytes: disk,
        }
    }

    /// Tells the person which snapshot their words have led to.
    pub(crate) fn echo(&self, found: &Found) {
        for line in describe(found, &self.now) {
            output::note(&line);
        }
    }
}

/// Which snapshot a person's words have led to, in UTC and in local time.
pub(crate) fn describe(found: &Found, now: &Zoned) -> Vec<String> {
    let commit = &found.commit;
    let stamp = commit.name.stamp;
    let label = match commit.label.as_str() {
        "" => String::new(),
        label => format!(" ({})", output::printable(label.as_bytes())),
    };
    let mut lines = vec![format!(
        "snapshot {id}{label} of {utc} (local {local})",
        id = id(&found.tag),
        utc = stamp.to_rfc3339(),
        local = time::local(stamp, now),
    )];
    if commit.incomplete {
        lines.push("It was taken during a first backup and does not hold everything.".into());
    }
    lines
}

/// A snapshot's id as people see it.
pub(crate) fn id(tag: &Tag) -> String {
    snapshot_id(tag)
}

/// Reads the name of a repository's place.
pub(crate) fn location(text: &str) -> anyhow::Result<Location> {
    text.parse::<Location>()
        .map_err(|why| crate::config::Error::Usage(why.to_string()).into())
}

/// The directory that the command was typed in; the root if that is gone.
pub(crate) fn here() -> PathBuf {
    dirs::absolute(Path::new("."))
}

/// Runs a command's asynchronous part. SIGINT and SIGTERM end it.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::catch()?;
        tokio::select! {
            ended = work => ended,
            signal = signals.next() => Err(signal.into()),
        }
    });
    // What was interrupted may sit in a call that never returns; nothing of it is owed any more.
    runtime.shutdown_background();
    ended
}
