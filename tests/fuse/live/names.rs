//! Names: making, linking, renaming and removing them, and directories full of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use rewindfs::sys;

use crate::scene::{Scene, everywhere};

fn rename(scene: &Scene, from: &str, to: &str, flags: u32) -> io::Result<()> {
    let root = File::open(scene.at("")).expect("opened");
    sys::rename(&root, from.as_bytes(), &root, to.as_bytes(), flags)
}

fn number<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn every_kind_of_inode_can_be_made() {
    everywhere(|scene| {
        let root = File::open(scene.at("")).expect("opened");
        fs::create_dir_all(scene.at("a/b/c")).expect("made");
        symlink("some/where", scene.at("link")).expect("made");
        sys::make_node(&root, b"fifo", libc::S_IFIFO | 0o640, 0).expect("made");
        sys::make_node(&root, b"socket", libc::S_IFSOCK | 0o640, 0).expect("made");
        sys::make_node(&root, b"plain", libc::S_IFREG | 0o640, 0).expect("made");
        if sys::effective_uid() == 0 {
            let device = libc::makedev(7, 300);
            sys::make_node(&root, b"device", libc::S_IFBLK | 0o640, device).expect("made");
            let shown = fs::symlink_metadata(scene.at("device")).expect("stat");
            assert!(shown.file_type().is_block_device());
            assert_eq!(shown.rdev(), device);
        }
        let kind = |name: &str| {
            let meta = fs::symlink_metadata(scene.at(name)).expect("stat");
            meta.file_type()
        };
        assert!(kind("fifo").is_fifo() && kind("socket").is_socket() && kind("plain").is_file());
        let target = fs::read_link(scene.at("link")).expect("read");
        assert_eq!(target, Path::new("some/where"));
    });
}

#[test]
fn hard_links_share_everything() {
    everywhere(|scene| {
        fs::write(scene.at("one"), b"shared").expect("written");
        fs::hard_link(scene.at("one"), scene.at("two")).expect("linked");
        let (one, two) = (scene.at("one"), scene.at("two"));
        let ino = |path: &Path| fs::metadata(path).expect("stat").ino();
        assert_eq!(ino(&one), ino(&two));
        assert_eq!(fs::metadata(&one).expect("stat").nlink(), 2);
        // Read through the second name what is written through the first: both must share one page cache.
        assert_eq!(fs::read(&two).expect("read"), b"shared");
        fs::write(&one, b"changed").expect("written");
        assert_eq!(fs::read(&two).expect("read"), b"changed");
        fs::remove_file(&one).expect("removed");
        assert_eq!(fs::metadata(&two).expect("stat").nlink(), 1);
        assert_eq!(fs::read(&two).expect("read"), b"changed");
    });
}

#[test]
fn renames_replace_refuse_and_exchange() {
    everywhere(|scene| {
        let put = |name: &str| fs::write(scene.at(name), name).expect("written");
        let text = |name: &str| fs::read_to_string(scene.at(name)).expect("read");
        put("a");
        put("b");
        rename(scene, "a", "b", 0).expect("replaced");
        assert_eq!(text("b"), "a");
        put("c");
        let refused = rename(scene, "b", "c", libc::RENAME_NOREPLACE);
        assert_eq!(number(refused), Some(libc::EEXIST));
        rename(scene, "b", "d", libc::RENAME_NOREPLACE).expect("free");
        fs::create_dir(scene.at("dir")).expect("made");
        rename(scene, "c", "dir", libc::RENAME_EXCHANGE).expect("exchanged");
        assert!(scene.at("c").is_dir());
        assert_eq!(text("dir"), "c");
        assert_eq!(number(rename(scene, "missing", "x", 0)), Some(libc::ENOENT));
        let missing = rename(scene, "d", "missing", libc::RENAME_EXCHANGE);
        assert_eq!(number(missing), Some(libc::ENOENT));
        fs::hard_link(scene.at("d"), scene.at("e")).expect("linked");
        rename(scene, "d", "e", 0).expect("two names of one inode: nothing happens");
        assert_eq!((text("d"), text("e")), ("a".into(), "a".into()));
        fs::write(scene.at("c/inside"), b"x").expect("written");
        fs::create_dir(scene.at("empty")).expect("made");
        assert_eq!(
            number(rename(scene, "empty", "c", 0)),
            Some(libc::ENOTEMPTY)
        );
        rename(scene, "c", "empty", 0).expect("an empty directory is replaced");
        assert_eq!(fs::read(scene.at("empty/inside")).expect("read"), b"x");
    });
}

#[test]
fn a_rename_across_directories_takes_everything_along() {
    everywhere(|scene| {
        fs::create_dir_all(scene.at("from/tree/deep")).expect("made");
        fs::create_dir(scene.at("to")).expect("made");
        fs::write(scene.at("from/tree/deep/file"), b"x").expect("written");
        let open = File::open(scene.at("from/tree/deep/file")).expect("opened");
        fs::rename(scene.at("from/tree"), scene.at("to/moved")).expect("moved");
        let moved = fs::metadata(scene.at("to/moved/deep/file")).expect("stat");
        assert_eq!(moved.ino(), open.metadata().expect("stat").ino());
        let inside = fs::rename(scene.at("to"), scene.at("to/moved/deep/to"));
        assert_eq!(number(inside), Some(libc::EINVAL));
    });
}

#[test]
fn a_whiteout_is_left_behind() {
    if sys::effective_uid() != 0 {
        crate::scene::skip("only root can leave whiteouts");
        return;
    }
    everywhere(|scene| {
        fs::write(scene.at("file"), b"x").expect("written");
        let done = rename(scene, "file", "moved", libc::RENAME_WHITEOUT);
        if number(done) == Some(libc::EINVAL) {
            crate::scene::skip("no whiteouts on this file system");
            return;
        }
        let left = fs::symlink_metadata(scene.at("file")).expect("stat");
        assert!(left.file_type().is_char_device() && left.rdev() == 0);
    });
}

#[test]
fn removing_what_is_missing_full_or_of_another_kind() {
    everywhere(|scene| {
        fs::create_dir_all(scene.at("full/sub")).expect("made");
        fs::write(scene.at("file"), b"x").expect("written");
        assert_eq!(
            number(fs::remove_dir(scene.at("full"))),
            Some(libc::ENOTEMPTY)
        );
        assert_eq!(
            number(fs::remove_dir(scene.at("file"))),
            Some(libc::ENOTDIR)
        );
        assert_eq!(
            number(fs::remove_file(scene.at("full"))),
            Some(libc::EISDIR)
        );
        assert_eq!(
            number(fs::remove_file(scene.at("none"))),
            Some(libc::ENOENT)
        );
        let exists = fs::create_dir(scene.at("full"));
        assert_eq!(number(exists), Some(libc::EEXIST));
        assert_eq!(
            number(File::create_new(scene.at("file"))),
            Some(libc::EEXIST)
        );
        fs::remove_dir_all(scene.at("full")).expect("removed");
        assert!(!scene.at("full").exists());
    });
}

#[test]
fn names_of_any_bytes_up_to_255() {
    everywhere(|scene| {
        let long = vec![0xff; 255];
        for name in [&b"\xe9\n\t*?\\\""[..], b"...", b"-rf", &long] {
            let path = scene.at("").join(OsStr::from_bytes(name));
            fs::write(&path, name).expect("written");
            assert_eq!(fs::read(&path).expect("read"), name);
        }
        let too_long = scene.at("").join(OsStr::from_bytes(&[b'x'; 256]));
        assert_eq!(number(fs::write(too_long, b"")), Some(libc::ENAMETOOLONG));
    });
}

#[test]
fn a_directory_of_10_000_is_listed_while_half_of_it_is_deleted() {
    everywhere(|scene| {
        fs::create_dir(scene.at("many")).expect("made");
        let name = |n: u32| format!("many/{n:05}-{}", "x".repeat(20));
        for n in 0..10_000 {
            File::create_new(scene.at(&name(n))).expect("created");
        }
        let mut seen = BTreeSet::new();
        for (count, entry) in fs::read_dir(scene.at("many")).expect("opened").enumerate() {
            let entry = entry.expect("an entry").file_name();
            assert!(seen.insert(entry.clone()), "{entry:?} came twice");
            if count % 50 == 0 {
                // Odd ones go while the listing is under way.
                for n in (count as u32..count as u32 + 50).filter(|n| n % 2 == 1) {
                    fs::remove_file(scene.at(&name(n))).expect("removed");
                }
            }
        }
        for n in (0..10_000).step_by(2) {
            let name = name(n);
            let name = OsStr::new(name.trim_start_matches("many/"));
            assert!(seen.contains(name), "{name:?} was left out");
        }
        let left = fs::read_dir(scene.at("many")).expect("opened").count();
        assert!((5000..10_000).contains(&left));
    });
}

#[test]
fn many_threads_in_one_directory() {
    everywhere(|scene| {
        std::thread::scope(|threads| {
            for thread in 0..8 {
                threads.spawn(move || {
                    for n in 0..100 {
                        let (a, b) = (format!("{thread}-{n}"), format!("{thread}-{n}-moved"));
                        fs::write(scene.at(&a), &a).expect("written");
                        fs::rename(scene.at(&a), scene.at(&b)).expect("renamed");
                        assert_eq!(fs::read_to_string(scene.at(&b)).expect("read"), a);
                        if n % 2 == 0 {
                            fs::remove_file(scene.at(&b)).expect("removed");
                        }
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(scene.at("")).expect("listed").count(), 400);
    });
}
