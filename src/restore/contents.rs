//! The contents of many files at once, in the order in which they lie in the store: each frame is fetched once, however many
//! files it holds parts of. Then each file gets its attributes and its name, several at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::stream::{self, TryStreamExt};
use parking_lot::Mutex;

use crate::format::entry::{Contents, Extent, Place};
use crate::id::{BlockId, FrameNo};
use crate::repo::blocks::Once;
use crate::restore::plan::Item;
use crate::restore::target::{Dir, Xattrs};
use crate::restore::{Error, Reading, xattrs};

/// Bytes of a file whose extents are looked up at once: bounds memory for a file with millions of them.
const STRETCH: u64 = 1 << 30;
/// Pieces gathered before they are written.
const PIECES_AT_ONCE: usize = 16 << 10;
/// Bytes of neighbouring frames asked for together: one ranged GET.
const RUN_BYTES: u64 = 4 << 20;
/// Runs in flight: enough to fill a fast line that takes 50 ms to answer. Encrypted and plain they are 96 MiB of memory at most.
const RUNS_AT_ONCE: usize = 12;
/// Files without contents that are given their names together.
const FINISHED_AT_ONCE: usize = 64;

/// A file that has been made and is being filled.
pub(super) struct Pending {
    pub(super) item: Item,
    dir: Arc<Dir>,
    file: Arc<File>,
    /// Pieces not written yet, and one for as long as its extents are being looked up.
    owed: AtomicUsize,
    failure: Mutex<Option<String>>,
    finished: Mutex<Option<io::Result<()>>>,
}

/// Bytes of one frame that belong into one file.
#[derive(Clone, Debug)]
struct Piece {
    place: Place,
    /// Index into the pending files.
    file: usize,
    range: Range<u64>,
}

/// What looking up a file's extents counts for among the pieces that it owes.
const LOOKED_UP: usize = 1;

/// A frame by name.
type Frame = (BlockId, FrameNo);

impl Piece {
    fn frame(&self) -> Frame {
        (self.place.at.block, self.place.at.frame)
    }

    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Pending {
    pub(super) fn new(item: Item, dir: Arc<Dir>, file: File) -> Self {
        Self {
            item,
            dir,
            file: Arc::new(file),
            owed: AtomicUsize::new(LOOKED_UP),
            failure: Mutex::default(),
            finished: Mutex::default(),
        }
    }

    fn owe(&self, pieces: usize) {
        self.owed.fetch_add(pieces, Ordering::Relaxed);
    }

    /// Takes what has been done off what is owed; whether nothing is any more.
    fn pay(&self, pieces: usize) -> bool {
        self.owed.fetch_sub(pieces, Ordering::AcqRel) == pieces
    }

    /// How it ended, once [`fill`] has; taken out.
    pub(super) fn outcome(&self) -> io::Result<()> {
        let outcome = self.finished.lock().take();
        outcome.unwrap_or_else(|| Err(io::Error::other("it was not finished")))
    }

    /// Gives the file its attributes and its name if all of it could be written, else takes it away and says why.
    fn finish(&self, xattrs: Xattrs) {
        let failure = self.failure.lock().take();
        let outcome = match failure {
            None => self.dir.finish_file(&self.item, &self.file, xattrs),
            Some(why) => {
                // Why it failed says more than that the rest of it is still there.
                let _ = self.abandon();
                Err(io::Error::other(why))
            }
        };
        *self.finished.lock() = Some(outcome);
    }

    /// Takes the file away again, unless it has its name already.
    pub(super) fn abandon(&self) -> io::Result<()> {
        self.dir.abandon(&self.item)
    }

    fn fail(&self, why: impl ToString) {
        self.failure.lock().get_or_insert_with(|| why.to_string());
    }
}

/// Fills `files` and finishes each when its last byte is written. What is damaged or cannot be written is remembered with the file; only
/// a store that cannot be reached ends it, and being asked to stop.
pub(super) async fn fill(reading: &Reading<'_>, files: &[Arc<Pending>]) -> Result<(), Error> {
    let (mut pieces, mut without) = (Vec::new(), Vec::new());
    for (index, pending) in files.iter().enumerate() {
        let size = pending.item.inode.size;
        let mut at = 0;
        while at < size {
            let until = (at + STRETCH).min(size);
            match reading.tree.extents(pending.item.id, at..until).await {
                Ok(extents) => {
                    let before = pieces.len();
                    pieces.extend(
                        extents
                            .into_iter()
                            .filter_map(|extent| piece(index, extent)),
                    );
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
            without.push(pending.clone());
        }
        if without.len() >= FINISHED_AT_ONCE {
            finish(reading, std::mem::take(&mut without)).await?;
        }
    }
    finish(reading, without).await?;
    write_pieces(reading, files, pieces).await
}

async fn finish(reading: &Reading<'_>, files: Vec<Arc<Pending>>) -> Result<(), Error> {
    if files.is_empty() {
        return Ok(());
    }
    reading.go_on()?;
    let mut jobs = Vec::with_capacity(files.len());
    for file in files {
        let xattrs = xattrs(&reading.tree, file.item.id).await?;
        jobs.push((file, xattrs));
    }
    let finished = tokio::task::spawn_blocking(move || {
        for (file, xattrs) in jobs {
            file.finish(xattrs);
        }
    });
    // A file that was not finished says so.
    let _ = finished.await;
    Ok(())
}

/// A hole needs nothing: the file was made with its full size.
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

async fn write_pieces(
    reading: &Reading<'_>,
    files: &[Arc<Pending>],
    pieces: Vec<Piece>,
) -> Result<(), Error> {
    stream::iter(runs(pieces).into_iter().map(Ok))
        .try_for_each_concurrent(RUNS_AT_ONCE, |run| write_run(reading, files, run))
        .await
}

/// Reads the frames of one run and writes all their pieces.
async fn write_run(
    reading: &Reading<'_>,
    files: &[Arc<Pending>],
    run: Vec<Vec<Piece>>,
) -> Result<(), Error> {
    reading.go_on()?;
    let mut paid: BTreeMap<usize, usize> = BTreeMap::new();
    for piece in run.iter().flatten() {
        *paid.entry(piece.file).or_default() += 1;
    }
    let mut wanted: HashMap<Frame, Vec<Piece>> = HashMap::with_capacity(run.len());
    let mut places = Vec::with_capacity(run.len());
    for frame in run {
        if let Some(first) = frame.first() {
            places.push(first.place.clone());
            wanted.insert(first.frame(), frame);
        }
    }
    let mut jobs = Vec::new();
    for once in reading.blocks.read_once(places).await {
        let frame = (once.place.at.block, once.place.at.frame);
        let Some(pieces) = wanted.remove(&frame) else {
            continue;
        };
        match &once.plain {
            Ok(plain) => {
                let of_files = pieces.into_iter().map(|piece| {
                    let file = files[piece.file].clone();
                    (file, piece)
                });
                jobs.push((plain.clone(), of_files.collect::<Vec<_>>()));
                keep_the_rest(reading, once, &jobs[jobs.len() - 1].1).await;
            }
            Err(error) => {
                for piece in &pieces {
                    of_one_file(&files[piece.file], error.clone())?;
                }
            }
        }
    }
    for piece in wanted.into_values().flatten() {
        files[piece.file].fail("it could not be read");
    }
    let concerned: Vec<_> = jobs.iter().flat_map(|(_, pieces)| pieces.clone()).collect();
    let done = tokio::task::spawn_blocking(move || {
        let mut written = 0;
        for (plain, pieces) in jobs {
            for (file, piece) in pieces {
                match write_piece(&file.file, &piece, &plain) {
                    Ok(len) => written += len,
                    Err(error) => file.fail(error),
                }
            }
        }
        written
    });
    match done.await {
        Ok(written) => drop(reading.progress.bytes.fetch_add(written, Ordering::Relaxed)),
        Err(stopped) => {
            for (file, _) in concerned {
                file.fail(&stopped);
            }
        }
    }
    let done = paid
        .into_iter()
        .map(|(file, pieces)| (&files[file], pieces));
    let done = done.filter(|(file, pieces)| file.pay(*pieces));
    let done = done.map(|(file, _)| file.clone()).collect();
    finish(reading, done).await
}

/// A frame that holds more than these pieces is kept: the files to come may want the rest of it.
async fn keep_the_rest(reading: &Reading<'_>, once: Once, pieces: &[(Arc<Pending>, Piece)]) {
    let used: u64 = pieces.iter().map(|(_, piece)| piece.len()).sum();
    if once
        .plain
        .as_ref()
        .is_ok_and(|plain| used < plain.len() as u64)
    {
        reading.blocks.keep(once).await;
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

/// Pieces by frame, and frames that lie next to each other in runs of at most [`RUN_BYTES`].
fn runs(mut pieces: Vec<Piece>) -> Vec<Vec<Vec<Piece>>> {
    pieces.sort_by_key(Piece::frame);
    let mut runs: Vec<Vec<Vec<Piece>>> = Vec::new();
    let mut room = 0;
    for piece in pieces {
        let last = runs
            .last()
            .and_then(|run| run.last())
            .and_then(|frame| frame.first());
        let same_block = last.is_some_and(|last| last.place.at.block == piece.place.at.block);
        let same_frame = last.is_some_and(|last| last.frame() == piece.frame());
        let len = u64::from(piece.place.hint.len);
        if same_frame {
            runs.last_mut()
                .and_then(|run| run.last_mut())
                .into_iter()
                .for_each(|frame| frame.push(piece.clone()));
        } else if same_block && len <= room {
            room -= len;
            runs.last_mut()
                .into_iter()
                .for_each(|run| run.push(vec![piece.clone()]));
        } else {
            room = RUN_BYTES.saturating_sub(len);
            runs.push(vec![vec![piece]]);
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
