//! What every store promises, as one test that runs unchanged on each of them and on each wrapper.
//!
//! It uses the public trait only, wants a store that is empty, and leaves it empty.

use std::sync::Arc;

use bytes::Bytes;
use rewindfs::id::ObjectKey;
use rewindfs::store::names::KEY_LEN_MAX;
use rewindfs::store::{Body, Condition, Kind, PutOutcome, Store, Version};

/// More than one step of every copy loop, and not a multiple of any.
const LARGE_LEN: usize = 5 * 1024 * 1024 + 13;

/// What a store makes of the conditions of writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Conditions {
    /// Keeps to them.
    Kept,
    /// Keeps to [`Condition::Absent`] alone.
    #[allow(dead_code, reason = "only servers that other people wrote are so")]
    OfAbsence,
    /// Writes whatever stands there.
    Ignored,
}

/// Checks all promises.
#[allow(dead_code, reason = "the stand-alone check names its conditions")]
pub(crate) async fn check(store: Store) {
    check_with(store, Conditions::Kept).await;
}

/// Checks all promises but those that the store is known not to keep.
pub(crate) async fn check_with(store: Store, conditions: Conditions) {
    reads_give_what_was_written(&store, conditions).await;
    ranges_end_where_the_object_ends(&store).await;
    missing_objects_are_missing(&store).await;
    names_may_be_long_but_not_wild(&store).await;
    if conditions == Conditions::Kept {
        conditions_hold(&store).await;
    }
    if conditions != Conditions::Ignored {
        one_of_many_creates(&store, conditions).await;
    }
    listings_are_in_byte_order_and_paged(&store).await;
    let rest = store.list("", None, 1000).await.unwrap();
    let mut names: Vec<_> = rest.objects.into_iter().map(|(name, _)| name).collect();
    assert!(names.len() > 2, "there is something to remove");
    // What is not there is no error, alone or among others.
    names.insert(1, key("c/never-there"));
    store.delete_together(&names[..2]).await.unwrap();
    let left = store.list("", None, 1000).await.unwrap().objects.len();
    assert_eq!(left, names.len() - 2);
    store.delete_together(&names).await.unwrap();
    store.delete_together(&names[1..2]).await.unwrap();
    assert!(store.list("", None, 1).await.unwrap().objects.is_empty());
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name)
}

fn body(text: &str) -> Body {
    Body::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

/// Bytes without a pattern that a wrong offset could hide in.
fn noise(len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

async fn get(store: &Store, name: &str) -> Bytes {
    store.get(&key(name), u64::MAX >> 1).await.unwrap().0
}

async fn reads_give_what_was_written(store: &Store, conditions: Conditions) {
    let large = noise(LARGE_LEN);
    for (name, bytes) in [
        ("c/empty", Bytes::new()),
        ("c/small", Bytes::from_static(b"x")),
        ("c/large", large.clone()),
    ] {
        let len = bytes.len() as u64;
        store
            .put(&key(name), Body::Bytes(bytes.clone()))
            .await
            .unwrap();
        let (found, _) = store.get(&key(name), len).await.unwrap();
        assert!(found == bytes, "{name}");
        assert_eq!(store.head(&key(name)).await.unwrap(), Some(len));
        if len > 0 {
            let error = store.get(&key(name), len - 1).await.unwrap_err();
            assert_eq!(error.kind, Kind::Corrupt, "{error}");
        }
    }
    store.put(&key("c/small"), body("another")).await.unwrap();
    assert_eq!(&get(store, "c/small").await[..], b"another");
    files_are_taken(store, &large, conditions).await;
}

async fn files_are_taken(store: &Store, large: &Bytes, conditions: Conditions) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spooled");
    for bytes in [large.clone(), Bytes::new()] {
        std::fs::write(&path, &bytes).unwrap();
        let len = bytes.len() as u64;
        let file = |len| Body::File {
            path: path.clone(),
            len,
        };
        // Twice: the second replaces an object that may be the same file.
        for _ in 0..2 {
            store.put(&key("c/file"), file(len)).await.unwrap();
            assert!(get(store, "c/file").await == bytes);
        }
        let name = key("c/file");
        let outcome = store.put_if(&name, file(len), Condition::Absent).await;
        let expected = match conditions {
            Conditions::Ignored => PutOutcome::Done,
            Conditions::Kept | Conditions::OfAbsence => PutOutcome::Refused,
        };
        assert_eq!(outcome.unwrap(), expected);
        let error = store.put(&key("c/wrong"), file(len + 1)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{error}");
        std::fs::remove_file(&path).unwrap();
        let error = store.put(&key("c/wrong"), file(len)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{error}");
        // The object outlives the file that it was made of.
        assert!(get(store, "c/file").await == bytes);
    }
    assert_eq!(store.head(&key("c/wrong")).await.unwrap(), None);
}

async fn ranges_end_where_the_object_ends(store: &Store) {
    store
        .put(&key("c/range"), body("0123456789"))
        .await
        .unwrap();
    store.put(&key("c/none"), body("")).await.unwrap();
    for (range, expected) in [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..7, "3456"),
        (9..10, "9"),
        (5..99, "56789"),
        (10..20, ""),
        (11..20, ""),
        (4..4, ""),
    ] {
        let found = store
            .get_range(&key("c/range"), range.clone())
            .await
            .unwrap();
        assert_eq!(found, expected.as_bytes(), "{range:?}");
        let found = store.get_range(&key("c/none"), range).await.unwrap();
        assert!(found.is_empty());
    }
}

async fn missing_objects_are_missing(store: &Store) {
    // A name that is only the beginning of others is no object, nor is one below an object.
    for name in ["c/absent", "absent", "c", "c/range/below"] {
        for range in [0..1, 3..3] {
            let error = store.get_range(&key(name), range).await.unwrap_err();
            assert_eq!(error.kind, Kind::Missing, "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = store.get(&key(name), 9).await.unwrap_err();
        assert_eq!(error.kind, Kind::Missing, "{error}");
        assert_eq!(store.head(&key(name)).await.unwrap(), None);
    }
    for _ in 0..2 {
        store.delete(&key("c/range")).await.unwrap();
        store.delete(&key("absent/too")).await.unwrap();
        assert_eq!(store.head(&key("c/range")).await.unwrap(), None);
    }
}

async fn names_may_be_long_but_not_wild(store: &Store) {
    let part = "~0123456789abcdef._-".repeat(9);
    let mut longest = format!("c/{part}/");
    while longest.len() < KEY_LEN_MAX {
        longest.push('z');
    }
    store.put(&key(&longest), body("long")).await.unwrap();
    assert_eq!(&get(store, &longest).await[..], b"long");
    let listed = store.list("c/~", None, 9).await.unwrap();
    assert_eq!(listed.objects, [(key(&longest), 4)]);
    store.delete(&key(&longest)).await.unwrap();

    let too_long = format!("{longest}z");
    for name in [
        "",
        "..",
        "../c",
        "c/../../x",
        "/c",
        "c//x",
        "c/",
        "c/.x",
        "c\0",
        &too_long,
    ] {
        let error = store.put(&key(name), body("x")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{error}");
    }
}

async fn conditions_hold(store: &Store) {
    let name = key("c/condition");
    let put_if = |text: &'static str, condition| store.put_if(&name, body(text), condition);
    let nothing = Condition::Is(Version("\"0123456789abcdef\"".into()));
    assert_eq!(
        put_if("x", nothing.clone()).await.unwrap(),
        PutOutcome::Refused
    );
    assert_eq!(store.head(&name).await.unwrap(), None);
    assert_eq!(
        put_if("one", Condition::Absent).await.unwrap(),
        PutOutcome::Done
    );
    assert_eq!(
        put_if("no", Condition::Absent).await.unwrap(),
        PutOutcome::Refused
    );
    assert_eq!(put_if("no", nothing).await.unwrap(), PutOutcome::Refused);
    let (found, first) = store.get(&name, 9).await.unwrap();
    assert_eq!(&found[..], b"one");
    assert_eq!(store.get(&name, 9).await.unwrap().1, first);
    let outcome = put_if("two", Condition::Is(first.clone())).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Done);
    let outcome = put_if("no", Condition::Is(first)).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Refused);
    assert_eq!(&store.get(&name, 9).await.unwrap().0[..], b"two");
}

/// Of sixteen writers that race for a name, or to replace what is there, exactly one is told that it has won, and
/// what lies there is its own.
async fn one_of_many_creates(store: &Store, conditions: Conditions) {
    let name = key("c/race/new");
    let winner = race(store, &name, Condition::Absent).await;
    let (found, version) = store.get(&name, 9).await.unwrap();
    assert_eq!(found, winner.as_bytes());
    if conditions != Conditions::Kept {
        return;
    }
    let winner = race(store, &name, Condition::Is(version)).await;
    assert_eq!(get(store, "c/race/new").await, winner.as_bytes());
}

async fn race(store: &Store, name: &ObjectKey, condition: Condition) -> String {
    let start = Arc::new(tokio::sync::Barrier::new(16));
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let (store, start) = (Arc::clone(store), Arc::clone(&start));
            let (name, condition) = (name.clone(), condition.clone());
            tokio::spawn(async move {
                let text = format!("{condition:?}").len().to_string() + &writer.to_string();
                start.wait().await;
                let outcome = store.put_if(&name, body(&text), condition).await;
                (outcome.unwrap() == PutOutcome::Done).then_some(text)
            })
        })
        .collect();
    let mut winners = Vec::new();
    for writer in writers {
        winners.extend(writer.await.unwrap());
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    winners.remove(0)
}

async fn listings_are_in_byte_order_and_paged(store: &Store) {
    // A folder's name sorts with a slash behind it: - and . come before it, 0 and letters after.
    let names = [
        "l/a-b", "l/a.c", "l/a/1", "l/a/2", "l/a/b/c", "l/a0", "l/ab", "l/b", "l/~z", "m/x",
    ];
    for name in names.iter().rev() {
        store.put(&key(name), body(name)).await.unwrap();
    }
    for limit in [1, 2, 3, 7, 10, 1000] {
        assert_eq!(list_all(store, "l/", limit).await, names[..9], "{limit}");
        assert_eq!(list_all(store, "l/a", limit).await, names[..7], "{limit}");
        assert_eq!(list_all(store, "l/a/", limit).await, names[2..5], "{limit}");
        assert_eq!(list_all(store, "m", limit).await, names[9..], "{limit}");
    }
    for nothing in ["x", "l/a/1/", "l/b/c", "l/c", "..", "../", "l//", "/"] {
        assert!(list_all(store, nothing, 9).await.is_empty(), "{nothing}");
    }
    for (after, expected) in [
        ("", &names[..9]),
        ("l/a", &names[..9]),
        ("l/a-b", &names[1..9]),
        ("l/a/", &names[2..9]),
        ("l/a/1", &names[3..9]),
        ("l/a/1/x", &names[3..9]),
        ("l/a/zz", &names[5..9]),
        ("l/~z", &[]),
        ("m", &[]),
        ("a", &names[..9]),
    ] {
        let after = Some(key(after)).filter(|after| !after.as_str().is_empty());
        let page = store.list("l/", after.as_ref(), 1000).await.unwrap();
        let found: Vec<_> = page.objects.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(found, expected, "{after:?}");
        assert!(!page.more);
    }
    let page = store.list("l/", None, 9).await.unwrap();
    assert!(!page.more, "a full page that is the last");
    for (key, len) in page.objects {
        assert_eq!(len, key.as_str().len() as u64);
        store.delete(&key).await.unwrap();
    }
    assert!(list_all(store, "l/", 9).await.is_empty());
}

async fn list_all(store: &Store, prefix: &str, limit: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut after: Option<ObjectKey> = None;
    loop {
        let page = store.list(prefix, after.as_ref(), limit).await.unwrap();
        assert!(page.objects.len() <= limit);
        names.extend(page.objects.iter().map(|(key, _)| key.to_string()));
        if !page.more {
            return names;
        }
        after = page.objects.last().map(|(key, _)| key.clone());
        assert!(after.is_some(), "an empty page that says more follows");
    }
}
