//! Whether size and times can be believed of a source's files after a power cut.
//!
//! Most journaling file systems give the place of what was cut off or removed to nobody else before the disk knows that it is gone, and
//! a file that came back as it was before has its bytes of before. Where that is not so (ext4 with `data=writeback` or without a
//! journal, see `ext4_mb_clear_bb` in the kernel; FAT), such a file may come back with its old size and times and another one's bytes.
//! No record tells of that, since nothing of it was written to. Then all contents are compared.

use std::io;
use std::path::Path;

use crate::fuse::mountinfo::{self, Entry};

/// File systems that are known to keep that order, whatever they are told.
const ORDERED: [&str; 5] = ["xfs", "btrfs", "zfs", "bcachefs", "f2fs"];
/// What ext4's own list of its options says where it does.
const ORDERED_OPTIONS: [&str; 2] = ["data=ordered", "data=journal"];

/// Whether the file system in which `place` (absolute, without symlinks) lies does. What cannot be found out is taken for a no.
pub(super) fn is_kept_at(place: &Path) -> bool {
    let Ok(Some(entry)) = mountinfo::containing(place) else {
        return false;
    };
    match entry.kind.as_str() {
        "ext3" | "ext4" => options_of_ext4(&entry).is_ok_and(|options| is_kept_by(&options)),
        kind => ORDERED.contains(&kind),
    }
}

fn is_kept_by(options: &str) -> bool {
    options.lines().any(|line| ORDERED_OPTIONS.contains(&line))
}

/// All that holds for it, a line each, also what nobody has asked for.
fn options_of_ext4(entry: &Entry) -> io::Result<String> {
    let device = std::fs::canonicalize(format!("/sys/dev/block/{}", entry.device))?;
    let name = device.file_name().ok_or(io::ErrorKind::NotFound)?;
    let options = Path::new("/proc/fs/ext4").join(name).join("options");
    std::fs::read_to_string(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_keep_the_order_is_believed() {
        assert!(is_kept_by("rw\ndelalloc\ndata=ordered\nstripe=0\n"));
        assert!(is_kept_by("rw\ndata=journal\n"));
        assert!(!is_kept_by("rw\ndata=writeback\n"));
        assert!(!is_kept_by("rw\n"), "without a journal");
        assert!(!is_kept_at(Path::new("/proc")));
    }
}
