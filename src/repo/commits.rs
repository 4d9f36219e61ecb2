//! Finding and reading commits. A reader lists claims and commits before anything else.

use crate::clock::Stamp;
use crate::format::commit::Commit;
use crate::format::entry::{CommitName, HistoryEntry};
use crate::id::{Seq, Tag};
use crate::repo::{Error, Volume};

/// A point in time as a person asks for it, already turned from text into this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Point {
    /// The newest commit, by era and sequence.
    Latest,
    /// The n-th before the newest.
    Back(u64),
    /// The newest not later than this wall time.
    At(Stamp),
    /// This sequence number.
    Seq(Seq),
    /// A snapshot's name or the beginning of its id (hexadecimal of its tag).
    Named(String),
}

/// A commit that has been read and proven, with its own tag and object length.
#[derive(Clone, Debug)]
pub struct Found {
    /// It.
    pub commit: Commit,
    /// Tag of its first frame: its id.
    pub tag: Tag,
    /// Bytes of its object.
    pub object_len: u64,
}

impl Volume {
    /// The newest commit of the valid chain; `None` for a volume without any.
    pub async fn head(&self) -> Result<Option<Found>, Error> {
        todo!()
    }
    /// Reads one commit by name and proves it.
    pub async fn read_commit(&self, _name: &CommitName) -> Result<Found, Error> {
        todo!()
    }
    /// Finds what `point` means; [`Error::NotFound`] gives the window that there is.
    pub async fn find(&self, _point: &Point) -> Result<Found, Error> {
        todo!()
    }
    /// The history as `head` knows it, itself included, oldest first.
    pub async fn history(&self, _head: &Found) -> Result<Vec<HistoryEntry>, Error> {
        todo!()
    }
}

/// A snapshot's id as shown to people: the first 16 hexadecimal digits of its tag.
pub fn snapshot_id(tag: &Tag) -> String {
    tag.to_string()[..16].to_owned()
}
