//! What programs see in a mount is what they see in a plain directory: `native/cases.py` does the same in both, and must say the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use rewindfs::sys;

use crate::scene::{Place, Scene, skip};

/// Given to Python as it is, so that a user who cannot read this repository can run it.
const CASES: &str = include_str!("native/cases.py");

/// Runs `cases` in `dir`; a line for each thing that was seen.
fn seen(dir: &Path, cases: &[&str]) -> Vec<String> {
    let done = Command::new("python3")
        .args(["-c", CASES])
        .arg(dir)
        .args(cases)
        .output()
        .expect("ran");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{errors}");
    let said = String::from_utf8_lossy(&done.stdout);
    said.lines().map(str::to_owned).collect()
}

fn can_run() -> bool {
    let there = Command::new("python3").arg("--version").output().is_ok();
    if !there {
        skip("no python3 to do things with");
    }
    there
}

/// Asserts that `cases` show the same natively and in a mount at `place`.
fn same(place: Place, cases: &[&str]) {
    if !can_run() {
        return;
    }
    let Some(scene) = Scene::mount(place) else {
        return;
    };
    let plain = scene.beside("plain");
    fs::create_dir(&plain).expect("made");
    // As the source is.
    sys::set_mode(&fs::File::open(&plain).expect("opens"), 0o777).expect("open to all");
    let (native, ours) = (seen(&plain, cases), seen(&scene.at(""), cases));
    for (native, ours) in native.iter().zip(&ours) {
        assert!(native == ours, "natively  {native}\nmounted   {ours}");
    }
    assert_eq!(native.len(), ours.len());
    let ended = native.iter().find(|line| line.contains("ended by"));
    assert_eq!(ended, None);
    scene.assert_same();
    scene.unmount();
}

const GROUPS: [&[&str]; 7] = [
    &[
        "fallocate_modes",
        "copy_ranges",
        "data_and_holes",
        "direct_io",
        "mappings",
        "appends",
        "limits_of_size",
    ],
    &[
        "unlinked_and_open",
        "replaced_and_open",
        "running_programs",
        "locks",
        "special_files",
        "file_system",
    ],
    &[
        "renames_with_flags",
        "names_of_all_bytes",
        "directories",
        "listing_under_change",
        "hard_links",
    ],
    &["times", "which_times_change", "xattrs_of_all_kinds"],
    &["set_id_bits", "a_changed_program_has_no_rights"],
    &["acls"],
    &["sticky_and_set_group_directories", "who_may_what"],
];

#[test]
fn contents_are_as_on_the_disk() {
    same(Place::Elsewhere, GROUPS[0]);
}

#[test]
fn open_files_locks_and_special_files_are_as_on_the_disk() {
    same(Place::OverItself, GROUPS[1]);
}

#[test]
fn names_are_as_on_the_disk() {
    same(Place::OverItself, GROUPS[2]);
}

#[test]
fn attributes_are_as_on_the_disk() {
    same(Place::Elsewhere, GROUPS[3]);
}

#[test]
fn set_id_bits_are_as_on_the_disk() {
    same(Place::Elsewhere, GROUPS[4]);
}

#[test]
fn acls_are_as_on_the_disk() {
    same(Place::OverItself, GROUPS[5]);
}

#[test]
fn permissions_are_as_on_the_disk() {
    same(Place::Elsewhere, GROUPS[6]);
}

#[test]
fn no_case_is_left_out() {
    let mut lines = CASES.lines();
    let mut written = Vec::new();
    while let Some(line) = lines.next() {
        if matches!(line, "@case" | "@users") {
            let named = lines.next().and_then(|line| line.strip_prefix("def "));
            let name = named.and_then(|line| line.split('(').next());
            written.push(name.expect("a function follows"));
        }
    }
    let mut tested = GROUPS.concat();
    tested.sort_unstable();
    written.sort_unstable();
    assert_eq!(tested, written);
}

/// With the errors that programs take as "not here", and nothing half done.
#[test]
fn what_a_mount_cannot_do_is_refused_as_programs_expect() {
    if !can_run() {
        return;
    }
    let Some(scene) = Scene::mount(Place::Elsewhere) else {
        return;
    };
    let said = seen(&scene.at(""), &["what_a_mount_cannot"]);
    let said: Vec<&str> = said
        .iter()
        .filter_map(|line| line.strip_prefix("what_a_mount_cannot: "))
        .collect();
    assert_eq!(
        said,
        [
            "'O_TMPFILE' 'EOPNOTSUPP'",
            "'FICLONE' 'EOPNOTSUPP'",
            "'FIDEDUPERANGE' 'EOPNOTSUPP'",
            "'FS_IOC_GETFLAGS' 'ENOTTY'",
            "'FS_IOC_SETFLAGS' 'ENOTTY'",
            "'COLLAPSE' 'EOPNOTSUPP'",
            "'INSERT' 'EOPNOTSUPP'",
            "'UNSHARE' 'EOPNOTSUPP'",
            "\"b'x'x16384\" ['clone', 'file']",
        ]
    );
    scene.unmount();
}
