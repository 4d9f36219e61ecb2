//! Which clean pages to take along, so that a logical block does not fall into too many pieces. Pure.
//!
//! A piece is an extent that was written in place: it has no content id and is shorter than [`WHOLE_LEN`]. Pieces in frames
//! of their own are *loose*: reading them costs a request each. Gathering copies the loose ones next to each other,
//! writing whole replaces all pieces of a 1 MiB range by the range itself.

use std::collections::HashSet;
use std::ops::Range;

use crate::format::entry::{Contents, Extent};

/// More loose pieces than this in one logical block are gathered.
pub(crate) const LOOSE_MAX: usize = 64;
/// The aligned stretch that is written whole when pieces cover half of it.
pub(crate) const WHOLE_LEN: u64 = 1 << 20;
/// More pieces than this never remain in one logical block.
pub(crate) const PIECES_MAX: usize = 512;

/// The clean ranges to add to `dirty` (sorted, disjoint) within the logical block `block`, clipped to the file's `size`,
/// when the parent commit holds `extents` (sorted, covering) there.
pub(crate) fn plan(
    block: Range<u64>,
    size: u64,
    extents: &[Extent],
    dirty: &[Range<u64>],
) -> Vec<Range<u64>> {
    let end = block.end.min(size);
    let pieces: Vec<&Extent> = extents.iter().filter(|e| is_piece(e)).collect();
    let dirty: Vec<Range<u64>> = clip(dirty, block.start..end);
    let mut wanted = Vec::new();
    if loose(&pieces) + dirty.len() > LOOSE_MAX {
        wanted.extend(pieces.iter().map(|p| p.range.clone()));
    }
    let mut stretches = stretches(block.start..end, &pieces, &dirty);
    for stretch in stretches.iter_mut().filter(|s| s.is_half_covered()) {
        stretch.whole = true;
    }
    // Writing the most fragmented stretches whole brings the number of pieces down fastest.
    stretches.sort_by_key(|s| std::cmp::Reverse(s.pieces));
    let mut remaining: usize = stretches
        .iter()
        .filter(|s| !s.whole)
        .map(|s| s.pieces)
        .sum();
    for stretch in stretches.iter_mut().filter(|s| !s.whole) {
        if remaining <= PIECES_MAX {
            break;
        }
        stretch.whole = true;
        remaining -= stretch.pieces;
    }
    wanted.extend(
        stretches
            .iter()
            .filter(|s| s.whole)
            .map(|s| s.range.clone()),
    );
    subtract(&union(wanted), &dirty)
}

/// Sorted, disjoint, non-empty ranges out of any.
pub(crate) fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|r| r.start < r.end);
    ranges.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The parts of `ranges` (sorted, disjoint) that lie within `bounds`.
pub(crate) fn clip(ranges: &[Range<u64>], bounds: Range<u64>) -> Vec<Range<u64>> {
    ranges
        .iter()
        .map(|r| r.start.max(bounds.start)..r.end.min(bounds.end))
        .filter(|r| r.start < r.end)
        .collect()
}

/// A 1 MiB aligned stretch and what is in it.
struct Stretch {
    range: Range<u64>,
    pieces: usize,
    covered: u64,
    whole: bool,
}

impl Stretch {
    fn is_half_covered(&self) -> bool {
        // One piece that covers the stretch, or almost, gains nothing by being written again.
        self.pieces > 1 && self.covered * 2 >= self.range.end - self.range.start
    }
}

fn stretches(bounds: Range<u64>, pieces: &[&Extent], dirty: &[Range<u64>]) -> Vec<Stretch> {
    let held: Vec<Range<u64>> = pieces.iter().map(|p| p.range.clone()).collect();
    let (mut p, mut d) = (0, 0);
    let starts = (bounds.start..bounds.end).step_by(WHOLE_LEN as usize);
    starts
        .map(|start| {
            let range = start..(start + WHOLE_LEN).min(bounds.end);
            let old = within(&held, &range, &mut p);
            let new = within(dirty, &range, &mut d);
            let count = old.len() + new.len();
            let covered = union([old, new].concat());
            Stretch {
                pieces: count,
                covered: covered.iter().map(|r| r.end - r.start).sum(),
                range,
                whole: false,
            }
        })
        .collect()
}

/// The parts of `ranges` in `stretch`; `from` remembers where the next stretch has to begin looking.
fn within(ranges: &[Range<u64>], stretch: &Range<u64>, from: &mut usize) -> Vec<Range<u64>> {
    while ranges.get(*from).is_some_and(|r| r.end <= stretch.start) {
        *from += 1;
    }
    let near = ranges[*from..].iter().take_while(|r| r.start < stretch.end);
    clip(&near.cloned().collect::<Vec<_>>(), stretch.clone())
}

fn is_piece(extent: &Extent) -> bool {
    let short = extent.range.end - extent.range.start < WHOLE_LEN;
    short && matches!(&extent.contents, Contents::Data { content: None, .. })
}

/// Frames that hold pieces: those gathered into one frame count once.
fn loose(pieces: &[&Extent]) -> usize {
    let frames: HashSet<_> = pieces
        .iter()
        .filter_map(|p| match &p.contents {
            Contents::Data { place, .. } => Some((place.at.block, place.at.frame)),
            Contents::Hole => None,
        })
        .collect();
    frames.len()
}

fn subtract(ranges: &[Range<u64>], holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    for range in ranges {
        let mut start = range.start;
        for hole in holes
            .iter()
            .filter(|h| h.start < range.end && h.end > range.start)
        {
            if start < hole.start {
                left.push(start..hole.start);
            }
            start = start.max(hole.end);
        }
        if start < range.end {
            left.push(start..range.end);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{Address, Hint, Place};
    use crate::id::{BlockClass, BlockId, ContentId, FrameNo, SessionId};

    const PAGE: u64 = 4096;
    const BLOCK: Range<u64> = 0..64 << 20;

    fn piece(range: Range<u64>, frame: u32) -> Extent {
        let block = BlockId {
            key_epoch: 1,
            class: BlockClass::Data,
            session: SessionId([1; 8]),
            number: 0,
        };
        let place = Place {
            at: Address {
                block,
                frame: FrameNo(frame),
                inner: 0,
            },
            hint: Hint {
                offset: 64,
                len: 64,
                commit: None,
            },
        };
        Extent {
            range,
            contents: Contents::Data {
                place,
                content: None,
            },
        }
    }

    fn page(n: u64) -> Range<u64> {
        n * PAGE..(n + 1) * PAGE
    }

    #[test]
    fn a_few_pieces_are_left_alone() {
        let extents: Vec<_> = (0..10).map(|n| piece(page(n * 512), n as u32)).collect();
        assert!(plan(BLOCK, 64 << 20, &extents, &[page(5)]).is_empty());
    }

    #[test]
    fn more_than_64_loose_pieces_are_gathered_but_not_again() {
        let loose: Vec<_> = (0..64).map(|n| piece(page(n * 100), n as u32)).collect();
        let wanted = plan(BLOCK, 64 << 20, &loose, &[page(7)]);
        assert_eq!(
            wanted,
            loose.iter().map(|e| e.range.clone()).collect::<Vec<_>>()
        );
        let gathered: Vec<_> = (0..64).map(|n| piece(page(n * 100), 0)).collect();
        assert!(plan(BLOCK, 64 << 20, &gathered, &[page(7)]).is_empty());
    }

    #[test]
    fn a_stretch_that_pieces_half_cover_is_written_whole_within_the_size() {
        let half = 0..WHOLE_LEN / 2 - PAGE;
        let dirty = vec![page(WHOLE_LEN / 2 / PAGE)];
        let wanted = plan(BLOCK, WHOLE_LEN - 100, &[piece(half.clone(), 0)], &dirty);
        let gaps = vec![0..dirty[0].start, dirty[0].end..WHOLE_LEN - 100];
        assert_eq!(wanted, gaps);
        assert!(plan(BLOCK, WHOLE_LEN, &[piece(0..WHOLE_LEN / 2, 0)], &[]).is_empty());
    }

    #[test]
    fn never_more_than_512_pieces_remain() {
        let pieces: Vec<_> = (0..600).map(|n| piece(page(n * 20), 0)).collect();
        let wanted = plan(BLOCK, 64 << 20, &pieces, &[]);
        let swallowed = pieces
            .iter()
            .filter(|p| wanted.iter().any(|w| w.contains(&p.range.start)))
            .count();
        assert!(600 - swallowed <= PIECES_MAX, "{swallowed}");
    }

    #[test]
    fn chunks_and_large_extents_are_no_pieces() {
        let mut chunk = piece(page(0), 0);
        if let Contents::Data { content, .. } = &mut chunk.contents {
            *content = Some(ContentId([1; 16]));
        }
        let large = piece(WHOLE_LEN..2 * WHOLE_LEN, 1);
        assert!(plan(BLOCK, 64 << 20, &[chunk, large], &[page(1)]).is_empty());
    }

    #[test]
    fn ranges_unite_and_subtract() {
        assert_eq!(union(vec![5..9, 0..2, 2..3, 8..12, 4..4]), [0..3, 5..12]);
        assert_eq!(
            subtract(&[0..10, 20..30], &[2..4, 9..22]),
            [0..2, 4..9, 22..30]
        );
        assert_eq!(clip(&[0..10, 20..30], 5..25), [5..10, 20..25]);
    }
}
