//! The short form of `scripts/one-moment`, which does the work: snapshots under full load, each of them one moment.

use std::path::Path;
use std::process::Command;

use crate::world::can_mount;

/// As many as take about ten seconds.
const SNAPSHOTS: &str = "10";
/// The same each time; the long form takes another.
const SEED: &str = "20";

#[test]
fn each_snapshot_under_load_is_one_moment() {
    let test = "each_snapshot_under_load_is_one_moment";
    if !can_mount(test) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/one-moment");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .args(["--snapshots", SNAPSHOTS])
        .args(["--seed", SEED])
        .args(["--binary", env!("CARGO_BIN_EXE_rewindfs")])
        .arg("--dir")
        .arg(std::env::temp_dir());
    let Ok(output) = command.output() else {
        eprintln!("SKIPPED {test}: it needs python3");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    eprintln!("{told}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
}
