//! Makes the repositories of the golden files: the same contents at each run, under other keys and ids.
//!
//! The volume `docs` goes through everything that a tree can hold, commit by commit; each step's comment says what it is there
//! for. The volume `notes` has one commit. Who changes a step makes files of a new version, never those of an old one.

use std::sync::Arc;

use rewindfs::cache::Cache;
use rewindfs::clock::{Clock, ManualClock, Stamp, Timespec};
use rewindfs::compress::Compression;
use rewindfs::crypto::AesKeyLen;
use rewindfs::format::entry::{Change, Contents, Extent, Inode, Kind, NameEntry, Place, Totals};
use rewindfs::id::FileId;
use rewindfs::repo::commits::Found;
use rewindfs::repo::{Repository, RepositoryConfig, Secret, Volume};
use rewindfs::store::Store;

use crate::writer::{Special, Writer};

/// What opens the golden repositories beside their recovery keys.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
/// When the first commit is made: 2026-11-21 10:00:00 UTC.
pub(crate) const TEN: u64 = 1_795_255_200_000;
/// Commits are a minute apart.
pub(crate) const MINUTE: u64 = 60_000;

/// Bytes of one page, the unit in which files are overwritten.
const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

// File ids.
const SMALL: u64 = 2;
const BIG: u64 = 3;
const SPARSE: u64 = 4;
const LINK: u64 = 5;
const DIR: u64 = 6;
const INNER: u64 = 7;
const SPECIALS: u64 = 8;
const LONG: u64 = 12;
const RAW: u64 = 13;
const EMPTY: u64 = 14;
const MANY: u64 = 15;
const PLAIN: u64 = 16;
const FIRST_OF_MANY: u64 = 1000;
const MANY_COUNT: u64 = 160;

/// Makes a repository in `store` and returns its recovery key. Without compression `docs` has its first commit only: the others
/// are small because they compress.
pub(crate) async fn make(store: &Store, aes: AesKeyLen, compression: Compression) -> String {
    let config = RepositoryConfig {
        block_len: 64 << 20,
        aes,
        compression,
    };
    let secret = Secret::Password(PASSWORD.to_owned().into());
    let made = Repository::init(store.clone(), Cache::in_memory(0), &secret, config).await;
    let (repository, recovery) = made.unwrap();
    let docs = volume(&repository, "docs").await;
    match compression {
        Compression::Off => first_of_docs(&docs).await,
        Compression::Zstd(_) => all_of_docs(&docs).await,
    }
    notes(&volume(&repository, "notes").await).await;
    recovery.to_string()
}

async fn volume(repository: &Repository, name: &str) -> Arc<Volume> {
    let info = repository.create_volume(name, Stamp(TEN)).await.unwrap();
    repository.volume(info.id).await.unwrap()
}

async fn claim(
    volume: &Arc<Volume>,
    clock: &Arc<ManualClock>,
    owner: &str,
    head: Option<Found>,
) -> Writer {
    let claimed = Writer::claim_from(volume, clock, owner, head).await;
    claimed.unwrap()
}

async fn notes(volume: &Arc<Volume>) {
    let clock = Arc::new(ManualClock::new(Stamp(TEN)));
    let mut writer = claim(volume, &clock, "golden:/notes", None).await;
    let changes = vec![Change::PutInode(
        FileId::ROOT,
        inode(Kind::Dir, 0o700).into(),
    )];
    writer.commit(changes, special("empty")).await;
    writer.writership.release().await.unwrap();
}

async fn first_of_docs(volume: &Arc<Volume>) {
    let clock = Arc::new(ManualClock::new(Stamp(TEN)));
    let mut writer = claim(volume, &clock, "golden:/docs", None).await;
    unfinished_scan(&mut writer).await;
    writer.writership.release().await.unwrap();
}

async fn all_of_docs(volume: &Arc<Volume>) {
    let clock = Arc::new(ManualClock::new(Stamp(TEN)));
    let mut writer = claim(volume, &clock, "golden:/docs", None).await;
    unfinished_scan(&mut writer).await;
    tick(&clock);
    base(&mut writer).await;
    tick(&clock);
    first_run(&mut writer).await;
    tick(&clock);
    second_run(&mut writer).await;
    tick(&clock);
    small_changes(&mut writer).await;
    tick(&clock);
    removals(&mut writer).await;
    // Another goes on from there. Its clock is behind by an hour, so that a new era begins.
    let behind = Arc::new(ManualClock::new(Stamp(TEN - 60 * MINUTE)));
    let mut other = claim(volume, &behind, "golden:/docs", writer.head.clone()).await;
    // Published by one that does not know yet that it has been replaced: not history.
    tick(&clock);
    let lost = put_name(FileId::ROOT.0, b"lost", SMALL, Kind::File);
    writer.commit(vec![lost], special("lost")).await;
    let renamed = put_name(FileId::ROOT.0, b"kept", SMALL, Kind::File);
    other
        .commit(vec![renamed], special("after the clock was set back"))
        .await;
    other.writership.release().await.unwrap();
}

/// An incomplete commit, all of it inline, as a long first scan publishes.
async fn unfinished_scan(writer: &mut Writer) {
    let text = b"hello, world\n".to_vec();
    let places = writer.data(std::slice::from_ref(&text)).await;
    let mut changes = vec![
        Change::PutInode(FileId::ROOT, inode(Kind::Dir, 0o755).into()),
        put_name(FileId::ROOT.0, b"small.txt", SMALL, Kind::File),
        file(SMALL, 13),
    ];
    changes.push(data(SMALL, 0, 13, &places[0], 0));
    let incomplete = Special {
        incomplete: true,
        ..special("")
    };
    writer.commit(changes, incomplete).await;
}

/// Every kind of inode and a base of several levels.
async fn base(writer: &mut Writer) {
    let chunks = [noise(1, 24 << 10), noise(2, 9000)];
    let shared = [lines(0), lines(1), lines(2)].concat();
    let places = writer
        .data(&[chunks[0].clone(), chunks[1].clone(), shared])
        .await;
    let mut changes = kinds();
    // Cut by content: whole chunks with their ids.
    changes.push(file(BIG, (24 << 10) + 9000));
    changes.push(chunk(BIG, 0, &chunks[0], &places[0]));
    changes.push(chunk(BIG, 24 << 10, &chunks[1], &places[1]));
    // Three terabytes with two pages in them.
    let mut sparse = inode(Kind::File, 0o600);
    (sparse.size, sparse.in_place) = (3 << 40, true);
    changes.push(Change::PutInode(FileId(SPARSE), sparse.into()));
    changes.push(data(SPARSE, MIB, PAGE, &places[0], 0));
    changes.push(data(SPARSE, (3 << 40) - PAGE, PAGE, &places[0], 4096));
    changes.extend(many(&places[2]));
    writer.commit(changes, special("")).await;
}

fn kinds() -> Vec<Change> {
    let root = FileId::ROOT.0;
    let mut link = inode(Kind::Symlink, 0o777);
    link.target = b"small.txt".to_vec();
    link.size = 9;
    let mut changes = vec![
        put_name(root, b"big.bin", BIG, Kind::File),
        put_name(root, b"sparse", SPARSE, Kind::File),
        put_name(root, b"link", LINK, Kind::Symlink),
        Change::PutInode(FileId(LINK), link.into()),
        put_name(root, b"dir", DIR, Kind::Dir),
        Change::PutInode(FileId(DIR), inode(Kind::Dir, 0o2750).into()),
        put_name(DIR, b"inner", INNER, Kind::Dir),
        Change::PutInode(FileId(INNER), inode(Kind::Dir, 0o1777).into()),
        put_name(root, &[b'n'; 255], LONG, Kind::File),
        file(LONG, 0),
        put_name(root, b"not \xff utf-8\n", RAW, Kind::File),
        put_name(root, b"many", MANY, Kind::Dir),
        Change::PutInode(FileId(MANY), inode(Kind::Dir, 0o755).into()),
    ];
    changes.extend(specials());
    changes.extend(odd_inodes());
    changes
}

fn specials() -> Vec<Change> {
    let kinds = [
        (Kind::Fifo, "fifo", 0),
        (Kind::Socket, "socket", 0),
        (Kind::CharDevice, "char", 0x0103),
        (Kind::BlockDevice, "block", 0x0800),
    ];
    let changes = (SPECIALS..)
        .zip(kinds)
        .flat_map(|(id, (kind, name, rdev))| {
            let mut special = inode(kind, 0o660);
            special.rdev = rdev;
            [
                put_name(DIR, name.as_bytes(), id, kind),
                Change::PutInode(FileId(id), special.into()),
            ]
        });
    changes.collect()
}

/// A second name, extreme times, every optional field of an inode, and xattrs of all lengths.
fn odd_inodes() -> Vec<Change> {
    let mut linked = inode(Kind::File, 0o4755);
    (linked.size, linked.links) = (13, 2);
    let mut raw = inode(Kind::File, 0o000);
    raw.uid = u32::MAX - 1;
    raw.mtime = Timespec {
        secs: -1,
        nanos: 999_999_999,
    };
    raw.btime = Some(Timespec { secs: 1, nanos: 1 });
    raw.handle = vec![7; 12];
    raw.racy = true;
    raw.unknown = vec![(77, b"of a newer version".to_vec())];
    vec![
        Change::PutInode(FileId(SMALL), linked.into()),
        put_name(INNER, b"hard link", SMALL, Kind::File),
        Change::PutInode(FileId(RAW), raw.into()),
        Change::SetXattrs(
            FileId(SMALL),
            vec![
                (b"user.empty".to_vec(), Vec::new()),
                (b"user.short".to_vec(), b"value".to_vec()),
                (b"user.long".to_vec(), repeated("part ", 20 << 10)),
            ],
        ),
    ]
}

/// A directory of small files that share one frame. Large xattrs make the base high at little cost.
fn many(shared: &Place) -> Vec<Change> {
    let mut changes = Vec::new();
    for number in 0..MANY_COUNT {
        let id = FIRST_OF_MANY + number;
        let (len, inner) = (lines(number % 3).len() as u64, (0..number % 3).map(lines));
        let inner = inner.map(|text| text.len() as u64).sum();
        changes.push(put_name(
            MANY,
            format!("file-{number:03}").as_bytes(),
            id,
            Kind::File,
        ));
        changes.push(file(id, len));
        changes.push(data(id, 0, len, shared, inner));
    }
    for number in 0..60 {
        changes.push(tagged(
            FIRST_OF_MANY + 2 * number,
            &format!("base {number} "),
        ));
    }
    changes
}

/// So many bytes of changes that they become a run, and too few to be merged into the base.
async fn first_run(writer: &mut Writer) {
    let mut changes: Vec<_> = (0..26)
        .map(|number| tagged(FIRST_OF_MANY + 1 + 6 * number, &format!("run {number} ")))
        .collect();
    changes.push(put_name(
        FileId::ROOT.0,
        b"in the first run",
        EMPTY,
        Kind::File,
    ));
    changes.push(file(EMPTY, 0));
    writer.commit(changes, special("before the move")).await;
}

/// A second, much smaller run over the first: overwrites, and hides what both older layers say.
async fn second_run(writer: &mut Writer) {
    let places = writer.data(&[noise(3, 8192)]).await;
    let changes = vec![
        tagged(FIRST_OF_MANY, "second run "),
        tagged(FIRST_OF_MANY + 1, "second run "),
        tagged(FIRST_OF_MANY + 40, "second run "),
        data(BIG, 20 << 10, 8192, &places[0], 0),
        data(SPARSE, MIB + 1000, 2000, &places[0], 100),
        Change::DropName {
            dir: FileId(MANY),
            name: b"file-007".to_vec(),
        },
        Change::DropInode(FileId(FIRST_OF_MANY + 7)),
    ];
    writer.commit(changes, special("")).await;
}

/// Inline changes over everything, with data inside the commit's own object.
async fn small_changes(writer: &mut Writer) {
    let place = writer.misplaced_small();
    let small = [b"a page increment, ".repeat(40), noise(4, 100)].concat();
    let len = small.len() as u64;
    let changes = vec![
        put_name(FileId::ROOT.0, b"in the commit", PLAIN, Kind::File),
        file(PLAIN, len),
        data(PLAIN, 0, len, &place, 0),
        data(BIG, 22 << 10, 500, &place, 200),
        data(SPARSE, 0, 10, &place, 10),
    ];
    writer
        .commit_with(changes, special("small"), &[small])
        .await;
}

/// Tombstones of every kind: a renamed directory, a removed inode, replaced xattrs, a truncated file that grew again.
async fn removals(writer: &mut Writer) {
    let drop_name = |dir, name: &[u8]| Change::DropName {
        dir: FileId(dir),
        name: name.to_vec(),
    };
    let hole = Extent {
        range: 10_000..u64::MAX,
        contents: Contents::Hole,
    };
    let changes = vec![
        drop_name(FileId::ROOT.0, b"dir"),
        put_name(MANY, b"moved dir", DIR, Kind::Dir),
        drop_name(FileId::ROOT.0, b"link"),
        Change::DropInode(FileId(LINK)),
        Change::SetXattrs(
            FileId(SMALL),
            vec![(b"user.short".to_vec(), b"other".to_vec())],
        ),
        Change::PutExtent(FileId(BIG), hole),
        file(BIG, 30_000),
        drop_name(MANY, b"file-011"),
        Change::DropInode(FileId(FIRST_OF_MANY + 11)),
    ];
    writer.commit(changes, special("small")).await;
}

fn tick(clock: &ManualClock) {
    clock.set(Stamp(clock.now().0 + MINUTE));
}

fn special(label: &str) -> Special {
    Special {
        label: label.into(),
        incomplete: false,
        totals: Totals {
            files: 1,
            bytes: 2,
            added: 3,
            compressed: 4,
            stored: 5,
        },
        next_file_id: 5000,
    }
}

fn inode(kind: Kind, mode: u16) -> Inode {
    let time = |nanos| Timespec {
        secs: 1_700_000_000,
        nanos,
    };
    Inode {
        kind,
        mode,
        uid: 1000,
        gid: 100,
        links: 1,
        size: 0,
        rdev: 0,
        mtime: time(123_456_789),
        ctime: time(1),
        atime: time(2),
        btime: None,
        target: Vec::new(),
        handle: Vec::new(),
        racy: false,
        in_place: false,
        unknown: Vec::new(),
    }
}

fn file(id: u64, size: u64) -> Change {
    let mut file = inode(Kind::File, 0o644);
    file.size = size;
    Change::PutInode(FileId(id), file.into())
}

fn put_name(dir: u64, name: &[u8], id: u64, kind: Kind) -> Change {
    Change::PutName {
        dir: FileId(dir),
        name: name.to_vec(),
        entry: NameEntry {
            id: FileId(id),
            kind,
        },
    }
}

/// `len` bytes of a file from `start` on, which lie in the frame at `place` from `inner` on.
fn data(id: u64, start: u64, len: u64, place: &Place, inner: u64) -> Change {
    let mut place = place.clone();
    place.at.inner = u32::try_from(inner).unwrap();
    let contents = Contents::Data {
        place,
        content: None,
    };
    let range = start..start + len;
    Change::PutExtent(FileId(id), Extent { range, contents })
}

/// A whole chunk. Its content id is only carried along: any will do.
fn chunk(id: u64, start: u64, bytes: &[u8], place: &Place) -> Change {
    let contents = Contents::Data {
        place: place.clone(),
        content: Some(rewindfs::id::ContentId([bytes[0]; 16])),
    };
    let range = start..start + bytes.len() as u64;
    Change::PutExtent(FileId(id), Extent { range, contents })
}

/// One large xattr.
fn tagged(id: u64, text: &str) -> Change {
    let value = repeated(text, 8 << 10);
    Change::SetXattrs(FileId(id), vec![(b"user.large".to_vec(), value)])
}

fn repeated(text: &str, len: usize) -> Vec<u8> {
    text.bytes().cycle().take(len).collect()
}

fn lines(number: u64) -> Vec<u8> {
    format!("line of file {number}\n")
        .repeat(3 + number as usize)
        .into_bytes()
}

/// Bytes that do not compress, the same at each run (xorshift64*).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}
