//! A set of 4 KiB pages of one file: which are dirty, which are captured. Pure.
//!
//! Small sets are one run or a sorted list of runs; beyond [`RUNS_MAX`] runs the set becomes bitmaps of 2 KiB for each logical block
//! that is touched in part, and runs of logical blocks that are touched as a whole. So a truncate of an exabyte costs as
//! little as one page, a million small files cost a few bytes each, and random writes all over a large file cost a bit a page.

use std::collections::BTreeMap;
use std::ops::Range;

/// Length of a page in bytes: the kernel's, and the smallest stretch that is ever captured.
pub(crate) const PAGE_LEN: u64 = 4096;
/// Pages in a logical block (64 MiB).
const BLOCK_PAGES: u64 = crate::journal::LOGICAL_BLOCK_LEN / PAGE_LEN;
/// Words of a logical block's bitmap.
const WORDS: usize = (BLOCK_PAGES / 64) as usize;
/// Runs in a list before bitmaps are cheaper: 64 runs take half as many bytes as one bitmap.
const RUNS_MAX: usize = 64;

/// What a bitmap costs, with its place in the map.
const BITMAP_BYTES: usize = WORDS * 8 + 64;

/// A run of pages, by number, end exclusive.
pub(crate) type Run = Range<u64>;

/// The pages that bytes `range` touches.
pub(crate) fn pages_touched(range: &Range<u64>) -> Run {
    if range.start >= range.end {
        return 0..0;
    }
    range.start / PAGE_LEN..(range.end - 1) / PAGE_LEN + 1
}

/// The bytes of a run of pages.
pub(crate) fn bytes_of(run: &Run) -> Range<u64> {
    run.start.saturating_mul(PAGE_LEN)..run.end.saturating_mul(PAGE_LEN)
}

/// What is left of `runs` (sorted, disjoint) without the pages of `without`.
pub(crate) fn subtract(runs: Vec<Run>, without: &Pages) -> Vec<Run> {
    if without.is_empty() {
        return runs;
    }
    let mut left = Vec::new();
    for run in runs {
        let mut from = run.start;
        for gone in without.runs_in(&run) {
            if from < gone.start {
                left.push(from..gone.start);
            }
            from = gone.end;
        }
        if from < run.end {
            left.push(from..run.end);
        }
    }
    left
}

/// Joins runs that touch or overlap; sorts them first.
pub(crate) fn coalesce(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable_by_key(|run| run.start);
    let mut joined: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match joined.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => joined.push(run),
        }
    }
    joined
}

/// Pages in a list of disjoint runs.
pub(crate) fn pages_in(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.end - run.start).sum()
}

/// Whether a new bitmap may be made, or memory is short and the whole logical block is marked instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detail {
    /// Page by page.
    Pages,
    /// A logical block that has no bitmap yet is marked as a whole.
    Blocks,
}

/// A set of pages.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    form: Form,
    count: u64,
}

#[derive(Clone, Debug)]
enum Form {
    /// By far the most usual: no memory of its own.
    One(Run),
    Runs(Vec<Run>),
    Blocks(Box<Blocks>),
}

impl Form {
    fn of(mut runs: Vec<Run>) -> Self {
        match runs.len() {
            0 => Self::One(0..0),
            1 => Self::One(runs.remove(0)),
            _ => Self::Runs(runs),
        }
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            form: Form::One(0..0),
            count: 0,
        }
    }
}

impl Pages {
    /// Whether it holds none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// About how many bytes of memory it takes beyond its own.
    pub(crate) fn memory(&self) -> u64 {
        let bytes = match &self.form {
            Form::One(_) => 0,
            Form::Runs(runs) => runs.len() * size_of::<Run>(),
            Form::Blocks(blocks) => {
                blocks.parts.len() * BITMAP_BYTES + blocks.whole.len() * size_of::<Run>()
            }
        };
        bytes as u64
    }

    /// Marks whole logical blocks where there are bitmaps now; returns how many pages that adds.
    pub(crate) fn coarsen(&mut self) -> u64 {
        let Form::Blocks(blocks) = &mut self.form else {
            return 0;
        };
        let numbers: Vec<u64> = blocks.parts.keys().copied().collect();
        let whole = |number| blocks.insert_whole(&(number..number + 1));
        let added = numbers.into_iter().map(whole).sum();
        self.count += added;
        added
    }

    /// Adds pages and returns how many were new. With [`Detail::Blocks`] it may add more than asked for.
    pub(crate) fn insert(&mut self, run: &Run, detail: Detail) -> u64 {
        if run.is_empty() {
            return 0;
        }
        if matches!(&self.form, Form::Runs(runs) if runs.len() >= RUNS_MAX) {
            self.become_blocks(detail);
        }
        let before = self.count;
        match &mut self.form {
            Form::One(one) if self.count == 0 => {
                *one = run.clone();
                self.count = run.end - run.start;
            }
            Form::One(one) => {
                let mut runs = vec![one.clone(); 1];
                self.count += insert_run(&mut runs, run);
                self.form = Form::of(runs);
            }
            Form::Runs(runs) => self.count += insert_run(runs, run),
            Form::Blocks(blocks) => self.count += blocks.insert(run, detail),
        }
        self.count - before
    }

    /// Removes pages and returns how many were there.
    pub(crate) fn remove(&mut self, run: &Run) -> u64 {
        if run.is_empty() || self.count == 0 {
            return 0;
        }
        let removed = match &mut self.form {
            Form::One(one) => {
                let mut runs = vec![one.clone(); 1];
                let removed = remove_run(&mut runs, run);
                self.form = Form::of(runs);
                removed
            }
            Form::Runs(runs) => remove_run(runs, run),
            Form::Blocks(blocks) => blocks.remove(run),
        };
        self.count -= removed;
        if self.count == 0 {
            self.form = Form::One(0..0);
        }
        removed
    }

    /// Whether any page of `run` is in the set.
    pub(crate) fn intersects(&self, run: &Run) -> bool {
        if run.is_empty() || self.count == 0 {
            return false;
        }
        match &self.form {
            Form::One(one) => one.start < run.end && run.start < one.end,
            Form::Runs(runs) => {
                let at = runs.partition_point(|have| have.end <= run.start);
                runs.get(at).is_some_and(|have| have.start < run.end)
            }
            Form::Blocks(blocks) => !blocks.runs_in(run).is_empty(),
        }
    }

    /// Whether `run` covers the set; may say no of a set with more than one run.
    pub(crate) fn is_within(&self, run: &Run) -> bool {
        match &self.form {
            _ if self.count == 0 => true,
            Form::One(one) => run.start <= one.start && one.end <= run.end,
            Form::Runs(_) | Form::Blocks(_) => false,
        }
    }

    /// The set's pages within `run`, as sorted runs that do not touch.
    pub(crate) fn runs_in(&self, run: &Run) -> Vec<Run> {
        if run.is_empty() || self.count == 0 {
            return Vec::new();
        }
        match &self.form {
            Form::One(one) => {
                let cut = one.start.max(run.start)..one.end.min(run.end);
                if cut.is_empty() {
                    Vec::new()
                } else {
                    vec![cut; 1]
                }
            }
            Form::Runs(runs) => {
                let at = runs.partition_point(|have| have.end <= run.start);
                let within = runs[at..].iter().take_while(|have| have.start < run.end);
                within
                    .map(|have| have.start.max(run.start)..have.end.min(run.end))
                    .collect()
            }
            Form::Blocks(blocks) => blocks.runs_in(run),
        }
    }

    /// All of it as sorted runs that do not touch.
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.runs_in(&(0..u64::MAX))
    }

    fn become_blocks(&mut self, detail: Detail) {
        let mut blocks = Blocks::default();
        let mut count = 0;
        for run in self.runs() {
            count += blocks.insert(&run, detail);
        }
        self.form = Form::Blocks(Box::new(blocks));
        self.count = count;
    }
}

/// Adds to a sorted list of runs that do not touch; returns how many pages were new.
fn insert_run(runs: &mut Vec<Run>, run: &Run) -> u64 {
    let low = runs.partition_point(|have| have.end < run.start);
    let high = runs.partition_point(|have| have.start <= run.end);
    if low == high {
        runs.insert(low, run.clone());
        return run.end - run.start;
    }
    let start = run.start.min(runs[low].start);
    let end = run.end.max(runs[high - 1].end);
    let had = pages_in(&runs[low..high]);
    runs.splice(low..high, std::iter::once(start..end));
    end - start - had
}

/// Removes from a sorted list of runs; returns how many pages were there.
fn remove_run(runs: &mut Vec<Run>, run: &Run) -> u64 {
    let low = runs.partition_point(|have| have.end <= run.start);
    let high = runs.partition_point(|have| have.start < run.end);
    if low >= high {
        return 0;
    }
    let had = pages_in(&runs[low..high]);
    let left = runs[low].start..run.start;
    let right = run.end..runs[high - 1].end;
    let keep: Vec<Run> = [left, right]
        .into_iter()
        .filter(|r| !r.is_empty())
        .collect();
    let kept = pages_in(&keep);
    runs.splice(low..high, keep);
    had - kept
}

type Bitmap = Box<[u64; WORDS]>;

/// Logical blocks: runs of whole ones by number, and bitmaps of the others.
#[derive(Clone, Debug, Default)]
struct Blocks {
    whole: Vec<Run>,
    parts: BTreeMap<u64, Bitmap>,
}

impl Blocks {
    fn insert(&mut self, run: &Run, detail: Detail) -> u64 {
        let mut added = 0;
        self.each_block(run, |blocks, range| match range {
            Cut::Whole(numbers) => added += blocks.insert_whole(&numbers),
            Cut::Part(number, pages) => added += blocks.insert_part(number, pages, detail),
        });
        added
    }

    fn remove(&mut self, run: &Run) -> u64 {
        let mut removed = 0;
        self.each_block(run, |blocks, range| match range {
            Cut::Whole(numbers) => removed += blocks.remove_whole(&numbers),
            Cut::Part(number, pages) => removed += blocks.remove_part(number, pages),
        });
        removed
    }

    /// Cuts a run at the borders of logical blocks: a part, whole ones, a part.
    fn each_block(&mut self, run: &Run, mut each: impl FnMut(&mut Self, Cut)) {
        let (first, last) = (run.start / BLOCK_PAGES, (run.end - 1) / BLOCK_PAGES);
        let within = |number: u64| {
            let base = number * BLOCK_PAGES;
            let end = run.end.saturating_sub(base).min(BLOCK_PAGES);
            run.start.saturating_sub(base)..end
        };
        let full = |pages: &Run| pages.end - pages.start == BLOCK_PAGES;
        let (head, tail) = (within(first), within(last));
        let from = if full(&head) { first } else { first + 1 };
        let until = if full(&tail) { last + 1 } else { last };
        if !full(&head) {
            each(self, Cut::Part(first, head));
        }
        if from < until {
            each(self, Cut::Whole(from..until));
        }
        if !full(&tail) && last != first {
            each(self, Cut::Part(last, tail));
        }
    }

    fn is_whole(&self, number: u64) -> bool {
        let at = self.whole.partition_point(|have| have.end <= number);
        self.whole.get(at).is_some_and(|have| have.start <= number)
    }

    fn insert_whole(&mut self, numbers: &Run) -> u64 {
        let had = self.drop_parts(numbers);
        insert_run(&mut self.whole, numbers) * BLOCK_PAGES - had
    }

    fn remove_whole(&mut self, numbers: &Run) -> u64 {
        let had = self.drop_parts(numbers);
        remove_run(&mut self.whole, numbers) * BLOCK_PAGES + had
    }

    /// Drops the bitmaps of some logical blocks; returns how many pages they held.
    fn drop_parts(&mut self, numbers: &Run) -> u64 {
        let gone: Vec<u64> = self.parts.range(numbers.clone()).map(|(&n, _)| n).collect();
        let bitmaps = gone.iter().filter_map(|number| self.parts.remove(number));
        bitmaps.map(|bitmap| ones(&bitmap)).sum()
    }

    fn insert_part(&mut self, number: u64, pages: Run, detail: Detail) -> u64 {
        if self.is_whole(number) {
            return 0;
        }
        if detail == Detail::Blocks && !self.parts.contains_key(&number) {
            return self.insert_whole(&(number..number + 1));
        }
        let bitmap = self
            .parts
            .entry(number)
            .or_insert_with(|| Box::new([0; WORDS]));
        let mut added = 0;
        for (word, mask) in masks(&pages) {
            added += u64::from((mask & !bitmap[word]).count_ones());
            bitmap[word] |= mask;
        }
        if added > 0 && bitmap.iter().all(|&word| word == u64::MAX) {
            self.parts.remove(&number);
            insert_run(&mut self.whole, &(number..number + 1));
        }
        added
    }

    fn remove_part(&mut self, number: u64, pages: Run) -> u64 {
        if self.is_whole(number) {
            remove_run(&mut self.whole, &(number..number + 1));
            self.parts.insert(number, Box::new([u64::MAX; WORDS]));
        }
        let Some(bitmap) = self.parts.get_mut(&number) else {
            return 0;
        };
        let mut removed = 0;
        for (word, mask) in masks(&pages) {
            removed += u64::from((mask & bitmap[word]).count_ones());
            bitmap[word] &= !mask;
        }
        if bitmap.iter().all(|&word| word == 0) {
            self.parts.remove(&number);
        }
        removed
    }

    fn runs_in(&self, run: &Run) -> Vec<Run> {
        let numbers = run.start / BLOCK_PAGES..(run.end - 1) / BLOCK_PAGES + 1;
        let at = self.whole.partition_point(|have| have.end <= numbers.start);
        let whole = self.whole[at..]
            .iter()
            .take_while(|have| have.start < numbers.end);
        let mut found: Vec<Run> = whole
            .map(|have| have.start * BLOCK_PAGES..have.end.saturating_mul(BLOCK_PAGES))
            .collect();
        for (&number, bitmap) in self.parts.range(numbers) {
            push_bits(&mut found, bitmap, number * BLOCK_PAGES);
        }
        for have in &mut found {
            *have = have.start.max(run.start)..have.end.min(run.end);
        }
        found.retain(|have| !have.is_empty());
        coalesce(found)
    }
}

enum Cut {
    Whole(Run),
    Part(u64, Run),
}

/// The words that a run of a bitmap's bits touches, with the bits in each.
fn masks(pages: &Run) -> impl Iterator<Item = (usize, u64)> {
    let pages = pages.clone();
    let words = (pages.start / 64)..pages.end.div_ceil(64);
    words.map(move |word| {
        let low = pages.start.saturating_sub(word * 64).min(63);
        let high = (pages.end - word * 64).min(64);
        (word as usize, (u64::MAX << low) & (u64::MAX >> (64 - high)))
    })
}

fn ones(bitmap: &Bitmap) -> u64 {
    bitmap.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// Appends the runs of set bits, `base` added.
fn push_bits(found: &mut Vec<Run>, bitmap: &Bitmap, base: u64) {
    let mut open: Option<u64> = None;
    for (index, &word) in bitmap.iter().enumerate() {
        let at = base + index as u64 * 64;
        let mut bit = 0;
        while bit < 64 {
            let rest = word >> bit;
            let same = match open {
                Some(_) => rest.trailing_ones(),
                None => rest.trailing_zeros(),
            };
            let same = u64::from(same).min(64 - bit);
            bit += same;
            if bit < 64 {
                match open.take() {
                    Some(start) => found.push(start..at + bit),
                    None => open = Some(at + bit),
                }
            }
        }
    }
    if let Some(start) = open {
        found.push(start..base + BLOCK_PAGES);
    }
}

#[cfg(test)]
mod tests;
