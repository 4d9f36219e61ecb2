//! What a restore will write, decided before anything is written: a walk of the snapshot from the paths that were asked
//! for, in batches, parents before children and each directory closed after its last child.
//!
//! Nothing here touches the target. `--dry-run` prints these steps; the rest of this module carries them out.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::format::entry::{Inode, Kind, Malformed, NameEntry};
use crate::format::key::is_entry_name;
use crate::id::FileId;
use crate::path::RepoPath;
use crate::repo::Error;
use crate::repo::blocks::Blocks;
use crate::repo::tree::{self, Tree};

/// Names read from the tree in one go.
const NAMES_AT_ONCE: usize = 1024;

/// One thing to do, in this order.
#[derive(Debug)]
pub enum Step {
    /// Make this directory and go into it; its attributes come with [`Step::Leave`], unless they are damaged.
    Enter(RepoPath),
    /// Make anything that is no directory, with its contents and attributes.
    Make(Item),
    /// All below this directory has been made: give it its attributes and times.
    Leave {
        /// Which.
        path: RepoPath,
        /// It, unless its attributes are damaged.
        item: Option<Item>,
    },
    /// This is damaged in the repository; the rest goes on, and so does what lies below it where its names can be read.
    Unreadable {
        /// Where it would have gone.
        path: RepoPath,
        /// What is damaged.
        error: Error,
    },
}

/// One inode under one name.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where, relative to the target.
    pub path: RepoPath,
    /// The volume's number for it: the same for all names of a hard-linked file.
    pub id: FileId,
    /// What it is.
    pub inode: Inode,
}

/// A walk under way. Memory grows with the depth of the tree, not with its size.
pub struct Walk {
    tree: Tree<Arc<Blocks>>,
    stack: Vec<Open>,
    ready: VecDeque<Step>,
}

/// A directory that has been entered and not yet left.
struct Open {
    path: RepoPath,
    id: FileId,
    /// `None` if its inode is damaged: what lies in it is restored all the same.
    item: Option<Item>,
    /// The last name read from it.
    after: Option<Vec<u8>>,
    /// Names read and not yet turned into steps.
    names: VecDeque<(Vec<u8>, NameEntry)>,
    exhausted: bool,
}

impl Walk {
    /// Plans to restore `paths` (everything when empty). Each keeps its whole path below the target, and the directories
    /// above it are made with it. [`Error::NotFound`] names a path that the snapshot does not have.
    pub async fn begin(tree: Tree<Arc<Blocks>>, paths: &[RepoPath]) -> Result<Self, Error> {
        let mut walk = Self {
            tree,
            stack: Vec::new(),
            ready: VecDeque::new(),
        };
        if paths.is_empty() || paths.iter().any(RepoPath::is_root) {
            let root = NameEntry {
                id: FileId::ROOT,
                kind: Kind::Dir,
            };
            walk.visit(RepoPath::root(), root).await?;
            return Ok(walk);
        }
        // A later entry of the stack is walked first.
        for path in outermost(paths).into_iter().rev() {
            match walk.named(&path).await {
                Ok((above, entry)) => walk.go_down(above, path, entry).await?,
                // One that cannot be found for damage is no reason to bring back none of the others.
                Err(error) if error.is_damage() => walk.pass_over(path, error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(walk)
    }

    /// Makes the directories above `path`, and it.
    async fn go_down(
        &mut self,
        above: Vec<(RepoPath, FileId)>,
        path: RepoPath,
        entry: NameEntry,
    ) -> Result<(), Error> {
        for (path, id) in above {
            let item = match self.inode(id).await {
                Ok(inode) => Some(Item {
                    path: path.clone(),
                    id,
                    inode,
                }),
                Err(error) => {
                    self.pass_over(path.clone(), error)?;
                    None
                }
            };
            self.enter(path, id, item);
            // Only `path` is made below it, not all that it holds.
            if let Some(open) = self.stack.last_mut() {
                open.exhausted = true;
            }
        }
        self.visit(path, entry).await
    }

    /// The next steps, at most about `limit`; empty when all is planned.
    pub async fn next_batch(&mut self, limit: usize) -> Result<Vec<Step>, Error> {
        while self.ready.len() < limit && !self.stack.is_empty() {
            self.advance().await?;
        }
        let take = self.ready.len().min(limit);
        Ok(self.ready.drain(..take).collect())
    }

    async fn advance(&mut self) -> Result<(), Error> {
        let Some(top) = self.stack.last_mut() else {
            return Ok(());
        };
        if let Some((name, entry)) = top.names.pop_front() {
            let path = top.path.join(&name);
            // `..` or a slash would lead out of the target.
            if !is_entry_name(&name) {
                let why = Malformed("name: it would lead out of its directory");
                return self.pass_over(path, tree::Error::from(why).into());
            }
            // A directory within itself would never end.
            if self.stack.iter().any(|open| open.id == entry.id) {
                let why = Malformed("name: it leads to a directory above it");
                return self.pass_over(path, tree::Error::from(why).into());
            }
            self.visit(path, entry).await?;
        } else if top.exhausted {
            let done = self.stack.pop();
            let leave = done.map(|Open { path, item, .. }| Step::Leave { path, item });
            self.ready.extend(leave);
        } else {
            let (id, path) = (top.id, top.path.clone());
            let names = self
                .tree
                .names(id, top.after.as_deref(), NAMES_AT_ONCE)
                .await;
            match names {
                Ok(names) => {
                    top.exhausted = names.len() < NAMES_AT_ONCE;
                    top.after = names.last().map(|(name, _)| name.clone());
                    top.names = names.into();
                }
                Err(error) => {
                    top.exhausted = true;
                    self.pass_over(path, error)?;
                }
            }
        }
        Ok(())
    }

    /// What a name leads to.
    async fn visit(&mut self, path: RepoPath, entry: NameEntry) -> Result<(), Error> {
        let NameEntry { id, kind } = entry;
        match self.inode(id).await {
            Ok(inode) => self.plan(Item { path, id, inode }),
            Err(error) => {
                let is_damage = error.is_damage();
                self.pass_over(path.clone(), error)?;
                if is_damage && kind == Kind::Dir {
                    self.enter(path, id, None);
                }
            }
        }
        Ok(())
    }

    async fn inode(&self, id: FileId) -> Result<Inode, Error> {
        let found = self.tree.inode(id).await?;
        found.ok_or_else(|| {
            Error::NotFound(format!(
                "the snapshot has a name for inode {id}, but no such inode"
            ))
        })
    }

    /// What is damaged is passed over, and reported; a store that cannot be reached ends the walk.
    fn pass_over(&mut self, path: RepoPath, error: Error) -> Result<(), Error> {
        match error.is_damage() || matches!(error, Error::NotFound(_)) {
            true => {
                self.ready.push_back(Step::Unreadable { path, error });
                Ok(())
            }
            false => Err(error),
        }
    }

    fn plan(&mut self, item: Item) {
        match item.inode.kind {
            Kind::Dir => self.enter(item.path.clone(), item.id, Some(item)),
            _ => self.ready.push_back(Step::Make(item)),
        }
    }

    fn enter(&mut self, path: RepoPath, id: FileId, item: Option<Item>) {
        self.ready.push_back(Step::Enter(path.clone()));
        self.stack.push(Open {
            path,
            id,
            item,
            after: None,
            names: VecDeque::new(),
            exhausted: false,
        });
    }

    /// The directories between the target and `path`, outermost first, and what its last name leads to. Names alone are read.
    async fn named(&self, path: &RepoPath) -> Result<(Vec<(RepoPath, FileId)>, NameEntry), Error> {
        let mut above = Vec::new();
        let mut at = NameEntry {
            id: FileId::ROOT,
            kind: Kind::Dir,
        };
        let mut here = RepoPath::root();
        for component in path.components() {
            if !here.is_root() {
                above.push((here.clone(), at.id));
            }
            let found = self.tree.name(at.id, component).await?;
            at = found.ok_or_else(|| Error::NotFound(format!("the snapshot has no {path}")))?;
            here = here.join(component);
        }
        Ok((above, at))
    }
}

/// `paths` without those that lie below another of them.
fn outermost(paths: &[RepoPath]) -> Vec<RepoPath> {
    let mut sorted = paths.to_vec();
    sorted.sort();
    let mut kept: Vec<RepoPath> = Vec::new();
    for path in sorted {
        if !kept.last().is_some_and(|last| path.is_within(last)) {
            kept.push(path);
        }
    }
    kept
}
