//! `rewindfs init`: makes a repository.

use super::context::{Context, block_on};
use super::exit::Exit;
use super::{output, password};
use crate::compress::Compression;
use crate::config::size;
use crate::crypto::AesKeyLen;
use crate::daemon::opening::{self, CONFIG_DEFAULT};
use crate::repo::RepositoryConfig;
use crate::store::url::Location;

/// Make a repository: the place where snapshots are kept, encrypted
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The password is asked for twice on a terminal, or taken from REWINDFS_PASSWORD_FILE, REWINDFS_PASSWORD_COMMAND or
REWINDFS_PASSWORD. The recovery key that is shown opens the repository without it: write it down, it is shown this once.
Nobody can open the repository without one of the two, not even its makers.

Examples:
  rewindfs init /mnt/usb/docs-repo
  rewindfs init s3://my-bucket/docs
  rewindfs init 's3://my-bucket/docs?endpoint=https://minio.example:9000&path_style=true'")]
pub(crate) struct Args {
    /// Where: s3://bucket/prefix[?endpoint=URL&region=R&path_style=true], file:///dir or /dir
    #[arg(value_name = "REPO")]
    place: Option<Location>,
    /// The most bytes in one object, a power of two from 1MiB to 64MiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = block_size)]
    block_size: u64,
    /// Bits of the AES keys
    #[arg(long, value_name = "BITS", default_value = "256", value_parser = aes)]
    aes: AesKeyLen,
    /// zstd, zstd:LEVEL (-7 to 19; 1 if not said) or off
    #[arg(long, value_name = "HOW", default_value = "zstd", value_parser = compression, allow_hyphen_values = true)]
    compression: Compression,
}

impl Args {
    /// Makes the repository; prints its recovery key.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let configured = context.configured_location()?;
        let location = self
            .place
            .or_else(|| context.repo.clone())
            .or(configured)
            .ok_or_else(|| {
                crate::config::Error::Usage(
                    "where? Name a folder or s3://bucket/prefix: `rewindfs init REPO`".into(),
                )
            })?;
        let password = match context.secret_source(&location)?.read()? {
            Some(password) => password,
            None => password::choose(&location)?,
        };
        let config = RepositoryConfig {
            block_len: self.block_size,
            aes: self.aes,
            compression: self.compression,
        };
        let traffic = context.traffic();
        let (repository, recovery) =
            block_on(opening::create(&location, &traffic, password, config))?;
        output::note(
            "Write the recovery key down and keep it apart from this machine: it is shown this once, and opens\n\
             the repository when the password is lost. It is accepted wherever the password is asked for.",
        );
        output::line(&format!("repository    {}", repository.id()))?;
        output::line(&format!("at            {location}"))?;
        output::line(&format!("recovery key  {}", *recovery))?;
        Ok(Exit::Done)
    }
}

fn block_size(text: &str) -> Result<u64, String> {
    let bytes = size::bytes(text)?;
    match bytes.is_power_of_two() && (1 << 20..=64 << 20).contains(&bytes) {
        true => Ok(bytes),
        false => Err("must be a power of two from 1MiB to 64MiB".into()),
    }
}

fn aes(text: &str) -> Result<AesKeyLen, String> {
    match text {
        "128" => Ok(AesKeyLen::Aes128),
        "192" => Ok(AesKeyLen::Aes192),
        "256" => Ok(AesKeyLen::Aes256),
        _ => Err("there are 128, 192 and 256".into()),
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    let refused = || "write zstd, zstd:LEVEL with a level from -7 to 19, or off".to_owned();
    match text.split_once(':') {
        None if text == "off" => Ok(Compression::Off),
        None if text == "zstd" => Ok(CONFIG_DEFAULT.compression),
        Some(("zstd", level)) => {
            let level: i8 = level.parse().map_err(|_| refused())?;
            match (-7..=19).contains(&level) && level != 0 {
                true => Ok(Compression::Zstd(level)),
                false => Err(refused()),
            }
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_others_refused() {
        assert_eq!(block_size("64MiB"), Ok(64 << 20));
        for text in ["3MiB", "128MiB", "512KiB", "x"] {
            assert!(block_size(text).is_err(), "{text}");
        }
        assert_eq!(aes("128"), Ok(AesKeyLen::Aes128));
        assert!(aes("512").is_err());
        assert_eq!(compression("zstd:-3"), Ok(Compression::Zstd(-3)));
        assert_eq!(compression("off"), Ok(Compression::Off));
        for text in ["gzip", "zstd:", "zstd:0", "zstd:20", "off:1"] {
            assert!(compression(text).is_err(), "{text}");
        }
    }
}
