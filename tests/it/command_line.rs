//! The program itself, run as scripts run it: exit codes, where results and messages go, what is never printed.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const PASSWORD: &str = "correct horse battery staple";

/// A home of its own, with nothing in it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// The program, with this home and no settings but a password.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rewindfs"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.0.path())
            .env("TZ", "UTC")
            .env("REWINDFS_PASSWORD", PASSWORD)
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn with_repository() -> (Self, String) {
        let home = Self::new();
        let repo = home.path("repo");
        assert_exit(&home.run(&["init", &repo]), 0);
        (home, repo)
    }
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    let text = format!("{}{}", stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "{text}");
    let told = stderr(output);
    assert!(
        !told.contains("panicked") && !told.contains("stack backtrace"),
        "{told}"
    );
    if code != 0 && code != 2 {
        let last = told.lines().last().unwrap_or_default();
        assert!(last.starts_with("rewindfs: "), "no clear line: {told}");
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn init_shows_the_recovery_key_on_stdout_and_it_opens_the_repository() {
    let home = Home::new();
    let repo = home.path("repo");
    let made = home.run(&["init", &repo]);
    assert_exit(&made, 0);
    let printed = stdout(&made);
    let key = printed
        .lines()
        .find_map(|line| line.strip_prefix("recovery key  "))
        .expect("a recovery key");
    assert!(!printed.contains(PASSWORD));
    assert_exit(&home.run(&["init", &repo]), 1);

    let opened = home
        .command(&["--repo", &repo, "snapshots", "--json"])
        .env("REWINDFS_PASSWORD", key)
        .output()
        .unwrap();
    assert_exit(&opened, 0);
    assert_eq!(stdout(&opened).trim(), "[]");
}

#[test]
fn passwords_come_from_variable_file_and_command_and_are_never_empty() {
    let (home, repo) = Home::with_repository();
    let file = home.path("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let with = |name: &str, value: &str| {
        home.command(&["--repo", &repo, "snapshots"])
            .env_remove("REWINDFS_PASSWORD")
            .env(name, value)
            .output()
            .unwrap()
    };
    assert_exit(&with("REWINDFS_PASSWORD_FILE", &file), 0);
    assert_exit(
        &with("REWINDFS_PASSWORD_COMMAND", &format!("cat {file}")),
        0,
    );
    assert_exit(&with("REWINDFS_PASSWORD", "wrong"), 12);
    assert_exit(&with("REWINDFS_PASSWORD", ""), 12);
    assert_exit(&with("REWINDFS_PASSWORD_FILE", "/nonexistent"), 1);
    assert_exit(&with("REWINDFS_PASSWORD_COMMAND", "exit 3"), 12);
    assert_exit(&with("REWINDFS_PASSWORD_COMMAND", "true"), 12);
    // Nothing set and no terminal: the message says what to set.
    let nothing = with("UNRELATED", "1");
    assert_exit(&nothing, 12);
    assert!(stderr(&nothing).contains("REWINDFS_PASSWORD_FILE"));

    let empty = home
        .command(&["init", &home.path("other")])
        .env("REWINDFS_PASSWORD", "")
        .output()
        .unwrap();
    assert_exit(&empty, 12);
    assert!(!Path::new(&home.path("other")).exists());
}

#[test]
fn each_failure_has_its_code() {
    let (home, repo) = Home::with_repository();
    for (arguments, code) in [
        (&["--repo", "/nonexistent", "snapshots"][..], 10),
        (&["snapshots"], 10),
        (&["--repo", "gopher://x", "snapshots"], 2),
        (&["--repo", &repo, "snapshots", "--volume", "none"], 1),
        (&["--repo", &repo, "ls", "--at", "10 parsecs ago"], 2),
        (&["sync", "/tmp"], 13),
        (&["umount", "/nonexistent"], 13),
        (&["status", "/tmp"], 13),
        (&["explode"], 2),
        (&["mount"], 2),
    ] {
        assert_exit(&home.run(arguments), code);
    }
}

#[test]
fn a_layout_that_could_back_up_itself_is_refused_before_anything_is_made() {
    let (home, repo) = Home::with_repository();
    let dir = home.path("docs");
    std::fs::create_dir(&dir).unwrap();
    let inside = home.path("docs/below");
    std::fs::create_dir(&inside).unwrap();
    for (arguments, code) in [
        (&["mount", &home.path(""), "--repo", &repo][..], 2),
        (&["mount", &repo, "--repo", &repo], 2),
        (&["mount", &dir, &inside, "--repo", &repo], 2),
        (&["mount", &dir, "/nonexistent", "--repo", &repo], 13),
        (&["mount", "/nonexistent", "--repo", &repo], 13),
        (&["mount", &dir, "--repo", &repo, "--interval", "0s"], 2),
    ] {
        assert_exit(&home.run(arguments), code);
    }
    assert!(!Path::new(&home.path(".local/state/rewindfs/volumes")).exists());
}

#[test]
fn json_is_pure_and_messages_go_elsewhere() {
    let (home, repo) = Home::with_repository();
    let listed = home.run(&["--repo", &repo, "snapshots"]);
    assert_exit(&listed, 0);
    assert_eq!(stdout(&listed), "");
    assert!(stderr(&listed).contains("no snapshots yet"));
    for arguments in [
        &["status", "--json"][..],
        &["check", "--json", "--repo", &repo],
    ] {
        let output = home.run(arguments);
        assert_exit(&output, 0);
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
        assert!(parsed.is_ok(), "{}", stdout(&output));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = home
        .command(&["status", "--json"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let told = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(told, "");
}

#[test]
fn a_configuration_file_that_is_not_understood_is_named() {
    let home = Home::new();
    let dir = home.path(".config/rewindfs");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(format!("{dir}/config.toml"), "intervall = '5s'\n").unwrap();
    let refused = home.run(&["status"]);
    assert_exit(&refused, 2);
    let told = stderr(&refused);
    assert!(
        told.contains("config.toml") && told.contains("intervall"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn help_of_every_command_fits_a_terminal_and_teaches() {
    let home = Home::new();
    let help = stdout(&home.run(&["--help"]));
    let commands = [
        "init",
        "mount",
        "umount",
        "sync",
        "snapshot",
        "snapshots",
        "status",
        "ls",
        "cat",
        "restore",
        "check",
        "debug",
    ];
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let own = home.run(&[command, "--help"]);
        assert_exit(&own, 0);
        assert!(stdout(&own).contains("Examples:"), "{command}");
    }
}
