//! Keeps the open epoch from growing for ever where nothing can be published: while the repository has not been reached yet, and
//! after another writer has taken the volume.
//!
//! What is dropped is found again by comparison: in the first case by the scan that is owed before anything is published, in the
//! second by that of the next mount. The journal keeps its records until then. Never to be called once a scan has begun
//! whose result is going to be published.

use crate::epoch::{ChangeSize, Epochs};

/// An open epoch with this many inodes and names is as large as it may become: about 100 MiB of memory.
pub(crate) const OPEN_CHANGES_MAX: u64 = 200_000;

/// Whether an open epoch is as large as it may become.
pub(crate) fn is_large(open: ChangeSize) -> bool {
    open.inodes.saturating_add(open.names) >= OPEN_CHANGES_MAX
}

/// Drops what the open epoch holds if that is as much as it may be. Waits for the requests under way; returns whether anything was dropped.
pub fn shed_if_large(epochs: &Epochs) -> bool {
    is_large(epochs.open_size()) && shed(epochs)
}

fn shed(epochs: &Epochs) -> bool {
    // Folded by a writer meanwhile: then it is in the open epoch again, and tried the next time.
    epochs.seal().is_some_and(|sealed| sealed.finish().is_ok())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::epoch::Options;
    use crate::id::FileId;
    use crate::journal::Journal;
    use crate::source::Source;

    #[test]
    fn what_is_shed_is_gone_from_memory_and_stays_in_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        std::fs::create_dir(place("source")).unwrap();
        std::fs::write(place("source").join("file"), [1; 5000]).unwrap();
        let source = Source::open(&place("source"), &place("identity"), FileId(2)).unwrap();
        let source = Arc::new(source);
        let journal = Arc::new(Journal::open(&place("journal")).unwrap().0);
        let options = Options {
            preserve_bytes: 1 << 20,
            kept_files: 1,
        };
        let epochs = Epochs::new(source.clone(), journal.clone(), options);
        let (node, _) = source.lookup(&source.root(), b"file").unwrap();
        let file = epochs.inode(&node);
        epochs
            .change(&[&file])
            .unwrap()
            .dirty(&file, 0..10)
            .unwrap();

        assert!(!shed_if_large(&epochs), "one file is not many");
        assert!(!epochs.open_size().is_empty());
        assert!(shed(&epochs));
        assert!(epochs.open_size().is_empty());
        let owed = journal.records().unwrap();
        assert!(owed.iter().any(|(id, ..)| *id == node.id), "{owed:?}");
        assert!(!shed(&epochs), "there is nothing left");
        // What comes next is an epoch like any other.
        epochs
            .change(&[&file])
            .unwrap()
            .dirty(&file, 0..10)
            .unwrap();
        assert_eq!(epochs.seal().unwrap().ids(), [node.id]);
    }
}
