//! What a difference between an inode of the tree and the source's own means. Pure.

use std::ops::Range;

use crate::format::entry::{Inode, Kind};
use crate::journal::{LOGICAL_BLOCK_LEN, LogicalBlock, WHOLE_FILE};
use crate::source::{Handle, Stat};

/// What has to be said of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing.
    Same,
    /// Its attributes.
    Attributes,
    /// Its attributes, and its contents have to be compared.
    Contents,
}

/// Compares. `doubted`: whatever the times say, contents count as changed.
pub(super) fn verdict(old: &Inode, now: &Stat, handle: &Handle, doubted: bool) -> Verdict {
    let file = now.kind == Kind::File;
    // A change of contents always moves the change time, even where a program puts the others back.
    let touched = old.mtime != now.mtime || old.ctime != now.ctime || *old.handle != *handle.0;
    let contents = file && (doubted || old.racy || touched || old.size != now.size);
    let attributes = touched
        || old.racy
        || (old.kind, old.mode, old.uid, old.gid) != (now.kind, now.mode, now.uid, now.gid)
        || old.rdev != now.rdev;
    match (contents, attributes) {
        (true, _) => Verdict::Contents,
        (false, true) => Verdict::Attributes,
        (false, false) => Verdict::Same,
    }
}

/// The stretches of a file whose contents have to be compared, when the dead mount covered the source until now: what the
/// journal has records of, and what a different size adds or cuts off.
///
/// A record is with the kernel before the first write to its block only where the file reaches a whole logical block; so
/// smaller files, and files that are not the same inode any more, are compared as a whole. So is a file that was touched without
/// any record: whoever did that did not do it through the mount, or did not change contents, and `stat` does not tell which.
pub(super) fn doubtful(
    old: &Inode,
    now: &Stat,
    handle: &Handle,
    blocks: &[LogicalBlock],
) -> Vec<Range<u64>> {
    let (shorter, longer) = (old.size.min(now.size), old.size.max(now.size));
    let same_inode = *old.handle == *handle.0;
    let touched = (old.mtime, old.ctime) != (now.mtime, now.ctime);
    let unexplained = touched && blocks.is_empty();
    if !same_inode || old.size < LOGICAL_BLOCK_LEN || unexplained || blocks.contains(&WHOLE_FILE) {
        return whole(old, now);
    }
    let block = |number: &LogicalBlock| {
        let start = u64::from(*number) * LOGICAL_BLOCK_LEN;
        start.min(longer)..(start + LOGICAL_BLOCK_LEN).min(longer)
    };
    let mut ranges: Vec<Range<u64>> = blocks.iter().map(block).collect();
    ranges.push(shorter..longer);
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// All that either has.
pub(super) fn whole(old: &Inode, now: &Stat) -> Vec<Range<u64>> {
    let end = old.size.max(now.size);
    if end == 0 {
        Vec::new()
    } else {
        vec![0..end; 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timespec;

    const THEN: Timespec = Timespec {
        secs: 1_700_000_000,
        nanos: 5,
    };
    const LATER: Timespec = Timespec {
        secs: 1_700_000_009,
        nanos: 5,
    };

    fn handle() -> Handle {
        Handle(Box::from(*b"handle"))
    }

    fn stat(kind: Kind) -> Stat {
        Stat {
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            links: 1,
            size: 10,
            blocks: 8,
            rdev: 0,
            dev: 7,
            block_size: 4096,
            mtime: THEN,
            ctime: THEN,
            atime: LATER,
            btime: None,
        }
    }

    fn inode(kind: Kind) -> Inode {
        Inode {
            kind,
            mode: 0o644,
            uid: 1,
            gid: 2,
            links: 1,
            size: 10,
            rdev: 0,
            mtime: THEN,
            ctime: THEN,
            atime: THEN,
            btime: None,
            target: Vec::new(),
            handle: handle().0.to_vec(),
            racy: false,
            in_place: false,
            unknown: Vec::new(),
        }
    }

    #[test]
    fn what_has_not_been_touched_is_the_same_whenever_it_was_read() {
        for kind in [Kind::File, Kind::Dir, Kind::Symlink] {
            assert_eq!(
                verdict(&inode(kind), &stat(kind), &handle(), false),
                Verdict::Same
            );
        }
    }

    #[test]
    fn contents_with_the_old_modification_time_put_back_are_found() {
        let now = Stat {
            ctime: LATER,
            ..stat(Kind::File)
        };
        assert_eq!(
            verdict(&inode(Kind::File), &now, &handle(), false),
            Verdict::Contents
        );
    }

    #[test]
    fn times_too_young_to_be_believed_are_not() {
        let old = Inode {
            racy: true,
            ..inode(Kind::File)
        };
        assert_eq!(
            verdict(&old, &stat(Kind::File), &handle(), false),
            Verdict::Contents
        );
        assert_eq!(
            verdict(&inode(Kind::File), &stat(Kind::File), &handle(), true),
            Verdict::Contents
        );
    }

    #[test]
    fn a_directory_has_attributes_only() {
        let now = Stat {
            mtime: LATER,
            ..stat(Kind::Dir)
        };
        assert_eq!(
            verdict(&inode(Kind::Dir), &now, &handle(), true),
            Verdict::Attributes
        );
    }

    #[test]
    fn another_inode_under_the_same_number_is_another_file() {
        let other = Handle(Box::from(*b"other"));
        assert_eq!(
            verdict(&inode(Kind::File), &stat(Kind::File), &other, false),
            Verdict::Contents
        );
    }
}
