//! Where each page of a snapshot's tree lies in the store, so that a test can strike one and no other.

#![allow(
    dead_code,
    reason = "each program that includes this uses another part of it"
)]

use std::sync::Arc;

use rewindfs::format::commit::Commit;
use rewindfs::format::key::Key;
use rewindfs::id::{FileId, ObjectKey};
use rewindfs::repo::tree::Pages;
use rewindfs::repo::{Volume, layout};

/// One page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TreePage {
    /// The object that it lies in.
    pub(crate) object: ObjectKey,
    /// A byte of it in there: of its ciphertext.
    pub(crate) byte: usize,
    /// 0 for a leaf.
    pub(crate) level: u8,
    /// Nothing is above it: with it goes all of a base or a run.
    pub(crate) is_root: bool,
    /// It is the leaf with the inode of the volume's root.
    pub(crate) holds_root: bool,
}

/// All pages of a tree, parents before children.
pub(crate) async fn tree_pages(volume: &Arc<Volume>, commit: &Commit) -> Vec<TreePage> {
    let roots = commit.tree.base.iter().chain(&commit.tree.runs);
    let roots: Vec<_> = roots.map(|root| root.place.at).collect();
    let mut pages = Vec::new();
    for place in volume.tree(commit).pages().await.unwrap() {
        let page = volume.blocks().page(&place).await.unwrap();
        let root = Key::Inode(FileId::ROOT).encode();
        pages.push(TreePage {
            object: layout::block(volume.info().id, place.at.block).unwrap(),
            // Behind the IV.
            byte: place.hint.offset as usize + 20,
            level: page.level(),
            is_root: roots.contains(&place.at),
            holds_root: page.level() == 0 && page.find(&root).is_some(),
        });
    }
    pages
}
