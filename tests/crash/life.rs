//! One life of a live mount's process: from its start to its end, by whatever hand.

use std::ffi::OsStr;
use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rewindfs::failpoint;

use crate::wait;
use crate::world::World;

/// The longest that a mount may take to come to be, on a machine that compiles meanwhile.
const START_MAX: Duration = Duration::from_secs(180);
/// A live mount's process in front. Killed when dropped.
pub(crate) struct Life {
    child: Child,
}

impl Life {
    /// Mounts the world's source over itself; returns when the mount answers, or the process has ended at `failpoint`.
    pub(crate) fn begin(world: &World, options: &[&str], failpoint: Option<&str>) -> Self {
        let source = world.source();
        let mut arguments = vec![OsStr::new("mount"), "-f".as_ref(), source.as_os_str()];
        arguments.extend(options.iter().map(OsStr::new));
        let told = world.path("told");
        let mut command = world.command(arguments);
        command.stderr(Stdio::from(File::create(&told).unwrap()));
        if let Some(failpoint) = failpoint {
            command.env(failpoint::VARIABLE, failpoint);
        }
        let mut life = Self {
            child: command.spawn().unwrap(),
        };
        let ready = || {
            let told = std::fs::read(&told).unwrap();
            String::from_utf8_lossy(&told).contains("backs itself up")
        };
        let begun = wait::within(START_MAX, || {
            (ready() || life.ended().is_some()).then_some(())
        });
        assert!(begun.is_some(), "the mount does not come to be");
        if failpoint.is_none() {
            let told = String::from_utf8(std::fs::read(&told).unwrap()).unwrap();
            assert!(ready(), "the mount did not come to be:\n{told}");
        }
        life
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, for so long at most.
    pub(crate) fn ends_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        wait::within(patience, || self.ended())
    }

    /// Stops it where it stands: from now on none of its threads begins anything. What the kernel does for one of them goes on.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
        self.wait_for_threads("TD");
    }

    /// Once it is frozen: waits until the kernel, too, has done what it was asked for.
    pub(crate) fn settle(&self) {
        self.wait_for_threads("T");
    }

    /// Waits until each of its threads is in one of these states of proc_pid_stat(5).
    fn wait_for_threads(&self, states: &str) {
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_so = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat"));
            // The state follows the name, which is in parentheses. A thread that has just ended has none.
            stat.map_or(true, |stat| {
                let after = stat.rsplit(") ").next().unwrap();
                after.starts_with(|state| states.contains(state))
            })
        };
        let all = || std::fs::read_dir(&tasks).unwrap().flatten().all(is_so);
        let stopped = wait::within(START_MAX, || all().then_some(()));
        assert!(stopped.is_some(), "it does not stop");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// `kill -9`, and waits until it is dead.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
