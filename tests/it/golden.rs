//! Repositories of every version of the format that was ever released stay readable: what is in tests/fixtures is read
//! whole and compared with a listing in text (FORMAT.md, "Versions"; tests/fixtures/README.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rewindfs::cache::Cache;
use rewindfs::clock::Stamp;
use rewindfs::compress::Compression;
use rewindfs::crypto::AesKeyLen;
use rewindfs::repo::commits::Point;
use rewindfs::repo::{Repository, Secret};
use rewindfs::store::Store;
use rewindfs::store::local::Local;

use crate::golden_files::listing;
use crate::golden_files::maker::{MINUTE, PASSWORD, TEN, make};

/// Names a directory, which must not exist yet, in which the files of a new version are to be made and kept.
const MAKE: &str = "REWINDFS_MAKE_GOLDEN";
/// The configurations that a version's files cover: name of the directory, AES key length, compression.
const CONFIGURATIONS: [(&str, AesKeyLen, Compression); 3] = [
    ("aes256", AesKeyLen::Aes256, Compression::Zstd(19)),
    ("aes192", AesKeyLen::Aes192, Compression::Zstd(1)),
    ("aes128-plain", AesKeyLen::Aes128, Compression::Off),
];

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A copy of a golden repository that a test may do with as it likes.
pub(crate) fn copy_of(repository: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(repository, copy.path());
    copy
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn open_store(folder: &Path) -> Store {
    Arc::new(Local::open(folder).unwrap())
}

async fn open(folder: &Path, secret: Secret) -> Repository {
    let repository = Repository::open(open_store(folder), Cache::in_memory(0), &secret);
    repository.await.unwrap()
}

#[tokio::test]
async fn version_1_is_read_whole() {
    for (name, _, _) in CONFIGURATIONS {
        let files = fixtures().join("v1").join(name);
        let copy = copy_of(&files.join("repository"));
        let expected = fs::read_to_string(files.join("listing.txt")).unwrap();
        let recovery = fs::read_to_string(files.join("recovery-key")).unwrap();
        for secret in [
            Secret::Password(PASSWORD.to_owned().into()),
            Secret::Recovery(recovery.into()),
        ] {
            let repository = open(copy.path(), secret).await;
            assert_same(&listing::of(&repository).await, &expected, name);
        }
    }
}

/// Points out the first line that differs: the whole texts are too long to look at.
fn assert_same(found: &str, expected: &str, name: &str) {
    let pairs = found.lines().zip(expected.lines()).enumerate();
    for (line, (found, expected)) in pairs {
        assert_eq!(found, expected, "line {} of {name}", line + 1);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{name}");
}

#[tokio::test]
async fn version_1_is_found_by_time_number_and_name() {
    let copy = copy_of(&fixtures().join("v1/aes256/repository"));
    let repository = open(copy.path(), Secret::Password(PASSWORD.to_owned().into())).await;
    let volumes = repository.volumes().await.unwrap();
    let volume = repository.volume(volumes[0].id).await.unwrap();
    let seq = async |point| {
        volume
            .find(&point)
            .await
            .map(|found| found.commit.name.seq.0)
    };
    assert_eq!(seq(Point::Latest).await.unwrap(), 7);
    assert_eq!(seq(Point::Back(1)).await.unwrap(), 6);
    let named = Point::Named("before the move".into());
    assert_eq!(seq(named).await.unwrap(), 3);
    assert!(
        seq(Point::Named("lost".into())).await.is_err(),
        "published beyond a later claim"
    );
    // The clock was set back after 10:05 to 09:00: the later era has the last word for all times after that.
    assert_eq!(seq(Point::At(Stamp(TEN + 60 * MINUTE))).await.unwrap(), 7);
    assert_eq!(seq(Point::At(Stamp(TEN - 60 * MINUTE))).await.unwrap(), 7);
    assert!(seq(Point::At(Stamp(TEN - 61 * MINUTE))).await.is_err());
}

/// The maker still makes what is described, so that it is ready for the next version.
#[tokio::test]
async fn the_maker_makes_what_the_newest_listing_says() {
    let kept = std::env::var_os(MAKE).map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let target = kept
        .clone()
        .unwrap_or_else(|| temporary.path().join("version"));
    for (name, aes, compression) in CONFIGURATIONS {
        let files = target.join(name);
        let folder = files.join("repository");
        assert!(!folder.exists(), "golden files are never made anew");
        Local::create(&folder).unwrap();
        let recovery = make(&open_store(&folder), aes, compression).await;
        fs::write(files.join("recovery-key"), recovery + "\n").unwrap();
        let password = Secret::Password(PASSWORD.to_owned().into());
        let listing = listing::of(&open(&folder, password).await).await;
        match &kept {
            Some(_) => fs::write(files.join("listing.txt"), listing).unwrap(),
            None => {
                let expected = fixtures().join("v1").join(name).join("listing.txt");
                let expected = fs::read_to_string(expected).unwrap();
                assert_same(&listing, &expected, name);
            }
        }
    }
}
