//! Opening the journal after whatever has happened. On any doubt the database is set aside, never repaired: it is only a
//! hint, and a hint that lies is worse than none.
//!
//! Beside the database lies a small fsynced marker that says which database belongs here, in which boot it was last open, and
//! whether it was closed in order. sled finds damage by panicking, or not at all; so it is opened on a thread of its own with a time
//! limit, every record is read once, and the marker's identity must be found inside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::id::{EpochNo, SessionId};
use crate::journal::LastStop;
use crate::journal::record::{ANY, Key, Noted, Value};
use crate::sys;

/// The longest that opening may take: ten million records take under a second.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long sled's own lock is waited for. Only a sled that was closed in this process a moment ago can have it, since ours is taken before:
/// its threads let go of their files some time after it is gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
/// How long our own is waited for. A child process has, until it becomes another program, whatever its parent had open; and a process that was
/// killed a moment ago may not be quite gone.
const OWN_LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at either.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// sled's page cache. The journal is small and seldom read.
const CACHE_BYTES: u64 = 8 << 20;
/// Databases set aside that are kept, for somebody to look at.
const SET_ASIDE_MAX: u32 = 3;

const DATABASE: &str = "db";
const MARKER: &str = "marker";
const LOCK: &str = "lock";
const FIRST_LINE: &str = "rewindfs journal 1";
/// The key of the database's own identity: longer than a record's.
const IDENTITY_KEY: &[u8] = b"rewindfs journal identity";

/// All that an open journal is made of.
pub(super) struct Opened {
    pub(super) database: sled::Db,
    pub(super) log: File,
    pub(super) marker: Marker,
    pub(super) marker_path: PathBuf,
    pub(super) lock: File,
    pub(super) same_boot: bool,
    pub(super) noted: Noted,
    pub(super) stop: LastStop,
}

/// What stands in the marker file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Marker {
    /// Which database belongs here.
    database: SessionId,
    /// The boot in which it was opened.
    boot: String,
    /// How often it was opened.
    life: u64,
    /// Closed in order.
    pub(super) clean: bool,
    /// The highest epoch recorded, if closed in order.
    pub(super) epoch: EpochNo,
    /// How many entries the database had then.
    pub(super) records: u64,
}

/// Opens the journal in `dir`, making it if it is not there. What `is_doubtful` says of the last life's end is remembered until all has
/// been compared, also if this life is killed before: the marker, which the next one goes by, is written after it.
pub(super) fn open(dir: &Path, is_doubtful: impl Fn(&LastStop) -> bool) -> io::Result<Opened> {
    fs::create_dir_all(dir)?;
    let lock = take_lock(dir)?;
    let marker_path = dir.join(MARKER);
    // A name that never matches where the kernel gives none.
    let boot = sys::boot_id().unwrap_or_else(|_| SessionId::random().to_string());
    let before = Marker::read(&marker_path);
    let same_boot = matches!(&before, Ok(Some(marker)) if marker.boot == boot);
    let life = before
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map_or(1, |marker| marker.life + 1);

    let (database, mut noted, stop) = match reopen(dir, before) {
        Ok(Some((database, marker))) => {
            let stop = match marker.clean {
                true => LastStop::Clean,
                false if same_boot => LastStop::Crashed,
                false => LastStop::Rebooted,
            };
            load(&database, life).map(|noted| (database, noted, stop))
        }
        Ok(None) => start(dir).map(|database| (database, Noted::new(life), LastStop::New)),
        Err(why) => Err(why),
    }
    .or_else(|why| {
        let aside = set_aside(dir)?;
        let database = start(dir).map_err(io::Error::other)?;
        let stop = LastStop::SetAside(format!("{}: {why}", aside.display()));
        Ok::<_, io::Error>((database, Noted::new(life), stop))
    })?;

    let identity = identity(&database).map_err(io::Error::other)?;
    if is_doubtful(&stop) && doubt_all(&database).map_err(io::Error::other)? {
        noted.adopt(ANY);
    }
    let marker = Marker {
        database: identity,
        boot,
        life,
        clean: false,
        epoch: EpochNo(0),
        records: 0,
    };
    let log = File::open(dir.join(DATABASE).join("db"))?;
    log.sync_data()?;
    marker.write(&marker_path)?;
    let opened = Opened {
        database,
        log,
        marker,
        marker_path,
        lock,
        same_boot,
        noted,
        stop,
    };
    Ok(opened)
}

fn take_lock(dir: &Path) -> io::Result<File> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK))?;
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if begun.elapsed() < OWN_LOCK_PATIENCE => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                let why = "the journal is in use by another process";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// The database of the life before with its marker; `None` if there was none; else why it cannot be used.
fn reopen(
    dir: &Path,
    marker: Result<Option<Marker>, String>,
) -> Result<Option<(sled::Db, Marker)>, String> {
    let there = dir.join(DATABASE).join("db").exists();
    let marker = match (marker?, there) {
        (None, false) => return Ok(None),
        (None, true) => return Err("its marker is missing".into()),
        (Some(_), false) => return Err("the database is missing".into()),
        (Some(marker), true) => marker,
    };
    let database = open_database(dir)?;
    if !database.was_recovered() || identity(&database)? != marker.database {
        return Err("the database is not the one that the marker names".into());
    }
    let found = database.len() as u64;
    if marker.clean && found != marker.records {
        return Err(format!(
            "it has {found} entries, {} when it was closed",
            marker.records
        ));
    }
    Ok(Some((database, marker)))
}

/// Reads every record once.
fn load(database: &sled::Db, life: u64) -> Result<Noted, String> {
    let mut noted = Noted::new(life);
    guarded(|| {
        for entry in database.iter() {
            let (key, value) = entry.map_err(|error| format!("read: {error}"))?;
            if key == IDENTITY_KEY {
                continue;
            }
            let (Some(key), Some(_)) = (Key::parse(&key), Value::parse(&value)) else {
                return Err("it holds something that is not a record".into());
            };
            noted.adopt(key);
        }
        Ok(())
    })?;
    Ok(noted)
}

/// A new database with an identity of its own, durable.
fn start(dir: &Path) -> Result<sled::Db, String> {
    let database = open_database(dir)?;
    guarded(|| {
        database
            .insert(IDENTITY_KEY, &SessionId::random().0)
            .and_then(|_| database.flush())
            .map_err(|error| format!("begin: {error}"))
    })?;
    let synced = File::open(dir.join(DATABASE)).and_then(|made| made.sync_all());
    synced.map_err(|error| format!("sync {DATABASE}: {error}"))?;
    Ok(database)
}

/// Records that any file may have been touched before this life; whether there was no such record.
fn doubt_all(database: &sled::Db) -> Result<bool, String> {
    let before = Value {
        life: 0,
        epoch: EpochNo(0),
    };
    guarded(|| {
        let doubted = database.insert(ANY.bytes(), &before.bytes());
        let written = doubted.and_then(|doubted| database.flush().map(|_| doubted.is_none()));
        written.map_err(|error| format!("doubt: {error}"))
    })
}

fn identity(database: &sled::Db) -> Result<SessionId, String> {
    let found = guarded(|| {
        database
            .get(IDENTITY_KEY)
            .map_err(|error| error.to_string())
    })?;
    let bytes = found.ok_or("the database has no identity")?;
    let bytes = bytes.as_ref().try_into();
    Ok(SessionId(
        bytes.map_err(|_| "the database's identity is damaged")?,
    ))
}

/// Opens sled on a thread of its own: a damaged database may make it panic, or never return.
fn open_database(dir: &Path) -> Result<sled::Db, String> {
    let config = sled::Config::new()
        .path(dir.join(DATABASE))
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("journal-open".into())
        .spawn(move || {
            let opened = guarded(|| open_unlocked(&config).map_err(|error| error.to_string()));
            // Nobody listens any more if it took too long.
            let _too_late = sender.send(opened);
        })
        .map_err(|error| format!("start a thread: {error}"))?;
    receiver
        .recv_timeout(OPEN_TIMEOUT)
        .unwrap_or_else(|_| Err(format!("opening it takes longer than {OPEN_TIMEOUT:?}")))
}

/// Opens the database once nobody has it locked, or fails after [`LOCK_PATIENCE`].
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    let begun = Instant::now();
    loop {
        match config.open() {
            // sled has no variant of its own for this.
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && begun.elapsed() < LOCK_PATIENCE =>
            {
                thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Calls into sled, turning panics into errors.
fn guarded<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err("sled panicked".into()))
}

/// Moves the database out of the way and says where to; the oldest ones beyond [`SET_ASIDE_MAX`] are removed.
fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let place = |number: u32| dir.join(format!("{DATABASE}.set-aside-{number}"));
    let last = place(SET_ASIDE_MAX);
    if last.exists() {
        fs::remove_dir_all(&last)?;
    }
    for number in (1..SET_ASIDE_MAX).rev() {
        if place(number).exists() {
            fs::rename(place(number), place(number + 1))?;
        }
    }
    if dir.join(DATABASE).exists() {
        fs::rename(dir.join(DATABASE), place(1))?;
    }
    Ok(place(1))
}

impl Marker {
    /// `None` if there is none; an error if it cannot be understood.
    fn read(path: &Path) -> Result<Option<Self>, String> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text)
                .map(Some)
                .ok_or_else(|| "its marker is damaged".into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("read its marker: {error}")),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == FIRST_LINE).then_some(())?;
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let marker = Self {
            database: SessionId::from_hex(field("database")?)?,
            boot: field("boot")?.to_owned(),
            life: field("life")?.parse().ok()?,
            clean: match field("clean")? {
                "yes" => true,
                "no" => false,
                _ => return None,
            },
            epoch: EpochNo(field("epoch")?.parse().ok()?),
            records: field("records")?.parse().ok()?,
        };
        (field("end")? == ".").then_some(marker)
    }

    fn text(&self) -> String {
        let clean = if self.clean { "yes" } else { "no" };
        let Self {
            database,
            boot,
            life,
            epoch,
            records,
            ..
        } = self;
        format!(
            "{FIRST_LINE}\ndatabase {database}\nboot {boot}\nlife {life}\nclean {clean}\n\
             epoch {epoch}\nrecords {records}\nend .\n"
        )
    }

    /// Replaces the marker file, durably.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory_of(path)
    }
}

/// Removes the marker file, durably, if there is one: the database is then set aside by whoever opens it next.
pub(super) fn remove_marker(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_directory_of(path),
    }
}

fn sync_directory_of(marker: &Path) -> io::Result<()> {
    let dir = marker
        .parent()
        .expect("the marker lies in the journal's directory");
    File::open(dir)?.sync_all()
}
