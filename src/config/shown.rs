//! Snapshots that are mounted on this machine: one small file for each, written by the process that serves it, so that `status` can list
//! them and `umount` knows them from live mounts. A file outlives its process only if that was killed; then the mount is dead too.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::state::{State, VolumeState, path_text};
use crate::fuse::mountinfo::{self, Entry};

/// Longer than any path twice over; a longer file is not ours.
const RECORD_LEN_MAX: u64 = 64 << 10;

/// A mounted snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// The process that serves it.
    pub pid: u32,
    /// The repository.
    pub repo: String,
    /// The volume's name.
    pub volume: String,
    /// Where it is mounted; canonical.
    #[serde(with = "path_text")]
    pub mountpoint: PathBuf,
    /// What the kernel shows as its source, by which it is known from another mount in the same place.
    pub mounted_as: String,
    /// Its sequence number.
    pub seq: u64,
    /// Its id.
    pub id: String,
    /// Its name; empty for none.
    pub name: String,
    /// Its time: RFC 3339, UTC.
    pub time: String,
}

/// The file of a mounted snapshot; removed when this is dropped.
#[derive(Debug)]
pub struct Registered(PathBuf);

impl Shown {
    /// Writes it down for as long as the returned value lives.
    pub fn register(&self, state: &VolumeState) -> Result<Registered, Error> {
        let dir = state.snapshots();
        super::dirs::create_private(&dir)?;
        let path = dir.join(format!("{}.json", self.pid));
        let text = serde_json::to_vec_pretty(self)
            .expect("a record holds text, numbers and byte lists only, all of which JSON has");
        let write = || {
            // Read as soon as it is there, so it must be whole by then.
            let temporary = path.with_extension("new");
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?
                .write_all(&text)?;
            fs::rename(temporary, &path)
        };
        write().map_err(Error::io("write", &path))?;
        Ok(Registered(path))
    }

    /// Whether it is mounted still, alive or dead; nothing else may lie over it.
    fn is_mounted(&self) -> bool {
        let uppermost = mountinfo::uppermost(&self.mountpoint).ok().flatten();
        uppermost.is_some_and(|entry: Entry| entry.is_ours() && entry.source == self.mounted_as)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // What is left is passed over, since nothing is mounted there any more.
        let _ = fs::remove_file(&self.0);
    }
}

impl State {
    /// The snapshots that are mounted now, by mount point. Files that nothing is mounted for are passed over, and so are those
    /// that cannot be read: they only name what can be seen among the mounts as well.
    pub fn shown(&self) -> Result<Vec<Shown>, Error> {
        let mut shown = Vec::new();
        for volume in self.volumes()? {
            shown.extend(
                files(&volume.snapshots())?
                    .iter()
                    .filter_map(|path| read(path)),
            );
        }
        shown.retain(Shown::is_mounted);
        shown.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        Ok(shown)
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: io::Result<Vec<PathBuf>> = paths.collect();
    let mut paths = paths.map_err(Error::io("list", dir))?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    Ok(paths)
}

fn read(path: &Path) -> Option<Shown> {
    let file = fs::File::open(path).ok()?;
    let text = io::read_to_string(io::Read::take(file, RECORD_LEN_MAX)).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VolumeId;

    #[test]
    fn what_is_written_down_is_read_while_it_lives_and_shown_only_where_it_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        assert!(state.shown().unwrap().is_empty());
        let volume = state.volume(VolumeId([1; 16]));
        let shown = Shown {
            pid: 17,
            repo: "/r".into(),
            volume: "docs".into(),
            mountpoint: "/mnt/then".into(),
            mounted_as: "docs@3".into(),
            seq: 3,
            id: "0123456789abcdef".into(),
            name: String::new(),
            time: "2026-11-21T10:00:00.000Z".into(),
        };
        let registered = shown.register(&volume).unwrap();
        let path = volume.snapshots().join("17.json");
        assert_eq!(read(&path), Some(shown));
        assert!(state.shown().unwrap().is_empty(), "nothing is mounted");
        drop(registered);
        assert!(!path.exists());
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), None);
    }
}
