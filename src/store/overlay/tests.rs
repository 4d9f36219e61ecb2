//! The spool over a store: what waits is seen, what is uploaded falls through, and no listing loses a key.

use std::sync::Arc;

use super::*;
use crate::store::Kind;
use crate::store::memory::Memory;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name)
}

fn body(text: &str) -> Body {
    Body::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

struct Spooled {
    spool: tempfile::TempDir,
    inner: Store,
    overlay: Overlay,
}

fn spooled() -> Spooled {
    let spool = tempfile::tempdir().unwrap();
    let inner: Store = Arc::new(Memory::new());
    let overlay = Overlay::new(Arc::clone(&inner), spool.path().to_path_buf());
    Spooled {
        spool,
        inner,
        overlay,
    }
}

impl Spooled {
    fn spool(&self, name: &str, text: &str) -> PathBuf {
        let path = self.spool.path().join(file_name(&key(name)));
        std::fs::write(&path, text).unwrap();
        path
    }
}

async fn list_all(store: &Overlay, prefix: &str, limit: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut after: Option<ObjectKey> = None;
    loop {
        let page = store.list(prefix, after.as_ref(), limit).await.unwrap();
        assert!(page.objects.len() <= limit);
        names.extend(page.objects.iter().map(|(key, _)| key.to_string()));
        after = page.objects.last().map(|(key, _)| key.clone()).or(after);
        if !page.more {
            return names;
        }
    }
}

#[tokio::test]
async fn a_waiting_object_is_read_from_the_spool_then_from_the_store() {
    let s = spooled();
    let path = s.spool("v/a/1", "waiting");
    assert_eq!(s.overlay.head(&key("v/a/1")).await.unwrap(), Some(7));
    let range = s.overlay.get_range(&key("v/a/1"), 4..99).await.unwrap();
    assert_eq!(&range[..], b"ing");
    assert_eq!(
        &s.overlay.get(&key("v/a/1"), 7).await.unwrap().0[..],
        b"waiting"
    );
    let too_long = s.overlay.get(&key("v/a/1"), 6).await.unwrap_err();
    assert_eq!(too_long.kind, Kind::Corrupt);
    let empty = s.overlay.get_range(&key("v/a/1"), 8..9).await.unwrap();
    assert!(empty.is_empty());

    s.inner.put(&key("v/a/1"), body("stored")).await.unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(
        &s.overlay.get(&key("v/a/1"), 7).await.unwrap().0[..],
        b"stored"
    );
    let missing = s.overlay.get_range(&key("v/a/2"), 0..1).await.unwrap_err();
    assert_eq!(missing.kind, Kind::Missing);
}

#[tokio::test]
async fn listings_merge_both_whatever_the_page_size() {
    let s = spooled();
    for name in ["v/a", "v/c", "v/e", "w/x"] {
        s.inner.put(&key(name), body("s")).await.unwrap();
    }
    for name in ["v/b", "v/c", "v/d", "v/f", "v/g", "u"] {
        s.spool(name, "spooled");
    }
    std::fs::write(s.spool.path().join(".v+tmp"), "unfinished").unwrap();
    for limit in 1..9 {
        let names = list_all(&s.overlay, "v/", limit).await;
        assert_eq!(
            names,
            ["v/a", "v/b", "v/c", "v/d", "v/e", "v/f", "v/g"],
            "{limit}"
        );
    }
}

#[tokio::test]
async fn a_spool_that_does_not_exist_is_empty_and_names_cannot_leave_it() {
    let inner: Store = Arc::new(Memory::new());
    inner.put(&key("a"), body("x")).await.unwrap();
    let overlay = Overlay::new(inner, "/nonexistent/spool".into());
    assert_eq!(list_all(&overlay, "", 9).await, ["a"]);
    assert_eq!(overlay.head(&key("a")).await.unwrap(), Some(1));
    let error = overlay.head(&key("../a")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
}

#[test]
fn file_names_are_reversible() {
    for name in ["format", "v/0/c/~1.2", "a/b/c"] {
        assert_eq!(key_of(&file_name(&key(name))), Some(key(name)));
    }
    assert_eq!(key_of(".hidden"), None);
    assert_eq!(key_of("a+.b"), None);
}
