//! The log of what was copied ahead: damaged, torn, replaced; and which of it is used.

use std::sync::Arc;

use super::*;
use crate::clock::Stamp;
use crate::flusher::manifest::{Manifest, SpooledName};
use crate::format::entry::{Address, CommitName, Hint};
use crate::id::{BlockClass, Era, FrameNo, Seq, Tag};
use crate::store::Body;
use crate::store::memory::Memory;

fn block(session: u8, number: u32) -> CopiedBlock {
    let session = SessionId([session; 8]);
    let id = BlockId {
        key_epoch: 0,
        class: BlockClass::Data,
        session,
        number,
    };
    let chunk = |n: u8| {
        let at = Address {
            block: id,
            frame: FrameNo(n.into()),
            inner: 7,
        };
        let hint = Hint {
            offset: 64,
            len: 1000,
            commit: None,
        };
        (ContentId([n + number as u8; 16]), Place { at, hint })
    };
    CopiedBlock {
        object: SpooledObject {
            key: ObjectKey::new(format!("v/1/d/{session}/{number:08x}")),
            len: 5,
        },
        chunks: vec![chunk(1), chunk(2)],
    }
}

fn spool_with(dir: &Path, blocks: &[CopiedBlock]) -> Arc<Spool> {
    let (spool, _) = Spool::open(dir).unwrap();
    for block in blocks {
        fs::write(spool.path(&block.object.key), b"bytes").unwrap();
        spool.note_copied_best_effort(block);
    }
    Spool::open(dir).unwrap().0
}

#[test]
fn what_was_noted_is_found_up_to_the_first_record_that_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = [block(1, 10), block(1, 20), block(1, 30)];
    let (mut log, none) = CopiedLog::open(dir.path());
    assert!(none.is_empty());
    blocks.iter().for_each(|block| log.note_best_effort(block));
    assert_eq!(CopiedLog::open(dir.path()).1, blocks);
    let whole = fs::read(dir.path().join(NAME)).unwrap();
    let record = whole.len() / blocks.len();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(dir.path().join(NAME), &damaged).unwrap();
        let (_, found) = CopiedLog::open(dir.path());
        assert_eq!(found, blocks[..at / record], "flipped at {at}");
        fs::write(dir.path().join(NAME), &whole[..at]).unwrap();
        let (mut log, found) = CopiedLog::open(dir.path());
        assert_eq!(found, blocks[..at / record], "cut at {at}");
        // What is added later is not lost behind a torn record.
        log.note_best_effort(&blocks[2]);
        let (_, found) = CopiedLog::open(dir.path());
        assert_eq!(found.last(), Some(&blocks[2]), "cut at {at}");
    }
}

#[test]
fn a_log_that_is_replaced_by_nothing_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = CopiedLog::open(dir.path());
    log.note_best_effort(&block(1, 10));
    log.replace_best_effort(&[block(1, 20)]);
    assert_eq!(CopiedLog::open(dir.path()).1, [block(1, 20)]);
    log.note_best_effort(&block(1, 30));
    assert_eq!(CopiedLog::open(dir.path()).1.len(), 2);
    log.replace_best_effort(&[]);
    assert!(!dir.path().join(NAME).exists());
}

/// A place in a block that nobody has would be a hole in a file.
#[tokio::test]
async fn only_blocks_that_lie_somewhere_and_are_ours_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let (here, stored, both) = (block(1, 10), block(1, 20), block(1, 30));
    let (gone, cut, foreign) = (block(1, 40), block(1, 50), block(2, 60));
    let all = [&here, &stored, &both, &gone, &cut, &foreign].map(Clone::clone);
    spool_with(dir.path(), &all);
    let store: Store = Arc::new(Memory::new());
    for (block, bytes) in [(&stored, "bytes"), (&both, "bytes"), (&cut, "byt")] {
        let body = Body::Bytes(bytes.into());
        store.put(&block.object.key, body).await.unwrap();
    }
    let spool = Spool::open(dir.path()).unwrap().0;
    for lost in [&stored, &gone, &cut] {
        fs::remove_file(spool.path(&lost.object.key)).unwrap();
    }
    let spool = Spool::open(dir.path()).unwrap().0;
    assert_eq!(spool.used_bytes(), 15);
    let found = find_copied(&spool, &store, &[SessionId([1; 8])]).await;
    assert_eq!(found.unwrap(), [here.clone(), stored, both]);
    // What the store has, and what is somebody else's, takes no room here.
    assert_eq!(spool.used_bytes(), 5);
    assert!(spool.holds(&here.object) && !spool.holds(&foreign.object));
}

/// A process died between capturing an epoch and taking what that names out of the log. The next one could use nothing of a block that
/// holds no whole chunk, and took it out of the spool: the only copy of what a commit on its way to the store was made of.
#[tokio::test]
async fn what_a_manifest_names_stays_whatever_the_log_says() {
    let dir = tempfile::tempdir().unwrap();
    let without_chunks = CopiedBlock {
        chunks: Vec::new(),
        ..block(1, 10)
    };
    let spool = spool_with(dir.path(), std::slice::from_ref(&without_chunks));
    let name = CommitName {
        era: Era(0),
        stamp: Stamp(1),
        seq: Seq(1),
        session: SessionId([1; 8]),
    };
    let manifest = Manifest {
        name: SpooledName::new(&name, &Tag([1; 32])),
        previous: None,
        objects: vec![without_chunks.object.clone()],
        wall: 7,
        epoch: None,
    };
    manifest.prepare(&spool).unwrap().publish(&spool).unwrap();
    let (spool, found) = Spool::open(dir.path()).unwrap();
    assert_eq!(found, [manifest]);
    let store: Store = Arc::new(Memory::new());
    assert_eq!(find_copied(&spool, &store, &[]).await.unwrap(), []);
    assert!(spool.holds(&without_chunks.object));
}

#[test]
fn what_is_used_is_named_once_and_not_looked_for_again() {
    let (first, second) = (block(1, 10), block(1, 20));
    let mut copied = Copied::new(vec![first.clone(), second.clone()]);
    assert_eq!(copied.used().count(), 0);
    assert_eq!(copied.find(&ContentId([0; 16])), None);
    let (content, place) = &second.chunks[1];
    assert_eq!(copied.find(content).as_ref(), Some(place));
    assert_eq!(copied.used().collect::<Vec<_>>(), [&second.object]);
    copied.captured();
    let rest = copied.rest();
    assert!(rest.len() == 1 && rest[0].object == first.object);
    assert_eq!(rest[0].chunks.len(), first.chunks.len());
    assert_eq!(copied.used().count(), 0);
    // Its chunks are where they are.
    assert_eq!(copied.find(content).as_ref(), Some(place));
}
