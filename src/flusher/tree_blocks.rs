//! Where the tree's new pages go: tree blocks in the spool, one page per frame.
//!
//! A page's place is known as soon as it is packed; encryption follows in batches of frames. No file is made before the
//! first page, so an epoch whose changes stay inline costs nothing here.

use std::mem;

use crate::flusher::encrypt::BATCH_FRAMES;
use crate::flusher::error::Error;
use crate::flusher::pipeline::PipelineParts;
use crate::flusher::session::Session;
use crate::flusher::spool::{BlockFile, FrameBytes, SpooledBlock};
use crate::format::block::FRAMES_MAX;
use crate::format::entry::{Address, Hint, Place};
use crate::format::frame::{Envelope, FrameKind};
use crate::id::{BlockClass, FrameNo};
use crate::repo::layout;
use crate::repo::tree::PageSink;
use crate::store;

/// Collects pages of one epoch.
pub(crate) struct TreeBlocks<'a> {
    session: &'a Session,
    parts: PipelineParts,
    block_len: u64,
    open: Option<OpenBlock>,
    done: Vec<SpooledBlock>,
}

struct OpenBlock {
    file: BlockFile,
    first: FrameNo,
    batch: Vec<Envelope>,
}

impl<'a> TreeBlocks<'a> {
    /// No blocks yet; each will hold at most `block_len` bytes of pages.
    pub(crate) fn new(session: &'a Session, parts: PipelineParts, block_len: u64) -> Self {
        Self {
            session,
            parts,
            block_len,
            open: None,
            done: Vec::new(),
        }
    }

    /// Ends the last block and makes all durable.
    pub(crate) fn finish(mut self) -> Result<Vec<SpooledBlock>, Error> {
        self.end_block()?;
        for block in &mut self.done {
            block.sync()?;
            block.show()?;
        }
        Ok(self.done)
    }

    fn add(&mut self, page: &[u8]) -> Result<Place, Error> {
        let envelope = Envelope::pack(page, self.parts.compression);
        let full = |open: &OpenBlock| {
            open.file.plain_len() + page.len() as u64 > self.block_len
                || open.file.frames() == FRAMES_MAX
        };
        if self.open.as_ref().is_some_and(full) {
            self.end_block()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin_block()?,
        };
        let place = open
            .file
            .reserve(FrameKind::Page, FrameBytes::of(&envelope));
        open.batch.push(envelope);
        if open.batch.len() == BATCH_FRAMES {
            self.encrypt(&mut open)?;
        }
        let block = open.file.id();
        self.open = Some(open);
        Ok(Place {
            at: Address {
                block,
                frame: place.frame,
                inner: 0,
            },
            hint: Hint {
                offset: place.offset,
                len: place.len,
                commit: None,
            },
        })
    }

    fn begin_block(&self) -> Result<OpenBlock, Error> {
        let id = self.session.block(BlockClass::Tree);
        let key = layout::block(self.parts.keys.volume(), id)
            .expect("blocks of tree pages have names of their own");
        Ok(OpenBlock {
            file: BlockFile::create(&self.parts.spool, id, key)?,
            first: FrameNo(0),
            batch: Vec::with_capacity(BATCH_FRAMES),
        })
    }

    fn encrypt(&self, open: &mut OpenBlock) -> Result<(), Error> {
        let batch = mem::replace(&mut open.batch, Vec::with_capacity(BATCH_FRAMES));
        if batch.is_empty() {
            return Ok(());
        }
        let next = FrameNo(open.first.0 + batch.len() as u32);
        let cipher = self.parts.keys.block(open.file.id());
        for frame in cipher.encrypt(open.first, FrameKind::Page, None, batch) {
            open.file.write(&frame)?;
        }
        open.first = next;
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), Error> {
        if let Some(mut open) = self.open.take() {
            self.encrypt(&mut open)?;
            let cipher = self.parts.keys.block(open.file.id());
            self.done.push(open.file.finish(&cipher)?);
        }
        Ok(())
    }
}

impl PageSink for TreeBlocks<'_> {
    fn put(&mut self, page: Vec<u8>) -> Result<Place, crate::repo::Error> {
        self.add(&page).map_err(|error| {
            // The tree speaks of its pages' home as a store; here that is the spool.
            crate::repo::Error::from(store::Error {
                kind: store::Kind::Full,
                doing: "write a tree page to the spool".to_owned(),
                message: error.to_string(),
                source: Some(Box::new(error)),
            })
        })
    }
}
