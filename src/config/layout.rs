//! Refuses a layout in which the program could back up itself, or hide from itself what it needs. Pure: paths in, verdict out.

use std::path::Path;

use super::Error;
use crate::fuse::mountinfo::Entry;

/// Everything that must not lie inside each other. All paths canonical.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    /// The directory to protect.
    pub source: &'a Path,
    /// Where the live mount will appear.
    pub mountpoint: &'a Path,
    /// The repository, if it is a local directory.
    pub repository: Option<&'a Path>,
    /// Our state directory.
    pub state: &'a Path,
    /// Our cache directory.
    pub cache: &'a Path,
    /// What is mounted on this machine.
    pub mounts: &'a [Entry],
}

impl Layout<'_> {
    /// Ok if nothing of ours lies in the source or under the mount point, and neither lies in ours.
    pub fn check(&self) -> Result<(), Error> {
        self.check_own_places()?;
        self.check_mountpoint()?;
        self.check_mounts()
    }

    fn check_own_places(&self) -> Result<(), Error> {
        let ours = [
            (
                "repository",
                self.repository,
                "put it somewhere else, best on another disk",
            ),
            (
                "state directory",
                Some(self.state),
                "set REWINDFS_STATE_DIR to a directory outside it",
            ),
            (
                "cache directory",
                Some(self.cache),
                "set REWINDFS_CACHE_DIR to a directory outside it",
            ),
        ];
        for (what, path, remedy) in ours {
            let Some(path) = path else { continue };
            if path.starts_with(self.source) {
                return Err(Error::Layout(format!(
                    "the {what} {} lies inside {}, which would back up itself; {remedy}",
                    path.display(),
                    self.source.display()
                )));
            }
            if path.starts_with(self.mountpoint) {
                return Err(Error::Layout(format!(
                    "a mount on {} would hide the {what} {}; {remedy}",
                    self.mountpoint.display(),
                    path.display()
                )));
            }
            for (role, dir) in [("source", self.source), ("mount point", self.mountpoint)] {
                if dir.starts_with(path) {
                    return Err(Error::Layout(format!(
                        "the {role} {} lies inside the {what} {}; name another directory",
                        dir.display(),
                        path.display()
                    )));
                }
            }
        }
        Ok(())
    }

    fn check_mountpoint(&self) -> Result<(), Error> {
        if self.mountpoint == self.source {
            return Ok(());
        }
        if self.mountpoint.starts_with(self.source) {
            return Err(Error::Layout(format!(
                "the mount point {} lies inside {}, which would back up itself; mount over the directory itself or outside it",
                self.mountpoint.display(),
                self.source.display()
            )));
        }
        if self.source.starts_with(self.mountpoint) {
            return Err(Error::Layout(format!(
                "a mount on {} would hide its own source {}; name another mount point",
                self.mountpoint.display(),
                self.source.display()
            )));
        }
        Ok(())
    }

    fn check_mounts(&self) -> Result<(), Error> {
        for mount in self.mounts.iter().filter(|mount| mount.is_ours()) {
            if self.source.starts_with(&mount.mountpoint) && mount.mountpoint != self.mountpoint {
                return Err(Error::Layout(format!(
                    "{} lies inside a RewindFS mount on {}; protect the directory behind it instead",
                    self.source.display(),
                    mount.mountpoint.display()
                )));
            }
        }
        Ok(())
    }
}

/// Refuses a mount point on which something of ours is mounted, or that is no directory. A dead mount of ours passes: it is
/// taken off when the new one is made. `metadata` is what the kernel says of the place, asked by the caller.
pub fn check_mountpoint(
    mountpoint: &Path,
    mounts: &[Entry],
    metadata: std::io::Result<std::fs::Metadata>,
) -> Result<(), Error> {
    let refuse = |why: String| {
        Err(Error::MountPoint(format!(
            "mount point {} {why}",
            mountpoint.display()
        )))
    };
    let uppermost = mounts.iter().rfind(|mount| mount.mountpoint == mountpoint);
    match metadata {
        Err(error) if super::dirs::is_dead_mount(&error) => Ok(()),
        Err(error) => refuse(format!("cannot be used: {error}")),
        Ok(metadata) if !metadata.is_dir() => refuse("is not a directory".into()),
        Ok(_) if uppermost.is_some_and(Entry::is_ours) => refuse(
            "is a RewindFS mount already; unmount that first with `rewindfs umount`, or name another mount point"
                .into(),
        ),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
