//! Names that no commit has, since what they point to cannot be read: for when it can. The flow keeps one of these; a restart
//! forgets it, and the scan of the next mount finds such names anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::flusher::entries::NameChange;
use crate::format::entry::NameEntry;
use crate::id::FileId;

/// At most as many as there are refused inodes, links aside.
#[derive(Default)]
pub(crate) struct Withheld {
    names: BTreeMap<(FileId, Vec<u8>), NameEntry>,
}

impl Withheld {
    /// The names of `readable`, but for those of which `names` (sorted) says something newer.
    pub(crate) fn of(&self, readable: &[FileId], names: &[NameChange]) -> Vec<NameChange> {
        let said = |dir: FileId, name: &[u8]| {
            let newer = names.binary_search_by(|n| (n.0, &n.1[..]).cmp(&(dir, name)));
            newer.is_ok()
        };
        let known = self.names.iter().filter(|(_, e)| readable.contains(&e.id));
        known
            .filter(|((dir, name), _)| !said(*dir, name))
            .map(|((dir, name), entry)| (*dir, name.clone(), Some(*entry)))
            .collect()
    }

    /// A commit says `names`, but for those of what is `refused`.
    pub(crate) fn committed(&mut self, names: Vec<NameChange>, refused: &BTreeSet<FileId>) {
        for (dir, name, entry) in names {
            match entry.filter(|entry| refused.contains(&entry.id)) {
                Some(entry) => drop(self.names.insert((dir, name), entry)),
                None => drop(self.names.remove(&(dir, name))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Kind;

    const FILE: NameEntry = NameEntry {
        id: FileId(7),
        kind: Kind::File,
    };

    fn name(name: &[u8], entry: Option<NameEntry>) -> NameChange {
        (FileId::ROOT, name.to_vec(), entry)
    }

    /// A file that could not be read when it was made had no name in any commit once it could be: it was never seen again.
    #[test]
    fn a_file_that_can_be_read_at_last_gets_the_names_it_has_by_then() {
        let refused = BTreeSet::from([FILE.id]);
        let mut withheld = Withheld::default();
        withheld.committed(
            vec![name(b"a", Some(FILE)), name(b"b", Some(FILE))],
            &refused,
        );
        withheld.committed(vec![name(b"a", None), name(b"c", Some(FILE))], &refused);
        let newer = [name(b"b", None)];
        assert_eq!(withheld.of(&[FILE.id], &newer), [name(b"c", Some(FILE))]);
        assert!(withheld.of(&[FileId(8)], &[]).is_empty());
        let all = withheld.of(&[FILE.id], &[]);
        withheld.committed(all, &BTreeSet::new());
        assert!(withheld.of(&[FILE.id], &[]).is_empty());
    }
}
