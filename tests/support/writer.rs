//! A small honest writer for tests: blocks and commits put as the flusher would, without any of its speed.
//!
//! Written against the public interface alone, so that the tests inside the library (`repo/fixture.rs`) and those outside it share
//! it. The including crate sees to it that `rewindfs` names the library.

#![allow(
    dead_code,
    reason = "each program that includes this uses another part of it"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rewindfs::clock::{Clock, ManualClock, Stamp};
use rewindfs::compress::Compression;
use rewindfs::format::block::BlockLayout;
use rewindfs::format::commit::{Commit, TreeRoot};
use rewindfs::format::entry::{Address, Change, CommitName, Hint, Place, Totals};
use rewindfs::format::frame::{Envelope, FrameKind};
use rewindfs::id::{BlockClass, BlockId, FrameNo, Seq, SessionId};
use rewindfs::repo::commits::Found;
use rewindfs::repo::lease::Writership;
use rewindfs::repo::tree::{PageSink, Tree};
use rewindfs::repo::{Error, Volume, layout};
use rewindfs::store::Body;

/// Where test clocks stand at first: 2026-11-21 10:00:00 UTC.
pub(crate) const TEN: u64 = 1_795_255_200_000;
/// The lease that test writers take.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// A writer that puts blocks and commits.
pub(crate) struct Writer {
    pub(crate) volume: Arc<Volume>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) writership: Writership,
    pub(crate) head: Option<Found>,
    blocks: u32,
}

/// What a test may want to be special about a commit.
#[derive(Default)]
pub(crate) struct Special {
    pub(crate) label: String,
    pub(crate) incomplete: bool,
}

impl Writer {
    /// Claims the volume from its head on, as owner `owner`.
    pub(crate) async fn claim(
        volume: &Arc<Volume>,
        clock: &Arc<ManualClock>,
        owner: &str,
    ) -> Result<Self, Error> {
        let head = volume.head().await?;
        let session = SessionId::random();
        let writership = volume
            .claim(session, owner, head.as_ref(), LEASE, &**clock)
            .await?;
        Ok(Self {
            volume: volume.clone(),
            clock: clock.clone(),
            writership,
            head,
            blocks: 0,
        })
    }

    fn block_id(&mut self, class: BlockClass) -> BlockId {
        self.blocks += 1;
        BlockId {
            key_epoch: self.volume.keys().key_epoch(),
            class,
            session: self.writership.session(),
            number: self.blocks,
        }
    }

    /// Puts a data block with these frames.
    pub(crate) async fn data(&mut self, frames: &[Vec<u8>]) -> Vec<Place> {
        let id = self.block_id(BlockClass::Data);
        let key = layout::block(self.volume.info().id, id).unwrap();
        let (places, object) = block(&self.volume, id, FrameKind::Data, frames);
        self.volume
            .store()
            .put(&key, Body::Bytes(object))
            .await
            .unwrap();
        places
    }

    /// Puts a commit with `changes` at the clock's time, its tree block first.
    pub(crate) async fn commit(&mut self, changes: Vec<Change>, special: Special) -> Found {
        self.commit_with(changes, special, &[]).await
    }

    /// The same with small data that rides in the commit's own object from frame 1 on.
    pub(crate) async fn commit_with(
        &mut self,
        mut changes: Vec<Change>,
        special: Special,
        small_data: &[Vec<u8>],
    ) -> Found {
        let head = self.head.take();
        changes.extend(
            head.as_ref()
                .map(|head| Change::PutHistory(head.history_entry())),
        );
        let before = head
            .as_ref()
            .map_or_else(TreeRoot::default, |head| head.commit.tree.clone());
        let now = self.clock.now();
        let name = CommitName {
            era: self.writership.era(),
            stamp: head.as_ref().map_or(now, |head| match head.commit.name {
                before if before.era == self.writership.era() => now.max(Stamp(before.stamp.0 + 1)),
                _ => now,
            }),
            seq: Seq(head.as_ref().map_or(0, |head| head.commit.name.seq.0) + 1),
            session: self.writership.session(),
        };
        let commit = Commit {
            name,
            previous: head.as_ref().map(|head| (head.commit.name, head.tag)),
            wall: now,
            generation: self.writership.generation(),
            condemned_seen: 0,
            tree: self.tree(before, changes).await,
            totals: Totals::default(),
            host: "host".into(),
            source: b"/source".to_vec(),
            label: special.label,
            incomplete: special.incomplete,
            next_file_id: 2,
        };
        self.put_commit(&commit, small_data).await;
        let found = self.volume.read_commit(&name).await.unwrap();
        assert_eq!(found.commit, commit);
        self.head = Some(found.clone());
        found
    }

    async fn tree(&mut self, before: TreeRoot, changes: Vec<Change>) -> TreeRoot {
        let id = self.block_id(BlockClass::Tree);
        let mut sink = Sink {
            id,
            layout: BlockLayout::new(id),
            envelopes: Vec::new(),
        };
        let tree = Tree::new(before, self.volume.blocks().clone());
        let root = tree.apply(changes, &mut sink).await.unwrap();
        if !sink.envelopes.is_empty() {
            let key = layout::block(self.volume.info().id, id).unwrap();
            let object = finish(
                &self.volume,
                FrameKind::Page,
                sink.layout,
                id,
                sink.envelopes,
            );
            self.volume
                .store()
                .put(&key, Body::Bytes(object))
                .await
                .unwrap();
        }
        root
    }

    async fn put_commit(&mut self, commit: &Commit, small_data: &[Vec<u8>]) {
        let id = self.block_id(BlockClass::Commit);
        let key = layout::commit(self.volume.info().id, &commit.name);
        let mut layout = BlockLayout::new(id);
        let body = Envelope::pack(&commit.encode(), Compression::default());
        layout.add(FrameKind::Commit, &body);
        let data: Vec<_> = small_data
            .iter()
            .map(|plain| Envelope::pack(plain, Compression::default()))
            .collect();
        data.iter().for_each(|envelope| {
            layout.add(FrameKind::Data, envelope);
        });
        let cipher = self.volume.keys().block(id);
        let mut object = layout.header().to_vec();
        for frame in cipher.encrypt(FrameNo(0), FrameKind::Commit, Some(&key), vec![body]) {
            object.extend_from_slice(frame.bytes());
        }
        for frame in cipher.encrypt(FrameNo(1), FrameKind::Data, None, data) {
            object.extend_from_slice(frame.bytes());
        }
        object.extend(layout.finish(|frame, envelope| {
            cipher
                .encrypt(frame, FrameKind::Directory, None, vec![envelope])
                .remove(0)
        }));
        self.volume
            .store()
            .put(&key, Body::Bytes(object.into()))
            .await
            .unwrap();
    }
}

/// Lays out pages and keeps them until the block is finished.
struct Sink {
    id: BlockId,
    layout: BlockLayout,
    envelopes: Vec<Envelope>,
}

impl PageSink for Sink {
    fn put(&mut self, page: Vec<u8>) -> Result<Place, Error> {
        let envelope = Envelope::pack(&page, Compression::default());
        let place = self.layout.add(FrameKind::Page, &envelope);
        self.envelopes.push(envelope);
        Ok(Place {
            at: Address {
                block: self.id,
                frame: place.frame,
                inner: 0,
            },
            hint: Hint {
                offset: place.offset,
                len: place.len,
                commit: None,
            },
        })
    }
}

/// A whole block object with these frames, and where they lie.
pub(crate) fn block(
    volume: &Volume,
    id: BlockId,
    kind: FrameKind,
    frames: &[Vec<u8>],
) -> (Vec<Place>, Bytes) {
    let mut layout = BlockLayout::new(id);
    let envelopes: Vec<_> = frames
        .iter()
        .map(|plain| Envelope::pack(plain, Compression::default()))
        .collect();
    let places = envelopes.iter().map(|envelope| {
        let place = layout.add(kind, envelope);
        Place {
            at: Address {
                block: id,
                frame: place.frame,
                inner: 0,
            },
            hint: Hint {
                offset: place.offset,
                len: place.len,
                commit: None,
            },
        }
    });
    let places = places.collect();
    (places, finish(volume, kind, layout, id, envelopes))
}

fn finish(
    volume: &Volume,
    kind: FrameKind,
    layout: BlockLayout,
    id: BlockId,
    envelopes: Vec<Envelope>,
) -> Bytes {
    let cipher = volume.keys().block(id);
    let mut object = layout.header().to_vec();
    for frame in cipher.encrypt(FrameNo(0), kind, None, envelopes) {
        object.extend_from_slice(frame.bytes());
    }
    object.extend(layout.finish(|frame, envelope| {
        cipher
            .encrypt(frame, FrameKind::Directory, None, vec![envelope])
            .remove(0)
    }));
    object.into()
}
