//! Who may do what, to whom things belong, and the attributes that say so.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rewindfs::clock::Timespec;
use rewindfs::sys::{self, SetTime};

use crate::scene::{Scene, everywhere, skip};

/// Some ordinary user, and a group of which that is not a member.
const USER: u32 = 12_345;
const GROUP: u32 = 23_456;

/// Runs a shell command in the mount as an ordinary user; whether it succeeded.
fn as_user(scene: &Scene, uid: u32, command: &str) -> bool {
    let done = Command::new("sh")
        .args(["-c", command])
        .current_dir(scene.at(""))
        .uid(uid)
        .gid(uid)
        .output();
    done.expect("ran").status.success()
}

fn mode(scene: &Scene, name: &str) -> u32 {
    fs::metadata(scene.at(name)).expect("stat").mode() & 0o7777
}

fn set_mode(scene: &Scene, name: &str, mode: u32) {
    fs::set_permissions(scene.at(name), fs::Permissions::from_mode(mode)).expect("set");
}

/// For tests that need several users.
fn as_root(test: impl Fn(&Scene)) {
    if sys::effective_uid() == 0 {
        everywhere(test);
    } else {
        skip("only root can act for several users");
    }
}

#[test]
fn what_users_create_is_theirs_even_under_load() {
    as_root(|scene| {
        std::thread::scope(|threads| {
            for user in 0..6 {
                threads.spawn(move || {
                    let uid = USER + user;
                    let command = format!(
                        "for n in $(seq 50); do : > {uid}-$n; mkdir {uid}-$n.d; ln -s x {uid}-$n.l; done"
                    );
                    assert!(as_user(scene, uid, &command));
                });
            }
        });
        for entry in fs::read_dir(scene.at("")).expect("listed") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("digits");
            let owner = name.split('-').next().expect("a number");
            let meta = fs::symlink_metadata(entry.path()).expect("stat");
            assert_eq!(meta.uid().to_string(), owner);
            assert_eq!(meta.gid().to_string(), owner);
        }
    });
}

#[test]
fn the_umask_of_the_caller_counts() {
    as_root(|scene| {
        assert!(as_user(scene, USER, "umask 027; : > file; mkdir dir"));
        assert!(as_user(scene, USER, "umask 0; : > open; mkfifo pipe"));
        assert_eq!((mode(scene, "file"), mode(scene, "dir")), (0o640, 0o750));
        assert_eq!((mode(scene, "open"), mode(scene, "pipe")), (0o666, 0o666));
    });
}

#[test]
fn permissions_are_enforced_for_users() {
    as_root(|scene| {
        fs::write(scene.at("secret"), b"x").expect("written");
        set_mode(scene, "secret", 0o600);
        assert!(!as_user(scene, USER, "cat secret"));
        assert!(!as_user(scene, USER, "echo y > secret"));
        assert!(!as_user(scene, USER, "chmod 777 secret"));
        assert!(!as_user(scene, USER, "chown 12345 secret"));
        set_mode(scene, "secret", 0o604);
        assert!(as_user(scene, USER, "cat secret"));
        assert!(!as_user(scene, USER, "echo y > secret"));

        fs::create_dir(scene.at("sticky")).expect("made");
        set_mode(scene, "sticky", 0o1777);
        assert!(as_user(scene, USER, ": > sticky/mine"));
        assert!(!as_user(scene, USER + 1, "rm -f sticky/mine"));
        assert!(!as_user(scene, USER + 1, "mv sticky/mine sticky/yours"));
        assert!(as_user(scene, USER, "rm sticky/mine"));
    });
}

#[test]
fn a_set_group_id_directory_hands_its_group_on() {
    as_root(|scene| {
        fs::create_dir(scene.at("team")).expect("made");
        std::os::unix::fs::chown(scene.at("team"), None, Some(GROUP)).expect("given");
        set_mode(scene, "team", 0o2777);
        assert!(as_user(
            scene,
            USER,
            "umask 022; : > team/file; mkdir team/dir"
        ));
        let meta = |name: &str| fs::metadata(scene.at(name)).expect("stat");
        assert_eq!(
            (meta("team/file").uid(), meta("team/file").gid()),
            (USER, GROUP)
        );
        assert_eq!(meta("team/dir").gid(), GROUP);
        assert_eq!(mode(scene, "team/dir"), 0o2755);
        assert_eq!(mode(scene, "team/file"), 0o644);
    });
}

/// Without the kernel's newest way of telling us, a set-user-id file kept its bits after a truncate by somebody else.
#[test]
fn set_id_bits_go_when_somebody_else_changes_the_file() {
    as_root(|scene| {
        let ways = [
            "echo more >> prog",
            "echo new > prog",
            "truncate -s 1 prog",
            "dd if=/dev/zero of=prog bs=1 count=1 conv=notrunc",
            "fallocate -l 100000 prog",
        ];
        for way in ways {
            fs::write(scene.at("prog"), b"#!/bin/sh\n").expect("written");
            set_mode(scene, "prog", 0o6777);
            assert_eq!(mode(scene, "prog"), 0o6777);
            assert!(as_user(scene, USER, way), "{way}");
            assert_eq!(mode(scene, "prog"), 0o777, "{way}");
        }
        set_mode(scene, "prog", 0o6777);
        fs::write(scene.at("prog"), b"root may").expect("written");
        assert_eq!(mode(scene, "prog"), 0o6777);
        std::os::unix::fs::chown(scene.at("prog"), Some(USER), None).expect("given");
        assert_eq!(mode(scene, "prog"), 0o777);
    });
}

/// A group that is denied by an ACL could read the file when the kernel was not told that we have ACLs.
#[test]
fn acls_are_kept_and_enforced() {
    as_root(|scene| {
        fs::write(scene.at("file"), b"x").expect("written");
        set_mode(scene, "file", 0o644);
        let file = File::open(scene.at("file")).expect("opened");
        // owner rw-, this user ---, group r--, mask r--, others r--
        let denied = acl(&[(1, 6, 0), (2, 0, USER), (4, 4, 0), (16, 4, 0), (32, 4, 0)]);
        if sys::set_xattr(&file, b"system.posix_acl_access", &denied, 0).is_err() {
            skip("no ACLs in the temporary directory");
            return;
        }
        assert!(!as_user(scene, USER, "cat file"));
        assert!(as_user(scene, USER + 1, "cat file"));

        // A default ACL takes the umask's place.
        fs::create_dir(scene.at("dir")).expect("made");
        set_mode(scene, "dir", 0o777);
        let dir = File::open(scene.at("dir")).expect("opened");
        let default = acl(&[(1, 7, 0), (2, 7, USER), (4, 5, 0), (16, 7, 0), (32, 5, 0)]);
        sys::set_xattr(&dir, b"system.posix_acl_default", &default, 0).expect("set");
        assert!(as_user(
            scene,
            USER + 1,
            "umask 077; : > dir/file; mkdir dir/sub"
        ));
        assert_eq!(mode(scene, "dir/sub"), 0o775);
        assert_eq!(mode(scene, "dir/file"), 0o664);
        let mut value = [0; 100];
        let sub = File::open(scene.at("dir/sub")).expect("opened");
        let len = sys::get_xattr(&sub, b"system.posix_acl_default", &mut value).expect("inherited");
        assert_eq!(value[..len], default);
    });
}

/// The bytes of an ACL: version 2, then (tag, permissions, id) each.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for &(tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        let id = if tag == 2 || tag == 8 { id } else { u32::MAX };
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn xattrs_of_every_kind_are_kept() {
    everywhere(|scene| {
        fs::write(scene.at("file"), b"x").expect("written");
        let file = File::open(scene.at("file")).expect("opened");
        let mut names: Vec<&[u8]> = vec![b"user.one", b"user.two"];
        if sys::effective_uid() == 0 {
            names.extend([&b"trusted.three"[..], b"security.four"]);
        }
        for name in &names {
            sys::set_xattr(&file, name, name, libc::XATTR_CREATE).expect("set");
        }
        let again = sys::set_xattr(&file, b"user.one", b"", libc::XATTR_CREATE);
        let number = again.expect_err("exists").raw_os_error();
        assert_eq!(number, Some(libc::EEXIST));
        let mut small = [0; 3];
        let short = sys::get_xattr(&file, b"user.one", &mut small).expect_err("too small");
        assert_eq!(short.raw_os_error(), Some(libc::ERANGE));
        assert_eq!(
            sys::get_xattr(&file, b"user.one", &mut []).expect("asked"),
            8
        );
        sys::remove_xattr(&file, b"user.two").expect("removed");
        let gone = sys::get_xattr(&file, b"user.two", &mut small).expect_err("removed");
        assert_eq!(gone.raw_os_error(), Some(libc::ENODATA));
    });
}

/// Half a second before 1970 became one and a half in the FUSE crate.
#[test]
fn times_are_kept_to_the_nanosecond_on_both_sides_of_1970() {
    everywhere(|scene| {
        fs::write(scene.at("file"), b"x").expect("written");
        let file = File::open(scene.at("file")).expect("opened");
        for (secs, nanos) in [
            (0, 1),
            (-1, 500_000_000),
            (-2, 999_999_999),
            (1_600_000_000, 7),
        ] {
            let time = Timespec { secs, nanos };
            sys::set_times(&file, SetTime::To(time), SetTime::To(time)).expect("set");
            let shown = sys::stat(&file).expect("stat");
            assert_eq!((shown.atime, shown.mtime), (time, time));
        }
        let before = sys::stat(&file).expect("stat");
        sys::set_times(&file, SetTime::Now, SetTime::Keep).expect("set");
        let shown = sys::stat(&file).expect("stat");
        assert_eq!(shown.mtime, before.mtime);
        assert!(shown.atime > before.atime);
    });
}

#[test]
fn the_file_systems_own_numbers_are_shown() {
    everywhere(|scene| {
        let of = |path| sys::statvfs(&File::open(path).expect("opened")).expect("told");
        // On some file systems they change with what other tests store meanwhile: asked for until they stand still.
        let numbers = |path| {
            let told = of(path);
            (told.blocks, told.files)
        };
        let (mount, source) = loop {
            let before = numbers(scene.below(""));
            let (mount, source) = (of(scene.at("")), of(scene.below("")));
            if before == (source.blocks, source.files) {
                break (mount, source);
            }
        };
        assert_eq!(
            (mount.blocks, mount.fragment),
            (source.blocks, source.fragment)
        );
        assert_eq!(
            (mount.files, mount.name_len_max),
            (source.files, source.name_len_max)
        );
        assert!(mount.available > 0);
    });
}
