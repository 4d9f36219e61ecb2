//! How a live mount stands, in plain numbers. The JSON field names are a contract with scripts.

use serde::{Deserialize, Serialize};

use crate::metrics::Spread;
use crate::store::cost;
use crate::store::metered::Meter;
use crate::store::url::Location;

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

/// What has been asked of the repository's store since the mount's process began, retries included.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Requests {
    /// Objects put, conditional or not.
    pub put: u64,
    /// Pages of names listed.
    pub list: u64,
    /// Objects read, whole or in part.
    pub get: u64,
    /// Objects asked for without their bytes.
    pub head: u64,
    /// Objects removed.
    pub delete: u64,
    /// How many of them failed; objects that were not there included.
    pub failed: u64,
    /// Bytes of objects that were put.
    pub sent_bytes: u64,
    /// Bytes of objects that were read.
    pub received_bytes: u64,
    /// For how long that has been counted.
    pub seconds: f64,
    /// What a month like this costs at AWS's list prices; absent elsewhere, and in the first ten minutes.
    pub usd_per_month: Option<Monthly>,
}

/// An estimate in dollars.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Monthly {
    /// A month's requests.
    pub requests: f64,
    /// Keeping for a month what a month adds. What is in the repository already is not in it.
    pub storage_added: f64,
}

impl Requests {
    /// What `meter` has counted of the requests to `location`.
    pub(super) fn counted(meter: &Meter, location: &Location) -> Self {
        let (count, watched) = (cost::Requests::of(meter), meter.watched());
        let monthly = cost::monthly(&count, meter.bytes_put(), watched);
        let monthly = monthly.filter(|_| cost::applies_to(location));
        Self {
            put: count.put,
            list: count.list,
            get: count.get,
            head: count.head,
            delete: count.delete,
            failed: count.failed,
            sent_bytes: meter.bytes_put(),
            received_bytes: meter.bytes_got(),
            seconds: watched.as_secs_f64(),
            usd_per_month: monthly.map(|monthly| Monthly {
                requests: monthly.requests,
                storage_added: monthly.storage_added,
            }),
        }
    }
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
    /// What has been asked of the store.
    #[serde(default)]
    pub requests: Requests,
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
            "requests",
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
