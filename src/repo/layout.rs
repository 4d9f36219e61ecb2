//! Object names: made here, read here, nowhere else (FORMAT.md, object names).

use crate::format::entry::CommitName;
use crate::id::{BlockId, ObjectKey, VolumeId};

/// Where a block of data or tree pages lies. Panics never; a commit's block has no name of its own: use [`commit`].
pub fn block(_volume: VolumeId, _id: BlockId) -> ObjectKey {
    todo!()
}
/// Where a commit lies.
pub fn commit(_volume: VolumeId, _name: &CommitName) -> ObjectKey {
    todo!()
}
/// Reads a commit's object name back; `None` if it is none.
pub fn parse_commit(_volume: VolumeId, _key: &ObjectKey) -> Option<CommitName> {
    todo!()
}
