//! Where a chunk was seen last: a local, bounded, losable hint from content id to (file, end of extent).
//!
//! It is a sparse file of fixed slots, read and written in place through the page cache, so it costs no memory, needs
//! no compaction and cannot grow: a new chunk evicts the oldest of its four neighbours. Nothing depends on it being
//! right. A hit counts only when the parent commit's tree proves that it still holds the chunk, so a torn, stale or
//! lost index costs a chunk uploaded again and nothing else; therefore it is never fsynced and its write errors only
//! switch it off.

use std::fs::{File, OpenOptions};
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

/// The open index.
pub(crate) struct DedupIndex {
    file: Option<File>,
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
            file.set_len(BUCKETS * BUCKET_LEN as u64)?;
            Ok::<_, std::io::Error>(file)
        };
        let file = open()
            .inspect_err(|error| tracing::warn!(%error, "deduplication index unavailable"))
            .ok();
        Self { file }
    }

    /// Where `content` was seen last, if the index still knows.
    pub(crate) fn find(&self, content: &ContentId) -> Option<(FileId, u64)> {
        let bucket = self.bucket(content)?;
        bucket
            .chunks_exact(SLOT_LEN)
            .find(|slot| slot[..16] == content.0)
            .map(|slot| (FileId(number(&slot[16..24])), number(&slot[24..32])))
            .filter(|&(_, end)| end != 0)
    }

    /// Remembers that the extent of `id` that ends at `end` holds `content`.
    pub(crate) fn remember_best_effort(&mut self, content: &ContentId, id: FileId, end: u64) {
        let (Some(mut bucket), Some(file)) = (self.bucket(content), self.file.as_ref()) else {
            return;
        };
        // The newest comes first; its old place, or the oldest, falls out.
        let old = bucket
            .chunks_exact(SLOT_LEN)
            .position(|slot| slot[..16] == content.0)
            .unwrap_or(WAYS - 1);
        bucket.copy_within(..old * SLOT_LEN, SLOT_LEN);
        bucket[..16].copy_from_slice(&content.0);
        bucket[16..24].copy_from_slice(&id.0.to_le_bytes());
        bucket[24..32].copy_from_slice(&end.to_le_bytes());
        if let Err(error) = file.write_all_at(&bucket, offset(content)) {
            tracing::warn!(%error, "deduplication index switched off");
            self.file = None;
        }
    }

    fn bucket(&self, content: &ContentId) -> Option<[u8; BUCKET_LEN]> {
        let mut bucket = [0; BUCKET_LEN];
        let file = self.file.as_ref()?;
        file.read_exact_at(&mut bucket, offset(content)).ok()?;
        Some(bucket)
    }
}

/// Content ids are uniformly distributed, so their first bytes choose the bucket as they are.
fn offset(content: &ContentId) -> u64 {
    (number(&content.0[..8]) % BUCKETS) * BUCKET_LEN as u64
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("callers pass eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        index.remember_best_effort(&content(1, 1), FileId(5), 100);
        index.remember_best_effort(&content(1, 1), FileId(6), 200);
        drop(index);
        let index = DedupIndex::open_best_effort(dir.path());
        assert_eq!(index.find(&content(1, 1)), Some((FileId(6), 200)));
        assert_eq!(index.find(&content(1, 2)), None);
    }

    #[test]
    fn a_full_bucket_evicts_its_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = DedupIndex::open_best_effort(dir.path());
        for n in 1..=5 {
            index.remember_best_effort(&content(9, n), FileId(n.into()), 1);
        }
        assert_eq!(index.find(&content(9, 1)), None);
        for n in 2..=5 {
            assert_eq!(index.find(&content(9, n)), Some((FileId(n.into()), 1)));
        }
    }

    #[test]
    fn an_index_that_cannot_be_opened_is_an_empty_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut index = DedupIndex::open_best_effort(file.path());
        index.remember_best_effort(&content(1, 1), FileId(1), 1);
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
