//! `rewindfs doctor` against servers that are good, that ignore conditions, that give wrong ranges, that forbid; and a folder.

use std::process::Command;

use hyper::Method;
use serde_json::Value;

use crate::s3_server::{Fault, Rule, S3Server};

/// What it finds, and its exit code.
fn doctor(repo: &str, environment: &[(&'static str, &'static str)]) -> (Vec<Value>, i32) {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rewindfs"))
        .args(["doctor", "--json", repo])
        .env_clear()
        .env("HOME", home.path())
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let findings = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{output:?}"));
    (findings, output.status.code().unwrap())
}

/// How `what` was judged.
fn verdict<'a>(findings: &'a [Value], what: &str) -> &'a str {
    let found = findings.iter().find(|finding| finding["what"] == what);
    let found = found.unwrap_or_else(|| panic!("{what}: {findings:#?}"));
    found["verdict"].as_str().unwrap()
}

fn on(server: &S3Server, prefix: &str) -> (Vec<Value>, i32) {
    doctor(&server.location(prefix), &server.environment())
}

#[test]
fn a_good_server_is_good_and_left_as_it_was() {
    let server = S3Server::start("bucket");
    server.tamper("other/thing", Some("x".into()));
    let (findings, exit) = on(&server, "docs");
    assert_eq!(exit, 0, "{findings:#?}");
    for what in [
        "reachable",
        "clock",
        "write",
        "read",
        "ranges",
        "absence",
        "checksums",
        "listing",
        "conditions",
        "race",
    ] {
        assert_eq!(verdict(&findings, what), "good", "{what}: {findings:#?}");
    }
    // What it lets us do beyond what we need.
    for what in ["transport", "neighbours", "removal"] {
        assert_eq!(verdict(&findings, what), "advice", "{what}");
    }
    let names: Vec<_> = server.objects().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["other/thing"]);
}

#[test]
fn a_folder_is_good_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (findings, exit) = doctor(folder.path().to_str().unwrap(), &[]);
    assert_eq!(exit, 0, "{findings:#?}");
    for what in ["write", "read", "ranges", "listing", "conditions", "race"] {
        assert_eq!(verdict(&findings, what), "good", "{what}: {findings:#?}");
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    let below = |name: &str| folder.path().join(name).exists();
    assert!(left == 0 || !below("doctor/object"), "{left} left");
    let absent = folder.path().join("absent");
    let (findings, exit) = doctor(absent.to_str().unwrap(), &[]);
    assert_eq!((verdict(&findings, "reachable"), exit), ("bad", 1));
}

#[test]
fn ignored_conditions_are_worth_knowing() {
    let server = S3Server::start("bucket");
    server.ignore_conditions();
    let (findings, exit) = on(&server, "docs");
    assert_eq!(exit, 0, "{findings:#?}");
    assert_eq!(verdict(&findings, "conditions"), "advice");
}

#[test]
fn wrong_ranges_are_bad_and_so_is_a_server_that_pretends() {
    let server = S3Server::start("bucket");
    let struck = |rule: Rule| {
        server.heal();
        server.inject(rule);
        let (findings, exit) = on(&server, "docs");
        assert_eq!(exit, 1, "{findings:#?}");
        let last = findings.last().unwrap();
        assert_eq!(last["verdict"], "bad", "{findings:#?}");
        assert!(!last["follows"].as_str().unwrap().is_empty());
        last["what"].as_str().unwrap().to_owned()
    };
    // The first two GETs are of the whole object.
    let wrong_range = Rule {
        method: Some(Method::GET),
        contains: "doctor/object".into(),
        skip: 2,
        ..Rule::always(Fault::FlipBit(0))
    };
    assert_eq!(struck(wrong_range), "ranges");
    let pretends = Rule {
        method: Some(Method::PUT),
        skip: 1,
        ..Rule::always(Fault::Pretend)
    };
    assert_eq!(struck(pretends), "overwrite");
    let no_listing = Rule {
        contains: "list-type".into(),
        ..Rule::always(Fault::Status(403, "AccessDenied"))
    };
    assert_eq!(struck(no_listing), "reachable");
    let no_writing = Rule {
        method: Some(Method::PUT),
        ..Rule::always(Fault::Status(403, "AccessDenied"))
    };
    assert_eq!(struck(no_writing), "write");
}

/// With the least rights everything that is needed can be tried, and what is left over is named.
#[test]
fn the_least_rights_are_enough() {
    let server = S3Server::start("bucket");
    for method in [Method::DELETE, Method::POST] {
        server.inject(Rule {
            method: Some(method),
            ..Rule::always(Fault::Status(403, "AccessDenied"))
        });
    }
    for _ in 0..2 {
        let (findings, exit) = on(&server, "docs");
        assert_eq!(exit, 0, "{findings:#?}");
        assert_eq!(verdict(&findings, "removal"), "good");
        assert!(findings.iter().all(|finding| finding["what"] != "race"));
    }
    // The second trial wrote over what the first had left.
    assert_eq!(server.objects().len(), 8, "{:?}", server.objects());

    let refusing = |together: Fault, alone: Option<Fault>| {
        server.heal();
        for (method, fault) in [(Method::POST, Some(together)), (Method::DELETE, alone)] {
            let rule = fault.map(|fault| Rule {
                method: Some(method),
                ..Rule::always(fault)
            });
            rule.into_iter().for_each(|rule| server.inject(rule));
        }
        let (findings, exit) = on(&server, "docs");
        assert_eq!(exit, 0, "{findings:#?}");
        verdict(&findings, "removal").to_owned()
    };
    // As AWS says it: the request is a success, and the removal of each is not.
    let each = "<DeleteResult><Error><Key>docs/doctor/object</Key><Code>AccessDenied</Code></Error></DeleteResult>";
    assert_eq!(refusing(Fault::Answer(200, &[], each), None), "good");
    assert!(!server.objects().is_empty());
    // Only the one request is refused: the credentials may remove objects all the same.
    let alone = Fault::Status(403, "AccessDenied");
    assert_eq!(refusing(alone, None), "advice");
    assert!(server.objects().is_empty());
}
