//! `rewindfs ls`: looks into a snapshot without FUSE.

use std::path::PathBuf;

use super::at::{At, Opened};
use super::context::{Context, block_on};
use super::exit::Exit;
use super::{output, time};
use crate::clock::Stamp;
use crate::format::entry::{Inode, Kind};
use crate::path::RepoPath;
use crate::repo::Error;

/// Names fetched at once: about what a few tree pages hold.
const NAMES_AT_ONCE: usize = 1024;

/// List a directory as it was, without mounting anything
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A PATH inside a directory that is (or was) mounted live means the file there; any other is taken from the volume's root.

Examples:
  rewindfs ls --at 10m ~/Documents
  rewindfs ls --at yesterday --repo /mnt/usb/docs-repo reports/2026")]
pub(crate) struct Args {
    #[command(flatten)]
    at: At,
    /// What to list
    #[arg(default_value = ".")]
    path: PathBuf,
}

impl Args {
    /// Prints one line for each name.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let point = self.at.point(context)?;
        let (selected, path) = self.at.select_path(context, &self.path)?;
        let opening = context.opening(&selected.repo)?;
        block_on(async {
            let snapshot = Opened::open(&opening, &selected, &point).await?;
            context.echo(&snapshot.found);
            list(context, &snapshot, &path).await
        })
    }
}

/// [`Exit::Damage`] if something could not be listed, which is named.
async fn list(context: &Context, snapshot: &Opened, path: &RepoPath) -> anyhow::Result<Exit> {
    let (id, inode) = snapshot.resolve(path).await?;
    if inode.kind != Kind::Dir {
        let name = path.components().last().unwrap_or_default();
        output::line(&line(context, name, &inode))?;
        return Ok(Exit::Done);
    }
    let tree = snapshot.tree();
    let mut after: Option<Vec<u8>> = None;
    let mut exit = Exit::Done;
    loop {
        let names = tree.names(id, after.as_deref(), NAMES_AT_ONCE).await?;
        for (name, entry) in &names {
            let path = path.join(name);
            match tree.inode(entry.id).await {
                Ok(Some(inode)) => output::line(&line(context, name, &inode))?,
                Ok(None) => {
                    return Err(Error::NotFound(format!("{path} has no inode")).into());
                }
                // What is listed after it may be whole.
                Err(error) if error.is_damage() => {
                    output::warning(&format!("{path} cannot be shown: {error}"));
                    exit = Exit::Damage;
                }
                Err(error) => return Err(error.into()),
            }
        }
        match names.into_iter().next_back() {
            Some((last, _)) => after = Some(last),
            None => return Ok(exit),
        }
    }
}

/// `drwxr-xr-x  1000  1000      4096  2026-11-21 10:00:00.000+01:00  name`
fn line(context: &Context, name: &[u8], inode: &Inode) -> String {
    let when = u64::try_from(inode.mtime.secs).map_or(0, |secs| {
        secs.saturating_mul(1000) + u64::from(inode.mtime.nanos / 1_000_000)
    });
    let target = match inode.kind {
        Kind::Symlink => format!(" -> {}", output::printable(&inode.target)),
        _ => String::new(),
    };
    format!(
        "{mode}  {uid:>5}  {gid:>5}  {size:>12}  {when}  {name}{target}",
        mode = mode(inode.kind, inode.mode),
        uid = inode.uid,
        gid = inode.gid,
        size = inode.size,
        when = time::local(Stamp(when), &context.now),
        name = output::printable(name),
    )
}

/// `drwxr-xr-x`, as ls(1) writes it.
fn mode(kind: Kind, mode: u16) -> String {
    let kind = match kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
    };
    let mut text = String::from(kind);
    let classes = [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')];
    for (shift, special, letter) in classes {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_writes_them() {
        assert_eq!(mode(Kind::Dir, 0o755), "drwxr-xr-x");
        assert_eq!(mode(Kind::File, 0o4755), "-rwsr-xr-x");
        assert_eq!(mode(Kind::File, 0o2644), "-rw-r-Sr--");
        assert_eq!(mode(Kind::Dir, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(Kind::Symlink, 0o777), "lrwxrwxrwx");
    }
}
