//! Where things of ours lie on this machine: state, cache, configuration and the repository of the embedded default.
//!
//! Every path is absolute, so that changing the working directory (as a background process does) changes nothing.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use directories::ProjectDirs;

use super::Error;

/// Our directories. None of them need exist yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dirs {
    /// What a mount must remember: journals, spools, which volume a directory is.
    pub state: PathBuf,
    /// What can be deleted at any time.
    pub cache: PathBuf,
    /// `config.toml` and the key file of the embedded default.
    pub config: PathBuf,
    /// The repository that is made when none is named.
    pub default_repository: PathBuf,
}

impl Dirs {
    /// From `REWINDFS_STATE_DIR` and `REWINDFS_CACHE_DIR`, else from the XDG directories of this user.
    pub fn from_environment() -> Result<Self, Error> {
        let xdg = ProjectDirs::from("", "", "rewindfs").ok_or_else(|| {
            Error::Usage(
                "no home directory: set HOME, or REWINDFS_STATE_DIR and REWINDFS_CACHE_DIR".into(),
            )
        })?;
        let of = |name: &str, otherwise: PathBuf| match std::env::var_os(name) {
            Some(value) if !value.is_empty() => absolute(Path::new(&value)),
            _ => otherwise,
        };
        Ok(Self {
            state: of(
                "REWINDFS_STATE_DIR",
                xdg.state_dir()
                    .unwrap_or_else(|| xdg.data_local_dir())
                    .to_owned(),
            ),
            cache: of("REWINDFS_CACHE_DIR", xdg.cache_dir().to_owned()),
            config: xdg.config_dir().to_owned(),
            default_repository: xdg.data_dir().join("repository"),
        })
    }

    /// The configuration file; it need not exist.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// The key of the embedded default; it need not exist.
    pub fn default_key_file(&self) -> PathBuf {
        self.config.join("default.key")
    }
}

/// Makes a directory and its parents, readable by nobody else. One that exists already is left as it is.
pub fn create_private(dir: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io("create", dir))
}

/// `path` made absolute by its text alone: no file system is asked, so a dead mount on the way cannot stop us.
pub fn absolute(path: &Path) -> PathBuf {
    let joined = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in joined.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// `path` as the kernel knows it: symbolic links resolved as far as the path exists. Where the end of it is a dead mount
/// (or does not exist) only what lies above is resolved.
pub fn canonical(path: &Path) -> PathBuf {
    // Not made plain by its text first: `link/..` is the parent of where the link leads, which only the kernel knows.
    let lexical = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match lexical.canonicalize() {
        Ok(real) => real,
        Err(_) => resolve_above(&absolute(&lexical)),
    }
}

/// Resolves the longest existing part of an absolute path and appends the rest as it stands.
fn resolve_above(path: &Path) -> PathBuf {
    let mut rest: Vec<&OsStr> = Vec::new();
    for above in path.ancestors() {
        if let Ok(real) = above.canonicalize() {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        rest.extend(above.file_name());
    }
    path.to_owned()
}

/// Whether the error means that a FUSE process died and left its mount behind.
pub fn is_dead_mount(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOTCONN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_asks_no_file_system() {
        assert_eq!(
            absolute(Path::new("/a/b/../c/./d")),
            PathBuf::from("/a/c/d")
        );
        assert_eq!(absolute(Path::new("/../a")), PathBuf::from("/a"));
        assert!(absolute(Path::new("x")).is_absolute());
    }

    #[test]
    fn canonical_resolves_what_exists_and_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("real")).unwrap();
        std::os::unix::fs::symlink(real.join("real"), real.join("link")).unwrap();
        assert_eq!(canonical(&real.join("link")), real.join("real"));
        assert_eq!(
            canonical(&real.join("link/not/there")),
            real.join("real/not/there")
        );
    }

    #[test]
    fn private_directories_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("a/b");
        create_private(&ours).unwrap();
        create_private(&ours).unwrap();
        assert_eq!(ours.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
