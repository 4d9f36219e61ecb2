//! The newest commits that this machine has seen, in the state directory beside what is remembered of live mounts: one small file for each
//! volume, with an entry for each place where that volume was looked at (a copy of a repository elsewhere may rightly be older).
//!
//! It need not survive a power cut: what is forgotten is only not missed. Handed to [`crate::repo`] by whoever opens a repository.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::state::State;
use crate::clock::Stamp;
use crate::format::entry::CommitName;
use crate::id::{Era, Seq, SessionId, Tag, VolumeId};
use crate::repo::seen::{Seen, Witness};

/// The longest file that is read: thousands of places.
const LEN_MAX: u64 = 1 << 20;

/// What this machine has seen in one place.
pub struct SeenHere {
    state: State,
    place: String,
}

/// The file: by place.
#[derive(Default, Serialize, Deserialize)]
struct Places(BTreeMap<String, Mark>);

#[derive(Serialize, Deserialize)]
struct Mark {
    era: u32,
    stamp: u64,
    seq: u64,
    session: String,
    tag: String,
}

impl SeenHere {
    /// What `state` remembers of the repository at `place`, as it is named on a command line.
    pub fn new(state: State, place: String) -> Self {
        Self { state, place }
    }

    fn path(&self, volume: VolumeId) -> PathBuf {
        self.state.volume(volume).dir().join("seen.json")
    }

    fn write(&self, volume: VolumeId, seen: &Seen) -> Result<(), Box<dyn std::error::Error>> {
        let path = self.path(volume);
        // What cannot be read is worth no more than nothing.
        let mut places = read(&path).ok().flatten().unwrap_or_default();
        places.0.insert(self.place.clone(), Mark::from(seen));
        self.state.volume(volume).create()?;
        // Another process may write at the same time: each has a file of its own until it is whole.
        let temporary = path.with_extension(format!("json.new.{}", std::process::id()));
        std::fs::write(&temporary, serde_json::to_vec(&places)?)?;
        Ok(std::fs::rename(&temporary, &path)?)
    }
}

impl Witness for SeenHere {
    fn newest(&self, volume: VolumeId) -> Option<Seen> {
        let path = self.path(volume);
        match read(&path) {
            Ok(places) => places?.0.get(&self.place)?.seen(),
            Err(why) => {
                tracing::warn!("{} is not used: {why}", path.display());
                None
            }
        }
    }

    fn note_best_effort(&self, volume: VolumeId, seen: &Seen) {
        if let Err(why) = self.write(volume, seen) {
            let path = self.path(volume);
            tracing::warn!("{} could not be written: {why}", path.display());
        }
    }

    fn how_to_forget(&self, volume: VolumeId) -> String {
        format!("delete {}", self.path(volume).display())
    }
}

impl From<&Seen> for Mark {
    fn from(seen: &Seen) -> Self {
        Self {
            era: seen.name.era.0,
            stamp: seen.name.stamp.0,
            seq: seen.name.seq.0,
            session: seen.name.session.to_string(),
            tag: seen.tag.to_string(),
        }
    }
}

impl Mark {
    /// `None` if the ids are none.
    fn seen(&self) -> Option<Seen> {
        Some(Seen {
            name: CommitName {
                era: Era(self.era),
                stamp: Stamp(self.stamp),
                seq: Seq(self.seq),
                session: SessionId::from_hex(&self.session)?,
            },
            tag: Tag::from_hex(&self.tag)?,
        })
    }
}

/// `None` if there is no such file.
fn read(path: &Path) -> io::Result<Option<Places>> {
    let text = match File::open(path) {
        Ok(file) => io::read_to_string(io::Read::take(file, LEN_MAX))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(serde_json::from_str(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seq: u64) -> Seen {
        Seen {
            name: CommitName {
                era: Era(1),
                stamp: Stamp(2),
                seq: Seq(seq),
                session: SessionId([4; 8]),
            },
            tag: Tag([5; 32]),
        }
    }

    #[test]
    fn each_place_and_volume_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |place: &str| SeenHere::new(State::new(dir.path()), place.to_owned());
        let (one, other) = (VolumeId([1; 16]), VolumeId([2; 16]));
        assert_eq!(at("/a").newest(one), None);
        at("/a").note_best_effort(one, &seen(7));
        at("/b").note_best_effort(one, &seen(3));
        at("/a").note_best_effort(one, &seen(8));
        assert_eq!(at("/a").newest(one), Some(seen(8)));
        assert_eq!(at("/b").newest(one), Some(seen(3)));
        assert_eq!(at("/a").newest(other), None);
        assert!(State::new(dir.path()).known().unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_nothing_and_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let here = SeenHere::new(State::new(dir.path()), "/a".to_owned());
        let volume = VolumeId([1; 16]);
        here.note_best_effort(volume, &seen(7));
        std::fs::write(here.path(volume), "{").unwrap();
        assert_eq!(here.newest(volume), None);
        here.note_best_effort(volume, &seen(8));
        assert_eq!(here.newest(volume), Some(seen(8)));
    }
}
