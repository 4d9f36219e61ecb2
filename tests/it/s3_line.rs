//! The line to a server: whose certificate is trusted, how fast bodies travel, and when a silent server is given up.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rewindfs::id::ObjectKey;
use rewindfs::store::pace::{Limits, Pace};
use rewindfs::store::s3::{Credentials, S3};
use rewindfs::store::url::Location;
use rewindfs::store::{Body, ObjectStore};

use crate::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};

async fn limited(server: &S3Server, limits: Limits) -> Arc<S3> {
    let Ok(Location::S3(place)) = server.location("p").parse() else {
        panic!("a location");
    };
    let keys = Credentials::Keys {
        id: ACCESS_KEY.into(),
        secret: SECRET_KEY.into(),
    };
    Arc::new(S3::connect(&place, keys, Pace::new(limits)).await.unwrap())
}

fn init(server: &S3Server, bundle: Option<&str>) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rewindfs"));
    command
        .args(["init"])
        .env_clear()
        .env("HOME", home.path())
        .env("REWINDFS_REPO", server.location("p"))
        .env("REWINDFS_PASSWORD", "correct horse battery staple")
        .envs(server.environment());
    if let Some(bundle) = bundle {
        let path = home.path().join("ca.pem");
        std::fs::write(&path, bundle).unwrap();
        command.env("AWS_CA_BUNDLE", path);
    }
    command.output().unwrap()
}

#[test]
fn a_servers_own_authority_is_trusted_when_it_is_named_and_not_before() {
    let (server, authority) = S3Server::start_tls("bucket");
    let output = init(&server, None);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("is not trusted"), "{told}");
    assert!(told.contains("AWS_CA_BUNDLE"), "{told}");
    assert!(server.objects().is_empty());

    let output = init(&server, Some("no certificate at all"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("holds no certificate"), "{told}");

    let output = init(&server, Some(&authority));
    assert!(output.status.success(), "{output:?}");
    assert!(!server.objects().is_empty());
}

/// Both directions are held to their limit, several bodies together, while they travel: a body in memory, one from a file.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_travel_no_faster_than_the_limit() {
    const RATE: u64 = 2 << 20;
    const LEN: usize = 1 << 20;
    let server = S3Server::start("bucket");
    let limits = |upload, download| Limits { upload, download };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spooled");
    std::fs::write(&path, vec![2; LEN]).unwrap();
    let file = Body::File {
        path,
        len: LEN as u64,
    };
    let (one, two) = (ObjectKey::new("one"), ObjectKey::new("two"));
    let up = limited(&server, limits(Some(RATE), None)).await;
    let began = Instant::now();
    let bytes = Body::Bytes(Bytes::from(vec![1; LEN]));
    tokio::try_join!(up.put(&one, bytes), up.put(&two, file)).unwrap();
    // Two megabytes at two a second, less what may be saved up while nothing travels.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");

    let down = limited(&server, limits(None, Some(RATE))).await;
    let began = Instant::now();
    let read = tokio::try_join!(down.get(&one, LEN as u64), down.get(&two, LEN as u64));
    let ((one, _), (two, _)) = read.unwrap();
    assert_eq!((&one[..], &two[..]), (&vec![1; LEN][..], &vec![2; LEN][..]));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
}
