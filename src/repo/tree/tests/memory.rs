//! Pages in memory, counted, and the makers of test values.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::clock::Timespec;
use crate::format::entry::{Address, Contents, Extent, Hint, Inode, Kind, Place};
use crate::format::page::Page;
use crate::id::{BlockClass, BlockId, ContentId, FrameNo, SessionId};
use crate::repo::Error;
use crate::repo::tree::{PageSink, Pages};

/// A store of pages.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    pages: Mutex<HashMap<u32, Vec<u8>>>,
    written: AtomicU64,
    read: AtomicU64,
}

impl Memory {
    /// Pages and bytes written so far.
    pub(super) fn written(&self) -> (u64, u64) {
        (
            self.0.pages.lock().len() as u64,
            self.0.written.load(Ordering::Relaxed),
        )
    }

    /// Pages read so far.
    pub(super) fn read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// Changes the bytes of one page.
    pub(super) fn damage(&self, page: u32, how: impl FnOnce(&mut Vec<u8>)) {
        how(self.0.pages.lock().get_mut(&page).expect("a page"));
    }
}

#[async_trait]
impl Pages for Memory {
    async fn page(&self, place: &Place) -> Result<Arc<Page>, Error> {
        self.0.read.fetch_add(1, Ordering::Relaxed);
        let bytes = self.0.pages.lock().get(&place.at.frame.0).cloned();
        let bytes = bytes.ok_or_else(|| Error::NotFound("page".to_owned()))?;
        let page = Page::decode(bytes).map_err(|error| Error::NotFound(error.to_string()))?;
        Ok(Arc::new(page))
    }
}

impl PageSink for Memory {
    fn put(&mut self, page: Vec<u8>) -> Result<Place, Error> {
        let mut pages = self.0.pages.lock();
        let number = pages.len() as u32;
        self.0
            .written
            .fetch_add(page.len() as u64, Ordering::Relaxed);
        let place = place(number, 0);
        pages.insert(number, page);
        Ok(place)
    }
}

/// A place in frame `frame`.
pub(super) fn place(frame: u32, inner: u32) -> Place {
    Place {
        at: Address {
            block: BlockId {
                key_epoch: 1,
                class: BlockClass::Tree,
                session: SessionId([9; 8]),
                number: 3,
            },
            frame: FrameNo(frame),
            inner,
        },
        hint: Hint {
            offset: 64 + u64::from(frame) * 9000,
            len: 9000,
            commit: None,
        },
    }
}

/// Data of frame `frame` from `inner` on.
pub(super) fn data(range: Range<u64>, frame: u32, inner: u32, content: Option<u8>) -> Extent {
    Extent {
        range,
        contents: Contents::Data {
            place: place(frame, inner),
            content: content.map(|byte| ContentId([byte; 16])),
        },
    }
}

/// An inode of a file of this size.
pub(super) fn file(size: u64) -> Inode {
    let time = Timespec {
        secs: 1_700_000_000,
        nanos: 123_456_789,
    };
    Inode {
        kind: Kind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        links: 1,
        size,
        rdev: 0,
        mtime: time,
        ctime: time,
        atime: time,
        btime: Some(time),
        target: Vec::new(),
        handle: vec![0x81, 1, 2, 3, 4, 5, 6, 7],
        racy: false,
        in_place: false,
        unknown: Vec::new(),
    }
}
