//! Single names that are owed: a request was carried out and could not be noted, so what stands there now is said again.
//!
//! No tree is needed. Under the lock of its directory a name is what it is, and a file that is found there is taken as a whole.

use std::io;
use std::sync::Arc;

use crate::epoch::Epochs;
use crate::format::entry::{Kind, NameEntry};
use crate::source::{Node, Source};

/// Says what each name (directory, name) points to now. Stops at the first that cannot be looked at: that and the rest stay owed.
pub fn pay_names(
    source: &Source,
    epochs: &Arc<Epochs>,
    names: &[(Node, Vec<u8>)],
) -> io::Result<()> {
    for (dir, name) in names {
        pay_name(source, epochs, dir, name)?;
    }
    Ok(())
}

fn pay_name(source: &Source, epochs: &Arc<Epochs>, dir: &Node, name: &[u8]) -> io::Result<()> {
    let parent = epochs.inode(dir);
    let touched = [&parent];
    let mut guard = epochs.change(&touched)?;
    match source.lookup_in_passing(dir, name) {
        Ok((node, stat)) => {
            let entry = NameEntry {
                id: node.id,
                kind: stat.kind,
            };
            guard.name(&parent, name, Some(entry));
            // The last commit may have another inode there.
            guard.known_name(&parent, name);
            let all = 0..stat.size;
            let contents = stat.kind == Kind::File && !all.is_empty();
            guard.suspected(
                &node,
                if contents {
                    std::slice::from_ref(&all)
                } else {
                    &[]
                },
            );
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            guard.name(&parent, name, None);
        }
        // The directory is gone, and its names with it: whoever removed it has said so.
        Err(error)
            if error.raw_os_error() == Some(libc::ESTALE) && !source.may_be_elsewhere(dir) => {}
        Err(error) => return Err(error),
    }
    guard.paid(&parent, name);
    Ok(())
}
