//! What the contract of all stores (`tests/it/store_contract.rs`) cannot ask through the trait alone: names that no store of ours would
//! write, put there behind its back, hide nothing and end no listing.

use std::path::Path;

use super::*;
use crate::store::local::Local;
use crate::store::memory::Memory;
use crate::store::overlay::Overlay;
use crate::store::s3::{Credentials, S3};

#[path = "../../tests/support/s3_server/mod.rs"]
mod s3_server;

use s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};

/// Ours.
const KEYS: [&str; 3] = ["c/a", "c/b", "c/c/1"];

/// More than one page of any of the sizes asked for, of names that are no keys: before, between and behind [`KEYS`].
fn foreign() -> impl Iterator<Item = String> {
    let begins = ["c/!", "c/a!", "c/b!", "c/c/!", "c/c/1!", "c/d!"];
    begins
        .into_iter()
        .flat_map(|begin| (0..1001).map(move |n| format!("{begin}{n:04}")))
}

async fn all_keys_are_listed(store: &dyn ObjectStore) {
    for limit in [1, 2, 250, 1000] {
        let mut found: Vec<String> = Vec::new();
        let mut after: Option<ObjectKey> = None;
        loop {
            let page = store.list("c/", after.as_ref(), limit).await.unwrap();
            assert!(page.objects.len() <= limit);
            found.extend(page.objects.iter().map(|(key, _)| key.to_string()));
            after = page.objects.last().map(|(key, _)| key.clone()).or(after);
            if !page.more {
                break;
            }
            assert!(!page.objects.is_empty(), "empty, and says more follows");
        }
        assert_eq!(found, KEYS, "{limit} at once");
    }
}

async fn put_keys(store: &dyn ObjectStore) {
    for name in KEYS {
        let body = Body::Bytes(Bytes::from_static(b"x"));
        store.put(&ObjectKey::new(name), body).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_lists_all_keys_among_the_names_of_others() {
    let server = S3Server::start("bucket");
    let location: Location = server.location("deep/prefix").parse().unwrap();
    let Location::S3(place) = location else {
        panic!("{location} is in a bucket");
    };
    let credentials = Credentials::Keys {
        id: ACCESS_KEY.into(),
        secret: SECRET_KEY.into(),
    };
    let store = S3::connect(&place, credentials, Pace::default())
        .await
        .unwrap();
    put_keys(&store).await;
    for name in foreign() {
        server.tamper(&format!("deep/prefix/{name}"), Some(Bytes::new()));
    }
    all_keys_are_listed(&store).await;
    // Those of others are passed over a thousand at a time, however few were asked for.
    let before = server.requests();
    let page = store.list("c/", None, 1).await.unwrap();
    assert_eq!(page.objects.len(), 1);
    assert_eq!(server.requests() - before, 3);
}

fn put_foreign_files(root: &Path, names: impl Iterator<Item = String>) {
    for name in names {
        std::fs::write(root.join(name), "").unwrap();
    }
}

#[tokio::test]
async fn a_folder_lists_all_keys_among_the_names_of_others() {
    let root = tempfile::tempdir().unwrap();
    let store = Local::open(root.path()).unwrap();
    put_keys(&store).await;
    put_foreign_files(root.path(), foreign());
    all_keys_are_listed(&store).await;
}

#[tokio::test]
async fn an_overlay_lists_all_keys_among_the_names_of_others() {
    let spool = tempfile::tempdir().unwrap();
    let inner: Store = Arc::new(Memory::new());
    put_keys(&*inner).await;
    let spooled = foreign().map(|name| overlay::file_name(&ObjectKey::new(name)));
    put_foreign_files(spool.path(), spooled);
    all_keys_are_listed(&Overlay::new(inner, spool.path().to_path_buf())).await;
}
