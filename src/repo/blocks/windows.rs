//! The last few stretches of objects, as they were fetched: tree pages that are looked up together lie together, so the
//! second one often needs no request. Bytes in here are not proven; `fetch` decrypts what it takes, which proves it.

use std::ops::Range;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::id::ObjectKey;

/// How far a page's GET reaches back before the page. A tree is written leaves first, then parents, so what a lookup wants next
/// after a root lies just before it. Both bounds together cost a few ms of transfer, far less than the request they save.
const PAGE_BEFORE: u64 = 192 << 10;
/// How far it reaches on behind: a listing goes on to the next leaves.
const PAGE_AFTER: u64 = 64 << 10;
/// How much further it reaches each time that a page goes on from where the last stretch ended, so that who walks a whole tree waits for
/// few requests.
const GROWTH: u64 = 4;
/// The furthest.
const PAGE_AFTER_MAX: u64 = 2 << 20;
/// Stretches kept: a walk reads names, inodes, extents and xattrs side by side, each in its own stretch; a scan's threads read names and
/// inodes, each thread its own.
const WINDOWS_MAX: usize = 16;
/// Their bytes: the longest for eight, and room for look-ups.
const BYTES_MAX: usize = 20 << 20;

/// Recent stretches, the one used last at the end.
#[derive(Default)]
pub(super) struct Windows(Mutex<Vec<Window>>);

struct Window {
    object: ObjectKey,
    begin: u64,
    bytes: Bytes,
}

impl Window {
    fn slice(&self, object: &ObjectKey, range: &Range<u64>) -> Option<Bytes> {
        if self.object != *object {
            return None;
        }
        let begin = usize::try_from(range.start.checked_sub(self.begin)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.begin)?).ok()?;
        (begin <= end && end <= self.bytes.len()).then(|| self.bytes.slice(begin..end))
    }

    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    /// Whether a page that begins at `start` goes on from here: it is the next one that this does not have, or nearly.
    fn leads_to(&self, object: &ObjectKey, start: u64) -> bool {
        self.object == *object
            && self.begin <= start
            && start <= self.end().saturating_add(PAGE_AFTER)
    }
}

impl Windows {
    /// The stretch to ask for when a page lies at `page`.
    pub(super) fn around(&self, object: &ObjectKey, page: &Range<u64>) -> Range<u64> {
        let windows = self.0.lock();
        let before = windows
            .iter()
            .rev()
            .find(|window| window.leads_to(object, page.start));
        let (begin, after) = match before {
            None => (page.start.saturating_sub(PAGE_BEFORE), PAGE_AFTER),
            Some(before) => {
                let longer = (before.bytes.len() as u64).saturating_mul(GROWTH);
                (page.start, longer.clamp(PAGE_AFTER, PAGE_AFTER_MAX))
            }
        };
        begin..page.end.saturating_add(after)
    }

    /// The bytes, if one of the stretches has all of them.
    pub(super) fn get(&self, object: &ObjectKey, range: &Range<u64>) -> Option<Bytes> {
        let mut windows = self.0.lock();
        let (at, found) = windows
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, window)| Some((at, window.slice(object, range)?)))?;
        windows[at..].rotate_left(1);
        Some(found)
    }

    /// Keeps a stretch of `object` that begins at `begin`; those not used the longest go.
    pub(super) fn put(&self, object: ObjectKey, begin: u64, bytes: Bytes) {
        let mut windows = self.0.lock();
        windows.push(Window {
            object,
            begin,
            bytes,
        });
        let total = |windows: &[Window]| windows.iter().map(|w| w.bytes.len()).sum::<usize>();
        while windows.len() > WINDOWS_MAX || (windows.len() > 1 && total(&windows) > BYTES_MAX) {
            windows.remove(0);
        }
    }

    /// Forgets all of `object`, because something taken from it did not verify.
    pub(super) fn forget(&self, object: &ObjectKey) {
        self.0.lock().retain(|window| window.object != *object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> ObjectKey {
        ObjectKey::new("tree")
    }

    /// Asks for the page at `start` as `fetch` does; whether it took a request, and how long that was.
    fn ask(windows: &Windows, start: u64) -> Option<u64> {
        let page = start..start + 4096;
        if windows.get(&object(), &page).is_some() {
            return None;
        }
        let around = windows.around(&object(), &page);
        let len = around.end - around.start;
        windows.put(object(), around.start, vec![0; len as usize].into());
        Some(len)
    }

    #[test]
    fn a_walk_asks_ever_more_at_once_and_a_look_up_does_not() {
        let windows = Windows::default();
        // Two walks side by side.
        let pages = (0..8 << 20).step_by(4096);
        let asked: Vec<u64> = pages
            .flat_map(|at| [at, (64 << 20) + at])
            .filter_map(|at| ask(&windows, at))
            .collect();
        assert!(asked.len() <= 20, "{asked:?}");
        assert!(asked.iter().all(|&len| len <= PAGE_AFTER_MAX + 4096));
        let look_up = PAGE_BEFORE + 4096 + PAGE_AFTER;
        for far in [900 << 20, 500 << 20, 700 << 20] {
            assert_eq!(ask(&windows, far), Some(look_up));
        }
        assert!(
            windows
                .0
                .lock()
                .iter()
                .map(|w| w.bytes.len())
                .sum::<usize>()
                <= BYTES_MAX
        );
    }
}
