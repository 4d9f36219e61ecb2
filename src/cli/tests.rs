//! The command line as a whole: everything promised can be typed, and help teaches it.

use clap::CommandFactory;

use super::*;

fn typed(words: &[&str]) -> Result<CommandLine, clap::Error> {
    CommandLine::try_parse_from(std::iter::once(&"rewindfs").chain(words))
}

#[test]
fn the_definition_holds_together() {
    CommandLine::command().debug_assert();
}

#[test]
fn what_is_promised_can_be_typed() {
    for words in [
        &["init"][..],
        &["init", "/mnt/repo"],
        &["init", "s3://bucket/prefix?region=eu-central-1"],
        &[
            "init",
            "--block-size",
            "1MiB",
            "--aes",
            "128",
            "--compression",
            "off",
            "/r",
        ],
        &["mount", "/docs"],
        &["mount", "-f", "/docs", "/mnt"],
        &["mount", "/docs", "--interval", "1s", "--max-dirty", "64MiB"],
        &[
            "mount",
            "/docs",
            "--seal-on",
            "fsync,close",
            "--mode",
            "hot",
        ],
        &["mount", "/docs", "--at", "10m"],
        &["mount", "/docs", "--at", "yesterday 14:00", "/mnt"],
        &[
            "mount", "--repo", "/r", "--volume", "docs", "--at", "latest", "/mnt",
        ],
        &["--repo", "/r", "mount", "--at", "latest", "/mnt"],
        &["umount", "/mnt"],
        &["umount", "--no-wait", "/mnt"],
        &["sync", "/mnt", "--timeout", "30s"],
        &["snapshot", "/mnt"],
        &["snapshot", "/mnt", "release-1"],
        &["snapshots"],
        &["snapshots", "--volume", "docs", "--json"],
        &["status", "--json"],
        &["status", "/mnt"],
        &["ls", "--at", "10m", "/docs"],
        &["cat", "--at", "@3", "notes.txt"],
        &["restore", "--target", "/tmp/x"],
        &["check"],
        &["check", "--read-data"],
        &["doctor"],
        &["doctor", "s3://bucket/prefix?tags=a=b", "--json"],
        &[
            "restore",
            "--limit-download",
            "2MiB/s",
            "--target",
            "/tmp/x",
        ],
        &["mount", "/docs", "--limit-upload", "500KB/s"],
        &[
            "restore",
            "--at",
            "yesterday",
            "--target",
            "/tmp/x",
            "a",
            "b",
            "--dry-run",
        ],
    ] {
        if let Err(error) = typed(words) {
            panic!("{words:?}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for words in [
        &["mount"][..],
        &["mount", "/docs", "--at", "10m", "--interval", "1s"],
        &["mount", "/docs", "--mode", "lukewarm"],
        &["mount", "/docs", "--seal-on", "open"],
        &["mount", "/docs", "--password", "x"],
        &["init", "gopher://x"],
        &["init", "--aes", "512", "/r"],
        &["sync"],
        &["explode"],
        &["mount", "/docs", "--limit-upload", "1KiB/s"],
        &[],
    ] {
        let error = typed(words).expect_err(&words.join(" "));
        assert_eq!(error.exit_code(), 2, "{words:?}");
    }
}

#[test]
fn every_command_teaches_by_examples() {
    for command in CommandLine::command().get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        assert!(
            help.contains(&format!("rewindfs {name}")),
            "{name}:\n{help}"
        );
    }
    let help = CommandLine::command().render_help().to_string();
    assert!(help.contains("Exit codes: 0 done"));
}
