//! When to seal. Pure: the flow asks, with what it knows, and does what it is told.

use std::time::Duration;

use crate::epoch::ChangeSize;

/// How hard the volume is tied to its repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// fsync returns when the store has it.
    Hot,
    /// Continuously, in the background.
    #[default]
    Warm,
    /// Only on command or schedule.
    Cold,
}

/// Something a program did that may end an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// fsync or fdatasync returned.
    Fsync,
    /// A written file was closed.
    Close,
}

/// The settings; all of them may be combined.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Seal at most this often while there are changes.
    pub interval: Duration,
    /// Seal earlier when this many bytes are dirty; `None` for no such limit.
    pub dirty_bytes_max: Option<u64>,
    /// Seal when a program has called fsync.
    pub on_fsync: bool,
    /// Seal when a program has closed a written file.
    pub on_close: bool,
    /// How hard.
    pub mode: Mode,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            dirty_bytes_max: None,
            on_fsync: false,
            on_close: false,
            mode: Mode::Warm,
        }
    }
}

impl Policy {
    /// Whether `event` asks for a seal under these settings.
    pub fn wants(&self, event: Event) -> bool {
        match event {
            Event::Fsync => self.on_fsync || self.mode == Mode::Hot,
            Event::Close => self.on_close,
        }
    }

    /// Whether to seal now on our own account: `since_seal` is the time since the last seal, `event` whether one that
    /// [`Self::wants`] has happened since.
    pub fn due(&self, open: ChangeSize, since_seal: Duration, event: bool) -> bool {
        if open == ChangeSize::default() {
            return false;
        }
        if event {
            return true;
        }
        self.mode != Mode::Cold
            && (since_seal >= self.interval
                || self.dirty_bytes_max.is_some_and(|max| open.bytes >= max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: ChangeSize = ChangeSize {
        bytes: 4096,
        inodes: 1,
        names: 0,
    };
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn nothing_changed_means_no_seal_ever() {
        let policy = Policy {
            on_fsync: true,
            ..Policy::default()
        };
        assert!(!policy.due(ChangeSize::default(), LONG, true));
    }

    #[test]
    fn time_size_and_events_each_suffice() {
        let policy = Policy {
            dirty_bytes_max: Some(1 << 20),
            ..Policy::default()
        };
        assert!(!policy.due(SOME, Duration::from_secs(4), false));
        assert!(policy.due(SOME, Duration::from_secs(5), false));
        let large = ChangeSize {
            bytes: 1 << 20,
            ..SOME
        };
        assert!(policy.due(large, Duration::ZERO, false));
        assert!(policy.due(SOME, Duration::ZERO, true));
    }

    #[test]
    fn cold_seals_only_when_told() {
        let policy = Policy {
            mode: Mode::Cold,
            dirty_bytes_max: Some(1),
            ..Policy::default()
        };
        assert!(!policy.due(SOME, LONG, false));
        assert!(!policy.wants(Event::Fsync) && !policy.wants(Event::Close));
    }

    #[test]
    fn hot_seals_at_every_fsync() {
        let policy = Policy {
            mode: Mode::Hot,
            ..Policy::default()
        };
        assert!(policy.wants(Event::Fsync) && !policy.wants(Event::Close));
    }
}
