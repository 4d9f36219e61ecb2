//! What a folder adds to the contract: nothing half done is seen, links instead of copies, a disk that goes away.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name)
}

fn body(text: &'static str) -> Body {
    Body::Bytes(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn a_file_on_the_same_disk_is_linked_and_nothing_is_left_aside() {
    let folder = tempfile::tempdir().unwrap();
    let spooled = folder.path().join("spooled");
    fs::write(&spooled, "finished").unwrap();
    let root = folder.path().join("repo");
    Local::create(&root).unwrap();
    let store = Local::open(&root).unwrap();
    let file = Body::File {
        path: spooled.clone(),
        len: 8,
    };
    for _ in 0..2 {
        store.put(&key("a/b/c"), file.clone()).await.unwrap();
        let linked = fs::metadata(root.join("a/b/c")).unwrap();
        assert_eq!(linked.ino(), fs::metadata(&spooled).unwrap().ino());
        assert_eq!(linked.nlink(), 2);
    }
    store
        .put_if(&key("d"), file, Condition::Absent)
        .await
        .unwrap();
    assert_eq!(fs::read_dir(root.join(".tmp")).unwrap().count(), 0);
}

/// A spool on another file system costs a copy, and nothing else. Where there is no second one (no tmpfs at
/// /dev/shm), the copy is of the same one, and this is said.
#[tokio::test]
async fn a_file_on_another_disk_is_copied() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| {
        eprintln!("no second file system at /dev/shm: linking is tested instead of copying");
        tempfile::tempdir().unwrap()
    });
    let path = elsewhere.path().join("spooled");
    let bytes = vec![7; 3 * 1024 * 1024 + 1];
    fs::write(&path, &bytes).unwrap();
    let store = Local::open(root.path()).unwrap();
    let len = bytes.len() as u64;
    let file = Body::File { path, len };
    store.put(&key("a/b"), file.clone()).await.unwrap();
    let outcome = store.put_if(&key("a/c"), file, Condition::Absent).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Done);
    for name in ["a/b", "a/c"] {
        assert!(store.get(&key(name), len).await.unwrap().0 == bytes);
    }
    assert_eq!(fs::read_dir(root.path().join(".tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_died_writers_left_is_not_listed_and_cleared_in_time() {
    let root = tempfile::tempdir().unwrap();
    let aside = root.path().join(".tmp");
    fs::create_dir(&aside).unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for name in [
        "1000-000000000-1-0",
        &format!("{now}-000000000-1-0"),
        "foreign",
    ] {
        fs::write(aside.join(name), "half").unwrap();
    }
    let store = Local::open(root.path()).unwrap();
    assert!(store.list("", None, 9).await.unwrap().objects.is_empty());
    assert_eq!(fs::read_dir(&aside).unwrap().count(), 2);
    assert!(!aside.join("1000-000000000-1-0").exists());
}

#[tokio::test]
async fn opening_never_makes_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("absent");
    let error = Local::open(&root).unwrap_err();
    assert_eq!(error.kind, Kind::Missing);
    assert!(error.to_string().contains("mounted?"), "{error}");
    assert!(!root.exists());
    fs::write(&root, "a file").unwrap();
    assert_eq!(Local::open(&root).unwrap_err().kind, Kind::Invalid);
}

/// Every operation, with the kind of its error.
async fn try_all(store: &Local) -> Vec<Option<Kind>> {
    let kind = |error: Error| error.kind;
    vec![
        store.put(&key("a"), body("x")).await.err().map(kind),
        store
            .put_if(&key("b"), body("x"), Condition::Absent)
            .await
            .err()
            .map(kind),
        store
            .put_if(&key("b"), body("x"), Condition::Is(Version("v".into())))
            .await
            .err()
            .map(kind),
        store.get(&key("a"), 9).await.err().map(kind),
        store.get_range(&key("a"), 0..1).await.err().map(kind),
        store.list("", None, 9).await.err().map(kind),
        store.list("v/x/", None, 9).await.err().map(kind),
        store.delete(&key("a")).await.err().map(kind),
        store.head(&key("a")).await.err().map(kind),
    ]
}

/// A disk that is unplugged leaves nothing, or an empty folder on another disk. Neither may look like a repository
/// from which everything is gone, and nothing may be written there; when the disk is back, all goes on.
#[tokio::test]
async fn a_disk_that_goes_away_is_an_error_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (root, unplugged) = (folder.path().join("usb"), folder.path().join("unplugged"));
    Local::create(&root).unwrap();
    let store = Local::open(&root).unwrap();
    store.put(&key("a"), body("x")).await.unwrap();

    fs::rename(&root, &unplugged).unwrap();
    assert_eq!(try_all(&store).await, [Some(Kind::Retry); 9]);
    assert!(!root.exists(), "made anew");

    fs::create_dir(&root).unwrap();
    assert_eq!(try_all(&store).await, [Some(Kind::Retry); 9]);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);

    // The same contents in another folder, as when the disk comes back under another device number.
    fs::remove_dir(&root).unwrap();
    fs::create_dir(&root).unwrap();
    for name in [".store", "a"] {
        fs::copy(unplugged.join(name), root.join(name)).unwrap();
    }
    assert_eq!(&store.get(&key("a"), 9).await.unwrap().0[..], b"x");
    store.put(&key("a"), body("y")).await.unwrap();
}

#[tokio::test]
async fn what_the_system_forbids_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let store = Local::open(folder.path()).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let put = store.put(&key("a"), body("x")).await;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The superuser may write anywhere; then there is nothing to forbid.
    if let Err(error) = put {
        assert_eq!(error.kind, Kind::Denied, "{error}");
    }
    for (code, kind) in [
        (28, Kind::Full),
        (122, Kind::Full),
        (13, Kind::Denied),
        (30, Kind::Denied),
    ] {
        let error = Error::from_io("put", io::Error::from_raw_os_error(code));
        assert_eq!(error.kind, kind, "{error}");
    }
}

#[tokio::test]
async fn symbolic_links_and_foreign_files_are_no_objects() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x"), "outside").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    fs::write(root.path().join("lost+found"), "").unwrap();
    fs::write(root.path().join("mine"), "").unwrap();
    let store = Local::open(root.path()).unwrap();
    let listed = store.list("", None, 9).await.unwrap();
    assert_eq!(listed.objects, [(key("mine"), 0)]);
}
