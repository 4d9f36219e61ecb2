//! The simple workloads of `scripts/bench/live`: run in a directory, each prints how many units a second it did.
//!
//! `load DIR WORKLOAD`. A program of its own and not a script, since an interpreter would cost more per call than what is measured.
#![allow(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// Of the file that is written and read from end to end.
const LARGE_MIB: usize = 256;
/// Writes with an fsync each.
const SYNCED: u64 = 400;
const RANDOM_READS: u64 = 200_000;
/// Files made, looked at and removed: so many that one more timer tick does not matter.
const FILES: usize = 10_000;
/// Directories that they lie in.
const FOLDERS: usize = 10;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dir, workload] = &words[..] else {
        return Err(io::Error::other("usage: load DIR WORKLOAD"));
    };
    let dir = Path::new(dir);
    let large = dir.join("large");
    let rate = match workload.as_str() {
        "write" => write(&large)?,
        "synced" => synced(&large)?,
        "read" => {
            read(&large)?;
            read(&large)?
        }
        "read-once" => read(&large)?,
        "random" => {
            // From the cache, in a mount that is new as well.
            read(&large)?;
            random(&large)?
        }
        "create" => each_file(dir, |path| File::create_new(path)?.write_all(b"x"))?,
        "stat" => each_file(dir, |path| fs::metadata(path).map(drop))?,
        "unlink" => each_file(dir, |path| fs::remove_file(path))?,
        other => return Err(io::Error::other(format!("no such workload: {other}"))),
    };
    println!("{rate}");
    Ok(())
}

/// Bytes a second of writing a new file from end to end and making it durable.
fn write(path: &Path) -> io::Result<f64> {
    let mut block = vec![0; MIB];
    let mut noise = Noise(1);
    block.fill_with(|| noise.next() as u8);
    let began = Instant::now();
    let mut file = File::create_new(path)?;
    for number in 0..LARGE_MIB {
        block[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok((LARGE_MIB * MIB) as f64 / began.elapsed().as_secs_f64())
}

/// Overwrites of one page at random, each made durable, a second.
fn synced(path: &Path) -> io::Result<f64> {
    let file = OpenOptions::new().write(true).open(path)?;
    let mut noise = Noise(2);
    let began = Instant::now();
    for number in 0..SYNCED {
        file.write_all_at(&[number as u8; PAGE], noise.page())?;
        file.sync_data()?;
    }
    Ok(SYNCED as f64 / began.elapsed().as_secs_f64())
}

/// Bytes a second of reading from end to end.
fn read(path: &Path) -> io::Result<f64> {
    let mut block = vec![0; MIB];
    let file = File::open(path)?;
    let began = Instant::now();
    for number in 0..LARGE_MIB {
        file.read_exact_at(&mut block, (number * MIB) as u64)?;
    }
    Ok((LARGE_MIB * MIB) as f64 / began.elapsed().as_secs_f64())
}

/// Reads of one page at random, in memory, a second.
fn random(path: &Path) -> io::Result<f64> {
    let file = File::open(path)?;
    let mut page = vec![0; PAGE];
    let mut noise = Noise(3);
    let began = Instant::now();
    for _ in 0..RANDOM_READS {
        file.read_exact_at(&mut page, noise.page())?;
    }
    Ok(RANDOM_READS as f64 / began.elapsed().as_secs_f64())
}

/// Files a second.
fn each_file(dir: &Path, act: impl Fn(&Path) -> io::Result<()>) -> io::Result<f64> {
    let mut paths: Vec<PathBuf> = Vec::with_capacity(FILES);
    for number in 0..FILES {
        let folder = dir.join(format!("folder{}", number % FOLDERS));
        if number < FOLDERS {
            fs::create_dir_all(&folder)?;
        }
        paths.push(folder.join(format!("file{number}")));
    }
    let began = Instant::now();
    for path in &paths {
        act(path)?;
    }
    Ok(FILES as f64 / began.elapsed().as_secs_f64())
}

/// Numbers without order, the same in each run (xorshift64, Marsaglia 2003).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The offset of a page of the large file.
    fn page(&mut self) -> u64 {
        let pages = (LARGE_MIB * MIB / PAGE) as u64;
        self.next() % pages * PAGE as u64
    }
}
