//! The pack stage: pieces of files become frames, frames become blocks.
//!
//! Two frames are open at any time, a shared one for what is small and a bulk one for what is large, so that a stream
//! of big chunks does not tear apart the small files between them. A piece never crosses a frame. As long as all of an
//! epoch is no more than [`SMALL_DATA_MAX`], its frames stay here, to ride in the commit object; the first byte
//! beyond starts the threads of [`Pipeline`].

use crate::flusher::error::Error;
use crate::flusher::pipeline::{Pipeline, PipelineParts, SafeBlock};
use crate::flusher::session::Session;
use crate::flusher::spool::{FrameBytes, SpooledBlock};
use crate::format::block::FramePlace;
use crate::format::commit::SMALL_DATA_MAX;
use crate::format::entry::{Address, CommitName, Hint, Place};
use crate::format::frame::{FRAME_PLAIN_MAX, Plaintext};
use crate::id::{BlockClass, BlockId, FrameNo};

/// The most plaintext in a frame that is shared by small pieces: what a reader of one of them has to fetch.
pub(crate) const SHARED_FRAME_LEN: usize = 256 << 10;

/// Which of the two open frames a piece goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameSize {
    /// At most [`SHARED_FRAME_LEN`]: small files and increments.
    Shared,
    /// At most [`FRAME_PLAIN_MAX`]: chunks of large files and whole logical blocks.
    Bulk,
}

/// Where a piece lies, before its frame has a block and an offset: a frame by its order of opening.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Spot {
    frame: u32,
    inner: u32,
}

/// A frame being filled.
struct OpenFrame {
    serial: u32,
    plain: Plaintext,
}

/// Where a closed frame went.
#[derive(Clone, Copy)]
enum Seat {
    /// Frame of the small data, by number.
    Small(u32),
    /// Block by number in order of opening, and frame in it.
    Block(u32, u32),
    /// Still open.
    Open,
}

/// What holds closed frames.
enum Hold {
    /// Here, until there are too many.
    Small {
        frames: Vec<(u32, Plaintext)>,
        bytes: usize,
    },
    /// On their way to the spool.
    Running(Pipeline),
}

/// Fills frames and blocks.
pub(crate) struct Packer<'a> {
    session: &'a Session,
    parts: PipelineParts,
    block_len: u64,
    shared: Option<OpenFrame>,
    bulk: Option<OpenFrame>,
    seats: Vec<Seat>,
    hold: Hold,
    plain: u64,
}

/// Everything packed: what came of it and where each piece lies.
pub(crate) struct Packed {
    /// Plaintext of the frames that are to ride in the commit, in order; empty if there are blocks.
    pub(crate) small: Vec<Plaintext>,
    /// Blocks in the spool, synced.
    pub(crate) blocks: Vec<SpooledBlock>,
    seats: Vec<Seat>,
}

impl<'a> Packer<'a> {
    /// Packs for one epoch: small data is held back for its commit.
    pub(crate) fn for_epoch(session: &'a Session, parts: PipelineParts, block_len: u64) -> Self {
        Self {
            session,
            parts,
            block_len,
            shared: None,
            bulk: None,
            seats: Vec::new(),
            hold: Hold::Small {
                frames: Vec::new(),
                bytes: 0,
            },
            plain: 0,
        }
    }

    /// Blocks that have become durable since the last call, which may be uploaded while others are made. Whatever becomes of
    /// this packer, they are not taken back.
    pub(crate) fn take_safe(&self) -> Vec<SafeBlock> {
        match &self.hold {
            Hold::Small { .. } => Vec::new(),
            Hold::Running(pipeline) => pipeline.take_safe(),
        }
    }

    /// Where a piece lies, if it is in one of these blocks.
    pub(crate) fn place_in(&self, safe: &[SafeBlock], spot: Spot) -> Option<Place> {
        let Seat::Block(order, frame) = self.seats[spot.frame as usize] else {
            return None;
        };
        let block = safe.iter().find(|block| block.order == order)?;
        Some(place_of(block.id, &block.places[frame as usize], spot))
    }

    /// Adds a piece (at most what a frame of `size` holds) and says where it will lie.
    pub(crate) fn piece(&mut self, bytes: &[u8], size: FrameSize) -> Result<Spot, Error> {
        let frame_max = match size {
            FrameSize::Shared => SHARED_FRAME_LEN,
            FrameSize::Bulk => FRAME_PLAIN_MAX,
        };
        assert!(
            bytes.len() <= frame_max,
            "callers cut pieces to fit a frame"
        );
        self.plain += bytes.len() as u64;
        let open = self.slot(size).take();
        let mut open = match open {
            Some(open) if open.plain.bytes().len() + bytes.len() <= frame_max => open,
            full => {
                self.close(full)?;
                self.open(frame_max)
            }
        };
        let spot = Spot {
            frame: open.serial,
            inner: open.plain.bytes().len() as u32,
        };
        open.plain.extend(bytes);
        *self.slot(size) = Some(open);
        Ok(spot)
    }

    /// Ends the block being filled, so that what follows begins one of its own.
    pub(crate) fn end_block(&mut self) -> Result<(), Error> {
        self.close_open()?;
        match &mut self.hold {
            Hold::Small { .. } => Ok(()),
            Hold::Running(pipeline) => pipeline.end_block(),
        }
    }

    /// Puts everything into blocks even if it is small: for what is copied ahead, which has no commit yet.
    pub(crate) fn finish_in_blocks(mut self) -> Result<Packed, Error> {
        self.close_open()?;
        if self.plain > 0 {
            self.run()?;
        }
        self.finish()
    }

    /// Closes everything and waits until the blocks are durable in the spool.
    pub(crate) fn finish(mut self) -> Result<Packed, Error> {
        self.close_open()?;
        let (small, blocks) = match self.hold {
            Hold::Small { frames, .. } => {
                (frames.into_iter().map(|(_, f)| f).collect(), Vec::new())
            }
            Hold::Running(pipeline) => (Vec::new(), pipeline.finish()?),
        };
        Ok(Packed {
            small,
            blocks,
            seats: self.seats,
        })
    }

    fn slot(&mut self, size: FrameSize) -> &mut Option<OpenFrame> {
        match size {
            FrameSize::Shared => &mut self.shared,
            FrameSize::Bulk => &mut self.bulk,
        }
    }

    fn open(&mut self, frame_max: usize) -> OpenFrame {
        let serial = self.seats.len() as u32;
        self.seats.push(Seat::Open);
        // A running pipeline will fill the frame; a small epoch should not pay for a whole one.
        let plain = match &self.hold {
            Hold::Small { .. } => Plaintext::with_capacity(0),
            Hold::Running(pipeline) => pipeline.plaintext(frame_max),
        };
        OpenFrame { serial, plain }
    }

    fn close_open(&mut self) -> Result<(), Error> {
        let open = [self.shared.take(), self.bulk.take()];
        open.into_iter().try_for_each(|frame| self.close(frame))
    }

    fn close(&mut self, frame: Option<OpenFrame>) -> Result<(), Error> {
        let Some(OpenFrame { serial, plain }) = frame else {
            return Ok(());
        };
        match &mut self.hold {
            Hold::Small { frames, bytes } if *bytes + plain.bytes().len() <= SMALL_DATA_MAX => {
                *bytes += plain.bytes().len();
                self.seats[serial as usize] = Seat::Small(frames.len() as u32);
                frames.push((serial, plain));
                Ok(())
            }
            Hold::Small { .. } => {
                self.run()?;
                self.send(serial, plain)
            }
            Hold::Running(_) => self.send(serial, plain),
        }
    }

    /// Turns small data into a block and goes on in blocks.
    fn run(&mut self) -> Result<(), Error> {
        let pipeline = Hold::Running(Pipeline::start(self.parts.clone(), self.block_len));
        match std::mem::replace(&mut self.hold, pipeline) {
            Hold::Small { frames, .. } => frames
                .into_iter()
                .try_for_each(|(serial, plain)| self.send(serial, plain)),
            running @ Hold::Running(_) => {
                self.hold = running;
                Ok(())
            }
        }
    }

    fn send(&mut self, serial: u32, plain: Plaintext) -> Result<(), Error> {
        let session = self.session;
        if let Hold::Running(pipeline) = &mut self.hold {
            let (block, frame) = pipeline.frame(plain, || session.block(BlockClass::Data))?;
            self.seats[serial as usize] = Seat::Block(block, frame);
        }
        Ok(())
    }
}

/// The small data's place: its block is the commit's own, its frames follow the commit's body.
#[derive(Clone, Debug)]
pub(crate) struct SmallPlaces {
    /// The commit.
    pub(crate) commit: CommitName,
    /// The commit's block.
    pub(crate) block: BlockId,
    /// Places of the small frames in order.
    pub(crate) frames: Vec<FramePlace>,
}

impl Packed {
    /// The final place of a piece. `small` is given where small data rides in a commit.
    pub(crate) fn place(&self, spot: Spot, small: Option<&SmallPlaces>) -> Place {
        match self.seats[spot.frame as usize] {
            Seat::Block(block, frame) => {
                let block = &self.blocks[block as usize];
                place_of(block.id, &block.places[frame as usize], spot)
            }
            Seat::Small(frame) => {
                let small = small.expect("small frames are resolved with the commit they ride in");
                let mut place = place_of(small.block, &small.frames[frame as usize], spot);
                place.hint.commit = Some(small.commit);
                place
            }
            Seat::Open => unreachable!("finish closed every frame"),
        }
    }

    /// What the blocks hold.
    pub(crate) fn bytes(&self) -> FrameBytes {
        let mut sum = FrameBytes::default();
        self.blocks.iter().for_each(|b| sum += b.bytes);
        sum
    }
}

/// The place of a piece in a frame of a block of its own.
fn place_of(block: BlockId, frame: &FramePlace, spot: Spot) -> Place {
    Place {
        at: Address {
            block,
            frame: frame.frame,
            inner: spot.inner,
        },
        hint: Hint {
            offset: frame.offset,
            len: frame.len,
            commit: None,
        },
    }
}

/// The number of frame `index` of a commit's small data: the body is frame 0.
pub(crate) fn small_frame_no(index: usize) -> FrameNo {
    FrameNo(index as u32 + 1)
}
