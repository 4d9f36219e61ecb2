//! The command line: what can be typed, and what comes of it. One file per command; `exit.rs` maps errors to exit codes,
//! `output.rs` prints, `time.rs` reads moments.

use std::process::ExitCode;

use clap::Parser;

mod at;
mod context;
pub mod exit;
mod live;
mod output;
mod password;
mod time;

mod init;

mod fstab;
mod mount;
mod umount;

mod sync;

mod snapshot;
mod snapshots;

mod status;

mod cat;
mod ls;

mod restore;

mod check;
mod doctor;

mod debug;

use crate::config::size;
use crate::store::pace::Limits;
use crate::store::url::Location;
use crate::sys;
use context::Context;
use exit::Exit;

/// A failure with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Failure {
    exit: Exit,
    message: String,
}

/// A directory that backs itself up as you write to it, encrypted; and any moment of it can be mounted again
#[derive(Parser, Debug)]
#[command(
    name = "rewindfs",
    version,
    max_term_width = 120,
    after_help = "\
Five minutes:
  rewindfs mount ~/Documents                       protect a directory: the same files, now backing themselves up
  rewindfs snapshots                               every point in time that can be gone back to
  rewindfs mount ~/Documents --at 10m /mnt/then    as it was ten minutes ago, read-only
  rewindfs cat --at 'yesterday 14:00' ~/Documents/notes.txt
  rewindfs restore --at yesterday --target /tmp/restored
  rewindfs umount ~/Documents                      put what is owed into the repository, and unmount

Passwords come from REWINDFS_PASSWORD_FILE, REWINDFS_PASSWORD_COMMAND, REWINDFS_PASSWORD or a prompt; never from a flag.
Exit codes: 0 done, 1 failed, 2 usage, 3 in part, 4 damage, 5 not yet remote, 10 no repository, 11 another writer,
12 wrong password, 13 mount point, 14 no space, 15 credentials, 16 newer format, 130 and 143 interrupted."
)]
struct CommandLine {
    /// The repository: s3://bucket/prefix[?endpoint=URL&region=R&path_style=true], file:///dir or /dir
    #[arg(
        long,
        global = true,
        env = "REWINDFS_REPO",
        hide_env_values = true,
        value_name = "REPO"
    )]
    repo: Option<Location>,
    /// Send no faster to the repository than this: 2MiB/s, 500KB/s (at least 16KiB/s)
    #[arg(long, global = true, value_name = "RATE", value_parser = size::rate, help_heading = "Bandwidth")]
    limit_upload: Option<u64>,
    /// Read no faster from the repository than this
    #[arg(long, global = true, value_name = "RATE", value_parser = size::rate, help_heading = "Bandwidth")]
    limit_download: Option<u64>,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Init(init::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Sync(sync::Args),
    Snapshot(snapshot::Args),
    Snapshots(snapshots::Args),
    Status(status::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Restore(restore::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    Debug(debug::Args),
}

/// Runs what was typed. Usage errors are printed by `clap` and end with exit code 2.
pub fn run() -> ExitCode {
    sys::give_large_buffers_back();
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(ended) = fstab::run_for_mount(&arguments) {
        return ended;
    }
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            // Nobody listening is no reason to fail.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    let limits = Limits {
        upload: line.limit_upload,
        download: line.limit_download,
    };
    match Context::new(line.repo, limits).and_then(|context| line.command.run(&context)) {
        Ok(exit) => exit.into(),
        Err(error) if error.is::<output::Closed>() => Exit::Done.into(),
        Err(error) => {
            output::error(&exit::sentence(&error));
            Exit::of(&error).into()
        }
    }
}

impl Command {
    fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self {
            Self::Init(args) => args.run(context),
            Self::Mount(args) => args.run(context),
            Self::Umount(args) => args.run(context),
            Self::Sync(args) => args.run(context),
            Self::Snapshot(args) => args.run(context),
            Self::Snapshots(args) => args.run(context),
            Self::Status(args) => args.run(context),
            Self::Ls(args) => args.run(context),
            Self::Cat(args) => args.run(context),
            Self::Restore(args) => args.run(context),
            Self::Check(args) => args.run(context),
            Self::Doctor(args) => args.run(context),
            Self::Debug(args) => args.run(context),
        }
    }
}

#[cfg(test)]
mod tests;
