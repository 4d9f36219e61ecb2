//! A small honest writer for tests: blocks and commits as FORMAT.md has them, put one after another, each with exactly the contents
//! that a test asks for. Not fast, and not careful about its store.
//!
//! Written against the public interface alone, so that the tests inside the library (`repo/fixture.rs`), those outside it and the
//! maker of the golden files share it. The including crate sees to it that `rewindfs` names the library.

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
use rewindfs::id::{BlockClass, BlockId, FrameNo, ObjectKey, Seq, SessionId};
use rewindfs::repo::commits::Found;
use rewindfs::repo::lease::Writership;
use rewindfs::repo::tree::{PageSink, Tree};
use rewindfs::repo::{Error, Volume, layout};
use rewindfs::store::Body;

/// Where test clocks stand at first: 2026-11-21 10:00:00 UTC.
pub(crate) const TEN: u64 = 1_795_255_200_000;
/// The lease that test writers take.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// The machine and the directory that all commits name.
const HOST: &str = "golden.example";
const SOURCE: &[u8] = b"/home/golden/Documents";

/// A writer that puts blocks and commits.
pub(crate) struct Writer {
    pub(crate) volume: Arc<Volume>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) writership: Writership,
    /// The newest commit that it knows, from which the next goes on.
    pub(crate) head: Option<Found>,
    blocks: u32,
}

/// What a test may want to be special about a commit.
#[derive(Clone, Default)]
pub(crate) struct Special {
    pub(crate) label: String,
    pub(crate) incomplete: bool,
    pub(crate) totals: Totals,
    pub(crate) next_file_id: u64,
}

impl Writer {
    /// Claims the volume from its head on, as owner `owner`.
    pub(crate) async fn claim(
        volume: &Arc<Volume>,
        clock: &Arc<ManualClock>,
        owner: &str,
    ) -> Result<Self, Error> {
        let head = volume.head().await?;
        Self::claim_from(volume, clock, owner, head).await
    }

    /// The same from `head` on.
    pub(crate) async fn claim_from(
        volume: &Arc<Volume>,
        clock: &Arc<ManualClock>,
        owner: &str,
        head: Option<Found>,
    ) -> Result<Self, Error> {
        Self::claim_as(SessionId::random(), volume, clock, owner, head).await
    }

    /// The same under this session id.
    pub(crate) async fn claim_as(
        session: SessionId,
        volume: &Arc<Volume>,
        clock: &Arc<ManualClock>,
        owner: &str,
        head: Option<Found>,
    ) -> Result<Self, Error> {
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

    /// Puts a data block with these frames and says where they lie.
    pub(crate) async fn data(&mut self, frames: &[Vec<u8>]) -> Vec<Place> {
        let mut block = Block::new(self.next_block(BlockClass::Data));
        let compression = self.volume.config().compression;
        let places = frames
            .iter()
            .map(|plain| block.add(FrameKind::Data, Envelope::pack(plain, compression)));
        let places = places.collect();
        self.put_block(block).await;
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
        let compression = self.volume.config().compression;
        self.publish(&commit, compression, small_data).await
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

    /// The same, altered by `alter` before it is encrypted: what only a broken writer would publish.
    pub(crate) async fn commit_altered(
        &mut self,
        changes: Vec<Change>,
        alter: impl FnOnce(&mut Commit),
    ) -> Found {
        let mut commit = self.draft(changes, &Special::default()).await;
        alter(&mut commit);
        let compression = self.volume.config().compression;
        self.publish(&commit, compression, &[]).await
    }

    /// Where the first small frame of the next commit will lie. Its hint is wrong: the object's directory must be asked.
    pub(crate) fn misplaced_small(&self) -> Place {
        self.small_place(FrameNo(1), 64, 96)
    }

    /// Where small data will lie behind a body of so many bytes.
    fn small_places(&self, body_len: u32, small_data: &[Vec<u8>]) -> Vec<Place> {
        let compression = self.volume.config().compression;
        let mut offset = 64 + u64::from(body_len);
        let places = (1..).zip(small_data).map(|(frame, plain)| {
            let len = Envelope::pack(plain, compression).encrypted_len();
            let place = self.small_place(FrameNo(frame), offset, len);
            offset += u64::from(len);
            place
        });
        places.collect()
    }

    fn small_place(&self, frame: FrameNo, offset: u64, len: u32) -> Place {
        Place {
            at: Address {
                // The tree's block is named first, and then the commit's own.
                block: self.block_id(BlockClass::Commit, self.blocks + 2),
                frame,
                inner: 0,
            },
            hint: Hint {
                offset,
                len,
                commit: Some(self.next_name()),
            },
        }
    }

    /// What the next commit is called. Within an era no stamp is used twice, whatever the clock says.
    fn next_name(&self) -> CommitName {
        let before = self.head.as_ref().map(|head| head.commit.name);
        let (era, now) = (self.writership.era(), self.clock.now());
        let stamp = match before {
            Some(before) if before.era == era => now.max(Stamp(before.stamp.0 + 1)),
            _ => now,
        };
        CommitName {
            era,
            stamp,
            seq: Seq(before.map_or(0, |before| before.seq.0) + 1),
            session: self.writership.session(),
        }
    }

    async fn draft(&mut self, mut changes: Vec<Change>, special: &Special) -> Commit {
        let head = self.head.clone();
        changes.extend(
            head.as_ref()
                .map(|head| Change::PutHistory(head.history_entry().into())),
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
            totals: special.totals,
            host: HOST.into(),
            source: SOURCE.to_vec(),
            label: special.label.clone(),
            incomplete: special.incomplete,
            // The root has 1.
            next_file_id: special.next_file_id.max(2),
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

    fn next_block(&mut self, class: BlockClass) -> BlockId {
        self.blocks += 1;
        self.block_id(class, self.blocks)
    }

    fn block_id(&self, class: BlockClass, number: u32) -> BlockId {
        BlockId {
            key_epoch: self.volume.keys().key_epoch(),
            class,
            session: self.writership.session(),
            number,
        }
    }

    async fn tree(&mut self, before: TreeRoot, changes: Vec<Change>) -> TreeRoot {
        let mut sink = Sink {
            block: Block::new(self.next_block(BlockClass::Tree)),
            compression: self.volume.config().compression,
        };
        let tree = Tree::new(before, self.volume.blocks().clone());
        let root = tree.apply(changes, &mut sink).await.unwrap();
        if !sink.block.frames.is_empty() {
            self.put_block(sink.block).await;
        }
        root
    }

    async fn put_block(&self, block: Block) {
        let key = layout::block(self.volume.info().id, block.id).unwrap();
        let object = block.encrypt(&self.volume, &key);
        self.put(&key, object).await;
    }

    async fn put_commit(&mut self, commit: &Commit, body: Compression, small_data: &[Vec<u8>]) {
        let key = layout::commit(self.volume.info().id, &commit.name);
        let mut block = Block::new(self.next_block(BlockClass::Commit));
        block.add(FrameKind::Commit, Envelope::pack(&commit.encode(), body));
        let compression = self.volume.config().compression;
        for plain in small_data {
            block.add(FrameKind::Data, Envelope::pack(plain, compression));
        }
        let object = block.encrypt(&self.volume, &key);
        self.put(&key, object).await;
    }

    async fn put(&self, key: &ObjectKey, object: Bytes) {
        let body = Body::Bytes(object);
        self.volume.store().put(key, body).await.unwrap();
    }
}

/// A block that is being laid out.
struct Block {
    id: BlockId,
    layout: BlockLayout,
    frames: Vec<(FrameKind, Envelope)>,
}

impl Block {
    fn new(id: BlockId) -> Self {
        Self {
            id,
            layout: BlockLayout::new(id),
            frames: Vec::new(),
        }
    }

    fn add(&mut self, kind: FrameKind, envelope: Envelope) -> Place {
        let place = self.layout.add(kind, &envelope);
        self.frames.push((kind, envelope));
        Place {
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
        }
    }

    /// The whole object. Only a commit's body is bound to the object's name.
    fn encrypt(self, volume: &Volume, key: &ObjectKey) -> Bytes {
        let cipher = volume.keys().block(self.id);
        let one = |number, kind, envelope| {
            let name = (kind == FrameKind::Commit).then_some(key);
            cipher.encrypt(number, kind, name, vec![envelope]).remove(0)
        };
        let mut object = self.layout.header().to_vec();
        for (number, (kind, envelope)) in (0..).map(FrameNo).zip(self.frames) {
            object.extend_from_slice(one(number, kind, envelope).bytes());
        }
        let finish = |number, envelope| one(number, FrameKind::Directory, envelope);
        object.extend(self.layout.finish(finish));
        object.into()
    }
}

/// Takes pages as frames of one block.
struct Sink {
    block: Block,
    compression: Compression,
}

impl PageSink for Sink {
    fn put(&mut self, page: Vec<u8>) -> Result<Place, Error> {
        let envelope = Envelope::pack(&page, self.compression);
        Ok(self.block.add(FrameKind::Page, envelope))
    }
}
