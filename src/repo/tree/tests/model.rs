//! Random changes against plain maps: every way of reading, at every commit, and old roots again later.
//!
//! A failure prints seed and commit; `REWINDFS_TREE_SEED=<seed>` replays it alone.

use std::collections::BTreeMap;

use super::*;

/// Bytes of a small file. Some extents reach to the end of all offsets.
const SMALL: u64 = 400;
/// Bytes of the one file that fills several pages with extents.
const LARGE: u64 = 12_000;
const LARGE_FILE: u64 = 77;
const IDS: u64 = 160;

/// A small generator whose whole state is a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a byte of a file is: frame and offset in it.
type Byte = Option<(u32, u32)>;

#[derive(Clone, Default)]
struct Model {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<(u64, Vec<u8>), NameEntry>,
    xattrs: BTreeMap<u64, BTreeMap<Vec<u8>, Vec<u8>>>,
    history: BTreeMap<u64, HistoryEntry>,
    files: BTreeMap<u64, Vec<Byte>>,
    /// Whole chunks by file and end.
    chunks: BTreeMap<(u64, u64), Extent>,
}

fn file_len(id: u64) -> u64 {
    if id == LARGE_FILE { LARGE } else { SMALL }
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::PutInode(id, inode) => drop(self.inodes.insert(id.0, *inode)),
            Change::DropInode(id) => {
                self.inodes.remove(&id.0);
                self.xattrs.remove(&id.0);
                self.put(id.0, &hole(0..u64::MAX));
            }
            Change::PutName { dir, name, entry } => drop(self.names.insert((dir.0, name), entry)),
            Change::DropName { dir, name } => drop(self.names.remove(&(dir.0, name))),
            Change::SetXattrs(id, xattrs) => {
                self.xattrs.insert(id.0, xattrs.into_iter().collect());
            }
            Change::PutExtent(id, extent) => self.put(id.0, &extent),
            Change::PutHistory(entry) => drop(self.history.insert(entry.name.seq.0, entry)),
        }
    }

    fn put(&mut self, id: u64, extent: &Extent) {
        let bytes = self
            .files
            .entry(id)
            .or_insert_with(|| vec![None; file_len(id) as usize]);
        for at in extent.range.start..extent.range.end.min(file_len(id)) {
            bytes[at as usize] = byte(extent, at);
        }
        self.chunks.retain(|(file, _), old| {
            *file != id
                || old.range.end <= extent.range.start
                || extent.range.end <= old.range.start
        });
        if matches!(
            extent.contents,
            Contents::Data {
                content: Some(_),
                ..
            }
        ) {
            self.chunks.insert((id, extent.range.end), extent.clone());
        }
    }
}

fn byte(extent: &Extent, at: u64) -> Byte {
    match &extent.contents {
        Contents::Hole => None,
        Contents::Data { place, .. } => {
            let inner = place.at.inner + (at - extent.range.start) as u32;
            Some((place.at.frame.0, inner))
        }
    }
}

fn random_name(random: &mut Random) -> Vec<u8> {
    // Few distinct names, many of them long, so that names are hit again and pages fill soon.
    let number = random.below(60) as u8 + 1;
    let len = [1, 2, 40, 255][random.below(4) as usize];
    let mut name = vec![number.max(b'0'); len];
    if let Some(last) = name.last_mut() {
        *last = number;
    }
    name.iter_mut()
        .filter(|b| matches!(**b, b'/' | b'.'))
        .for_each(|b| *b = 0xff);
    name
}

fn random_extent(random: &mut Random, id: u64, frame: u32) -> Extent {
    let len = file_len(id);
    let start = random.below(len);
    let longest = if id == LARGE_FILE && !random.one_in(200) {
        3
    } else {
        len - start
    };
    let end = start + 1 + random.below(longest.min(len - start));
    match random.below(8) {
        0 => hole(start..end),
        1 if id != LARGE_FILE || random.one_in(50) => hole(start..u64::MAX),
        n => data(
            start..end,
            frame,
            random.below(1000) as u32,
            (n < 5).then_some(frame as u8),
        ),
    }
}

fn random_change(random: &mut Random, counter: &mut u32) -> Change {
    *counter += 1;
    let id = FileId(random.below(IDS) + 1);
    match random.below(20) {
        0..4 => {
            let mut inode = file(u64::from(*counter));
            inode.target = vec![*counter as u8; random.below(2500) as usize];
            inode.unknown = if random.one_in(4) {
                vec![(40, vec![1, 2, 3])]
            } else {
                vec![]
            };
            Change::PutInode(id, inode.into())
        }
        4 if random.one_in(2) => Change::DropInode(id),
        4..8 => Change::PutName {
            dir: FileId(id.0 % 5 + 1),
            name: random_name(random),
            entry: name_entry(u64::from(*counter)),
        },
        8..10 => Change::DropName {
            dir: FileId(id.0 % 5 + 1),
            name: random_name(random),
        },
        10 => {
            let some = (0..random.below(4)).map(|_| {
                let len = if random.one_in(30) {
                    65_536
                } else {
                    random.below(300)
                };
                (random_name(random), vec![*counter as u8; len as usize])
            });
            Change::SetXattrs(id, some.collect())
        }
        11 => Change::PutHistory(history(random.below(200), "a label")),
        12..16 => put(LARGE_FILE, random_extent(random, LARGE_FILE, *counter)),
        _ => put(id.0, random_extent(random, id.0, *counter)),
    }
}

/// Reads everything in every way and compares.
async fn compare(tree: &Tree<Memory>, model: &Model, random: &mut Random) {
    let mut inodes = Vec::new();
    let page = 1 + random.below(50) as usize;
    loop {
        let some = tree
            .inodes(inodes.last().map(|(id, _)| *id), page)
            .await
            .expect("reads");
        let done = some.len() < page;
        inodes.extend(some);
        if done {
            break;
        }
    }
    let expected: Vec<_> = model
        .inodes
        .iter()
        .map(|(id, inode)| (FileId(*id), inode.clone()))
        .collect();
    assert!(inodes == expected, "inodes differ");
    for dir in 1..=5 {
        let mut names: Vec<(Vec<u8>, NameEntry)> = Vec::new();
        loop {
            let after = names.last().map(|(name, _)| name.clone());
            let some = tree
                .names(FileId(dir), after.as_deref(), page)
                .await
                .expect("reads");
            let done = some.is_empty();
            names.extend(some);
            if done {
                break;
            }
        }
        let expected = model.names.iter().filter(|((of, _), _)| *of == dir);
        assert!(
            names
                .into_iter()
                .eq(expected.map(|((_, name), entry)| (name.clone(), *entry))),
            "names differ"
        );
    }
    let entries: Vec<_> = model.history.values().cloned().collect();
    assert!(
        tree.history().await.expect("reads") == entries,
        "history differs"
    );
    for _ in 0..10 {
        let id = random.below(IDS) + 1;
        assert_eq!(
            tree.inode(FileId(id)).await.expect("reads"),
            model.inodes.get(&id).cloned()
        );
        let name = random_name(random);
        let found = tree.name(FileId(id % 5 + 1), &name).await.expect("reads");
        assert_eq!(found, model.names.get(&(id % 5 + 1, name)).copied());
        let xattrs = tree.xattrs(FileId(id)).await.expect("reads");
        let expected: Vec<_> = model
            .xattrs
            .get(&id)
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .collect();
        assert!(xattrs == expected, "xattrs differ");
        compare_file(tree, model, id, 0..u64::MAX).await;
        let start = random.below(SMALL);
        compare_file(tree, model, id, start..start + random.below(100)).await;
        let start = random.below(LARGE);
        compare_file(tree, model, LARGE_FILE, start..start + random.below(600)).await;
    }
    compare_file(tree, model, LARGE_FILE, 0..LARGE).await;
    let skip = random.below(model.chunks.len() as u64 + 1) as usize;
    for ((id, end), extent) in model.chunks.iter().skip(skip).take(20) {
        let Contents::Data {
            content: Some(content),
            ..
        } = &extent.contents
        else {
            continue;
        };
        let held = tree
            .holds_chunk(FileId(*id), *end, content)
            .await
            .expect("reads");
        assert_eq!(held.as_ref(), Some(extent));
    }
}

async fn compare_file(tree: &Tree<Memory>, model: &Model, id: u64, range: Range<u64>) {
    let bytes = model.files.get(&id);
    let mut at = range.start;
    for extent in tree
        .extents(FileId(id), range.clone())
        .await
        .expect("reads")
    {
        assert_eq!(extent.range.start, at, "a gap or an overlap");
        assert!(extent.is_valid());
        for at in extent.range.start..extent.range.end.min(file_len(id)) {
            let expected = bytes.and_then(|bytes| bytes[at as usize]);
            assert_eq!(byte(&extent, at), expected, "byte {at} of file {id}");
        }
        if let Contents::Data {
            content: Some(_), ..
        } = &extent.contents
        {
            assert_eq!(
                model.chunks.get(&(id, extent.range.end)),
                Some(&extent),
                "not a whole chunk"
            );
        }
        at = extent.range.end;
    }
    assert_eq!(at, range.end);
}

/// Every leaf under the root: totals of the root are right, no page but a last one is nearly empty.
async fn check_structure(tree: &Tree<Memory>) {
    for root in tree.root().base.iter().chain(&tree.root().runs) {
        let (mut entries, mut bytes) = (0, 0);
        let mut level = vec![(root.place.clone(), root.height - 1)];
        while let Some((place, at)) = level.pop() {
            let page = tree.loader.load(&place, at, None).await.expect("reads");
            if at == 0 {
                entries += page.len() as u64;
                bytes += page.bytes().len() as u64;
                let in_base = tree.root().base.as_ref() == Some(root);
                assert!(
                    !in_base || page.entries().all(|entry| entry.op == Op::Put),
                    "a tombstone in the base"
                );
            } else {
                level.extend((0..page.len()).map(|i| (page.child(i), at - 1)));
            }
        }
        assert_eq!(
            (root.entries, root.bytes),
            (entries, bytes),
            "totals of a root"
        );
    }
}

/// Makes a run of few changes, as other policies might, so that all layers are seen to work together.
fn force_run(tree: &Tree<Memory>, list: Vec<Change>) -> Tree<Memory> {
    let fresh = changes::sorted(list).expect("valid changes");
    let layers = Layers {
        base: None,
        runs: &[],
        inline: tree.inline().expect("readable"),
        fresh: &fresh,
    };
    let mut sink = tree.loader.pages().clone();
    let mut root = tree.root().clone();
    root.inline.clear();
    let run = block_on(async {
        let scan = Scan::new(&tree.loader, layers, b"", Overlay::new(Absence::Kept)).await?;
        base::update(&tree.loader, None, scan, Absence::Kept, &mut sink).await
    });
    root.runs.extend(run.expect("builds"));
    Tree::new(root, sink)
}

fn run(seed: u64, commits: usize) {
    let mut random = Random(seed);
    let mut model = Model::default();
    let mut tree = tree_of(Vec::new());
    let mut counter = 0;
    let mut kept: Vec<(usize, TreeRoot, Model)> = Vec::new();
    let (mut runs_max, mut bases) = (0, 0);
    for commit in 0..commits {
        let count = match random.below(40) {
            0 => 400,
            1..6 => 40,
            _ => 1 + random.below(6),
        };
        let changes: Vec<_> = (0..count)
            .map(|_| random_change(&mut random, &mut counter))
            .collect();
        changes.iter().for_each(|change| model.apply(change));
        let next = match tree.root().runs.len() < RUNS_MAX && random.one_in(8) {
            true => force_run(&tree, changes),
            false => apply(&tree, changes),
        };
        bases += usize::from(next.root().base != tree.root().base);
        runs_max = runs_max.max(next.root().runs.len());
        tree = next;
        let step = std::panic::AssertUnwindSafe(|| {
            block_on(async {
                compare(&tree, &model, &mut random).await;
                check_structure(&tree).await;
                if commit % 100 == 99 {
                    for (_, root, model) in &kept {
                        let old = Tree::new(root.clone(), tree.loader.pages().clone());
                        compare(&old, model, &mut random).await;
                    }
                }
            });
        });
        if let Err(panic) = std::panic::catch_unwind(step) {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or(panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            panic!(
                "REWINDFS_TREE_SEED={seed}, commit {commit}: {}",
                why.unwrap_or_default()
            );
        }
        if commit % 37 == 0 {
            if kept.len() == 8 {
                kept.remove(random.below(8) as usize);
            }
            kept.push((commit, tree.root().clone(), model.clone()));
        }
    }
    assert!(
        runs_max >= 1 && bases > 2,
        "seed {seed} reached {runs_max} runs, {bases} bases"
    );
}

#[test]
fn random_changes_read_back_like_plain_maps() {
    if let Ok(seed) = std::env::var("REWINDFS_TREE_SEED") {
        return run(seed.parse().expect("a number"), 3000);
    }
    for seed in 1..=6 {
        run(seed, 400);
    }
}
