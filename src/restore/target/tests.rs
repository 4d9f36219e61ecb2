//! What a restore leaves where an attribute cannot be had, and whom it lets a program run as.

use super::*;
use crate::clock::Timespec;
use crate::id::FileId;

fn item(mode: u16, uid: u32) -> Item {
    let time = Timespec {
        secs: 1_700_000_000,
        nanos: 5,
    };
    let inode = Inode {
        kind: Kind::File,
        mode,
        uid,
        gid: uid,
        links: 1,
        size: 3,
        rdev: 0,
        mtime: time,
        ctime: time,
        atime: time,
        btime: None,
        target: Vec::new(),
        handle: Vec::new(),
        racy: false,
        in_place: false,
        unknown: Vec::new(),
    };
    Item {
        path: RepoPath::root().join(b"file"),
        id: FileId(7),
        inode,
    }
}

fn finish(at: &Path, item: &Item, xattrs: Xattrs) -> io::Result<()> {
    let target = Target::open(at).unwrap();
    let dir = target.make_dir(None, &RepoPath::root()).unwrap();
    let file = dir.make_file(item).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"abc", 0).unwrap();
    let finished = dir.finish_file(item, &file, xattrs).unwrap();
    assert_eq!(std::fs::read(at.join("file")).unwrap(), b"abc");
    assert_eq!(target.holds(&dir, item).unwrap(), finished.is_ok());
    target.end(true).unwrap();
    assert_eq!(std::fs::read_dir(at).unwrap().count(), 1);
    finished
}

fn stat(at: &Path) -> sys::Statx {
    sys::stat(&sys::open(&at.join("file"), libc::O_PATH).unwrap()).unwrap()
}

#[test]
fn a_whole_file_stays_where_an_attribute_cannot_be_set_or_read() {
    let at = tempfile::tempdir().unwrap();
    let own = stat_of_dir(at.path()).uid;
    let item = item(0o640, own);
    // Longer than any file system takes, and then one that it would.
    let too_long = [b"user.".to_vec(), vec![b'a'; 300]].concat();
    let refused = vec![(too_long, b"x".to_vec())];
    for xattrs in [Ok(refused), Err(io::Error::other("a damaged page"))] {
        let error = finish(at.path(), &item, xattrs).unwrap_err();
        assert!(error.to_string().contains("attributes"), "{error}");
        assert_eq!(stat(at.path()).mode & 0o7777, 0o640, "the rest is set");
    }
    // What was not complete is made again, and then kept.
    finish(at.path(), &item, Ok(Vec::new())).unwrap();
    assert_eq!(stat(at.path()).mtime, item.inode.mtime);
}

#[test]
fn set_id_bits_are_only_given_with_the_owner_they_were_meant_for() {
    let at = tempfile::tempdir().unwrap();
    let own = stat_of_dir(at.path());
    if own.uid == own.gid {
        finish(at.path(), &item(0o6755, own.uid), Ok(Vec::new())).unwrap();
        assert_eq!(stat(at.path()).mode & 0o7777, 0o6755);
    }
    let file = File::open(at.path()).unwrap();
    let mut of_another = item(0o6755, own.uid + 1);
    of_another.inode.kind = Kind::File;
    set_mode(&file, &of_another.inode).unwrap();
    assert_eq!(sys::stat(&file).unwrap().mode & 0o7777, 0o755);
}

fn stat_of_dir(at: &Path) -> sys::Statx {
    sys::stat(&File::open(at).unwrap()).unwrap()
}
