//! The tree against a plain model, at size, and with damage. Pages lie in memory; nothing here encrypts.

mod memory;

mod model;

mod bulk;

mod sparse;

mod damage;

use futures::executor::block_on;

use super::*;
use crate::clock::{Stamp, Timespec};
use crate::format::commit::{INLINE_MAX, RUNS_MAX};
use crate::format::entry::{CommitName, Contents, HistoryEntry, Kind, Totals};
use crate::id::{Era, SessionId, Tag};
use memory::{Memory, data, file};

fn name_entry(id: u64) -> NameEntry {
    NameEntry {
        id: FileId(id),
        kind: Kind::File,
    }
}

fn put(id: u64, extent: Extent) -> Change {
    Change::PutExtent(FileId(id), extent)
}

fn hole(range: Range<u64>) -> Extent {
    Extent {
        range,
        contents: Contents::Hole,
    }
}

fn history(seq: u64, label: &str) -> HistoryEntry {
    HistoryEntry {
        name: CommitName {
            era: Era(1),
            stamp: Stamp(seq * 10),
            seq: Seq(seq),
            session: SessionId([7; 8]),
        },
        tag: Tag([seq as u8; 32]),
        wall: Stamp(seq * 10 + 1),
        totals: Totals {
            files: seq,
            ..Totals::default()
        },
        label: label.to_owned(),
        incomplete: seq.is_multiple_of(2),
        forgotten: seq.is_multiple_of(3).then_some(seq),
    }
}

/// Applies to an empty tree in memory.
fn tree_of(changes: Vec<Change>) -> Tree<Memory> {
    let memory = Memory::default();
    apply(&Tree::new(TreeRoot::default(), memory), changes)
}

fn apply(tree: &Tree<Memory>, changes: Vec<Change>) -> Tree<Memory> {
    let mut memory = tree.loader.pages().clone();
    let root = block_on(tree.apply(changes, &mut memory)).expect("applies");
    assert!(root.is_within_limits());
    Tree::new(root, memory)
}

#[test]
fn an_empty_tree_has_nothing() {
    let tree = tree_of(Vec::new());
    assert_eq!(*tree.root(), TreeRoot::default());
    block_on(async {
        assert_eq!(tree.inode(FileId::ROOT).await.expect("reads"), None);
        assert_eq!(tree.names(FileId::ROOT, None, 9).await.expect("reads"), []);
        assert_eq!(tree.xattrs(FileId::ROOT).await.expect("reads"), []);
        assert_eq!(
            tree.extents(FileId(1), 0..5).await.expect("reads"),
            [hole(0..5)]
        );
        assert_eq!(tree.extents(FileId(1), 5..5).await.expect("reads"), []);
        assert_eq!(
            tree.inodes(Some(FileId(u64::MAX)), 9).await.expect("reads"),
            []
        );
        assert_eq!(tree.resolve(&RepoPath::root()).await.expect("reads"), None);
        assert_eq!(tree.pages().await.expect("reads"), []);
    });
}

#[test]
fn later_extents_of_one_list_win_over_earlier() {
    let tree = tree_of(vec![
        put(9, data(0..1 << 20, 1, 0, Some(5))),
        put(9, data(4096..8192, 2, 100, Some(6))),
        put(9, hole(500_000..u64::MAX)),
        put(9, data(1 << 40..(1 << 40) + 10, 3, 0, None)),
        put(8, hole(0..u64::MAX)),
        put(8, data(u64::MAX - 4..u64::MAX, 4, 0, None)),
    ]);
    block_on(async {
        let expected = [
            data(0..4096, 1, 0, None),
            data(4096..8192, 2, 100, Some(6)),
            data(8192..500_000, 1, 8192, None),
            hole(500_000..1 << 40),
            data(1 << 40..(1 << 40) + 10, 3, 0, None),
            hole((1 << 40) + 10..u64::MAX),
        ];
        assert_eq!(
            tree.extents(FileId(9), 0..u64::MAX).await.expect("reads"),
            expected
        );
        let part = tree.extents(FileId(9), 5000..10_000).await.expect("reads");
        assert_eq!(
            part,
            [
                data(5000..8192, 2, 1004, None),
                data(8192..10_000, 1, 8192, None)
            ]
        );
        let end = tree
            .extents(FileId(8), u64::MAX - 6..u64::MAX)
            .await
            .expect("reads");
        assert_eq!(
            end,
            [
                hole(u64::MAX - 6..u64::MAX - 4),
                data(u64::MAX - 4..u64::MAX, 4, 0, None)
            ]
        );
        let holds = async |end, content| {
            let content = ContentId([content; 16]);
            let found = tree.holds_chunk(FileId(9), end, &content).await;
            found.expect("reads").is_some()
        };
        assert!(holds(8192, 6).await);
        assert!(!holds(8192, 5).await, "another content");
        assert!(!holds(4096, 5).await, "no longer the whole chunk");
        assert!(!holds(123, 6).await, "no extent ends there");
    });
}

#[test]
fn names_of_any_bytes_are_listed_in_pages_of_their_own_directory() {
    let mut names: Vec<Vec<u8>> = (1..=255u8)
        .filter(|&b| b != b'/' && b != b'.')
        .map(|b| vec![b])
        .collect();
    names.extend([
        vec![0xff; 255],
        vec![1; 255],
        b"a\x01".to_vec(),
        b"ab".to_vec(),
    ]);
    names.sort();
    let mut changes: Vec<_> = (0..)
        .zip(&names)
        .map(|(id, name)| Change::PutName {
            dir: FileId(5),
            name: name.clone(),
            entry: name_entry(id),
        })
        .collect();
    for dir in [4, 6] {
        changes.push(Change::PutName {
            dir: FileId(dir),
            name: b"other".to_vec(),
            entry: name_entry(1),
        });
    }
    let tree = tree_of(changes);
    block_on(async {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let some = tree
                .names(FileId(5), after.as_deref(), 7)
                .await
                .expect("reads");
            assert!(some.len() <= 7);
            let Some((last, _)) = some.last() else { break };
            after = Some(last.clone());
            listed.extend(some);
        }
        let expected: Vec<_> = names.into_iter().zip((0..).map(name_entry)).collect();
        assert_eq!(listed, expected);
        assert_eq!(
            tree.name(FileId(5), b"ab").await.expect("reads"),
            expected.iter().find(|(n, _)| n == b"ab").map(|(_, e)| *e)
        );
        assert_eq!(tree.name(FileId(5), b"abc").await.expect("reads"), None);
        assert_eq!(tree.names(FileId(5), None, 0).await.expect("reads"), []);
    });
}

#[test]
fn xattrs_of_every_size_are_replaced_as_a_whole() {
    let value = |len: usize| (0..len).map(|i| (i / 7) as u8).collect::<Vec<_>>();
    let long_name = vec![b'n'; 255];
    let all = vec![
        (b"user.a".to_vec(), value(XATTR_VALUE_MAX)),
        (b"user.a\x01".to_vec(), value(0)),
        (b"user.ab".to_vec(), value(8 << 10)),
        (b"user.b".to_vec(), value((8 << 10) + 1)),
        (long_name, value(3)),
    ];
    let mut sorted = all.clone();
    sorted.sort();
    let tree = tree_of(vec![
        Change::SetXattrs(FileId(3), vec![(b"user.gone".to_vec(), value(3))]),
        Change::SetXattrs(FileId(3), all),
        Change::SetXattrs(FileId(4), vec![(b"user.z".to_vec(), value(1))]),
    ]);
    assert_eq!(block_on(tree.xattrs(FileId(3))).expect("reads"), sorted);
    let few = vec![
        (b"user.a".to_vec(), value(9000)),
        (b"user.a".to_vec(), value(5)),
    ];
    let tree = apply(&tree, vec![Change::SetXattrs(FileId(3), few)]);
    assert_eq!(
        block_on(tree.xattrs(FileId(3))).expect("reads"),
        [(b"user.a".to_vec(), value(5))]
    );
    let tree = apply(&tree, vec![Change::DropInode(FileId(3))]);
    assert_eq!(block_on(tree.xattrs(FileId(3))).expect("reads"), []);
    assert_eq!(block_on(tree.xattrs(FileId(4))).expect("reads").len(), 1);
}

#[test]
fn a_path_is_walked_from_the_root() {
    let dir = Inode {
        kind: Kind::Dir,
        ..file(0)
    };
    let name = |dir, name: &[u8], id| Change::PutName {
        dir,
        name: name.to_vec(),
        entry: name_entry(id),
    };
    let tree = tree_of(vec![
        Change::PutInode(FileId::ROOT, dir.clone().into()),
        Change::PutInode(FileId(2), dir.clone().into()),
        Change::PutInode(FileId(3), file(7).into()),
        name(FileId::ROOT, b"d", 2),
        name(FileId(2), b"f", 3),
    ]);
    let resolve = |path: &[u8]| {
        block_on(tree.resolve(&RepoPath::parse(path).expect("a path"))).expect("reads")
    };
    assert_eq!(resolve(b"/"), Some((FileId::ROOT, dir)));
    assert_eq!(resolve(b"d/f"), Some((FileId(3), file(7))));
    assert_eq!(resolve(b"d/g"), None);
    assert_eq!(resolve(b"d/f/x"), None);
}

#[test]
fn what_no_tree_can_hold_is_refused() {
    let bad_name = |name: &[u8]| Change::PutName {
        dir: FileId(1),
        name: name.to_vec(),
        entry: name_entry(1),
    };
    let late = Timespec {
        secs: 0,
        nanos: 1_000_000_000,
    };
    let refused = [
        bad_name(b""),
        bad_name(b"a/b"),
        bad_name(b"a\0b"),
        bad_name(&[1; 256]),
        put(1, hole(5..5)),
        put(1, hole(Range { start: 6, end: 5 })),
        put(1, data(0..(1 << 20) + 1, 1, 0, None)),
        put(1, data(0..2, 1, (1 << 20) - 1, None)),
        Change::SetXattrs(
            FileId(1),
            vec![(b"x".to_vec(), vec![0; XATTR_VALUE_MAX + 1])],
        ),
        Change::SetXattrs(FileId(1), vec![(b"".to_vec(), vec![])]),
        Change::PutInode(
            FileId(1),
            Box::new(Inode {
                mtime: late,
                ..file(1)
            }),
        ),
        Change::PutInode(
            FileId(1),
            Box::new(Inode {
                target: vec![1; 40_000],
                ..file(1)
            }),
        ),
        Change::PutHistory(history(1, &"x".repeat(2000))),
    ];
    for change in refused {
        let mut memory = Memory::default();
        let tree = Tree::new(TreeRoot::default(), memory.clone());
        let result = block_on(tree.apply(vec![change.clone()], &mut memory));
        assert!(
            matches!(result, Err(repo::Error::Tree(Error::Refused { .. }))),
            "{change:?}"
        );
    }
}

#[test]
fn readers_and_writers_can_move_between_threads() {
    fn is_send<T: Send>(future: T) {
        drop(future);
    }
    let tree = tree_of(Vec::new());
    let mut sink = Memory::default();
    is_send(tree.inode(FileId(1)));
    is_send(tree.names(FileId(1), None, 1));
    is_send(tree.xattrs(FileId(1)));
    is_send(tree.extents(FileId(1), 0..1));
    is_send(tree.holds_chunk(FileId(1), 1, &ContentId([0; 16])));
    is_send(tree.history());
    is_send(tree.pages());
    is_send(tree.inodes(None, 1));
    is_send(tree.apply(Vec::new(), &mut sink));
}
