//! The cover: a word that a mount lay over the source, and that the records have held everything in which the source could differ
//! from its commits, from a comparison on for as long as that mount lies there.
//!
//! It is what lets reconcile believe, after the process was killed, that a large file differs only where there are records. So it is
//! given only when a comparison has ended and nothing had to be passed over, and taken back the moment that it may be wrong: when a record
//! could not be made, and when a file is left out of a commit. It is worth something only in the same boot and while the dead mount is still
//! found, so its file need not be durable.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::id::Seq;

/// The file beside the database.
const FILE: &str = "cover";
const FIRST_LINE: &str = "rewindfs cover 1";

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cover {
    /// The mount, as it is to be known again when it is dead.
    pub mount: String,
    /// The commit up to which records may have been forgotten: the comparison must be with this one or a later one.
    pub commit: Seq,
}

/// The cover of an open journal.
pub(super) struct Kept {
    path: PathBuf,
    /// What the last life has left.
    pub(super) before: Option<Cover>,
    now: Mutex<Option<Cover>>,
}

impl Kept {
    /// Reads what the last life has left in `dir`, and takes it away: this life has to give its own word.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        // One that cannot be read is as good as none.
        let text = fs::read_to_string(&path).ok();
        let before = text.as_deref().and_then(Cover::parse);
        remove(&path)?;
        Ok(Self {
            path,
            before,
            now: Mutex::new(None),
        })
    }

    /// Gives the word.
    pub(super) fn give(&self, cover: Cover) -> io::Result<()> {
        let mut now = self.now.lock();
        cover.write(&self.path)?;
        *now = Some(cover);
        Ok(())
    }

    /// Records up to `commit` are about to be forgotten. Without a word given there is nothing to do.
    pub(super) fn raise(&self, commit: Seq) -> io::Result<()> {
        let mut now = self.now.lock();
        let Some(cover) = now.as_mut().filter(|cover| cover.commit < commit) else {
            return Ok(());
        };
        cover.commit = commit;
        cover.write(&self.path)
    }

    /// Takes the word back.
    pub(super) fn take_back(&self) -> io::Result<()> {
        let mut now = self.now.lock();
        *now = None;
        remove(&self.path)
    }
}

impl Cover {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == FIRST_LINE).then_some(())?;
        let mount = lines.next()?.strip_prefix("mount ")?.to_owned();
        let commit = lines.next()?.strip_prefix("commit ")?.parse().ok()?;
        (lines.next()? == "end .").then_some(Self {
            mount,
            commit: Seq(commit),
        })
    }

    /// In one step: a process that is killed meanwhile leaves the old word or the new one.
    fn write(&self, path: &Path) -> io::Result<()> {
        let Self { mount, commit } = self;
        let temporary = path.with_extension("new");
        fs::write(
            &temporary,
            format!("{FIRST_LINE}\nmount {mount}\ncommit {commit}\nend .\n"),
        )?;
        fs::rename(temporary, path)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(commit: u64) -> Cover {
        Cover {
            mount: "0123456789abcdef".into(),
            commit: Seq(commit),
        }
    }

    #[test]
    fn a_word_outlives_its_process_and_serves_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = Kept::open(dir.path()).unwrap();
        assert_eq!(first.before, None);
        first.give(cover(7)).unwrap();
        first.raise(Seq(5)).unwrap();
        assert_eq!(Kept::open(dir.path()).unwrap().before, Some(cover(7)));
        assert_eq!(Kept::open(dir.path()).unwrap().before, None);
    }

    #[test]
    fn what_is_forgotten_raises_it_and_a_doubt_takes_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        kept.raise(Seq(3)).unwrap();
        assert!(!dir.path().join(FILE).exists(), "no word was given");
        kept.give(cover(7)).unwrap();
        kept.raise(Seq(9)).unwrap();
        assert_eq!(Kept::open(dir.path()).unwrap().before, Some(cover(9)));
        kept.give(cover(9)).unwrap();
        kept.take_back().unwrap();
        kept.raise(Seq(10)).unwrap();
        assert_eq!(Kept::open(dir.path()).unwrap().before, None);
    }

    #[test]
    fn a_file_of_another_shape_is_no_word() {
        let text = "rewindfs cover 1\nmount x\ncommit 7\nend .\n";
        assert_eq!(Cover::parse(text).unwrap().commit, Seq(7));
        for cut in 0..text.len() - 1 {
            assert_eq!(Cover::parse(&text[..cut]), None, "{cut}");
        }
        assert_eq!(Cover::parse(&text.replace('7', "x")), None);
    }
}
