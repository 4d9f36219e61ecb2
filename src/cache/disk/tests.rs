//! The disk cache keeps its bound, survives restarts and deletion, and never troubles a reader.

use std::fs::FileTimes;

use super::*;
use crate::id::{BlockClass, BlockId, SessionId, VolumeId};

fn key(block: u32) -> BlockKey {
    BlockKey {
        volume: VolumeId([1; 16]),
        block: BlockId {
            key_epoch: 0,
            class: BlockClass::Data,
            session: SessionId([2; 8]),
            number: block,
        },
    }
}

fn whole(offset: u64, len: usize) -> Spot {
    Spot {
        offset,
        form: Form::Whole,
        len: u32::try_from(len).unwrap(),
    }
}

fn put(cache: &DiskCache, block: u32, offset: u64, frame: &[u8]) {
    cache.put_best_effort(&key(block), &whole(offset, frame.len()), frame);
}

fn get(cache: &DiskCache, block: u32, offset: u64, len: usize) -> Option<Vec<u8>> {
    cache.get(&key(block), &whole(offset, len), &Buffers::new(1))
}

/// What all blocks take up.
fn bytes(dir: &Path) -> u64 {
    scan(&dir.join(DIR)).iter().map(|entry| entry.bytes).sum()
}

#[test]
fn frames_survive_a_restart_and_are_seen_by_other_processes() {
    let dir = tempfile::tempdir().unwrap();
    let one = DiskCache::open(dir.path(), 1 << 20).unwrap();
    let other = DiskCache::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(get(&other, 1, 90, 5), None);
    put(&one, 1, 90, b"frame");
    assert_eq!(get(&other, 1, 90, 5).as_deref(), Some(&b"frame"[..]));
    drop((one, other));
    let again = DiskCache::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(get(&again, 1, 90, 5).as_deref(), Some(&b"frame"[..]));
    again.remove_best_effort(&key(1), &whole(90, 5));
    assert_eq!(get(&again, 1, 90, 5), None);
}

#[test]
fn frames_lie_side_by_side_and_what_lies_between_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 16 << 20).unwrap();
    let (small, large) = ([1; 100], vec![2; 70_000]);
    put(&cache, 1, 100, &small);
    put(&cache, 1, 300, &small);
    put(&cache, 1, 1 << 20, &large);
    for (offset, there) in [
        (0, false),
        (100, true),
        (200, false),
        (300, true),
        (400, false),
    ] {
        let spot = whole(offset, 100);
        assert_eq!(cache.has(&key(1), &spot), there, "{offset}");
        let expected = there.then(|| small.to_vec());
        assert_eq!(get(&cache, 1, offset, 100), expected, "{offset}");
    }
    assert_eq!(get(&cache, 1, 1 << 20, 70_000), Some(large.clone()));
    assert_eq!(get(&cache, 1, (1 << 20) + 70_000, 1), None);
    assert_eq!(get(&cache, 2, 100, 100), None);
    // Cut, the same frame is something else.
    let cut = Spot {
        form: Form::Cut,
        ..whole(1 << 20, 70_000)
    };
    assert_eq!(cache.get(&key(1), &cut, &Buffers::new(1)), None);
    cache.remove_best_effort(&key(1), &whole(100, 100));
    assert_eq!(get(&cache, 1, 100, 100), None);
    assert_eq!(get(&cache, 1, 300, 100), Some(small.to_vec()));
}

#[test]
fn a_part_of_a_frame_is_read_alone_whether_it_is_in_memory_or_not() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let cache = DiskCache::open(dir.path(), 16 << 20).unwrap();
    let frame: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8 + 1).collect();
    let spot = Spot {
        form: Form::Cut,
        ..whole(77, frame.len())
    };
    let part = |range: Range<u64>| cache.get_part(&key(1), &spot, range);
    assert_eq!(part(0..4096), None);
    cache.put_best_effort(&key(1), &spot, &frame);
    for turn in 0..2 {
        for range in [0..4096, 8192..16384, 98_304..100_000, 4096..100_000] {
            let expected = &frame[range.start as usize..range.end as usize];
            assert_eq!(part(range).as_deref(), Some(expected), "{turn}");
        }
        assert_eq!(part(98_304..100_001), None);
        // The second time the system has nothing of it in memory.
        let file = File::open(cache.path(&key(1))).unwrap();
        file.sync_all().unwrap();
        crate::sys::forget_pages(&file);
    }
}

#[test]
fn the_bound_holds_and_the_unused_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let bytes_max = 1 << 20;
    let cache = DiskCache::open(dir.path(), bytes_max).unwrap();
    for n in 0..600 {
        put(&cache, n, 0, &[7; 4096]);
        // Makes every block but the first few look old: what was put earlier was used earlier.
        let age = if n < 4 { 0 } else { 10_000 - u64::from(n) };
        let used = now() - Duration::from_secs(age);
        let file = File::options().write(true).open(cache.path(&key(n)));
        let times = FileTimes::new().set_modified(used);
        file.unwrap().set_times(times).unwrap();
    }
    let total = bytes(dir.path());
    assert!(total <= bytes_max, "{total}");
    assert!(total > bytes_max / 2, "{total}");
    for n in 0..4 {
        let got = get(&cache, n, 0, 4096);
        assert!(got.is_some(), "recently used {n} is gone");
    }
    assert!(get(&cache, 4, 0, 4096).is_none());
}

#[test]
fn a_smaller_bound_after_a_restart_is_kept_too() {
    let dir = tempfile::tempdir().unwrap();
    let large = DiskCache::open(dir.path(), 64 << 20).unwrap();
    for n in 0..300 {
        put(&large, n, 0, &[7; 4096]);
    }
    let small = DiskCache::open(dir.path(), 256 << 10).unwrap();
    for n in 300..600 {
        put(&small, n, 0, &[7; 4096]);
    }
    let total = bytes(dir.path());
    assert!(total <= 256 << 10, "{total}");
}

#[test]
fn a_block_that_somebody_has_open_gives_back_its_room_when_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let large = DiskCache::open(dir.path(), 64 << 20).unwrap();
    put(&large, 1, 0, &[7; 100_000]);
    let held = large.file(&key(1)).expect("there");
    let small = DiskCache::open(dir.path(), 10_000).unwrap();
    assert!(small.evict_best_effort() <= 10_000);
    assert!(!held.touch(now()));
    assert_eq!(held.read(&(0..100_000), |len| vec![0; len]), None);
    assert_eq!(get(&large, 1, 0, 100_000), None);
    // Whoever had it open keeps frames where others find them.
    put(&large, 1, 0, &[8; 1000]);
    assert_eq!(get(&small, 1, 0, 1000), Some(vec![8; 1000]));
}

#[test]
fn a_block_touched_a_moment_ago_is_not_looked_at_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 64 << 20).unwrap();
    put(&cache, 1, 0, &[7; 100_000]);
    let held = cache.file(&key(1)).expect("there");
    let then = now();
    assert!(held.touch(then));
    fs::remove_file(cache.path(&key(1))).unwrap();
    let kept = cache.file_of_late(&key(1), then).expect("not looked at");
    assert!(Arc::ptr_eq(&held, &kept));
    let later = then + Duration::from_secs(2);
    assert!(!held.was_touched_lately(later));
    // The wall clock was set back.
    assert!(!held.was_touched_lately(then - Duration::from_secs(2)));
    assert!(cache.file_of_late(&key(1), later).is_none());
}

/// A put that was under way when the block was removed.
#[test]
fn what_is_written_to_a_removed_block_takes_up_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 64 << 20).unwrap();
    put(&cache, 1, 0, &[7; 100_000]);
    let held = cache.file(&key(1)).expect("there");
    remove(&cache.path(&key(1))).unwrap();
    held.write(&[8; 100_000], 0).unwrap();
    assert!(!held.has(&(0..100_000)));
    assert_eq!(held.read(&(0..100_000), |len| vec![0; len]), None);
}

/// Root ran a command with the user's directory, say. Root, whom nothing forbids that, is given a block to read alone.
#[test]
fn a_block_that_may_only_be_read_is_read_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    put(&cache, 1, 0, b"frame");
    let path = cache.path(&key(1));
    let forbidden = std::os::unix::fs::PermissionsExt::from_mode(0o400);
    fs::set_permissions(&path, forbidden).unwrap();
    let again = DiskCache::open(dir.path(), 1 << 20).unwrap();
    again.keep(&key(1), BlockFile::new(File::open(&path).unwrap(), false));
    assert!(get(&again, 1, 0, 5).is_some());
    put(&again, 1, 10, b"other");
    assert!(again.file(&key(1)).is_some_and(|file| file.is_writable));
    assert!(get(&again, 1, 10, 5).is_some());
}

/// Two processes, one of which is always making room.
#[test]
fn frames_that_come_and_go_are_never_wrong_and_keep_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let bytes_max = 1 << 20;
    let caches = [0, 1].map(|_| DiskCache::open(dir.path(), bytes_max).unwrap());
    let frame = |block: u32, offset: u64| vec![(block * 7 + offset as u32 % 251) as u8 | 1; 5000];
    let hits = AtomicU32::new(0);
    std::thread::scope(|threads| {
        for (number, cache) in (0..).zip(caches.iter().cycle().take(4)) {
            let hits = &hits;
            threads.spawn(move || {
                for turn in 0..1000_u32 {
                    let block = (turn * 31 + number * 17) % 40;
                    let offset = u64::from(turn % 13) * 5000;
                    put(cache, block, offset, &frame(block, offset));
                    let (block, offset) = ((block + 3) % 40, (offset + 5000) % 65_000);
                    // What is torn is proven to be so by its tag, which these do not have: it has holes, then.
                    if let Some(got) = get(cache, block, offset, 5000) {
                        let expected = frame(block, offset);
                        let mut bytes = got.iter().zip(&expected);
                        assert!(bytes.all(|(got, expected)| got == expected || *got == 0));
                        hits.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(hits.into_inner() > 0);
    assert!(caches[0].evict_best_effort() <= bytes_max);
    assert!(bytes(dir.path()) <= bytes_max);
    fs::remove_dir_all(dir.path().join(DIR)).unwrap();
    for block in 0..40 {
        put(&caches[0], block, 0, &frame(block, 0));
        assert_eq!(get(&caches[1], block, 0, 5000), Some(frame(block, 0)));
    }
}

#[test]
fn deleting_the_directory_under_it_costs_frames_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    put(&cache, 1, 0, b"frame");
    fs::remove_dir_all(dir.path().join(DIR)).unwrap();
    assert_eq!(get(&cache, 1, 0, 5), None);
    put(&cache, 1, 0, b"frame");
    assert!(get(&cache, 1, 0, 5).is_some());
}

#[test]
fn a_disk_that_takes_nothing_stops_the_storing_and_not_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 1 << 20).unwrap();
    // A file where the directory should be fails every write, for root as well.
    fs::remove_dir_all(dir.path().join(DIR)).unwrap();
    fs::write(dir.path().join(DIR), b"").unwrap();
    put(&cache, 1, 0, b"frame");
    assert_eq!(get(&cache, 1, 0, 5), None);
    fs::remove_file(dir.path().join(DIR)).unwrap();
    for _ in 0..PAUSE_PUTS {
        put(&cache, 1, 0, b"frame");
        assert_eq!(get(&cache, 1, 0, 5), None, "still pausing");
    }
    put(&cache, 1, 0, b"frame");
    assert!(get(&cache, 1, 0, 5).is_some());
}

#[test]
fn what_earlier_versions_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let before = dir.path().join(DIR_BEFORE);
    fs::create_dir_all(before.join("a")).unwrap();
    fs::write(before.join("a/frame"), b"x").unwrap();
    DiskCache::open(dir.path(), 1 << 20).unwrap();
    let began = std::time::Instant::now();
    while before.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "still there");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_too_large_for_the_bound_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::open(dir.path(), 80_000).unwrap();
    put(&cache, 1, 0, &[1; 10_001]);
    assert_eq!(get(&cache, 1, 0, 10_001), None);
    put(&cache, 1, 0, &[1; 10_000]);
    assert!(get(&cache, 1, 0, 10_000).is_some());
}

#[test]
fn names_say_nothing() {
    let name = name(&key(1));
    assert_eq!(name.len(), 32);
    assert!(!name.contains(&key(1).block.session.to_string()));
}
