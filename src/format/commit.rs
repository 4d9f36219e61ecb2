//! The body of a commit: frame 0 of a block of class commit (FORMAT.md, "Commit body").
//!
//! The flusher makes one, `repo/commits` reads it. Tagged fields: what a newer version adds and does not mark as
//! required is passed over, since a commit is never rewritten.

use crate::clock::Stamp;
use crate::format::entry::{CommitName, Place, Totals};
use crate::format::page::{HEIGHT_MAX, Page};
use crate::format::wire::{Reader, each_field, put_field, put_varint, whole};
use crate::id::{Generation, Tag};

#[cfg(test)]
mod tests;

/// A published epoch, decoded and authenticated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Its name.
    pub name: CommitName,
    /// Tag of the commit before it; `None` for a volume's first.
    pub previous: Option<(CommitName, Tag)>,
    /// Wall clock at the seal (the stamp in `name` may run ahead of it within an era).
    pub wall: Stamp,
    /// Generation of its writer.
    pub generation: Generation,
    /// Condemnations its writer had seen.
    pub condemned_seen: u64,
    /// The tree.
    pub tree: TreeRoot,
    /// Counts.
    pub totals: Totals,
    /// Host that wrote it.
    pub host: String,
    /// Source directory on that host.
    pub source: Vec<u8>,
    /// Name a person gave it; empty if none.
    pub label: String,
    /// Published during a first scan: not an exact moment.
    pub incomplete: bool,
    /// The next file id never handed out when this was sealed.
    pub next_file_id: u64,
}

/// The three layers of one commit's tree, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TreeRoot {
    /// The base: a copy-on-write B+tree.
    pub base: Option<PageRoot>,
    /// Sorted runs over it, oldest first, at most [`RUNS_MAX`].
    pub runs: Vec<PageRoot>,
    /// The newest changes themselves: encoded sorted entries (`format::page`), at most [`INLINE_MAX`] bytes.
    pub inline: Vec<u8>,
}

impl TreeRoot {
    /// Whether it keeps to the limits of the format: few enough runs, inline changes that are short enough.
    pub fn is_within_limits(&self) -> bool {
        self.runs.len() <= RUNS_MAX && self.inline.len() <= INLINE_MAX
    }

    /// Whether nothing lies in pages: all there is stands in the commit itself.
    pub fn is_all_inline(&self) -> bool {
        self.base.is_none() && self.runs.is_empty()
    }
}

/// The root page of a base or a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageRoot {
    /// Where its root page lies.
    pub place: Place,
    /// Levels: 1 means that the root is a leaf.
    pub height: u8,
    /// Entries in all leaves.
    pub entries: u64,
    /// Plain bytes of all leaf pages.
    pub bytes: u64,
}

/// The most runs that lie over a base.
pub const RUNS_MAX: usize = 4;
/// The most bytes of inline changes.
pub const INLINE_MAX: usize = 16 << 10;
/// The most small data in bytes that rides inside a commit object.
pub const SMALL_DATA_MAX: usize = 1 << 20;

/// Why bytes are no commit that this version can read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Written in a version of the body that this program does not know.
    #[error("commit body of version {0}, this program knows {VERSION}")]
    Version(u16),
    /// It needs a feature that this program does not have.
    #[error("commit needs feature {0}, which this program does not have")]
    Feature(u32),
    /// Not a commit's body.
    #[error("malformed commit: {0}")]
    Malformed(&'static str),
}

const VERSION: u16 = 1;
/// Features this version understands: none have been added to the first format yet.
const REQUIRED_KNOWN: u64 = 0;

// Field types, FORMAT.md "Commit body".
const NAME: u16 = 1;
const PREVIOUS: u16 = 2;
const WALL: u16 = 3;
const GENERATION: u16 = 4;
const CONDEMNED_SEEN: u16 = 5;
const BASE: u16 = 6;
const RUNS: u16 = 7;
const TOTALS: u16 = 8;
const HOST: u16 = 9;
const SOURCE: u16 = 10;
const LABEL: u16 = 11;
const INCOMPLETE: u16 = 12;
const NEXT_FILE_ID: u16 = 13;
const INLINE: u16 = 14;

impl Commit {
    /// The body's bytes. The tree must keep to the limits of the format, as `Tree::apply` does.
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.tree.is_within_limits(),
            "a tree beyond the limits of the format"
        );
        let mut out = Vec::with_capacity(512 + self.tree.inline.len());
        out.extend_from_slice(&VERSION.to_le_bytes());
        // Required, then optional features: none so far.
        out.extend_from_slice(&0u64.to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        put_field(&mut out, NAME, &self.name.to_bytes());
        if let Some((name, tag)) = &self.previous {
            put_field(&mut out, PREVIOUS, &[&name.to_bytes()[..], &tag.0].concat());
        }
        put_field(&mut out, WALL, &self.wall.0.to_le_bytes());
        put_field(&mut out, GENERATION, &self.generation.0.to_le_bytes());
        put_field(&mut out, CONDEMNED_SEEN, &self.condemned_seen.to_le_bytes());
        if let Some(base) = &self.tree.base {
            put_field(&mut out, BASE, &page_roots(std::slice::from_ref(base)));
        }
        if !self.tree.runs.is_empty() {
            put_field(&mut out, RUNS, &page_roots(&self.tree.runs));
        }
        put_field(&mut out, TOTALS, &self.totals.to_bytes());
        put_field(&mut out, HOST, self.host.as_bytes());
        put_field(&mut out, SOURCE, &self.source);
        if !self.label.is_empty() {
            put_field(&mut out, LABEL, self.label.as_bytes());
        }
        if self.incomplete {
            put_field(&mut out, INCOMPLETE, b"");
        }
        put_field(&mut out, NEXT_FILE_ID, &self.next_file_id.to_le_bytes());
        if !self.tree.inline.is_empty() {
            put_field(&mut out, INLINE, &self.tree.inline);
        }
        out
    }

    /// Reads [`Self::encode`]. Safe for any input. A required feature that is not known is an error that names it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let short = Error::Malformed("shorter than its header");
        let version = reader.u16().ok_or(short.clone())?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let required = reader.u64().ok_or(short.clone())?;
        let _optional = reader.u64().ok_or(short)?;
        let unknown = required & !REQUIRED_KNOWN;
        if unknown != 0 {
            return Err(Error::Feature(unknown.trailing_zeros()));
        }
        let mut fields = Fields::default();
        each_field(reader.rest(), |kind, value| fields.read(kind, value))
            .ok_or(Error::Malformed("a field cannot be read"))?;
        let commit = fields
            .finish()
            .ok_or(Error::Malformed("a field is missing"))?;
        commit.check()?;
        Ok(commit)
    }

    fn check(&self) -> Result<(), Error> {
        if !self.tree.is_within_limits() {
            return Err(Error::Malformed("tree beyond the limits of the format"));
        }
        if !self.tree.inline.is_empty() {
            let page = Page::decode(self.tree.inline.clone())
                .map_err(|_| Error::Malformed("inline changes cannot be read"))?;
            if page.level() != 0 {
                return Err(Error::Malformed("inline changes are no leaf"));
            }
        }
        Ok(())
    }
}

/// What has been read of a commit so far.
#[derive(Default)]
struct Fields {
    name: Option<CommitName>,
    previous: Option<(CommitName, Tag)>,
    wall: Option<Stamp>,
    generation: Option<Generation>,
    condemned_seen: Option<u64>,
    tree: TreeRoot,
    totals: Option<Totals>,
    host: Option<String>,
    source: Option<Vec<u8>>,
    label: String,
    incomplete: bool,
    next_file_id: Option<u64>,
}

impl Fields {
    fn read(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        match kind {
            NAME => self.name = Some(whole(value, CommitName::read)?),
            PREVIOUS => {
                self.previous = Some(whole(value, |reader| {
                    Some((CommitName::read(reader)?, Tag(reader.array()?)))
                })?);
            }
            WALL => self.wall = Some(Stamp(whole(value, Reader::u64)?)),
            GENERATION => self.generation = Some(Generation(whole(value, Reader::u32)?)),
            CONDEMNED_SEEN => self.condemned_seen = Some(whole(value, Reader::u64)?),
            BASE => self.tree.base = Some(whole(value, PageRoot::read)?),
            RUNS => self.tree.runs = read_page_roots(value)?,
            TOTALS => self.totals = Some(whole(value, Totals::read)?),
            HOST => self.host = Some(text(value)?),
            SOURCE => self.source = Some(value.to_vec()),
            LABEL => self.label = text(value)?,
            INCOMPLETE => self.incomplete = value.is_empty().then_some(true)?,
            NEXT_FILE_ID => self.next_file_id = Some(whole(value, Reader::u64)?),
            INLINE => self.tree.inline = value.to_vec(),
            _ => {}
        }
        Some(())
    }

    fn finish(self) -> Option<Commit> {
        Some(Commit {
            name: self.name?,
            previous: self.previous,
            wall: self.wall?,
            generation: self.generation?,
            condemned_seen: self.condemned_seen?,
            tree: self.tree,
            totals: self.totals?,
            host: self.host?,
            source: self.source?,
            label: self.label,
            incomplete: self.incomplete,
            next_file_id: self.next_file_id?,
        })
    }
}

impl PageRoot {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let root = Self {
            place: Place::read(reader)?,
            height: reader.u8()?,
            entries: reader.varint()?,
            bytes: reader.varint()?,
        };
        (1..=HEIGHT_MAX).contains(&root.height).then_some(root)
    }
}

fn page_roots(roots: &[PageRoot]) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 * roots.len());
    for root in roots {
        root.place.encode_into(&mut out);
        out.push(root.height);
        put_varint(&mut out, root.entries);
        put_varint(&mut out, root.bytes);
    }
    out
}

fn read_page_roots(bytes: &[u8]) -> Option<Vec<PageRoot>> {
    let mut reader = Reader::new(bytes);
    let mut roots = Vec::new();
    while !reader.is_empty() {
        if roots.len() == RUNS_MAX {
            return None;
        }
        roots.push(PageRoot::read(&mut reader)?);
    }
    Some(roots)
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
