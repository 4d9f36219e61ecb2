//! A world of its own for one test: directories, a repository, and the real program run in them.
//!
//! Dropping it unmounts whatever is left and removes everything, also when the test fails.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::s3_server::S3Server;

/// Whether this machine can mount at all. Where it cannot, the test says so; the caller returns.
pub(crate) fn can_mount(test: &str) -> bool {
    let there = Path::new("/dev/fuse").exists() && which("fusermount3");
    if !there {
        eprintln!("SKIPPED {test}: no /dev/fuse or no fusermount3 on this machine");
    }
    there
}

fn which(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// What opens the repositories.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// For so long a mount may be in use by a process that is just starting.
const IN_USE_MAX: Duration = Duration::from_secs(60);

/// Directories and settings of one test.
pub(crate) struct World {
    root: TempDir,
    /// Where the source and the state lie.
    disk: PathBuf,
    repo: String,
    environment: Vec<(&'static str, String)>,
}

impl World {
    /// A world with a local repository that is yet to be made.
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("rewindfs-test-")
            .tempdir()
            .unwrap();
        let repo = root.path().join("repository").to_str().unwrap().to_owned();
        std::fs::create_dir(root.path().join("source")).unwrap();
        Self {
            disk: root.path().to_owned(),
            root,
            repo,
            environment: Vec::new(),
        }
    }

    /// The same with a repository at `place`, on that server or on the way to it.
    pub(crate) fn on_s3(server: &S3Server, place: &str) -> Self {
        let mut world = Self::new();
        world.repo = place.to_owned();
        let environment = server.environment().into_iter();
        world.environment = environment
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        world
    }

    /// The program runs with these settings from now on, instead of those that let it in.
    #[allow(dead_code, reason = "tests/fuse alone changes credentials")]
    pub(crate) fn set_environment(&mut self, environment: Vec<(&'static str, String)>) {
        self.environment = environment;
    }

    /// The same, but source and state lie in the directory `disk` of it, on which the caller mounts a disk.
    #[allow(dead_code, reason = "tests/crash alone takes disks away")]
    pub(crate) fn with_disk(disk: &str) -> Self {
        let mut world = Self::new();
        world.disk = world.dir(disk);
        world
    }

    /// The protected directory, which is also where it is mounted.
    pub(crate) fn source(&self) -> PathBuf {
        self.disk.join("source")
    }

    /// Where the program keeps what it knows.
    pub(crate) fn state(&self) -> PathBuf {
        self.disk.join("state")
    }

    /// A path in this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// An empty directory in this world.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The program with these arguments, to be run.
    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rewindfs"));
        command
            .args(arguments)
            .env("REWINDFS_REPO", &self.repo)
            .env("REWINDFS_PASSWORD", PASSWORD)
            .env("REWINDFS_STATE_DIR", self.state())
            .env("REWINDFS_CACHE_DIR", self.path("cache"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("data"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program and gives what it wrote and how it ended.
    pub(crate) fn try_run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program, which must succeed, and gives its standard output.
    pub(crate) fn run<A: AsRef<OsStr> + std::fmt::Debug>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> String {
        let mut command = self.command(arguments);
        let output = when_unused(&mut command);
        assert!(
            output.status.success(),
            "{command:?}\nended with {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes the repository.
    pub(crate) fn init(&self) {
        self.run(["init"]);
    }

    /// Mounts the source over itself.
    pub(crate) fn mount(&self, extra: &[&str]) {
        let source = self.source();
        let mut arguments = vec![OsStr::new("mount"), source.as_os_str()];
        arguments.extend(extra.iter().map(OsStr::new));
        self.run(arguments);
    }

    /// Unmounts what is mounted at `place`.
    pub(crate) fn unmount(&self, place: &Path) {
        self.run([OsStr::new("umount"), place.as_os_str()]);
    }

    /// A point in time now, with a name.
    pub(crate) fn snapshot(&self, name: &str) {
        self.run([
            OsStr::new("snapshot"),
            self.source().as_os_str(),
            OsStr::new(name),
        ]);
    }

    /// Mounts the source as it was at `time` on `place`.
    pub(crate) fn mount_past(&self, time: &str, place: &Path) {
        let source = self.source();
        self.run([
            OsStr::new("mount"),
            source.as_os_str(),
            OsStr::new("--at"),
            OsStr::new(time),
            place.as_os_str(),
        ]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = self.root.path().to_str().unwrap_or_default();
        let ours: Vec<&str> = mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|place| place.starts_with(below))
            .collect();
        for place in ours {
            let clean = self
                .try_run(["umount", "--no-wait", place])
                .status
                .success();
            if !clean {
                Command::new("umount").args(["--lazy", place]).status().ok();
            }
        }
        if std::thread::panicking() {
            for log in find_logs(&self.state()) {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(40).collect();
                eprintln!("--- {} (newest first)\n{}", log.display(), tail.join("\n"));
            }
        }
    }
}

fn find_logs(dir: &Path) -> Vec<PathBuf> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => logs.extend(find_logs(&path)),
            path if path.file_name() == Some(OsStr::new("log")) => logs.push(path),
            _ => {}
        }
    }
    logs
}

/// Runs a command, again while it says that something is in use: a process that another test of this binary is just starting holds
/// whatever is open here, until it runs.
pub(crate) fn when_unused(command: &mut Command) -> Output {
    let until = Instant::now() + IN_USE_MAX;
    loop {
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let in_use = told.contains("is in use") || told.contains("busy");
        if !in_use || Instant::now() > until {
            return output;
        }
        std::thread::yield_now();
    }
}
