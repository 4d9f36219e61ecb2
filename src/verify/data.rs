//! Data: every byte of every object that the volume has in the store, read once and proven.
//!
//! Decides nothing about what is garbage: an object that no snapshot needs is counted, and damage in one is only noted.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::crypto;
use crate::format::directory::DirectoryEntry;
use crate::format::entry::{Address, Contents, Extent, Hint, Place};
use crate::format::frame::FrameKind;
use crate::id::{BlockClass, BlockId, ContentId, FrameNo, ObjectKey};
use crate::repo::inspect::ObjectKind;
use crate::repo::{Error as RepoError, Volume, layout};
use crate::verify::findings::Findings;
use crate::verify::references::extents_of;
use crate::verify::report::Report;
use crate::verify::structure::chain;
use crate::verify::walk::{Met, Visited, Walk};
use crate::verify::{Error, Progress, affected, go_on};

/// Objects read at a time: enough for two processors and a slow line, 40 MiB of memory.
const OBJECTS_AT_ONCE: usize = 4;
/// Stretches whose lengths and content ids are compared, kept in memory all at once: about 80 MiB.
const STRETCHES_MAX: usize = 1 << 20;

/// Reads every byte of every object of `volume` once and proves it: frames, directories, padding, headers and trailers; and that each
/// stretch of a file lies within its frame, and is the chunk that its content id names. Memory is bounded but for about 50 bytes a tree
/// page and 30 a block. Set `stop` to end early.
pub async fn data(
    volume: &Arc<Volume>,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Report, Error> {
    let mut findings = Findings::default();
    for error in volume.damaged_claims().await? {
        findings.note(volume, error)?;
    }
    let kept = chain(volume, &mut findings, progress, stop).await?;
    findings.report.objects = 0;
    let mut needs = Needs::default();
    let mut visited = Visited::new();
    let walk = Walk {
        blocks: volume.blocks(),
        stop,
        pages: &progress.pages,
        kind: None,
    };
    for found in &kept {
        needs
            .commits
            .insert(layout::commit(volume.info().id, &found.commit.name));
        let mut lost = Vec::new();
        let mut met = |met: Met| {
            match met {
                Met::Leaf(page) => extents_of(&page)
                    .0
                    .into_iter()
                    .for_each(|(_, extent)| needs.add(extent)),
                Met::Lost { error, .. } => lost.push(error),
            }
            Ok(())
        };
        walk.tree(&found.commit.tree, Some(&mut visited), &mut met)
            .await?;
        for error in lost {
            findings.note(volume, error)?;
        }
        progress.snapshots.fetch_add(1, Ordering::Relaxed);
    }
    needs.blocks.extend(visited.iter().map(|(block, _)| *block));
    findings.report.pages = visited.len() as u64;
    findings.report.stretches_not_compared = needs.left_out;
    needs
        .stretches
        .sort_unstable_by_key(|stretch| (stretch.block, stretch.frame));
    read_all(volume, needs, &mut findings, progress, stop).await?;
    affected::find(volume, &kept, &mut findings, stop).await?;
    Ok(findings.report)
}

/// What the snapshots need.
#[derive(Default)]
struct Needs {
    blocks: HashSet<BlockId>,
    commits: HashSet<ObjectKey>,
    stretches: Vec<Stretch>,
    left_out: u64,
}

/// A stretch of a file within one frame.
#[derive(Clone, Copy)]
struct Stretch {
    block: BlockId,
    frame: FrameNo,
    inner: u32,
    len: u32,
    content: Option<ContentId>,
    offset: u64,
    encrypted_len: u32,
}

impl Needs {
    fn add(&mut self, extent: Extent) {
        let Contents::Data { place, content } = extent.contents else {
            return;
        };
        self.blocks.insert(place.at.block);
        if self.stretches.len() == STRETCHES_MAX {
            self.left_out += 1;
            return;
        }
        self.stretches.push(Stretch {
            block: place.at.block,
            frame: place.at.frame,
            inner: place.at.inner,
            // Fits: data lies within one frame (`Extent::is_valid`).
            len: (extent.range.end - extent.range.start) as u32,
            content,
            offset: place.hint.offset,
            encrypted_len: place.hint.len,
        });
    }

    fn of_block(&self, block: BlockId) -> &[Stretch] {
        let from = self
            .stretches
            .partition_point(|stretch| stretch.block < block);
        let to = self
            .stretches
            .partition_point(|stretch| stretch.block <= block);
        &self.stretches[from..to]
    }

    fn of_frame(&self, block: BlockId, frame: FrameNo) -> &[Stretch] {
        let of_block = self.of_block(block);
        let from = of_block.partition_point(|stretch| stretch.frame < frame);
        let to = of_block.partition_point(|stretch| stretch.frame <= frame);
        &of_block[from..to]
    }
}

/// What reading one object came to.
struct Read {
    object: ObjectKey,
    len: u64,
    kind: ObjectKind,
    /// Whether a snapshot needs it.
    needed: bool,
    /// What is wrong beside its frames.
    whole: Result<(), RepoError>,
    /// Its blocks, as its directory names them.
    blocks: HashSet<BlockId>,
    frames: u64,
    chunks: u64,
    /// Frames that are not as they were written, or not as the tree says.
    bad: Vec<(BlockId, FrameNo, String)>,
}

async fn read_all(
    volume: &Arc<Volume>,
    needs: Needs,
    findings: &mut Findings,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let needs = Arc::new(needs);
    let mut seen: HashSet<BlockId> = HashSet::new();
    let mut reading = JoinSet::new();
    let mut after = None;
    loop {
        let page = volume.objects(after.as_ref()).await?;
        let total: u64 = page.objects.iter().map(|(_, len)| len).sum();
        progress.bytes_total.fetch_add(total, Ordering::Relaxed);
        after = page.objects.last().map(|(key, _)| key.clone());
        for (object, len) in page.objects {
            go_on(stop)?;
            while reading.len() >= OBJECTS_AT_ONCE {
                take(
                    volume,
                    reading.join_next().await,
                    &needs,
                    findings,
                    progress,
                    &mut seen,
                )
                .await?;
            }
            let (volume, needs) = (volume.clone(), needs.clone());
            reading.spawn(async move { read(&volume, object, len, &needs).await });
        }
        if !page.more || after.is_none() {
            break;
        }
    }
    while let Some(done) = reading.join_next().await {
        take(volume, Some(done), &needs, findings, progress, &mut seen).await?;
    }
    let mut missing: Vec<&Stretch> = needs
        .stretches
        .iter()
        .filter(|stretch| !seen.contains(&stretch.block))
        .collect();
    missing.dedup_by_key(|stretch| stretch.block);
    for stretch in missing {
        let Some(object) = layout::block(volume.info().id, stretch.block) else {
            continue;
        };
        let at = findings.note(volume, RepoError::Missing { object })?;
        findings.lose_block(stretch.block, at);
    }
    Ok(())
}

/// Reads one object whole.
async fn read(
    volume: &Volume,
    object: ObjectKey,
    len: u64,
    needs: &Needs,
) -> Result<Read, RepoError> {
    let kind = volume.kind_of(&object);
    let mut read = Read {
        needed: needs.commits.contains(&object)
            || matches!(kind, ObjectKind::Claim | ObjectKind::Lease),
        object,
        len,
        kind,
        whole: Ok(()),
        blocks: HashSet::new(),
        frames: 0,
        chunks: 0,
        bad: Vec::new(),
    };
    if let ObjectKind::Block(_) = kind {
        let object = read.object.clone();
        let proven = volume
            .prove_block(&object, len, |entry, plain| {
                read.frame(volume, needs, entry, plain)
            })
            .await;
        match proven {
            Ok(directory) => read
                .blocks
                .extend(directory.entries().iter().map(|entry| entry.block)),
            Err(error) if error.is_damage() || matches!(error, RepoError::NewerFormat { .. }) => {
                read.whole = Err(error)
            }
            Err(error) => return Err(error),
        }
        if let Some(id) = read.id(volume, needs) {
            read.blocks.insert(id);
        }
        read.needed |= read.blocks.iter().any(|block| needs.blocks.contains(block));
    }
    Ok(read)
}

impl Read {
    fn frame(
        &mut self,
        volume: &Volume,
        needs: &Needs,
        entry: &DirectoryEntry,
        plain: Result<Vec<u8>, crypto::Error>,
    ) {
        let (block, frame) = (entry.block, entry.place.frame);
        let wrong = match plain {
            Err(why) => Some(why.to_string()),
            Ok(plain) => {
                self.frames += 1;
                needs.of_frame(block, frame).iter().find_map(|stretch| {
                    match misfit(volume, stretch, &plain) {
                        Some(why) => Some(why),
                        None => {
                            self.chunks += u64::from(stretch.content.is_some());
                            None
                        }
                    }
                })
            }
        };
        if let Some(why) = wrong {
            self.bad
                .push((block, frame, format!("frame {frame}: {why}")));
        }
    }

    /// The block that the object is named as, as far as its name tells: the key epoch is taken from what needs it.
    fn id(&self, volume: &Volume, needs: &Needs) -> Option<BlockId> {
        let (class, session, number) = layout::parse_block(volume.info().id, &self.object)?;
        let newest = volume.keys().key_epoch();
        let ids = (0..=newest).rev().map(|key_epoch| BlockId {
            key_epoch,
            class,
            session,
            number,
        });
        ids.into_iter().find(|id| needs.blocks.contains(id))
    }
}

/// What is wrong with a stretch of a frame that is whole in itself.
fn misfit(volume: &Volume, stretch: &Stretch, plain: &[u8]) -> Option<String> {
    let (from, len) = (stretch.inner as usize, stretch.len as usize);
    let Some(bytes) = plain.get(from..from + len) else {
        return Some(format!(
            "it has {} bytes where a file needs {len} from {from} on",
            plain.len()
        ));
    };
    let wanted = stretch.content?;
    (volume.keys().content_id(bytes) != wanted)
        .then(|| "a chunk in it is not the one that its content id names".to_owned())
}

/// Takes what came of one object into the report.
async fn take(
    volume: &Volume,
    done: Option<Result<Result<Read, RepoError>, tokio::task::JoinError>>,
    needs: &Needs,
    findings: &mut Findings,
    progress: &Progress,
    seen: &mut HashSet<BlockId>,
) -> Result<(), Error> {
    let read = match done {
        None => return Ok(()),
        Some(Ok(read)) => read?,
        Some(Err(failed)) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => return Err(Error::Interrupted),
        },
    };
    progress.objects.fetch_add(1, Ordering::Relaxed);
    progress.bytes.fetch_add(read.len, Ordering::Relaxed);
    let report = &mut findings.report;
    report.objects += 1;
    report.bytes += read.len;
    report.frames += read.frames;
    report.chunks += read.chunks;
    seen.extend(&read.blocks);
    if read.kind == ObjectKind::Unknown {
        report.add_note(format!("{}: not a name of this version", read.object));
        return Ok(());
    }
    // A commit that cannot be read needs nothing, but is needed itself: the chain has found it wanting.
    if !read.needed && !findings.concern(&read.object) {
        let report = &mut findings.report;
        report.unreferenced_objects += 1;
        report.unreferenced_bytes += read.len;
        let wrong = read.whole.err().map(|error| error.to_string());
        let wrong = wrong
            .into_iter()
            .chain(read.bad.into_iter().map(|(_, _, why)| why));
        wrong.for_each(|why| {
            report.add_note(format!("{}, which no snapshot needs: {why}", read.object))
        });
        return Ok(());
    }
    for (block, frame, why) in read.bad {
        let object = read.object.clone();
        let at = findings.note(volume, RepoError::Damaged { object, why })?;
        findings.lose_frame(block, frame, at);
    }
    if let Err(error) = read.whole {
        let at = findings.note(volume, error)?;
        for id in &read.blocks {
            lose_unreadable(volume, &read.object, needs.of_block(*id), at, findings).await?;
        }
    }
    Ok(())
}

/// Something beside the frames is damaged, so that they could not all be looked at in order: each is tried by its address, as a reader
/// would.
async fn lose_unreadable(
    volume: &Volume,
    object: &ObjectKey,
    stretches: &[Stretch],
    at: Option<usize>,
    findings: &mut Findings,
) -> Result<(), Error> {
    for of_frame in stretches.chunk_by(|a, b| a.frame == b.frame) {
        let first = of_frame[0];
        let place = Place {
            at: Address {
                block: first.block,
                frame: first.frame,
                inner: first.inner,
            },
            hint: Hint {
                offset: first.offset,
                len: first.encrypted_len,
                commit: layout::parse_commit(volume.info().id, object)
                    .filter(|_| first.block.class == BlockClass::Commit),
            },
        };
        match volume.blocks().frame(&place, FrameKind::Data).await {
            Ok(_) => {}
            Err(error) if error.is_damage() => findings.lose_frame(first.block, first.frame, at),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
