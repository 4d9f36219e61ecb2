//! Places at which a test may have the process killed, to see that nothing is lost there.
//!
//! A part of the pipeline says that it has come to a place by one call of [`reach`]. Where `REWINDFS_FAILPOINT` names that place
//! (`upload-block`, or `upload-block:3` for the third time it is reached), the process ends there as by `kill -9`. Only debug
//! builds have this: one plain `cargo test` tests it, it costs a release build nothing, and no environment variable can end one.
//!
//! Used by `tests/crash`, which goes through [`Point::ALL`]: a new place is tested as soon as it stands here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys;

/// Names the place, and after a colon which time it is reached.
pub const VARIABLE: &str = "REWINDFS_FAILPOINT";

/// Declares the places once, each with its name.
macro_rules! points {
    ($($(#[doc = $doc:literal])* $point:ident = $name:literal,)*) => {
        /// A place in the pipeline, in the order in which a change meets them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Point {
            $($(#[doc = $doc])* $point,)*
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name in [`VARIABLE`].
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// The volume is claimed, and nothing done with it.
    Claim = "claim",
    /// A directory is being compared with the newest commit.
    Scan = "scan",
    /// A record lies in the database, and the write that it announces is not made.
    JournalRecord = "journal-record",
    /// The journal is with the kernel and not on the disk.
    JournalSync = "journal-sync",
    /// The source has a write's bytes, and the program has no answer.
    Write = "write",
    /// The source has a changed name, and the open epoch has not.
    Name = "name",
    /// A writer has read the old bytes that the sealed epoch needs, and has not kept them.
    Preserve = "preserve",
    /// A block was copied ahead of its commit.
    CopyAhead = "copy-ahead",
    /// A block copied ahead is in the store and still in the spool.
    UploadAhead = "upload-ahead",
    /// An epoch is sealed, and nothing of it captured.
    Seal = "seal",
    /// A piece of a file is about to be captured.
    Capture = "capture",
    /// A frame of a block is in the spool.
    SpoolFrame = "spool-frame",
    /// A block is whole in the spool and not durable.
    SpoolBlock = "spool-block",
    /// The manifest is durable but for its name.
    ManifestPrepared = "manifest-prepared",
    /// The commit can be seen in the spool, and the manifest has no name.
    ManifestShown = "manifest-shown",
    /// The epoch is captured, and not in line for upload.
    Captured = "captured",
    /// An object is about to be uploaded.
    UploadBlock = "upload-block",
    /// An object is in the store, and the uploader has not noticed.
    UploadedBlock = "uploaded-block",
    /// All blocks are in the store, the commit is not.
    CommitPut = "commit-put",
    /// The commit is in the store, and not proven.
    Committed = "committed",
    /// The commit is proven, and the spool still holds it.
    Publish = "publish",
    /// The spool holds the manifest and none of its objects.
    SpoolRemove = "spool-remove",
    /// A file lies aside in a local store, whole and without its name.
    StoreAside = "store-aside",
    /// The journal may forget an epoch, and has not begun.
    Forget = "forget",
    /// The journal has forgotten some records.
    Forgotten = "forgotten",
}

/// Where this process is to end.
struct Plan {
    point: &'static str,
    left: AtomicU64,
}

impl Plan {
    fn from_environment() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        let point = Point::ALL.iter().find(|point| point.name() == name)?;
        Some(Self {
            point: point.name(),
            left: AtomicU64::new(times.parse().ok()?),
        })
    }
}

/// Says that the process has come to `point`. Returns, unless a test wants it to end there.
#[inline]
pub fn reach(point: Point) {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    if !cfg!(debug_assertions) {
        return;
    }
    if let Some(plan) = PLAN.get_or_init(Plan::from_environment)
        && plan.point == point.name()
        && plan.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        sys::die();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[test]
    fn without_the_variable_nothing_ends() {
        Point::ALL.iter().copied().for_each(reach);
    }
}
