//! A disk that remembers: an image file, shown through FUSE to a loop device, which notes every write and every flush. From that can
//! be made what a real disk may hold after a power cut: all that was written before a flush that has returned, and of
//! what was written after it any part, each write whole, in pieces or not at all. And it can decay: sectors that cannot be read any more.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

/// Sparse; the load keeps well below it.
const LEN: u64 = 512 << 20;
/// What a disk writes in one piece.
const SECTOR: usize = 512;
const NAME: &str = "disk";
const INODE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);

/// What has reached the disk.
enum Event {
    Write { at: u64, bytes: Vec<u8> },
    Flush,
}

type Log = Arc<Mutex<Vec<Event>>>;

/// Where it cannot be read.
type Decayed = Arc<Mutex<Vec<Range<u64>>>>;

/// A file system on a remembering disk, mounted. Unmounted when dropped.
pub(crate) struct Disk {
    log: Log,
    decayed: Decayed,
    /// What it holds.
    live: PathBuf,
    device: String,
    place: PathBuf,
    shown: PathBuf,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Whether this machine can have one; says so aloud if not.
    pub(crate) fn is_possible(test: &str) -> bool {
        let runs = |program: &str| {
            let asked = Command::new(program).arg("-V").output();
            asked.is_ok()
        };
        let there = Path::new("/dev/loop-control").exists();
        let possible =
            there && rewindfs::sys::effective_uid() == 0 && runs("losetup") && runs("mkfs.ext4");
        if !possible {
            eprintln!("SKIPPED {test}: it needs root, loop devices and mkfs.ext4");
        }
        possible
    }

    /// An empty ext4, mounted at `place` with these options. `image` is what it begins as, and is left so.
    pub(crate) fn mount(image: &Path, work: &Path, place: &Path, options: &str) -> Self {
        File::create(image).unwrap().set_len(LEN).unwrap();
        must("mkfs.ext4", &[OsStr::new("-q"), image.as_os_str()]);
        let live = work.join("live");
        copy(image, &live);
        let shown = work.join("shown");
        std::fs::create_dir(&shown).unwrap();
        let (log, decayed) = (Log::default(), Decayed::default());
        let backing = File::options().read(true).write(true).open(&live);
        let front = Front {
            backing: backing.unwrap(),
            log: Arc::clone(&log),
            decayed: Arc::clone(&decayed),
        };
        let mut config = Config::default();
        config.n_threads = Some(1);
        let session = Session::new(front, &shown, &config).and_then(Session::spawn);
        let mut disk = Self {
            log,
            decayed,
            live,
            device: String::new(),
            place: place.to_owned(),
            session: Some(session.unwrap()),
            shown,
        };
        let file = disk.shown.join(NAME);
        let arguments = ["--show", "--find", "--direct-io=on"].map(OsStr::new);
        let shown = must("losetup", &[&arguments[..], &[file.as_os_str()]].concat());
        disk.device = shown.trim().to_owned();
        let arguments = ["-o", options, &disk.device].map(OsStr::new);
        must("mount", &[&arguments[..], &[place.as_os_str()]].concat());
        disk
    }

    /// The instant among these at which the most writes have not been flushed, and how many.
    pub(crate) fn worst_of(&self, instants: RangeInclusive<usize>) -> (usize, usize) {
        let log = self.log.lock();
        let at_stake = |events: usize| {
            let back = log[..events].iter().rev();
            back.take_while(|event| !matches!(event, Event::Flush))
                .count()
        };
        let judged = instants.map(|events| (events, at_stake(events)));
        let worst = judged.max_by_key(|(_, at_stake)| *at_stake);
        worst.expect("an inclusive range is never empty")
    }

    /// From now on the place where these bytes lie cannot be read: a page of a file, which nothing else is like.
    pub(crate) fn decay(&self, page: &[u8]) {
        let at = self.place_of(page);
        self.decayed.lock().push(at..at + page.len() as u64);
    }

    /// The place where these bytes lie holds others from now on, as many, and no file system has been told.
    pub(crate) fn exchange(&self, page: &[u8], other: &[u8]) {
        let image = File::options().write(true).open(&self.live).unwrap();
        image.write_all_at(other, self.place_of(page)).unwrap();
    }

    fn place_of(&self, page: &[u8]) -> u64 {
        let image = File::open(&self.live).unwrap();
        let mut found = vec![0; page.len()];
        let places = (0..LEN).step_by(page.len()).filter(|&at| {
            image.read_exact_at(&mut found, at).unwrap();
            found == page
        });
        let places: Vec<u64> = places.collect();
        assert_eq!(places.len(), 1, "it lies in one place");
        places[0]
    }

    /// It can be read everywhere again.
    pub(crate) fn mend(&self) {
        self.decayed.lock().clear();
    }

    /// How much has happened so far.
    pub(crate) fn events(&self) -> usize {
        self.log.lock().len()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let quietly = |program: &str, arguments: &[&OsStr]| {
            Command::new(program).args(arguments).status().ok();
        };
        quietly("umount", &["-l".as_ref(), self.place.as_os_str()]);
        if !self.device.is_empty() {
            quietly("losetup", &["-d".as_ref(), self.device.as_ref()]);
        }
        quietly("umount", &["-l".as_ref(), self.shown.as_os_str()]);
        drop(self.session.take());
    }
}

/// Makes what the disk may hold after a power cut, one instant after the other.
pub(crate) struct Cuts {
    log: Log,
    /// All that was written before the last flush of the instant before.
    durable: PathBuf,
    upto: usize,
}

impl Cuts {
    /// Of `disk`, which began as `image`; that is used up.
    pub(crate) fn of(disk: &Disk, image: &Path) -> Self {
        Self {
            log: Arc::clone(&disk.log),
            durable: image.to_owned(),
            upto: 0,
        }
    }

    /// Writes to `image` what the disk may hold if power fails after `events`, which must not be fewer than the last time.
    pub(crate) fn at(&mut self, events: usize, image: &Path, random: &mut StdRng) -> String {
        let log = self.log.lock();
        let flushed = log[..events]
            .iter()
            .rposition(|event| matches!(event, Event::Flush))
            .unwrap_or(0)
            .max(self.upto);
        let file = File::options().write(true).open(&self.durable).unwrap();
        for event in &log[self.upto..flushed] {
            if let Event::Write { at, bytes } = event {
                file.write_all_at(bytes, *at).unwrap();
            }
        }
        self.upto = flushed;
        drop(file);

        copy(&self.durable, image);
        let file = File::options().write(true).open(image).unwrap();
        let kept = f64::from(random.random_range(0..=4)) / 4.0;
        let (mut written, mut torn, mut lost) = (0, 0, 0);
        for event in &log[flushed..events] {
            let Event::Write { at, bytes } = event else {
                continue;
            };
            match random.random_bool(kept) {
                false => lost += 1,
                true if random.random_bool(0.1) => {
                    torn += 1;
                    tear(&file, *at, bytes, random).unwrap();
                }
                true => {
                    written += 1;
                    file.write_all_at(bytes, *at).unwrap();
                }
            }
        }
        format!(
            "after {events} events; of those since the flush at {flushed}: {written} writes whole, {torn} torn, {lost} lost"
        )
    }
}

/// Writes some of the sectors.
fn tear(file: &File, at: u64, bytes: &[u8], random: &mut StdRng) -> io::Result<()> {
    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
        if random.random_bool(0.5) {
            file.write_all_at(sector, at + (number * SECTOR) as u64)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    must(
        "cp",
        &["--sparse=always".as_ref(), from.as_os_str(), to.as_os_str()],
    );
}

/// Runs a command, which must succeed, and gives what it wrote.
#[track_caller]
pub(crate) fn must(program: &str, arguments: &[&OsStr]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one file.
struct Front {
    backing: File,
    log: Log,
    decayed: Decayed,
}

fn attributes(inode: INodeNo) -> FileAttr {
    let (kind, size) = match inode {
        INodeNo::ROOT => (FileType::Directory, 0),
        _ => (FileType::RegularFile, LEN),
    };
    FileAttr {
        ino: inode,
        size,
        blocks: size / SECTOR as u64,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Front {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == NAME {
            true => reply.entry(&TTL, &attributes(INODE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let wanted = at..at + u64::from(len);
        let decayed = self.decayed.lock();
        let within = |bad: &Range<u64>| bad.start < wanted.end && wanted.start < bad.end;
        if decayed.iter().any(within) {
            return reply.error(Errno::EIO);
        }
        drop(decayed);
        let mut bytes = vec![0; len as usize];
        match self.backing.read_exact_at(&mut bytes, at) {
            Ok(()) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        at: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.backing.write_all_at(bytes, at).unwrap();
        let bytes = bytes.to_vec();
        let len = bytes.len() as u32;
        self.log.lock().push(Event::Write { at, bytes });
        reply.written(len);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.log.lock().push(Event::Flush);
        reply.ok();
    }
}
