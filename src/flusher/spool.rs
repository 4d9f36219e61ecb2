//! The spool: finished, encrypted objects on the local disk that wait for upload.
//!
//! An object lies in one file named after its key ([`overlay::file_name`](crate::store::overlay::file_name)), written progressively: header, frames as they are
//! encrypted, then directory and trailer. Files that neither a manifest nor the log of what was copied ahead (`copied.rs`) names are
//! leftovers of an epoch that never became CAPTURED; [`Spool::open`] deletes them. Only [`Ciphertext`] is accepted, so plaintext cannot get here by mistake.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::crypto::{BlockCipher, Ciphertext};
use crate::failpoint::{self, Point};
use crate::flusher::bulk_file::BulkFile;
use crate::flusher::copied::{CopiedBlock, CopiedLog};
use crate::flusher::error::Error;
use crate::flusher::manifest::{Manifest, SpooledObject};
use crate::format::block::{BlockLayout, FramePlace, HEADER_LEN};
use crate::format::frame::{Envelope, FrameKind};
use crate::id::{BlockId, ObjectKey};
use crate::store::overlay::file_name;

/// A file that is not whole, or that no manifest names yet, has this before its name: whoever reads objects out of the spool
/// ([`crate::store::overlay`]) does not see it.
const HIDDEN: &str = ".new.";

/// The directory, and how many bytes lie in it.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    used: AtomicU64,
    log: Mutex<CopiedLog>,
    /// What manifests named when it was opened. The log may still have it as copied ahead: the process may have died in between.
    captured: HashSet<ObjectKey>,
}

impl Spool {
    /// Opens or creates the spool in `dir`: returns what it still holds for the store, oldest first. Files that belong
    /// to no manifest are deleted; a manifest that cannot be read is an error, since what it names may be owed.
    pub fn open(dir: &Path) -> Result<(Arc<Self>, Vec<Manifest>), Error> {
        fs::create_dir_all(dir).map_err(|source| Error::Spool {
            doing: "create",
            path: dir.to_owned(),
            source,
        })?;
        let manifests = Manifest::read_all(dir)?;
        let (log, copied) = CopiedLog::open(dir);
        let named = manifests.iter().flat_map(|manifest| &manifest.objects);
        let spool = Self {
            dir: dir.to_owned(),
            used: AtomicU64::new(0),
            log: Mutex::new(log),
            captured: named.clone().map(|object| object.key.clone()).collect(),
        };
        let copied = copied.iter().map(|block| &block.object);
        let named: Vec<&SpooledObject> = named.chain(copied).collect();
        spool.delete_leftovers(&manifests, &named)?;
        spool
            .used
            .store(spool.bytes_there(&named), Ordering::Relaxed);
        Ok((Arc::new(spool), manifests))
    }

    /// Bytes of those objects that lie here: blocks copied ahead of their commit may have been uploaded and removed before it.
    fn bytes_there(&self, named: &[&SpooledObject]) -> u64 {
        let objects: HashMap<PathBuf, u64> = named
            .iter()
            .map(|object| (self.path(&object.key), object.len))
            .collect();
        let there = objects.into_iter().filter(|(path, _)| path.exists());
        there.map(|(_, len)| len).sum()
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of finished objects in it.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The file that holds `key`, whether or not it is there.
    pub fn path(&self, key: &ObjectKey) -> PathBuf {
        self.dir.join(file_name(key))
    }

    fn hidden_path(&self, key: &ObjectKey) -> PathBuf {
        self.dir.join(format!("{HIDDEN}{}", file_name(key)))
    }

    /// Blocks that an earlier process has copied ahead and no manifest names, as far as is known. To be asked before this one copies any.
    pub(crate) fn copied(&self) -> Vec<CopiedBlock> {
        let mut copied = self.log.lock().read();
        copied.retain(|block| !self.captured.contains(&block.object.key));
        copied
    }

    /// Whether it has this object, whole.
    pub(crate) fn holds(&self, object: &SpooledObject) -> bool {
        let there = fs::metadata(self.path(&object.key));
        there.is_ok_and(|there| there.len() == object.len)
    }

    /// A block is copied ahead: should this process die before a manifest names it, the next one finds its chunks.
    pub(crate) fn note_copied_best_effort(&self, block: &CopiedBlock) {
        self.log.lock().note_best_effort(block);
    }

    /// Of all that was copied ahead nothing but `blocks` has no manifest now.
    pub(crate) fn keep_copied_best_effort(&self, blocks: &[CopiedBlock]) {
        self.log.lock().replace_best_effort(blocks);
    }

    /// Lets an object be seen that was hidden. Doing it again is no error.
    pub(crate) fn show(&self, key: &ObjectKey) -> Result<(), Error> {
        let (hidden, path) = (self.hidden_path(key), self.path(key));
        match fs::rename(&hidden, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => Ok(()),
            Err(source) => Err(self.failed("rename", &hidden, source)),
            Ok(()) => Ok(()),
        }
    }

    /// Makes names in the directory durable.
    pub(crate) fn sync_dir(&self) -> Result<(), Error> {
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| self.failed("fsync", &self.dir, source))
    }

    /// Removes an object that is in the store, or that nothing names. Success if it was gone already.
    pub(crate) fn remove(&self, object: &SpooledObject) -> Result<(), Error> {
        for path in [self.path(&object.key), self.hidden_path(&object.key)] {
            match fs::remove_file(&path) {
                Ok(()) => {
                    self.used.fetch_sub(object.len, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(self.failed("remove", &path, source)),
            }
        }
        Ok(())
    }

    /// Moves everything that `manifests` name into a directory of its own beside the others and returns that: a writer
    /// that was replaced must not publish them, and nobody's data is thrown away unasked. May be repeated if it fails.
    pub fn set_aside(&self, manifests: &[Manifest]) -> Result<PathBuf, Error> {
        let seq = manifests.first().map_or(0, |m| m.name.seq);
        let aside = self.dir.join(format!("aside-{seq}"));
        fs::create_dir_all(&aside).map_err(|source| self.failed("create", &aside, source))?;
        for manifest in manifests {
            for object in &manifest.objects {
                let name = file_name(&object.key);
                match fs::rename(self.dir.join(&name), aside.join(&name)) {
                    Ok(()) => {
                        self.used.fetch_sub(object.len, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(self.failed("set aside", &aside, source)),
                }
            }
            let name = manifest.file_name();
            match fs::rename(self.dir.join(&name), aside.join(&name)) {
                // Moved before something else failed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                moved => moved.map_err(|source| self.failed("set aside", &aside, source))?,
            }
        }
        Ok(aside)
    }

    fn delete_leftovers(
        &self,
        manifests: &[Manifest],
        named: &[&SpooledObject],
    ) -> Result<(), Error> {
        let mut named: HashSet<String> = named.iter().map(|o| file_name(&o.key)).collect();
        named.insert(CopiedLog::file_name().to_owned());
        named.extend(manifests.iter().map(Manifest::file_name));
        let failed = |source| self.failed("list", &self.dir, source);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let is_file = entry.file_type().map_err(failed)?.is_file();
            if is_file && name.to_str().is_none_or(|name| !named.contains(name)) {
                fs::remove_file(entry.path())
                    .map_err(|source| self.failed("remove", &entry.path(), source))?;
            }
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_owned();
        Error::Spool {
            doing,
            path,
            source,
        }
    }
}

/// What a block cost and saved: the numerators and denominators of the ratios C and E.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameBytes {
    /// Plaintext.
    pub plain: u64,
    /// After compression.
    pub compressed: u64,
    /// After encryption.
    pub encrypted: u64,
}

impl FrameBytes {
    /// Those of one frame, which must be asked before encryption consumes the envelope.
    pub(crate) fn of(envelope: &Envelope) -> Self {
        Self {
            plain: envelope.plain_len() as u64,
            compressed: envelope.stored_len() as u64,
            encrypted: u64::from(envelope.encrypted_len()),
        }
    }
}

impl std::ops::AddAssign for FrameBytes {
    fn add_assign(&mut self, other: Self) {
        self.plain += other.plain;
        self.compressed += other.compressed;
        self.encrypted += other.encrypted;
    }
}

/// A block that is being written. Dropped unfinished, its file is removed.
pub(crate) struct BlockFile {
    spool: Arc<Spool>,
    id: BlockId,
    key: ObjectKey,
    /// Present until finished.
    file: Option<BulkFile>,
    layout: Option<BlockLayout>,
    places: Vec<FramePlace>,
    bytes: FrameBytes,
    header: Option<[u8; HEADER_LEN as usize]>,
    header_written: bool,
    finished: bool,
}

/// A whole block in the spool, not yet synced.
pub(crate) struct SpooledBlock {
    /// Its name.
    pub(crate) id: BlockId,
    /// Its object.
    pub(crate) object: SpooledObject,
    /// Where its frames lie, by frame number.
    pub(crate) places: Vec<FramePlace>,
    /// What its frames hold.
    pub(crate) bytes: FrameBytes,
    /// Its file, to be synced.
    file: Option<File>,
    spool: Arc<Spool>,
    /// Whether something names it that will be published, so that it must outlive this value.
    kept: bool,
}

impl SpooledBlock {
    /// Makes its contents durable (its name needs [`Spool::sync_dir`]).
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        failpoint::reach(Point::SpoolBlock);
        let path = self.spool.hidden_path(&self.object.key);
        file.sync_data()
            .map_err(|source| self.spool.failed("fdatasync", &path, source))
    }

    /// Lets readers of the spool see it: anything but a commit may be seen as soon as it is whole.
    pub(crate) fn show(&self) -> Result<(), Error> {
        self.spool.show(&self.object.key)
    }

    /// From now on the file stays until it is uploaded: returns the object, to be put on its way, unless it was kept before.
    pub(crate) fn keep(&mut self) -> Option<SpooledObject> {
        let fresh = !std::mem::replace(&mut self.kept, true);
        fresh.then(|| self.object.clone())
    }
}

impl Drop for SpooledBlock {
    /// A block of an epoch that was folded is of no use. If removing it fails, the next start deletes it as a leftover.
    fn drop(&mut self) {
        if !self.kept && self.spool.remove(&self.object).is_err() {
            tracing::debug!(object = %self.object.key, "left for the next start to delete");
        }
    }
}

impl BlockFile {
    /// Begins the block `id` as the object `key`.
    pub(crate) fn create(spool: &Arc<Spool>, id: BlockId, key: ObjectKey) -> Result<Self, Error> {
        let path = spool.hidden_path(&key);
        let file =
            BulkFile::create(&path).map_err(|source| spool.failed("create", &path, source))?;
        Ok(Self {
            spool: Arc::clone(spool),
            id,
            key,
            file: Some(file),
            layout: Some(BlockLayout::new(id)),
            places: Vec::new(),
            bytes: FrameBytes::default(),
            header: None,
            header_written: false,
            finished: false,
        })
    }

    /// The block's name.
    pub(crate) fn id(&self) -> BlockId {
        self.id
    }

    /// Hands out the place of the next frame; its ciphertext must follow by [`Self::write`], in the same order.
    pub(crate) fn reserve(&mut self, kind: FrameKind, frame: FrameBytes) -> FramePlace {
        self.bytes += frame;
        let layout = self.layout.as_mut().expect("present until finished");
        let place = layout.add_lengths(kind, frame.plain as usize, frame.encrypted as u32);
        debug_assert!(place.offset >= HEADER_LEN && u64::from(place.len) == frame.encrypted);
        self.places.push(place);
        if self.header.is_none() {
            // The header holds the first frame's length.
            self.header = Some(layout.header());
        }
        place
    }

    /// Writes the next reserved frame.
    pub(crate) fn write(&mut self, frame: &Ciphertext) -> Result<(), Error> {
        self.write_header_once()?;
        self.write_all(frame.bytes())?;
        failpoint::reach(Point::SpoolFrame);
        Ok(())
    }

    /// Frames so far.
    pub(crate) fn frames(&self) -> u32 {
        self.places.len() as u32
    }

    /// Plaintext bytes so far.
    pub(crate) fn plain_len(&self) -> u64 {
        self.bytes.plain
    }

    /// Writes padding, directory and trailer.
    pub(crate) fn finish(mut self, cipher: &BlockCipher) -> Result<SpooledBlock, Error> {
        let layout = self.layout.take().expect("taken only here");
        let end = layout.finish(|frame, envelope| {
            cipher
                .encrypt(frame, FrameKind::Directory, None, vec![envelope])
                .pop()
                .expect("one envelope in, one ciphertext out")
        });
        self.write_all(&end)?;
        let spool = Arc::clone(&self.spool);
        let path = spool.hidden_path(&self.key);
        let file = self.file.take().expect("taken only here");
        let finished = file.finish();
        let (file, len) = finished.map_err(|source| spool.failed("write", &path, source))?;
        self.finished = true;
        spool.used.fetch_add(len, Ordering::Relaxed);
        Ok(SpooledBlock {
            id: self.id,
            object: SpooledObject {
                key: self.key.clone(),
                len,
            },
            places: std::mem::take(&mut self.places),
            bytes: self.bytes,
            file: Some(file),
            spool,
            kept: false,
        })
    }

    fn write_header_once(&mut self) -> Result<(), Error> {
        match (self.header_written, self.header) {
            (false, Some(header)) => {
                self.header_written = true;
                self.write_all(&header)
            }
            _ => Ok(()),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let file = self.file.as_mut().expect("present until finished");
        file.write_all(bytes).map_err(|source| {
            self.spool
                .failed("write", &self.spool.hidden_path(&self.key), source)
        })
    }
}

impl Drop for BlockFile {
    /// An unfinished block is of no use to anybody. If removing it fails, the next start deletes it as a leftover.
    fn drop(&mut self) {
        if !self.finished && fs::remove_file(self.spool.hidden_path(&self.key)).is_err() {
            tracing::debug!(object = %self.key, "left for the next start to delete");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::flusher::SpooledName;
    use crate::format::entry::CommitName;
    use crate::id::{Era, Seq, SessionId, Tag};

    fn object(name: &str, len: u64) -> SpooledObject {
        SpooledObject {
            key: ObjectKey::new(name.to_owned()),
            len,
        }
    }

    fn manifest(seq: u64, objects: Vec<SpooledObject>) -> Manifest {
        let name = CommitName {
            era: Era(0),
            stamp: Stamp(1),
            seq: Seq(seq),
            session: SessionId([7; 8]),
        };
        Manifest {
            name: SpooledName::new(&name, &Tag(Default::default())),
            previous: None,
            objects,
            wall: 0,
            epoch: None,
        }
    }

    #[test]
    fn setting_aside_goes_on_where_it_failed() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(dir.path()).unwrap();
        let (first, second) = (object("v/1/c/first", 5), object("v/1/c/second", 6));
        let manifests = [(1, first), (2, second)].map(|(seq, object)| {
            fs::write(spool.hidden_path(&object.key), b"bytes").unwrap();
            let manifest = manifest(seq, vec![object]);
            manifest.prepare(&spool).unwrap().publish(&spool).unwrap();
            manifest
        });
        // A directory in the way of the second.
        let way = dir.path().join("aside-1").join(manifests[1].file_name());
        fs::create_dir_all(&way).unwrap();
        assert!(spool.set_aside(&manifests).is_err());
        fs::remove_dir(&way).unwrap();
        let aside = spool.set_aside(&manifests).unwrap();
        for manifest in &manifests {
            assert!(aside.join(manifest.file_name()).exists());
            assert!(aside.join(file_name(&manifest.objects[0].key)).exists());
        }
        assert!(Spool::open(dir.path()).unwrap().1.is_empty());
    }

    #[test]
    fn what_was_uploaded_ahead_of_its_commit_takes_no_room_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, there) = (object("v/1/d/gone", 1 << 40), object("v/1/c/there", 5));
        let manifest = manifest(1, vec![gone, there.clone()]);
        let (spool, _) = Spool::open(dir.path()).unwrap();
        fs::write(spool.hidden_path(&there.key), b"bytes").unwrap();
        manifest.prepare(&spool).unwrap().publish(&spool).unwrap();

        let (spool, manifests) = Spool::open(dir.path()).unwrap();
        assert_eq!((manifests.len(), spool.used_bytes()), (1, 5));
        manifests[0].remove(&spool).unwrap();
        assert_eq!(spool.used_bytes(), 0);
    }
}
