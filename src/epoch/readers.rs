//! The last few files read for the sealed epoch, kept open: a file is captured in many pieces.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::epoch::origin::{Contents, Origin};
use crate::id::FileId;
use crate::source::Node;

/// Files kept open: one for each thread that captures or preserves, with some to spare.
const READERS_MAX: usize = 16;

/// Open files, the most recently used last.
#[derive(Default)]
pub(crate) struct Readers {
    open: Mutex<Vec<(FileId, Arc<dyn Contents>)>>,
}

impl Readers {
    /// The open file of a node, opened now if it was not.
    pub(crate) fn get(&self, origin: &dyn Origin, node: &Node) -> io::Result<Arc<dyn Contents>> {
        if let Some(contents) = self.find(node.id) {
            return Ok(contents);
        }
        let contents = origin.open(node)?;
        let mut open = self.open.lock();
        if open.len() >= READERS_MAX {
            open.remove(0);
        }
        open.push((node.id, Arc::clone(&contents)));
        Ok(contents)
    }

    fn find(&self, id: FileId) -> Option<Arc<dyn Contents>> {
        let mut open = self.open.lock();
        let at = open.iter().position(|(have, _)| *have == id)?;
        let found = open.remove(at);
        let contents = Arc::clone(&found.1);
        open.push(found);
        Some(contents)
    }

    /// Closes them all, so that no unlinked file holds its space.
    pub(crate) fn clear(&self) {
        self.open.lock().clear();
    }
}
