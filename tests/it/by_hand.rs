//! FORMAT.md is enough to get files back without this program: `scripts/restore-by-hand`, which was written from it and knows
//! Python, `openssl` and `zstd` alone, restores files from the golden repositories, and they are the right ones.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rewindfs::cache::Cache;
use rewindfs::format::entry::Kind;
use rewindfs::id::{FileId, Seq};
use rewindfs::repo::commits::{Found, Point};
use rewindfs::repo::{Repository, Secret, Volume};
use rewindfs::snapshot::tree_fs::TreeFs;
use rewindfs::store::local::Local;

use crate::golden::fixtures;
use crate::golden_files::maker::PASSWORD;

/// Larger files are sparse and have a test of their own.
const SIZE_MAX: u64 = 1 << 20;
/// Files of one directory that are restored: each takes a few processes, and those of one directory are alike.
const FILES_OF_DIRECTORY: usize = 4;

fn golden(name: &str) -> PathBuf {
    fixtures().join("v1").join(name)
}

/// Whether the commands that the script needs are here; if not, says aloud what is missing.
fn can_read_by_hand() -> bool {
    let tools = ["python3", "openssl", "zstd"];
    let is_missing = |tool: &&str| {
        let mut command = Command::new(tool);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).status().is_err()
    };
    let missing: Vec<_> = tools.into_iter().filter(is_missing).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        let mut out = std::io::stderr();
        writeln!(
            out,
            "SKIPPED: a test that reads by hand, for want of {missing} (scripts/check installs them)"
        )
        .unwrap();
    }
    missing.is_empty()
}

fn by_hand(repository: &Path, key_file: &Path, arguments: &[&OsStr]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/restore-by-hand");
    let mut command = Command::new("python3");
    command.arg(script).arg(repository).args(arguments);
    command.arg("--key-file").arg(key_file).output().unwrap()
}

async fn docs(repository: &Path) -> Arc<Volume> {
    let store = Arc::new(Local::open(repository).unwrap());
    let secret = Secret::Password(PASSWORD.to_owned().into());
    let opened = Repository::open(store, Cache::in_memory(1 << 20), &secret).await;
    let opened = opened.unwrap();
    let volumes = opened.volumes().await.unwrap();
    let docs = volumes.iter().find(|info| info.name == "docs").unwrap();
    opened.volume(docs.id).await.unwrap()
}

/// Paths and contents of the files of one commit.
async fn files(volume: &Volume, found: &Found) -> Vec<(Vec<u8>, Vec<u8>)> {
    let fs = TreeFs::new(volume, &found.commit);
    let mut files = Vec::new();
    let mut pending = vec![(Vec::new(), FileId::ROOT)];
    while let Some((path, dir)) = pending.pop() {
        let mut of_directory = 0;
        for (name, entry) in fs.names(dir, None, 1000).await.unwrap() {
            let path = [&path[..], b"/", &name].concat();
            if entry.kind == Kind::Dir {
                pending.push((path, entry.id));
                continue;
            }
            let size = fs.inode(entry.id).await.unwrap().size;
            let is_file = entry.kind == Kind::File;
            if is_file && size <= SIZE_MAX && of_directory < FILES_OF_DIRECTORY {
                of_directory += 1;
                let len = usize::try_from(size).unwrap();
                let contents = fs.read(entry.id, 0, len).await.unwrap();
                files.push((path, contents.to_vec()));
            }
        }
    }
    files
}

#[tokio::test]
async fn every_kind_of_file_is_restored_with_stock_tools() {
    if !can_read_by_hand() {
        return;
    }
    for (name, at) in [
        ("aes256", "latest"),
        ("aes256", "2026-11-21T10:05:30+00:00"),
        ("aes256", "@4"),
        ("aes128-plain", "latest"),
    ] {
        let (repository, key) = (
            golden(name).join("repository"),
            golden(name).join("recovery-key"),
        );
        let copy = crate::golden::copy_of(&repository);
        let volume = docs(copy.path()).await;
        let point = match at.strip_prefix('@') {
            Some(seq) => Point::Seq(Seq(seq.parse().unwrap())),
            None => Point::Latest,
        };
        let found = volume.find(&point).await.unwrap();
        for (path, expected) in files(&volume, &found).await {
            let arguments = ["--volume", "docs", "--at", at].map(OsStr::new);
            let path = OsStr::from_bytes(&path);
            let output = by_hand(&repository, &key, &[&[path], &arguments[..]].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{path:?} at {at}: {said}");
            assert!(output.stdout == expected, "{path:?} at {at} of {name}");
        }
    }
}

#[test]
fn a_sparse_file_of_three_terabytes_is_restored_as_one() {
    if !can_read_by_hand() {
        return;
    }
    let (files, folder) = (golden("aes256"), tempfile::tempdir().unwrap());
    let target = folder.path().join("sparse");
    let arguments = ["/sparse", "--volume", "docs", "-o"].map(OsStr::new);
    let arguments = [&arguments[..], &[target.as_os_str()]].concat();
    let output = by_hand(
        &files.join("repository"),
        &files.join("recovery-key"),
        &arguments,
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let restored = File::open(&target).unwrap();
    assert_eq!(restored.metadata().unwrap().len(), 3 << 40);
    let mut increment = [0; 10];
    restored.read_exact_at(&mut increment, 0).unwrap();
    assert_eq!(&increment, &b"a page increment, a page increment, "[10..20]);
}

#[test]
fn what_is_wrong_gives_an_error_and_no_file() {
    if !can_read_by_hand() {
        return;
    }
    let files = golden("aes256");
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("restored");
    let refuse = |repository: &Path, key: &Path, path: &str, why: &str| {
        let arguments = [path, "--volume", "docs", "-o"].map(OsStr::new);
        let output = by_hand(
            repository,
            key,
            &[&arguments[..], &[target.as_os_str()]].concat(),
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(!target.exists());
    };
    let (repository, key) = (files.join("repository"), files.join("recovery-key"));
    refuse(&repository, &key, "/no such file", "there is no");
    let other = golden("aes128-plain").join("recovery-key");
    refuse(&repository, &other, "/big.bin", "no slot");
    let mistyped = folder.path().join("mistyped");
    let text = fs::read_to_string(&key).unwrap();
    let last = if text.starts_with('0') { "1" } else { "0" };
    fs::write(&mistyped, last.to_owned() + &text[1..]).unwrap();
    refuse(&repository, &mistyped, "/big.bin", "typing mistake");
    let copy = crate::golden::copy_of(&repository);
    let damaged = largest_data_block(copy.path());
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[1000] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    refuse(copy.path(), &key, "/big.bin", "damaged");
}

fn largest_data_block(folder: &Path) -> PathBuf {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let is_data = path.components().any(|part| part.as_os_str() == "d");
            match entry.metadata().unwrap() {
                data if data.is_dir() => pending.push(path),
                data if is_data => found.push((data.len(), path)),
                _ => {}
            }
        }
    }
    found.into_iter().max().unwrap().1
}
