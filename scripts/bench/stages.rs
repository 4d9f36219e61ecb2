//! What can each stage of a backup do on its own on this machine, and what does the whole pipeline reach?
//!
//! `cargo bench --bench stages [-- DIR]`, which works in a directory of its own in DIR (default /var/tmp): on the disk that is to be measured. 1 GiB
//! that does not compress, as in `first-backup`, from a warm page cache into a repository on the same disk; for compression text
//! beside it. Each stage runs on as many threads as in the pipeline: reading, chunking, content ids and copying into frames on
//! the flow's one, compression and encryption on all cores, writing on one. No pipeline can beat its slowest stage, nor what all stages
//! together ask of the cores that there are: both bounds are printed. Goal: 70 % of its slowest stage.
//!
//! The pipeline's time is that of `mount` and `sync` of the whole, less that of the same with an empty directory: what a mount,
//! a commit and their keys cost is not a matter of bytes. Medians of several runs.
#![allow(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on should fail where it stands"
)]

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rewindfs::chunk::{CHUNK_LEN_MAX, Gear};
use rewindfs::compress::Compression;
use rewindfs::crypto::{AesKeyLen, Ciphertext, VolumeKey, VolumeKeys, random_padding};
use rewindfs::format::frame::{Envelope, FrameKind, Plaintext};
use rewindfs::id::{BlockClass, BlockId, FrameNo, ObjectKey, RepositoryId, SessionId, VolumeId};
use rewindfs::store::{self, Body, Condition, Traffic};

const RUNS: usize = 5;
const MIB: usize = 1 << 20;
/// What is backed up.
const BYTES: usize = 1 << 30;
/// A block's worth: what each stage works on at once.
const BLOCK: usize = 64 * MIB;
/// Frames that the encryption takes at once.
const BATCH: usize = 8;
/// What is written at once, and what direct I/O asks of addresses.
const WRITE: usize = MIB;
const ALIGNMENT: usize = 4096;
/// The pipeline's least share of what its slowest stage can do.
const GOAL: f64 = 0.7;

fn main() {
    // cargo bench adds an argument of its own.
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let dir = given.map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let work = tempfile::Builder::new()
        .prefix("rewindfs-bench-")
        .tempdir_in(&dir)
        .unwrap();
    let work = work.path();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let source = work.join("source");
    fs::create_dir(&source).unwrap();
    fill(&source.join("random"));

    let keys = keys();
    let random = random_padding(BLOCK);
    let read = rate(|| read(&source.join("random")));
    let chunk = rate(|| chunk(&keys, &random));
    let id = rate(|| content_ids(&keys, &random));
    let copy = rate(|| copy(&random));
    let compress = rate(|| compress(&random, cores));
    let text = rate(|| compress_text(cores));
    let encrypt = rate(|| encrypt(&keys, &random, cores));
    let write = rate(|| write(&work.join("written"), &random));
    let upload = rate(|| upload(work, &random));
    let flow = 1.0 / (1.0 / read + 1.0 / chunk + 1.0 / id + 1.0 / copy);
    let n = cores as f64;
    let cpu = n / (1.0 / flow + n / compress + n / encrypt);

    println!("GB/s, medians of {RUNS}; {cores} cores");
    let line = |what: &str, rate: f64| println!("  {what:<46}{rate:7.2}");
    line("read from the page cache", read);
    line("find the ends of chunks", chunk);
    line("content ids", id);
    line("copy into frames", copy);
    line("  these four, one after another", flow);
    line("compress what does not, all cores", compress);
    line("encrypt and authenticate, all cores", encrypt);
    line("write past the page cache, with fdatasync", write);
    line("upload to a folder on the same disk", upload);
    line("(compress text, all cores)", text);
    line("bound by the CPU time of all stages together", cpu);

    let [empty, whole] = [work.join("empty"), source].map(|source| {
        fs::create_dir_all(&source).unwrap();
        median((0..RUNS).map(|_| backup(work, &source).as_secs_f64()))
    });
    let pipeline = BYTES as f64 / (whole - empty) / 1e9;
    let (slowest, name) = [
        (flow, "reading and cutting"),
        (compress, "compression"),
        (encrypt, "encryption"),
        (write, "writing"),
        (upload, "uploading"),
    ]
    .into_iter()
    .min_by(|a, b| a.0.total_cmp(&b.0))
    .unwrap();
    line("the whole pipeline", pipeline);
    println!("  mount and sync {whole:.2} s, of an empty directory {empty:.2} s");
    let share = pipeline / slowest;
    println!(
        "  {:.0} % of its slowest stage ({name}), at least {:.0} %: {}; {:.0} % of what the cores allow",
        share * 100.0,
        GOAL * 100.0,
        if share >= GOAL { "met" } else { "MISSED" },
        pipeline / cpu * 100.0,
    );
}

fn keys() -> VolumeKeys {
    let (repository, volume) = (RepositoryId::random(), VolumeId::random());
    VolumeKeys::new(
        repository,
        volume,
        AesKeyLen::Aes256,
        [(0, VolumeKey::random())],
    )
    .unwrap()
}

fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for _ in 0..BYTES / BLOCK {
        file.write_all(&random_padding(BLOCK)).unwrap();
    }
    file.sync_all().unwrap();
}

/// GB/s of something that says how many bytes it did in what time.
fn rate(mut stage: impl FnMut() -> (usize, Duration)) -> f64 {
    median((0..RUNS).map(|_| {
        let (bytes, took) = stage();
        bytes as f64 / took.as_secs_f64() / 1e9
    }))
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn read(path: &Path) -> (usize, Duration) {
    let file = File::open(path).unwrap();
    let mut buffer = vec![0; MIB];
    let begin = Instant::now();
    for at in (0..BYTES).step_by(MIB) {
        file.read_exact_at(black_box(&mut buffer), at as u64)
            .unwrap();
    }
    (BYTES, begin.elapsed())
}

fn chunk(keys: &VolumeKeys, bytes: &[u8]) -> (usize, Duration) {
    let gear = Gear::new(keys.gear());
    let begin = Instant::now();
    let mut rest = bytes;
    while !rest.is_empty() {
        let window = &rest[..rest.len().min(CHUNK_LEN_MAX)];
        rest = &rest[black_box(gear.cut(window))..];
    }
    (bytes.len(), begin.elapsed())
}

fn content_ids(keys: &VolumeKeys, bytes: &[u8]) -> (usize, Duration) {
    let begin = Instant::now();
    for chunk in bytes.chunks(MIB / 2) {
        black_box(keys.content_id(chunk));
    }
    (bytes.len(), begin.elapsed())
}

fn copy(bytes: &[u8]) -> (usize, Duration) {
    let mut frames: Vec<Vec<u8>> = vec![vec![1; MIB]; 2 * BATCH];
    let begin = Instant::now();
    for (number, chunk) in bytes.chunks(MIB).enumerate() {
        let at = number % frames.len();
        black_box(&mut frames[at][..chunk.len()]).copy_from_slice(chunk);
    }
    (bytes.len(), begin.elapsed())
}

/// As many threads as there are cores, each with the same work.
fn on_all_cores(cores: usize, work: impl Fn() -> usize + Sync) -> (usize, Duration) {
    let begin = Instant::now();
    let bytes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(&work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    (bytes, begin.elapsed())
}

fn compress(bytes: &[u8], cores: usize) -> (usize, Duration) {
    // Its time must not be that of making the frames.
    let frames = || -> Vec<Plaintext> { bytes.chunks(MIB).map(Plaintext::from).collect() };
    let prepared: Vec<_> = (0..cores)
        .map(|_| std::sync::Mutex::new(Some(frames())))
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    on_all_cores(cores, || {
        let mine = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let frames = prepared[mine].lock().unwrap().take().unwrap();
        for frame in frames {
            black_box(Envelope::close(frame, Compression::default()));
        }
        bytes.len()
    })
}

/// Words in no order, which shrink to less than a half, as text does.
fn compress_text(cores: usize) -> (usize, Duration) {
    let words = random_padding(4096);
    let mut text = Vec::with_capacity(BLOCK / 4);
    let mut at = 1u64;
    while text.len() < BLOCK / 4 {
        at = at
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (word, len) = ((at >> 40) as usize % 4000, at as usize % 8);
        text.extend(
            words[word..word + 2 + len]
                .iter()
                .map(|byte| b'a' + byte % 26),
        );
        text.push(b' ');
    }
    compress(&text, cores)
}

fn encrypt(keys: &VolumeKeys, bytes: &[u8], cores: usize) -> (usize, Duration) {
    let id = |number| BlockId {
        key_epoch: 0,
        class: BlockClass::Data,
        session: SessionId::random(),
        number,
    };
    let close = |chunk: &[u8]| Envelope::pack(chunk, Compression::Off);
    let batches = |_| -> Vec<Vec<Envelope>> {
        let frames = bytes.chunks(MIB).map(close).collect::<Vec<_>>();
        let mut frames = frames.into_iter();
        (0..BLOCK / MIB / BATCH)
            .map(|_| frames.by_ref().take(BATCH).collect())
            .collect()
    };
    let prepared: Vec<_> = (0..cores)
        .map(|core| std::sync::Mutex::new(batches(core)))
        .collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    on_all_cores(cores, || {
        let mine = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let batches = std::mem::take(&mut *prepared[mine].lock().unwrap());
        let block = keys.block(id(mine as u32));
        for (number, batch) in (0..).zip(batches) {
            let frames: Vec<Ciphertext> =
                block.encrypt(FrameNo(number * BATCH as u32), FrameKind::Data, None, batch);
            black_box(frames);
        }
        bytes.len()
    })
}

/// As the spool does: 1 MiB at a time past the page cache where the file system can, made durable at the end of each block.
fn write(path: &Path, bytes: &[u8]) -> (usize, Duration) {
    let mut buffer = vec![0; WRITE + ALIGNMENT];
    let front = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer[front..front + WRITE].copy_from_slice(&bytes[..WRITE]);
    let aligned = &buffer[front..front + WRITE];
    let begin = Instant::now();
    for block in 0..4 {
        let path = path.with_extension(block.to_string());
        let direct = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        let file = direct.or_else(|_| File::create(&path)).unwrap();
        for at in (0..BLOCK).step_by(WRITE) {
            file.write_all_at(aligned, at as u64).unwrap();
        }
        file.sync_data().unwrap();
    }
    let took = begin.elapsed();
    for block in 0..4 {
        fs::remove_file(path.with_extension(block.to_string())).unwrap();
    }
    (4 * BLOCK, took)
}

/// Blocks that lie durable in the spool, into a folder: a name each, and the question whether they are there.
fn upload(work: &Path, bytes: &[u8]) -> (usize, Duration) {
    let (folder, spool) = (work.join("folder"), work.join("spooled"));
    let file = File::create(&spool).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_all().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let location = folder.to_str().unwrap().parse().unwrap();
    let took = runtime.block_on(async {
        store::create(&location).await.unwrap();
        let store = store::open(&location, &Traffic::default()).await.unwrap();
        let begin = Instant::now();
        for number in 0..BYTES / BLOCK {
            let key = ObjectKey::new(format!("v/block{number}"));
            let body = Body::File {
                path: spool.clone(),
                len: bytes.len() as u64,
            };
            store.put_if(&key, body, Condition::Absent).await.unwrap();
            assert_eq!(store.head(&key).await.unwrap(), Some(bytes.len() as u64));
        }
        begin.elapsed()
    });
    fs::remove_dir_all(&folder).unwrap();
    (BYTES, took)
}

/// `mount` and `sync` of a directory into a new repository.
fn backup(work: &Path, source: &Path) -> Duration {
    let run = tempfile::tempdir_in(work).unwrap();
    let at = |name: &str| run.path().join(name);
    let rewindfs = |arguments: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rewindfs"));
        for home in ["CONFIG", "DATA", "STATE", "CACHE"] {
            command.env(format!("XDG_{home}_HOME"), at(home));
        }
        command
            .env("REWINDFS_PASSWORD", "benchmark")
            .env("REWINDFS_REPO", at("repository"));
        let done = command.args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "rewindfs {arguments:?}: {said}");
    };
    rewindfs(&[Path::new("init"), &at("repository")]);
    fs::create_dir(at("mount")).unwrap();
    // Nobody else's writing is waited for.
    Command::new("sync").status().unwrap();
    let begin = Instant::now();
    rewindfs(&[Path::new("mount"), source, &at("mount")]);
    rewindfs(&[Path::new("sync"), &at("mount")]);
    let took = begin.elapsed();
    rewindfs(&[Path::new("umount"), &at("mount")]);
    took
}
