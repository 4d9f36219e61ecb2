//! What leaves point to: that each object is there, is long enough, and lists each frame that is asked of it.
//!
//! Frames are gathered and looked up block by block, so that a block's directory is read once a batch and memory is bounded.

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt};

use crate::format::block::{HEADER_LEN, TRAILER_LEN};
use crate::format::directory::Directory;
use crate::format::entry::{Contents, Extent, Place};
use crate::format::key::{Key, is_entry_name, is_malformed, name_key};
use crate::format::page::{Op, Page};
use crate::id::{BlockId, FrameNo};
use crate::repo;
use crate::repo::blocks::Blocks;
use crate::repo::{Error as RepoError, Volume};
use crate::verify::Error;
use crate::verify::findings::Findings;

/// Frames gathered before they are looked up: about 20 MiB.
const FRAMES_AT_ONCE: usize = 256 << 10;
/// Directories read at a time.
const DIRECTORIES_AT_ONCE: usize = 16;

/// Every extent of a leaf that points to data, in order; what is wrong with entries that cannot be read or overlap.
pub(super) fn extents_of(page: &Page) -> (Vec<(u64, Extent)>, Vec<String>) {
    let (mut extents, mut wrong) = (Vec::new(), Vec::new());
    let mut last: Option<(u64, u64)> = None;
    for i in 0..page.len() {
        let key = page.key(i);
        let (Op::Put, Some(Key::Extent(id, end))) = (page.op(i), Key::parse(&key)) else {
            continue;
        };
        match Extent::decode(end, page.value(i)) {
            Ok(extent) => {
                if last.is_some_and(|(file, before)| file == id.0 && extent.range.start < before) {
                    wrong.push(format!(
                        "extents of inode {id} overlap at byte {}",
                        extent.range.start
                    ));
                }
                last = Some((id.0, extent.range.end));
                if extent.contents != Contents::Hole {
                    extents.push((id.0, extent));
                }
            }
            Err(error) => wrong.push(format!("an extent of inode {id} cannot be read: {error}")),
        }
    }
    (extents, wrong)
}

/// What is wrong with the keys of a leaf, which only a broken writer can have written: names that would lead out of their directory,
/// keys of no known form.
pub(super) fn unsound_keys(page: &Page) -> Vec<String> {
    let keys = (0..page.len()).filter(|&i| page.op(i) == Op::Put);
    let unsound = keys.filter_map(|i| {
        let key = page.key(i);
        match name_key(&key) {
            Some((dir, name)) if !is_entry_name(name) => Some(format!(
                "{:?} in directory {dir} cannot be a name; it is passed over",
                String::from_utf8_lossy(name)
            )),
            Some(_) => None,
            None => is_malformed(&key).then(|| format!("there is no such key as {key:02x?}")),
        }
    });
    unsound.collect()
}

/// References gathered and not yet looked up.
#[derive(Default)]
pub(super) struct References {
    seen: HashSet<(BlockId, FrameNo)>,
    waiting: Vec<Place>,
}

impl References {
    /// Takes note of what an extent points to.
    pub(super) fn add(&mut self, extent: &Extent) {
        if let Contents::Data { place, .. } = &extent.contents
            && self.seen.insert((place.at.block, place.at.frame))
        {
            self.waiting.push(place.clone());
        }
    }

    /// Whether it is time for [`Self::look_up`].
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= FRAMES_AT_ONCE
    }

    /// Looks up all that waits. A frame that is asked for again later is looked up again.
    pub(super) async fn look_up(
        &mut self,
        volume: &Volume,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        self.seen.clear();
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|place| (place.at.block, place.at.frame));
        let by_block: Vec<Vec<Place>> = waiting
            .chunk_by(|a, b| a.at.block == b.at.block)
            .map(<[_]>::to_vec)
            .collect();
        let blocks: &Arc<Blocks> = volume.blocks();
        let mut directories = stream::iter(by_block.into_iter().map(|places| async move {
            let directory = match places.first() {
                Some(first) => Some(blocks.directory(first).await),
                None => None,
            };
            (places, directory)
        }))
        .buffer_unordered(DIRECTORIES_AT_ONCE);
        while let Some((places, directory)) = directories.next().await {
            findings.report.objects += 1;
            match directory {
                Some(Ok(directory)) => compare(volume, &directory, &places, findings)?,
                Some(Err(error)) => lose(volume, error, &places, findings).await?,
                None => {}
            }
        }
        Ok(())
    }
}

/// Compares what is asked of a block with what it has.
fn compare(
    volume: &Volume,
    directory: &Directory,
    places: &[Place],
    findings: &mut Findings,
) -> Result<(), Error> {
    let mut ends = Vec::with_capacity(places.len());
    for place in places {
        let entries = directory.entries();
        let guess = entries.get(place.at.frame.0 as usize);
        let fits = |entry: &&crate::format::directory::DirectoryEntry| {
            entry.block == place.at.block && entry.place.frame == place.at.frame
        };
        match guess.filter(fits).or_else(|| entries.iter().find(fits)) {
            Some(entry) => {
                findings.report.frames += 1;
                let is_there =
                    entry.place.offset == place.hint.offset && entry.place.len == place.hint.len;
                if !is_there {
                    ends.push(place.at.frame);
                }
            }
            None => {
                let object = volume.blocks().object(place)?;
                let why = format!(
                    "frame {}: it is not in the object's directory",
                    place.at.frame
                );
                let at = findings.note(volume, RepoError::Damaged { object, why })?;
                findings.lose_frame(place.at.block, place.at.frame, at);
            }
        }
    }
    if let (Some(frame), Some(first)) = (ends.first(), places.first()) {
        let object = volume.blocks().object(first)?;
        let note = format!(
            "{object}: {} frames, {frame} the first, lie elsewhere than their addresses say; they are found by the directory",
            ends.len()
        );
        findings.report.add_note(note);
    }
    Ok(())
}

/// The directory cannot be read. What lies within the object may still be read by its address; what lies beyond its end, or in an
/// object that is gone, cannot.
async fn lose(
    volume: &Volume,
    error: repo::Error,
    places: &[Place],
    findings: &mut Findings,
) -> Result<(), Error> {
    let missing = matches!(error, RepoError::Missing { .. });
    let at = findings.note(volume, error)?;
    let Some(first) = places.first() else {
        return Ok(());
    };
    if missing {
        findings.lose_block(first.at.block, at);
        return Ok(());
    }
    let Ok(object) = volume.blocks().object(first) else {
        findings.lose_block(first.at.block, at);
        return Ok(());
    };
    let len = volume.object_len(&object).await?.unwrap_or(0);
    for place in places {
        let end = place.hint.offset.saturating_add(place.hint.len.into());
        if end > len || len < HEADER_LEN + TRAILER_LEN {
            findings.lose_frame(place.at.block, place.at.frame, at);
        }
    }
    Ok(())
}
