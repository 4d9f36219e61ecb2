//! The commit stage: a tree over the parent's, and the object that publishes it.
//!
//! Small data rides in the commit object: frame 0 is the body, the data frames follow. That is a circle, since the body
//! holds the tree's newest changes, these hold the places of the data frames, and their offsets depend on the length of
//! the body. It is cut by *reserving*: the length of frame 0 is chosen first, places are handed out behind it, and the body's
//! envelope is filled with zeros up to that length (FORMAT.md, "Envelope"). A reserve that turns out too small, or
//! far too large, is corrected from the length that was found; the second try fits nearly always.

use crate::clock::Stamp;
use crate::flusher::error::Error;
use crate::flusher::pack::{Packed, SmallPlaces, small_frame_no};
use crate::flusher::pipeline::PipelineParts;
use crate::flusher::session::Session;
use crate::flusher::spool::{BlockFile, FrameBytes, SpooledBlock};
use crate::flusher::tree_blocks::TreeBlocks;
use crate::format::block::{FramePlace, HEADER_LEN};
use crate::format::commit::{Commit, TreeRoot};
use crate::format::entry::{Change, CommitName, Totals};
use crate::format::frame::{Envelope, FrameKind};
use crate::id::{BlockClass, BlockId, FrameNo, Generation, Tag};
use crate::repo::commits::Found;
use crate::repo::layout;
use crate::repo::tree::{Pages, Tree};

/// Tries at a fitting reserve. Each adds more slack than the one before, the last as much again as was found, while the body's
/// length depends on the reserve only through a few bytes of offsets.
const RESERVE_SLACK: [u32; 4] = [16, 8, 4, 1];
/// The first reserve of a process, near what one saved file costs; later ones begin with what the last commit needed.
pub(crate) const RESERVE_FIRST: u32 = 1024;
/// A reserve may be larger than the body by this and a quarter of it; otherwise it is tried again, smaller.
const RESERVE_WASTE: u32 = 512;

/// Everything about a commit but its tree and its totals of bytes.
pub(crate) struct Draft<'a> {
    /// Its name.
    pub(crate) name: CommitName,
    /// Wall clock at the seal.
    pub(crate) wall: Stamp,
    /// The commit before it.
    pub(crate) previous: Option<&'a Found>,
    /// Generation of the writer.
    pub(crate) generation: Generation,
    /// Host.
    pub(crate) host: &'a str,
    /// Source directory.
    pub(crate) source: &'a [u8],
    /// Name a person gave it.
    pub(crate) label: &'a str,
    /// Published during a scan.
    pub(crate) incomplete: bool,
    /// The next file id.
    pub(crate) next_file_id: u64,
    /// Files and bytes of the tree; what was added is filled in here.
    pub(crate) totals: Totals,
    /// Contents copied ahead of this epoch.
    pub(crate) ahead: FrameBytes,
    /// Bytes of the objects that hold them.
    pub(crate) ahead_stored: u64,
}

/// A commit in the spool, durable but for the directory.
pub(crate) struct Written {
    /// As a reader would find it.
    pub(crate) found: Found,
    /// Its tree blocks.
    pub(crate) tree: Vec<SpooledBlock>,
    /// Its object.
    pub(crate) object: SpooledBlock,
    /// Contents that the epoch added, wherever they lie.
    pub(crate) bytes: FrameBytes,
}

/// Where commits are written.
pub(crate) struct CommitWriter<'a> {
    /// Names blocks.
    pub(crate) session: &'a Session,
    /// Keys, compression, spool.
    pub(crate) parts: &'a PipelineParts,
    /// The most plaintext in a block.
    pub(crate) block_len: u64,
    /// What the next commit with small data reserves; learnt from the last.
    pub(crate) reserve: &'a mut u32,
}

impl CommitWriter<'_> {
    /// Applies `changes` (a function of where small data lies) to `parent` and writes tree blocks and commit. Asks for them once
    /// if there is no small data.
    pub(crate) async fn write<P: Pages + Clone>(
        &mut self,
        draft: &Draft<'_>,
        parent: &Tree<P>,
        packed: &Packed,
        mut changes: impl FnMut(&SmallPlaces) -> Vec<Change>,
    ) -> Result<Written, Error> {
        let id = self.session.block(BlockClass::Commit);
        let small: Vec<Envelope> = packed
            .small
            .iter()
            .map(|plain| Envelope::pack(plain.bytes(), self.parts.compression))
            .collect();
        let lengths: Vec<FrameBytes> = small.iter().map(FrameBytes::of).collect();
        let mut bytes = packed.bytes();
        bytes += draft.ahead;
        lengths.iter().for_each(|l| bytes += *l);

        for slack in RESERVE_SLACK {
            let places = small_places(draft.name, id, *self.reserve, &lengths);
            let mut sink = TreeBlocks::new(self.session, self.parts.clone(), self.block_len);
            let root = parent.apply(changes(&places), &mut sink).await?;
            let tree = sink.finish()?;
            let stored = draft.ahead_stored
                + objects_len(&packed.blocks)
                + objects_len(&tree)
                + sum(&lengths);
            let commit = draft.commit(root, bytes, stored);
            let mut body = Envelope::pack(&commit.encode(), self.parts.compression);
            let len = body.encrypted_len();
            if !small.is_empty() {
                let fits = len <= *self.reserve;
                if !fits || *self.reserve - len > RESERVE_WASTE + len / 4 {
                    *self.reserve = (len + len / slack + 64) & !15;
                    continue;
                }
                body.fill(*self.reserve);
            }
            let (object, tag) = self.object(draft, id, body, small)?;
            let found = Found {
                commit,
                tag,
                object_len: object.object.len,
            };
            return Ok(Written {
                found,
                tree,
                object,
                bytes,
            });
        }
        Err(Error::StageLost("commit"))
    }

    fn object(
        &self,
        draft: &Draft<'_>,
        id: BlockId,
        body: Envelope,
        small: Vec<Envelope>,
    ) -> Result<(SpooledBlock, Tag), Error> {
        let key = layout::commit(self.parts.keys.volume(), &draft.name);
        let cipher = self.parts.keys.block(id);
        let mut file = BlockFile::create(&self.parts.spool, id, key.clone())?;
        file.reserve(FrameKind::Commit, FrameBytes::of(&body));
        for envelope in &small {
            file.reserve(FrameKind::Data, FrameBytes::of(envelope));
        }
        let body = cipher
            .encrypt(FrameNo(0), FrameKind::Commit, Some(&key), vec![body])
            .pop()
            .expect("one envelope in, one ciphertext out");
        file.write(&body)?;
        if !small.is_empty() {
            for frame in cipher.encrypt(small_frame_no(0), FrameKind::Data, None, small) {
                file.write(&frame)?;
            }
        }
        let mut object = file.finish(&cipher)?;
        object.sync()?;
        Ok((object, body.tag()))
    }
}

impl Draft<'_> {
    fn commit(&self, tree: TreeRoot, bytes: FrameBytes, stored: u64) -> Commit {
        Commit {
            name: self.name,
            previous: self.previous.map(|p| (p.commit.name, p.tag)),
            wall: self.wall,
            generation: self.generation,
            condemned_seen: self.previous.map_or(0, |p| p.commit.condemned_seen),
            tree,
            totals: Totals {
                added: bytes.plain,
                compressed: bytes.compressed,
                stored,
                ..self.totals
            },
            host: self.host.to_owned(),
            source: self.source.to_owned(),
            label: self.label.to_owned(),
            incomplete: self.incomplete,
            next_file_id: self.next_file_id,
        }
    }
}

/// Places behind a body whose frame will be `reserve` bytes long.
fn small_places(
    commit: CommitName,
    block: BlockId,
    reserve: u32,
    lengths: &[FrameBytes],
) -> SmallPlaces {
    let mut offset = HEADER_LEN + u64::from(reserve);
    let frames = lengths
        .iter()
        .enumerate()
        .map(|(index, lengths)| {
            let place = FramePlace {
                frame: small_frame_no(index),
                offset,
                len: lengths.encrypted as u32,
            };
            offset += lengths.encrypted;
            place
        })
        .collect();
    SmallPlaces {
        commit,
        block,
        frames,
    }
}

fn objects_len(blocks: &[SpooledBlock]) -> u64 {
    blocks.iter().map(|b| b.object.len).sum()
}

fn sum(lengths: &[FrameBytes]) -> u64 {
    lengths.iter().map(|l| l.encrypted).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Era, Seq, SessionId};

    #[test]
    fn small_data_lies_behind_a_body_of_the_reserved_length() {
        let name = CommitName {
            era: Era(1),
            stamp: Stamp(1),
            seq: Seq(1),
            session: SessionId([1; 8]),
        };
        let id = BlockId {
            key_epoch: 1,
            class: BlockClass::Commit,
            session: name.session,
            number: 0,
        };
        let lengths = [128, 96].map(|encrypted| FrameBytes {
            encrypted,
            ..FrameBytes::default()
        });
        let places = small_places(name, id, 1024, &lengths);
        let found: Vec<_> = places
            .frames
            .iter()
            .map(|p| (p.frame.0, p.offset, p.len))
            .collect();
        assert_eq!(
            found,
            [(1, HEADER_LEN + 1024, 128), (2, HEADER_LEN + 1152, 96)]
        );
    }
}
