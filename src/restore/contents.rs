//! The contents of many files at once, in the order in which they lie in the store: each frame is fetched once, however many
//! files it holds parts of. A file gets its attributes and its name when its last byte is written.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::format::entry::{Contents, Extent, Place};
use crate::id::{BlockId, FrameNo};
use crate::repo::blocks::{Blocks, Once};
use crate::repo::tree::Tree;
use crate::restore::plan::Item;
use crate::restore::target::{Applied, Dir, Xattrs};
use crate::restore::{Error, xattrs};
use crate::sys;

/// Bytes of a file whose extents are looked up at once: bounds memory for a file with millions of them.
const STRETCH: u64 = 1 << 30;
/// Pieces gathered before they are written.
const PIECES_AT_ONCE: usize = 16 << 10;
/// Bytes of neighbouring frames asked for together: one ranged GET.
const RUN_BYTES: u64 = 4 << 20;
/// The most frames of those: what compresses well is longer than was fetched, a frame up to 1 MiB.
const RUN_FRAMES: usize = 16;
/// Runs in flight: enough to fill a fast line at 50 ms a request. Encrypted they are about 50 MiB of memory.
const RUNS_AT_ONCE: usize = 12;
/// Those of them that may be decrypted and written at once: most often 24 MiB more, and never 100 MiB.
const PLAIN_AT_ONCE: usize = 6;
/// What is written of one file at once sets out for the disk from so many bytes on: all of it is synced in the end, and the disk has nothing
/// to do until then.
const WRITE_BACK_MIN: u64 = 1 << 20;
/// Files that are finished together, with all their xattrs in memory.
const FINISHED_AT_ONCE: usize = 64;

/// Where contents come from, how far that has come, and whether to go on.
pub(super) struct Reading<'a> {
    pub(super) tree: Tree<Arc<Blocks>>,
    pub(super) blocks: &'a Arc<Blocks>,
    pub(super) written: &'a AtomicU64,
    pub(super) stop: &'a AtomicBool,
    pub(super) room: Semaphore,
}

/// Room for what is decrypted of one restore.
pub(super) fn room() -> Semaphore {
    Semaphore::new(PLAIN_AT_ONCE)
}

impl Reading<'_> {
    /// [`Error::Interrupted`] once it is to stop.
    pub(super) fn go_on(&self) -> Result<(), Error> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// A file that is to be made and filled.
pub(super) struct Pending {
    pub(super) item: Item,
    dir: Arc<Dir>,
    state: Mutex<State>,
}

struct State {
    /// Pieces not written yet, and one for as long as its extents are being looked up.
    owed: usize,
    is_made: bool,
    failure: Option<String>,
    /// How it ended: with its name or without one.
    outcome: Option<io::Result<Applied>>,
}

/// What looking up a file's extents counts for among the pieces that it owes.
const LOOKED_UP: usize = 1;

/// Bytes of one frame that belong into one file.
#[derive(Clone, Debug)]
struct Piece {
    place: Place,
    /// Index into the pending files.
    file: usize,
    range: Range<u64>,
}

impl Piece {
    fn frame(&self) -> (BlockId, FrameNo) {
        (self.place.at.block, self.place.at.frame)
    }

    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Pending {
    pub(super) fn new(item: Item, dir: Arc<Dir>) -> Self {
        let state = State {
            owed: LOOKED_UP,
            is_made: false,
            failure: None,
            outcome: None,
        };
        Self {
            item,
            dir,
            state: Mutex::new(state),
        }
    }

    /// How it ended, if it has; the inner error is that of its attributes alone. Taken out.
    pub(super) fn outcome(&self) -> Option<io::Result<Applied>> {
        self.state.lock().outcome.take()
    }

    /// Takes it away again before it has its name.
    pub(super) fn abandon(&self) -> io::Result<()> {
        self.dir.abandon(&self.item)
    }

    fn fail(&self, why: impl ToString) {
        let mut state = self.state.lock();
        state.failure.get_or_insert_with(|| why.to_string());
    }

    fn owe(&self, pieces: usize) {
        self.state.lock().owed += pieces;
    }

    /// Opens it for writing; it is made when that is first asked for.
    fn open(&self) -> io::Result<File> {
        let mut state = self.state.lock();
        if state.is_made {
            return self.dir.open_file(&self.item);
        }
        let file = self.dir.make_file(&self.item)?;
        state.is_made = true;
        Ok(file)
    }

    /// Writes pieces of it. What cannot be is remembered. Returns how many bytes could.
    fn write(&self, pieces: &[(Piece, Bytes)]) -> u64 {
        let written = self.open().and_then(|file| {
            let lens = pieces
                .iter()
                .map(|(piece, frame)| write_piece(&file, piece, frame));
            let written = lens.sum::<io::Result<u64>>()?;
            if written >= WRITE_BACK_MIN {
                let starts = pieces.iter().map(|(piece, _)| piece.range.start);
                let ends = pieces.iter().map(|(piece, _)| piece.range.end);
                let range = starts.min().unwrap_or(0)..ends.max().unwrap_or(0);
                match sys::begin_write_back(&file, &range) {
                    Err(error) if sys::is_lost_write(&error) => return Err(error),
                    _ => {}
                }
            }
            Ok(written)
        });
        written.unwrap_or_else(|error| {
            self.fail(error);
            0
        })
    }

    /// Takes what has been done off what is owed; whether nothing is any more, so that it is to be finished.
    fn pay(&self, pieces: usize) -> bool {
        let mut state = self.state.lock();
        state.owed -= pieces;
        state.owed == 0
    }

    /// Gives the file its attributes and its name if all of it could be written, else takes it away and says why.
    fn finish(&self, xattrs: Xattrs) {
        let failure = self.state.lock().failure.take();
        let outcome = match failure {
            None => self
                .open()
                .and_then(|file| self.dir.finish_file(&self.item, &file, xattrs)),
            Some(why) => {
                // Why it failed says more than that the rest of it is still there.
                let _ = self.abandon();
                Err(io::Error::other(why))
            }
        };
        self.state.lock().outcome = Some(outcome);
    }
}

/// Makes and fills `files`. What is damaged or cannot be written is remembered with the file; only a store that cannot be reached ends
/// it, and being asked to stop. Nothing is being written any more when it returns.
pub(super) async fn fill(reading: &Reading<'_>, files: &[Arc<Pending>]) -> Result<(), Error> {
    let (mut pieces, mut empty) = (Vec::new(), Vec::new());
    for (index, pending) in files.iter().enumerate() {
        let size = pending.item.inode.size;
        let mut at = 0;
        while at < size {
            let until = (at + STRETCH).min(size);
            match reading.tree.extents(pending.item.id, at..until).await {
                Ok(extents) => {
                    let before = pieces.len();
                    let of_file = extents.into_iter();
                    pieces.extend(of_file.filter_map(|extent| piece(index, extent)));
                    pending.owe(pieces.len() - before);
                }
                Err(error) => of_one_file(pending, error)?,
            }
            at = until;
            if pieces.len() >= PIECES_AT_ONCE {
                write_pieces(reading, files, std::mem::take(&mut pieces)).await?;
            }
        }
        if pending.pay(LOOKED_UP) {
            empty.push(pending.clone());
        }
        if empty.len() >= FINISHED_AT_ONCE {
            finish(reading, std::mem::take(&mut empty)).await?;
        }
    }
    finish(reading, empty).await?;
    write_pieces(reading, files, pieces).await
}

/// A hole needs nothing: the file is made with its full size.
fn piece(file: usize, extent: Extent) -> Option<Piece> {
    match extent.contents {
        Contents::Data { place, .. } => Some(Piece {
            place,
            file,
            range: extent.range,
        }),
        Contents::Hole => None,
    }
}

/// Files of which nothing is owed any more.
async fn finish(reading: &Reading<'_>, files: Vec<Arc<Pending>>) -> Result<(), Error> {
    for files in files.chunks(FINISHED_AT_ONCE) {
        let mut jobs = Vec::with_capacity(files.len());
        for file in files {
            let xattrs = xattrs(&reading.tree, file.item.id).await?;
            jobs.push((file.clone(), xattrs));
        }
        let finish_all = move || {
            jobs.into_iter()
                .for_each(|(file, xattrs)| file.finish(xattrs))
        };
        // Only a runtime that is shutting down fails this, and a file that was not finished says so.
        let _ = tokio::task::spawn_blocking(finish_all).await;
    }
    Ok(())
}

/// Runs that have begun are let end whatever becomes of the others: what they write must not come after it has been taken away.
async fn write_pieces(
    reading: &Reading<'_>,
    files: &[Arc<Pending>],
    pieces: Vec<Piece>,
) -> Result<(), Error> {
    let ended = AtomicBool::new(false);
    let results = stream::iter(runs(pieces)).map(|run| async {
        if ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        let done = write_run(reading, files, run).await;
        ended.fetch_or(done.is_err(), Ordering::Relaxed);
        done
    });
    let results = results.buffer_unordered(RUNS_AT_ONCE);
    results
        .fold(Ok(()), async |first, result| first.and(result))
        .await
}

/// Reads the frames of one run, writes all their pieces, and finishes the files that are whole with them.
async fn write_run(
    reading: &Reading<'_>,
    files: &[Arc<Pending>],
    run: Vec<Vec<Piece>>,
) -> Result<(), Error> {
    reading.go_on()?;
    let places = run.iter().filter_map(|frame| frame.first());
    let places = places.map(|piece| piece.place.clone()).collect();
    let mut read: HashMap<_, Once> = HashMap::with_capacity(run.len());
    let fetched = reading.blocks.fetch_once(places).await;
    // Never closed; but if it were, nobody would have to wait.
    let room = reading.room.acquire().await.ok();
    for once in reading.blocks.open_once(fetched).await {
        read.insert((once.place.at.block, once.place.at.frame), once);
    }
    reading.go_on()?;
    let mut jobs: BTreeMap<usize, Job> = BTreeMap::new();
    for frame in run {
        let Some(once) = frame.first().and_then(|first| read.remove(&first.frame())) else {
            frame
                .iter()
                .for_each(|piece| files[piece.file].fail("it could not be read"));
            pay_only(&mut jobs, &frame);
            continue;
        };
        let used: u64 = frame.iter().map(Piece::len).sum();
        match &once.plain {
            Ok(plain) => {
                // What one batch uses more than once, later ones may too.
                let is_used_up = used == plain.len() as u64;
                for piece in frame {
                    let job = jobs.entry(piece.file).or_default();
                    job.pieces.push((piece, plain.clone()));
                }
                // The files to come may want the rest of it.
                if !is_used_up {
                    reading.blocks.keep(once).await;
                }
            }
            Err(error) => {
                for piece in &frame {
                    of_one_file(&files[piece.file], error.clone())?;
                }
                pay_only(&mut jobs, &frame);
            }
        }
    }
    let of_files: Vec<_> = jobs
        .into_iter()
        .map(|(file, job)| (files[file].clone(), job))
        .collect();
    let write_all = move || {
        let (mut written, mut whole) = (0, Vec::new());
        for (file, job) in of_files {
            written += file.write(&job.pieces);
            if file.pay(job.pieces.len() + job.failed) {
                whole.push(file);
            }
        }
        (written, whole)
    };
    // As above.
    let (written, whole) = tokio::task::spawn_blocking(write_all)
        .await
        .unwrap_or_default();
    drop(room);
    reading.written.fetch_add(written, Ordering::Relaxed);
    finish(reading, whole).await
}

/// What one run holds of one file.
#[derive(Default)]
struct Job {
    /// Pieces to be written, each with its frame.
    pieces: Vec<(Piece, Bytes)>,
    /// How many more there are, that cannot be had.
    failed: usize,
}

fn pay_only(jobs: &mut BTreeMap<usize, Job>, pieces: &[Piece]) {
    for piece in pieces {
        jobs.entry(piece.file).or_default().failed += 1;
    }
}

fn write_piece(file: &File, piece: &Piece, frame: &Bytes) -> io::Result<u64> {
    let inner = piece.place.at.inner as usize;
    let bytes = frame
        .get(inner..inner + piece.len() as usize)
        .ok_or_else(|| io::Error::other("the tree points beyond the end of a frame"))?;
    file.write_all_at(bytes, piece.range.start)?;
    Ok(piece.len())
}

/// Pieces by frame, and frames that lie next to each other in runs of at most [`RUN_BYTES`] and [`RUN_FRAMES`].
fn runs(mut pieces: Vec<Piece>) -> Vec<Vec<Vec<Piece>>> {
    pieces.sort_by_key(Piece::frame);
    let mut runs: Vec<Vec<Vec<Piece>>> = Vec::new();
    let mut room = 0;
    for frame in pieces.chunk_by(|a, b| a.frame() == b.frame()) {
        let cost = u64::from(frame[0].place.hint.len);
        let block = |run: &Vec<Vec<Piece>>| run[0][0].place.at.block;
        match runs.last_mut() {
            Some(run)
                if cost <= room
                    && run.len() < RUN_FRAMES
                    && block(run) == frame[0].place.at.block =>
            {
                room -= cost;
                run.push(frame.to_vec());
            }
            _ => {
                room = RUN_BYTES.saturating_sub(cost);
                runs.push(vec![frame.to_vec()]);
            }
        }
    }
    runs
}

/// Damage concerns the file it was found in; anything else ends the restore.
fn of_one_file(pending: &Pending, error: crate::repo::Error) -> Result<(), Error> {
    match error.is_damage() || matches!(error, crate::repo::Error::NotFound(_)) {
        true => {
            pending.fail(error);
            Ok(())
        }
        false => Err(error.into()),
    }
}
