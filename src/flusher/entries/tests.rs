//! Who lives and who dies: names, link counts and attributes as changes to the tree.

use super::*;
use std::sync::Arc;

use async_trait::async_trait;

use crate::format::commit::TreeRoot;
use crate::format::entry::Place;
use crate::format::page::Page;
use crate::repo::tree::PageSink;
use crate::source::{Handle, Stat};

const NOW: Stamp = Stamp(1_800_000_000_000);

/// Small trees keep all their entries inline: no page is ever read or written.
#[derive(Clone)]
struct NoPages;

#[async_trait]
impl Pages for NoPages {
    async fn page(&self, _: &Place) -> Result<Arc<Page>, Error> {
        unreachable!("all is inline")
    }
}

impl PageSink for NoPages {
    fn put(&mut self, _: Vec<u8>) -> Result<Place, Error> {
        unreachable!("all is inline")
    }
}

pub(crate) fn stat(kind: Kind, size: u64, ctime: Timespec) -> Stat {
    Stat {
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        links: 1,
        size,
        blocks: 8,
        rdev: 0,
        dev: 1,
        block_size: 4096,
        mtime: ctime,
        ctime,
        atime: ctime,
        btime: None,
    }
}

pub(crate) fn inode(size: u64) -> Inode {
    let touched = touched(1, Kind::File, size);
    let attributes = touched.attributes.clone().unwrap();
    super::inode(&touched, &attributes, None, 1, NOW)
}

fn touched(id: u64, kind: Kind, size: u64) -> Touched {
    let long_ago = Timespec {
        secs: 1_000_000,
        nanos: 5,
    };
    Touched {
        node: crate::source::Node {
            id: FileId(id),
            handle: Handle(Box::new([id as u8])),
        },
        fresh: false,
        dirty: Vec::new(),
        attributes: Some(Box::new(Attributes {
            stat: stat(kind, size, long_ago),
            xattrs: Vec::new(),
            target: Vec::new(),
        })),
        copied_front: 0,
        left_out: false,
    }
}

fn name(dir: u64, name: &str, to: Option<(u64, Kind)>) -> NameChange {
    let entry = to.map(|(id, kind)| NameEntry {
        id: FileId(id),
        kind,
    });
    (FileId(dir), name.as_bytes().to_vec(), entry)
}

async fn apply(
    parent: &Tree<NoPages>,
    touched: Vec<Touched>,
    names: &[NameChange],
) -> (Outcome, Tree<NoPages>) {
    let touched = touched.into_iter().map(|t| (t.node.id, t)).collect();
    let outcome = outcome(parent, &touched, names, NOW).await.unwrap();
    let changes = outcome.changes.clone();
    let root = parent.apply(changes, &mut NoPages).await.unwrap();
    (outcome, Tree::new(root, NoPages))
}

fn empty() -> Tree<NoPages> {
    Tree::new(TreeRoot::default(), NoPages)
}

async fn links(tree: &Tree<NoPages>, id: u64) -> Option<u32> {
    tree.inode(FileId(id))
        .await
        .unwrap()
        .map(|inode| inode.links)
}

#[tokio::test]
async fn links_count_names_of_the_tree_whatever_the_source_says() {
    let file = (5, Kind::File);
    let names = [name(1, "a", Some(file)), name(1, "b", Some(file))];
    let touch = || vec![touched(1, Kind::Dir, 0), touched(5, Kind::File, 10)];
    let (outcome, tree) = apply(&empty(), touch(), &names).await;
    assert_eq!(
        (links(&tree, 5).await, outcome.files, outcome.bytes),
        (Some(2), 1, 10)
    );
    let (outcome, tree) = apply(&tree, touch(), &[name(1, "a", None)]).await;
    assert_eq!(
        (links(&tree, 5).await, outcome.files, outcome.bytes),
        (Some(1), 0, 0)
    );
    let (outcome, tree) = apply(&tree, touch(), &[name(1, "b", None)]).await;
    assert_eq!(
        (links(&tree, 5).await, outcome.files, outcome.bytes),
        (None, -1, -10)
    );
}

#[tokio::test]
async fn saying_the_same_again_changes_nothing() {
    let names = [name(1, "a", Some((5, Kind::File)))];
    let touch = || vec![touched(1, Kind::Dir, 0), touched(5, Kind::File, 10)];
    let (_, tree) = apply(&empty(), touch(), &names).await;
    let (outcome, _) = apply(&tree, touch(), &names).await;
    assert_eq!(outcome.changes, []);
}

#[tokio::test]
async fn a_renamed_name_moves_its_link_and_the_victim_of_a_rename_dies() {
    let names = [
        name(1, "a", Some((5, Kind::File))),
        name(1, "b", Some((6, Kind::File))),
    ];
    let touch = || {
        vec![
            touched(1, Kind::Dir, 0),
            touched(5, Kind::File, 1),
            touched(6, Kind::File, 2),
        ]
    };
    let (_, tree) = apply(&empty(), touch(), &names).await;
    let renamed = [name(1, "a", None), name(1, "b", Some((5, Kind::File)))];
    let (outcome, tree) = apply(&tree, touch(), &renamed).await;
    assert_eq!(
        (links(&tree, 5).await, links(&tree, 6).await),
        (Some(1), None)
    );
    assert_eq!((outcome.files, outcome.bytes), (-1, -2));
}

#[tokio::test]
async fn an_inode_without_a_name_is_not_in_the_tree() {
    let touch = vec![touched(1, Kind::Dir, 0), touched(5, Kind::File, 1)];
    let (outcome, tree) = apply(&empty(), touch, &[]).await;
    assert_eq!(links(&tree, 5).await, None);
    assert!(!outcome.alive.contains_key(&FileId(5)));
}

#[tokio::test]
async fn a_name_never_points_to_what_was_gone_before_it_could_be_read() {
    let mut gone = touched(5, Kind::File, 1);
    gone.attributes = None;
    let touch = vec![touched(1, Kind::Dir, 0), gone];
    let names = [
        name(1, "a", Some((5, Kind::File))),
        name(1, "b", Some((9, Kind::File))),
    ];
    let (_, tree) = apply(&empty(), touch, &names).await;
    assert!(tree.names(FileId::ROOT, None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_directory_takes_along_what_is_still_in_it() {
    let names = [
        name(1, "dir", Some((2, Kind::Dir))),
        name(2, "sub", Some((3, Kind::Dir))),
        name(3, "file", Some((4, Kind::File))),
        name(3, "moved", Some((5, Kind::File))),
    ];
    let touch = vec![
        touched(1, Kind::Dir, 0),
        touched(2, Kind::Dir, 0),
        touched(3, Kind::Dir, 0),
        touched(4, Kind::File, 1),
        touched(5, Kind::File, 2),
    ];
    let (_, tree) = apply(&empty(), touch, &names).await;
    let removed = [
        name(1, "dir", None),
        name(1, "moved", Some((5, Kind::File))),
    ];
    let (_, tree) = apply(&tree, vec![touched(1, Kind::Dir, 0)], &removed).await;
    for id in 2..=4 {
        assert_eq!(links(&tree, id).await, None, "{id}");
    }
    assert_eq!(links(&tree, 5).await, Some(1));
    assert_eq!(tree.names(FileId(3), None, 10).await.unwrap(), []);
}

#[test]
fn only_overwriting_makes_a_file_one_written_in_place() {
    let old = inode(20_000);
    let with = |fresh, dirty: Range<u64>| Touched {
        fresh,
        dirty: vec![dirty],
        ..touched(5, Kind::File, 20_000)
    };
    assert!(is_in_place(&with(false, 4096..8192), Some(&old)));
    assert!(
        !is_in_place(&with(false, 16_384..24_576), Some(&old)),
        "appended"
    );
    assert!(
        !is_in_place(&with(false, 0..20_480), Some(&old)),
        "rewritten"
    );
    assert!(
        !is_in_place(&with(true, 4096..8192), Some(&old)),
        "replaced"
    );
    assert!(!is_in_place(&with(false, 4096..8192), None), "new");
    let behind_a_copy = Touched {
        copied_front: 8192,
        ..with(false, 8192..20_480)
    };
    assert!(!is_in_place(&behind_a_copy, Some(&old)), "rewritten");
}

#[test]
fn times_too_young_to_tell_changes_apart_are_racy() {
    let at = |ms: u64, nanos: u32| Timespec {
        secs: (ms / 1000) as i64,
        nanos: (ms % 1000) as u32 * 1_000_000 + nanos,
    };
    let racy = |ctime| is_racy(ctime, ctime, NOW);
    assert!(racy(at(NOW.0 - 5, 1)));
    assert!(racy(at(NOW.0 + 5000, 1)), "of the future");
    assert!(!racy(at(NOW.0 - 100, 1)));
    assert!(
        racy(at(NOW.0 - 1000, 0)),
        "a file system that counts seconds"
    );
    assert!(!racy(at(NOW.0 - 3000, 0)));
    let old = Timespec { secs: -5, nanos: 1 };
    assert!(!racy(old));
}

/// A file that may not be read was renamed. Its old name went, its new one pointed to something that could not be said, and so the
/// next snapshot had lost the file altogether.
#[tokio::test]
async fn what_is_left_out_keeps_its_last_state_under_the_names_it_has_now() {
    let file = (5, Kind::File);
    let names = [name(1, "a", Some(file)), name(1, "b", Some(file))];
    let touch = vec![touched(1, Kind::Dir, 0), touched(5, Kind::File, 10)];
    let (_, tree) = apply(&empty(), touch, &names).await;
    let before = tree.inode(FileId(5)).await.unwrap();
    let left_out = || Touched {
        attributes: None,
        left_out: true,
        ..touched(5, Kind::File, 0)
    };
    let moved = [name(1, "a", None), name(1, "c", Some(file))];
    let (outcome, tree) = apply(&tree, vec![left_out()], &moved).await;
    assert_eq!(tree.inode(FileId(5)).await.unwrap(), before);
    assert!(tree.name(FileId(1), b"a").await.unwrap().is_none());
    assert!(tree.name(FileId(1), b"c").await.unwrap().is_some());
    assert!(outcome.alive.is_empty(), "nothing of it is to be captured");
    // Without a last state there is nothing to show, and a name must not point to nothing.
    let unknown = Touched {
        attributes: None,
        left_out: true,
        ..touched(6, Kind::File, 0)
    };
    let (_, tree) = apply(&tree, vec![unknown], &[name(1, "d", Some((6, Kind::File)))]).await;
    assert!(tree.name(FileId(1), b"d").await.unwrap().is_none());
    // And without names it dies like any other.
    let gone = [name(1, "b", None), name(1, "c", None)];
    let (_, tree) = apply(&tree, vec![left_out()], &gone).await;
    assert_eq!(tree.inode(FileId(5)).await.unwrap(), None);
}
