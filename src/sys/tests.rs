//! Tests of the system calls whose wrapping is more than a translation of arguments.

use std::os::fd::OwnedFd;

use super::*;
use crate::clock::Timespec;

fn dir() -> (tempfile::TempDir, OwnedFd) {
    let dir = tempfile::tempdir().expect("a directory");
    let fd = open(dir.path(), libc::O_RDONLY | libc::O_DIRECTORY).expect("it opens");
    (dir, fd)
}

#[test]
fn a_name_with_nul_is_refused_before_the_kernel_sees_it() {
    let (_dir, fd) = dir();
    let refused = make_dir(&fd, b"a\0b", 0o755).expect_err("no such name");
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_handle_leads_back_to_its_inode_and_a_wrong_one_nowhere() {
    let (_dir, fd) = dir();
    make_dir(&fd, b"sub", 0o755).expect("made");
    let Ok(handle) = handle_at(&fd, b"sub") else {
        return; // A file system without handles: `source` has its own tests for that.
    };
    match open_handle(&fd, handle.kind, &handle.bytes, libc::O_RDONLY) {
        Ok(found) => {
            let (found, named) = (stat(&found), stat_at(&fd, b"sub"));
            assert_eq!(found.expect("stat").ino, named.expect("stat").ino);
        }
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
    }
    assert!(open_handle(&fd, handle.kind, &[0; 200], libc::O_RDONLY).is_err());
}

#[test]
fn a_thread_has_its_own_umask() {
    let made = |mask: u32| {
        let (_dir, fd) = dir();
        set_thread_umask(mask).expect("set");
        make_dir(&fd, b"sub", 0o777).expect("made");
        stat_at(&fd, b"sub").expect("stat").mode & 0o777
    };
    let other = std::thread::spawn(move || made(0o077));
    assert_eq!(other.join().expect("no panic"), 0o700);
    let this = std::thread::spawn(move || made(0o027));
    assert_eq!(this.join().expect("no panic"), 0o750);
}

#[test]
fn files_belong_to_whom_they_are_made_for() {
    if effective_uid() != 0 {
        tracing::warn!("skipped: only root can create for others");
        return;
    }
    let (_dir, fd) = dir();
    let make = |name: &'static [u8]| make_dir(&fd, name, 0o755);
    as_owner(1234, 5678, || make(b"theirs")).expect("made");
    make(b"ours").expect("made");
    let theirs = stat_at(&fd, b"theirs").expect("stat");
    assert_eq!((theirs.uid, theirs.gid), (1234, 5678));
    assert_eq!(stat_at(&fd, b"ours").expect("stat").uid, 0);
    let nobody = as_owner(u32::MAX, 0, || make(b"nobodys"));
    assert_eq!(
        nobody.expect_err("no such user").raw_os_error(),
        Some(libc::EOVERFLOW)
    );
}

#[test]
fn times_before_1970_are_kept_to_the_nanosecond() {
    let (_dir, fd) = dir();
    let half_before = Timespec {
        secs: -1,
        nanos: 500_000_001,
    };
    set_times(&fd, SetTime::Keep, SetTime::To(half_before)).expect("set");
    assert_eq!(stat(&fd).expect("stat").mtime, half_before);
}

#[test]
fn the_limit_of_open_files_is_raised_to_what_is_allowed_and_no_further() {
    let before = open_files_max().expect("there is a limit");
    let raised = raise_open_files_max().expect("raised");
    assert!(raised >= before);
    assert_eq!(open_files_max().expect("there is a limit"), raised);
    assert_eq!(raise_open_files_max().expect("nothing to raise"), raised);
}

#[test]
fn a_thread_that_gives_way_does_so_alone() {
    let nice = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let nice = fields.split(' ').nth(16).unwrap();
        nice.parse::<i32>().unwrap()
    };
    let before = nice();
    let other = std::thread::spawn(move || {
        give_way();
        nice()
    });
    assert_eq!(other.join().unwrap(), before.max(10));
    assert_eq!(nice(), before);
}

#[test]
fn what_cannot_set_out_for_the_disk_is_not_taken_for_lost() {
    let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("two sockets");
    assert!(begin_write_back(&socket, &(7..7)).is_ok());
    let error = begin_write_back(&socket, &(0..4096)).expect_err("no file");
    assert!(!is_lost_write(&error), "{error}");
    for code in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EUCLEAN] {
        assert!(is_lost_write(&io::Error::from_raw_os_error(code)));
    }
}
