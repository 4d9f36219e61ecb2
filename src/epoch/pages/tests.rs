//! Page sets against a plain set, and their limits.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn set_of(runs: &[Run]) -> BTreeSet<u64> {
    runs.iter().flat_map(Clone::clone).collect()
}

#[test]
fn random_inserts_and_removes_agree_with_a_plain_set() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut pages = Pages::default();
        let mut model = BTreeSet::new();
        let span = if seed % 2 == 0 {
            3_000
        } else {
            3 * BLOCK_PAGES
        };
        for _ in 0..400 {
            let start = rng.random_range(0..span);
            let len = match rng.random_range(0..20) {
                0 => rng.random_range(0..2 * BLOCK_PAGES),
                _ => rng.random_range(0..6),
            };
            let run = start..start + len;
            let before = model.len() as u64;
            if rng.random_range(0..3) > 0 {
                model.extend(run.clone());
                assert_eq!(
                    pages.insert(&run, Detail::Pages),
                    model.len() as u64 - before
                );
            } else {
                model.retain(|page| !run.contains(page));
                assert_eq!(
                    pages.remove(&run),
                    before - model.len() as u64,
                    "seed {seed}"
                );
            }
            assert_eq!(pages.count, model.len() as u64, "seed {seed}");
        }
        assert_eq!(set_of(&pages.runs()), model, "seed {seed}");
        assert!(
            pages
                .runs()
                .windows(2)
                .all(|pair| pair[0].end < pair[1].start)
        );
        for _ in 0..50 {
            let start = rng.random_range(0..span);
            let run = start..start + rng.random_range(0..200);
            let within: BTreeSet<u64> = model.range(run.clone()).copied().collect();
            assert_eq!(set_of(&pages.runs_in(&run)), within, "seed {seed}");
            assert_eq!(pages.intersects(&run), !within.is_empty(), "seed {seed}");
        }
    }
}

#[test]
fn a_truncate_of_an_exabyte_costs_nothing() {
    let mut pages = Pages::default();
    for page in 0..RUNS_MAX as u64 + 10 {
        pages.insert(&(page * 2..page * 2 + 1), Detail::Pages);
    }
    assert_eq!(pages.memory(), BITMAP_BYTES as u64);
    let all = 7..pages_touched(&(0..1 << 62)).end;
    pages.insert(&all, Detail::Pages);
    assert!(pages.memory() <= 3 * BITMAP_BYTES as u64);
    assert_eq!(pages.remove(&all), all.end - all.start);
    assert_eq!(set_of(&pages.runs()), BTreeSet::from([0, 2, 4, 6]));
}

#[test]
fn short_memory_marks_whole_logical_blocks() {
    let mut pages = Pages::default();
    for page in 0..=RUNS_MAX as u64 {
        pages.insert(&(page * 2..page * 2 + 1), Detail::Blocks);
    }
    assert!(pages.memory() < BITMAP_BYTES as u64);
    assert_eq!(pages.runs(), vec![0..BLOCK_PAGES]);
}

#[test]
fn bitmaps_are_given_up_for_whole_logical_blocks() {
    let mut pages = Pages::default();
    for page in 0..=RUNS_MAX as u64 {
        pages.insert(&(page * 2..page * 2 + 1), Detail::Pages);
    }
    pages.insert(&(3 * BLOCK_PAGES + 7..3 * BLOCK_PAGES + 9), Detail::Pages);
    let before = pages_in(&pages.runs());
    let added = pages.coarsen();
    assert_eq!(
        pages.runs(),
        vec![0..BLOCK_PAGES, 3 * BLOCK_PAGES..4 * BLOCK_PAGES]
    );
    assert_eq!(before + added, 2 * BLOCK_PAGES);
    assert!(pages.memory() < BITMAP_BYTES as u64);
    assert_eq!(pages.coarsen(), 0);
}

#[test]
fn subtracting_leaves_the_rest() {
    let mut gone = Pages::default();
    gone.insert(&(3..5), Detail::Pages);
    gone.insert(&(9..12), Detail::Pages);
    assert_eq!(
        subtract(vec![0..4, 8..10, 20..21], &gone),
        vec![0..3, 8..9, 20..21]
    );
    assert!(subtract(gone.runs(), &gone).is_empty());
}

#[test]
fn bytes_touch_pages() {
    assert_eq!(pages_touched(&(0..1)), 0..1);
    assert_eq!(pages_touched(&(4095..4097)), 0..2);
    assert!(pages_touched(&(5..5)).is_empty());
    assert_eq!(bytes_of(&(1..3)), 4096..12288);
}
