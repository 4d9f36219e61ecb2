//! `rewindfs mount`: a live mount, or a moment of it.
//!
//! Here words become a decision: which directory, which volume, which repository, where. `daemon` does the rest, in the
//! background.

use std::path::PathBuf;
use std::time::Duration;

use super::context::{Context, location};
use super::exit::{self, Exit};
use super::{live, output, time};
use crate::config::dirs::{canonical, is_dead_mount};
use crate::config::layout::{Layout, check_mountpoint};
use crate::config::policy::{Mode, PartialPolicy, Policy, SealOn};
use crate::config::secret::{SecretSource, create_key_file};
use crate::config::select::{Selected, VolumeRef};
use crate::config::{Error, size};
use crate::daemon::background::{self, Reporter};
use crate::daemon::live::LiveMount;
use crate::daemon::opening::Opening;
use crate::daemon::past::PastMount;
use crate::fuse::mountinfo;
use crate::fuse::session::Flag;
use crate::repo::commits::Found;
use crate::store::url::Location;

/// Mount a directory so that it backs itself up, or mount it as it was at any moment
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Returns when the mount answers, and stays in the background. The files stay plain files in DIR.
With no repository named, a local one is made under ~/.local/share/rewindfs, with its key beside the configuration.
With --at, DIR is the source or the place where it is usually mounted; the mount is read-only.

Examples:
  rewindfs mount ~/Documents                                    over itself: the same files, now backing themselves up
  rewindfs mount ~/Documents /mnt/docs --repo s3://my-bucket/docs --interval 30s
  rewindfs mount ~/Documents --at 'yesterday 14:00' /mnt/then   as it was, beside the live one
  rewindfs umount ~/Documents && rewindfs mount ~/Documents --at 10m
  rewindfs mount --repo s3://my-bucket/docs --at latest /mnt/docs    on any other machine")]
pub(crate) struct Args {
    /// The directory to protect; with --at, the one to see again
    dir: PathBuf,
    /// Where to mount it; over DIR itself if left out
    mountpoint: Option<PathBuf>,
    /// Mount it read-only as it was: 10m, 'yesterday 14:00', latest~3, @17, a snapshot's name or id
    #[arg(long, value_name = "TIME", long_help = time::HELP)]
    at: Option<String>,
    /// The volume: its name in the repository
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Mount options: allow_other, allow_root, ro, rw, suid, nosuid, dev, nodev, exec, noexec, default_permissions (always so)
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    options: Vec<Flag>,
    /// Stay in front; log to standard error
    #[arg(short, long)]
    foreground: bool,
    #[command(flatten)]
    policy: PolicyArgs,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Policy of a live mount")]
struct PolicyArgs {
    /// Seal at most this often while there are changes [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = size::duration, conflicts_with = "at")]
    interval: Option<Duration>,
    /// Seal earlier when this much is dirty [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size::bytes, conflicts_with = "at")]
    max_dirty: Option<u64>,
    /// Seal as well when a program calls fsync, or closes a file it has written
    #[arg(
        long,
        value_name = "EVENTS",
        value_delimiter = ',',
        conflicts_with = "at"
    )]
    seal_on: Option<Vec<SealOn>>,
    /// hot: fsync returns when the repository has it; warm: in the background; cold: only on command [default: warm]
    #[arg(
        long,
        value_name = "MODE",
        hide_possible_values = true,
        conflicts_with = "at"
    )]
    mode: Option<Mode>,
}

impl Args {
    /// Mounts, and returns when the mount answers (with -f, when it ends).
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.at.clone() {
            Some(at) => self.run_past(context, &at),
            None => self.run_live(context),
        }
    }

    fn run_live(self, context: &Context) -> anyhow::Result<Exit> {
        let policy = Policy::resolve(self.policy.given(), context.file.policy.clone())?;
        let place = Place::of(context, &self)?;
        check_layout(context, &place)?;
        let (opening, create) = open_or_create(context, &place)?;
        let mount = LiveMount {
            opening,
            create,
            volume: place.volume,
            repo: place.location.to_string(),
            source: place.source,
            mountpoint: place.mountpoint,
            options: self.options,
            policy,
            spool_bytes: context.file.spool_bytes,
            state: context.state.clone(),
            describe: exit::describe,
        };
        go(self.foreground, move |reporter, in_front| {
            mount.run(reporter, in_front)
        })
    }

    fn run_past(self, context: &Context, at: &str) -> anyhow::Result<Exit> {
        let point = time::parse(at, &context.now)?;
        let (selected, mountpoint) = self.past_place(context)?;
        let mountpoint = canonical(&mountpoint);
        let looked = mountinfo::look(&mountpoint);
        check_mountpoint(&mountpoint, &mountinfo::all()?, looked)?;
        let now = context.now.clone();
        let mount = PastMount {
            opening: context.opening(&selected.repo)?,
            volume: selected.volume,
            point,
            mountpoint,
            options: self.options,
            state: context.state.clone(),
            describe: Box::new(move |found: &Found| super::context::describe(found, &now)),
        };
        go(self.foreground, move |reporter, in_front| {
            mount.run(reporter, in_front)
        })
    }

    /// Which volume a snapshot mount means, and where it is to appear.
    fn past_place(&self, context: &Context) -> anyhow::Result<(Selected, PathBuf)> {
        let wanted = context.wanted(self.volume.as_deref())?;
        let known = live::readings(&self.dir)
            .iter()
            .find_map(|dir| wanted.exactly(&context.known, dir));
        if let Some(known) = known {
            let usual = &known.record.mountpoint;
            let selected = Selected {
                repo: known.record.repo.clone(),
                volume: VolumeRef::Id(known.state.id()),
            };
            let mountpoint = self.mountpoint.as_ref().unwrap_or(usual);
            return Ok((selected, mountpoint.clone()));
        }
        // Not known here: then the only directory that can be meant is the mount point, and the repository must be named.
        if let Some(mountpoint) = &self.mountpoint {
            return Err(Error::Usage(format!(
                "{} has not been mounted live on this machine; to mount a volume of a repository, leave it out: \
                 rewindfs mount --repo REPO --at TIME {}",
                self.dir.display(),
                mountpoint.display()
            ))
            .into());
        }
        Ok((context.select(self.volume.as_deref())?, self.dir.clone()))
    }
}

impl PolicyArgs {
    fn given(&self) -> PartialPolicy {
        PartialPolicy {
            interval: self.interval,
            max_dirty_bytes: self.max_dirty,
            seal_on: self.seal_on.clone(),
            mode: self.mode,
        }
    }
}

/// Mounts in front or in the background.
fn go(
    in_front: bool,
    mount: impl FnOnce(&mut Reporter, bool) -> anyhow::Result<()>,
) -> anyhow::Result<Exit> {
    if in_front {
        mount(&mut Reporter::in_front(output::note), true)?;
        return Ok(Exit::Done);
    }
    background::run(output::note, exit::describe, |reporter| {
        mount(reporter, false)
    })?;
    Ok(Exit::Done)
}

/// What a live mount is made of.
struct Place {
    source: PathBuf,
    mountpoint: PathBuf,
    location: Location,
    volume: VolumeRef,
}

impl Place {
    fn of(context: &Context, args: &Args) -> anyhow::Result<Self> {
        let mut source = canonical(&args.dir);
        let mut mountpoint = match &args.mountpoint {
            Some(mountpoint) => canonical(mountpoint),
            None => source.clone(),
        };
        let wanted = context.wanted(args.volume.as_deref())?;
        let known = wanted.exactly(&context.known, &source);
        if let Some(known) = known
            && known.record.source != source
            && args.mountpoint.is_none()
        {
            // The place where it is usually mounted was named: what is protected there lies elsewhere.
            source = known.record.source.clone();
            mountpoint = known.record.mountpoint.clone();
        }
        let known = known.filter(|known| known.record.source == source);
        let remembered = known
            .map(|known| location(&known.record.repo))
            .transpose()?;
        let location = match (&context.repo, remembered, context.configured_location()?) {
            (Some(named), ..) => named.clone(),
            (None, Some(remembered), _) => remembered,
            (None, None, Some(configured)) => configured,
            (None, None, None) => context.default_location(),
        };
        let named = args.volume.clone().or_else(|| context.file.volume.clone());
        let volume = match (known, named) {
            (Some(known), _) => VolumeRef::Id(known.state.id()),
            (None, Some(name)) => VolumeRef::Name(name),
            (None, None) => VolumeRef::Only,
        };
        Ok(Self {
            source,
            mountpoint,
            location,
            volume,
        })
    }
}

fn check_layout(context: &Context, place: &Place) -> anyhow::Result<()> {
    let mounts = mountinfo::all()?;
    check_mountpoint(
        &place.mountpoint,
        &mounts,
        mountinfo::look(&place.mountpoint),
    )?;
    match mountinfo::look(&place.source) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(
                Error::Usage(format!("{} is not a directory", place.source.display())).into(),
            );
        }
        // A dead mount over itself, which mounting takes off first.
        Err(error) if is_dead_mount(&error) && place.source == place.mountpoint => {}
        Err(error) => {
            return Err(Error::Usage(format!("{}: {error}", place.source.display())).into());
        }
    }
    let repository = match &place.location {
        Location::Folder(path) => Some(canonical(path)),
        Location::S3(_) => None,
    };
    Layout {
        source: &place.source,
        mountpoint: &place.mountpoint,
        repository: repository.as_deref(),
        state: &canonical(&context.dirs.state),
        cache: &canonical(&context.dirs.cache),
        mounts: &mounts,
    }
    .check()?;
    Ok(())
}

/// What opens the repository, and whether it must be made first: only the embedded default makes itself, and never in place of one that
/// a volume has been mounted from.
fn open_or_create(context: &Context, place: &Place) -> anyhow::Result<(Opening, bool)> {
    let location = &place.location;
    let is_default = *location == context.default_location();
    let is_known = matches!(place.volume, VolumeRef::Id(_));
    if !is_default || is_known || context.dirs.default_repository.exists() {
        return Ok((context.opening(&location.to_string())?, false));
    }
    if let SecretSource::Prompt = context.secret_source(location)? {
        create_key_file(&context.dirs.default_key_file())?;
    }
    announce_default(context, location);
    Ok((context.opening(&location.to_string())?, true))
}

fn announce_default(context: &Context, location: &Location) {
    output::note(&format!(
        "No repository was named: snapshots go to {location}, encrypted; what opens it is {}.",
        match context.dirs.default_key_file().exists() {
            true => format!("the key in {}", context.dirs.default_key_file().display()),
            false => "the password that you have set".into(),
        }
    ));
    output::note(
        "This protects against deleting, overwriting and mistakes, not against loss or theft of this disk: for that, \
         name one elsewhere (--repo s3://bucket/prefix, or a folder on another disk).",
    );
}
