//! From sorted entries to pages: fills leaves, then the pages above them, and keeps pages that did not change.
//!
//! One page's worth of entries or two is in memory, and at most 1 MiB of places per level above. A leaf is cut when there is too much for
//! two, split evenly where a node of the old tree ends, and joined with the next where it would stay under 40 %.

use crate::format::commit::PageRoot;
use crate::format::entry::Place;
use crate::format::page::{Entry, Op, PAGE_MAX, Page, Weight, common_prefix, encode, encoded_len};
use crate::repo::Error;
use crate::repo::tree::PageSink;

/// Pages written one after another are filled this far, so that a later change does not split each of them.
const FILL: usize = PAGE_MAX / 10 * 9;
/// Places of pages wait so long before the pages above are written: the places of ten million entries. So those pages lie together
/// behind all leaves and right before the root, and one GET has them.
const PLACES_WAITING_MAX: usize = 32 * PAGE_MAX;
/// Less than this is joined with the page that follows.
const MERGE_UNDER: usize = PAGE_MAX / 10 * 4;

/// Entries that wait to become a page.
#[derive(Default)]
struct Pending {
    entries: Vec<Entry>,
    weight: Weight,
}

impl Pending {
    fn push(&mut self, entry: Entry) {
        self.weight.add(&entry);
        self.entries.push(entry);
    }

    fn page_len(&self) -> usize {
        match &self.entries[..] {
            [] => 0,
            [only] => self.weight.page_len(only.key.len()),
            [first, .., last] => self.weight.page_len(common_prefix(&first.key, &last.key)),
        }
    }

    /// Takes entries off the front that fill a page.
    fn take_front(&mut self) -> Vec<Entry> {
        let mut weight = Weight::default();
        let first = &self.entries[0].key;
        let fits = self
            .entries
            .iter()
            .take_while(|entry| {
                weight.add(entry);
                weight.page_len(common_prefix(first, &entry.key)) <= FILL
            })
            .count();
        let rest = self.entries.split_off(fits.max(1));
        let front = std::mem::replace(&mut self.entries, rest);
        self.weight = Weight::default();
        self.entries.iter().for_each(|entry| self.weight.add(entry));
        front
    }
}

/// Builds one layer.
pub(super) struct Builder<'a> {
    sink: &'a mut dyn PageSink,
    /// By level; 0 are the leaves.
    levels: Vec<Pending>,
    entries: u64,
    bytes: u64,
}

impl<'a> Builder<'a> {
    /// Over an old tree, whose leaves count until they are opened; over nothing without one.
    pub(super) fn new(old: Option<&PageRoot>, sink: &'a mut dyn PageSink) -> Self {
        Self {
            sink,
            levels: Vec::new(),
            entries: old.map_or(0, |root| root.entries),
            bytes: old.map_or(0, |root| root.bytes),
        }
    }

    /// The next entry of the new layer.
    pub(super) fn push(&mut self, entry: Entry) -> Result<(), Error> {
        self.push_at(0, entry)
    }

    /// A page of the old tree stays as it is. Only where [`Self::can_keep`] allows it.
    pub(super) fn keep(&mut self, level: u8, key: Vec<u8>, place: &Place) -> Result<(), Error> {
        debug_assert!(self.can_keep(level));
        self.refer(level.into(), key, place)
    }

    /// Whether nothing waits that belongs before a whole page of this level.
    pub(super) fn can_keep(&self, level: u8) -> bool {
        self.levels
            .iter()
            .take(usize::from(level) + 1)
            .all(|pending| pending.entries.is_empty())
    }

    /// A page of the old tree is read and will be replaced.
    pub(super) fn open(&mut self, page: &Page) {
        if page.level() == 0 {
            self.entries = self.entries.saturating_sub(page.len() as u64);
            self.bytes = self.bytes.saturating_sub(page.bytes().len() as u64);
        }
    }

    /// A page of the old tree has been walked to its end: what waits becomes pages, if it is enough.
    pub(super) fn close(&mut self, page: &Page, place: &Place) -> Result<(), Error> {
        let level = usize::from(page.level());
        let pending = &mut self.level(level).entries;
        if pending.is_empty() {
            return Ok(());
        }
        if is_unchanged(page, pending) {
            *self.level(level) = Pending::default();
            if level == 0 {
                self.entries += page.len() as u64;
                self.bytes += page.bytes().len() as u64;
            }
            return self.refer(level, page.key(0), place);
        }
        match self.level(level).page_len() < MERGE_UNDER {
            true => Ok(()),
            false => self.flush(level),
        }
    }

    /// The root of what was built; `None` if there are no entries.
    pub(super) fn finish(mut self) -> Result<Option<PageRoot>, Error> {
        for level in 0.. {
            self.flush(level)?;
            let above = self.levels.get(level + 2..).unwrap_or_default();
            if above.iter().any(|pending| !pending.entries.is_empty()) {
                continue;
            }
            match &self.level(level + 1).entries[..] {
                [] => break,
                [root] => {
                    let root = PageRoot {
                        place: Place::decode(&root.value)
                            .map_err(crate::repo::tree::Error::from)?,
                        height: level as u8 + 1,
                        entries: self.entries,
                        bytes: self.bytes,
                    };
                    return Ok(Some(root));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn level(&mut self, level: usize) -> &mut Pending {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Pending::default);
        }
        &mut self.levels[level]
    }

    fn push_at(&mut self, level: usize, entry: Entry) -> Result<(), Error> {
        let waiting_max = match level {
            0 => 2 * PAGE_MAX,
            _ => PLACES_WAITING_MAX,
        };
        let pending = self.level(level);
        pending.push(entry);
        match pending.page_len() > waiting_max {
            true => self.write_full(level),
            false => Ok(()),
        }
    }

    /// Writes pages off the front of what waits at a level, until no more than two are left.
    fn write_full(&mut self, level: usize) -> Result<(), Error> {
        while self.level(level).page_len() > 2 * PAGE_MAX {
            let front = self.level(level).take_front();
            self.write(level, &front)?;
        }
        Ok(())
    }

    /// Writes all that waits at a level.
    fn flush(&mut self, level: usize) -> Result<(), Error> {
        self.write_full(level)?;
        let pending = std::mem::take(self.level(level));
        self.split(level, &pending.entries)
    }

    /// Writes entries as one page, or as evenly filled ones.
    fn split(&mut self, level: usize, entries: &[Entry]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        if encoded_len(entries) <= PAGE_MAX {
            return self.write(level, entries);
        }
        let size = |entry: &Entry| entry.key.len() + entry.value.len();
        let half = entries.iter().map(size).sum::<usize>() / 2;
        let mut before = 0;
        let middle = entries
            .iter()
            .take_while(|entry| {
                before += size(entry);
                before <= half
            })
            .count();
        // More than a page, so more than one entry: each value fits a page of its own.
        let (left, right) = entries.split_at(middle.clamp(1, entries.len() - 1));
        self.split(level, left)?;
        self.split(level, right)
    }

    fn write(&mut self, level: usize, entries: &[Entry]) -> Result<(), Error> {
        let page = encode(level as u8, entries);
        if level == 0 {
            self.entries += entries.len() as u64;
            self.bytes += page.len() as u64;
        }
        let place = self.sink.put(page)?;
        self.refer(level, entries[0].key.clone(), &place)
    }

    fn refer(&mut self, level: usize, key: Vec<u8>, place: &Place) -> Result<(), Error> {
        let entry = Entry {
            key,
            op: Op::Put,
            value: place.encode(),
        };
        self.push_at(level + 1, entry)
    }
}

fn is_unchanged(page: &Page, entries: &[Entry]) -> bool {
    let same = |(i, entry): (usize, &Entry)| {
        page.key_is(i, &entry.key) && page.op(i) == entry.op && page.value(i) == entry.value
    };
    page.len() == entries.len() && entries.iter().enumerate().all(same)
}
