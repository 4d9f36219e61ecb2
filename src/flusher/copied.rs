//! Blocks copied ahead of a commit that is yet to be captured, and which chunks lie in them: a log beside them in the spool.
//!
//! A first backup copies ahead for minutes or days. Should its process die meanwhile, no manifest names what it has made, and part of that is
//! in the store already. The next process reads the files again, as it must, and finds here that their chunks need not be made and sent
//! once more. That is safe because a chunk is known by its keyed content id, which is that of the bytes just read; where it lies is believed
//! only of records that are whole, of sessions that the new claim has adopted, and of blocks that the spool or the store has. The log is
//! never made durable: what it has lost is uploaded again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::flusher::error::Error;
use crate::flusher::manifest::SpooledObject;
use crate::flusher::spool::Spool;
use crate::format::entry::Place;
use crate::id::{BlockId, ContentId, ObjectKey, SessionId};
use crate::store::{LIST_LIMIT_MAX, Store};

/// The log's name. What begins with a dot is no object to readers of the spool.
const NAME: &str = ".copied";
/// The log while it is written anew; deleted as a leftover at the next start.
const TEMPORARY: &str = ".new.copied";
/// Bytes of the hash that proves a record to be whole.
const HASH_LEN: usize = 32;
/// The longest record: a block of the smallest chunks.
const RECORD_MAX: usize = 64 << 20;
/// Chunks that are looked for: some 50 MiB of memory, and two hundred gigabytes of large files. Beyond it they are made anew.
const CHUNKS_MAX: usize = 400_000;

/// A block, and what lies in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopiedBlock {
    /// Its object.
    pub(crate) object: SpooledObject,
    /// Whole chunks, and where they lie.
    pub(crate) chunks: Vec<(ContentId, Place)>,
}

impl CopiedBlock {
    /// `object`, of which the block `id` is made, with those of `placed` that lie in it.
    pub(crate) fn of(object: SpooledObject, id: BlockId, placed: &[(ContentId, Place)]) -> Self {
        let within = placed.iter().filter(|(_, place)| place.at.block == id);
        Self {
            object,
            chunks: within.cloned().collect(),
        }
    }

    /// Who has made it; `None` if nothing in it can be used.
    fn session(&self) -> Option<SessionId> {
        let (_, place) = self.chunks.first()?;
        Some(place.at.block.session)
    }

    fn encode(&self) -> Vec<u8> {
        let key = self.object.key.as_str().as_bytes();
        let mut body = self.object.len.to_le_bytes().to_vec();
        body.extend((key.len() as u32).to_le_bytes());
        body.extend(key);
        for (content, place) in &self.chunks {
            let place = place.encode();
            body.extend(content.0);
            body.extend((place.len() as u32).to_le_bytes());
            body.extend(place);
        }
        let mut record = (body.len() as u32).to_le_bytes().to_vec();
        record.extend(blake3::hash(&body).as_bytes());
        record.extend(body);
        record
    }

    fn decode(mut body: &[u8]) -> Option<Self> {
        let len = u64::from_le_bytes(take(&mut body, 8)?.try_into().ok()?);
        let key = take_counted(&mut body)?;
        let key = ObjectKey::new(std::str::from_utf8(key).ok()?);
        let mut chunks = Vec::new();
        while !body.is_empty() {
            let content = ContentId(take(&mut body, 16)?.try_into().ok()?);
            let place = Place::decode(take_counted(&mut body)?).ok()?;
            chunks.push((content, place));
        }
        let object = SpooledObject { key, len };
        Some(Self { object, chunks })
    }
}

/// The first whole record of `bytes`, and how long it is.
fn first_record(bytes: &[u8]) -> Option<(CopiedBlock, usize)> {
    let mut rest = bytes;
    let len = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?) as usize;
    let hash = take(&mut rest, HASH_LEN)?;
    let body = take(&mut rest, Some(len).filter(|&len| len <= RECORD_MAX)?)?;
    let is_whole = blake3::hash(body).as_bytes() == hash;
    let block = is_whole.then(|| CopiedBlock::decode(body)).flatten()?;
    Some((block, bytes.len() - rest.len()))
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(taken)
}

fn take_counted<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(take(from, 4)?.try_into().ok()?);
    take(from, len as usize)
}

/// The log.
#[derive(Debug)]
pub(crate) struct CopiedLog {
    path: PathBuf,
    /// Open for appending; `None` while there is nothing in it, and after it could not be written.
    file: Option<File>,
    broken: bool,
}

impl CopiedLog {
    /// Opens the log in `dir`, and what it holds. What stands behind its last whole record is cut off.
    pub(crate) fn open(dir: &Path) -> (Self, Vec<CopiedBlock>) {
        let mut log = Self {
            path: dir.join(NAME),
            file: None,
            broken: false,
        };
        let blocks = log.read();
        (log, blocks)
    }

    /// What it holds.
    pub(crate) fn read(&mut self) -> Vec<CopiedBlock> {
        // One that cannot be read is as good as none.
        let bytes = fs::read(&self.path).unwrap_or_default();
        let (mut blocks, mut at) = (Vec::new(), 0);
        while let Some((block, len)) = first_record(&bytes[at..]) {
            blocks.push(block);
            at += len;
        }
        if at < bytes.len() {
            self.replace_best_effort(&blocks);
        }
        blocks
    }

    /// The name of its file.
    pub(crate) fn file_name() -> &'static str {
        NAME
    }

    /// Adds a block. One that cannot be noted is uploaded again if this process dies.
    pub(crate) fn note_best_effort(&mut self, block: &CopiedBlock) {
        if self.broken {
            return;
        }
        let record = block.encode();
        let written = self.open_file().and_then(|file| file.write_all(&record));
        self.broken = written.is_err();
        if let Err(error) = written {
            tracing::info!(%error, "what is copied ahead is not noted any more");
        }
    }

    /// Makes it hold `blocks` and no others.
    pub(crate) fn replace_best_effort(&mut self, blocks: &[CopiedBlock]) {
        self.file = None;
        let temporary = self.path.with_file_name(TEMPORARY);
        let replaced = match blocks.is_empty() {
            true => fs::remove_file(&self.path),
            false => {
                let records: Vec<u8> = blocks.iter().flat_map(CopiedBlock::encode).collect();
                fs::write(&temporary, records).and_then(|()| fs::rename(&temporary, &self.path))
            }
        };
        match replaced {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::info!(%error, "what was copied ahead stays noted");
            }
            _ => self.broken = false,
        }
    }

    fn open_file(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::options().append(true).create(true).open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

/// What of an earlier life's copies can be used: blocks of sessions that `adopted` names, and that lie in the spool or in `store` with
/// their length. The others leave the spool. One LIST for each thousand blocks, none if there are none.
pub async fn find_copied(
    spool: &Spool,
    store: &Store,
    adopted: &[SessionId],
) -> Result<Vec<CopiedBlock>, Error> {
    let mut stored: HashMap<String, HashMap<ObjectKey, u64>> = HashMap::new();
    let mut found = Vec::new();
    for block in spool.copied() {
        let object = &block.object;
        let is_ours = block.session().is_some_and(|by| adopted.contains(&by));
        if !is_ours {
            spool.remove(object)?;
            continue;
        }
        let prefix = object.key.as_str().rsplit_once('/');
        let prefix = prefix.map_or("", |(prefix, _)| prefix).to_owned() + "/";
        let listed = match stored.entry(prefix) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let listed = list(store, unknown.key()).await?;
                unknown.insert(listed)
            }
        };
        let there = listed.get(&object.key);
        if there == Some(&object.len) {
            // Uploaded, and the process died before it was removed.
            spool.remove(object)?;
            found.push(block);
        } else if spool.holds(object) {
            found.push(block);
        }
    }
    Ok(found)
}

async fn list(store: &Store, prefix: &str) -> Result<HashMap<ObjectKey, u64>, Error> {
    let mut found = HashMap::new();
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_ref(), LIST_LIMIT_MAX).await?;
        after = page.objects.last().map(|(key, _)| key.clone());
        found.extend(page.objects);
        if !page.more || after.is_none() {
            return Ok(found);
        }
    }
}

/// What an earlier life has copied ahead, while there is anybody to look for it.
#[derive(Default)]
pub(crate) struct Copied {
    objects: Vec<(BlockId, SpooledObject)>,
    chunks: HashMap<ContentId, Place>,
    /// Blocks that the next commit points into.
    used: BTreeSet<BlockId>,
}

impl Copied {
    pub(crate) fn new(blocks: Vec<CopiedBlock>) -> Self {
        let mut copied = Self::default();
        for CopiedBlock { object, chunks } in blocks {
            let Some((_, place)) = chunks.first() else {
                continue;
            };
            copied.objects.push((place.at.block, object));
            let room = CHUNKS_MAX.saturating_sub(copied.chunks.len());
            copied.chunks.extend(chunks.into_iter().take(room));
        }
        copied
    }

    /// Where a chunk lies already. From then on its block is needed.
    pub(crate) fn find(&mut self, content: &ContentId) -> Option<Place> {
        let place = self.chunks.get(content)?;
        self.used.insert(place.at.block);
        Some(place.clone())
    }

    /// All blocks.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &SpooledObject> {
        self.objects.iter().map(|(_, object)| object)
    }

    /// Blocks that have come to be needed since an epoch was captured.
    pub(crate) fn used(&self) -> impl Iterator<Item = &SpooledObject> {
        let used = self.objects.iter().filter(|(id, _)| self.used.contains(id));
        used.map(|(_, object)| object)
    }

    /// A manifest names those now.
    pub(crate) fn captured(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.objects.retain(|(id, _)| !used.contains(id));
    }

    /// What no manifest has named, as the log has it.
    pub(crate) fn rest(&self) -> Vec<CopiedBlock> {
        let mut within: HashMap<BlockId, Vec<(ContentId, Place)>> = HashMap::new();
        for (content, place) in &self.chunks {
            let block = within.entry(place.at.block).or_default();
            block.push((*content, place.clone()));
        }
        let rest = self.objects.iter().map(|(id, object)| CopiedBlock {
            object: object.clone(),
            chunks: within.remove(id).unwrap_or_default(),
        });
        rest.collect()
    }
}

#[cfg(test)]
mod tests;
