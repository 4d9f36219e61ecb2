//! Reading snapshots, counted at the server: a page costs one request where nothing is known yet, a whole file few, each byte once; and
//! nothing what lies in the disk cache, which all mounts share, and which outlives them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::s3_server::S3Server;
use crate::world::{World, can_mount};

const LEN: usize = 16 << 20;
const PAGE: usize = 4096;

/// Far enough from each other that no two lie in one frame.
const PLACES: [usize; 7] = [13, 2, 9, 6, 11, 4, 0];

/// What the frames of such a file take up in the disk cache, at least: there each 4048 bytes have a head of 48.
const CACHED_LEN: u64 = (LEN + LEN / 4048 * 48) as u64;
/// When they must be there: a reader has them before the disk cache does.
const CACHED_WITHIN: Duration = Duration::from_secs(180);
/// Reads of a file of which nothing is cached, one of which must take few requests.
const COLD_READS_MAX: usize = 5;

/// A volume with one file that does not compress, backed up and no longer mounted; nothing is in the cache.
fn backed_up(server: &S3Server) -> (World, Vec<u8>) {
    let world = World::on_s3(server, &server.location("p"));
    world.init();
    let mut bytes = vec![0; LEN];
    StdRng::seed_from_u64(5).fill_bytes(&mut bytes);
    fs::write(world.source().join("large"), &bytes).unwrap();
    world.mount(&[]);
    world.run(["sync", world.source().to_str().unwrap()]);
    world.unmount(&world.source());
    forget_cache(&world);
    (world, bytes)
}

fn forget_cache(world: &World) {
    fs::remove_dir_all(world.path("cache")).unwrap();
}

/// Reads a page at each place, and says how many requests that took.
fn read_pages(server: &S3Server, mount: &Path, bytes: &[u8]) -> u64 {
    let file = File::open(mount.join("large")).unwrap();
    let before = server.requests();
    for place in PLACES {
        let at = (place << 20) + 10 * PAGE;
        let mut page = [0; PAGE];
        file.read_exact_at(&mut page, at as u64).unwrap();
        assert!(page == bytes[at..at + PAGE], "{place}");
    }
    server.requests() - before
}

#[test]
fn a_page_costs_one_request_and_none_once_any_mount_has_had_it() {
    if !can_mount("a_page_costs_one_request_and_none_once_any_mount_has_had_it") {
        return;
    }
    let server = S3Server::start("bucket");
    let (world, bytes) = backed_up(&server);
    let (here, there) = (world.dir("here"), world.dir("there"));
    world.mount_past("latest", &here);
    let asked = read_pages(&server, &here, &bytes);
    // A page may lie in two frames, cut where the contents said; and the first takes the list of them too.
    let pages = PLACES.len() as u64;
    assert!((pages..=pages + 3).contains(&asked), "{asked}");

    world.mount_past("latest", &there);
    assert_eq!(read_pages(&server, &there, &bytes), 0);
    world.unmount(&here);
    world.unmount(&there);
    world.mount_past("latest", &here);
    assert_eq!(read_pages(&server, &here, &bytes), 0);

    // Whatever has become of it.
    let spoilt: usize = cached(&world).iter().map(|block| spoil(block)).sum();
    // Frames of 128 KiB and more.
    assert!(spoilt >= PLACES.len() * 32, "{spoilt}");
    world.unmount(&here);
    world.mount_past("latest", &here);
    let asked = read_pages(&server, &here, &bytes);
    assert!((pages..=pages + 3).contains(&asked), "{asked}");
    world.unmount(&here);
}

/// The blocks of which something is in the disk cache.
fn cached(world: &World) -> Vec<PathBuf> {
    let blocks = fs::read_dir(world.path("cache/frames/blocks-v1")).unwrap();
    blocks.map(|block| block.unwrap().path()).collect()
}

/// Writes over every page that is no hole, and says how many that were.
fn spoil(block: &Path) -> usize {
    let file = File::options().read(true).write(true).open(block).unwrap();
    let len = file.metadata().unwrap().len();
    let mut pages = 0;
    for at in (0..len).step_by(PAGE) {
        let mut page = vec![0; PAGE.min((len - at) as usize)];
        file.read_exact_at(&mut page, at).unwrap();
        if page.iter().any(|byte| *byte != 0) {
            page.fill(0x5a);
            file.write_all_at(&page, at).unwrap();
            pages += 1;
        }
    }
    pages
}

/// What the block of which most is in the disk cache takes up there.
fn cached_bytes(world: &World) -> u64 {
    let metas = cached(world).into_iter().flat_map(fs::metadata);
    metas.map(|meta| meta.blocks() * 512).max().unwrap_or(0)
}

/// Reads the whole file in a mount of its own, which ends when all of it is in the disk cache. Says how many requests that took, and how many
/// bytes.
fn read_whole(server: &S3Server, world: &World, bytes: &[u8]) -> (u64, u64) {
    let here = world.dir("here");
    world.mount_past("latest", &here);
    let before = (server.requests(), server.answered());
    assert!(fs::read(here.join("large")).unwrap() == bytes);
    let asked = server.requests() - before.0;
    let given = server.answered() - before.1;
    let begun = Instant::now();
    while cached_bytes(world) < CACHED_LEN {
        let cached = cached_bytes(world);
        assert!(begun.elapsed() < CACHED_WITHIN, "{cached} bytes cached");
    }
    world.unmount(&here);
    (asked, given)
}

#[test]
fn a_file_read_from_end_to_end_is_fetched_once_and_not_again_after_a_restart() {
    if !can_mount("a_file_read_from_end_to_end_is_fetched_once_and_not_again_after_a_restart") {
        return;
    }
    let server = S3Server::start("bucket");
    let (world, bytes) = backed_up(&server);
    let mut reads = 0;
    loop {
        let (asked, given) = read_whole(&server, &world, &bytes);
        // 4 MiB at a time, and the first of them one by one; a frame may be asked for by the reader just as it is being prefetched, and on
        // a busy machine many are.
        if asked < 16 && given < LEN as u64 * 5 / 4 {
            break;
        }
        reads += 1;
        assert!(reads < COLD_READS_MAX, "{asked}, {given}");
        forget_cache(&world);
    }
    assert_eq!(read_whole(&server, &world, &bytes), (0, 0));
}
