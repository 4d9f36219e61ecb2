//! How a live mount stands, in plain numbers. The JSON field names are a contract with scripts.

use serde::{Deserialize, Serialize};

use crate::metrics::Spread;

/// What a live mount is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No process is running.
    #[default]
    Stopped,
    /// Comparing the source with the last commit.
    Reconcile,
    /// Everything is in the repository, or will be at the next seal.
    Idle,
    /// Something is being captured or uploaded.
    Publishing,
    /// Unmounted; the rest is being uploaded.
    Draining,
    /// Publishing fails; it is tried again.
    Failing,
    /// The repository has not answered since the mount; changes are kept on this machine until it does.
    Waiting,
    /// Nothing is published any more by this process: another writer has taken the volume.
    Halted,
}

/// How far a reconcile has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Inodes looked at.
    pub scanned: u64,
    /// Inodes that are expected; 0 while unknown.
    pub expected: u64,
    /// Inodes that differed, and are being captured.
    pub marked: u64,
}

/// The newest commit in the repository.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LastCommit {
    /// Its sequence number.
    pub seq: u64,
    /// RFC 3339, UTC.
    pub time: String,
}

/// The snapshot that is mounted in a place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// Its sequence number.
    pub seq: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// Its id.
    pub id: String,
    /// Its name; empty for none.
    pub name: String,
}

/// How small things have become: of everything that this process has published.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub struct Ratios {
    /// Compressed / original bytes; absent before anything was compressed.
    pub c: Option<f64>,
    /// Encrypted / compressed bytes; absent likewise.
    pub e: Option<f64>,
}

/// One mount, live or of a snapshot.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Its background process; 0 if none is running.
    pub pid: u32,
    /// The volume's name.
    pub volume: String,
    /// The repository.
    pub repo: String,
    /// The directory that is protected.
    pub source: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// Whether the mount is there, as far as its process knows.
    pub mounted: bool,
    /// `hot`, `warm` or `cold`; empty if no process is running; `snapshot` for the mount of one.
    pub mode: String,
    /// The snapshot that is mounted; absent for a live mount. Its other numbers mean nothing then.
    pub snapshot: Option<Moment>,
    /// What it is doing.
    pub phase: Phase,
    /// How far that has come, while [`Phase::Reconcile`].
    pub progress: Option<Progress>,
    /// Age of the oldest change that is not in the repository.
    pub lag_seconds: f64,
    /// Bytes changed since the last seal.
    pub dirty_bytes: u64,
    /// Bytes finished that wait for upload.
    pub spool_bytes: u64,
    /// The newest commit in the repository, if there is one.
    pub last_commit: Option<LastCommit>,
    /// The last thing that went wrong and has not been mended since.
    pub last_error: Option<String>,
    /// Since when that has been so; RFC 3339, UTC. Absent where it is not known.
    pub last_error_since: Option<String>,
    /// Epochs folded into the next.
    pub folds: u64,
    /// How long requests have waited for older ones on the same inode, or for the flusher that was reading it.
    #[serde(default)]
    pub waits: Spread,
    /// How long requests were kept by preserving what a sealed epoch still needed.
    #[serde(default)]
    pub preserving: Spread,
    /// Bytes that were preserved.
    #[serde(default)]
    pub preserved_bytes: u64,
    /// The two ratios.
    pub ratios: Ratios,
}

/// A ratio; absent where `whole` is nothing.
pub fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_the_promised_ones() {
        let json = serde_json::to_value(Status::default()).unwrap();
        for field in [
            "pid",
            "volume",
            "repo",
            "source",
            "mode",
            "phase",
            "lag_seconds",
            "dirty_bytes",
            "spool_bytes",
            "last_commit",
            "last_error",
            "folds",
            "waits",
            "preserving",
            "preserved_bytes",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert!(json["ratios"].get("C").is_some() && json["ratios"].get("E").is_some());
    }

    #[test]
    fn nothing_has_no_ratio() {
        assert_eq!(ratio(1, 0), None);
        assert_eq!(ratio(1, 2), Some(0.5));
    }
}
