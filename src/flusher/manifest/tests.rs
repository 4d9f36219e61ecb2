//! What a restart makes of the manifests that it finds.

use super::*;

fn name(seq: u64) -> CommitName {
    CommitName {
        era: Era(1),
        stamp: Stamp(1000 + seq),
        seq: Seq(seq),
        session: SessionId([3; 8]),
    }
}

fn tag(seq: u64) -> Tag {
    Tag([seq as u8; 32])
}

fn manifest(seq: u64) -> Manifest {
    Manifest {
        name: SpooledName::new(&name(seq), &tag(seq)),
        previous: (seq > 1).then(|| SpooledName::new(&name(seq - 1), &tag(seq - 1))),
        objects: vec![
            SpooledObject {
                key: ObjectKey::new(format!("v/1/d/2/{seq}")),
                len: 3,
            },
            SpooledObject {
                key: ObjectKey::new(format!("v/1/c/{seq}")),
                len: 4,
            },
        ],
        wall: 7,
        epoch: None,
    }
}

fn put_objects(spool: &Spool, manifest: &Manifest) {
    for object in &manifest.objects {
        fs::write(spool.path(&object.key), vec![1; object.len as usize]).unwrap();
    }
}

#[test]
fn a_restart_finds_what_was_captured_and_deletes_what_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, none) = Spool::open(dir.path()).unwrap();
    assert!(none.is_empty());
    for seq in [1, 2, 10] {
        put_objects(&spool, &manifest(seq));
        manifest(seq)
            .prepare(&spool)
            .unwrap()
            .publish(&spool)
            .unwrap();
    }
    put_objects(&spool, &manifest(11));
    fs::write(dir.path().join(TEMPORARY), "{").unwrap();

    let (spool, found) = Spool::open(dir.path()).unwrap();
    assert_eq!(found, [manifest(1), manifest(2), manifest(10)]);
    assert_eq!(spool.used_bytes(), 21);
    assert!(!spool.path(&manifest(11).commit().key).exists());
    assert!(!dir.path().join(TEMPORARY).exists());

    found[0].remove(&spool).unwrap();
    assert_eq!(spool.used_bytes(), 14);
    let (_, found) = Spool::open(dir.path()).unwrap();
    assert_eq!(found, [manifest(2), manifest(10)]);
}

#[test]
fn a_manifest_that_cannot_be_read_is_an_error_that_names_it() {
    for bytes in ["", "{}", "\u{0}", r#"{"name":1}"#] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(manifest(5).file_name());
        fs::write(&path, bytes).unwrap();
        let error = Spool::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("manifest."), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut bad = manifest(5);
    bad.objects.clear();
    fs::write(
        dir.path().join(bad.file_name()),
        serde_json::to_vec(&bad).unwrap(),
    )
    .unwrap();
    Spool::open(dir.path()).unwrap_err();
}

#[test]
fn a_chain_that_reaches_the_head_goes_on() {
    let chain = [manifest(4), manifest(5), manifest(6)];
    let head = |seq| Some((name(seq), tag(seq)));
    assert_eq!(resume(&chain, head(3)), Resume::Continue { from: 0 });
    assert_eq!(resume(&chain, head(4)), Resume::Continue { from: 1 });
    assert_eq!(resume(&chain, head(6)), Resume::Continue { from: 3 });
    assert_eq!(resume(&[manifest(1)], None), Resume::Continue { from: 0 });
    assert_eq!(resume(&[], head(9)), Resume::Continue { from: 0 });
}

#[test]
fn a_chain_that_another_writer_overtook_is_foreign() {
    let chain = [manifest(4), manifest(5)];
    assert_eq!(resume(&chain, Some((name(7), tag(7)))), Resume::Foreign);
    assert_eq!(resume(&chain, Some((name(3), tag(9)))), Resume::Foreign);
    assert_eq!(resume(&chain, None), Resume::Foreign);
    let gap = [manifest(4), manifest(6)];
    assert_eq!(resume(&gap, Some((name(3), tag(3)))), Resume::Foreign);
}

#[test]
fn what_is_set_aside_is_kept_and_no_longer_found() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path()).unwrap();
    put_objects(&spool, &manifest(4));
    manifest(4)
        .prepare(&spool)
        .unwrap()
        .publish(&spool)
        .unwrap();
    let (spool, found) = Spool::open(dir.path()).unwrap();
    let aside = spool.set_aside(&found).unwrap();
    assert_eq!(spool.used_bytes(), 0);
    assert_eq!(fs::read_dir(aside).unwrap().count(), 3);
    let (_, found) = Spool::open(dir.path()).unwrap();
    assert!(found.is_empty());
}
