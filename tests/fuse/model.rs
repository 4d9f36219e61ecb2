//! Random operations on the live mount and, beside it, on a plain directory: both must look alike after every round, and every
//! snapshot taken on the way, mounted later, must look exactly as the mount did at that moment.
//!
//! A failing run prints its seed; `REWINDFS_TEST_SEED` runs it again.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::listing::{self, Listing};
use crate::s3_server::S3Server;
use crate::world::{World, can_mount};

/// What is done when nobody asks for something else: the same each time, so that it fails with the change that broke it.
const SEED: u64 = 20;
/// Operations between two snapshots.
const ROUND: usize = 60;
/// Snapshots taken in a run.
const ROUNDS: usize = 12;
/// The same against S3, where it is the way to the store that is tested.
const ROUNDS_ON_S3: usize = 4;

#[test]
fn every_snapshot_is_the_moment_at_which_it_was_taken() {
    if can_mount("every_snapshot_is_the_moment_at_which_it_was_taken") {
        work_and_look_back(&World::new(), ROUNDS);
    }
}

#[test]
fn every_snapshot_on_s3_is_the_moment_at_which_it_was_taken() {
    if can_mount("every_snapshot_on_s3_is_the_moment_at_which_it_was_taken") {
        let server = S3Server::start("bucket");
        let world = World::on_s3(&server, &server.location("model"));
        work_and_look_back(&world, ROUNDS_ON_S3);
    }
}

/// Random work with a snapshot after each round; then every snapshot against what was seen when it was taken.
fn work_and_look_back(world: &World, rounds: usize) {
    let seed = std::env::var("REWINDFS_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(SEED);
    eprintln!("REWINDFS_TEST_SEED={seed}");
    world.init();
    world.mount(&["--interval", "1s"]);
    let mut pair = Pair {
        live: world.source(),
        plain: world.dir("plain"),
        random: StdRng::seed_from_u64(seed),
    };

    let mut moments: Vec<(String, Listing)> = Vec::new();
    for round in 0..rounds {
        for _ in 0..ROUND {
            pair.step();
        }
        let live = listing::of(&pair.live);
        let plain = listing::of(&pair.plain);
        listing::assert_same(
            &listing::timeless(&live),
            &listing::timeless(&plain),
            "mount and plain directory",
        );
        let name = format!("moment {round}");
        world.snapshot(&name);
        moments.push((name, live));
        if round == rounds / 2 {
            // The second half begins anew: another process, the same numbers.
            world.unmount(&pair.live);
            world.mount(&["--interval", "1s"]);
            let again = listing::of(&pair.live);
            listing::assert_same(&again, &moments[round].1, "after a remount");
        }
    }
    world.unmount(&pair.live);

    let place = world.dir("past");
    for (name, moment) in &moments {
        world.mount_past(name, &place);
        listing::assert_same(
            &listing::of(&place),
            moment,
            &format!("seed {seed}, {name} mounted"),
        );
        world.unmount(&place);
    }
    let (name, moment) = &moments[rounds / 3];
    let target = world.path("restored");
    world.run([
        "restore",
        "--at",
        name,
        "--target",
        target.to_str().unwrap(),
    ]);
    let mut expected = moment.clone();
    let mut restored = listing::of(&target);
    for entry in expected.values_mut().chain(restored.values_mut()) {
        entry.number = 0;
    }
    listing::assert_same(
        &restored,
        &expected,
        &format!("seed {seed}, {name} restored"),
    );
    world.run(["check", "--read-data"]);
}

/// The mount and the plain directory, always treated alike.
struct Pair {
    live: PathBuf,
    plain: PathBuf,
    random: StdRng,
}

impl Pair {
    /// One operation on both; whether it succeeds or fails, it must do so alike.
    fn step(&mut self) {
        let files = self.paths(|kind| kind.is_file());
        let dirs = self.paths(|kind| kind.is_dir());
        let all = self.paths(|_| true);
        let some_file = self.pick(&files);
        let some_dir = self.pick(&dirs).unwrap_or_default();
        let anything = self.pick(&all);
        let fresh = some_dir.join(self.name());
        let bytes = self.bytes();
        let at = self.random.random_range(0..300_000u64);
        let mode = self.random.random_range(0..0o1000u32) | 0o600;
        match (self.random.random_range(0..24), some_file, anything) {
            (0..4, _, _) => self.both(|root| write(&root.join(&fresh), &bytes)),
            (4..7, Some(file), _) => self.both(|root| {
                OpenOptions::new()
                    .write(true)
                    .open(root.join(&file))?
                    .write_all_at(&bytes, at)
            }),
            (7, Some(file), _) => self.both(|root| {
                OpenOptions::new()
                    .append(true)
                    .open(root.join(&file))?
                    .write_all(&bytes)
            }),
            (8, Some(file), _) => self.both(|root| {
                OpenOptions::new()
                    .write(true)
                    .open(root.join(&file))?
                    .set_len(at)
            }),
            (9, Some(file), _) => self.both(|root| fs::remove_file(root.join(&file))),
            (10, _, _) => self.both(|root| fs::create_dir(root.join(&fresh))),
            // The root of a mount is busy, that of a plain directory merely not empty.
            (11, _, _) if !some_dir.as_os_str().is_empty() => {
                self.both(|root| fs::remove_dir(root.join(&some_dir)))
            }
            (12..14, _, Some(from)) => {
                self.both(|root| fs::rename(root.join(&from), root.join(&fresh)))
            }
            (14, Some(to), Some(from)) => {
                self.both(|root| fs::rename(root.join(&from), root.join(&to)))
            }
            (15, Some(file), _) => {
                self.both(|root| fs::hard_link(root.join(&file), root.join(&fresh)))
            }
            (16, _, _) => self.both(|root| symlink("some/where else", root.join(&fresh))),
            (17, _, Some(path)) => self.both(|root| {
                fs::set_permissions(root.join(&path), fs::Permissions::from_mode(mode | 0o100))
            }),
            (18, Some(file), _) => self.both(|root| set_xattr(&root.join(&file), at % 3, &bytes)),
            (19, Some(file), _) => self.both(|root| {
                let time = UNIX_EPOCH + Duration::new(at, 123_456_789);
                OpenOptions::new()
                    .write(true)
                    .open(root.join(&file))?
                    .set_modified(time)
            }),
            (20, Some(file), _) => {
                self.both(|root| punch(&root.join(&file), at, bytes.len() as u64))
            }
            (21, Some(file), _) => self.save_by_rename(&file, &bytes),
            (22, Some(file), _) => self.both(|root| rewrite(&root.join(&file), &bytes)),
            (23, _, _) => self.both(|root| {
                let path = root.join(&some_dir);
                let dir = fs::File::open(path)?;
                rewindfs::sys::make_node(
                    &dir,
                    fresh.file_name().unwrap().as_encoded_bytes(),
                    libc::S_IFIFO | 0o644,
                    0,
                )
            }),
            _ => {}
        }
    }

    /// As editors save: a new file beside the old one, renamed over it.
    fn save_by_rename(&mut self, file: &Path, front: &[u8]) {
        self.both(|root| {
            let old = fs::read(root.join(file))?;
            let beside = root.join("saving~");
            let mut new = fs::File::create(&beside)?;
            new.write_all(&front[..front.len().min(5)])?;
            new.write_all(&old)?;
            new.sync_all()?;
            fs::rename(beside, root.join(file))
        });
    }

    #[track_caller]
    fn both(&self, operation: impl Fn(&Path) -> std::io::Result<()>) {
        let live = operation(&self.live).map_err(|error| error.raw_os_error());
        let plain = operation(&self.plain).map_err(|error| error.raw_os_error());
        assert_eq!(live, plain, "mount and plain directory answer differently");
    }

    /// Relative paths of what `wanted` lets through, the root left out, sorted.
    fn paths(&self, wanted: impl Fn(&fs::FileType) -> bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(self.plain.join(&dir)).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                let path = dir.join(entry.file_name());
                if kind.is_dir() {
                    pending.push(path.clone());
                }
                if wanted(&kind) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn pick(&mut self, from: &[PathBuf]) -> Option<PathBuf> {
        (!from.is_empty()).then(|| from[self.random.random_range(0..from.len())].clone())
    }

    fn name(&mut self) -> String {
        let long = "n".repeat(self.random.random_range(0..3) * 80);
        format!("{long}{}", self.random.random_range(0..40))
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random.random_range(0..10) {
            0 => 0,
            1..7 => self.random.random_range(1..9_000),
            7..9 => self.random.random_range(9_000..300_000),
            _ => self.random.random_range(1_000_000..3_000_000),
        };
        let mut bytes = vec![0; len];
        self.random.fill(&mut bytes[..]);
        bytes
    }
}

/// Creates or rewrites a file; a pipe of that name is refused instead of waited for.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NONBLOCK);
    options.open(path)?.write_all(bytes)
}

fn set_xattr(path: &Path, which: u64, bytes: &[u8]) -> std::io::Result<()> {
    let file = fs::File::open(path)?;
    let name = format!("user.test{which}");
    match bytes.len() % 4 {
        0 => rewindfs::sys::remove_xattr(&file, name.as_bytes()),
        _ => rewindfs::sys::set_xattr(&file, name.as_bytes(), &bytes[..bytes.len().min(300)], 0),
    }
}

fn punch(path: &Path, at: u64, len: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    rewindfs::sys::allocate(
        &file,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        at,
        len,
    )
}

/// Truncates and writes again, as a shell's `>` does.
fn rewrite(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(3))?;
    file.write_all(b"again")
}
