//! Reading and writing, in every way that there is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::Command;

use rewindfs::mount::Event;
use rewindfs::sys;

use crate::scene::{everywhere, skip};

const MIB: u64 = 1 << 20;

#[test]
fn what_is_written_is_read_back_and_lies_in_the_source() {
    everywhere(|scene| {
        let data: Vec<u8> = (0..5 * MIB + 123).map(|n| (n * 7 / 3) as u8).collect();
        fs::write(scene.at("file"), &data).expect("written");
        assert!(fs::read(scene.at("file")).expect("read") == data);
        assert!(fs::read(scene.below("file")).expect("read") == data);

        let file = File::options()
            .read(true)
            .write(true)
            .open(scene.at("file"));
        let file = file.expect("opened");
        file.write_all_at(b"overwritten", 4090).expect("written");
        let mut back = [0; 15];
        file.read_exact_at(&mut back, 4088).expect("read");
        assert_eq!(&back[2..13], b"overwritten");
        assert_eq!(back[..2], data[4088..4090]);
        file.sync_all().expect("durable");
    });
}

#[test]
fn appends_of_many_writers_are_all_kept() {
    everywhere(|scene| {
        let path = scene.at("log");
        std::thread::scope(|threads| {
            for writer in 0..4u8 {
                let path = &path;
                threads.spawn(move || {
                    let log = OpenOptions::new().append(true).create(true).open(path);
                    let mut log = log.expect("opened");
                    for _ in 0..200 {
                        log.write_all(&[b'a' + writer; 100]).expect("appended");
                    }
                });
            }
        });
        let log = fs::read(&path).expect("read");
        assert_eq!(log.len(), 4 * 200 * 100);
        for line in log.chunks(100) {
            assert!(line.iter().all(|byte| *byte == line[0]), "a torn line");
        }
    });
}

/// O_APPEND on the source's descriptor would make pwrite(2) ignore where the kernel wants the bytes.
#[test]
fn an_appender_that_seeks_still_appends() {
    everywhere(|scene| {
        fs::write(scene.at("log"), b"begin").expect("written");
        let mut log = OpenOptions::new()
            .append(true)
            .read(true)
            .open(scene.at("log"));
        let log = log.as_mut().expect("opened");
        log.seek(SeekFrom::Start(0)).expect("went");
        log.write_all(b" middle").expect("appended");
        File::options()
            .write(true)
            .open(scene.at("log"))
            .expect("opened")
            .set_len(5)
            .expect("cut");
        log.write_all(b" end").expect("appended");
        assert_eq!(fs::read(scene.at("log")).expect("read"), b"begin end");
    });
}

#[test]
fn truncating_and_extending() {
    everywhere(|scene| {
        fs::write(scene.at("file"), vec![7; 10_000]).expect("written");
        let file = File::options()
            .read(true)
            .write(true)
            .open(scene.at("file"));
        let file = file.expect("opened");
        file.set_len(5000).expect("cut");
        file.set_len(20_000).expect("extended");
        let back = fs::read(scene.at("file")).expect("read");
        assert!(back[..5000].iter().all(|byte| *byte == 7));
        assert!(back[5000..].iter().all(|byte| *byte == 0) && back.len() == 20_000);
        let emptied = File::create(scene.at("file")).expect("opened");
        assert_eq!(emptied.metadata().expect("stat").len(), 0);
        assert_eq!(file.metadata().expect("stat").len(), 0);
    });
}

#[test]
fn holes_are_made_found_and_filled() {
    everywhere(|scene| {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(scene.at("sparse"))
            .expect("created");
        file.set_len(64 * MIB).expect("extended");
        file.write_all_at(&[1; 4096], 32 * MIB).expect("written");
        assert!(file.metadata().expect("stat").blocks() < 1024);
        let data = sys::seek(&file, 0, libc::SEEK_DATA).expect("told");
        assert_eq!(data, 32 * MIB);
        let hole = sys::seek(&file, data as i64, libc::SEEK_HOLE).expect("told");
        assert_eq!(hole, 32 * MIB + 4096);

        file.seek(SeekFrom::Start(0)).expect("went");
        file.write_all(&vec![9; 4 * MIB as usize]).expect("written");
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        sys::allocate(&file, punch, MIB, MIB).expect("punched");
        match sys::allocate(&file, libc::FALLOC_FL_ZERO_RANGE, 3 * MIB, 8192) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                skip("no FALLOC_FL_ZERO_RANGE on this file system");
            }
            done => {
                done.expect("zeroed");
                let mut zeros = [1; 8192];
                file.read_exact_at(&mut zeros, 3 * MIB).expect("read");
                assert!(zeros.iter().all(|byte| *byte == 0));
            }
        }
        let mut punched = vec![1; MIB as usize];
        file.read_exact_at(&mut punched, MIB).expect("read");
        assert!(punched.iter().all(|byte| *byte == 0));
        sys::allocate(&file, libc::FALLOC_FL_KEEP_SIZE, 64 * MIB, MIB).expect("reserved");
        assert_eq!(file.metadata().expect("stat").len(), 64 * MIB);
        sys::allocate(&file, 0, 64 * MIB, MIB).expect("extended");
        assert_eq!(file.metadata().expect("stat").len(), 65 * MIB);
    });
}

#[test]
fn a_copy_inside_the_kernel_is_complete_though_answered_short() {
    everywhere(|scene| {
        let data: Vec<u8> = (0..40 * MIB).map(|n| (n / 4096) as u8).collect();
        fs::write(scene.at("from"), &data).expect("written");
        let from = File::open(scene.at("from")).expect("opened");
        let to = File::create_new(scene.at("to")).expect("created");
        let mut done = 0;
        while done < data.len() {
            let left = data.len() - done;
            match sys::copy_range(&from, done as u64, &to, done as u64, left) {
                Ok(0) => break,
                Ok(copied) => done += copied,
                Err(error) => panic!("copied {done}: {error}"),
            }
        }
        assert!(fs::read(scene.at("to")).expect("read") == data);
        let past = sys::copy_range(&from, 41 * MIB, &to, 0, 100).expect("nothing there");
        assert_eq!(past, 0);
    });
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    everywhere(|scene| {
        let path = scene.at("file");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let mut file = file.expect("created");
        file.write_all(b"before ").expect("written");
        fs::remove_file(&path).expect("removed");
        assert!(!path.exists());
        file.write_all(b"after").expect("written");
        assert_eq!(file.metadata().expect("stat").nlink(), 0);
        file.set_len(11).expect("cut");
        sys::set_mode(&file, 0o600).expect("changed");
        file.seek(SeekFrom::Start(0)).expect("went");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "before afte");
        // The name is free for another file meanwhile, and the two are not confused.
        fs::write(&path, b"another").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"another");
        assert_eq!(file.metadata().expect("stat").len(), 11);
    });
}

#[test]
fn direct_and_synchronous_io_work() {
    everywhere(|scene| {
        for flag in [libc::O_DIRECT, libc::O_SYNC, libc::O_DSYNC] {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(flag)
                .open(scene.at("file"))
                .expect("opened");
            file.write_all_at(&[3; 8192], 0).expect("written");
            let mut back = [0; 8192];
            assert_eq!(file.read_at(&mut back, 0).expect("read"), 8192);
            assert!(back.iter().all(|byte| *byte == 3));
        }
    });
}

/// Stores through a shared mapping arrive at the latest at msync; a private mapping changes nothing.
#[test]
fn mappings_are_shared_or_private() {
    let script = r#"
import mmap, sys
path = sys.argv[1]
with open(path, "r+b") as f:
    shared = mmap.mmap(f.fileno(), 0)
    shared[4000:4200] = b"S" * 200
    shared.flush()
    private = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    private[0:10] = b"P" * 10
    assert shared[0:10] == b"-" * 10
    private.close()
    shared.close()
"#;
    if Command::new("python3").arg("--version").output().is_err() {
        skip("no python3 to map files with");
        return;
    }
    everywhere(|scene| {
        fs::write(scene.at("file"), vec![b'-'; 10_000]).expect("written");
        let done = Command::new("python3")
            .args(["-c", script])
            .arg(scene.at("file"))
            .status();
        assert!(done.expect("ran").success());
        let below = fs::read(scene.below("file")).expect("read");
        assert_eq!(below.iter().filter(|byte| **byte == b'S').count(), 200);
        assert_eq!(&below[4000..4200], &[b'S'; 200]);
        assert!(!below.contains(&b'P'));
    });
}

#[test]
fn what_cannot_be_done_says_so() {
    everywhere(|scene| {
        fs::write(scene.at("file"), b"x").expect("written");
        let number = |result: io::Result<()>| result.expect_err("refused").raw_os_error();
        let file = File::open(scene.at("file")).expect("opened");
        assert_eq!(number(file.set_len(0)), Some(libc::EINVAL));
        assert_eq!(number(file.write_all_at(b"x", 0)), Some(libc::EBADF));
        let tmpfile = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .open(scene.at(""));
        assert_eq!(number(tmpfile.map(drop)), Some(libc::EOPNOTSUPP));
        let nowhere = sys::seek(&file, 100, libc::SEEK_DATA).map(drop);
        assert_eq!(number(nowhere), Some(libc::ENXIO));
    });
}

/// A program that reads a file again after somebody has changed it beside the mount sees the change when it opens it anew,
/// however much of it the kernel has cached.
#[test]
fn a_change_beside_the_mount_is_seen_at_the_next_open() {
    everywhere(|scene| {
        fs::write(scene.at("file"), b"one").expect("written");
        // The kernel tells of a closed file when it likes; until then what is there counts as written through the mount.
        let is_closed = |event: &Event| matches!(event, Event::Closed(_));
        while !scene.events.lock().iter().any(is_closed) {
            std::thread::yield_now();
        }
        assert_eq!(fs::read(scene.at("file")).expect("read"), b"one");
        for text in [b"two", b"six"] {
            let file = File::options().write(true).open(scene.below("file"));
            let file = file.expect("opened");
            file.write_all_at(text, 0).expect("written");
            // A time of its own, so that the test does not depend on how fine the clock of the file system is.
            let past =
                std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(text[0].into());
            file.set_modified(past).expect("set");
            drop(file);
            assert_eq!(fs::read(scene.at("file")).expect("read"), text);
        }
    });
}
