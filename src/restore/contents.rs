//! The contents of many files at once, in the order in which they lie in the store: each frame is fetched once, however many
//! files it holds parts of.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::{self, TryStreamExt};
use parking_lot::Mutex;

use crate::format::entry::{Contents, Extent, Place};
use crate::format::frame::FrameKind;
use crate::repo::Error;
use crate::repo::blocks::Blocks;
use crate::repo::tree::Tree;
use crate::restore::plan::Item;
use crate::restore::target::{Dir, Xattrs};

/// Bytes of a file whose extents are looked up at once: bounds memory for a file with millions of them.
const STRETCH: u64 = 1 << 30;
/// Pieces gathered before they are written.
const PIECES_AT_ONCE: usize = 16 << 10;
/// Bytes of neighbouring frames asked for together: one ranged GET.
const RUN_BYTES: u64 = 8 << 20;
/// Runs in flight: enough to fill a fast line, 64 MiB of memory.
const RUNS_AT_ONCE: usize = 8;

/// A file that has been made and is being filled.
pub(super) struct Pending {
    pub(super) item: Item,
    dir: Arc<Dir>,
    file: Arc<File>,
    failure: Mutex<Option<String>>,
}

/// Bytes of one frame that belong into one file.
#[derive(Clone, Debug)]
struct Piece {
    place: Place,
    /// Index into the pending files.
    file: usize,
    range: Range<u64>,
}

impl Pending {
    pub(super) fn new(item: Item, dir: Arc<Dir>, file: File) -> Self {
        Self {
            item,
            dir,
            file: Arc::new(file),
            failure: Mutex::default(),
        }
    }

    /// Gives the file its attributes and its name if all of it could be written, else takes it away and says why.
    pub(super) fn finish(&self, xattrs: Xattrs) -> io::Result<()> {
        match self.failure.lock().take() {
            None => self.dir.finish_file(&self.item, &self.file, xattrs),
            Some(why) => {
                // Why it failed says more than that the rest of it is still there.
                let _ = self.abandon();
                Err(io::Error::other(why))
            }
        }
    }

    /// Takes the file away again.
    pub(super) fn abandon(&self) -> io::Result<()> {
        self.dir.abandon(&self.item)
    }

    fn fail(&self, why: impl ToString) {
        self.failure.lock().get_or_insert_with(|| why.to_string());
    }
}

/// Fills `files`. What is damaged or cannot be written is remembered with the file; only a store that cannot be reached ends
/// it.
pub(super) async fn write(
    tree: &Tree<Arc<Blocks>>,
    blocks: &Arc<Blocks>,
    files: &[Pending],
    written: &AtomicU64,
) -> Result<(), Error> {
    let mut pieces = Vec::new();
    for (index, pending) in files.iter().enumerate() {
        let size = pending.item.inode.size;
        let mut at = 0;
        while at < size {
            let until = (at + STRETCH).min(size);
            match tree.extents(pending.item.id, at..until).await {
                Ok(extents) => pieces.extend(
                    extents
                        .into_iter()
                        .filter_map(|extent| piece(index, extent)),
                ),
                Err(error) => of_one_file(pending, error)?,
            }
            at = until;
            if pieces.len() >= PIECES_AT_ONCE {
                write_pieces(blocks, files, std::mem::take(&mut pieces), written).await?;
            }
        }
    }
    write_pieces(blocks, files, pieces, written).await
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
    blocks: &Arc<Blocks>,
    files: &[Pending],
    pieces: Vec<Piece>,
    written: &AtomicU64,
) -> Result<(), Error> {
    stream::iter(runs(pieces).into_iter().map(Ok))
        .try_for_each_concurrent(RUNS_AT_ONCE, |run| async move {
            if run.len() > 1 {
                let places = run
                    .iter()
                    .filter_map(|frame| frame.first())
                    .map(|piece| piece.place.clone());
                blocks.prefetch_best_effort(places.collect()).await;
            }
            for frame in run {
                write_frame(blocks, files, frame, written).await?;
            }
            Ok(())
        })
        .await
}

/// Writes all pieces of one frame.
async fn write_frame(
    blocks: &Blocks,
    files: &[Pending],
    pieces: Vec<Piece>,
    written: &AtomicU64,
) -> Result<(), Error> {
    let Some(first) = pieces.first() else {
        return Ok(());
    };
    let bytes = match blocks.frame(&first.place, FrameKind::Data).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let why = error.to_string();
            of_one_file(&files[first.file], error)?;
            pieces.iter().for_each(|piece| files[piece.file].fail(&why));
            return Ok(());
        }
    };
    let concerned: Vec<usize> = pieces.iter().map(|piece| piece.file).collect();
    let jobs: Vec<(Arc<File>, Piece)> = pieces
        .into_iter()
        .map(|piece| (files[piece.file].file.clone(), piece))
        .collect();
    let done = tokio::task::spawn_blocking(move || {
        jobs.into_iter()
            .map(|(file, piece)| (piece.file, write_piece(&file, &piece, &bytes)))
            .collect::<Vec<_>>()
    });
    let done = match done.await {
        Ok(done) => done,
        Err(stopped) => {
            concerned
                .into_iter()
                .for_each(|file| files[file].fail(&stopped));
            return Ok(());
        }
    };
    for (file, result) in done {
        match result {
            Ok(len) => {
                written.fetch_add(len, Ordering::Relaxed);
            }
            Err(error) => files[file].fail(error),
        }
    }
    Ok(())
}

fn write_piece(file: &File, piece: &Piece, frame: &Bytes) -> io::Result<u64> {
    let len = piece.range.end - piece.range.start;
    let inner = piece.place.at.inner as usize;
    let bytes = frame
        .get(inner..inner + len as usize)
        .ok_or_else(|| io::Error::other("the tree points beyond the end of a frame"))?;
    file.write_all_at(bytes, piece.range.start)?;
    Ok(len)
}

/// Pieces by frame, and frames that lie next to each other in runs of at most [`RUN_BYTES`].
fn runs(mut pieces: Vec<Piece>) -> Vec<Vec<Vec<Piece>>> {
    let frame = |piece: &Piece| (piece.place.at.block, piece.place.at.frame);
    pieces.sort_by_key(frame);
    let mut runs: Vec<Vec<Vec<Piece>>> = Vec::new();
    let mut room = 0;
    for piece in pieces {
        let last = runs
            .last()
            .and_then(|run| run.last())
            .and_then(|frame| frame.first());
        let same_block = last.is_some_and(|last| last.place.at.block == piece.place.at.block);
        let same_frame = last.is_some_and(|last| frame(last) == frame(&piece));
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
fn of_one_file(pending: &Pending, error: Error) -> Result<(), Error> {
    match error.is_damage() || matches!(error, Error::NotFound(_)) {
        true => {
            pending.fail(error);
            Ok(())
        }
        false => Err(error),
    }
}
