//! When a live mount seals and how hard it is tied to the store.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;

/// Seal at most this often while there are changes.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// Below this a seal would cost more than what it protects: one PUT each.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Seal when this much is dirty, so that one epoch stays a small part of the spool.
pub const MAX_DIRTY_DEFAULT: u64 = 1 << 30;
/// One block: sealing more often than that would make small objects of large changes.
const MAX_DIRTY_MIN: u64 = 1 << 20;

/// How hard a live mount is tied to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// fsync returns when the store has it.
    Hot,
    /// Continuously, in the background.
    #[default]
    Warm,
    /// Only on command: `sync`, `snapshot`, `umount`.
    Cold,
}

impl Mode {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// An event in the live mount that asks for a seal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SealOn {
    /// A program called fsync.
    Fsync,
    /// A program closed a file that it had written.
    Close,
}

/// The policy of one live mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Seal at most this often while there are changes.
    pub interval: Duration,
    /// Seal when this many bytes are dirty.
    pub max_dirty_bytes: u64,
    /// Events that ask for a seal.
    pub seal_on: Vec<SealOn>,
    /// How hard it is tied to the store.
    pub mode: Mode,
}

/// What was given of a policy; the rest has defaults.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PartialPolicy {
    /// As [`Policy::interval`].
    pub interval: Option<Duration>,
    /// As [`Policy::max_dirty_bytes`].
    pub max_dirty_bytes: Option<u64>,
    /// As [`Policy::seal_on`].
    pub seal_on: Option<Vec<SealOn>>,
    /// As [`Policy::mode`].
    pub mode: Option<Mode>,
}

impl Policy {
    /// What was typed wins over what the configuration file says, and that over the defaults.
    pub fn resolve(typed: PartialPolicy, file: PartialPolicy) -> Result<Self, Error> {
        let policy = Self {
            interval: typed.interval.or(file.interval).unwrap_or(INTERVAL_DEFAULT),
            max_dirty_bytes: typed
                .max_dirty_bytes
                .or(file.max_dirty_bytes)
                .unwrap_or(MAX_DIRTY_DEFAULT),
            seal_on: typed.seal_on.or(file.seal_on).unwrap_or_default(),
            mode: typed.mode.or(file.mode).unwrap_or_default(),
        };
        if policy.interval < INTERVAL_MIN {
            return Err(Error::Usage(format!(
                "an interval of {:?} is too short; the shortest is {INTERVAL_MIN:?}",
                policy.interval
            )));
        }
        if policy.max_dirty_bytes < MAX_DIRTY_MIN {
            return Err(Error::Usage(format!(
                "--max-dirty {} is too little; the least is 1MiB",
                policy.max_dirty_bytes
            )));
        }
        Ok(policy)
    }
}

impl FromStr for SealOn {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "close" => Ok(Self::Close),
            other => Err(format!(
                "`{other}` is not an event; there are fsync and close"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_wins_over_file_wins_over_default() {
        let typed = PartialPolicy {
            interval: Some(Duration::from_secs(1)),
            ..Default::default()
        };
        let file = PartialPolicy {
            interval: Some(Duration::from_secs(60)),
            mode: Some(Mode::Cold),
            ..Default::default()
        };
        let policy = Policy::resolve(typed, file).unwrap();
        assert_eq!(policy.interval, Duration::from_secs(1));
        assert_eq!(policy.mode, Mode::Cold);
        assert_eq!(policy.max_dirty_bytes, MAX_DIRTY_DEFAULT);
        assert!(policy.seal_on.is_empty());
    }

    #[test]
    fn what_could_never_work_is_refused() {
        let too_fast = PartialPolicy {
            interval: Some(Duration::ZERO),
            ..Default::default()
        };
        assert!(Policy::resolve(too_fast, PartialPolicy::default()).is_err());
        let too_small = PartialPolicy {
            max_dirty_bytes: Some(0),
            ..Default::default()
        };
        assert!(Policy::resolve(too_small, PartialPolicy::default()).is_err());
    }
}
