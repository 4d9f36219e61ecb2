//! Every code is reached by the errors that call for it.

use anyhow::{Context, anyhow};

use super::*;
use crate::cli::Failure;
use crate::id::ObjectKey;

fn store(kind: store::Kind) -> store::Error {
    store::Error {
        kind,
        doing: "put x".into(),
        message: "no".into(),
        source: None,
    }
}

#[test]
fn codes_are_the_documented_ones() {
    let codes: Vec<u8> = ALL.iter().map(|exit| exit.code()).collect();
    assert_eq!(
        codes,
        [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 16, 130, 143]
    );
    for exit in ALL {
        assert_eq!(Exit::from_code(exit.code()), exit);
    }
    assert_eq!(Exit::from_code(99), Exit::Failed);
}

#[test]
fn repository_errors() {
    let object = ObjectKey::new("x");
    for (error, want) in [
        (repo::Error::NoRepository("x".into()), Exit::NoRepository),
        (repo::Error::AlreadyThere("x".into()), Exit::Failed),
        (repo::Error::WrongPassword("x".into()), Exit::WrongPassword),
        (
            repo::Error::NewerFormat {
                what: "x".into(),
                feature: 7,
            },
            Exit::NewerFormat,
        ),
        (
            repo::Error::Damaged {
                object: object.clone(),
                why: "x".into(),
            },
            Exit::Damage,
        ),
        (repo::Error::Missing { object }, Exit::Damage),
        (
            repo::Error::Busy {
                volume: "x".into(),
                holder: "y".into(),
            },
            Exit::AnotherWriter,
        ),
        (repo::Error::Fenced(3), Exit::AnotherWriter),
        (repo::Error::Invalid("x".into()), Exit::Usage),
        (repo::Error::NotFound("x".into()), Exit::Failed),
        (
            repo::Error::from(store(store::Kind::Denied)),
            Exit::Credentials,
        ),
    ] {
        let text = error.to_string();
        let error = anyhow::Error::new(error).context("open the repository");
        assert_eq!(Exit::of(&error), want, "{text}");
    }
}

#[test]
fn store_errors() {
    for (kind, want) in [
        (store::Kind::Denied, Exit::Credentials),
        (store::Kind::Corrupt, Exit::Damage),
        (store::Kind::Full, Exit::NoSpace),
        (store::Kind::Misplaced, Exit::NoRepository),
        (store::Kind::Invalid, Exit::Failed),
        (store::Kind::Retry, Exit::Failed),
        (store::Kind::Missing, Exit::Failed),
    ] {
        assert_eq!(Exit::of(&anyhow::Error::new(store(kind))), want, "{kind:?}");
    }
}

#[test]
fn settings_the_daemon_and_the_disk() {
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let io_error = |source| config::Error::Io {
        doing: "write",
        path: "/x".into(),
        source,
    };
    for (error, want) in [
        (anyhow!(config::Error::Usage("x".into())), Exit::Usage),
        (anyhow!(config::Error::Layout("x".into())), Exit::Usage),
        (
            anyhow!(config::Error::MountPoint("x".into())),
            Exit::MountPoint,
        ),
        (
            anyhow!(config::Error::NoRepository("x".into())),
            Exit::NoRepository,
        ),
        (
            anyhow!(config::Error::Secret("x".into())),
            Exit::WrongPassword,
        ),
        (anyhow!(io_error(full())), Exit::NoSpace),
        (
            anyhow!(io_error(io::ErrorKind::NotFound.into())),
            Exit::Failed,
        ),
        (
            anyhow!(daemon::Error::NotYetRemote("x".into())),
            Exit::NotYetRemote,
        ),
        (
            anyhow!(daemon::Error::AnotherWriter("x".into())),
            Exit::AnotherWriter,
        ),
        (
            anyhow!(daemon::Error::MountPoint("x".into())),
            Exit::MountPoint,
        ),
        (anyhow!(daemon::Error::Interrupted), Exit::Interrupted),
        (anyhow!(daemon::Error::Terminated), Exit::Terminated),
        (
            anyhow!(daemon::Error::Reported {
                message: "x".into(),
                exit: 12
            }),
            Exit::WrongPassword,
        ),
        (
            anyhow!(super::super::time::Error::Meaningless("x".into())),
            Exit::Usage,
        ),
        (
            anyhow!(Failure {
                exit: Exit::InPart,
                message: "x".into()
            }),
            Exit::InPart,
        ),
        (anyhow!("anything else"), Exit::Failed),
    ] {
        assert_eq!(Exit::of(&error), want, "{error:#}");
    }
    let deep = Err::<(), _>(full()).context("write a").context("restore b");
    assert_eq!(Exit::of(&deep.unwrap_err()), Exit::NoSpace);
}

#[test]
fn a_sentence_is_one_line_without_repetition() {
    let error = anyhow!("first\n  second").context("restore a");
    assert_eq!(sentence(&error), "restore a: first second");
    let error = anyhow::Error::new(repo::Error::from(store(store::Kind::Retry)));
    assert_eq!(sentence(&error), "put x: no");
    // A cause whose words stand in the message already, as the stores write them.
    let error = anyhow!("refused").context("get x: refused: try again");
    assert_eq!(sentence(&error), "get x: refused: try again");
}
