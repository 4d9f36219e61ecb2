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
/// Stretches kept. With the bounds above at most 4 MiB a volume.
const WINDOWS_MAX: usize = 12;

/// Recent stretches, newest last.
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
}

/// The stretch to ask for when a page lies at `page`.
pub(super) fn around(page: &Range<u64>) -> Range<u64> {
    page.start.saturating_sub(PAGE_BEFORE)..page.end.saturating_add(PAGE_AFTER)
}

impl Windows {
    /// The bytes, if one of the stretches has all of them.
    pub(super) fn get(&self, object: &ObjectKey, range: &Range<u64>) -> Option<Bytes> {
        let windows = self.0.lock();
        windows
            .iter()
            .rev()
            .find_map(|window| window.slice(object, range))
    }

    /// Keeps a stretch of `object` that begins at `begin`; the oldest goes.
    pub(super) fn put(&self, object: ObjectKey, begin: u64, bytes: Bytes) {
        let mut windows = self.0.lock();
        if windows.len() == WINDOWS_MAX {
            windows.remove(0);
        }
        windows.push(Window {
            object,
            begin,
            bytes,
        });
    }

    /// Forgets all of `object`, because something taken from it did not verify.
    pub(super) fn forget(&self, object: &ObjectKey) {
        self.0.lock().retain(|window| window.object != *object);
    }
}
