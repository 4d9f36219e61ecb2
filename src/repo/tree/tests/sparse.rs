//! Few changes put straight into a large base, where most pages must be kept: extents that reach over the edges of
//! leaves, and xattrs that fill several of them.
//!
//! The policy would keep so few changes in a run; going around it shows what an update of the base does by itself.

use super::memory::Memory;
use super::*;
use crate::format::page::Entry;

fn update(tree: &Tree<Memory>, list: Vec<Change>) -> Tree<Memory> {
    let fresh: Vec<Entry> = changes::sorted(list).expect("valid changes");
    let layers = Layers {
        base: None,
        runs: &[],
        inline: None,
        fresh: &fresh,
    };
    let mut sink = tree.loader.pages().clone();
    let base = block_on(async {
        let scan = Scan::new(&tree.loader, layers, b"", Overlay::new(Absence::Kept)).await?;
        let old = tree.root().base.as_ref();
        base::update(&tree.loader, old, scan, Absence::Dropped, &mut sink).await
    });
    let root = TreeRoot {
        base: base.expect("updates"),
        ..TreeRoot::default()
    };
    Tree::new(root, sink)
}

/// The ends of the extents with which the leaves of the base begin.
fn edges(tree: &Tree<Memory>) -> Vec<u64> {
    let pages = block_on(tree.pages()).expect("pages");
    let first_key = |place: &Place| {
        let page = block_on(tree.loader.pages().page(place)).expect("a page");
        let key = page.key(0);
        crate::format::key::extent_key(&key).map(|(_, end)| end)
    };
    pages.iter().filter_map(first_key).collect()
}

#[test]
fn extents_over_the_edges_of_leaves_are_cut_there() {
    const FILE: u64 = 5;
    const LEN: usize = 150_000;
    let mut state = 12_345u64;
    let mut below = move |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut model = vec![None; LEN];
    let mut tree = tree_of(vec![Change::PutInode(FileId(FILE), file(1).into())]);
    let (mut list, mut at) = (Vec::new(), 0);
    while at < LEN as u64 - 100 {
        let end = at + 10 + below(60);
        list.push(data(at..end, at as u32, 0, Some(1)));
        at = end + below(3);
    }
    for round in 0..400u32 {
        for extent in &list {
            for at in extent.range.start..extent.range.end.min(LEN as u64) {
                model[at as usize] = match &extent.contents {
                    Contents::Hole => None,
                    Contents::Data { place, .. } => Some((
                        place.at.frame.0,
                        place.at.inner + (at - extent.range.start) as u32,
                    )),
                };
            }
        }
        tree = update(
            &tree,
            list.drain(..).map(|extent| put(FILE, extent)).collect(),
        );
        let mut at = 0;
        for extent in block_on(tree.extents(FileId(FILE), 0..LEN as u64)).expect("reads") {
            assert_eq!(extent.range.start, at);
            for at in extent.range.clone() {
                let found = match &extent.contents {
                    Contents::Hole => None,
                    Contents::Data { place, .. } => Some((
                        place.at.frame.0,
                        place.at.inner + (at - extent.range.start) as u32,
                    )),
                };
                assert_eq!(found, model[at as usize], "round {round}, byte {at}");
            }
            at = extent.range.end;
        }
        let edges = edges(&tree);
        for _ in 0..1 + below(3) {
            let edge = edges[below(edges.len() as u64) as usize];
            let start = (edge + 30).saturating_sub(below(200)).min(LEN as u64 - 2);
            let end = (start + 1 + below(150)).min(LEN as u64);
            list.push(match below(6) {
                0 => hole(start..end),
                _ => data(start..end, 1_000_000 + round, 7, None),
            });
        }
    }
    assert!(edges(&tree).len() > 4, "several leaves at the end too");
}

#[test]
fn an_update_reads_and_writes_only_what_it_touches() {
    let whole = (0..100_000).map(|n| put(5, data(n * 4096..(n + 1) * 4096, n as u32, 0, Some(1))));
    let tree = tree_of(whole.collect());
    let memory = tree.loader.pages().clone();
    let (pages, read) = (memory.written().0, memory.read());
    let list = [10, 50_000, 99_000].map(|n| put(5, data(n * 4096..(n + 1) * 4096, 7, 0, None)));
    let height = u64::from(tree.root().base.as_ref().map_or(0, |base| base.height));
    let tree = update(&tree, list.to_vec());
    assert!(memory.written().0 - pages < 3 + height);
    assert!(memory.read() - read < 3 + height);
    let before = memory.written().0;
    let same = update(
        &tree,
        vec![Change::DropName {
            dir: FileId(9),
            name: b"none".to_vec(),
        }],
    );
    assert_eq!(
        (same.root(), memory.written().0),
        (tree.root(), before),
        "nothing changed, nothing written"
    );
}

#[test]
fn xattrs_that_fill_several_leaves_go_with_one_entry() {
    let xattrs = |from: u64, to: u64| {
        (from..to)
            .map(|n| (format!("user.{n:04}").into_bytes(), vec![n as u8; 5000]))
            .collect::<Vec<_>>()
    };
    let mut tree = tree_of(
        (1..5)
            .map(|id| Change::SetXattrs(FileId(id), xattrs(0, 40)))
            .collect(),
    );
    tree = update(&tree, vec![Change::SetXattrs(FileId(2), xattrs(20, 21))]);
    tree = update(&tree, vec![Change::DropInode(FileId(3))]);
    for (id, expected) in [
        (1, xattrs(0, 40)),
        (2, xattrs(20, 21)),
        (3, vec![]),
        (4, xattrs(0, 40)),
    ] {
        assert!(
            block_on(tree.xattrs(FileId(id))).expect("reads") == expected,
            "xattrs of {id}"
        );
    }
}
