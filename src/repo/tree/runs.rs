//! Where changes go: they stay in the commit while they are small, become a run when they are not, runs are merged
//! by size, and all are merged into the base when that pays. Changes no old page: a new root names new pages.

use std::sync::Arc;

use crate::format::commit::{INLINE_MAX, PageRoot, RUNS_MAX, TreeRoot};
use crate::format::entry::Change;
use crate::format::page::{Entry, Page, encode, encoded_len};
use crate::repo::Error;
use crate::repo::tree::base::{touched_leaves, update};
use crate::repo::tree::cursor::Loader;
use crate::repo::tree::overlay::{Absence, Overlay};
use crate::repo::tree::scan::{Layers, Scan};
use crate::repo::tree::{PageSink, Pages, changes};

/// A run stays beside a newer one only if it is this many times as large; else they are merged. Each byte of a
/// change is then rewritten a few times per power of eight that the runs grow.
const SIZE_RATIO: u64 = 8;
/// So many changes for each leaf of the base they touch are worth rewriting that leaf.
const CHANGES_PER_LEAF: u64 = 16;
/// Changes that weigh this part of the base are merged into it wherever they fall: rewriting all of it then costs
/// little more than keeping them apart, and reading costs less.
const COMPARABLE: u64 = 2;

/// The root of the tree under `root` and `inline` (its inline changes, decoded) with `list` applied.
pub(super) async fn apply<P: Pages>(
    loader: &Loader<P>,
    root: &TreeRoot,
    inline: Option<&Arc<Page>>,
    list: impl IntoIterator<Item = Change>,
    sink: &mut dyn PageSink,
) -> Result<TreeRoot, Error> {
    let fresh = changes::sorted(list)?;
    if fresh.is_empty() {
        return Ok(root.clone());
    }
    let changes = Layers {
        base: None,
        runs: &[],
        inline,
        fresh: &fresh,
    };
    if let Some(inline) = stay_inline(loader, root, changes.clone()).await? {
        return Ok(TreeRoot {
            inline,
            ..root.clone()
        });
    }
    let bytes = (root.inline.len() + encoded_len(&fresh)) as u64;
    let kept = match root.base {
        Some(_) => runs_kept(&root.runs, bytes),
        // Nothing is older than the runs: all becomes the base.
        None => 0,
    };
    let (older, absorbed) = root.runs.split_at(kept);
    let changes = Layers {
        runs: absorbed,
        ..changes
    };
    let bytes = bytes + absorbed.iter().map(|run| run.bytes).sum::<u64>();
    let mut new = TreeRoot {
        base: root.base.clone(),
        runs: older.to_vec(),
        inline: Vec::new(),
    };
    if kept == 0 && pays_to_merge(loader, root.base.as_ref(), changes.clone(), bytes).await? {
        let absence = match root.base {
            Some(_) => Absence::Kept,
            None => Absence::Dropped,
        };
        let scan = Scan::new(loader, changes, b"", Overlay::new(absence)).await?;
        new.base = update(loader, root.base.as_ref(), scan, Absence::Dropped, sink).await?;
    } else {
        let scan = Scan::new(loader, changes, b"", Overlay::new(Absence::Kept)).await?;
        new.runs
            .extend(update(loader, None, scan, Absence::Kept, sink).await?);
    }
    Ok(new)
}

/// The new inline section, if all changes still fit it.
async fn stay_inline<P: Pages>(
    loader: &Loader<P>,
    root: &TreeRoot,
    changes: Layers<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    if encoded_len(changes.fresh) > INLINE_MAX {
        return Ok(None);
    }
    let absence = match root.is_all_inline() {
        true => Absence::Dropped,
        false => Absence::Kept,
    };
    let mut scan = Scan::new(loader, changes, b"", Overlay::new(absence)).await?;
    // Inline changes and fresh ones, each within the limit: small enough to gather.
    let mut entries: Vec<Entry> = Vec::new();
    while let Some(entry) = scan.next().await? {
        entries.push(entry);
    }
    Ok(match entries.is_empty() {
        true => Some(Vec::new()),
        false => (encoded_len(&entries) <= INLINE_MAX).then(|| encode(0, &entries)),
    })
}

/// How many of the oldest runs stay as they are when a run of so many bytes joins them; the others are merged with it.
fn runs_kept(runs: &[PageRoot], mut bytes: u64) -> usize {
    let mut kept = runs.len();
    while let Some(last) = runs[..kept].last() {
        if kept < RUNS_MAX && last.bytes >= SIZE_RATIO * bytes {
            break;
        }
        bytes += last.bytes;
        kept -= 1;
    }
    kept
}

/// Whether changes of so many bytes should go into the base: it is empty, or hardly larger, or they are dense in it.
async fn pays_to_merge<P: Pages>(
    loader: &Loader<P>,
    base: Option<&PageRoot>,
    changes: Layers<'_>,
    bytes: u64,
) -> Result<bool, Error> {
    let Some(base) = base else { return Ok(true) };
    if bytes >= base.bytes / COMPARABLE {
        return Ok(true);
    }
    let scan = Scan::new(loader, changes, b"", Overlay::new(Absence::Kept)).await?;
    let (changes, leaves) = touched_leaves(loader, base, scan).await?;
    Ok(changes >= CHANGES_PER_LEAF * leaves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{Address, Hint, Place};
    use crate::id::{BlockClass, BlockId, FrameNo, SessionId};

    fn runs(sizes: &[u64]) -> Vec<PageRoot> {
        let block = BlockId {
            key_epoch: 0,
            class: BlockClass::Tree,
            session: SessionId([0; 8]),
            number: 0,
        };
        let at = Address {
            block,
            frame: FrameNo(0),
            inner: 0,
        };
        let hint = Hint {
            offset: 0,
            len: 0,
            commit: None,
        };
        let root = |&bytes| PageRoot {
            place: Place {
                at,
                hint: hint.clone(),
            },
            height: 1,
            entries: 1,
            bytes,
        };
        sizes.iter().map(root).collect()
    }

    #[test]
    fn runs_are_merged_by_size_and_never_more_than_four() {
        assert_eq!(runs_kept(&runs(&[]), 1), 0);
        assert_eq!(runs_kept(&runs(&[8]), 1), 1, "large enough to stay");
        assert_eq!(runs_kept(&runs(&[7]), 1), 0, "merged");
        assert_eq!(runs_kept(&runs(&[640, 64, 8]), 1), 3);
        assert_eq!(runs_kept(&runs(&[200, 20, 1]), 1), 2, "one merge");
        assert_eq!(
            runs_kept(&runs(&[70, 8, 2]), 1),
            0,
            "one merge sets off the next"
        );
        assert_eq!(
            runs_kept(&runs(&[100_000, 10_000, 1000, 100]), 1),
            3,
            "no room for a fifth"
        );
        assert_eq!(runs_kept(&runs(&[100_000, 10_000, 1000, 100]), 100_000), 0);
    }
}
