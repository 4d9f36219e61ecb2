//! A snapshot behind a real kernel mount: it shows what was written, lets nothing be changed, and damage costs only what it touches.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rewindfs::cache::Cache;
use rewindfs::format::entry::{Contents, Kind};
use rewindfs::fuse::bridge::{Bridge, IN_FLIGHT_MAX};
use rewindfs::fuse::session::{self, Options};
use rewindfs::repo::{Repository, Secret, Volume};
use rewindfs::snapshot::Snapshot;
use rewindfs::snapshot::tree_fs::TreeFs;
use rewindfs::store::Body;
use rewindfs::sys;
use tokio::runtime::Runtime;

use crate::sample::{Sample, Size};
use crate::scene::unmount;

const SIZE: Size = Size {
    chunk: 1 << 20,
    names: 5000,
};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Whether this machine can mount at all; says so where it cannot.
fn can_mount(test: &str) -> bool {
    let can = Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("skipped: {test}: there is no /dev/fuse");
    }
    can
}

async fn opened(sample: &Sample) -> Arc<Volume> {
    let secret = Secret::Recovery(sample.recovery.clone().into());
    let repository = Repository::open(sample.store.clone(), Cache::in_memory(64 << 20), &secret)
        .await
        .unwrap();
    let volumes = repository.volumes().await.unwrap();
    repository.volume(volumes[0].id).await.unwrap()
}

/// Mounts the newest snapshot, shows it to `look`, and unmounts it again.
fn mounted(runtime: &Runtime, sample: &Sample, look: impl FnOnce(&Path)) {
    let volume = runtime.block_on(opened(sample));
    let fs = Arc::new(TreeFs::new(&volume, &sample.newest().0.commit));
    let bridge = Bridge::new(runtime.handle().clone(), IN_FLIGHT_MAX);
    let place = tempfile::tempdir().unwrap();
    let options = Options {
        read_only: true,
        ..Options::new("needle-repository")
    };
    let session = session::mount(Snapshot::new(fs, bridge), place.path(), &options).unwrap();
    look(place.path());
    unmount(&session);
    assert!(
        fs::read_dir(place.path()).unwrap().next().is_none(),
        "the mount point is bare again"
    );
}

fn paths_below(dir: &Path, root: &Path, paths: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        paths.insert(
            path.strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
        );
        if entry.file_type().unwrap().is_dir() {
            paths_below(&path, root, paths);
        }
    }
}

#[test]
fn it_shows_what_was_written() {
    if !can_mount("it_shows_what_was_written") {
        return;
    }
    let runtime = runtime();
    let sample = runtime.block_on(Sample::new(SIZE));
    let model = &sample.newest().1;
    mounted(&runtime, &sample, |root| {
        let mut paths = BTreeSet::from([String::new()]);
        paths_below(root, root, &mut paths);
        assert_eq!(paths, model.keys().cloned().collect::<BTreeSet<_>>());
        for (path, node) in model {
            let place = root.join(path);
            let found = fs::symlink_metadata(&place).unwrap();
            let inode = &node.inode;
            assert_eq!(found.mode() & 0o7777, u32::from(inode.mode), "{path}");
            assert_eq!((found.uid(), found.gid()), (inode.uid, inode.gid), "{path}");
            assert_eq!(
                (found.ino(), found.size()),
                (node.id.0, inode.size),
                "{path}"
            );
            let times = [
                (inode.mtime, found.mtime(), found.mtime_nsec()),
                (inode.atime, found.atime(), found.atime_nsec()),
            ];
            for (meant, secs, nanos) in times {
                assert_eq!(
                    (secs, nanos),
                    (meant.secs, i64::from(meant.nanos)),
                    "{path}"
                );
            }
            match inode.kind {
                Kind::File => {
                    assert_eq!(found.nlink(), u64::from(inode.links), "{path}");
                    assert!(
                        fs::read(&place).unwrap() == node.contents,
                        "{path}: wrong contents"
                    );
                }
                Kind::Symlink => assert_eq!(
                    fs::read_link(&place).unwrap().as_os_str().as_bytes(),
                    inode.target
                ),
                Kind::CharDevice => assert_eq!(found.rdev(), inode.rdev),
                _ => {}
            }
        }
        assert!(
            root.join("dir-with-a-name/none")
                .symlink_metadata()
                .is_err()
        );
    });
}

#[test]
fn xattrs_are_there() {
    if !can_mount("xattrs_are_there") {
        return;
    }
    let runtime = runtime();
    let sample = runtime.block_on(Sample::new(SIZE));
    mounted(&runtime, &sample, |root| {
        let file = File::open(root.join("needle-a.txt")).unwrap();
        let mut names = [0; 200];
        let len = sys::list_xattrs(&file, &mut names).unwrap();
        assert_eq!(&names[..len], b"system.posix_acl_access\0user.color\0");
        let mut value = [0; 200];
        let len = sys::get_xattr(&file, b"user.color", &mut value).unwrap();
        assert_eq!(&value[..len], b"needle-green");
        let len = sys::get_xattr(&file, b"system.posix_acl_access", &mut value).unwrap();
        assert_eq!(value[..len], sample.newest().1["needle-a.txt"].xattrs[0].1);
        let none = sys::get_xattr(&file, b"user.none", &mut value).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::ENODATA));
        let short = sys::get_xattr(&file, b"user.color", &mut value[..3]).unwrap_err();
        assert_eq!(short.raw_os_error(), Some(libc::ERANGE));
    });
}

#[test]
fn nothing_can_be_changed() {
    if !can_mount("nothing_can_be_changed") {
        return;
    }
    let runtime = runtime();
    let sample = runtime.block_on(Sample::new(SIZE));
    mounted(&runtime, &sample, |root| {
        assert_unchangeable(root);
        // Somebody has said that it may be written to; it stays what it was.
        if sys::effective_uid() != 0 {
            eprintln!("skipped: the part of nothing_can_be_changed that remounts: not root");
            return;
        }
        let remount = ["-i", "-o", "remount,rw"];
        let done = Command::new("mount").args(remount).arg(root).status();
        assert!(done.unwrap().success());
        assert_unchangeable(root);
    });
}

/// Everything that would change what lies below `root` is refused as by a read-only disk.
fn assert_unchangeable(root: &Path) {
    let at = |name: &str| root.join(name);
    let fd = sys::open(&at("big"), libc::O_PATH).unwrap();
    let attempts = [
        ("create", File::create(at("new")).map(drop)),
        (
            "write",
            OpenOptions::new().write(true).open(at("big")).map(drop),
        ),
        (
            "append",
            OpenOptions::new().append(true).open(at("big")).map(drop),
        ),
        ("mkdir", fs::create_dir(at("new"))),
        ("unlink", fs::remove_file(at("big"))),
        ("rmdir", fs::remove_dir(at("dir-with-a-name/deep"))),
        ("rename", fs::rename(at("big"), at("small"))),
        ("link", fs::hard_link(at("big"), at("new"))),
        ("symlink", symlink("x", at("new"))),
        (
            "chmod",
            fs::set_permissions(at("big"), fs::Permissions::from_mode(0o777)),
        ),
        ("truncate", sys::truncate(&fd, 0)),
        ("chown", sys::set_owner(&fd, Some(0), Some(0))),
        (
            "utimes",
            sys::set_times(&fd, sys::SetTime::Now, sys::SetTime::Now),
        ),
        ("setxattr", sys::set_xattr(&fd, b"user.new", b"", 0)),
        (
            "removexattr",
            sys::remove_xattr(
                &sys::open(&at("needle-a.txt"), libc::O_PATH).unwrap(),
                b"user.color",
            ),
        ),
        (
            "mknod",
            sys::make_node(
                &sys::open(root, libc::O_PATH).unwrap(),
                b"new",
                libc::S_IFIFO | 0o600,
                0,
            ),
        ),
    ];
    for (what, result) in attempts {
        let error = result.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
    }
}

/// `getdents64` records: (offset of the next, name). In the machine's byte order, which is this on all that FUSE is tested on.
fn records(buffer: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let mut records = Vec::new();
    let mut rest = buffer;
    while !rest.is_empty() {
        let next = i64::from_le_bytes(rest[8..16].try_into().unwrap());
        let len = u16::from_le_bytes(rest[16..18].try_into().unwrap()) as usize;
        let name = rest[19..len]
            .split(|&byte| byte == 0)
            .next()
            .unwrap()
            .to_vec();
        records.push((next, name));
        rest = &rest[len..];
    }
    records
}

fn all_records(dir: &File) -> Vec<(i64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 3000];
    loop {
        match sys::read_entries(dir, &mut buffer).unwrap() {
            0 => return all,
            len => all.extend(records(&buffer[..len])),
        }
    }
}

#[test]
fn a_large_directory_can_be_read_from_any_place_in_it() {
    if !can_mount("a_large_directory_can_be_read_from_any_place_in_it") {
        return;
    }
    let runtime = runtime();
    let sample = runtime.block_on(Sample::new(SIZE));
    mounted(&runtime, &sample, |root| {
        let dir = File::open(root.join("many")).unwrap();
        let all = all_records(&dir);
        assert_eq!(all.len(), SIZE.names + 2);
        assert_eq!(
            all.iter()
                .map(|(_, name)| name)
                .collect::<BTreeSet<_>>()
                .len(),
            all.len()
        );
        for at in [4000, 1, 0, 2500, 5001, 17] {
            sys::seek(&dir, all[at].0, libc::SEEK_SET).unwrap();
            assert_eq!(all_records(&dir), all[at + 1..], "from entry {at} on");
        }
        sys::seek(&dir, 0, libc::SEEK_SET).unwrap();
        assert_eq!(all_records(&dir), all);
        let up = fs::metadata(root.join("many/..")).unwrap();
        assert_eq!(up.ino(), 1);
    });
}

#[test]
fn holes_are_found_by_seeking() {
    if !can_mount("holes_are_found_by_seeking") {
        return;
    }
    let runtime = runtime();
    let sample = runtime.block_on(Sample::new(SIZE));
    mounted(&runtime, &sample, |root| {
        let file = File::open(root.join("sparse")).unwrap();
        let seek = |from, whence| sys::seek(&file, from, whence);
        assert_eq!(seek(0, libc::SEEK_DATA).unwrap(), 400_000);
        assert_eq!(seek(0, libc::SEEK_HOLE).unwrap(), 0);
        assert_eq!(seek(400_100, libc::SEEK_DATA).unwrap(), 400_100);
        assert_eq!(seek(400_100, libc::SEEK_HOLE).unwrap(), 404_096);
        assert_eq!(
            seek(404_096, libc::SEEK_DATA).unwrap_err().raw_os_error(),
            Some(libc::ENXIO)
        );
        assert_eq!(seek(999_999, libc::SEEK_HOLE).unwrap(), 999_999);
        assert_eq!(
            seek(1_000_000, libc::SEEK_HOLE).unwrap_err().raw_os_error(),
            Some(libc::ENXIO)
        );
        let whole = File::open(root.join("big")).unwrap();
        let size = whole.metadata().unwrap().len();
        assert_eq!(sys::seek(&whole, 5, libc::SEEK_HOLE).unwrap(), size);
    });
}

#[test]
fn large_files_are_read_in_order_at_random_and_by_many_at_once() {
    if !can_mount("large_files_are_read_in_order_at_random_and_by_many_at_once") {
        return;
    }
    let runtime = runtime();
    let sample = runtime.block_on(Sample::new(SIZE));
    mounted(&runtime, &sample, |root| {
        let contents = &sample.newest().1["big"].contents;
        let mut file = File::open(root.join("big")).unwrap();
        let mut read = Vec::new();
        let mut piece = vec![0; 77_777];
        loop {
            let len = file.read(&mut piece).unwrap();
            if len == 0 {
                break;
            }
            read.extend_from_slice(&piece[..len]);
        }
        assert!(read == *contents);
        assert_eq!(
            file.seek(SeekFrom::End(-3)).unwrap(),
            contents.len() as u64 - 3
        );
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let file = &file;
                scope.spawn(move || {
                    for step in 0..40u64 {
                        let at =
                            (thread * 7919 + step * 104_729 * 13) % (contents.len() as u64 - 5000);
                        let mut part = vec![0; 5000];
                        file.read_exact_at(&mut part, at).unwrap();
                        assert!(part == contents[at as usize..at as usize + 5000]);
                    }
                });
            }
        });
        let mut behind = [0; 10];
        assert_eq!(
            file.read_at(&mut behind, contents.len() as u64 + 5)
                .unwrap(),
            0
        );
        assert_eq!(
            file.read_at(&mut behind, contents.len() as u64 - 4)
                .unwrap(),
            4
        );
    });
}

#[test]
fn damage_is_an_io_error_of_the_files_it_touches() {
    if !can_mount("damage_is_an_io_error_of_the_files_it_touches") {
        return;
    }
    let runtime = runtime();
    let sample = runtime.block_on(Sample::new(SIZE));
    let (found, model) = sample.newest();
    runtime.block_on(async {
        let volume = opened(&sample).await;
        let extents = volume
            .tree(&found.commit)
            .extents(model["big"].id, 0..1)
            .await
            .unwrap();
        let Contents::Data { place, .. } = &extents[0].contents else {
            panic!("a hole")
        };
        let object = volume.blocks().object(place).unwrap();
        let (bytes, _) = sample.store.get(&object, u64::MAX).await.unwrap();
        let mut bytes = bytes.to_vec();
        bytes[place.hint.offset as usize + 50] ^= 1;
        sample
            .store
            .put(&object, Body::Bytes(bytes.into()))
            .await
            .unwrap();
    });
    mounted(&runtime, &sample, |root| {
        let big = File::open(root.join("big")).unwrap();
        let mut piece = vec![0; 4096];
        let error = big.read_exact_at(&mut piece, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let behind = (SIZE.chunk * 2) as u64;
        big.read_exact_at(&mut piece, behind).unwrap();
        assert!(piece == model["big"].contents[behind as usize..behind as usize + 4096]);
        for (path, node) in model.iter().filter(|(path, _)| !path.contains("many/")) {
            if node.inode.kind == Kind::File
                && !["big", "dir-with-a-name/copy"].contains(&path.as_str())
            {
                assert!(
                    fs::read(root.join(path)).unwrap() == node.contents,
                    "{path}"
                );
            }
        }
        let listed = fs::read_dir(root)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name() == OsStr::new("big"));
        assert_eq!(listed.count(), 1);
    });
}
