//! Whether the mount of a process that was killed has covered the source until now, so that reconcile may believe the journal about
//! large files.
//!
//! Proven only if all of this holds: the journal's last life was killed in this boot and had given its word (`journal/cover.rs`); the very
//! mount that it named is found dead in its place; that place is the source itself; the newest commit is this machine's and not
//! older than what the journal has forgotten. From the moment at which the dead mount is taken off until the new one is there,
//! anybody may write to the source unseen: what was changed since, going by change times, is compared as a whole. That needs
//! a clock that did not step back meanwhile, and a file system that goes by it.
//!
//! Not proven by this: that nobody had a way past the mount, by a file that was opened before it or by a bind mount of the source. So a
//! file that was touched and has no record at all is compared as a whole (`reconcile/compare.rs`). What is missed is a change past the mount
//! in a file that was written through it as well, which no mount, killed or not, can see: nothing but a comparison of every file would find it.

use std::path::Path;
use std::time::Duration;

use super::local::Local;
use crate::clock::{Clock, Stamp, SystemClock, Timespec};
use crate::fuse::mountinfo::{self, Entry};
use crate::fuse::session;
use crate::id::SessionId;
use crate::reconcile::Trust;
use crate::repo::commits::Found;
use crate::sys::since_boot;

/// How far change times may lag behind the clock: a tick of the kernel, a hundred times over.
const TIMES_LAG_MAX: Duration = Duration::from_secs(1);
/// A step back of the clock that is less than this is bridged by that lag.
const STEP_BACK_MAX: Duration = Duration::from_millis(500);
/// File systems whose change times are this machine's, always.
const LOCAL: [&str; 9] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay",
];
/// Between the volume's name and the mark in what is shown as the source of a mount.
const SEPARATOR: char = '~';

/// What makes one mount known from all others, also when it is dead: the end of what the kernel shows as its source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mark(String);

impl Mark {
    /// A new one.
    pub(super) fn random() -> Self {
        Self(SessionId::random().to_string())
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The source to be shown for a mount of `volume`.
    pub(super) fn name(&self, volume: &str) -> String {
        format!("{volume}{SEPARATOR}{}", self.0)
    }
}

/// The mount that `entry` shows has the mark `mark`.
fn is_marked(entry: &Entry, mark: &str) -> bool {
    let marked = entry.source.rsplit_once(SEPARATOR);
    marked.is_some_and(|(_, found)| found == mark)
}

/// A place from which dead mounts have been taken off.
pub(super) struct Uncovered {
    taken_off: Vec<Entry>,
    at: Stamp,
    /// What the wall clock was ahead of the time since the boot then.
    ahead: i128,
    /// Whether the file system there keeps this machine's time.
    local: bool,
}

impl Uncovered {
    /// Takes them off; there may be none.
    pub(super) fn take_off(mountpoint: &Path) -> Result<Self, session::Error> {
        let (at, ahead) = (SystemClock.now(), ahead());
        let taken_off = session::remove_dead(mountpoint)?;
        // Unknown is as good as foreign.
        let below = mountinfo::containing(mountpoint).ok().flatten();
        Ok(Self {
            taken_off,
            at,
            ahead,
            local: below.is_some_and(|below| LOCAL.contains(&below.kind.as_str())),
        })
    }

    /// Whether the clock has not stepped back since.
    pub(super) fn clock_is_steady(&self) -> bool {
        ahead() + STEP_BACK_MAX.as_millis() as i128 >= self.ahead
    }

    fn had(&self, mark: &str) -> bool {
        self.taken_off.iter().any(|entry| is_marked(entry, mark))
    }

    fn until(&self) -> Timespec {
        let lag = TIMES_LAG_MAX.as_millis() as u64;
        let millis = self.at.0.saturating_sub(lag);
        Timespec {
            secs: (millis / 1000) as i64,
            nanos: (millis % 1000) as u32 * 1_000_000,
        }
    }
}

/// How far marks can be believed when the source is compared with `base`.
pub(super) fn trust(local: &Local, base: Option<&Found>) -> Trust {
    let Some(base) = base else {
        return Trust::after(&local.last_stop);
    };
    // What was published during a scan that never ended says little of what it had not come to yet.
    if base.commit.incomplete {
        return Trust::Nothing;
    }
    match was_covered(local, base) {
        true => Trust::after_dead_mount(&local.last_stop, local.uncovered.until()),
        false => Trust::after(&local.last_stop),
    }
}

fn was_covered(local: &Local, base: &Found) -> bool {
    let (uncovered, settings) = (&local.uncovered, &local.settings);
    let Some(cover) = local.journal.covered_before() else {
        return false;
    };
    let place = &settings.place;
    place.is_covered_by_mount()
        && uncovered.had(&cover.mount)
        && uncovered.local
        && uncovered.clock_is_steady()
        && base.commit.name.seq >= cover.commit
        && base.commit.host == place.machine.host
        && base.commit.source == place.source_bytes()
}

/// Milliseconds that the wall clock is ahead of the time since the boot.
fn ahead() -> i128 {
    i128::from(SystemClock.now().0) - since_boot().as_millis() as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(source: String) -> Entry {
        Entry {
            id: 1,
            device: "0:50".into(),
            mountpoint: "/docs".into(),
            kind: session::KIND.into(),
            source,
        }
    }

    #[test]
    fn a_mount_is_known_by_its_mark_and_by_nothing_else() {
        let (mark, other) = (Mark::random(), Mark::random());
        let mount = entry(mark.name("a~b, c"));
        assert!(is_marked(&mount, mark.as_str()));
        assert!(!is_marked(&mount, other.as_str()));
        // A snapshot's mount, or that of a version without marks.
        for source in ["a@17", "a", ""] {
            assert!(!is_marked(&entry(source.into()), mark.as_str()));
        }
    }

    #[test]
    fn a_place_without_a_dead_mount_was_not_covered() {
        let dir = tempfile::tempdir().unwrap();
        let place = Uncovered::take_off(dir.path()).unwrap();
        assert!(!place.had(Mark::random().as_str()));
        assert!(place.clock_is_steady());
        let set_back = Uncovered {
            ahead: place.ahead + 60_000,
            ..place
        };
        assert!(!set_back.clock_is_steady());
    }
}
