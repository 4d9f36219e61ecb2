//! Damage as it is found, each thing once, with the frames that it takes away: what [`affected`](super::affected) then looks for.

use std::collections::{HashMap, HashSet};

use crate::id::{BlockId, FrameNo, ObjectKey};
use crate::repo::tree::Error as TreeError;
use crate::repo::{Error, Volume, layout};
use crate::verify;
use crate::verify::report::{Damage, Report};

/// A report in the making.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) report: Report,
    known: HashSet<(String, String)>,
    /// Frames that cannot be read, by what of the report's damage takes them away.
    frames: HashMap<(BlockId, FrameNo), usize>,
    /// Blocks of which nothing can be read.
    blocks: HashMap<BlockId, usize>,
    /// What tree pages are not readable for, by object and reason.
    objects: HashMap<String, usize>,
}

impl Findings {
    /// Lists `error` as damage; where it is none but a store that cannot be reached, it ends the check. Says where in the report
    /// it stands, `None` if the list is full.
    pub(super) fn note(
        &mut self,
        volume: &Volume,
        error: Error,
    ) -> Result<Option<usize>, verify::Error> {
        if !error.is_damage() && !matches!(error, Error::NewerFormat { .. }) {
            return Err(error.into());
        }
        let (object, what) = describe(volume, &error);
        Ok(self.add(object, what))
    }

    /// Lists damage in words of our own.
    pub(super) fn add(&mut self, object: String, what: String) -> Option<usize> {
        if !self.known.insert((object.clone(), what.clone())) {
            return self
                .report
                .damage
                .iter()
                .position(|one| one.object == object && one.what == what);
        }
        let at = self.report.damage.len();
        self.objects.entry(object.clone()).or_insert(at);
        self.report.add_damage(Damage {
            object,
            what,
            ..Damage::default()
        });
        (self.report.damage.len() > at).then_some(at)
    }

    /// Whether anything is wrong with this object.
    pub(super) fn concern(&self, object: &ObjectKey) -> bool {
        self.objects.contains_key(object.as_str())
    }

    /// One frame is lost to damage `at`.
    pub(super) fn lose_frame(&mut self, block: BlockId, frame: FrameNo, at: Option<usize>) {
        if let Some(at) = at {
            self.frames.entry((block, frame)).or_insert(at);
        }
    }

    /// All of a block is lost to damage `at`.
    pub(super) fn lose_block(&mut self, block: BlockId, at: Option<usize>) {
        if let Some(at) = at {
            self.blocks.entry(block).or_insert(at);
        }
    }

    /// Which damage takes this frame away, if any.
    pub(super) fn lost(&self, block: BlockId, frame: FrameNo) -> Option<usize> {
        let whole = self.blocks.get(&block);
        whole.or_else(|| self.frames.get(&(block, frame))).copied()
    }

    /// Which damage a page could not be read for.
    pub(super) fn of_page(&self, volume: &Volume, error: &Error) -> Option<usize> {
        let (object, what) = describe(volume, error);
        let same = self
            .report
            .damage
            .iter()
            .position(|one| one.object == object && one.what == what);
        same.or_else(|| self.objects.get(&object).copied())
    }
}

/// The object at fault and what is wrong with it.
fn describe(volume: &Volume, error: &Error) -> (String, String) {
    match error {
        Error::Damaged { object, why } => (object.to_string(), why.clone()),
        Error::Missing { object } => (object.to_string(), "it is missing".to_owned()),
        Error::NewerFormat { what, feature } => (
            what.clone(),
            format!("it needs feature {feature} of a newer version, or is damaged"),
        ),
        Error::Tree(TreeError::Structure { at, why }) => {
            let object = layout::block(volume.info().id, at.block);
            let object = object.map_or_else(String::new, |object| object.to_string());
            (
                object,
                format!("frame {}: tree page does not fit: {why}", at.frame),
            )
        }
        other => (format!("volume {}", volume.info().name), other.to_string()),
    }
}
