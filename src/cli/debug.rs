//! `rewindfs debug`: looks inside. For people who want to know what is really there; its output is no contract.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::at::{At, Opened};
use super::context::{Context, block_on, id};
use super::exit::Exit;
use super::{live, output};
use crate::config::{self, select::Selected};
use crate::daemon::opening::Opening;
use crate::daemon::{self};
use crate::format::block::{HEADER_LEN, Header, TRAILER_LEN, Trailer};
use crate::format::commit::PageRoot;
use crate::format::directory::Directory;
use crate::format::entry::{CommitName, Place};
use crate::format::key::Key;
use crate::format::page::{Entry, Page};
use crate::id::ObjectKey;
use crate::journal::{ANY_FILE, Journal, LOGICAL_BLOCK_LEN, LastStop};
use crate::repo::tree::Pages;

/// Look inside: a commit, its tree, a page, a block, the journal
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rewindfs debug commit --at latest
  rewindfs debug tree --at latest          the places of its layers and of all their pages
  rewindfs debug page PLACE                the entries of one page; PLACE as `debug tree` prints it
  rewindfs debug block v/.../d/.../0       the frames of one object; named as it is in the store
  rewindfs debug journal ~/Documents       what the journal of an unmounted volume holds")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Everything that a commit says, as JSON
    Commit {
        #[command(flatten)]
        at: At,
    },
    /// The layers and pages of a commit's tree
    Tree {
        #[command(flatten)]
        at: At,
    },
    /// The entries of one page of the tree
    Page {
        /// As `debug tree` prints it
        place: String,
        #[command(flatten)]
        at: At,
    },
    /// The directory of one block: which frames lie where
    Block {
        /// The object's name, below the repository's own prefix
        object: String,
        #[command(flatten)]
        at: At,
    },
    /// The records of a volume's journal; nothing may be mounted
    Journal {
        /// The source, or where it is usually mounted
        dir: PathBuf,
    },
}

impl Args {
    /// Prints what is asked for.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self.what {
            What::Commit { at } => look(context, &at, commit),
            What::Tree { at } => look(context, &at, tree),
            What::Page { place, at } => {
                let place = parse_place(&place)?;
                look(context, &at, async |snapshot| page(snapshot, &place).await)
            }
            What::Block { object, at } => {
                let object = ObjectKey::new(object);
                look(context, &at, async |snapshot| {
                    block(snapshot, &object).await
                })
            }
            What::Journal { dir } => journal(context, &dir),
        }
    }
}

fn look(
    context: &Context,
    at: &At,
    show: impl AsyncFnOnce(&Opened) -> anyhow::Result<()>,
) -> anyhow::Result<Exit> {
    let point = at.point(context)?;
    let selected: Selected = at.select(context)?;
    let opening: Opening = context.opening(&selected.repo)?;
    block_on(async {
        let snapshot = Opened::open(&opening, &selected, &point).await?;
        show(&snapshot).await
    })?;
    Ok(Exit::Done)
}

async fn commit(snapshot: &Opened) -> anyhow::Result<()> {
    let found = &snapshot.found;
    let commit = &found.commit;
    let name = |name: &CommitName| {
        json!({
            "era": name.era.0,
            "stamp": name.stamp.to_rfc3339(),
            "seq": name.seq.0,
            "session": name.session.to_string(),
        })
    };
    output::json(&json!({
        "id": id(&found.tag),
        "tag": found.tag.to_string(),
        "object_bytes": found.object_len,
        "name": name(&commit.name),
        "previous": commit.previous.as_ref().map(|(previous, tag)| json!({
            "name": name(previous),
            "tag": tag.to_string(),
        })),
        "time": commit.wall.to_rfc3339(),
        "generation": commit.generation.0,
        "condemned_seen": commit.condemned_seen,
        "host": commit.host,
        "source": output::printable(&commit.source),
        "label": commit.label,
        "incomplete": commit.incomplete,
        "next_file_id": commit.next_file_id,
        "files": commit.totals.files,
        "bytes": commit.totals.bytes,
        "added_bytes": commit.totals.added,
        "compressed_bytes": commit.totals.compressed,
        "stored_bytes": commit.totals.stored,
    }))
}

async fn tree(snapshot: &Opened) -> anyhow::Result<()> {
    let root = &snapshot.found.commit.tree;
    let layer = |what: &str, root: &PageRoot| {
        output::line(&format!(
            "{what}  height {}  {} entries  {} bytes  {}",
            root.height,
            root.entries,
            root.bytes,
            place_text(&root.place)
        ))
    };
    if let Some(base) = &root.base {
        layer("base", base)?;
    }
    for run in &root.runs {
        layer("run ", run)?;
    }
    output::line(&format!("inline  {} bytes", root.inline.len()))?;
    for place in snapshot.tree().pages().await? {
        output::line(&format!(
            "page  block {}/{} frame {} at {} ({} bytes)  {}",
            place.at.block.session,
            place.at.block.number,
            place.at.frame,
            place.hint.offset,
            place.hint.len,
            place_text(&place)
        ))?;
    }
    Ok(())
}

async fn page(snapshot: &Opened, place: &Place) -> anyhow::Result<()> {
    let page = snapshot.volume.blocks().page(place).await?;
    print_page(&page)
}

fn print_page(page: &Page) -> anyhow::Result<()> {
    output::line(&format!(
        "level {}  {} entries  {} bytes",
        page.level(),
        page.len(),
        page.bytes().len()
    ))?;
    for Entry { key, op, value } in page.entries() {
        let key = match Key::parse(&key) {
            Some(key) => format!("{key:?}"),
            None => hex(&key),
        };
        let value = match page.level() {
            0 => format!("{} bytes", value.len()),
            _ => hex(&value),
        };
        output::line(&format!(
            "{op:?}  {}  {value}",
            output::printable(key.as_bytes())
        ))?;
    }
    Ok(())
}

async fn block(snapshot: &Opened, object: &ObjectKey) -> anyhow::Result<()> {
    let store = snapshot.volume.store();
    let len = store
        .head(object)
        .await?
        .ok_or_else(|| anyhow!("{object} is not in the store"))?;
    let doing = || format!("read {object}");
    let header = store.get_range(object, 0..HEADER_LEN).await?;
    let header = Header::decode(&header).with_context(doing)?;
    let trailer = store
        .get_range(object, len.saturating_sub(TRAILER_LEN)..len)
        .await?;
    let trailer = Trailer::decode(&trailer).with_context(doing)?;
    let range = trailer.directory_range(len).with_context(doing)?;
    let bytes = store.get_range(object, range).await?;
    let cipher = snapshot.volume.keys().block(header.id);
    let directory = Directory::open(&bytes, &trailer, len, &cipher).with_context(doing)?;
    output::line(&format!(
        "block {}/{}  {:?}  key epoch {}  {len} bytes, {} of them padding",
        header.id.session,
        header.id.number,
        header.id.class,
        header.id.key_epoch,
        directory.pad().end - directory.pad().start
    ))?;
    for entry in directory.entries() {
        output::line(&format!(
            "frame {}  {:?}  at {} ({} bytes)",
            entry.place.frame, entry.kind, entry.place.offset, entry.place.len
        ))?;
    }
    Ok(())
}

fn journal(context: &Context, dir: &Path) -> anyhow::Result<Exit> {
    let known =
        live::known(context, dir).ok_or_else(|| daemon::Error::NotMounted(dir.to_owned()))?;
    // A second opener would be refused anyway, or worse, set the database aside as damaged.
    let _lock = daemon::lock::VolumeLock::try_take(&known.state)?;
    // The next mount sees this opening, and not what came before: whatever may be doubtful about that is put down.
    let is_doubtful = |stop: &LastStop| !matches!(stop, LastStop::Clean | LastStop::Crashed);
    let (journal, last_stop) = Journal::open_doubting(&known.state.journal(), is_doubtful)?;
    output::line(&format!("last stop  {last_stop:?}"))?;
    for (id, block, epoch) in journal.records()? {
        if id == ANY_FILE {
            output::line(&format!("any inode  epoch {epoch}"))?;
            continue;
        }
        output::line(&format!(
            "inode {id}  from byte {}  epoch {epoch}",
            u64::from(block) * LOGICAL_BLOCK_LEN
        ))?;
    }
    Ok(Exit::Done)
}

fn place_text(place: &Place) -> String {
    hex(&place.encode())
}

fn parse_place(text: &str) -> anyhow::Result<Place> {
    let refused = || {
        config::Error::Usage(format!(
            "`{text}` is not a place; copy one that `rewindfs debug tree` prints"
        ))
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8))
        .collect::<Option<Vec<u8>>>()
        .filter(|_| rest.is_empty())
        .ok_or_else(refused)?;
    Ok(Place::decode(&bytes).map_err(|_| refused())?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "0", "zz", "00", "é"] {
            assert!(parse_place(text).is_err(), "{text}");
        }
    }
}
