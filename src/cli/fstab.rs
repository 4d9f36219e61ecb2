//! Called by mount(8): for a line of `/etc/fstab`, or for `mount -t rewindfs DIR PLACE`.
//!
//! mount(8) knows nothing of commands and has one list of options for everything. It runs `mount.rewindfs DIR PLACE -o OPTIONS`, or
//! `mount.fuse.rewindfs` for the type `fuse.rewindfs` (both are symlinks to this program); without that, `mount.fuse` of libfuse runs
//! `rewindfs DIR PLACE -o OPTIONS`. Here that becomes `rewindfs mount …`, run as a process of its own, and its exit code becomes one of
//! those that mount(8) knows.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::output;

/// Names under which mount(8) finds us.
const NAMES: [&str; 2] = ["mount.rewindfs", "mount.fuse.rewindfs"];
/// Options that are flags of `rewindfs mount`.
const FLAGS: [&str; 7] = [
    "at",
    "repo",
    "volume",
    "interval",
    "max-dirty",
    "seal-on",
    "mode",
];
/// Where the password comes from: the environment, which mount(8) does not pass on at boot.
const PASSWORDS: [(&str, &str); 2] = [
    ("password-file", "REWINDFS_PASSWORD_FILE"),
    ("password-command", "REWINDFS_PASSWORD_COMMAND"),
];
/// Said to mount(8) and to whoever reads the table, or the usual for us anyway.
const NOT_FOR_US: [&str; 20] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "async",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "nodiratime",
    "diratime",
    "lazytime",
    "nolazytime",
    "silent",
];
/// Exit codes of mount(8): wrong usage, and a mount that failed.
const USAGE: u8 = 1;
const FAILED: u8 = 32;

/// What mount(8) wants.
#[derive(PartialEq, Eq, Debug)]
enum Wish {
    /// `rewindfs` with these arguments and additions to the environment.
    Mount {
        arguments: Vec<OsString>,
        environment: Vec<(&'static str, OsString)>,
    },
    /// Other options for what is mounted there: the kernel's business alone.
    Remount { place: OsString, options: OsString },
    /// `mount -f`: nothing.
    Nothing,
}

/// Does what mount(8) asks, if it is mount(8) that has called us.
pub(super) fn run_for_mount(arguments: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = arguments.split_first()?;
    let by_name = Path::new(name)
        .file_name()
        .is_some_and(|name| NAMES.iter().any(|ours| name == *ours));
    let by_libfuse = match rest {
        [dir, _, option, ..] => dir.as_bytes().contains(&b'/') && option == "-o",
        _ => false,
    };
    if !by_name && !by_libfuse {
        return None;
    }
    let Some(wish) = Wish::of(rest) else {
        output::error("usage: mount.rewindfs DIR MOUNTPOINT [-o OPTIONS]");
        return Some(ExitCode::from(USAGE));
    };
    Some(match wish.fulfil() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            output::error(&format!("run myself to mount: {error}"));
            ExitCode::from(FAILED)
        }
    })
}

impl Wish {
    /// What `DIR PLACE [-fnsv] [-t TYPE] [-o OPTIONS]` means; `None` if it is something else.
    fn of(arguments: &[OsString]) -> Option<Self> {
        let (mut places, mut options, mut fake) = (Vec::new(), OsString::new(), false);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_bytes() {
                b"-o" => {
                    if !options.is_empty() {
                        options.push(",");
                    }
                    options.push(arguments.next()?);
                }
                b"-t" => drop(arguments.next()?),
                [b'-', letters @ ..] if letters.iter().all(|letter| b"fnsv".contains(letter)) => {
                    fake |= letters.contains(&b'f');
                }
                _ => places.push(argument.clone()),
            }
        }
        let [dir, place] = <[OsString; 2]>::try_from(places).ok()?;
        let all: Vec<&[u8]> = options.as_bytes().split(|&byte| byte == b',').collect();
        if fake {
            return Some(Self::Nothing);
        }
        if all.contains(&&b"remount"[..]) {
            return Some(Self::Remount { place, options });
        }
        Some(Self::mount(dir, place, &all))
    }

    fn mount(dir: OsString, place: OsString, options: &[&[u8]]) -> Self {
        let mut arguments: Vec<OsString> = vec!["mount".into()];
        let mut environment = Vec::new();
        let mut left = Vec::new();
        for option in options.iter().filter(|option| !option.is_empty()) {
            let mut parts = option.splitn(2, |&byte| byte == b'=');
            let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).replace('_', "-");
            let value = parts
                .next()
                .map(|value| OsStr::from_bytes(value).to_owned());
            let password = PASSWORDS.iter().find(|(option, _)| *option == name);
            match (value, password) {
                (Some(value), Some((_, variable))) => environment.push((*variable, value)),
                (Some(value), _) if FLAGS.contains(&name.as_str()) => {
                    let mut flag = OsString::from(format!("--{name}="));
                    flag.push(value);
                    arguments.push(flag);
                }
                _ if is_not_for_us(option) => {}
                _ => left.push(*option),
            }
        }
        if !left.is_empty() {
            arguments.push("-o".into());
            arguments.push(OsStr::from_bytes(&left.join(&b',')).to_owned());
        }
        arguments.extend(["--".into(), dir, place]);
        Self::Mount {
            arguments,
            environment,
        }
    }

    /// Whether it succeeded; what went wrong has been said.
    fn fulfil(self) -> io::Result<bool> {
        let mut command = match self {
            Self::Nothing => return Ok(true),
            Self::Remount { place, options } => {
                let mut command = Command::new("mount");
                command.args(["-i", "-o"]).arg(options).arg(place);
                command
            }
            Self::Mount {
                arguments,
                environment,
            } => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(arguments).envs(environment);
                command
            }
        };
        Ok(command.status()?.success())
    }
}

fn is_not_for_us(option: &[u8]) -> bool {
    let begins = |with: &[u8]| option.starts_with(with);
    NOT_FOR_US.iter().any(|word| word.as_bytes() == option)
        || begins(b"x-")
        || begins(b"X-")
        || begins(b"comment=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(line: &str) -> Option<Wish> {
        Wish::of(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn mounted(line: &str) -> String {
        match wish(line) {
            Some(Wish::Mount { arguments, .. }) => arguments
                .join(OsStr::new(" "))
                .into_string()
                .expect("plain"),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_line_of_the_table_becomes_a_command() {
        assert_eq!(mounted("/a /b"), "mount -- /a /b");
        assert_eq!(
            mounted(
                "/a /b -o rw,noauto,x-systemd.automount,allow_other,repo=s3://x/y?region=z,max_dirty=1G"
            ),
            "mount --repo=s3://x/y?region=z --max-dirty=1G -o rw,allow_other -- /a /b"
        );
        assert_eq!(
            mounted("/a /b -sv -t fuse.rewindfs -o at=yesterday"),
            "mount --at=yesterday -- /a /b"
        );
    }

    #[test]
    fn the_password_goes_by_the_environment() {
        let Some(Wish::Mount {
            environment,
            arguments,
        }) = wish("/a /b -o password_file=/root/key")
        else {
            panic!("not understood");
        };
        assert_eq!(
            environment,
            [("REWINDFS_PASSWORD_FILE", "/root/key".into())]
        );
        assert_eq!(arguments.len(), 4);
    }

    #[test]
    fn what_is_no_mount_is_told_apart() {
        assert_eq!(wish("-f /a /b -o ro"), Some(Wish::Nothing));
        let remount = Wish::Remount {
            place: "/b".into(),
            options: "remount,ro".into(),
        };
        assert_eq!(wish("/a /b -o remount,ro"), Some(remount));
        for line in ["/a", "/a /b /c", "/a /b -o", "/a /b --help"] {
            assert_eq!(wish(line), None, "{line}");
        }
        let plain = ["rewindfs", "mount", "/a", "-o", "ro"].map(OsString::from);
        assert!(run_for_mount(&plain).is_none());
    }
}
