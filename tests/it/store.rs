//! The stores through their public trait: the contract on each, and S3's own troubles over the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use rewindfs::id::ObjectKey;
use rewindfs::store::fault::{Faulty, Plan};
use rewindfs::store::local::Local;
use rewindfs::store::memory::Memory;
use rewindfs::store::metered::{Meter, Metered};
use rewindfs::store::overlay::Overlay;
use rewindfs::store::pace::Pace;
use rewindfs::store::retry::{Policy, Retry};
use rewindfs::store::s3::{Credentials, S3};
use rewindfs::store::url::{Location, S3Place};
use rewindfs::store::{Body, Condition, Kind, ObjectStore, PutOutcome, Store, Traffic};

use crate::s3_server::{ACCESS_KEY, Fault, Rule, S3Server, SECRET_KEY};
use crate::store_contract;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name)
}

fn body(text: &'static str) -> Body {
    Body::Bytes(Bytes::from_static(text.as_bytes()))
}

fn place(location: &str) -> S3Place {
    match location.parse() {
        Ok(Location::S3(place)) => place,
        other => panic!("{location}: {other:?}"),
    }
}

fn keys(secret: &str) -> Credentials {
    Credentials::Keys {
        id: ACCESS_KEY.into(),
        secret: secret.into(),
    }
}

async fn s3(server: &S3Server) -> Arc<S3> {
    let place = place(&server.location("deep/prefix"));
    Arc::new(
        S3::connect(&place, keys(SECRET_KEY), Pace::default())
            .await
            .unwrap(),
    )
}

fn quick() -> Policy {
    Policy {
        attempts_max: 4,
        first_pause: Duration::ZERO,
        pause_max: Duration::ZERO,
        patience: Duration::MAX,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    store_contract::check(Arc::new(Memory::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    store_contract::check(Arc::new(Local::open(folder.path()).unwrap())).await;
}

/// What `daemon` and `cli` call: the folder is made by one and only opened by the other, and every request is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_location_is_created_and_opened_with_its_meter() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::Folder(folder.path().join("a/b"));
    let traffic = Traffic::default();
    let error = rewindfs::store::open(&location, &traffic)
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Missing, "{error}");
    rewindfs::store::create(&location).await.unwrap();
    let opened = rewindfs::store::open(&location, &traffic).await;
    let (store, meter) = (opened.unwrap(), &traffic.meter);
    store.put(&key("x"), body("abc")).await.unwrap();
    assert_eq!((meter.requests(), meter.bytes_put()), (1, 3));
    assert_eq!(store.describe(), location.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract() {
    let server = S3Server::start("bucket");
    store_contract::check(s3(&server).await).await;
    assert!(server.objects().is_empty());
    assert_eq!(server.unchecked_puts(), 0, "each body carries its CRC");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_without_conditions_keeps_the_rest_of_the_contract() {
    let server = S3Server::start("bucket");
    server.ignore_conditions();
    let store = s3(&server).await;
    store_contract::check_with(store, store_contract::Conditions::Ignored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wrappers_keep_the_contract_together_and_alone() {
    let spool = tempfile::tempdir().unwrap();
    let wrappers: [fn(Store, &std::path::Path) -> Store; 4] = [
        |inner, _| Arc::new(Faulty::new(inner, Plan::new())),
        |inner, _| Arc::new(Metered::new(inner, Arc::new(Meter::default()))),
        |inner, _| Arc::new(Retry::new(inner, quick())),
        |inner, spool| Arc::new(Overlay::new(inner, spool.to_path_buf())),
    ];
    for wrap in wrappers {
        store_contract::check(wrap(Arc::new(Memory::new()), spool.path())).await;
    }
    let all = wrappers
        .into_iter()
        .fold(Arc::new(Memory::new()) as Store, |inner, wrap| {
            wrap(inner, spool.path())
        });
    store_contract::check(all).await;
}

/// Objects lie under the prefix and nowhere else; what others keep in the bucket is neither listed nor touched.
#[tokio::test(flavor = "multi_thread")]
async fn s3_stays_within_its_prefix() {
    let server = S3Server::start("bucket");
    for other in [
        "deep/prefix",
        "deep/prefix/",
        "deep/prefix2/x",
        "a",
        "deep/prefix/o dd",
    ] {
        server.tamper(other, Some(Bytes::from_static(b"other")));
    }
    let store = s3(&server).await;
    store.put(&key("x"), body("mine")).await.unwrap();
    let listed = store.list("", None, 1000).await.unwrap();
    assert_eq!(listed.objects, [(key("x"), 4)]);
    let names: Vec<_> = server.objects().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"deep/prefix/x".to_owned()), "{names:?}");
    assert_eq!(names.len(), 6);
}

/// What a server says, what we make of it, and which words a person must find in the message.
#[tokio::test(flavor = "multi_thread")]
async fn s3_errors_say_what_to_do() {
    let server = S3Server::start("bucket");
    let store = s3(&server).await;
    for (status, code, kind, words) in [
        (403, "AccessDenied", Kind::Denied, "may not"),
        (
            403,
            "InvalidAccessKeyId",
            Kind::Denied,
            "check the access key",
        ),
        (
            403,
            "SignatureDoesNotMatch",
            Kind::Denied,
            "check the access key",
        ),
        (400, "ExpiredToken", Kind::Denied, "sign in again"),
        (403, "RequestTimeTooSkewed", Kind::Retry, "clock"),
        (
            404,
            "NoSuchBucket",
            Kind::Misplaced,
            "create the bucket bucket",
        ),
        (301, "PermanentRedirect", Kind::Misplaced, "?region="),
        (
            400,
            "AuthorizationHeaderMalformed",
            Kind::Misplaced,
            "?region=",
        ),
        (503, "SlowDown", Kind::Retry, "SlowDown"),
        (500, "InternalError", Kind::Retry, "InternalError"),
        (409, "ConditionalRequestConflict", Kind::Retry, "Conflict"),
        (400, "BadDigest", Kind::Retry, "BadDigest"),
        (400, "KeyTooLongError", Kind::Invalid, "KeyTooLong"),
        (507, "XMinioStorageFull", Kind::Full, "StorageFull"),
        (400, "QuotaExceeded", Kind::Full, "Quota"),
        (418, "", Kind::Invalid, "HTTP status 418"),
    ] {
        for method in [Method::PUT, Method::GET, Method::DELETE] {
            server.inject(Rule::next(method, Fault::Status(status, code)));
        }
        let errors = [
            store.put(&key("x"), body("x")).await.unwrap_err(),
            store.get_range(&key("x"), 0..1).await.unwrap_err(),
            store.delete(&key("x")).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, kind, "{code}: {error}");
            assert!(error.to_string().contains(words), "{code}: {error}");
            assert!(
                error.to_string().contains("s3://bucket/deep/prefix"),
                "{error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_heads_are_judged_by_their_status_alone() {
    let server = S3Server::start("bucket");
    let store = s3(&server).await;
    for (status, kind) in [
        (403, Kind::Denied),
        (503, Kind::Retry),
        (301, Kind::Misplaced),
    ] {
        server.inject(Rule::next(Method::HEAD, Fault::Status(status, "Ignored")));
        assert_eq!(store.head(&key("x")).await.unwrap_err().kind, kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_wrong_credentials_buckets_and_servers_are_told_apart() {
    let server = S3Server::start("bucket");
    let right = place(&server.location("p"));
    let secret = "not-the-secret";
    let store = S3::connect(&right, keys(secret), Pace::default())
        .await
        .unwrap();
    let error = store.put(&key("x"), body("x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(!format!("{error} {error:?} {store:?}").contains(secret));

    let absent = S3Place {
        bucket: "absent".into(),
        ..right.clone()
    };
    let store = S3::connect(&absent, keys(SECRET_KEY), Pace::default())
        .await
        .unwrap();
    let errors = [
        store.put(&key("x"), body("x")).await.unwrap_err(),
        store.list("", None, 9).await.unwrap_err(),
        store.get(&key("x"), 9).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, Kind::Misplaced, "{error}");
        assert!(
            error.to_string().contains("create the bucket absent"),
            "{error}"
        );
    }

    // A port that is taken, so that no server of another test gets it, and at which nobody listens.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    let gone = S3Place {
        endpoint: Some(endpoint),
        ..right
    };
    let store = S3::connect(&gone, keys(SECRET_KEY), Pace::default())
        .await
        .unwrap();
    let error = store.head(&key("x")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Retry, "{error}");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

/// Connections that close, bodies that break off: all of it passes unseen below the retries.
#[tokio::test(flavor = "multi_thread")]
async fn s3_trouble_on_the_wire_is_outlasted() {
    let server = S3Server::start("bucket");
    let store = Retry::new(s3(&server).await, quick());
    store.put(&key("x"), body("0123456789")).await.unwrap();
    for fault in [
        Fault::Close,
        Fault::LoseAnswer,
        Fault::BreakBody(0),
        Fault::BreakBody(5),
        Fault::Status(503, "SlowDown"),
    ] {
        let struck = server.faults_struck();
        server.inject(Rule::next(Method::GET, fault));
        let found = store.get_range(&key("x"), 0..10).await.unwrap();
        assert_eq!(&found[..], b"0123456789", "{fault:?}");
        assert_eq!(server.faults_struck(), struck + 1, "{fault:?}");
    }
    server.inject(Rule::always(Fault::Status(503, "SlowDown")));
    let requests = server.requests();
    assert_eq!(store.head(&key("x")).await.unwrap_err().kind, Kind::Retry);
    assert_eq!(
        server.requests(),
        requests + 4,
        "bounded, and nobody else retries"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_removes_many_with_one_request_or_one_by_one_where_it_must() {
    let server = S3Server::start("bucket");
    let store = Retry::new(s3(&server).await, quick());
    let names: Vec<_> = (0..5).map(|n| key(&format!("c/{n}"))).collect();
    let fill = async || {
        for name in &names {
            store.put(name, body("x")).await.unwrap();
        }
    };

    fill().await;
    server.inject(Rule::next(Method::POST, Fault::LoseAnswer));
    let before = server.requests();
    store.delete_together(&names).await.unwrap();
    assert_eq!(server.requests(), before + 2, "one, and one again");
    assert!(server.objects().is_empty());

    for (status, code) in [
        (400, "MissingContentMD5"),
        (403, "AccessDenied"),
        (404, "NoSuchKey"),
        (405, "MethodNotAllowed"),
        (501, "NotImplemented"),
    ] {
        fill().await;
        server.inject(Rule::next(Method::POST, Fault::Status(status, code)));
        let before = server.requests_of(&Method::DELETE);
        store.delete_together(&names).await.unwrap();
        assert_eq!(server.requests_of(&Method::DELETE), before + 5, "{code}");
        assert!(server.objects().is_empty(), "{code}");
    }
    let before = server.requests();
    store.delete_together(&[]).await.unwrap();
    let wild = store.delete_together(&[key("a//b")]).await.unwrap_err();
    assert_eq!((wild.kind, server.requests()), (Kind::Invalid, before));

    // An answer that is a success on the whole, and none for one of them.
    let one = "<DeleteResult><Error><Key>p/c/1</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>";
    server.inject(Rule::next(Method::POST, Fault::Answer(200, &[], one)));
    let error = store.delete_together(&names).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    let told = error.to_string();
    assert!(
        told.contains("p/c/1") && told.contains("s3:DeleteObject"),
        "{told}"
    );
    let strange =
        "<DeleteResult><Error><Key>p/c/1</Key><Code>InvalidArgument</Code></Error></DeleteResult>";
    server.inject(Rule::next(Method::POST, Fault::Answer(200, &[], strange)));
    let before = server.requests();
    let error = store.delete_together(&names).await.unwrap_err();
    assert_eq!((error.kind, server.requests()), (Kind::Invalid, before + 1));
    let busy =
        "<DeleteResult><Error><Key>p/c/1</Key><Code>InternalError</Code></Error></DeleteResult>";
    server.inject(Rule::next(Method::POST, Fault::Answer(200, &[], busy)));
    fill().await;
    store.delete_together(&names).await.unwrap();
    assert!(server.objects().is_empty(), "the second attempt did it");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conditional_write_survives_a_lost_answer() {
    let server = S3Server::start("bucket");
    let store = Retry::new(s3(&server).await, quick());
    server.inject(Rule::next(Method::PUT, Fault::LoseAnswer));
    let outcome = store
        .put_if(&key("x"), body("mine"), Condition::Absent)
        .await;
    assert_eq!(outcome.unwrap(), PutOutcome::Done);
    server.inject(Rule::next(Method::PUT, Fault::Close));
    let outcome = store
        .put_if(&key("x"), body("late"), Condition::Absent)
        .await;
    assert_eq!(outcome.unwrap(), PutOutcome::Refused);
    // A server without conditions: written, and Done proves nothing.
    server.inject(Rule::next(
        Method::PUT,
        Fault::Status(501, "NotImplemented"),
    ));
    let outcome = store
        .put_if(&key("x"), body("over"), Condition::Absent)
        .await;
    assert_eq!(outcome.unwrap(), PutOutcome::Done);
    assert_eq!(&store.get(&key("x"), 9).await.unwrap().0[..], b"over");
}

/// Lies that HTTP cannot notice come through as they are: the frames' authentication stands behind this.
#[tokio::test(flavor = "multi_thread")]
async fn s3_lies_are_passed_on_for_the_reader_to_find() {
    let server = S3Server::start("bucket");
    let store = s3(&server).await;
    store.put(&key("x"), body("abcd")).await.unwrap();
    server.inject(Rule::next(Method::GET, Fault::FlipBit(8)));
    assert_eq!(
        &store.get_range(&key("x"), 0..4).await.unwrap()[..],
        b"accd"
    );
    server.inject(Rule::next(Method::GET, Fault::ShortBody(2)));
    assert_eq!(&store.get_range(&key("x"), 0..4).await.unwrap()[..], b"ab");
    server.inject(Rule::next(Method::PUT, Fault::Pretend));
    store.put(&key("y"), body("gone")).await.unwrap();
    assert_eq!(store.head(&key("y")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_request_that_hangs_goes_on_after_healing() {
    let server = Arc::new(S3Server::start("bucket"));
    let store = s3(&server).await;
    server.inject(Rule::next(Method::PUT, Fault::Hang));
    let hanging = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put(&key("x"), body("x")).await }
    });
    while server.faults_struck() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(server.objects().is_empty());
    server.heal();
    hanging.await.unwrap().unwrap();
    assert_eq!(server.objects().len(), 1);
}

/// How the child of [`s3_credentials_come_from_environment_profile_and_instance`] is told what to do.
const CHILD: &str = "REWINDFS_TEST_S3_LOCATION";

/// The half of the test below that runs in a process whose environment says who we are; alone it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn s3_as_the_environment_says() {
    let Ok(location) = std::env::var(CHILD) else {
        return;
    };
    let store = S3::connect(&place(&location), Credentials::Chain, Pace::default()).await;
    let outcome = store.unwrap().put(&key("x"), body("x")).await;
    let told = match outcome {
        Ok(()) => "stored".to_owned(),
        Err(error) => format!("{:?}: {error}", error.kind),
    };
    std::fs::write(std::env::var("REWINDFS_TEST_ANSWER").unwrap(), told).unwrap();
}

/// Runs the child with nothing in its environment but `variables`; what it tells.
fn as_child(server: &S3Server, variables: &[(&str, &str)]) -> String {
    let home = tempfile::tempdir().unwrap();
    let answer = home.path().join("answer");
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::s3_as_the_environment_says"])
        .env_clear()
        .env("HOME", home.path())
        .env(CHILD, server.location("p"))
        .env("REWINDFS_TEST_ANSWER", &answer)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    std::fs::read_to_string(answer).unwrap()
}

#[test]
fn s3_credentials_come_from_environment_profile_and_instance() {
    let server = S3Server::start("bucket");
    let nowhere = ("AWS_EC2_METADATA_DISABLED", "true");
    let environment = server.environment();
    assert_eq!(as_child(&server, &environment), "stored");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let text =
        format!("[work]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    std::fs::write(&file, text).unwrap();
    let file = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
    assert_eq!(
        as_child(&server, &[nowhere, file, ("AWS_PROFILE", "work")]),
        "stored"
    );

    let metadata = instance_metadata();
    let instance = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.as_str());
    assert_eq!(as_child(&server, &[instance]), "stored");

    let forbidding = metadata_service("403 Forbidden");
    let refused = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", forbidding.as_str());
    for nobody in [nowhere, refused] {
        let told = as_child(&server, &[nobody]);
        assert!(told.starts_with("Denied"), "{told}");
        assert!(told.contains("AWS_ACCESS_KEY_ID"), "{told}");
    }
}

/// What an EC2 instance's metadata service says to whoever asks for the role's credentials (IMDSv2). It answers until
/// the test's process ends.
fn instance_metadata() -> String {
    metadata_service("200 OK")
}

/// The same service, with this status on every answer.
fn metadata_service(status: &'static str) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
            // Who waits for it no longer than a second may have gone, and asks again.
            let Some(Ok(request)) = head.next() else {
                continue;
            };
            while head
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let text = match request.split(' ').nth(1).unwrap() {
                "/latest/api/token" => "token".to_owned(),
                path if path.ends_with("/security-credentials/") => "role".to_owned(),
                path if path.ends_with("/security-credentials/role") => format!(
                    r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{ACCESS_KEY}","SecretAccessKey":"{SECRET_KEY}","Token":"t","LastUpdated":"2020-01-01T00:00:00Z","Expiration":"2099-01-01T00:00:00Z"}}"#
                ),
                path => panic!("{path}"),
            };
            let answered = write!(
                stream,
                "HTTP/1.1 {status}\r\nx-aws-ec2-metadata-token-ttl-seconds: 600\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            drop(answered);
        }
    });
    format!("http://{address}")
}
