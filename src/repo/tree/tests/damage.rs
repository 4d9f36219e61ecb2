//! Pages that decode but do not fit, are missing, or hold nonsense: an error, never wrong answers, never a panic.

use super::*;
use crate::format::commit::PageRoot;
use crate::format::page::{Entry, encode};

fn many() -> Tree<Memory> {
    tree_of(
        (1..2000)
            .map(|id| Change::PutInode(FileId(id), file(id).into()))
            .collect(),
    )
}

async fn read_all(tree: &Tree<Memory>) -> Result<(), repo::Error> {
    tree.inodes(None, usize::MAX).await?;
    tree.names(FileId(1), None, usize::MAX).await?;
    tree.extents(FileId(1), 0..u64::MAX).await?;
    tree.xattrs(FileId(1)).await?;
    tree.history().await?;
    Ok(())
}

#[test]
fn swapped_pages_are_noticed() {
    let tree = many();
    let memory = tree.loader.pages().clone();
    let mut first = Vec::new();
    memory.damage(0, |bytes| first = bytes.clone());
    memory.damage(1, |bytes| *bytes = first);
    let result = block_on(read_all(&tree));
    assert!(
        matches!(result, Err(repo::Error::Tree(Error::Structure { .. }))),
        "{result:?}"
    );
}

#[test]
fn a_root_of_the_wrong_height_is_noticed() {
    let tree = many();
    for height in [1, 3, 32] {
        let mut root = tree.root().clone();
        root.base = root.base.map(|base| PageRoot { height, ..base });
        let tree = Tree::new(root, tree.loader.pages().clone());
        let result = block_on(read_all(&tree));
        assert!(
            matches!(result, Err(repo::Error::Tree(Error::Structure { .. }))),
            "{result:?}"
        );
    }
}

#[test]
fn every_damaged_byte_of_a_page_is_an_error_or_another_page() {
    let tree = many();
    let memory = tree.loader.pages().clone();
    for at in (0..2000).step_by(3) {
        memory.damage(0, |bytes| bytes[at] ^= 1 << (at % 8));
        let again = Tree::new(tree.root().clone(), memory.clone());
        let _no_panic = block_on(read_all(&again));
        let mut sink = Memory::default();
        let _no_panic = block_on(again.apply(
            (1..400).map(|id| Change::DropInode(FileId(id))).collect(),
            &mut sink,
        ));
        memory.damage(0, |bytes| bytes[at] ^= 1 << (at % 8));
    }
}

#[test]
fn nonsense_under_known_keys_is_an_error() {
    let keys = [
        Key::Inode(FileId(1)).encode(),
        Key::Name(FileId(1), b"n").encode(),
        Key::Extent(FileId(1), 10).encode(),
        Key::History(Seq(1)).encode(),
    ];
    for key in keys {
        let page = encode(
            0,
            &[Entry {
                key: key.clone(),
                op: Op::Put,
                value: vec![0xee; 3],
            }],
        );
        let root = TreeRoot {
            inline: page,
            ..TreeRoot::default()
        };
        let result = block_on(read_all(&Tree::new(root, Memory::default())));
        assert!(
            matches!(result, Err(repo::Error::Tree(Error::Entry(_)))),
            "{key:?}: {result:?}"
        );
    }
    let part = Key::Xattr(FileId(1), b"user.x", 1).encode();
    let page = encode(
        0,
        &[Entry {
            key: part,
            op: Op::Put,
            value: vec![1],
        }],
    );
    let root = TreeRoot {
        inline: page,
        ..TreeRoot::default()
    };
    assert!(
        block_on(read_all(&Tree::new(root, Memory::default()))).is_err(),
        "a part is missing"
    );
}

#[test]
fn inline_changes_that_cannot_be_read_fail_every_use() {
    let root = TreeRoot {
        inline: b"nonsense".to_vec(),
        ..TreeRoot::default()
    };
    let tree = Tree::new(root, Memory::default());
    let result = block_on(tree.inode(FileId(1)));
    assert!(matches!(result, Err(repo::Error::Tree(Error::Inline(_)))));
    let result = block_on(tree.apply(vec![Change::DropInode(FileId(1))], &mut Memory::default()));
    assert!(matches!(result, Err(repo::Error::Tree(Error::Inline(_)))));
}
