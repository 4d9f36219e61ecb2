//! Layouts that must be refused, and those that must not.

use std::io;

use super::*;

fn ours_at(path: &str) -> Entry {
    Entry {
        id: 1,
        device: "0:52".into(),
        mountpoint: path.into(),
        kind: "fuse.rewindfs".into(),
        source: "docs".into(),
    }
}

/// Source, mount point, repository, state, cache.
fn check(paths: [&str; 5], mounts: &[Entry]) -> Result<(), Error> {
    let [source, mountpoint, repository, state, cache] = paths.map(Path::new);
    Layout {
        source,
        mountpoint,
        repository: Some(repository),
        state,
        cache,
        mounts,
    }
    .check()
}

#[test]
fn usual_layouts_pass() {
    for paths in [
        ["/h/docs", "/h/docs", "/usb/repo", "/h/.state", "/h/.cache"],
        ["/h/docs", "/mnt/docs", "/h/repo", "/h/.state", "/h/.cache"],
        [
            "/h/docs",
            "/h/docs2",
            "/h/docs-repo",
            "/h/.state",
            "/h/.cache",
        ],
    ] {
        check(paths, &[ours_at("/h/other")]).unwrap();
    }
}

#[test]
fn whatever_could_back_up_itself_is_refused() {
    for paths in [
        ["/h", "/h", "/h/repo", "/s", "/c"],
        ["/h", "/h", "/h", "/s", "/c"],
        ["/h", "/h", "/r", "/h/.state", "/c"],
        ["/h", "/h", "/r", "/s", "/h/.cache"],
        ["/r/docs", "/r/docs", "/r", "/s", "/c"],
        ["/s/docs", "/s/docs", "/r", "/s", "/c"],
        ["/h", "/h/mnt", "/r", "/s", "/c"],
        ["/m/h", "/m", "/r", "/s", "/c"],
        ["/h", "/m", "/r", "/m/state", "/c"],
        ["/h", "/r/inside", "/r", "/s", "/c"],
    ] {
        let refused = check(paths, &[]).unwrap_err();
        assert!(matches!(refused, Error::Layout(_)), "{paths:?}");
    }
}

#[test]
fn a_source_inside_one_of_our_mounts_is_refused_but_its_own_dead_mount_is_not() {
    let paths = ["/h/docs", "/h/docs", "/r", "/s", "/c"];
    assert!(check(paths, &[ours_at("/h")]).is_err());
    check(paths, &[ours_at("/h/docs")]).unwrap();
    let elsewhere = ["/h/docs", "/mnt", "/r", "/s", "/c"];
    assert!(check(elsewhere, &[ours_at("/h/docs")]).is_err());
}

#[test]
fn mount_points_are_judged_by_what_stands_there() {
    let dir = tempfile::tempdir().unwrap();
    let stat = || dir.path().metadata();
    check_mountpoint(dir.path(), &[], stat()).unwrap();
    let ours = [ours_at(dir.path().to_str().unwrap())];
    assert!(check_mountpoint(dir.path(), &ours, stat()).is_err());
    let dead = Err(io::Error::from_raw_os_error(libc::ENOTCONN));
    check_mountpoint(dir.path(), &ours, dead).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(check_mountpoint(&file, &[], file.metadata()).is_err());
    let missing = dir.path().join("missing");
    assert!(check_mountpoint(&missing, &[], missing.metadata()).is_err());
}
