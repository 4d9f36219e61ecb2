//! Programs at work in a mount that may die under them: each in a directory of its own, doing what editors, databases and builds
//! do, and remembering what it was told had been done.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Programs at once.
const WRITERS: u64 = 4;
/// Names in a program's directory, so that it does not grow for ever.
const NAMES: u32 = 24;
/// Requests that may meet a process while it is being killed, one after the other.
const ASKED_MAX: u32 = 100;
/// Files that a writer stamps in order.
const STAMPED: u64 = 3;
/// Files that nobody had mounted anything for yet.
const LEFT_BEHIND: u32 = 8;
/// A file that is written in place; its length in bytes.
const LARGE_LEN: u64 = 8 << 20;

/// Programs at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    safe: Vec<Arc<AtomicU64>>,
    writers: Vec<JoinHandle<Written>>,
}

/// What one program knows when it ends.
pub(crate) struct Written {
    dir: PathBuf,
    /// The highest count that it was told stands in all its stamped files.
    stamped: u64,
    /// Why it ended, if it was not asked to.
    pub(crate) error: Option<io::Error>,
}

impl Load {
    /// Starts them in `root`.
    pub(crate) fn begin(root: &Path, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let safe: Vec<Arc<AtomicU64>> = (0..WRITERS).map(|_| Arc::default()).collect();
        let writers = (0..WRITERS).zip(&safe).map(|(number, safe)| {
            let stop = Arc::clone(&stop);
            let mut writer = Writer {
                dir: root.join(format!("writer-{number}")),
                random: StdRng::seed_from_u64(seed ^ (number << 56)),
                count: 0,
                safe: Arc::clone(safe),
            };
            std::thread::spawn(move || {
                let error = writer.work(&stop).err();
                let error = error.map(|error| why(error, &writer.dir.join("aside")));
                Written {
                    dir: writer.dir,
                    stamped: writer.count,
                    error,
                }
            })
        });
        let writers = writers.collect();
        Self {
            stop,
            safe,
            writers,
        }
    }

    /// The counts that fsync has told each program to be safe.
    pub(crate) fn safe(&self) -> Vec<u64> {
        let counts = self.safe.iter();
        counts.map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// Ends them; what each knows.
    pub(crate) fn end(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.writers.into_iter();
        ended.map(|writer| writer.join().unwrap()).collect()
    }
}

impl Written {
    /// Whether what it was told is so, in the order in which it was.
    pub(crate) fn check(&self) {
        let mut above = u64::MAX;
        for number in 0..STAMPED {
            let stands = read_stamp(&self.dir, number);
            assert!(
                stands >= self.stamped,
                "{}: {stands} stands in stamp-{number}, {} was acknowledged",
                self.dir.display(),
                self.stamped
            );
            assert!(
                stands <= above,
                "{}: stamp-{number} is ahead of what is written before it",
                self.dir.display()
            );
            above = stands;
        }
    }

    /// Whether it ended because the mount had died, or was asked to: nothing else may fail.
    pub(crate) fn must_have_been_cut_off(&self) {
        must_be_a_cut_off(&self.dir.display().to_string(), self.error.as_ref());
    }
}

/// A request that the kernel is handing over to a process that is being killed fails with EIO, as one that the mount itself fails would. The
/// requests that follow, for `path`, tell which it was.
pub(crate) fn why(error: io::Error, path: &Path) -> io::Error {
    let is_vague = |error: &io::Error| error.raw_os_error() == Some(libc::EIO);
    if !is_vague(&error) {
        return error;
    }
    let asked = (0..ASKED_MAX).find_map(|_| match open(path) {
        Err(again) if is_vague(&again) => None,
        answer => Some(answer.err()),
    });
    asked.flatten().unwrap_or(error)
}

/// Whether a program ended for no other reason than that the mount had died.
pub(crate) fn must_be_a_cut_off(who: &str, error: Option<&io::Error>) {
    let fits = error.is_none_or(|error| {
        matches!(
            error.raw_os_error(),
            Some(libc::ENOTCONN | libc::ECONNABORTED)
        )
    });
    assert!(fits, "{who}: {error:?}");
}

/// Files of before anything was mounted: written over in place a moment ago, so that no disk has yet what they hold.
pub(crate) fn leave_behind(root: &Path, random: &mut StdRng) {
    for number in 0..LEFT_BEHIND {
        let mut file = File::create(root.join(format!("left-behind-{number}"))).unwrap();
        let mut bytes = vec![0; random.random_range(1..300_000)];
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        random.fill(&mut bytes[..]);
        file.write_all_at(&bytes, 0).unwrap();
    }
}

/// The count that a program had made safe, as it stands in `root`; 0 if there is none.
pub(crate) fn read_safe(root: &Path, writer: usize) -> u64 {
    read_count(&root.join(format!("writer-{writer}/safe")))
}

fn read_stamp(dir: &Path, number: u64) -> u64 {
    read_count(&dir.join(format!("stamp-{number}")))
}

/// The count in a file; 0 if it is not there or empty yet.
fn read_count(path: &Path) -> u64 {
    let mut bytes = [0; 8];
    match File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0)) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

struct Writer {
    dir: PathBuf,
    random: StdRng,
    count: u64,
    safe: Arc<AtomicU64>,
}

impl Writer {
    fn work(&mut self, stop: &AtomicBool) -> io::Result<()> {
        match fs::create_dir(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // The last of them: a life that was cut short between two has left the first ahead of it.
        self.count = read_stamp(&self.dir, STAMPED - 1);
        let large = open(&self.dir.join("large"))?;
        if large.metadata()?.len() < LARGE_LEN {
            large.set_len(LARGE_LEN)?;
        }
        let stamped: Vec<File> = (0..STAMPED)
            .map(|number| open(&self.dir.join(format!("stamp-{number}"))))
            .collect::<io::Result<_>>()?;
        let safe = open(&self.dir.join("safe"))?;
        while !stop.load(Ordering::Relaxed) {
            self.stamp(&stamped)?;
            match self.random.random_range(0..16) {
                0 => self.make_safe(&safe)?,
                1..=4 => self.overwrite(&large)?,
                _ => self.play()?,
            }
        }
        Ok(())
    }

    /// The next count into each file in turn: no moment has a later file ahead of an earlier one.
    fn stamp(&mut self, files: &[File]) -> io::Result<()> {
        let next = self.count + 1;
        for file in files {
            file.write_all_at(&next.to_le_bytes(), 0)?;
        }
        self.count = next;
        Ok(())
    }

    fn make_safe(&self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.count.to_le_bytes(), 0)?;
        file.sync_data()?;
        self.safe.store(self.count, Ordering::SeqCst);
        Ok(())
    }

    fn overwrite(&mut self, large: &File) -> io::Result<()> {
        let len = self.random.random_range(1..200_000);
        let at = self.random.random_range(0..LARGE_LEN - len);
        large.write_all_at(&self.bytes(len as usize), at)
    }

    /// One thing that programs do to files of changing names.
    fn play(&mut self) -> io::Result<()> {
        let (path, other) = (self.name(), self.name());
        let done = match self.random.random_range(0..12) {
            0..=2 => self.save(&path),
            3 => append(&path, &self.short()),
            4 => fs::rename(&path, &other),
            5 => fs::remove_file(&path),
            6 => fs::hard_link(&path, &other),
            7 => symlink("somewhere", &path),
            8 => open(&path).and_then(|file| file.set_len(self.random.random_range(0..50_000))),
            9 => fs::set_permissions(&path, fs::Permissions::from_mode(0o640)),
            10 => fs::create_dir(self.dir.join("inner"))
                .and_then(|()| fs::write(self.dir.join("inner/file"), self.short())),
            _ => fs::remove_file(self.dir.join("inner/file"))
                .and_then(|()| fs::remove_dir(self.dir.join("inner"))),
        };
        match done {
            Err(error) if !is_the_plays_own(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// As editors do: written aside, made durable, renamed over.
    fn save(&mut self, path: &Path) -> io::Result<()> {
        let aside = self.dir.join("aside");
        let mut file = File::create(&aside)?;
        file.write_all(&self.short())?;
        if self.random.random_range(0..4) == 0 {
            file.sync_all()?;
        }
        fs::rename(aside, path)
    }

    fn name(&mut self) -> PathBuf {
        let number = self.random.random_range(0..NAMES);
        self.dir.join(format!("name-{number}"))
    }

    fn short(&mut self) -> Vec<u8> {
        let len = self.random.random_range(0..40_000);
        self.bytes(len)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.random.fill(&mut bytes[..]);
        bytes
    }
}

/// What happens when names are played with blindly.
fn is_the_plays_own(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EEXIST | libc::ELOOP)
    )
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(bytes)
}
