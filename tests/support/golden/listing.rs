//! What is in a repository, as text: every commit of every volume with all that its tree holds. Ids, keys and tags, which differ
//! from one making to the next, are left out.

use std::fmt::Write;

use rewindfs::clock::Timespec;
use rewindfs::format::entry::{Contents, Inode, Kind};
use rewindfs::id::FileId;
use rewindfs::repo::commits::Found;
use rewindfs::repo::{Repository, Volume};
use sha2::{Digest, Sha256};

/// Bytes of a file read at once; holes are not read.
const NAMES_AT_ONCE: usize = 50;

/// The whole text. Of each commit after a volume's first it gives the lines that went (`-`) and came (`+`).
pub(crate) async fn of(repository: &Repository) -> String {
    let mut text = String::new();
    for info in repository.volumes().await.unwrap() {
        let volume = repository.volume(info.id).await.unwrap();
        writeln!(
            text,
            "volume {} made {}",
            info.name.escape_debug(),
            info.created.0
        )
        .unwrap();
        let head = volume.head().await.unwrap().unwrap();
        let mut before = Vec::new();
        for entry in volume.history(&head).await.unwrap() {
            let found = volume.read_commit(&entry.name).await.unwrap();
            assert_eq!(found.tag, entry.tag);
            text.push_str(&heading(&found));
            let lines = tree(&volume, &found).await;
            let gone = before.iter().filter(|line| !lines.contains(line));
            gone.for_each(|line| writeln!(text, "- {line}").unwrap());
            let came = lines.iter().filter(|line| !before.contains(line));
            came.for_each(|line| writeln!(text, "+ {line}").unwrap());
            before = lines;
        }
    }
    text
}

fn heading(found: &Found) -> String {
    let commit = &found.commit;
    let layers = format!(
        "base of height {}, {} runs, {} bytes inline",
        commit.tree.base.as_ref().map_or(0, |root| root.height),
        commit.tree.runs.len(),
        commit.tree.inline.len(),
    );
    format!(
        "commit {} era {} stamp {} wall {} generation {} label {:?}{} host {:?} source {:?} next id {} totals {:?}: {layers}\n",
        commit.name.seq.0,
        commit.name.era.0,
        commit.name.stamp.0,
        commit.wall.0,
        commit.generation.0,
        commit.label,
        if commit.incomplete { " incomplete" } else { "" },
        commit.host,
        commit.source.escape_ascii().to_string(),
        commit.next_file_id,
        commit.totals,
    )
}

/// One line for each path.
async fn tree(volume: &Volume, found: &Found) -> Vec<String> {
    let tree = volume.tree(&found.commit);
    let mut lines = Vec::new();
    let mut pending = vec![(Vec::new(), FileId::ROOT)];
    while let Some((path, id)) = pending.pop() {
        let inode = tree.inode(id).await.unwrap().unwrap();
        let name = if path.is_empty() { b"/" } else { &path[..] };
        let mut line = format!("{} {}", name.escape_ascii(), attributes(id, &inode));
        for (name, value) in tree.xattrs(id).await.unwrap() {
            let value = digest([&value[..]]);
            write!(line, " {}={value}", name.escape_ascii()).unwrap();
        }
        if inode.kind == Kind::File {
            line.push_str(&contents(volume, found, id, inode.size).await);
        }
        lines.push(line);
        if inode.kind != Kind::Dir {
            continue;
        }
        let mut after = None;
        loop {
            let names = tree.names(id, after.as_deref(), NAMES_AT_ONCE).await;
            let names = names.unwrap();
            let Some((last, _)) = names.last() else { break };
            after = Some(last.clone());
            let below = |name: &[u8]| [&path[..], b"/", name].concat();
            pending.extend(names.iter().map(|(name, entry)| (below(name), entry.id)));
        }
    }
    lines.sort();
    lines
}

fn attributes(id: FileId, inode: &Inode) -> String {
    let mut text = format!(
        "{} {:?} {:o} {}:{} links {} size {} mtime {} ctime {} atime {}",
        id.0,
        inode.kind,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.links,
        inode.size,
        time(&inode.mtime),
        time(&inode.ctime),
        time(&inode.atime),
    );
    let optional = [
        (inode.btime.map(|btime| format!(" btime {}", time(&btime)))),
        (inode.rdev != 0).then(|| format!(" rdev {:x}", inode.rdev)),
        (!inode.target.is_empty()).then(|| format!(" -> {}", inode.target.escape_ascii())),
        (!inode.handle.is_empty()).then(|| format!(" handle {:?}", inode.handle)),
        inode.racy.then(|| " racy".to_owned()),
        inode.in_place.then(|| " in-place".to_owned()),
        (!inode.unknown.is_empty()).then(|| format!(" unknown {:?}", inode.unknown)),
    ];
    text.extend(optional.into_iter().flatten());
    text
}

fn time(time: &Timespec) -> String {
    format!("{}.{:09}", time.secs, time.nanos)
}

/// Its stretches and the digest of all its data.
async fn contents(volume: &Volume, found: &Found, id: FileId, size: u64) -> String {
    let (mut text, mut data) = (String::new(), Vec::new());
    let extents = volume.tree(&found.commit).extents(id, 0..size).await;
    for extent in extents.unwrap() {
        let (start, end) = (extent.range.start, extent.range.end);
        match &extent.contents {
            Contents::Hole => write!(text, " hole {start}..{end}").unwrap(),
            Contents::Data { place, content } => {
                let len = usize::try_from(end - start).unwrap();
                data.push(volume.blocks().read(place, len).await.unwrap());
                let chunk = if content.is_some() { " chunk" } else { " data" };
                write!(text, "{chunk} {start}..{end}").unwrap();
            }
        }
    }
    format!("{text} {}", digest(data.iter().map(|bytes| &bytes[..])))
}

/// The first 8 bytes of SHA-256: enough for people and tests.
fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    pieces.into_iter().for_each(|piece| hash.update(piece));
    let digest = hash.finalize();
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
