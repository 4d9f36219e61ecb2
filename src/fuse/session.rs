//! A mounted file system: mounting it, waiting until the kernel lets go of it, unmounting it.
//!
//! Both fronts are mounted here. `fuser` runs the loop threads; what it leaves to be desired is done here: a dead mount
//! in the way is taken off first, a panicking handler costs one `EIO`, an option cannot be smuggled in with a comma, and
//! the end of a session never unmounts somebody else's newer mount at the same place.

use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use fuser::{
    BackgroundSession, Config, Filesystem, MountOption, Notifier, Session as FuserSession,
    SessionACL,
};

use super::mountinfo::{self, Entry};
use super::shield::{Ended, Shield};
use crate::sys;

/// What `/proc/mounts` shows as type.
pub const KIND: &str = "fuse.rewindfs";

/// Loop threads where nothing else is said. A thread that waits for the disk in an fsync answers nobody else, so there are
/// more of them than processors; each costs a buffer that is touched only as far as its largest request.
pub const LOOP_THREADS: usize = 8;

/// Dead mounts taken off one place before giving up: each was left by one process that was killed.
const DEAD_MOUNTS_MAX: usize = 16;

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// What `mount` and `df` show as the source. Commas and the like are replaced.
    pub name: String,
    /// Refuse every change in the kernel already.
    pub read_only: bool,
    /// Who is let in beside the user who mounts. Others than root need `user_allow_other` in `/etc/fuse.conf` for more than nobody.
    pub access: SessionACL,
    /// Set-id bits work as on the disk below; only root may say so.
    pub suid: bool,
    /// Device files work as on the disk below; only root may say so.
    pub devices: bool,
    /// Programs can be run.
    pub exec: bool,
    /// Loop threads, at least one.
    pub loop_threads: usize,
}

impl Options {
    /// The usual: everybody is let in if we are root, and then set-id bits and devices work.
    pub fn new(name: impl Into<String>) -> Self {
        let root = sys::effective_uid() == 0;
        Self {
            name: name.into(),
            read_only: false,
            access: if root {
                SessionACL::All
            } else {
                SessionACL::Owner
            },
            suid: root,
            devices: root,
            exec: true,
            loop_threads: LOOP_THREADS,
        }
    }

    /// The same changed by what was asked for, the last word counting.
    pub fn with(mut self, flags: &[Flag]) -> Self {
        for flag in flags {
            match flag {
                Flag::AllowOther => self.access = SessionACL::All,
                Flag::AllowRoot => self.access = SessionACL::RootAndOwner,
                Flag::ReadOnly(yes) => self.read_only = *yes,
                Flag::Suid(yes) => self.suid = *yes,
                Flag::Devices(yes) => self.devices = *yes,
                Flag::Exec(yes) => self.exec = *yes,
                Flag::DefaultPermissions => {}
            }
        }
        self
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(shown_name(&self.name)),
            // As a plain option it reaches the kernel too; fuser's own `Subtype` reaches fusermount3 only.
            MountOption::CUSTOM("subtype=rewindfs".into()),
            MountOption::DefaultPermissions,
        ];
        if self.read_only {
            config.mount_options.push(MountOption::RO);
        }
        if self.suid {
            config.mount_options.push(MountOption::Suid);
        }
        if self.devices {
            config.mount_options.push(MountOption::Dev);
        }
        if !self.exec {
            config.mount_options.push(MountOption::NoExec);
        }
        config.acl = self.access;
        config.n_threads = Some(self.loop_threads.max(1));
        config.clone_fd = true;
        config
    }
}

/// What may be asked for with `mount -o`, a word each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flag {
    /// `allow_other`
    AllowOther,
    /// `allow_root`
    AllowRoot,
    /// `ro`, or else `rw`
    ReadOnly(bool),
    /// `suid`, or else `nosuid`
    Suid(bool),
    /// `dev`, or else `nodev`
    Devices(bool),
    /// `exec`, or else `noexec`
    Exec(bool),
    /// `default_permissions`: the kernel checks permissions. It always does.
    DefaultPermissions,
}

/// A word after `-o` that means nothing to us.
#[derive(Debug, thiserror::Error)]
#[error("no such mount option")]
pub struct NoSuchFlag;

impl std::str::FromStr for Flag {
    type Err = NoSuchFlag;

    fn from_str(word: &str) -> Result<Self, NoSuchFlag> {
        Ok(match word {
            "allow_other" => Self::AllowOther,
            "allow_root" => Self::AllowRoot,
            "ro" => Self::ReadOnly(true),
            "rw" => Self::ReadOnly(false),
            "suid" => Self::Suid(true),
            "nosuid" => Self::Suid(false),
            "dev" => Self::Devices(true),
            "nodev" => Self::Devices(false),
            "exec" => Self::Exec(true),
            "noexec" => Self::Exec(false),
            "default_permissions" => Self::DefaultPermissions,
            _ => return Err(NoSuchFlag),
        })
    }
}

/// The name as `mount` and `df` show it: one that cannot end its option and begin another one (a path may hold a comma).
pub fn shown_name(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            ',' | '\\' | '=' => '_',
            letter if letter.is_control() => '_',
            letter => letter,
        })
        .collect()
}

/// Why a place could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mount point does not exist or is not a directory that can be reached.
    #[error("mount point {path}: {source}")]
    Mountpoint {
        /// where
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// A dead mount of another program lies there; it is not ours to remove.
    #[error(
        "{path} is a dead mount of type {kind}: unmount it first (umount -l {path})",
        path = path.display()
    )]
    DeadForeign {
        /// where
        path: PathBuf,
        /// its type
        kind: String,
    },
    /// The kernel or fusermount3 refused.
    #[error("mount on {path}: {source}", path = path.display())]
    Mount {
        /// where
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// Somebody still uses it.
    #[error("{path} is in use", path = path.display())]
    Busy {
        /// where
        path: PathBuf,
    },
    /// It could not be unmounted.
    #[error("unmount {path}: {source}", path = path.display())]
    Unmount {
        /// where
        path: PathBuf,
        /// why
        source: io::Error,
    },
}

/// A mounted file system. Dropping it unmounts lazily if it is still mounted.
#[derive(Debug)]
pub struct Session {
    place: PathBuf,
    /// `major:minor` of the mount, to know it from a later one at the same place.
    device: Option<String>,
    notifier: Notifier,
    ended: Arc<Ended>,
    /// Never dropped: at its end `fuser` unmounts *whatever* lies at the path, even when that is a newer mount.
    _fuser: ManuallyDrop<BackgroundSession>,
}

/// Mounts `filesystem` on `mountpoint` and answers requests on threads of its own. A dead mount of ours in the way is taken
/// off first. Returns when the kernel has accepted it.
pub fn mount(
    filesystem: impl Filesystem,
    mountpoint: &Path,
    options: &Options,
) -> Result<Session, Error> {
    remove_dead(mountpoint)?;
    let wrong = |source| Error::Mountpoint {
        path: mountpoint.to_owned(),
        source,
    };
    let place = mountpoint.canonicalize().map_err(wrong)?;
    if mountinfo::has_nul(&place) || !place.is_dir() {
        return Err(wrong(io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    let failed = |source| Error::Mount {
        path: place.clone(),
        source,
    };
    let ended = Arc::new(Ended::default());
    let shield = Shield::new(filesystem, Arc::clone(&ended));
    let fuser = FuserSession::new(shield, &place, &options.config())
        .and_then(FuserSession::spawn)
        .map_err(failed)?;
    let device = mountinfo::uppermost(&place)
        .map_err(failed)?
        .map(|entry| entry.device);
    Ok(Session {
        place,
        device,
        notifier: fuser.notifier(),
        ended,
        _fuser: ManuallyDrop::new(fuser),
    })
}

impl Session {
    /// Where it is mounted, without symlinks.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Tells the kernel to forget what it has cached. Never to be used on a thread that answers a request.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// Lets the kernel read at least `kib` KiB ahead of a program that reads on. Only root may do that, and a container may not let even
    /// root: then it reads ahead 128, in requests of as much.
    pub fn read_ahead_best_effort(&self, kib: u32) {
        let Some(device) = &self.device else { return };
        let place = format!("/sys/class/bdi/{device}/read_ahead_kb");
        let raise = || -> io::Result<()> {
            let now: u32 = fs::read_to_string(&place)?.trim().parse().unwrap_or(0);
            match now < kib {
                true => fs::write(&place, kib.to_string()),
                false => Ok(()),
            }
        };
        if let Err(error) = raise() {
            tracing::debug!(place, %error, "the kernel reads ahead no further than it does by itself");
        }
    }

    /// Whether requests are still answered.
    pub fn is_alive(&self) -> bool {
        !self.ended.has()
    }

    /// Waits until it is unmounted, by whomever, and the file system's `destroy` has run.
    pub fn wait(&self) {
        self.ended.wait();
    }

    /// Unmounts it; [`Error::Busy`] if a program has a file or directory of it in use. Does nothing if it is unmounted already.
    pub fn unmount(&self) -> Result<(), Error> {
        self.take_off(Detach::WhenUnused)
    }

    /// Takes it out of the tree at once; programs that use it go on until they close their files.
    pub fn unmount_lazily(&self) -> Result<(), Error> {
        self.take_off(Detach::AtOnce)
    }

    fn take_off(&self, detach: Detach) -> Result<(), Error> {
        let there = mountinfo::uppermost(&self.place).map_err(|source| Error::Unmount {
            path: self.place.clone(),
            source,
        })?;
        match there {
            Some(entry) if Some(&entry.device) == self.device.as_ref() => {
                unmount(&self.place, detach)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_alive()
            && let Err(error) = self.unmount_lazily()
        {
            tracing::warn!(%error, "could not unmount at the end");
        }
    }
}

/// When a mount leaves the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detach {
    WhenUnused,
    AtOnce,
}

/// Takes a dead mount of ours (its process was killed, so that every access answers `ENOTCONN`) off `mountpoint`, and those
/// below it. A living mount, or none, is left alone. Returns what was taken off.
pub fn remove_dead(mountpoint: &Path) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    for _ in 0..DEAD_MOUNTS_MAX {
        let dead = mountinfo::look(mountpoint)
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN));
        if !dead {
            return Ok(found);
        }
        let wrong = |source| Error::Mountpoint {
            path: mountpoint.to_owned(),
            source,
        };
        let place = mountinfo::absolute(mountpoint).map_err(wrong)?;
        match mountinfo::uppermost(&place).map_err(wrong)? {
            Some(entry) if entry.kind != KIND => {
                return Err(Error::DeadForeign {
                    path: place,
                    kind: entry.kind,
                });
            }
            Some(entry) => {
                tracing::info!(place = %place.display(), mount = entry.id, "taking off a dead mount");
                unmount(&place, Detach::AtOnce)?;
                found.push(entry);
            }
            // The dead mount lies above this place: not ours to take off from here.
            None => return Err(wrong(io::Error::from_raw_os_error(libc::ENOTCONN))),
        }
    }
    Ok(found)
}

/// Takes the mount of ours off `mountpoint`, from another process than the one that serves it. Returns whether there was one.
pub fn unmount_at(mountpoint: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Unmount {
        path: mountpoint.to_owned(),
        source,
    };
    let place = mountinfo::absolute(mountpoint).map_err(failed)?;
    match mountinfo::uppermost(&place).map_err(failed)? {
        Some(entry) if entry.is_ours() => unmount(&place, Detach::WhenUnused).map(|()| true),
        _ => Ok(false),
    }
}

/// Unmounts by system call, or through fusermount3 where only that is permitted.
fn unmount(place: &Path, detach: Detach) -> Result<(), Error> {
    let failed = |source| Error::Unmount {
        path: place.to_owned(),
        source,
    };
    match sys::unmount(place, detach == Detach::AtOnce) {
        Ok(()) => Ok(()),
        // Not mounted any more.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(Error::Busy {
            path: place.to_owned(),
        }),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            unmount_by_fusermount(place, detach)
        }
        Err(error) => Err(failed(error)),
    }
}

fn unmount_by_fusermount(place: &Path, detach: Detach) -> Result<(), Error> {
    let failed = |source| Error::Unmount {
        path: place.to_owned(),
        source,
    };
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if detach == Detach::AtOnce {
        command.arg("-z");
    }
    let done = command.arg("--").arg(place).output().map_err(failed)?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    if said.contains("busy") {
        return Err(Error::Busy {
            path: place.to_owned(),
        });
    }
    Err(failed(io::Error::other(said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_smuggle_in_an_option() {
        let options = Options::new("/home/me/a,suid,dev\\,x=y\n");
        let config = options.config();
        let names: Vec<_> = config
            .mount_options
            .iter()
            .filter_map(|option| match option {
                MountOption::FSName(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(names, ["/home/me/a_suid_dev__x_y_"]);
    }

    #[test]
    fn a_place_that_is_alive_or_missing_is_not_dead() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(remove_dead(dir.path()).expect("alive"), []);
        let missing = dir.path().join("missing");
        assert_eq!(remove_dead(&missing).expect("missing"), []);
    }

    #[test]
    fn mounting_on_nothing_or_on_a_file_is_refused() {
        struct Empty;
        impl Filesystem for Empty {}
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").expect("a file");
        for place in [dir.path().join("missing"), file] {
            let refused = mount(Empty, &place, &Options::new("test"));
            assert!(matches!(refused, Err(Error::Mountpoint { .. })));
        }
    }
}
