//! The disk cache keeps its bound, survives restarts and deletion, and never troubles a reader.

use super::*;
use crate::id::{BlockClass, BlockId, FrameNo, SessionId, VolumeId};

fn key(frame: u32) -> FrameKey {
    FrameKey {
        volume: VolumeId([1; 16]),
        block: BlockId {
            key_epoch: 0,
            class: BlockClass::Data,
            session: SessionId([2; 8]),
            number: 3,
        },
        frame: FrameNo(frame),
    }
}

fn get(cache: &DiskCache, key: &FrameKey, len: u32) -> Option<Vec<u8>> {
    cache.get(key, len, &Buffers::new(1))
}

/// All entries and temporary files, with their lengths.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut out = Vec::new();
    for shard in fs::read_dir(dir.join("frames-v1")).unwrap() {
        for entry in fs::read_dir(shard.unwrap().path()).unwrap() {
            let entry = entry.unwrap();
            out.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    out
}

#[test]
fn entries_survive_a_restart_and_are_seen_by_other_processes() {
    let dir = tempfile::tempdir().unwrap();
    let one = DiskCache::open(dir.path(), 1 << 20).unwrap();
    let other = DiskCache::open(dir.path(), 1 << 20).unwrap();
    one.put_best_effort(&key(1), b"frame");
    assert_eq!(get(&other, &key(1), 5).as_deref(), Some(&b"frame"[..]));
    drop((one, other));
    let again = DiskCache::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(get(&again, &key(1), 5).as_deref(), Some(&b"frame"[..]));
    again.remove_best_effort(&key(1));
    assert_eq!(get(&again, &key(1), 5), None);
}

#[test]
fn an_entry_of_another_length_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    cache.put_best_effort(&key(1), b"frame");
    assert_eq!(get(&cache, &key(1), 4), None);
    assert_eq!(get(&cache, &key(1), 6), None);
    assert_eq!(get(&cache, &key(2), 5), None);
}

#[test]
fn the_bound_holds_and_the_unused_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let bytes_max = 1 << 20;
    let cache = DiskCache::open(dir.path(), bytes_max).unwrap();
    for n in 0..600 {
        cache.put_best_effort(&key(n), &[7; 4096]);
        // Makes every entry but the first few look old: what was put earlier was used earlier.
        let file = File::options()
            .write(true)
            .open(cache.path(&key(n)))
            .unwrap();
        let age = if n < 4 { 0 } else { 10_000 - u64::from(n) };
        let used = now() - Duration::from_secs(age);
        file.set_times(FileTimes::new().set_modified(used)).unwrap();
    }
    let total: u64 = files(dir.path()).iter().map(|(_, len)| len).sum();
    assert!(total <= bytes_max, "{total}");
    assert!(total > bytes_max / 2, "{total}");
    for n in 0..4 {
        assert!(
            get(&cache, &key(n), 4096).is_some(),
            "recently used {n} is gone"
        );
    }
    assert!(get(&cache, &key(4), 4096).is_none());
}

#[test]
fn a_smaller_bound_after_a_restart_is_kept_too() {
    let dir = tempfile::tempdir().unwrap();
    let large = DiskCache::open(dir.path(), 64 << 20).unwrap();
    for n in 0..300 {
        large.put_best_effort(&key(n), &[7; 4096]);
    }
    let small = DiskCache::open(dir.path(), 256 << 10).unwrap();
    for n in 300..600 {
        small.put_best_effort(&key(n), &[7; 4096]);
    }
    let total: u64 = files(dir.path()).iter().map(|(_, len)| len).sum();
    assert!(total <= 256 << 10, "{total}");
}

#[test]
fn deleting_the_directory_under_it_costs_entries_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    cache.put_best_effort(&key(1), b"frame");
    fs::remove_dir_all(dir.path().join("frames-v1")).unwrap();
    assert_eq!(get(&cache, &key(1), 5), None);
    cache.put_best_effort(&key(1), b"frame");
    assert!(get(&cache, &key(1), 5).is_some());
}

#[test]
fn a_disk_that_takes_nothing_stops_the_storing_and_not_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    // A file where the directory should be fails every write, for root as well.
    fs::remove_dir_all(dir.path().join("frames-v1")).unwrap();
    fs::write(dir.path().join("frames-v1"), b"").unwrap();
    cache.put_best_effort(&key(1), b"frame");
    assert_eq!(get(&cache, &key(1), 5), None);
    fs::remove_file(dir.path().join("frames-v1")).unwrap();
    for _ in 0..PAUSE_PUTS {
        cache.put_best_effort(&key(1), b"frame");
        assert_eq!(get(&cache, &key(1), 5), None, "still pausing");
    }
    cache.put_best_effort(&key(1), b"frame");
    assert!(get(&cache, &key(1), 5).is_some());
}

#[test]
fn temporary_files_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    let (dead, living) = (
        cache.shard_dir(0).join("00.tmp"),
        cache.shard_dir(0).join("01.tmp"),
    );
    fs::write(&dead, b"x").unwrap();
    fs::write(&living, b"x").unwrap();
    let old = now() - STALE_AFTER * 2;
    let file = File::options().write(true).open(&dead).unwrap();
    file.set_times(FileTimes::new().set_modified(old)).unwrap();
    cache.evict_best_effort(0);
    assert!(!dead.exists());
    assert!(living.exists());
}

#[test]
fn what_is_larger_than_a_shard_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 16 * 100).unwrap();
    cache.put_best_effort(&key(1), &[0; 101]);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn names_are_spread_and_say_nothing() {
    let names: Vec<_> = (0..1000).map(|n| name(&key(n))).collect();
    for shard in 0..SHARDS {
        let count = names.iter().filter(|name| shard_of(name) == shard).count();
        assert!((20..150).contains(&count), "{count} in shard {shard}");
    }
    assert!(
        names
            .iter()
            .all(|name| !name.contains(&key(0).block.session.to_string()))
    );
}
