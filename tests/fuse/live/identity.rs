//! Inode numbers: the volume's own, stable, never confused.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use crate::scene::everywhere;

#[test]
fn the_number_is_the_same_whichever_way_it_is_asked() {
    everywhere(|scene| {
        assert_eq!(fs::metadata(scene.at("")).expect("stat").ino(), 1);
        for n in 0..200 {
            fs::write(scene.at(&format!("{n}")), b"").expect("written");
        }
        for entry in fs::read_dir(scene.at("")).expect("listed") {
            let entry = entry.expect("an entry");
            assert_eq!(entry.ino(), entry.metadata().expect("stat").ino());
            assert_eq!(entry.ino(), fs::metadata(entry.path()).expect("stat").ino());
        }
    });
}

/// ext4 uses an inode number again at once, while the kernel's FORGET for the old one is still on its way.
#[test]
fn a_number_is_never_used_again_and_a_new_file_never_taken_for_an_old_one() {
    everywhere(|scene| {
        let path = scene.at("file");
        let mut numbers = HashSet::new();
        for n in 0..500 {
            fs::write(&path, format!("{n}")).expect("written");
            let open = File::open(&path).expect("opened");
            let number = open.metadata().expect("stat").ino();
            assert!(numbers.insert(number), "{number} was used again");
            assert_eq!(fs::read_to_string(&path).expect("read"), format!("{n}"));
            if n % 3 == 0 {
                drop(open);
            }
            fs::remove_file(&path).expect("removed");
        }
    });
}

#[test]
fn saving_by_rename_gives_a_new_number_and_moving_keeps_it() {
    everywhere(|scene| {
        let number = |path: &Path| fs::metadata(path).expect("stat").ino();
        let (doc, temporary) = (scene.at("doc"), scene.at("doc.tmp"));
        fs::write(&doc, b"one").expect("written");
        let before = number(&doc);
        fs::write(&temporary, b"two").expect("written");
        let new = number(&temporary);
        fs::rename(&temporary, &doc).expect("replaced");
        assert_eq!(number(&doc), new);
        assert_ne!(before, new);
        assert_eq!(fs::read(&doc).expect("read"), b"two");
    });
}
