//! Listing a folder's objects in the byte order of their keys, from any key on.
//!
//! Folders are entered one after the other, each with its names sorted; a folder that lies wholly before the first
//! wanted key, or outside the prefix, is never opened. So memory holds the names of the folders on one path only.

use std::fs;
use std::io;
use std::path::Path;

use crate::id::ObjectKey;
use crate::store::{Listing, names};

/// Up to `limit` objects whose keys begin with `prefix` and follow `after` (`""`: all).
pub(super) fn list(root: &Path, prefix: &str, after: &str, limit: usize) -> io::Result<Listing> {
    let mut listing = Listing::default();
    // What the prefix says in full needs no looking around.
    let start = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    if !start.is_empty() && !names::is_key(&start[..start.len() - 1]) {
        return Ok(listing);
    }
    let wanted = Wanted { prefix, after };
    // Each level's names, the next one last.
    let mut levels = vec![wanted.names_in(root, start)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.pop() else {
            levels.pop();
            continue;
        };
        if name.ends_with('/') {
            levels.push(wanted.names_in(root, &name)?);
            continue;
        }
        let len = match fs::symlink_metadata(root.join(&name)) {
            Ok(found) => found.len(),
            // Deleted since its folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if listing.objects.len() == limit {
            listing.more = true;
            break;
        }
        listing.objects.push((ObjectKey::new(name), len));
    }
    Ok(listing)
}

struct Wanted<'a> {
    prefix: &'a str,
    after: &'a str,
}

impl Wanted<'_> {
    /// The wanted names in the folder `within` (empty, or ending with a slash), whole, in falling byte order.
    /// Folders end with a slash, which is how they sort among the keys: `a-b` before `a/b`.
    fn names_in(&self, root: &Path, within: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(root.join(within)) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) && !within.is_empty() =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry
                .file_name()
                .to_str()
                .map(|name| format!("{within}{name}"))
            else {
                continue;
            };
            if !names::is_key(&name) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() && self.may_hold(&format!("{name}/")) {
                found.push(format!("{name}/"));
            } else if kind.is_file() && self.is(&name) {
                found.push(name);
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    fn is(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && key > self.after
    }

    /// Whether a folder whose keys all begin with `start` can hold a wanted one.
    fn may_hold(&self, start: &str) -> bool {
        let in_prefix = start.starts_with(self.prefix) || self.prefix.starts_with(start);
        in_prefix && (start > self.after || self.after.starts_with(start))
    }
}
