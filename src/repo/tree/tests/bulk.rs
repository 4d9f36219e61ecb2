//! Trees at size: how much is read and written for what.

use std::collections::{BTreeMap, HashSet};

use super::*;

/// A tree of directories of 1000 files, each with a name and an extent.
fn files(range: Range<u64>) -> Vec<Change> {
    let one = |id: u64| {
        [
            Change::PutInode(FileId(id), file(id).into()),
            Change::PutName {
                dir: FileId(id / 1000 + 1_000_000_000),
                name: format!("file-{id:06}.txt").into_bytes(),
                entry: name_entry(id),
            },
            put(
                id,
                data(
                    0..4096,
                    id as u32 / 64,
                    (id % 64 * 4096) as u32,
                    Some(id as u8),
                ),
            ),
            Change::SetXattrs(FileId(id), Vec::new()),
        ]
    };
    range.flat_map(one).collect()
}

#[test]
fn a_hundred_thousand_files_are_read_back_with_few_pages() {
    let tree = tree_of(files(2..100_002));
    let base = tree.root().base.clone().expect("bulk-loaded into the base");
    assert_eq!((base.entries, base.height), (300_000, 2));
    assert!(tree.root().runs.is_empty() && tree.root().inline.is_empty());
    let memory = tree.loader.pages().clone();
    assert_eq!(
        block_on(tree.pages()).expect("reads").len() as u64,
        memory.written().0
    );
    block_on(async {
        let before = memory.read();
        assert_eq!(
            tree.inode(FileId(50_000)).await.expect("reads"),
            Some(file(50_000))
        );
        assert!(
            memory.read() - before <= 3,
            "a look-up reads one page a level"
        );
        let before = memory.read();
        for id in 50_001..50_020 {
            assert_eq!(tree.inode(FileId(id)).await.expect("reads"), Some(file(id)));
        }
        assert!(
            memory.read() - before <= 1,
            "neighbours lie in the same pages"
        );
        let before = memory.read();
        let names = tree
            .names(FileId(1_000_000_050), Some(b"file-050499.txt"), 10)
            .await
            .expect("reads");
        assert_eq!(names[0], (b"file-050500.txt".to_vec(), name_entry(50_500)));
        assert_eq!(names.len(), 10);
        assert!(memory.read() - before <= 4, "a listing reads what it lists");
        assert_eq!(
            tree.inodes(None, usize::MAX).await.expect("reads").len(),
            100_000
        );
    });
}

#[test]
fn a_small_commit_writes_no_page_and_a_dense_one_little_more_than_itself() {
    let tree = tree_of(files(2..20_002));
    let memory = tree.loader.pages().clone();
    let before = memory.written();
    let small = apply(&tree, files(5000..5003));
    assert_eq!(memory.written(), before, "it rides in the commit");
    assert!(small.root().inline.len() <= INLINE_MAX);
    let dense = apply(&small, files(20_002..25_002));
    let own = tree.root().base.as_ref().map_or(0, |base| base.bytes) / 4;
    let written = memory.written().1 - before.1;
    assert!(written < own * 3 / 2, "{written} bytes for {own}");
    assert!(dense.root().runs.is_empty());
    assert_eq!(
        block_on(dense.inodes(None, usize::MAX))
            .expect("reads")
            .len(),
        25_000
    );
}

#[test]
fn removing_everything_leaves_an_empty_tree() {
    let tree = tree_of(files(2..5002));
    let drop = |id: u64| {
        let name = format!("file-{id:06}.txt").into_bytes();
        let dir = FileId(id / 1000 + 1_000_000_000);
        [
            Change::DropInode(FileId(id)),
            Change::DropName { dir, name },
        ]
    };
    let tree = apply(&tree, (2..5002).flat_map(drop).collect());
    assert_eq!(*tree.root(), TreeRoot::default());
}

/// A name that shares little with its neighbours, so that inner pages hold few.
fn long_name(n: u64) -> Vec<u8> {
    format!("{n:010}{:a>240}", "").into_bytes()
}

fn put_long(n: u64, id: u64) -> Change {
    Change::PutName {
        dir: FileId(1),
        name: long_name(n),
        entry: name_entry(id),
    }
}

#[test]
fn a_directory_of_long_names_is_deep_and_still_searched_by_few_pages() {
    let shuffled = |n: u64| n * 7919 % 30_000;
    let tree = tree_of(
        (0..30_000)
            .map(|n| put_long(shuffled(n), shuffled(n)))
            .collect(),
    );
    assert_eq!(tree.root().base.as_ref().map(|base| base.height), Some(3));
    let memory = tree.loader.pages().clone();
    block_on(async {
        for n in [0, 12_345, 29_999] {
            let before = memory.read();
            let found = tree.name(FileId(1), &long_name(n)).await.expect("reads");
            assert_eq!(found, Some(name_entry(n)));
            assert!(memory.read() - before <= 3);
        }
        let some = tree
            .names(FileId(1), Some(&long_name(9_999)), 20_000)
            .await
            .expect("reads");
        assert!(
            some.into_iter()
                .eq((10_000..30_000).map(|n| (long_name(n), name_entry(n))))
        );
    });
}

#[test]
fn a_deep_base_keeps_the_pages_that_no_change_touches() {
    let mut model: BTreeMap<u64, u64> = (0..30_000).map(|n| (n * 2, n)).collect();
    let mut tree = tree_of(model.iter().map(|(n, id)| put_long(*n, *id)).collect());
    let memory = tree.loader.pages().clone();
    for round in 0..60u64 {
        // A stretch that is emptied, filled or replaced, now here, now there; it goes straight into the base.
        let (start, len) = (round * 7919 % 60_000, [40, 400, 4000][round as usize % 3]);
        let mut changes = Vec::new();
        for n in start..start + len {
            if round % 4 < 2 && n % 50 != 0 {
                model.remove(&n);
                let (dir, name) = (FileId(1), long_name(n));
                changes.push(Change::DropName { dir, name });
            } else {
                model.insert(n, round);
                changes.push(put_long(n, round));
            }
        }
        let before = memory.written().0;
        let old: HashSet<_> = block_on(tree.pages()).expect("reads").into_iter().collect();
        tree = apply(&tree, changes);
        let new: HashSet<_> = block_on(tree.pages()).expect("reads").into_iter().collect();
        let written = memory.written().0 - before;
        assert_eq!(
            new.difference(&old).count() as u64,
            written,
            "each new page is used"
        );
        assert!(
            written <= len / 100 + 12,
            "round {round}: {written} pages for {len} changes"
        );
        let names = block_on(tree.names(FileId(1), None, usize::MAX)).expect("reads");
        assert!(
            names
                .into_iter()
                .eq(model.iter().map(|(n, id)| (long_name(*n), name_entry(*id))))
        );
    }
}

#[test]
fn a_file_of_fifty_thousand_extents_is_overwritten_and_cut() {
    let whole = (0..50_000).map(|n| put(5, data(n * 4096..(n + 1) * 4096, n as u32, 0, Some(1))));
    let mut tree = tree_of(whole.collect());
    for round in 0..40u64 {
        let some = (0..50).map(|n| {
            let at = (round * 50 + n) * 7919 % 50_000 * 4096 + 1024;
            put(5, data(at..at + 4096, 60_000 + round as u32, 0, None))
        });
        tree = apply(&tree, some.collect());
        assert!(tree.root().runs.len() <= RUNS_MAX);
    }
    block_on(async {
        let all = tree
            .extents(FileId(5), 0..50_000 * 4096)
            .await
            .expect("reads");
        let (mut at, mut new) = (0, 0);
        for extent in all {
            assert_eq!(extent.range.start, at);
            at = extent.range.end;
            let Contents::Data { place, content } = &extent.contents else {
                continue;
            };
            new += u64::from(place.at.frame.0 >= 60_000) * (extent.range.end - extent.range.start);
            assert_eq!(
                content.is_some(),
                extent.range.end - extent.range.start == 4096 && place.at.frame.0 < 60_000
            );
        }
        assert_eq!((at, new), (50_000 * 4096, 2000 * 4096));
    });
    let cut = apply(&tree, vec![put(5, hole(100 * 4096..u64::MAX))]);
    let left = block_on(cut.extents(FileId(5), 99 * 4096..u64::MAX)).expect("reads");
    assert_eq!(left.last(), Some(&hole(100 * 4096..u64::MAX)));
    let gone = apply(&cut, vec![Change::DropInode(FileId(5))]);
    assert_eq!(
        block_on(gone.extents(FileId(5), 0..1 << 40)).expect("reads"),
        [hole(0..1 << 40)]
    );
}
