//! A repository with three snapshots of a small tree that has some of everything, and what each of them must show.

#![allow(
    dead_code,
    reason = "each program that includes this uses another part of it"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use rewindfs::cache::Cache;
use rewindfs::clock::{ManualClock, Stamp, Timespec};
use rewindfs::compress::Compression;
use rewindfs::crypto::AesKeyLen;
use rewindfs::format::entry::{Change, Contents, Extent, Inode, Kind, NameEntry, Place};
use rewindfs::id::FileId;
use rewindfs::repo::commits::Found;
use rewindfs::repo::{Repository, RepositoryConfig, Secret, Volume};
use rewindfs::store::Store;
use rewindfs::store::memory::Memory;

use crate::writer::{Special, TEN, Writer};

/// Opens the repository, slowly.
pub(crate) const PASSWORD: &str = "needle-password-correct-horse";

/// Texts that stand in names, contents, targets, values and labels: none may be found in the store.
pub(crate) const NEEDLES: &[&str] = &[
    "needle",
    PASSWORD,
    "dir-with-a-name",
    "linked-twice",
    "user.color",
    "system.posix_acl_access",
];

/// What one path of a snapshot must be.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) id: FileId,
    pub(crate) inode: Inode,
    pub(crate) contents: Vec<u8>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// All paths of a snapshot, parents before children.
pub(crate) type Model = BTreeMap<String, Node>;

/// The repository.
pub(crate) struct Sample {
    pub(crate) store: Store,
    pub(crate) recovery: String,
    pub(crate) snapshots: Vec<(Found, Model)>,
}

/// How large it is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Plain bytes of each of the three chunks of the largest file.
    pub(crate) chunk: usize,
    /// Files in the largest directory.
    pub(crate) names: usize,
}

/// Bytes that do not compress, different for each `seed`.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Opens the one volume anew with the recovery key, as another process would, without any cache.
pub(crate) async fn reopen(
    store: &Store,
    recovery: &str,
) -> Result<Arc<Volume>, rewindfs::repo::Error> {
    let repository = open(store, recovery).await?;
    let volumes = repository.volumes().await?;
    let first = volumes
        .first()
        .ok_or_else(|| rewindfs::repo::Error::NotFound("no volume".into()))?;
    repository.volume(first.id).await
}

/// Opens the repository with the recovery key.
pub(crate) async fn open(
    store: &Store,
    recovery: &str,
) -> Result<Repository, rewindfs::repo::Error> {
    let secret = Secret::Recovery(recovery.to_owned().into());
    Repository::open(store.clone(), Cache::in_memory(0), &secret).await
}

fn inode(kind: Kind, mode: u16) -> Inode {
    let time = |secs, nanos| Timespec { secs, nanos };
    Inode {
        kind,
        mode,
        uid: 1234,
        gid: 4321,
        links: 1,
        size: 0,
        rdev: 0,
        mtime: time(1_700_000_000, 123_456_789),
        ctime: time(1_700_000_001, 1),
        atime: time(1_600_000_000, 987_654_321),
        btime: None,
        target: Vec::new(),
        handle: vec![1, 2, 3],
        racy: false,
        in_place: false,
        unknown: Vec::new(),
    }
}

/// The ACL `user::rw-,user:1000:r--,group::r--,mask::r--,other::---` (acl(5), version 2).
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, u32::MAX),
        (0x02, 4, 1000),
        (0x04, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Changes in the making, with what they come to.
struct Draft {
    model: Model,
    changes: Vec<Change>,
}

impl Draft {
    fn put(&mut self, path: &str, id: u64, inode: Inode) {
        let id = FileId(id);
        if !path.is_empty() {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            self.changes.push(Change::PutName {
                dir: self.model[dir].id,
                name: name.as_bytes().to_vec(),
                entry: NameEntry {
                    id,
                    kind: inode.kind,
                },
            });
        }
        self.changes
            .push(Change::PutInode(id, inode.clone().into()));
        let known = self.model.values().find(|node| node.id == id).cloned();
        let (contents, xattrs) =
            known.map_or_else(Default::default, |node| (node.contents, node.xattrs));
        self.model.insert(
            path.to_owned(),
            Node {
                id,
                inode,
                contents,
                xattrs,
            },
        );
    }

    /// Gives a file contents, all its names at once.
    fn fill(&mut self, path: &str, contents: &[u8], extents: Vec<Extent>) {
        let id = self.model[path].id;
        self.changes.extend(
            extents
                .into_iter()
                .map(|extent| Change::PutExtent(id, extent)),
        );
        for node in self.model.values_mut().filter(|node| node.id == id) {
            node.contents = contents.to_vec();
            node.inode.size = contents.len() as u64;
        }
        let inode = self.model[path].inode.clone();
        self.changes.push(Change::PutInode(id, inode.into()));
    }

    fn xattrs(&mut self, path: &str, xattrs: &[(&str, Vec<u8>)]) {
        let id = self.model[path].id;
        let mut xattrs: Vec<_> = xattrs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.clone()))
            .collect();
        xattrs.sort();
        for node in self.model.values_mut().filter(|node| node.id == id) {
            node.xattrs = xattrs.clone();
        }
        self.changes.push(Change::SetXattrs(id, xattrs));
    }
}

fn at(place: &Place, inner: u32) -> Place {
    let mut place = place.clone();
    place.at.inner = inner;
    place
}

fn data(range: std::ops::Range<u64>, place: Place) -> Extent {
    Extent {
        range,
        contents: Contents::Data {
            place,
            content: None,
        },
    }
}

impl Sample {
    /// In memory.
    pub(crate) async fn new(size: Size) -> Self {
        Self::make(Arc::new(Memory::new()), size).await
    }

    /// In `store`, which must be empty.
    pub(crate) async fn make(store: Store, size: Size) -> Self {
        let config = RepositoryConfig {
            block_len: 64 << 20,
            aes: AesKeyLen::Aes256,
            compression: Compression::default(),
        };
        let password = Secret::Password(PASSWORD.to_owned().into());
        let made = Repository::init(store.clone(), Cache::in_memory(0), &password, config).await;
        let (repository, recovery) = made.unwrap();
        let info = repository
            .create_volume("needle-volume", Stamp(TEN))
            .await
            .unwrap();
        let volume = repository.volume(info.id).await.unwrap();
        let clock = Arc::new(ManualClock::new(Stamp(TEN)));
        let mut writer = Writer::claim(&volume, &clock, "needle-owner")
            .await
            .unwrap();
        let mut sample = Self {
            store,
            recovery: recovery.to_string(),
            snapshots: Vec::new(),
        };
        sample.first(&mut writer, size).await;
        clock.set(Stamp(TEN + 5000));
        sample.second(&mut writer, size).await;
        clock.set(Stamp(TEN + 10_000));
        sample.third(&mut writer, size).await;
        sample
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> &(Found, Model) {
        self.snapshots.last().unwrap()
    }

    /// Some of everything: small data in the commit, chunks in two blocks, shared chunks, hard links, a sparse file, special files.
    async fn first(&mut self, writer: &mut Writer, size: Size) {
        let chunks: Vec<Vec<u8>> = (0..3).map(|seed| noise(seed, size.chunk)).collect();
        let mut places = writer.data(&chunks[..2]).await;
        places.extend(writer.data(&chunks[2..]).await);
        let volume = writer.volume.clone();
        let chunk = |file_offset: usize, number: usize| {
            let start = file_offset as u64;
            Extent {
                range: start..start + size.chunk as u64,
                contents: Contents::Data {
                    place: places[number].clone(),
                    content: Some(volume.keys().content_id(&chunks[number])),
                },
            }
        };
        let text = b"needle: the contents of a small file, again and again. ".repeat(40);
        let linked = b"needle in a file with two names".to_vec();
        let small = vec![[text.clone(), linked.clone()].concat()];
        let make = |small: &[Place]| {
            let mut draft = Draft {
                model: Model::new(),
                changes: Vec::new(),
            };
            draft.put("", 1, inode(Kind::Dir, 0o755));
            draft.put("needle-a.txt", 2, inode(Kind::File, 0o640));
            draft.fill(
                "needle-a.txt",
                &text,
                vec![data(0..text.len() as u64, small[0].clone())],
            );
            draft.xattrs(
                "needle-a.txt",
                &[
                    ("user.color", b"needle-green".to_vec()),
                    ("system.posix_acl_access", acl()),
                ],
            );
            let before_1970 = Timespec {
                secs: -86_400,
                nanos: 999_999_999,
            };
            let dir = Inode {
                mtime: before_1970,
                ..inode(Kind::Dir, 0o1750)
            };
            draft.put("dir-with-a-name", 3, dir);
            let twice = Inode {
                links: 2,
                mtime: before_1970,
                ..inode(Kind::File, 0o4711)
            };
            draft.put("linked-twice", 4, twice.clone());
            draft.put("dir-with-a-name/linked-twice", 4, twice);
            draft.fill(
                "linked-twice",
                &linked,
                vec![data(
                    0..linked.len() as u64,
                    at(&small[0], text.len() as u32),
                )],
            );
            let link = Inode {
                target: b"../needle-target".to_vec(),
                size: 16,
                ..inode(Kind::Symlink, 0o777)
            };
            draft.put("dir-with-a-name/symlink", 5, link);
            let mut sparse = vec![0; 1_000_000];
            sparse[400_000..404_096].copy_from_slice(&chunks[2][100..4196]);
            draft.put("sparse", 6, inode(Kind::File, 0o600));
            draft.fill(
                "sparse",
                &sparse,
                vec![data(400_000..404_096, at(&places[2], 100))],
            );
            let big = chunks.concat();
            draft.put("big", 7, inode(Kind::File, 0o644));
            draft.fill(
                "big",
                &big,
                vec![chunk(0, 0), chunk(size.chunk, 1), chunk(2 * size.chunk, 2)],
            );
            draft.put("dir-with-a-name/copy", 8, inode(Kind::File, 0o444));
            let copy = [chunks[1].clone(), chunks[0].clone()].concat();
            draft.fill(
                "dir-with-a-name/copy",
                &copy,
                vec![chunk(0, 1), chunk(size.chunk, 0)],
            );
            draft.put("fifo", 9, inode(Kind::Fifo, 0o622));
            let device = Inode {
                rdev: 0x103,
                ..inode(Kind::CharDevice, 0o666)
            };
            draft.put("device", 10, device);
            draft.put("empty", 11, inode(Kind::File, 0o644));
            draft.put("dir-with-a-name/deep", 12, inode(Kind::Dir, 0o700));
            draft.put(
                "dir-with-a-name/deep/socket",
                13,
                inode(Kind::Socket, 0o755),
            );
            draft
        };
        let found = writer
            .commit_carrying(&small, Special::default(), |places| make(places).changes)
            .await;
        self.snapshots.push((found, make(&[nowhere()]).model));
    }

    /// A small change in place, one file gone, one new.
    async fn second(&mut self, writer: &mut Writer, size: Size) {
        let patch = noise(77, 4096);
        let fresh = b"needle of the second snapshot".repeat(3);
        let small = vec![patch.clone(), fresh.clone()];
        let before = self.newest().1.clone();
        let make = |small: &[Place]| {
            let mut draft = Draft {
                model: before.clone(),
                changes: vec![
                    Change::DropName {
                        dir: FileId::ROOT,
                        name: b"empty".to_vec(),
                    },
                    Change::DropInode(FileId(11)),
                ],
            };
            draft.model.remove("empty");
            let from = size.chunk - 1000;
            let mut big = draft.model["big"].contents.clone();
            big[from..from + 4096].copy_from_slice(&patch);
            draft.fill(
                "big",
                &big,
                vec![data(from as u64..from as u64 + 4096, small[0].clone())],
            );
            draft.put("dir-with-a-name/deep/fresh", 14, inode(Kind::File, 0o644));
            draft.fill(
                "dir-with-a-name/deep/fresh",
                &fresh,
                vec![data(0..fresh.len() as u64, small[1].clone())],
            );
            draft
        };
        let found = writer
            .commit_carrying(&small, Special::default(), |places| make(places).changes)
            .await;
        self.snapshots
            .push((found, make(&[nowhere(), nowhere()]).model));
    }

    /// A directory so large that the tree needs pages of its own.
    async fn third(&mut self, writer: &mut Writer, size: Size) {
        let mut draft = Draft {
            model: self.newest().1.clone(),
            changes: Vec::new(),
        };
        draft.put("many", 50, inode(Kind::Dir, 0o755));
        let dir = FileId(50);
        for number in 0..size.names as u64 {
            let id = FileId(100 + number);
            let inode = inode(Kind::File, 0o600);
            let name = format!("needle-{number:05}");
            draft.changes.push(Change::PutName {
                dir,
                name: name.clone().into_bytes(),
                entry: NameEntry {
                    id,
                    kind: Kind::File,
                },
            });
            draft
                .changes
                .push(Change::PutInode(id, inode.clone().into()));
            let node = Node {
                id,
                inode,
                contents: Vec::new(),
                xattrs: Vec::new(),
            };
            draft.model.insert(format!("many/{name}"), node);
        }
        let label = Special {
            label: "needle-label".into(),
            ..Special::default()
        };
        let found = writer.commit(draft.changes, label).await;
        self.snapshots.push((found, draft.model));
    }
}

/// A place for a draft of which only the model is wanted.
fn nowhere() -> Place {
    use rewindfs::format::entry::{Address, Hint};
    use rewindfs::id::{BlockClass, BlockId, FrameNo, SessionId};
    Place {
        at: Address {
            block: BlockId {
                key_epoch: 0,
                class: BlockClass::Data,
                session: SessionId([0; 8]),
                number: 0,
            },
            frame: FrameNo(0),
            inner: 0,
        },
        hint: Hint {
            offset: 0,
            len: 0,
            commit: None,
        },
    }
}
