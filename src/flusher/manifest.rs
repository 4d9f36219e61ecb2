//! The manifest of a captured epoch: which objects of the spool go to the store, and in which order.
//!
//! Once a manifest is durable its epoch is CAPTURED: it is never folded, its commit's name and tag are final, and a
//! restart goes on uploading it. It is a small JSON file holding nothing that object names do not already tell the store.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::Stamp;
use crate::failpoint::{self, Point};
use crate::flusher::error::Error;
use crate::flusher::spool::Spool;
use crate::format::entry::CommitName;
use crate::id::{Era, ObjectKey, Seq, SessionId, Tag};

/// Manifests begin with this and end with [`SUFFIX`]. What begins with a dot is no object to readers of the spool.
const PREFIX: &str = ".manifest.";
const SUFFIX: &str = ".json";
/// A manifest under construction; deleted as a leftover at the next start.
const TEMPORARY: &str = ".new.manifest";

/// A finished object in the spool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SpooledObject {
    /// Its name in the store.
    #[serde(with = "key_text")]
    pub key: ObjectKey,
    /// Its length in bytes.
    pub len: u64,
}

/// A commit's name and tag in a form that serde knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SpooledName {
    /// Era.
    pub era: u32,
    /// Stamp in milliseconds.
    pub stamp: u64,
    /// Sequence number.
    pub seq: u64,
    /// Session, hexadecimal.
    pub session: String,
    /// Tag of the commit's first frame, hexadecimal.
    pub tag: String,
}

/// A captured epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The commit.
    pub name: SpooledName,
    /// The commit before it; `None` for a volume's first.
    pub previous: Option<SpooledName>,
    /// Everything it needs in the order of upload: data blocks, tree blocks, the commit itself last.
    pub objects: Vec<SpooledObject>,
    /// Wall clock at the seal in milliseconds, from which its lag counts.
    pub wall: u64,
    /// The epoch in this process up to which the journal may forget once this is published; `None` if it must not, since the
    /// commit is incomplete. Not written, since epochs are numbered anew in the next process.
    #[serde(skip)]
    pub epoch: Option<u64>,
}

impl SpooledName {
    /// From a commit's name and tag.
    pub fn new(name: &CommitName, tag: &Tag) -> Self {
        Self {
            era: name.era.0,
            stamp: name.stamp.0,
            seq: name.seq.0,
            session: name.session.to_string(),
            tag: tag.to_string(),
        }
    }

    /// The name and tag; `None` if the text is none.
    pub fn parse(&self) -> Option<(CommitName, Tag)> {
        let name = CommitName {
            era: Era(self.era),
            stamp: Stamp(self.stamp),
            seq: Seq(self.seq),
            session: SessionId::from_hex(&self.session)?,
        };
        Some((name, Tag::from_hex(&self.tag)?))
    }
}

impl Manifest {
    /// The commit's own object.
    pub fn commit(&self) -> &SpooledObject {
        self.objects.last().expect("checked when read or made")
    }

    /// Its file's name; sequence numbers are fixed-width, so that names sort as commits do.
    pub fn file_name(&self) -> String {
        format!("{PREFIX}{:016x}{SUFFIX}", self.name.seq)
    }

    /// Writes it aside, durably, so that nothing is left to be done that needs space.
    pub(crate) fn prepare(&self, spool: &Spool) -> Result<Prepared, Error> {
        let path = spool.dir().join(TEMPORARY);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()
        };
        write().map_err(|source| Error::Spool {
            doing: "write",
            path: path.clone(),
            source,
        })?;
        spool.sync_dir()?;
        Ok(Prepared {
            name: self.file_name(),
            commit: self.commit().key.clone(),
        })
    }

    /// Removes the objects and then the manifest: everything is in the store.
    pub(crate) fn remove(&self, spool: &Spool) -> Result<(), Error> {
        for object in &self.objects {
            spool.remove(object)?;
        }
        failpoint::reach(Point::SpoolRemove);
        let path = spool.dir().join(self.file_name());
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Spool {
                doing: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// All manifests of a directory, oldest first.
    pub(crate) fn read_all(dir: &Path) -> Result<Vec<Self>, Error> {
        let failed = |source| Error::Spool {
            doing: "list",
            path: dir.to_owned(),
            source,
        };
        let mut manifests = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let is_manifest = |n: &str| n.starts_with(PREFIX) && n.ends_with(SUFFIX);
            if name.to_str().is_some_and(is_manifest) {
                manifests.push(Self::read(&dir.join(&name))?);
            }
        }
        manifests.sort_by_key(|m| m.name.seq);
        Ok(manifests)
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|source| Error::Spool {
            doing: "read",
            path: path.to_owned(),
            source,
        })?;
        let unusable = |why: String| Error::Unusable {
            path: path.to_owned(),
            why,
        };
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        let named = manifest.name.parse().is_some()
            && manifest.previous.iter().all(|p| p.parse().is_some());
        if !named || manifest.objects.is_empty() {
            return Err(unusable("it names no commit".to_owned()));
        }
        Ok(manifest)
    }
}

/// A manifest that is durable but for its name. Should it be given up, the next one takes its place.
pub(crate) struct Prepared {
    name: String,
    commit: ObjectKey,
}

impl Prepared {
    /// Makes the epoch CAPTURED and lets its commit be seen. May be repeated if it fails.
    pub(crate) fn publish(&self, spool: &Spool) -> Result<(), Error> {
        let (temporary, path) = (spool.dir().join(TEMPORARY), spool.dir().join(&self.name));
        spool.show(&self.commit)?;
        failpoint::reach(Point::ManifestShown);
        match fs::rename(&temporary, &path) {
            Err(source) if temporary.exists() => Err(Error::Spool {
                doing: "rename",
                path: temporary,
                source,
            }),
            _ => spool.sync_dir(),
        }
    }
}

/// What is to be done with the manifests that a restart finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resume {
    /// Those before `from` are in the store already and may be removed; the rest goes on uploading. The last one is
    /// the base of what comes.
    Continue {
        /// Index of the first that the store does not have.
        from: usize,
    },
    /// Their parent is no longer the head: another writer went on in between. Set them aside and reconcile.
    Foreign,
}

/// Decides what to do with `manifests` (oldest first) when the store's head is `head`.
pub fn resume(manifests: &[Manifest], head: Option<(CommitName, Tag)>) -> Resume {
    let head = head.map(|(name, tag)| SpooledName::new(&name, &tag));
    let linked = manifests
        .windows(2)
        .all(|pair| pair[1].previous.as_ref() == Some(&pair[0].name));
    if !linked {
        return Resume::Foreign;
    }
    match manifests.first() {
        None => Resume::Continue { from: 0 },
        Some(first) if first.previous == head => Resume::Continue { from: 0 },
        Some(_) => match manifests
            .iter()
            .position(|m| Some(&m.name) == head.as_ref())
        {
            Some(published) => Resume::Continue {
                from: published + 1,
            },
            None => Resume::Foreign,
        },
    }
}

/// Tags of the commits that the store's newest may be while `manifests` wait: each of them, and those they follow.
pub fn heads<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Vec<Tag> {
    let named = |manifest: &'a Manifest| manifest.previous.iter().chain([&manifest.name]);
    let tags = |name: &SpooledName| name.parse().map(|(_, tag)| tag);
    manifests
        .into_iter()
        .flat_map(named)
        .filter_map(tags)
        .collect()
}

mod key_text {
    //! An object's key as text.
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::id::ObjectKey;

    pub(super) fn serialize<S: Serializer>(key: &ObjectKey, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(key.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectKey, D::Error> {
        String::deserialize(from).map(ObjectKey::new)
    }
}

#[cfg(test)]
mod tests;
