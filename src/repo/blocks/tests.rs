//! Reading frames: once for all who ask, from the nearest place, and never wrong bytes whatever the store gives back.

use super::*;
use crate::buffers::Buffers;
use crate::cache::{Cache, Form, FrameKey, Options, Spot};
use crate::format::entry::{Address, CommitName, Hint};
use crate::id::FrameNo;
use crate::repo::fixture::{Special, Writer, memory, metered, no_cache, reopen};
use crate::store::fault::{Fault, Faulty, Plan, Rule};
use crate::store::metered::Operation;
use crate::store::{Body, Kind};

/// Enough for all frames of these tests.
const ROOMY: usize = 64 << 20;

/// Bytes that do not compress, different for each `seed`.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

async fn four_frames(store: &Store) -> (Vec<Place>, Vec<Vec<u8>>, ObjectKey) {
    let mut writer = Writer::new(store).await;
    let frames: Vec<_> = (0..4).map(|n| noise(n, 300 + n as usize)).collect();
    let places = writer.data(&frames).await;
    let object = writer.volume.blocks().object(&places[0]).unwrap();
    (places, frames, object)
}

async fn overwrite(store: &Store, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let (whole, _) = store.get(key, 256 << 20).await.unwrap();
    let mut bytes = whole.to_vec();
    change(&mut bytes);
    store.put(key, Body::Bytes(bytes.into())).await.unwrap();
    whole
}

fn names(error: &Error, object: &ObjectKey) -> bool {
    match error {
        Error::Damaged { object: named, .. } | Error::Missing { object: named } => named == object,
        _ => false,
    }
}

#[tokio::test]
async fn a_first_read_is_one_ranged_get_and_a_second_is_none() {
    let store = memory();
    let (places, frames, _) = four_frames(&store).await;
    let (counted, meter) = metered(&store);
    let volume = reopen(&counted, Cache::in_memory(ROOMY)).await;
    let before = meter.requests();
    let mut place = places[2].clone();
    place.at.inner = 7;
    assert_eq!(
        volume.blocks().read(&place, 20).await.unwrap(),
        frames[2][7..27]
    );
    assert_eq!(meter.requests(), before + 1);
    assert_eq!(
        volume
            .blocks()
            .frame(&places[2], FrameKind::Data)
            .await
            .unwrap(),
        frames[2]
    );
    assert_eq!(meter.requests(), before + 1);
}

#[tokio::test]
async fn readers_of_one_frame_at_one_time_fetch_it_once() {
    let store = memory();
    let (places, frames, _) = four_frames(&store).await;
    let (counted, meter) = metered(&store);
    let plan = Plan::new();
    let slow: Store = Arc::new(Faulty::new(counted, plan.clone()));
    // Without a memory cache, so that nothing but the joining can save a request.
    let volume = reopen(&slow, no_cache()).await;
    let before = meter.requests();
    plan.add(Rule {
        on: Some(Operation::GetRange),
        skip: 0,
        times: 1,
        fault: Fault::Hang,
    });
    let mut readers: Vec<_> = (0..50)
        .map(|_| Box::pin(volume.blocks().read(&places[1], 300)))
        .collect();
    for reader in &mut readers {
        assert!(futures::poll!(reader).is_pending());
    }
    // Those who give up do not stop the others, not even the first.
    drop(readers.remove(0));
    plan.release();
    for read in futures::future::join_all(readers).await {
        assert_eq!(read.unwrap(), frames[1][..300]);
    }
    assert_eq!(meter.requests(), before + 1);
}

#[tokio::test]
async fn readers_that_share_a_fetch_share_its_failure_and_the_next_one_tries_again() {
    let store = memory();
    let (places, frames, _) = four_frames(&store).await;
    let (failing, holding) = (Plan::new(), Plan::new());
    let failing_store: Store = Arc::new(Faulty::new(store, failing.clone()));
    let slow: Store = Arc::new(Faulty::new(failing_store, holding.clone()));
    let volume = reopen(&slow, no_cache()).await;
    for (plan, fault) in [
        (&holding, Fault::Hang),
        (&failing, Fault::FailBefore(Kind::Retry)),
    ] {
        plan.add(Rule {
            on: Some(Operation::GetRange),
            skip: 0,
            times: 1,
            fault,
        });
    }
    let mut readers: Vec<_> = (0..5)
        .map(|_| Box::pin(volume.blocks().read(&places[0], 10)))
        .collect();
    for reader in &mut readers {
        assert!(futures::poll!(reader).is_pending());
    }
    holding.release();
    for failed in futures::future::join_all(readers).await {
        assert!(matches!(failed, Err(Error::Store(error)) if error.kind == Kind::Retry));
    }
    let again = volume.blocks().read(&places[0], 10).await;
    assert_eq!(again.unwrap(), frames[0][..10]);
}

#[tokio::test]
async fn no_flipped_bit_and_no_cut_ever_gives_wrong_bytes() {
    let store = memory();
    let (places, frames, object) = four_frames(&store).await;
    let len = store.head(&object).await.unwrap().unwrap() as usize;
    for at in 0..len {
        let whole = overwrite(&store, &object, |bytes| bytes[at] ^= 1 << (at % 8)).await;
        let volume = reopen(&store, no_cache()).await;
        for (place, frame) in places.iter().zip(&frames) {
            let hit =
                place.hint.offset as usize..place.hint.offset as usize + place.hint.len as usize;
            match volume.blocks().frame(place, FrameKind::Data).await {
                Ok(read) => {
                    assert_eq!(read, frame, "byte {at}");
                    assert!(!hit.contains(&at));
                }
                Err(error) => {
                    assert!(names(&error, &object), "{error}");
                    assert!(
                        hit.contains(&at),
                        "byte {at} took frame {} with it",
                        place.at.frame
                    );
                }
            }
        }
        store.put(&object, Body::Bytes(whole)).await.unwrap();
    }
    for cut in (0..len).step_by(7) {
        let whole = overwrite(&store, &object, |bytes| bytes.truncate(cut)).await;
        let volume = reopen(&store, no_cache()).await;
        for (place, frame) in places.iter().zip(&frames) {
            match volume.blocks().frame(place, FrameKind::Data).await {
                Ok(read) => assert_eq!(read, frame, "cut to {cut}"),
                Err(error) => assert!(names(&error, &object), "{error}"),
            }
        }
        store.put(&object, Body::Bytes(whole)).await.unwrap();
    }
}

#[tokio::test]
async fn swapped_and_missing_objects_are_named() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let a = writer.data(&[noise(1, 300)]).await.remove(0);
    let b = writer.data(&[noise(2, 300)]).await.remove(0);
    let blocks = writer.volume.blocks();
    let (key_a, key_b) = (blocks.object(&a).unwrap(), blocks.object(&b).unwrap());
    let (bytes_b, _) = store.get(&key_b, 1 << 20).await.unwrap();
    store.put(&key_a, Body::Bytes(bytes_b)).await.unwrap();
    store.delete(&key_b).await.unwrap();
    let volume = reopen(&store, no_cache()).await;
    let swapped = volume
        .blocks()
        .frame(&a, FrameKind::Data)
        .await
        .unwrap_err();
    assert!(
        matches!(&swapped, Error::Damaged { object, .. } if *object == key_a),
        "{swapped}"
    );
    let missing = volume
        .blocks()
        .frame(&b, FrameKind::Data)
        .await
        .unwrap_err();
    assert!(
        matches!(&missing, Error::Missing { object } if *object == key_b),
        "{missing}"
    );
}

#[tokio::test]
async fn a_frame_is_not_taken_for_another_frame_kind_or_length() {
    let store = memory();
    let (places, _, object) = four_frames(&store).await;
    let volume = reopen(&store, no_cache()).await;
    let mut other = places[0].clone();
    other.at.frame = FrameNo(1);
    // The hint points at frame 0, but frame 1 is what the address means; the directory knows where that is.
    let found = volume
        .blocks()
        .frame(&other, FrameKind::Data)
        .await
        .unwrap();
    assert_eq!(found, noise(1, 301));
    let as_page = volume.blocks().frame(&places[0], FrameKind::Page).await;
    assert!(names(&as_page.unwrap_err(), &object));
    other.at.frame = FrameNo(99);
    let none = volume.blocks().frame(&other, FrameKind::Data).await;
    assert!(names(&none.unwrap_err(), &object));
    other.hint.len = u32::MAX;
    assert!(
        volume
            .blocks()
            .frame(&other, FrameKind::Data)
            .await
            .is_err()
    );
    let beyond = volume.blocks().read(&places[0], 301).await;
    assert!(names(&beyond.unwrap_err(), &object));
    let mut nowhere = places[0].clone();
    nowhere.at.inner = u32::MAX;
    assert!(volume.blocks().read(&nowhere, usize::MAX).await.is_err());
}

#[tokio::test]
async fn a_wrong_hint_costs_requests_and_nothing_else() {
    let store = memory();
    let (places, frames, _) = four_frames(&store).await;
    let volume = reopen(&store, no_cache()).await;
    for (place, frame) in places.iter().zip(&frames) {
        for (offset, len) in [
            (0, 100),
            (place.hint.offset + 1, place.hint.len),
            (1 << 40, 80),
            (u64::MAX, 80),
        ] {
            let mut moved = place.clone();
            (moved.hint.offset, moved.hint.len) = (offset, len);
            let read = volume.blocks().frame(&moved, FrameKind::Data).await;
            assert_eq!(read.unwrap(), frame);
        }
    }
}

#[tokio::test]
async fn what_is_only_damaged_on_its_way_is_read_again() {
    let store = memory();
    let (places, frames, _) = four_frames(&store).await;
    for fault in [Fault::FlipBit(500), Fault::CutBody(20)] {
        let plan = Plan::new();
        let faulty: Store = Arc::new(Faulty::new(store.clone(), plan.clone()));
        let volume = reopen(&faulty, no_cache()).await;
        plan.add(Rule {
            on: Some(Operation::GetRange),
            skip: 0,
            times: 1,
            fault,
        });
        assert_eq!(
            volume
                .blocks()
                .frame(&places[0], FrameKind::Data)
                .await
                .unwrap(),
            frames[0]
        );
        assert_eq!(plan.fired(), 1);
    }
}

/// A cache that keeps nothing in memory.
fn on_disk(dir: &tempfile::TempDir) -> Options {
    Options {
        memory_bytes: 0,
        dir: Some(dir.path().to_owned()),
        disk_bytes: 64 << 20,
    }
}

fn spot(place: &Place, form: Form, len: u32) -> Spot {
    Spot {
        offset: place.hint.offset,
        form,
        len,
    }
}

#[tokio::test]
async fn the_disk_cache_saves_requests_and_its_damage_is_never_seen() {
    let store = memory();
    let (places, frames, _) = four_frames(&store).await;
    let dir = tempfile::tempdir().unwrap();
    let options = on_disk(&dir);
    let (counted, meter) = metered(&store);
    let read_all = async || {
        let volume = reopen(&counted, Cache::open(&options).unwrap()).await;
        let before = meter.usage(Operation::GetRange).requests;
        for (place, frame) in places.iter().zip(&frames) {
            assert_eq!(
                volume.blocks().frame(place, FrameKind::Data).await.unwrap(),
                frame
            );
        }
        meter.usage(Operation::GetRange).requests - before
    };
    assert_eq!(read_all().await, 4);
    assert_eq!(read_all().await, 0);
    // Each entry damaged in place, as a bad disk would: dropped, fetched, and whole the next time.
    let volume = reopen(&store, no_cache()).await;
    for place in &places {
        let key = FrameKey {
            volume: volume.info().id,
            block: place.at.block,
            frame: place.at.frame,
        };
        let cache = Cache::open(&options).unwrap();
        let spot = spot(place, Form::Whole, place.hint.len);
        let mut entry = cache.encrypted(&key, &spot, &Buffers::new(1)).unwrap();
        entry[40] ^= 4;
        cache.put_encrypted(&key, &spot, &entry);
    }
    assert_eq!(read_all().await, 4);
    assert_eq!(read_all().await, 0);
}

/// Reads here and there of a large frame: the first costs one request, the others none, and hardly more of the disk than they want.
#[tokio::test]
async fn a_little_of_a_large_frame_comes_from_the_disk_without_the_rest() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let text = b"all work and no play ".repeat(20_000);
    let frames = [noise(1, 1 << 20), text];
    let places = writer.data(&frames).await;
    let dir = tempfile::tempdir().unwrap();
    let options = on_disk(&dir);
    let (counted, meter) = metered(&store);
    let gets = || meter.usage(Operation::GetRange).requests;
    let open = async || reopen(&counted, Cache::open(&options).unwrap()).await;
    let check = async |volume: &crate::repo::Volume, at: u32, len: usize| {
        for (place, frame) in places.iter().zip(&frames) {
            let mut place = place.clone();
            place.at.inner = at;
            let read = volume.blocks().read(&place, len).await.unwrap();
            assert_eq!(read, frame[at as usize..at as usize + len]);
        }
    };
    let volume = open().await;
    let before = gets();
    for at in [0, 4096, 4_048 - 12, 300_000, 399_999] {
        check(&volume, at, 4096).await;
        check(&volume, at, 1).await;
    }
    assert_eq!(gets() - before, 2);
    let volume = open().await;
    let before = gets();
    check(&volume, 200_000, 65_536).await;
    check(&volume, 0, 400_000).await;
    assert_eq!(gets() - before, 0);
    let mut beyond = places[0].clone();
    beyond.at.inner = (1 << 20) - 1;
    assert!(volume.blocks().read(&beyond, 2).await.is_err());

    // Damage anywhere in the entry of the first: found out where it is read, then fetched, and whole the next time.
    let key = FrameKey {
        volume: volume.info().id,
        block: places[0].at.block,
        frame: places[0].at.frame,
    };
    let cut_len = crate::crypto::pieces::cut_len(places[0].hint.len);
    let spot = spot(&places[0], Form::Cut, cut_len);
    let read = async |at: u32, len: usize| {
        let before = gets();
        let volume = open().await;
        let mut place = places[0].clone();
        place.at.inner = at;
        let read = volume.blocks().read(&place, len).await.unwrap();
        assert_eq!(read, frames[0][at as usize..at as usize + len]);
        gets() - before
    };
    // In a piece, and in the tag of one alone, which the frame itself does not have.
    for (damaged, at) in [(505_000, 500_000), (40, 0)] {
        let cache = Cache::open(&options).unwrap();
        let mut entry = cache.encrypted(&key, &spot, &Buffers::new(1)).unwrap();
        entry[damaged] ^= 4;
        cache.put_encrypted(&key, &spot, &entry);
        drop(cache);
        assert_eq!(read(at, 4096).await, 1, "{damaged}");
        assert_eq!(read(at, 4096).await, 0, "{damaged}");
        assert_eq!(read(0, 200_000).await, 0, "{damaged}");
    }
}

/// Cut into pieces it lies where the little one would, were that cut too.
#[tokio::test]
async fn a_little_frame_does_not_disturb_the_large_one_behind_it() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let places = writer.data(&[noise(1, 100), noise(2, 1 << 20)]).await;
    let dir = tempfile::tempdir().unwrap();
    let options = on_disk(&dir);
    let (counted, meter) = metered(&store);
    let read = async |number: usize, len: usize| {
        let before = meter.usage(Operation::GetRange).requests;
        let volume = reopen(&counted, Cache::open(&options).unwrap()).await;
        let read = volume.blocks().read(&places[number], len).await.unwrap();
        assert_eq!(read, noise(1 + number as u32, 1 << 20)[..len]);
        meter.usage(Operation::GetRange).requests - before
    };
    assert_eq!(read(1, 4096).await, 1);
    assert_eq!(read(0, 100).await, 1);
    assert_eq!(read(0, 100).await, 0);
    assert_eq!(read(1, 4096).await, 0);
    assert_eq!(read(1, 1 << 20).await, 0);
}

#[tokio::test]
async fn what_a_writer_puts_can_be_remembered_without_being_fetched() {
    let store = memory();
    let (places, frames, object) = four_frames(&store).await;
    let (whole, _) = store.get(&object, 1 << 20).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = on_disk(&dir);
    for cache in [Cache::open(&options).unwrap(), Cache::in_memory(ROOMY)] {
        let (counted, meter) = metered(&store);
        let volume = reopen(&counted, cache).await;
        let begin = places[3].hint.offset as usize;
        let frame = whole.slice(begin..begin + places[3].hint.len as usize);
        volume
            .blocks()
            .remember(&places[3], FrameKind::Data, &frame);
        let before = meter.requests();
        assert_eq!(
            volume
                .blocks()
                .frame(&places[3], FrameKind::Data)
                .await
                .unwrap(),
            frames[3]
        );
        assert_eq!(meter.requests(), before);
        // What is not the frame it is said to be is not kept, or found out.
        volume
            .blocks()
            .remember(&places[2], FrameKind::Data, &frame);
        assert_eq!(
            volume
                .blocks()
                .frame(&places[2], FrameKind::Data)
                .await
                .unwrap(),
            frames[2]
        );
    }
}

#[tokio::test]
async fn prefetching_takes_few_gets_and_saves_all_later_ones() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let frames: Vec<_> = (0..20).map(|n| noise(n, 1 << 20)).collect();
    let places = writer.data(&frames).await;
    let (counted, meter) = metered(&store);
    let volume = reopen(&counted, Cache::in_memory(ROOMY)).await;
    let before = meter.requests();
    volume.blocks().prefetch_best_effort(places.clone()).await;
    assert_eq!(meter.requests() - before, 7);
    for (place, frame) in places.iter().zip(&frames) {
        assert_eq!(
            volume.blocks().frame(place, FrameKind::Data).await.unwrap(),
            frame
        );
    }
    volume.blocks().prefetch_best_effort(places).await;
    assert_eq!(meter.requests() - before, 7);
}

/// A mount whose disk cache an earlier one has filled.
#[tokio::test]
async fn what_lies_in_the_disk_cache_is_prefetched_from_there() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let frames: Vec<_> = (0..6).map(|n| noise(n, 100_000)).collect();
    let places = writer.data(&frames).await;
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        memory_bytes: ROOMY,
        ..on_disk(&dir)
    };
    let (counted, meter) = metered(&store);
    let gets = || meter.usage(Operation::GetRange).requests;
    for (expected, wanted) in [(1, &places[..4]), (1, &places[..]), (0, &places[..])] {
        let volume = reopen(&counted, Cache::open(&options).unwrap()).await;
        let before = gets();
        volume.blocks().prefetch_best_effort(wanted.to_vec()).await;
        assert_eq!(gets() - before, expected);
        for (place, frame) in wanted.iter().zip(&frames) {
            let read = volume.blocks().frame(place, FrameKind::Data).await;
            assert_eq!(read.unwrap(), frame);
        }
        assert_eq!(gets() - before, expected);
    }
}

#[tokio::test]
async fn frames_that_are_under_way_are_not_prefetched_again() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let frames: Vec<_> = (0..6).map(|n| noise(n, 100_000)).collect();
    let places = writer.data(&frames).await;
    let (counted, meter) = metered(&store);
    let plan = Plan::new();
    let slow: Store = Arc::new(Faulty::new(counted, plan.clone()));
    let volume = reopen(&slow, Cache::in_memory(ROOMY)).await;
    let before = meter.usage(Operation::GetRange);
    plan.add(Rule {
        on: Some(Operation::GetRange),
        skip: 0,
        times: 2,
        fault: Fault::Hang,
    });
    let mut first = Box::pin(volume.blocks().prefetch_best_effort(places[..4].to_vec()));
    let mut second = Box::pin(volume.blocks().prefetch_best_effort(places[2..].to_vec()));
    for (prefetch, fired) in [(&mut first, 1), (&mut second, 2)] {
        while plan.fired() < fired {
            assert!(futures::poll!(&mut *prefetch).is_pending());
            tokio::task::yield_now().await;
        }
    }
    plan.release();
    futures::join!(first, second);
    let after = meter.usage(Operation::GetRange);
    assert_eq!(after.requests - before.requests, 2);
    let len: u64 = places.iter().map(|place| u64::from(place.hint.len)).sum();
    assert_eq!(after.bytes - before.bytes, len);
}

async fn read_once(blocks: &Blocks, places: &[Place]) -> Vec<Once> {
    let fetched = blocks.fetch_once(places.to_vec()).await;
    blocks.open_once(fetched).await
}

/// Somebody makes room on the disk in the middle of it.
#[tokio::test]
async fn frames_that_leave_the_disk_before_they_are_read_come_in_one_get() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let frames: Vec<_> = (0..8).map(|n| noise(n, 50_000)).collect();
    let places = writer.data(&frames).await;
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        memory_bytes: ROOMY,
        ..on_disk(&dir)
    };
    let (counted, meter) = metered(&store);
    let earlier = reopen(&counted, Cache::open(&options).unwrap()).await;
    for once in read_once(earlier.blocks(), &places).await {
        earlier.blocks().keep(once).await;
    }
    let volume = reopen(&counted, Cache::open(&options).unwrap()).await;
    let gets = || meter.usage(Operation::GetRange).requests;
    let before = gets();
    let fetched = volume.blocks().fetch_once(places.clone()).await;
    assert_eq!(gets(), before, "they lie on the disk");
    std::fs::remove_dir_all(dir.path()).unwrap();
    let read = volume.blocks().open_once(fetched).await;
    let frame_of = |once: &Once| {
        places
            .iter()
            .position(|place| *place == once.place)
            .unwrap()
    };
    assert_eq!(read.len(), places.len());
    for once in read {
        assert_eq!(
            once.plain.as_ref().unwrap()[..],
            frames[frame_of(&once)][..]
        );
    }
    assert_eq!(gets(), before + 1);
}

#[tokio::test]
async fn frames_read_once_come_from_wherever_they_are_and_stay_nowhere() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let frames: Vec<_> = (0..8).map(|n| noise(n, 50_000 + n as usize)).collect();
    let mut places = writer.data(&frames).await;
    let object = writer.volume.blocks().object(&places[0]).unwrap();
    let damaged = places[5].hint.offset as usize + 40;
    overwrite(&store, &object, |bytes| bytes[damaged] ^= 1).await;
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        memory_bytes: ROOMY,
        ..on_disk(&dir)
    };
    let (counted, meter) = metered(&store);
    // One in both caches, one only on disk, and hints that lead nowhere, or beyond all numbers.
    let earlier = reopen(&counted, Cache::open(&options).unwrap()).await;
    earlier.blocks().read(&places[1], 1).await.unwrap();
    let volume = reopen(&counted, Cache::open(&options).unwrap()).await;
    let blocks = volume.blocks();
    blocks.read(&places[0], 1).await.unwrap();
    places[2].hint.offset += 8;
    places[3].hint.offset = u64::MAX - 3;
    places[4].hint.len = u32::MAX;
    let gets = || meter.usage(Operation::GetRange).requests;
    let before = gets();
    let read = read_once(blocks, &places).await;
    assert_eq!(read.len(), places.len());
    for once in read {
        let n = places
            .iter()
            .position(|place| *place == once.place)
            .unwrap();
        match once.plain {
            Ok(plain) => assert_eq!(plain, frames[n]),
            Err(error) => assert!(
                [4, 5].contains(&n) && names(&error, &object),
                "{n}: {error}"
            ),
        }
    }
    let first = gets() - before;
    // The last two came with those before them and are in no cache; kept, one is.
    let read = read_once(blocks, &places[6..]).await;
    assert_eq!(gets() - before, first + 1);
    for once in read {
        blocks.keep(once).await;
    }
    let again = reopen(&counted, Cache::open(&options).unwrap()).await;
    let before = gets();
    let read = read_once(again.blocks(), &places[6..]).await;
    assert!(read.iter().all(|once| once.plain.is_ok()));
    assert_eq!((read.len(), gets()), (2, before));
}

#[tokio::test]
async fn tree_pages_are_prefetched_like_data() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let changes = (2..30_000).map(|id| crate::format::entry::Change::PutName {
        dir: crate::id::FileId::ROOT,
        name: format!("file {id}").into_bytes(),
        entry: crate::format::entry::NameEntry {
            id: crate::id::FileId(id),
            kind: crate::format::entry::Kind::File,
        },
    });
    let found = writer.commit(changes.collect(), Special::default()).await;
    let (counted, meter) = metered(&store);
    let volume = reopen(&counted, Cache::in_memory(ROOMY)).await;
    let tree = writer.volume.tree(&found.commit);
    let pages = tree.pages().await.unwrap();
    assert!(pages.len() > 10);
    volume.blocks().prefetch_best_effort(pages.clone()).await;
    let before = meter.requests();
    assert_eq!(volume.tree(&found.commit).pages().await.unwrap(), pages);
    volume.blocks().prefetch_best_effort(pages).await;
    assert_eq!(meter.requests(), before);
}

#[tokio::test]
async fn a_reader_joins_the_prefetch_that_is_under_way() {
    let store = memory();
    let (places, frames, _) = four_frames(&store).await;
    let (counted, meter) = metered(&store);
    let plan = Plan::new();
    let slow: Store = Arc::new(Faulty::new(counted, plan.clone()));
    let volume = reopen(&slow, Cache::in_memory(ROOMY)).await;
    let before = meter.requests();
    plan.add(Rule {
        on: Some(Operation::GetRange),
        skip: 0,
        times: 1,
        fault: Fault::Hang,
    });
    let ahead = tokio::spawn({
        let (volume, places) = (volume.clone(), places.clone());
        async move { volume.blocks().prefetch_best_effort(places).await }
    });
    while plan.fired() == 0 {
        tokio::task::yield_now().await;
    }
    let mut read = Box::pin(volume.blocks().read(&places[3], 100));
    assert!(futures::poll!(&mut read).is_pending());
    plan.release();
    assert_eq!(read.await.unwrap(), frames[3][..100]);
    ahead.await.unwrap();
    assert_eq!(meter.requests() - before, 1);
}

#[tokio::test]
async fn a_failed_prefetch_is_silent_and_the_read_tells() {
    let store = memory();
    let (places, frames, object) = four_frames(&store).await;
    overwrite(&store, &object, |bytes| {
        bytes[places[1].hint.offset as usize + 20] ^= 1
    })
    .await;
    let plan = Plan::new();
    let faulty: Store = Arc::new(Faulty::new(store.clone(), plan.clone()));
    let volume = reopen(&faulty, Cache::in_memory(ROOMY)).await;
    for fails in [true, false] {
        if fails {
            plan.add(Rule {
                on: Some(Operation::GetRange),
                skip: 0,
                times: 1,
                fault: Fault::FailBefore(Kind::Retry),
            });
        }
        volume.blocks().prefetch_best_effort(places.clone()).await;
        for (n, place) in places.iter().enumerate() {
            match volume.blocks().frame(place, FrameKind::Data).await {
                Ok(read) => assert_eq!(read, frames[n]),
                Err(error) => assert!(n == 1 && names(&error, &object), "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn small_data_in_a_commit_comes_with_the_commit() {
    let store = memory();
    let mut writer = Writer::new(&store).await;
    let small = vec![noise(1, 5000), noise(2, 5000)];
    let found = writer.commit_with(vec![], Special::default(), &small).await;
    let object = layout_of(&writer, &found.commit.name);
    let (bytes, _) = store.get(&object, 1 << 20).await.unwrap();
    let header = crate::format::block::Header::decode(&bytes).unwrap();
    let mut place = Place {
        at: Address {
            block: header.id,
            frame: FrameNo(2),
            inner: 10,
        },
        // As wrong as can be: the directory finds it.
        hint: Hint {
            offset: 0,
            len: 0,
            commit: Some(found.commit.name),
        },
    };
    let read = writer.volume.blocks().read(&place, 100).await.unwrap();
    assert_eq!(read, small[1][10..110]);
    place.hint.commit = None;
    assert!(writer.volume.blocks().read(&place, 100).await.is_err());
    place.hint.commit = Some(found.commit.name);
    let raw = writer.volume.blocks().raw(&place, 0..8).await;
    assert_eq!(raw.unwrap(), bytes[..8]);
}

fn layout_of(writer: &Writer, name: &CommitName) -> ObjectKey {
    crate::repo::layout::commit(writer.volume.info().id, name)
}
