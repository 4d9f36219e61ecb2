//! Where passwords come from, and what is refused.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn dirs(root: &Path) -> Dirs {
    Dirs {
        state: root.join("state"),
        cache: root.join("cache"),
        config: root.join("config"),
        default_repository: root.join("data/repository"),
    }
}

fn text(source: &SecretSource) -> String {
    source.read().unwrap().unwrap().to_string()
}

#[test]
fn environment_wins_over_file_and_nothing_means_asking() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    let file = File {
        password_command: Some("echo from-file".into()),
        ..Default::default()
    };
    let environment = SecretEnvironment {
        password: Some(Zeroizing::new("given".into())),
        command: Some("echo from-command".into()),
        ..Default::default()
    };
    assert_eq!(
        text(&SecretSource::choose(environment, &file, &dirs, false)),
        "given"
    );
    let environment = SecretEnvironment {
        command: Some("echo from-command".into()),
        ..Default::default()
    };
    // Not run here: a process that is being started holds for a moment whatever the tests beside this one have open and locked.
    let is_command = |source, want| matches!(source, SecretSource::Command(run) if run == want);
    let chosen = SecretSource::choose(environment, &file, &dirs, false);
    assert!(is_command(chosen, "echo from-command"));
    let chosen = SecretSource::choose(SecretEnvironment::default(), &file, &dirs, false);
    assert!(is_command(chosen, "echo from-file"));
    let nothing = SecretSource::choose(SecretEnvironment::default(), &File::default(), &dirs, true);
    assert!(nothing.read().unwrap().is_none());
}

#[test]
fn only_the_first_line_counts() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("password");
    for (content, want) in [
        ("secret", "secret"),
        ("secret\n", "secret"),
        ("secret\r\nrest\n", "secret"),
        (" with spaces \n", " with spaces "),
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(text(&SecretSource::File(path.clone())), want);
    }
}

#[test]
fn empty_overlong_binary_and_missing_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("password");
    let source = SecretSource::File(path.clone());
    assert!(source.read().is_err());
    for content in [
        Vec::new(),
        b"\nsecond".to_vec(),
        vec![b'x'; PASSWORD_LEN_MAX + 1],
        vec![0xff, 0xfe, b'\n'],
    ] {
        std::fs::write(&path, content).unwrap();
        assert!(source.read().is_err());
    }
    assert!(SecretSource::Given(Zeroizing::default()).read().is_err());
}

#[test]
fn a_secret_never_shows_in_debug() {
    let given = SecretSource::Given(Zeroizing::new("hunter2".into()));
    let command = SecretSource::Command("echo hunter2".into());
    assert!(!format!("{given:?}{command:?}").contains("hunter2"));
}

#[test]
fn a_key_file_is_random_private_and_never_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let dirs = dirs(root.path());
    let path = dirs.default_key_file();
    create_key_file(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let first = text(&SecretSource::KeyFile(path.clone()));
    assert_eq!(first.len(), KEY_FILE_BYTES * 2);
    assert!(create_key_file(&path).is_err());
    assert_eq!(text(&SecretSource::KeyFile(path.clone())), first);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = SecretSource::KeyFile(path).read().unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}
