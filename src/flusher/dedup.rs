//! Where a chunk was seen last: a local, bounded, losable hint from content id to (file, end of extent).
//!
//! It is a sparse file of fixed slots, read and written in place through the page cache, so it costs no memory, needs
//! no compaction and cannot grow: a new chunk evicts the oldest of its four neighbours. Nothing depends on it being
//! right. A hit counts only when the parent commit's tree proves that it still holds the chunk, so a torn, stale or
//! lost index costs a chunk uploaded again and nothing else; therefore it is never fsynced and its write errors only
//! switch it off.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::id::{ContentId, FileId};

/// Slots that share a bucket: enough that eviction is close to least-recently-added, few enough for one small read.
const WAYS: usize = 4;
/// content id 16, file id 8, end of the extent 8; an end of 0 marks an empty slot, since no extent ends there.
const SLOT_LEN: usize = 32;
const BUCKET_LEN: usize = WAYS * SLOT_LEN;
/// A million chunks, which at their average size is half a terabyte, in at most 32 MiB of disk.
const BUCKETS: u64 = 1 << 18;

/// Buckets read and written at once where many chunks are remembered: 16 KiB, for which one call costs little more than for one
/// bucket.
const TOGETHER: u64 = 128;

/// The open index.
pub(crate) struct DedupIndex {
    file: Option<File>,
    /// Made just now, and nothing is remembered yet: as long as a first backup runs, there is nothing to look for.
    empty: bool,
}

/// A chunk, and the file and the end of the extent that hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    /// The chunk.
    pub(crate) content: ContentId,
    /// The file.
    pub(crate) id: FileId,
    /// Where its extent ends in the file, in bytes.
    pub(crate) end: u64,
}

impl DedupIndex {
    /// Opens or creates the index in `dir`. One that cannot be opened is as good as an empty one.
    pub(crate) fn open_best_effort(dir: &Path) -> Self {
        let open = || {
            std::fs::create_dir_all(dir)?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(dir.join("dedup.index"))?;
            let empty = file.metadata()?.len() == 0;
            file.set_len(BUCKETS * BUCKET_LEN as u64)?;
            Ok::<_, io::Error>((file, empty))
        };
        let opened =
            open().inspect_err(|error| tracing::warn!(%error, "deduplication index unavailable"));
        let (file, empty) = opened.map_or((None, true), |(file, empty)| (Some(file), empty));
        Self { file, empty }
    }

    /// Where `content` was seen last, if the index still knows.
    pub(crate) fn find(&self, content: &ContentId) -> Option<(FileId, u64)> {
        if self.empty {
            return None;
        }
        let mut bucket = [0; BUCKET_LEN];
        let offset = number_of(content) * BUCKET_LEN as u64;
        self.file
            .as_ref()?
            .read_exact_at(&mut bucket, offset)
            .ok()?;
        bucket
            .chunks_exact(SLOT_LEN)
            .find(|slot| slot[..16] == content.0)
            .map(|slot| (FileId(number(&slot[16..24])), number(&slot[24..32])))
            .filter(|&(_, end)| end != 0)
    }

    /// Remembers where chunks are now; of two that are the same, the later one.
    pub(crate) fn remember_best_effort(&mut self, mut chunks: Vec<Seen>) {
        let Some(file) = &self.file else { return };
        // Stable, so that what was seen last is also remembered last.
        chunks.sort_by_key(|seen| number_of(&seen.content));
        let together = |a: &Seen, b: &Seen| {
            number_of(&a.content) / TOGETHER == number_of(&b.content) / TOGETHER
        };
        let was_empty = std::mem::take(&mut self.empty);
        for chunks in chunks.chunk_by(together) {
            if let Err(error) = remember(file, was_empty, chunks) {
                tracing::warn!(%error, "deduplication index switched off");
                self.file = None;
                return;
            }
        }
    }
}

/// Remembers chunks, sorted by bucket, of which the first's bucket and the last's are not far from each other. What was there need not
/// be read if it `was_empty`.
fn remember(file: &File, was_empty: bool, chunks: &[Seen]) -> io::Result<()> {
    let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
        return Ok(());
    };
    let first = number_of(&first.content);
    let count = number_of(&last.content) - first + 1;
    let mut buckets = vec![0; count as usize * BUCKET_LEN];
    let offset = first * BUCKET_LEN as u64;
    if !was_empty {
        file.read_exact_at(&mut buckets, offset)?;
    }
    for seen in chunks {
        let at = (number_of(&seen.content) - first) as usize * BUCKET_LEN;
        put(&mut buckets[at..at + BUCKET_LEN], seen);
    }
    file.write_all_at(&buckets, offset)
}

/// The newest comes first; its old place, or the oldest, falls out.
fn put(bucket: &mut [u8], seen: &Seen) {
    let old = bucket
        .chunks_exact(SLOT_LEN)
        .position(|slot| slot[..16] == seen.content.0)
        .unwrap_or(WAYS - 1);
    bucket.copy_within(..old * SLOT_LEN, SLOT_LEN);
    bucket[..16].copy_from_slice(&seen.content.0);
    bucket[16..24].copy_from_slice(&seen.id.0.to_le_bytes());
    bucket[24..32].copy_from_slice(&seen.end.to_le_bytes());
}

/// The bucket of a chunk: content ids are uniformly distributed, so their first bytes choose it as they are.
fn number_of(content: &ContentId) -> u64 {
    number(&content.0[..8]) % BUCKETS
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("callers pass eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(content: ContentId, id: u64, end: u64) -> Seen {
        let id = FileId(id);
        Seen { content, id, end }
    }

    fn content(bucket: u8, tail: u8) -> ContentId {
        let mut bytes = [0; 16];
        (bytes[0], bytes[15]) = (bucket, tail);
        ContentId(bytes)
    }

    #[test]
    fn finds_what_was_remembered_last_and_survives_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = DedupIndex::open_best_effort(dir.path());
        assert_eq!(index.find(&content(1, 1)), None);
        index.remember_best_effort(vec![seen(content(1, 1), 5, 100)]);
        index.remember_best_effort(vec![seen(content(1, 1), 6, 200)]);
        drop(index);
        let index = DedupIndex::open_best_effort(dir.path());
        assert_eq!(index.find(&content(1, 1)), Some((FileId(6), 200)));
        assert_eq!(index.find(&content(1, 2)), None);
    }

    #[test]
    fn many_at_once_are_found_like_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = DedupIndex::open_best_effort(dir.path());
        let chunk = |n: u64| {
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&hash.to_le_bytes());
            bytes[8..].copy_from_slice(&n.to_le_bytes());
            ContentId(bytes)
        };
        // Each twice: the later place counts.
        let places = (0..6000).map(|n| seen(chunk(n % 3000), n, n + 1));
        index.remember_best_effort(places.collect());
        for n in 0..3000 {
            let place = (FileId(n + 3000), n + 3001);
            assert_eq!(index.find(&chunk(n)), Some(place), "{n}");
        }
        assert_eq!(index.find(&chunk(3000)), None);
    }

    #[test]
    fn a_full_bucket_evicts_its_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = DedupIndex::open_best_effort(dir.path());
        let five = (1..=5).map(|n| seen(content(9, n), n.into(), 1));
        index.remember_best_effort(five.collect());
        assert_eq!(index.find(&content(9, 1)), None);
        for n in 2..=5 {
            assert_eq!(index.find(&content(9, n)), Some((FileId(n.into()), 1)));
        }
    }

    #[test]
    fn an_index_that_cannot_be_opened_is_an_empty_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut index = DedupIndex::open_best_effort(file.path());
        index.remember_best_effort(vec![seen(content(1, 1), 1, 1)]);
        assert_eq!(index.find(&content(1, 1)), None);
    }

    #[test]
    fn a_file_of_the_wrong_length_or_with_foreign_bytes_is_harmless() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("dedup.index"), [0xff; 77]).unwrap();
        let index = DedupIndex::open_best_effort(dir.path());
        assert_eq!(index.find(&content(0, 0)), None);
    }
}
