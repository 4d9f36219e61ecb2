//! Where the password comes from: never a flag, since every user of a machine can read the flags of every process.
//!
//! A prompt is not answered here: only `cli` knows whether there is a terminal.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::Error;
use super::dirs::{Dirs, absolute, create_private};
use super::file::File;

/// The most bytes that a password may have. Longer is surely a wrong file.
pub const PASSWORD_LEN_MAX: usize = 4096;
/// Random bytes in a key file, written as twice as many hexadecimal digits.
const KEY_FILE_BYTES: usize = 32;

/// Where a password is to be taken from.
pub enum SecretSource {
    /// `REWINDFS_PASSWORD` itself.
    Given(Zeroizing<String>),
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a shell command prints.
    Command(String),
    /// The key file of the embedded default: like [`SecretSource::File`], but it must be ours alone.
    KeyFile(PathBuf),
    /// Nothing is set: ask a person.
    Prompt,
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given([redacted])"),
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Command(_) => f.write_str("Command(..)"),
            Self::KeyFile(path) => write!(f, "KeyFile({path:?})"),
            Self::Prompt => f.write_str("Prompt"),
        }
    }
}

/// The environment's part in the decision.
#[derive(Default)]
pub struct SecretEnvironment {
    /// `REWINDFS_PASSWORD`
    pub password: Option<Zeroizing<String>>,
    /// `REWINDFS_PASSWORD_FILE`
    pub file: Option<PathBuf>,
    /// `REWINDFS_PASSWORD_COMMAND`
    pub command: Option<String>,
}

impl SecretEnvironment {
    /// Reads this process's environment.
    pub fn read() -> Result<Self, Error> {
        let text = |name: &str| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Error::Secret(format!("{name} is not UTF-8 text")))
            }
        };
        Ok(Self {
            password: text("REWINDFS_PASSWORD")?.map(Zeroizing::new),
            file: std::env::var_os("REWINDFS_PASSWORD_FILE").map(PathBuf::from),
            command: text("REWINDFS_PASSWORD_COMMAND")?,
        })
    }
}

impl SecretSource {
    /// Decides: the environment wins over the configuration file; the key file is used for the embedded default alone.
    pub fn choose(
        environment: SecretEnvironment,
        file: &File,
        dirs: &Dirs,
        repository_is_default: bool,
    ) -> Self {
        if let Some(password) = environment.password {
            return Self::Given(password);
        }
        if let Some(path) = environment.file {
            return Self::File(absolute(&path));
        }
        if let Some(command) = environment.command {
            return Self::Command(command);
        }
        if repository_is_default && dirs.default_key_file().exists() {
            return Self::KeyFile(dirs.default_key_file());
        }
        if let Some(path) = &file.password_file {
            return Self::File(dirs.config.join(path));
        }
        if let Some(command) = &file.password_command {
            return Self::Command(command.clone());
        }
        Self::Prompt
    }

    /// The password, `None` where a person must be asked. An empty one is an error: it protects nothing, and usually means
    /// that a variable or file was not filled in.
    pub fn read(&self) -> Result<Option<Zeroizing<String>>, Error> {
        let (password, wherefrom) = match self {
            Self::Given(password) => (password.clone(), "REWINDFS_PASSWORD".to_owned()),
            Self::File(path) => (read_file(path)?, path.display().to_string()),
            Self::KeyFile(path) => {
                must_be_private(path)?;
                (read_file(path)?, path.display().to_string())
            }
            Self::Command(command) => (run(command)?, "the password command".to_owned()),
            Self::Prompt => return Ok(None),
        };
        if password.is_empty() {
            return Err(Error::Secret(format!(
                "the password from {wherefrom} is empty; set one"
            )));
        }
        Ok(Some(password))
    }
}

/// Makes the key file of the embedded default with a random key. One that exists is an error, never overwritten: it may be
/// the only thing that opens a repository.
pub fn create_key_file(path: &Path) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        create_private(parent)?;
    }
    let mut key = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES * 2 + 1));
    for byte in Zeroizing::new(crate::crypto::random::<KEY_FILE_BYTES>()).iter() {
        key.push_str(&format!("{byte:02x}"));
    }
    key.push('\n');
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("create key file", path))?;
    file.write_all(key.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write key file", path))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("sync", parent))
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, Error> {
    let file = std::fs::File::open(path).map_err(Error::io("read password file", path))?;
    first_line(file, &format!("password file {}", path.display()))
}

/// Refuses a key file that others can read.
fn must_be_private(path: &Path) -> Result<(), Error> {
    let mode = path
        .metadata()
        .map_err(Error::io("read key file", path))?
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::Secret(format!(
        "key file {path} can be read by others (mode {:04o}); run `chmod 600 {path}` once you know who has read it",
        mode & 0o7777,
        path = path.display()
    )))
}

fn run(command: &str) -> Result<Zeroizing<String>, Error> {
    let failed = |why: String| Error::Secret(format!("the password command failed: {why}"));
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let stdout = child
        .stdout
        .take()
        .expect("stdout was asked for as a pipe two lines above");
    let password = first_line(stdout, "the password command");
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    password
}

/// The first line of `from`, without its end.
fn first_line(from: impl Read, what: &str) -> Result<Zeroizing<String>, Error> {
    // Room for all of it from the start, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_LEN_MAX + 2));
    from.take(PASSWORD_LEN_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::Secret(format!("read {what}: {error}")))?;
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > PASSWORD_LEN_MAX {
        return Err(Error::Secret(format!(
            "{what}: the first line is longer than {PASSWORD_LEN_MAX} bytes; is this the right file?"
        )));
    }
    std::str::from_utf8(line)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| Error::Secret(format!("{what}: the first line is not UTF-8 text")))
}

#[cfg(test)]
mod tests;
