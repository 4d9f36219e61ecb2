//! A store that has lost or spoilt something, behind real mounts made by the program itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rewindfs::cache::Cache;
use rewindfs::repo::commits::Point;
use rewindfs::repo::{Repository, Secret};
use rewindfs::store::local::Local;

use crate::pages::{TreePage, tree_pages};
use crate::processes::is_mounted;
use crate::sample::noise;
use crate::world::{PASSWORD, World, can_mount};

/// A volume with two snapshots, `one` and `two`, unmounted again.
fn two_snapshots() -> World {
    let world = World::new();
    world.init();
    world.mount(&[]);
    fs::write(world.source().join("small"), b"small").unwrap();
    fs::write(world.source().join("large"), noise(0, 4 << 20)).unwrap();
    world.snapshot("one");
    fs::write(world.source().join("small"), b"changed").unwrap();
    world.snapshot("two");
    world.unmount(&world.source());
    world
}

/// Files of the repository below folders of this name, in order.
fn objects(dir: &Path, folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if path.is_dir() {
            found.extend(objects(&path, folder));
        } else if path.components().any(|part| part.as_os_str() == folder) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_live_mount_does_not_go_on_from_a_store_that_was_put_back() {
    if !can_mount("a_live_mount_does_not_go_on_from_a_store_that_was_put_back") {
        return;
    }
    let world = two_snapshots();
    let newest = objects(&world.path("repository"), "c").remove(0);
    let kept = world.path("kept");
    fs::rename(&newest, &kept).unwrap();
    let source = world.source();
    let refused = world.try_run(["mount".as_ref(), source.as_os_str()]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{told}");
    assert!(told.contains("this machine has seen"), "{told}");
    // The files themselves are as they were, and nothing was published over what is missing.
    assert_eq!(fs::read(source.join("small")).unwrap(), b"changed");
    fs::rename(&kept, &newest).unwrap();
    world.mount(&[]);
    world.unmount(&source);
}

#[test]
fn a_snapshot_mount_gives_an_io_error_for_what_is_damaged_and_nothing_else() {
    if !can_mount("a_snapshot_mount_gives_an_io_error_for_what_is_damaged_and_nothing_else") {
        return;
    }
    let world = two_snapshots();
    for object in objects(&world.path("repository"), "d") {
        let mut bytes = fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&object, bytes).unwrap();
    }
    let _ = fs::remove_dir_all(world.path("cache"));
    let place = world.dir("then");
    world.mount_past("one", &place);
    assert_eq!(fs::read(place.join("small")).unwrap(), b"small");
    let large = fs::read(place.join("large")).unwrap_err();
    assert_eq!(large.raw_os_error(), Some(libc::EIO));
    assert_eq!(fs::read_dir(&place).unwrap().count(), 2);
    world.unmount(&place);
    // The live files never needed the repository.
    assert_eq!(
        fs::read(world.source().join("large")).unwrap(),
        noise(0, 4 << 20)
    );
}

/// The pages of the latest snapshot's tree.
fn pages(world: &World) -> Vec<TreePage> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Local::open(&world.path("repository")).unwrap());
        let secret = Secret::Password(PASSWORD.to_owned().into());
        let opened = Repository::open(store, Cache::in_memory(1 << 20), &secret).await;
        let repository = opened.unwrap();
        let info = repository.volumes().await.unwrap().remove(0);
        let volume = repository.volume(info.id).await.unwrap();
        let latest = volume.find(&Point::Latest).await.unwrap();
        tree_pages(&volume, &latest.commit).await
    })
}

/// The mount came to be, and all that anybody heard of it was "Input/output error".
#[test]
fn a_snapshot_whose_root_is_damaged_is_not_mounted_and_told_why() {
    if !can_mount("a_snapshot_whose_root_is_damaged_is_not_mounted_and_told_why") {
        return;
    }
    let world = World::new();
    world.init();
    // More than fits one page.
    for number in 0..1000 {
        fs::write(world.source().join(format!("file-{number}")), b"x").unwrap();
    }
    world.mount(&[]);
    world.snapshot("one");
    world.unmount(&world.source());
    let pages = pages(&world);
    let place = world.dir("then");
    for page in pages.iter().filter(|page| page.holds_root || page.is_root) {
        let object = world.path("repository").join(page.object.as_str());
        let whole = fs::read(&object).unwrap();
        let mut damaged = whole.clone();
        damaged[page.byte] ^= 1;
        fs::write(&object, damaged).unwrap();
        let _ = fs::remove_dir_all(world.path("cache"));
        let source = world.source();
        let mount = ["mount".as_ref(), source.as_os_str(), "--at".as_ref()];
        let more = ["one".as_ref(), place.as_os_str()];
        let refused = world.try_run(mount.into_iter().chain(more));
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(4), "{page:?}: {told}");
        assert!(told.contains(page.object.as_str()), "{page:?}: {told}");
        assert!(!is_mounted(&place), "{page:?}");
        fs::write(&object, whole).unwrap();
    }
    let _ = fs::remove_dir_all(world.path("cache"));
    world.mount_past("one", &place);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1000);
    world.unmount(&place);
}
