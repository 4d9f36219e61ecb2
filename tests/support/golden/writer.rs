//! A writer of repositories without a live mount: blocks and commits as FORMAT.md has them, put one after another, each with
//! exactly the contents that a test asks for. Not fast, and not careful about its store. Used by the golden files.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use rewindfs::clock::{Clock, ManualClock, Stamp};
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

/// How long the writers' leases run. Test clocks decide, so the number does not matter.
const LEASE: Duration = Duration::from_secs(60);

/// One writer of one volume.
pub(crate) struct Writer {
    volume: Arc<Volume>,
    clock: Arc<ManualClock>,
    writership: Writership,
    head: Option<Found>,
    blocks: u32,
}

/// What is to be published.
#[derive(Default)]
pub(crate) struct Publish {
    pub(crate) changes: Vec<Change>,
    pub(crate) label: &'static str,
    pub(crate) incomplete: bool,
    pub(crate) totals: Totals,
    pub(crate) next_file_id: u64,
    /// Frames that ride in the commit's own object; [`Writer::small_place`] says where they will lie.
    pub(crate) small_data: Vec<Vec<u8>>,
}

impl Writer {
    /// Claims a volume, to go on from `head`, as owner `owner`.
    pub(crate) async fn claim(
        volume: &Arc<Volume>,
        clock: &Arc<ManualClock>,
        owner: &str,
        head: Option<Found>,
    ) -> Self {
        let session = SessionId::random();
        let claim = volume.claim(session, owner, head.as_ref(), &[], LEASE, &**clock);
        Self {
            volume: volume.clone(),
            clock: clock.clone(),
            writership: claim.await.unwrap(),
            head,
            blocks: 0,
        }
    }

    /// The newest commit this writer knows.
    pub(crate) fn head(&self) -> Option<Found> {
        self.head.clone()
    }

    /// Gives the lease back.
    pub(crate) async fn release(self) {
        self.writership.release().await.unwrap();
    }

    /// Puts a data block with these frames and says where they lie.
    pub(crate) async fn data(&mut self, frames: &[Vec<u8>]) -> Vec<Place> {
        let mut block = Block::new(self.next_block(BlockClass::Data));
        let places = frames
            .iter()
            .map(|plain| block.add(FrameKind::Data, self.envelope(plain)));
        let places = places.collect();
        self.put_block(block).await;
        places
    }

    /// Where the first small frame of the next commit will lie. Its hint is wrong: the object's directory must be asked.
    pub(crate) fn small_place(&self) -> Place {
        // The commit's block comes after that of its tree pages.
        let block = self.block_id(BlockClass::Commit, self.blocks + 2);
        Place {
            at: Address {
                block,
                frame: FrameNo(1),
                inner: 0,
            },
            hint: Hint {
                offset: 64,
                len: 96,
                commit: Some(self.next_name()),
            },
        }
    }

    /// Publishes a commit at the clock's time: its tree block, if it needs one, and then itself.
    pub(crate) async fn publish(&mut self, publish: Publish) -> Found {
        let Publish {
            mut changes,
            small_data,
            ..
        } = publish;
        let name = self.next_name();
        let before = self.head.take();
        changes.extend(
            before
                .as_ref()
                .map(|before| Change::PutHistory(before.history_entry())),
        );
        let root = before
            .as_ref()
            .map_or_else(TreeRoot::default, |before| before.commit.tree.clone());
        let commit = Commit {
            name,
            previous: before.map(|before| (before.commit.name, before.tag)),
            wall: self.clock.now(),
            generation: self.writership.generation(),
            condemned_seen: 0,
            tree: self.tree(root, changes).await,
            totals: publish.totals,
            host: "golden.example".into(),
            source: b"/home/golden/Documents".to_vec(),
            label: publish.label.into(),
            incomplete: publish.incomplete,
            next_file_id: publish.next_file_id,
        };
        self.put_commit(&commit, &small_data).await;
        let found = self.volume.read_commit(&name).await.unwrap();
        assert_eq!(found.commit, commit);
        self.head = Some(found.clone());
        found
    }

    /// Within an era no stamp is used twice, whatever the clock says.
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

    fn envelope(&self, plain: &[u8]) -> Envelope {
        Envelope::pack(plain, self.volume.config().compression)
    }

    async fn tree(&mut self, before: TreeRoot, changes: Vec<Change>) -> TreeRoot {
        let compression = self.volume.config().compression;
        let mut sink = Sink {
            block: Block::new(self.next_block(BlockClass::Tree)),
            pack: Box::new(move |page| Envelope::pack(page, compression)),
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

    async fn put_commit(&mut self, commit: &Commit, small_data: &[Vec<u8>]) {
        let key = layout::commit(self.volume.info().id, &commit.name);
        let mut block = Block::new(self.next_block(BlockClass::Commit));
        block.add(FrameKind::Commit, self.envelope(&commit.encode()));
        for plain in small_data {
            block.add(FrameKind::Data, self.envelope(plain));
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
    pack: Pack,
}

/// Makes an envelope of a page.
type Pack = Box<dyn Fn(&[u8]) -> Envelope + Send>;

impl PageSink for Sink {
    fn put(&mut self, page: Vec<u8>) -> Result<Place, Error> {
        let envelope = (self.pack)(&page);
        Ok(self.block.add(FrameKind::Page, envelope))
    }
}
