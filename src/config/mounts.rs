//! What is mounted on this machine, as the kernel tells it. Nothing here touches a mount, so a dead one cannot stop us.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The file system type that our mounts show in `/proc/self/mountinfo`.
pub const OUR_TYPE: &str = "fuse.rewindfs";

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Where it is mounted.
    pub at: PathBuf,
    /// Its type: `ext4`, `fuse.rewindfs`.
    pub fs_type: String,
}

impl Mount {
    /// Whether it is one of ours, alive or dead.
    pub fn is_ours(&self) -> bool {
        self.fs_type == OUR_TYPE
    }
}

/// Everything that this process sees mounted, in the order of mounting (a later one at the same place hides an earlier).
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The uppermost mount at exactly `path`, if there is one.
pub fn at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.at == path)
}

/// Reads the kernel's format (proc_pid_mountinfo(5)); lines that do not fit it are left out.
fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let at = fields.nth(4)?;
    // Optional fields follow, ended by a lone hyphen.
    let fs_type = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        at: PathBuf::from(OsString::from_vec(unescape(at))),
        fs_type: String::from_utf8_lossy(fs_type).into_owned(),
    })
}

/// Undoes the kernel's `\040` for blanks, tabs, line ends and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let [
            b'\\',
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            tail @ ..,
        ] = rest
        {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let text = b"29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            50 29 0:44 / /home/me/My\\040Files rw,nosuid - fuse.rewindfs rewindfs rw,user_id=0\n\
            garbage\n\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].fs_type, "ext4");
        assert_eq!(mounts[1].at, PathBuf::from("/home/me/My Files"));
        assert!(mounts[1].is_ours() && !mounts[0].is_ours());
    }

    #[test]
    fn the_uppermost_of_two_is_found() {
        let text = b"1 0 8:1 / /a rw - ext4 x rw\n2 1 0:4 / /a rw - fuse.rewindfs y rw\n";
        let mounts = parse(text);
        assert!(at(&mounts, Path::new("/a")).unwrap().is_ours());
        assert!(at(&mounts, Path::new("/b")).is_none());
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(at(&read().unwrap(), Path::new("/")).is_some());
    }
}
