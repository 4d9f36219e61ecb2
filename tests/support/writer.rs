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
            .claim(session, owner, head.as_ref(), &[], LEASE, &**clock)
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
        self.id_of(class, self.blocks)
    }

    fn id_of(&self, class: BlockClass, number: u32) -> BlockId {
        BlockId {
            key_epoch: self.volume.keys().key_epoch(),
            class,
            session: self.writership.session(),
            number,
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
        changes: Vec<Change>,
        special: Special,
        small_data: &[Vec<u8>],
    ) -> Found {
        let commit = self.draft(changes, &special).await;
        self.publish(&commit, Compression::default(), small_data)
            .await
    }

    /// The same where `make` says what lies in the small data, whose places it is told. The changes must be few enough to stay in the
    /// commit itself, since they are made several times over until the places no longer move.
    pub(crate) async fn commit_carrying(
        &mut self,
        small_data: &[Vec<u8>],
        special: Special,
        make: impl Fn(&[Place]) -> Vec<Change>,
    ) -> Found {
        let mut body_len = 0;
        loop {
            let blocks = self.blocks;
            let places = self.small_places(body_len, small_data);
            let commit = self.draft(make(&places), &special).await;
            let needed = Envelope::pack(&commit.encode(), Compression::Off).encrypted_len();
            if needed == body_len {
                return self.publish(&commit, Compression::Off, small_data).await;
            }
            body_len = needed;
            self.blocks = blocks;
        }
    }

    /// Where small data will lie behind a body of so many bytes.
    fn small_places(&self, body_len: u32, small_data: &[Vec<u8>]) -> Vec<Place> {
        let mut offset = 64 + u64::from(body_len);
        // The tree's block is named first, and then the commit's own.
        let block = self.id_of(BlockClass::Commit, self.blocks + 2);
        let places = (1..).zip(small_data).map(|(frame, plain)| {
            let len = Envelope::pack(plain, Compression::default()).encrypted_len();
            let place = Place {
                at: Address {
                    block,
                    frame: FrameNo(frame),
                    inner: 0,
                },
                hint: Hint {
                    offset,
                    len,
                    commit: Some(self.next_name()),
                },
            };
            offset += u64::from(len);
            place
        });
        places.collect()
    }

    /// What the next commit is called.
    fn next_name(&self) -> CommitName {
        let now = self.clock.now();
        let before = self.head.as_ref().map(|head| head.commit.name);
        CommitName {
            era: self.writership.era(),
            stamp: match before {
                Some(before) if before.era == self.writership.era() => {
                    now.max(Stamp(before.stamp.0 + 1))
                }
                _ => now,
            },
            seq: Seq(before.map_or(0, |before| before.seq.0) + 1),
            session: self.writership.session(),
        }
    }

    async fn draft(&mut self, mut changes: Vec<Change>, special: &Special) -> Commit {
        let head = self.head.clone();
        changes.extend(
            head.as_ref()
                .map(|head| Change::PutHistory(head.history_entry())),
        );
        let before = head
            .as_ref()
            .map_or_else(TreeRoot::default, |head| head.commit.tree.clone());
        Commit {
            name: self.next_name(),
            previous: head.as_ref().map(|head| (head.commit.name, head.tag)),
            wall: self.clock.now(),
            generation: self.writership.generation(),
            condemned_seen: 0,
            tree: self.tree(before, changes).await,
            totals: Totals::default(),
            host: "host".into(),
            source: b"/source".to_vec(),
            label: special.label.clone(),
            incomplete: special.incomplete,
            next_file_id: 2,
        }
    }

    async fn publish(
        &mut self,
        commit: &Commit,
        body: Compression,
        small_data: &[Vec<u8>],
    ) -> Found {
        self.put_commit(commit, body, small_data).await;
        let found = self.volume.read_commit(&commit.name).await.unwrap();
        assert_eq!(found.commit, *commit);
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

    async fn put_commit(&mut self, commit: &Commit, body: Compression, small_data: &[Vec<u8>]) {
        let id = self.block_id(BlockClass::Commit);
        let key = layout::commit(self.volume.info().id, &commit.name);
        let mut layout = BlockLayout::new(id);
        let body = Envelope::pack(&commit.encode(), body);
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
