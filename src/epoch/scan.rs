//! What a scan under way has looked at, and what it must not miss.
//!
//! While it runs, what a program changes of a file says nothing of the rest of that file, which may differ from the last commit in
//! ways that the scan has yet to find. A commit made meanwhile leaves such files as they were ([`super::Sealed::is_doubted`]).

use std::collections::HashMap;

use crate::epoch::Epochs;
use crate::epoch::changes::ChangeSet;
use crate::id::FileId;
use crate::source::Node;

/// A scan under way.
#[derive(Default)]
pub(crate) struct Scan {
    /// What was given a name meanwhile: the scan could have passed its new place already and never come to its old one.
    pub(super) moved: Vec<Node>,
    /// What it has looked at in epochs that are finished.
    pub(super) seen: IdSet,
}

/// A set of numbers. They are given out in ranges for each directory, so a word for 64 neighbours costs about three bytes a file.
#[derive(Default, Debug)]
pub(crate) struct IdSet(HashMap<u64, u64>);

impl IdSet {
    pub(crate) fn insert(&mut self, id: FileId) {
        *self.0.entry(id.0 / 64).or_default() |= 1 << (id.0 % 64);
    }

    pub(crate) fn contains(&self, id: FileId) -> bool {
        let word = self.0.get(&(id.0 / 64));
        word.is_some_and(|word| word >> (id.0 % 64) & 1 == 1)
    }

    pub(crate) fn unite(&mut self, other: Self) {
        if self.0.is_empty() {
            self.0 = other.0;
            return;
        }
        for (word, bits) in other.0 {
            *self.0.entry(word).or_default() |= bits;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0 = HashMap::new();
    }
}

impl Epochs {
    /// A scan will come: until it has, nothing is known of files but what is made anew. To be called before anything is mounted.
    pub fn expect_scan(&self) {
        self.scan.lock().get_or_insert_default();
    }

    /// From now on every inode that is given a name is remembered for [`Self::take_moved`], and what the scan has looked at
    /// counts from here.
    pub fn watch_moves(&self) {
        self.forget_seen(&mut self.scan.lock());
    }

    /// What was given a name since the last call, `None` if nothing was. `last`: the scan ends if there is nothing. Waits for requests under
    /// way, so the caller may hold no guard.
    ///
    /// What a request has moved it tells only afterwards. If it took it from where the scan had not been to where it had, the scan, which then
    /// finds nothing there, must not end before that. A request that begins now moves what the scan has seen where it was.
    pub fn take_moved(&self, last: bool) -> Option<Vec<Node>> {
        if last {
            let under_way = self.moves.current();
            self.moves.advance();
            self.moves.wait_drained(under_way);
        }
        let mut scan = self.scan.lock();
        let moved = scan.as_mut().map(|scan| std::mem::take(&mut scan.moved));
        let taken = moved.filter(|moved| !moved.is_empty());
        if taken.is_none() && last {
            self.owed.scanned(self.current());
            // A set that was dropped meanwhile leaves all in doubt until the next scan.
            *scan = self.owed.owes_everything().then(Scan::default);
        }
        taken
    }

    /// A set is done with: what the scan has seen in its epoch it has seen, whatever became of that.
    pub(super) fn keep_seen(&self, set: &ChangeSet) {
        let mut scan = self.scan.lock();
        let seen = std::mem::take(&mut *set.seen());
        if let Some(scan) = &mut *scan {
            scan.seen.unite(seen);
        }
    }

    /// What was seen must be seen again. The caller holds the `scan`'s lock, so that it is forgotten everywhere at once.
    pub(super) fn forget_seen(&self, scan: &mut Option<Scan>) {
        *scan = Some(Scan::default());
        self.sets.iter().for_each(|set| set.seen().clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_into_it() {
        let (mut low, mut high) = (IdSet::default(), IdSet::default());
        for id in [0, 1, 63, 64, 1 << 40] {
            low.insert(FileId(id));
        }
        high.insert(FileId(65));
        low.unite(high);
        for id in [0, 1, 63, 64, 65, 1 << 40] {
            assert!(low.contains(FileId(id)), "{id}");
        }
        for id in [2, 62, 66, 128, (1 << 40) + 1] {
            assert!(!low.contains(FileId(id)), "{id}");
        }
    }
}
