//! What this machine remembers of each volume: which repository, which directory, and where its journal, spool and
//! control socket lie. So a person never has to repeat them.
//!
//! Found by the text of paths alone: a dead mount at one of them must not stop us.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Error;
use super::dirs::create_private;
use crate::clock::Stamp;
use crate::id::{SessionId, VolumeId};

/// The version of `mount.json` that this program writes.
const RECORD_VERSION: u32 = 1;
/// What is remembered of a mount.
const RECORD: &str = "mount.json";
/// As whom the volume is written.
const OWNER: &str = "owner";
/// Longer than any path twice over; a longer file is not ours.
const RECORD_LEN_MAX: u64 = 64 << 10;

/// What is remembered of a live mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MountRecord {
    version: u32,
    /// The repository, as it is named on a command line, without credentials.
    pub repo: String,
    /// The volume's name in it.
    pub volume: String,
    /// The directory that is protected.
    #[serde(with = "path_text")]
    pub source: PathBuf,
    /// Where it was mounted last.
    #[serde(with = "path_text")]
    pub mountpoint: PathBuf,
    /// When it was mounted last, milliseconds since 1970.
    pub mounted_at: u64,
    /// The session under which this machine claimed the volume last, hexadecimal; absent before it was heard of.
    #[serde(default)]
    pub session: Option<String>,
}

impl MountRecord {
    /// A record of a mount made now.
    pub fn new(
        repo: String,
        volume: String,
        source: PathBuf,
        mountpoint: PathBuf,
        now: Stamp,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            repo,
            volume,
            source,
            mountpoint,
            mounted_at: now.0,
            session: None,
        }
    }
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct State {
    volumes: PathBuf,
}

/// One volume's part of the state directory. It need not exist yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeState {
    dir: PathBuf,
    id: VolumeId,
}

/// A volume that has been mounted live on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its files.
    pub state: VolumeState,
    /// What is remembered.
    pub record: MountRecord,
}

impl State {
    /// The state under `dir`, which need not exist.
    pub fn new(dir: &Path) -> Self {
        Self {
            volumes: dir.join("volumes"),
        }
    }

    /// The files of a volume.
    pub fn volume(&self, id: VolumeId) -> VolumeState {
        VolumeState {
            dir: self.volumes.join(id.to_string()),
            id,
        }
    }

    /// All volumes that have been mounted live here, the last mounted first. A record that cannot be read is an error
    /// that names it: leaving it out could mount a directory as a new volume.
    pub fn known(&self) -> Result<Vec<Known>, Error> {
        let mut known = Vec::new();
        for state in self.volumes()? {
            if let Some(record) = state.record()? {
                known.push(Known { state, record });
            }
        }
        known.sort_by_key(|known| (std::cmp::Reverse(known.record.mounted_at), known.state.id.0));
        Ok(known)
    }

    /// All volumes that this machine has anything of.
    pub(super) fn volumes(&self) -> Result<Vec<VolumeState>, Error> {
        let entries = match std::fs::read_dir(&self.volumes) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &self.volumes)(error)),
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("list", &self.volumes))?.file_name();
            if let Some(id) = name.to_str().and_then(VolumeId::from_hex) {
                volumes.push(self.volume(id));
            }
        }
        Ok(volumes)
    }
}

impl VolumeState {
    /// The volume.
    pub fn id(&self) -> VolumeId {
        self.id
    }
    /// The directory of all of the following.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Makes it.
    pub fn create(&self) -> Result<(), Error> {
        create_private(&self.dir)
    }
    /// The journal's directory.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }
    /// The identity map's directory.
    pub fn identity(&self) -> PathBuf {
        self.dir.join("identity")
    }
    /// Copies of the repository's key objects, encrypted as they lie there: what a mount without the repository is opened with.
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }
    /// The spool's directory.
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }
    /// The file whose lock makes the writer on this machine the only one.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }
    /// What the background process of the live mount has to tell.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
    /// The same of snapshot mounts.
    pub fn snapshot_log(&self) -> PathBuf {
        self.dir.join("snapshot.log")
    }
    /// Where snapshot mounts are written down.
    pub fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    /// What is remembered of the last live mount; `None` if there was none.
    pub fn record(&self) -> Result<Option<MountRecord>, Error> {
        let path = self.dir.join(RECORD);
        let text = match File::open(&path) {
            Ok(file) => io::read_to_string(io::Read::take(file, RECORD_LEN_MAX)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        let text = text.map_err(Error::io("read", &path))?;
        let record: MountRecord = serde_json::from_str(&text).map_err(|why| {
            Error::Usage(format!(
                "{} is damaged ({why}); move it away, and name --repo and --volume when you mount again",
                path.display()
            ))
        })?;
        if record.version > RECORD_VERSION {
            return Err(Error::Usage(format!(
                "{} was written by a newer version of RewindFS; update to use it",
                path.display()
            )));
        }
        Ok(Some(record))
    }

    /// As whom this machine writes the volume: made of `host` the first time, and the same ever after, whatever the host is called
    /// then. No other state directory has the same, since it holds a random number, before all that may be cut off.
    pub fn owner(&self, host: &str) -> Result<String, Error> {
        let path = self.dir.join(OWNER);
        let text = match File::open(&path) {
            Ok(file) => io::read_to_string(io::Read::take(file, RECORD_LEN_MAX)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        };
        let text = text.map_err(Error::io("read", &path))?;
        if let Some(owner) = text.strip_suffix('\n').filter(|owner| !owner.is_empty()) {
            return Ok(owner.to_owned());
        }
        let id = SessionId::random();
        let owner = format!(
            "{host} {id} ({})",
            self.dir.display().to_string().escape_debug()
        );
        self.write_durably(OWNER, format!("{owner}\n").as_bytes())?;
        Ok(owner)
    }

    /// Adds to what is remembered under which session the volume was claimed. Nothing if nothing is remembered yet.
    pub fn remember_session(&self, session: SessionId) -> Result<(), Error> {
        let Some(mut record) = self.record()? else {
            return Ok(());
        };
        record.session = Some(session.to_string());
        self.remember(&record)
    }

    /// Remembers a live mount, so that a power cut leaves either the old record or the new one.
    pub fn remember(&self, record: &MountRecord) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(record)
            .expect("a record holds text, numbers and byte lists only, all of which JSON has");
        self.write_durably(RECORD, &text)
    }

    fn write_durably(&self, name: &str, text: &[u8]) -> Result<(), Error> {
        self.create()?;
        let path = self.dir.join(name);
        let temporary = self.dir.join(format!("{name}.new"));
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(Error::io("write", path))
    }
}

/// Paths are bytes: text where they are UTF-8, else a list of numbers.
pub(super) mod path_text {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        path: &Path,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
        .serialize(to)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<PathBuf, D::Error> {
        Ok(match Form::deserialize(from)? {
            Form::Text(text) => PathBuf::from(text),
            Form::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(source: &str, at: u64) -> MountRecord {
        MountRecord::new(
            "/r".into(),
            "docs".into(),
            source.into(),
            source.into(),
            Stamp(at),
        )
    }

    #[test]
    fn what_was_remembered_is_known_the_last_mounted_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        assert!(state.known().unwrap().is_empty());
        state
            .volume(VolumeId([1; 16]))
            .remember(&record("/a", 1))
            .unwrap();
        state
            .volume(VolumeId([2; 16]))
            .remember(&record("/b", 2))
            .unwrap();
        state.volume(VolumeId([3; 16])).create().unwrap();
        let known = state.known().unwrap();
        assert_eq!(known.len(), 2);
        assert_eq!(known[0].record, record("/b", 2));
        assert_eq!(known[1].state.id(), VolumeId([1; 16]));
    }

    #[test]
    fn paths_that_are_no_text_survive() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path()).volume(VolumeId([1; 16]));
        let mut odd = record("/a", 1);
        odd.source = PathBuf::from(OsString::from_vec(vec![b'/', 0xff, b'\n']));
        state.remember(&odd).unwrap();
        assert_eq!(state.record().unwrap(), Some(odd));
    }

    #[test]
    fn the_session_is_added_to_what_is_remembered_and_alone_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path()).volume(VolumeId([1; 16]));
        let session = SessionId([5; 8]);
        state.remember_session(session).unwrap();
        assert_eq!(state.record().unwrap(), None);
        // As an earlier version wrote it.
        let before = record("/a", 1);
        state.remember(&before).unwrap();
        let path = state.dir().join("mount.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(",\n  \"session\": null", "")).unwrap();
        assert_eq!(state.record().unwrap(), Some(before));
        state.remember_session(session).unwrap();
        let text = state.record().unwrap().unwrap().session.unwrap();
        assert_eq!(SessionId::from_hex(&text), Some(session));
    }

    #[test]
    fn an_owner_stays_the_same_and_no_two_state_directories_have_one() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let volume = |dir: &tempfile::TempDir| State::new(dir.path()).volume(VolumeId([1; 16]));
        let owner = volume(&dir).owner("laptop").unwrap();
        assert_eq!(volume(&dir).owner("laptop-2.home").unwrap(), owner);
        assert!(owner.starts_with("laptop "), "{owner}");
        // The same path in two machines' state directories: only the random number differs.
        let id = |owner: &str| owner.split(' ').nth(1).map(str::to_owned);
        let second = volume(&other).owner("laptop").unwrap();
        assert_ne!(id(&second), id(&owner));
        // A file that a full disk left empty is no owner.
        std::fs::write(volume(&dir).dir().join(OWNER), "").unwrap();
        let third = volume(&dir).owner("laptop").unwrap();
        assert_ne!(third, owner);
        assert_eq!(volume(&dir).owner("laptop").unwrap(), third);
    }

    #[test]
    fn damaged_and_newer_records_are_errors_that_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path());
        let volume = state.volume(VolumeId([1; 16]));
        let mut newer = record("/a", 1);
        newer.version = RECORD_VERSION + 1;
        volume.remember(&newer).unwrap();
        assert!(state.known().unwrap_err().to_string().contains("newer"));
        std::fs::write(volume.dir().join("mount.json"), "{").unwrap();
        let damaged = state.known().unwrap_err().to_string();
        assert!(damaged.contains("mount.json"), "{damaged}");
    }
}
