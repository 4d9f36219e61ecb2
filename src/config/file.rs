//! The configuration file: TOML, every field optional, nothing unknown accepted (a typing error must not pass for a default).

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use super::policy::{Mode, PartialPolicy, SealOn};
use super::size;
use crate::store::pace::Limits;

/// `config.toml` exactly as it stands, before any value is judged.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Typed {
    repo: Option<String>,
    volume: Option<String>,
    password_file: Option<PathBuf>,
    password_command: Option<String>,
    interval: Option<String>,
    max_dirty: Option<String>,
    seal_on: Option<Vec<SealOn>>,
    mode: Option<Mode>,
    memory_cache: Option<String>,
    disk_cache: Option<String>,
    spool: Option<String>,
    limit_upload: Option<String>,
    limit_download: Option<String>,
}

/// The configuration file, judged. Without a file every field is absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct File {
    /// The repository to use where none is named and none is remembered.
    pub repo: Option<String>,
    /// The volume to use in it.
    pub volume: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// A shell command that prints the password.
    pub password_command: Option<String>,
    /// Parts of a policy.
    pub policy: PartialPolicy,
    /// Plain frames in memory, in bytes.
    pub memory_cache_bytes: Option<u64>,
    /// Encrypted frames on disk, in bytes.
    pub disk_cache_bytes: Option<u64>,
    /// Finished blocks that wait for upload, in bytes.
    pub spool_bytes: Option<u64>,
    /// How fast bodies may travel.
    pub limits: Limits,
}

impl File {
    /// Reads `path`; a file that does not exist is an empty one.
    pub fn read(path: &Path) -> Result<Self, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                Self::parse(&text).map_err(|why| Error::Usage(format!("{}: {why}", path.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let typed: Typed =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let number = |read: fn(&str) -> Result<u64, String>, name: &str, value: &Option<String>| {
            value
                .as_deref()
                .map(read)
                .transpose()
                .map_err(|why| format!("{name}: {why}"))
        };
        let bytes = |name: &str, value: &Option<String>| number(size::bytes, name, value);
        let rate = |name: &str, value: &Option<String>| number(size::rate, name, value);
        let interval = typed
            .interval
            .as_deref()
            .map(size::duration)
            .transpose()
            .map_err(|why| format!("interval: {why}"))?;
        Ok(Self {
            policy: PartialPolicy {
                interval,
                max_dirty_bytes: bytes("max-dirty", &typed.max_dirty)?,
                seal_on: typed.seal_on,
                mode: typed.mode,
            },
            memory_cache_bytes: bytes("memory-cache", &typed.memory_cache)?,
            disk_cache_bytes: bytes("disk-cache", &typed.disk_cache)?,
            spool_bytes: bytes("spool", &typed.spool)?,
            limits: Limits {
                upload: rate("limit-upload", &typed.limit_upload)?,
                download: rate("limit-download", &typed.limit_download)?,
            },
            repo: typed.repo,
            volume: typed.volume,
            password_file: typed.password_file,
            password_command: typed.password_command,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_field_is_read() {
        let file = File::parse(
            r#"
            repo = "s3://bucket/docs"
            volume = "docs"
            password-command = "pass show rewindfs"
            interval = "10s"
            max-dirty = "256MiB"
            seal-on = ["fsync", "close"]
            mode = "hot"
            disk-cache = "2GiB"
            limit-upload = "1MiB/s"
            "#,
        )
        .unwrap();
        assert_eq!(file.repo.as_deref(), Some("s3://bucket/docs"));
        assert_eq!(file.policy.interval, Some(Duration::from_secs(10)));
        assert_eq!(file.policy.max_dirty_bytes, Some(256 << 20));
        assert_eq!(
            file.policy.seal_on,
            Some(vec![SealOn::Fsync, SealOn::Close])
        );
        assert_eq!(file.policy.mode, Some(Mode::Hot));
        assert_eq!(file.disk_cache_bytes, Some(2 << 30));
        assert_eq!(file.spool_bytes, None);
        assert_eq!(file.limits.upload, Some(1 << 20));
        assert_eq!(file.limits.download, None);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "intervall = '5s'",
            "interval = 'soon'",
            "mode = 'lukewarm'",
            "password = 'secret'",
            "repo = ",
        ] {
            assert!(File::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::read(&dir.path().join("config.toml")).unwrap();
        assert_eq!(file, File::default());
    }
}
