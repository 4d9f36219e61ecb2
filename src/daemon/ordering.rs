//! Whether size and times can be believed of a source's files after a power cut.
//!
//! Most journaling file systems give the place of what was cut off or removed to nobody else before the disk knows that it is gone, and
//! a file that came back as it was before has its bytes of before. Where that is not so (ext4 with `data=writeback` or without a
//! journal, see `ext4_mb_clear_bb` in the kernel; FAT), such a file may come back with its old size and times and another one's bytes.
//! No record tells of that, since nothing of it was written to. Then all contents are compared.

use std::io;
use std::path::Path;

use crate::fuse::mountinfo::{self, Entry};
use crate::journal::LastStop;

/// Whether after such an end of the last life contents have to be compared, whatever size and times say.
pub(super) fn is_doubtful(stop: &LastStop, keeps_order: bool) -> bool {
    match stop {
        LastStop::New | LastStop::SetAside(_) => true,
        LastStop::Rebooted if !keeps_order => {
            tracing::warn!(
                "the machine went down, and this file system may have mixed up what was in its files then: all contents are compared"
            );
            true
        }
        LastStop::Rebooted | LastStop::Clean | LastStop::Crashed => false,
    }
}

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
        assert!(is_doubtful(&LastStop::Rebooted, false) && !is_doubtful(&LastStop::Rebooted, true));
        assert!(is_doubtful(&LastStop::New, true) && !is_doubtful(&LastStop::Crashed, false));
    }
}
