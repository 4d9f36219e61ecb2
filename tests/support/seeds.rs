//! What the golden repositories hold, as examples for fuzzing: for each decoder of the format the bytes that it reads there. Shared
//! by the short test in the library and the maker of the fuzzers' corpus (`tests/fuzz/seeds.rs`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rewindfs::cache::Cache;
use rewindfs::format::block::{HEADER_LEN, Header, TRAILER_LEN, Trailer};
use rewindfs::format::frame::FrameKind;
use rewindfs::format::key::extent_key;
use rewindfs::format::page::Page;
use rewindfs::id::ObjectKey;
use rewindfs::repo::inspect::ObjectKind;
use rewindfs::repo::{Repository, Secret, Volume};
use rewindfs::store::Store;
use rewindfs::store::local::Local;

/// Examples by the name of their decoder.
pub(crate) type Seeds = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// Those of all golden repositories below `fixtures` (`tests/fixtures`).
pub(crate) async fn gather(fixtures: &Path) -> Seeds {
    let mut seeds = Seeds::new();
    of_key_objects(&mut seeds);
    for version in folders(fixtures) {
        for files in folders(&version) {
            of_repository(&files, &mut seeds).await;
        }
    }
    seeds
}

fn folders(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// What stands in key objects beside the key, with a field that nobody knows: crypto hands such bytes to their decoder and to nobody else.
fn of_key_objects(seeds: &mut Seeds) {
    let slot = [
        (1, &(1u64 << 20).to_le_bytes()[..]),
        (2, &256u16.to_le_bytes()),
        (3, &[1, 3]),
        (4, &[0; 8]),
        (5, &[1, 0, 0, 0, 0, 0, 0, 0]),
        (9, b"later"),
    ];
    add(seeds, "slot_contents", &fields(&slot));
    let volume = [(1, &b"documents"[..]), (2, &[7; 8]), (9, b"later")];
    add(seeds, "volume_record", &fields(&volume));
}

/// FORMAT.md, "Fields".
fn fields(fields: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in fields {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

async fn of_repository(files: &Path, seeds: &mut Seeds) {
    let recovery = std::fs::read_to_string(files.join("recovery-key")).unwrap();
    add(seeds, "recovery_key", recovery.trim().as_bytes());
    let store: Store = Arc::new(Local::open(&files.join("repository")).unwrap());
    for (key, _) in store.list("", None, 1000).await.unwrap().objects {
        let name = match key.as_str() {
            "format" => "marker",
            name if name.starts_with("k/s-") => "slot",
            _ => continue,
        };
        let (bytes, _) = store.get(&key, 1 << 20).await.unwrap();
        // Without its checksum, which the decoder's door adds.
        let bytes = if name == "slot" {
            &bytes[..bytes.len() - 8]
        } else {
            &bytes[..]
        };
        add(seeds, name, bytes);
    }
    let secret = Secret::Recovery(recovery.into());
    let repository = Repository::open(store.clone(), Cache::in_memory(0), &secret).await;
    let repository = repository.unwrap();
    for info in repository.volumes().await.unwrap() {
        let volume = repository.volume(info.id).await.unwrap();
        for (key, len) in volume.objects(None).await.unwrap().objects {
            of_object(&store, &volume, &key, len, seeds).await;
        }
    }
}

async fn of_object(store: &Store, volume: &Volume, key: &ObjectKey, len: u64, seeds: &mut Seeds) {
    let (bytes, _) = store.get(key, 64 << 20).await.unwrap();
    let kind = match volume.kind_of(key) {
        ObjectKind::Claim => FrameKind::Claim,
        ObjectKind::Lease => FrameKind::Lease,
        ObjectKind::Block(_) => {
            add(seeds, "header", &bytes[..HEADER_LEN as usize]);
            add(
                seeds,
                "trailer",
                &bytes[bytes.len() - TRAILER_LEN as usize..],
            );
            let trailer = Trailer::decode(&bytes).unwrap();
            let range = trailer.directory_range(len).unwrap();
            let id = Header::decode(&bytes).unwrap().id;
            let directory = &bytes[range.start as usize..range.end as usize];
            let cipher = volume.keys().block(id);
            let frame = trailer.directory_frame;
            let plain = cipher.decrypt(frame, FrameKind::Directory, None, directory);
            of_frames(FrameKind::Directory, &plain.unwrap(), seeds);
            let mut frames = Vec::new();
            volume
                .prove_block(key, len, |entry, plain| {
                    frames.push((entry.kind, plain.unwrap()))
                })
                .await
                .unwrap();
            for (kind, plain) in frames {
                of_frames(kind, &plain, seeds);
            }
            return;
        }
        ObjectKind::Unknown => return,
    };
    let plain = volume.keys().decrypt_object(kind, key, &bytes).unwrap();
    of_frames(kind, &plain, seeds);
}

fn of_frames(kind: FrameKind, plain: &[u8], seeds: &mut Seeds) {
    let decoder = match kind {
        FrameKind::Page => Some("page"),
        FrameKind::Commit => Some("commit"),
        FrameKind::Directory => Some("directory"),
        FrameKind::Claim => Some("claim"),
        FrameKind::Lease => Some("lease"),
        _ => None,
    };
    if let Some(decoder) = decoder {
        add(seeds, decoder, plain);
    }
    add(seeds, "envelope", &envelope(0, plain, plain.len()));
    let compressed = zstd::bulk::compress(plain, 1).unwrap();
    add(seeds, "envelope", &envelope(1, &compressed, plain.len()));
    if kind == FrameKind::Page {
        of_page(plain, seeds);
    }
    if kind == FrameKind::Commit {
        let commit = rewindfs::format::commit::Commit::decode(plain).unwrap();
        if !commit.tree.inline.is_empty() {
            add(seeds, "page", &commit.tree.inline);
            of_page(&commit.tree.inline, seeds);
        }
    }
}

/// FORMAT.md, "Envelope", without zeros behind the payload.
fn envelope(codec: u8, payload: &[u8], plain_len: usize) -> Vec<u8> {
    let mut bytes = vec![codec, 0, 0, 0];
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(plain_len as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn of_page(plain: &[u8], seeds: &mut Seeds) {
    let page = Page::decode(plain.to_vec()).unwrap();
    for entry in page.entries().filter(|_| page.level() == 0) {
        let value = entry.value.as_slice();
        match (entry.key.first(), extent_key(&entry.key)) {
            (_, Some((_, end))) => add(seeds, "extent", &[&end.to_le_bytes(), value].concat()),
            (Some(b'A'), _) => add(seeds, "inode", value),
            (Some(b'D'), _) => add(seeds, "name", value),
            (Some(b'H'), _) => add(seeds, "history", value),
            _ => {}
        }
        add(seeds, "key", &entry.key);
    }
}

/// The most examples of one kind: more of the same find nothing more.
const EACH_MAX: usize = 64;

fn add(seeds: &mut Seeds, name: &'static str, bytes: &[u8]) {
    let known = seeds.entry(name).or_default();
    if known.len() < EACH_MAX && !known.iter().any(|other| other == bytes) {
        known.push(bytes.to_vec());
    }
}
