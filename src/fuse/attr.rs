//! Our times, kinds and inodes as the kernel wants them, and its times back.
//!
//! `fuser` speaks `SystemTime`, which cannot say "seconds rounded down and nanoseconds forward" without care before
//! 1970, and its own decoding of such times is wrong in release 0.18. Both directions are put right here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::clock::Timespec;
use crate::format::entry::{Inode, Kind};
use crate::id::FileId;

/// What a snapshot's inode shows. `blocks` is its size on disk in units of 512 bytes.
pub fn from_inode(id: FileId, inode: &Inode, blocks: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(id.0),
        size: inode.size,
        blocks,
        atime: system_time(inode.atime),
        mtime: system_time(inode.mtime),
        ctime: system_time(inode.ctime),
        crtime: inode.btime.map_or(UNIX_EPOCH, system_time),
        kind: file_type(inode.kind),
        perm: inode.mode,
        nlink: inode.links,
        uid: inode.uid,
        gid: inode.gid,
        rdev: device(inode.rdev),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// What stands for an inode of which only the kind is known; nobody may do anything with it.
pub fn kind_alone(id: FileId, kind: Kind) -> FileAttr {
    FileAttr {
        ino: INodeNo(id.0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Preferred size of one read or write in bytes, where the source does not say.
pub const BLOCK_SIZE: u32 = 4096;

/// A `dev_t` in the 32 bits that the protocol has for it: both agree for majors below 4096 and minors below 2^20,
/// which is all that Linux gives out.
pub fn device(rdev: u64) -> u32 {
    rdev as u32
}

/// The kernel's name for a kind.
pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time for a reply. Times that `SystemTime` cannot hold become 1970.
pub fn system_time(time: Timespec) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second = if time.secs < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

/// A time as a *request* meant it. `fuser` 0.18 decodes (seconds, nanoseconds) before 1970 as minus their sum (half a second
/// before 1970, which is (-1, 500,000,000), arrives as one and a half before), so its distance from 1970
/// is taken apart again rather than believed.
pub fn requested_time(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timespec {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        },
        Err(before) => {
            let sum = before.duration();
            Timespec {
                secs: 0i64.checked_sub_unsigned(sum.as_secs()).unwrap_or(i64::MIN),
                nanos: sum.subsec_nanos(),
            }
        }
    }
}

/// [`requested_time`], or `None` for "now".
pub fn requested_time_or_now(time: TimeOrNow) -> Option<Timespec> {
    match time {
        TimeOrNow::SpecificTime(time) => Some(requested_time(time)),
        TimeOrNow::Now => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `fuser` 0.18 makes of a request's (seconds, nanoseconds).
    fn as_decoded_by_the_crate(secs: i64, nanos: u32) -> SystemTime {
        if secs >= 0 {
            UNIX_EPOCH + Duration::new(secs as u64, nanos)
        } else {
            UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos)
        }
    }

    #[test]
    fn times_on_both_sides_of_1970_survive_a_request() {
        for (secs, nanos) in [
            (0, 0),
            (0, 1),
            (1, 999_999_999),
            (1_795_000_000, 123_456_789),
            (-1, 0),
            (-1, 500_000_000),
            (-2, 999_999_999),
            (-2_208_988_800, 1),
            (i64::MIN, 0),
            (i64::MAX, 0),
        ] {
            let meant = Timespec { secs, nanos };
            assert_eq!(requested_time(as_decoded_by_the_crate(secs, nanos)), meant);
        }
    }

    #[test]
    fn a_reply_counts_nanoseconds_forward_from_the_second_below() {
        let half_before = system_time(Timespec {
            secs: -1,
            nanos: 500_000_000,
        });
        assert_eq!(half_before, UNIX_EPOCH - Duration::from_millis(500));
        let after = system_time(Timespec { secs: 7, nanos: 9 });
        assert_eq!(after, UNIX_EPOCH + Duration::new(7, 9));
    }

    #[test]
    fn times_that_cannot_be_shown_do_not_panic() {
        for secs in [i64::MIN, i64::MAX] {
            system_time(Timespec {
                secs,
                nanos: 999_999_999,
            });
        }
    }

    #[test]
    fn now_stays_now() {
        assert_eq!(requested_time_or_now(TimeOrNow::Now), None);
    }
}
