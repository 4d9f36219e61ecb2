//! What several layers say together: newer hides older, by key, by range for extents, by prefix for range
//! tombstones. Pure: it is shown the next entry of each layer and answers what to do with them, so that reading,
//! merging runs and updating the base all follow the same rules.

use std::ops::Range;

use crate::format::entry::Extent;
use crate::format::key::extent_key;
use crate::format::page::Op;
use crate::id::FileId;
use crate::repo::tree::Error;
use crate::repo::tree::cursor::Head;

/// What becomes of entries that say that something is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Absence {
    /// Kept: there are older layers in which they hide something.
    Kept,
    /// Dropped: nothing older is left, absence says the same.
    Dropped,
}

/// What to do next. Layers are counted from the oldest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// This layer's entry is the next one of all; then past it.
    Take(usize),
    /// The next one is this part of this layer's extent; the layer stays where it is.
    Cut(usize, Range<u64>),
    /// This layer's entry is hidden or means nothing more: past it.
    Skip(usize),
    /// All layers are at their end.
    End,
}

/// The state between steps.
pub(super) struct Overlay {
    absence: Absence,
    /// Keys with this prefix are hidden in layers older than this.
    shadow: Option<(Vec<u8>, usize)>,
    /// The file whose extents are under way, and up to where it has been said what it holds.
    sweep: Option<(FileId, u64)>,
}

impl Overlay {
    pub(super) fn new(absence: Absence) -> Self {
        Self {
            absence,
            shadow: None,
            sweep: None,
        }
    }

    /// Begins within a file: what lies before `start` is not wanted.
    pub(super) fn starting_within(absence: Absence, id: FileId, start: u64) -> Self {
        Self {
            sweep: Some((id, start)),
            ..Self::new(absence)
        }
    }

    /// Whether entries of older layers that begin with `key` may still be hidden by a range tombstone.
    pub(super) fn shadows(&self, key: &[u8]) -> bool {
        self.shadow
            .as_ref()
            .is_some_and(|(prefix, _)| key.starts_with(prefix))
    }

    /// What to do, given the next entry of each layer (`None` at its end).
    pub(super) fn step(&mut self, heads: &[Option<Head<'_>>]) -> Result<Step, Error> {
        // The smallest key; among equals the oldest layer, which is hidden by the others.
        let mut first: Option<(usize, &[u8])> = None;
        let mut newest = 0;
        for (layer, head) in heads.iter().enumerate() {
            let Some(head) = head else { continue };
            match first.map(|(_, key)| head.key.cmp(key)) {
                None | Some(std::cmp::Ordering::Less) => {
                    first = Some((layer, head.key));
                    newest = layer;
                }
                Some(std::cmp::Ordering::Equal) => newest = layer,
                Some(std::cmp::Ordering::Greater) => {}
            }
        }
        let Some((oldest, key)) = first else {
            return Ok(Step::End);
        };
        if let Some((id, _)) = extent_key(key) {
            return self.extent_step(id, heads);
        }
        if oldest != newest {
            return Ok(Step::Skip(oldest));
        }
        let op = heads[newest].map_or(Op::Put, |head| head.op);
        Ok(self.key_step(newest, key, op))
    }

    fn key_step(&mut self, layer: usize, key: &[u8], op: Op) -> Step {
        if self
            .shadow
            .as_ref()
            .is_some_and(|(prefix, under)| layer < *under && key.starts_with(prefix))
        {
            return Step::Skip(layer);
        }
        if op == Op::RangeTombstone {
            self.shadow = Some((key.to_vec(), layer));
        }
        match (op, self.absence) {
            (Op::Put, _) | (_, Absence::Kept) => Step::Take(layer),
            (_, Absence::Dropped) => Step::Skip(layer),
        }
    }

    /// One step over the extents of file `id`: the newest layer with something at the sweep's position is seen
    /// there, up to its end or to where a newer one begins.
    fn extent_step(&mut self, id: FileId, heads: &[Option<Head<'_>>]) -> Result<Step, Error> {
        let mut at = match self.sweep {
            Some((file, at)) if file == id => at,
            _ => 0,
        };
        loop {
            let mut seen: Option<(usize, Range<u64>, bool)> = None;
            // Where a layer begins that is newer than the one seen, or any if none is seen.
            let mut next_start = u64::MAX;
            for (layer, head) in heads.iter().enumerate().rev() {
                let Some(head) = head else { continue };
                let Some((_, end)) = extent_key(head.key).filter(|(file, _)| *file == id) else {
                    continue;
                };
                let (range, hole) = Extent::span(end, head.value)?;
                if end <= at {
                    return Ok(Step::Skip(layer));
                }
                if range.start <= at {
                    seen = seen.or(Some((layer, range, hole)));
                } else if seen.is_none() {
                    next_start = next_start.min(range.start);
                }
            }
            let Some((layer, range, hole)) = seen else {
                at = next_start;
                continue;
            };
            let part = at..range.end.min(next_start);
            at = part.end;
            self.sweep = Some((id, at));
            if hole && self.absence == Absence::Dropped {
                continue;
            }
            return Ok(match part == range {
                true => Step::Take(layer),
                false => Step::Cut(layer, part),
            });
        }
    }
}
