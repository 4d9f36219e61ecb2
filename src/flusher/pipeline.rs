//! The threads between pack and spool: workers compress and encrypt batches of frames, one writer puts them into block
//! files in order, one syncer makes finished blocks durable behind it.
//!
//! ```text
//! flow ── Batch ──► worker × n ── EncryptedBatch ──► writer ── SpooledBlock ──► syncer
//! ```
//!
//! Every channel holds at most one batch (8 frames, 8 MiB), so that together with what each thread has in hand memory stays
//! below about 64 MiB on two cores, whatever the size of the epoch, and 24 MiB more while the writer waits for a batch that takes long:
//! then the others wait too before they get far ahead of it ([`Turns`]). A stage that fails closes its channels; the error comes out of
//! [`Pipeline::finish`] or of the next call, whichever is first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::buffers::Buffers;
use crate::compress::Compression;
use crate::crypto::VolumeKeys;
use crate::flusher::encrypt::{BATCH_FRAMES, Batch, EncryptedBatch, encrypt};
use crate::flusher::error::Error;
use crate::flusher::manifest::SpooledObject;
use crate::flusher::spool::{BlockFile, Spool, SpooledBlock};
use crate::format::block::{FRAMES_MAX, FramePlace};
use crate::format::frame::{FrameKind, Plaintext};
use crate::id::{BlockId, FrameNo};
use crate::repo::layout;
use crate::sys;

/// More workers than this outrun any disk, and each costs up to 16 MiB.
const WORKERS_MAX: usize = 4;
/// Batches waiting between two stages.
const QUEUE_BATCHES: usize = 1;
/// Batches that the writer keeps until it comes to them, 8 MiB each: enough that one which takes four times as long as others keeps no
/// second worker waiting.
const EARLY_BATCHES: u64 = 3;
/// Finished blocks that wait for fdatasync: only their descriptors are held.
const QUEUE_BLOCKS: usize = 4;
/// Buffers of frames that are kept: what comes back while one batch is being filled and another is on its way.
const BUFFERS_MAX: usize = 2 * BATCH_FRAMES;

/// What every stage needs.
#[derive(Clone)]
pub(crate) struct PipelineParts {
    /// Keys of the volume.
    pub(crate) keys: VolumeKeys,
    /// The repository's compression.
    pub(crate) compression: Compression,
    /// Where blocks go.
    pub(crate) spool: Arc<Spool>,
    /// Whether nobody waits for it, so that the programs that use the mount come first.
    pub(crate) gives_way: bool,
}

/// The running stages, seen from the flow.
pub(crate) struct Pipeline {
    batches: Option<SyncSender<Batch>>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<Result<(), Error>>>,
    syncer: Option<JoinHandle<Result<(), Error>>>,
    /// Durable blocks, in order of opening.
    safe: Arc<Mutex<Vec<SpooledBlock>>>,
    buffers: Arc<Buffers>,
    block_len: u64,
    open: Option<OpenBlock>,
    blocks: u32,
    order: u64,
}

/// A durable block, which may be uploaded while others are made.
pub(crate) struct SafeBlock {
    /// Its number in order of opening.
    pub(crate) order: u32,
    /// Its name.
    pub(crate) id: BlockId,
    /// Its object.
    pub(crate) object: SpooledObject,
    /// Where its frames lie, by frame number.
    pub(crate) places: Vec<FramePlace>,
}

/// The block that frames go to now.
struct OpenBlock {
    id: BlockId,
    plain: u64,
    frames: u32,
    batch: Vec<Plaintext>,
}

impl Pipeline {
    /// Starts the threads. Blocks hold at most `block_len` bytes of plaintext.
    pub(crate) fn start(parts: PipelineParts, block_len: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (batches, queued) = sync_channel(QUEUE_BATCHES);
        let (encrypted, arriving) = sync_channel(QUEUE_BATCHES);
        let (finished, unsynced) = sync_channel(QUEUE_BLOCKS);
        let queued = Arc::new(Mutex::new(queued));
        let turns = Arc::<Turns>::default();
        // As many as there are cores: who feeds them mostly waits for the disk or for them.
        let workers = (0..cores.clamp(1, WORKERS_MAX))
            .map(|_| {
                let (parts, queued, encrypted) =
                    (parts.clone(), Arc::clone(&queued), encrypted.clone());
                let turns = Arc::clone(&turns);
                std::thread::spawn(move || work(&parts, &queued, &encrypted, &turns))
            })
            .collect();
        let buffers = Arc::new(Buffers::new(BUFFERS_MAX));
        let writer = {
            let buffers = Arc::clone(&buffers);
            std::thread::spawn(move || write(&parts, &arriving, &finished, &buffers, &turns))
        };
        let safe = Arc::<Mutex<Vec<SpooledBlock>>>::default();
        let syncer = {
            let safe = Arc::clone(&safe);
            std::thread::spawn(move || sync(&unsynced, &safe))
        };
        Self {
            batches: Some(batches),
            workers,
            writer: Some(writer),
            syncer: Some(syncer),
            safe,
            buffers,
            block_len,
            open: None,
            blocks: 0,
            order: 0,
        }
    }

    /// A frame to be filled with at most `capacity` bytes, in a buffer that has been written if one fits.
    pub(crate) fn plaintext(&self, capacity: usize) -> Plaintext {
        Plaintext::in_buffer(self.buffers.take(Plaintext::buffer_len(capacity)))
    }

    /// Sends a frame on; says which block (by order of opening) and which frame of it it is. `name` names a new block.
    pub(crate) fn frame(
        &mut self,
        plain: Plaintext,
        name: impl FnOnce() -> BlockId,
    ) -> Result<(u32, u32), Error> {
        let len = plain.bytes().len() as u64;
        let full =
            |open: &OpenBlock| open.plain + len > self.block_len || open.frames == FRAMES_MAX;
        if self.open.as_ref().is_some_and(full) {
            self.end_block()?;
        }
        let blocks = &mut self.blocks;
        let open = self.open.get_or_insert_with(|| {
            *blocks += 1;
            OpenBlock {
                id: name(),
                plain: 0,
                frames: 0,
                batch: Vec::with_capacity(BATCH_FRAMES),
            }
        });
        let seat = (*blocks - 1, open.frames);
        open.plain += len;
        open.frames += 1;
        open.batch.push(plain);
        if open.batch.len() == BATCH_FRAMES {
            self.send_batch(false)?;
        }
        Ok(seat)
    }

    /// Ends the block being filled, if there is one.
    pub(crate) fn end_block(&mut self) -> Result<(), Error> {
        if self.open.is_some() {
            self.send_batch(true)?;
            self.open = None;
        }
        Ok(())
    }

    /// Blocks that have become durable since the last call: from now on they stay, to be uploaded while others are made.
    pub(crate) fn take_safe(&self) -> Vec<SafeBlock> {
        let mut safe = self.safe.lock();
        let fresh = (0..).zip(safe.iter_mut()).filter_map(|(order, block)| {
            let object = block.keep()?;
            Some(SafeBlock {
                order,
                id: block.id,
                object,
                places: block.places.clone(),
            })
        });
        fresh.collect()
    }

    /// Ends the last block and waits until all are durable. In order of opening.
    pub(crate) fn finish(mut self) -> Result<Vec<SpooledBlock>, Error> {
        let sent = self.end_block();
        self.join()?;
        sent?;
        Ok(std::mem::take(&mut *self.safe.lock()))
    }

    fn send_batch(&mut self, last: bool) -> Result<(), Error> {
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let frames = std::mem::replace(&mut open.batch, Vec::with_capacity(BATCH_FRAMES));
        let batch = Batch {
            order: self.order,
            block: open.id,
            first: FrameNo(open.frames - frames.len() as u32),
            frames,
            last,
        };
        self.order += 1;
        let sent = self
            .batches
            .as_ref()
            .is_some_and(|to| to.send(batch).is_ok());
        match sent {
            true => Ok(()),
            // The stages are gone; one of them knows why.
            false => Err(self.join().err().unwrap_or(Error::StageLost("encrypt"))),
        }
    }

    fn join(&mut self) -> Result<(), Error> {
        self.batches = None;
        let lost = |stage| move |_| Error::StageLost(stage);
        let mut result = Ok(());
        for worker in self.workers.drain(..) {
            result = result.and(worker.join().map_err(lost("encrypt")));
        }
        let written = self.writer.take().map_or(Ok(Ok(())), JoinHandle::join);
        let synced = self.syncer.take().map_or(Ok(Ok(())), JoinHandle::join);
        // The later stages first: an earlier one only noticed that they had gone.
        synced.map_err(lost("fdatasync"))??;
        written.map_err(lost("spool"))??;
        result
    }
}

impl Drop for Pipeline {
    /// A pipeline that is given up (its epoch was folded) leaves no thread and no file behind. What else went wrong in
    /// it no longer matters.
    fn drop(&mut self) {
        drop(self.join());
    }
}

/// How far the writer has come, so that nobody hands it batches that it could only keep.
#[derive(Default)]
struct Turns {
    /// The batch that it waits for; past all of them once a stage has ended, well or not.
    next: Mutex<u64>,
    moved: Condvar,
}

impl Turns {
    /// Waits until the writer has nearly come to batch `order`. Who has the one that it waits for never does.
    fn wait_for(&self, order: u64) {
        let mut next = self.next.lock();
        while order.saturating_sub(*next) > EARLY_BATCHES {
            self.moved.wait(&mut next);
        }
    }

    fn come_to(&self, order: u64) {
        let mut next = self.next.lock();
        *next = order.max(*next);
        self.moved.notify_all();
    }
}

/// Lets everybody go when the stage that holds this ends: a batch that was lost with it will never be written.
struct EndOfTurns<'a>(&'a Turns);

impl Drop for EndOfTurns<'_> {
    fn drop(&mut self) {
        self.0.come_to(u64::MAX);
    }
}

/// A worker: compresses and encrypts whatever batch comes next.
fn work(
    parts: &PipelineParts,
    queued: &Mutex<Receiver<Batch>>,
    to: &SyncSender<EncryptedBatch>,
    turns: &Turns,
) {
    let _end = EndOfTurns(turns);
    if parts.gives_way {
        sys::give_way();
    }
    loop {
        let next = queued.lock().recv();
        let Ok(batch) = next else { return };
        let batch = encrypt(batch, &parts.keys, parts.compression);
        turns.wait_for(batch.order);
        if to.send(batch).is_err() {
            return;
        }
    }
}

/// The writer: puts batches back into order and into files.
fn write(
    parts: &PipelineParts,
    arriving: &Receiver<EncryptedBatch>,
    finished: &SyncSender<SpooledBlock>,
    buffers: &Buffers,
    turns: &Turns,
) -> Result<(), Error> {
    let _end = EndOfTurns(turns);
    if parts.gives_way {
        sys::give_way();
    }
    let mut early = BTreeMap::new();
    let mut next = 0;
    let mut file: Option<BlockFile> = None;
    for batch in arriving {
        early.insert(batch.order, batch);
        while let Some(batch) = early.remove(&next) {
            next += 1;
            turns.come_to(next);
            let (block, last) = (batch.block, batch.last);
            let mut open = match file.take() {
                Some(open) => open,
                None => {
                    let key = layout::block(parts.keys.volume(), block)
                        .expect("blocks of data have names of their own");
                    BlockFile::create(&parts.spool, block, key)?
                }
            };
            for (lengths, ciphertext) in batch.frames {
                open.reserve(FrameKind::Data, lengths);
                open.write(&ciphertext)?;
                buffers.give_bytes(ciphertext.into_bytes());
            }
            if !last {
                file = Some(open);
            } else if finished
                .send(open.finish(&parts.keys.block(block))?)
                .is_err()
            {
                return Ok(()); // the syncer has failed and knows why
            }
        }
    }
    Ok(())
}

/// The syncer: makes blocks durable while the next are being written.
fn sync(unsynced: &Receiver<SpooledBlock>, safe: &Mutex<Vec<SpooledBlock>>) -> Result<(), Error> {
    for mut block in unsynced {
        block.sync()?;
        block.show()?;
        safe.lock().push(block);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
