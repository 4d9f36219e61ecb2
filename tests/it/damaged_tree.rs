//! Single pages of a snapshot's tree, each struck alone, and what a person then meets: `check`, `ls`, `cat` and `restore` name the object that
//! is damaged, nothing gives wrong bytes, and what the other pages tell of is restored. Above all the leaf with the inode of the root, without
//! which there is nothing to begin with, and the topmost page, with which everything is gone.

use std::fs;

use crate::hostile::{Objects, World};
use crate::pages::{TreePage, tree_pages};
use crate::sample::{self, Size};

/// More files than one leaf tells of, so that most of them outlive the one with the root.
const NAMES: usize = 2000;

fn struck(world: &World, page: &TreePage) -> Objects {
    let mut objects = world.whole.clone();
    objects.get_mut(page.object.as_str()).unwrap()[page.byte] ^= 1;
    objects
}

/// A world whose newest snapshot has a tree of several pages, and those.
async fn with_pages() -> (World, Vec<TreePage>) {
    let world = World::of(Size {
        chunk: 20_000,
        names: NAMES,
    })
    .await;
    let volume = sample::reopen(&world.sample.store, &world.sample.recovery);
    let commit = &world.sample.newest().0.commit;
    let pages = tree_pages(&volume.await.unwrap(), commit).await;
    let leaves = pages.iter().filter(|page| page.level == 0).count();
    assert!(leaves > 3 && leaves < pages.len(), "{pages:?}");
    (world, pages)
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_page_of_a_tree_is_damaged_it_is_named_and_the_rest_restored() {
    let (world, pages) = with_pages().await;
    for page in &pages {
        let what = format!("{page:?}");
        world.put(&struck(&world, page));
        world.forget();
        let check = world.run(&["check"]);
        assert_eq!(check.code, 4, "{what}: {check:?}");
        assert!(check.said.contains(page.object.as_str()), "{check:?}");
        assert!(check.said.contains("@3"), "no snapshot is named: {check:?}");

        let restored = world.restore(&what);
        assert_eq!(restored.code, 3, "{what}: {restored:?}");
        assert!(restored.said.contains(page.object.as_str()), "{restored:?}");
        for looked in [&["ls"][..], &["ls", "many"], &["cat", "needle-a.txt"]] {
            let looked = world.run(looked);
            let named = looked.code == 4 && looked.said.contains(page.object.as_str());
            assert!(looked.code == 0 || named, "{what}: {looked:?}");
        }
        // Earlier snapshots have a tree without this page.
        assert_eq!(world.run(&["ls", "--at", "@1"]).code, 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_inode_of_the_root_all_else_is_restored() {
    let (world, pages) = with_pages().await;
    let page = pages.iter().find(|page| page.holds_root).unwrap();
    world.put(&struck(&world, page));
    world.forget();
    let target = tempfile::tempdir().unwrap();
    let place = target.path().to_str().unwrap();
    let restored = world.run(&["restore", "--target", place]);
    assert_eq!(restored.code, 3, "{restored:?}");
    assert!(restored.said.contains("/ not restored: "), "{restored:?}");
    // Its own page tells of a few hundred files more.
    let there = fs::read_dir(target.path().join("many")).unwrap().count();
    assert!(there > NAMES / 2 && there < NAMES, "{there}");

    // The root itself cannot be shown, and it is said why.
    let listed = world.run(&["ls"]);
    assert!(listed.code == 4 && listed.said.contains(page.object.as_str()));
    // By path: what is whole comes back although the directories above it are damaged, and beside what is damaged itself.
    let whole = format!("many/needle-{:05}", NAMES - 1);
    let target = tempfile::tempdir().unwrap();
    let place = target.path().to_str().unwrap();
    let restored = world.run(&["restore", "--target", place, &whole, "needle-a.txt"]);
    assert_eq!(restored.code, 3, "{restored:?}");
    assert!(target.path().join(&whole).exists(), "{restored:?}");
    assert!(!target.path().join("needle-a.txt").exists());
    for told in ["/many not restored: ", "/needle-a.txt not restored: "] {
        assert!(restored.said.contains(told), "{told}: {restored:?}");
    }
    assert_eq!(world.run(&["cat", &whole]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_topmost_page_nothing_is_restored_and_that_is_said() {
    let (world, pages) = with_pages().await;
    let page = pages.iter().find(|page| page.is_root).unwrap();
    world.put(&struck(&world, page));
    world.forget();
    let target = tempfile::tempdir().unwrap();
    let place = target.path().to_str().unwrap();
    let restored = world.run(&["restore", "--target", place]);
    assert_eq!(restored.code, 3, "{restored:?}");
    assert!(restored.said.contains("/ not restored: "), "{restored:?}");
    assert!(restored.said.contains(page.object.as_str()), "{restored:?}");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    for looked in [&["ls"][..], &["ls", "many"], &["cat", "needle-a.txt"]] {
        let looked = world.run(looked);
        assert_eq!(looked.code, 4, "{looked:?}");
        assert!(looked.said.contains(page.object.as_str()), "{looked:?}");
    }
}
