//! What S3 servers say when they will not: each reason has its own message with what to do, and its own exit code. The answers are those of
//! AWS's documentation, status, headers and XML; they come over the wire, to the program itself.

use std::process::{Command, Output};

use hyper::Method;
use rewindfs::store::pace::Pace;
use rewindfs::store::s3::{Credentials, S3};
use rewindfs::store::url::Location;
use rewindfs::store::{Kind, ObjectStore};

use crate::s3_server::{ACCESS_KEY, Fault, Rule, S3Server, SECRET_KEY};

/// What makes a server say so, what that is, and how we end.
struct Refusal {
    /// Only requests of this method are refused.
    method: Option<Method>,
    answer: Fault,
    exit: i32,
    /// What a person must find in the message.
    words: &'static [&'static str],
}

fn refusals() -> Vec<Refusal> {
    let all = |answer, exit, words| Refusal {
        method: None,
        answer,
        exit,
        words,
    };
    let put = |answer, exit, words| Refusal {
        method: Some(Method::PUT),
        answer,
        exit,
        words,
    };
    vec![
        put(
            Fault::Answer(
                403,
                &[],
                "<Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/u is not authorized</Message></Error>",
            ),
            15,
            &["may not write", "s3:PutObject on arn:aws:s3:::bucket/p/*"],
        ),
        all(
            Fault::Answer(
                403,
                &[],
                "<Error><Code>InvalidAccessKeyId</Code><Message>The AWS Access Key Id you provided does not exist in our records.</Message><AWSAccessKeyId>AKIDTEST</AWSAccessKeyId></Error>",
            ),
            15,
            &["check the access key"],
        ),
        all(
            Fault::Answer(
                400,
                &[],
                "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>",
            ),
            15,
            &["have expired"],
        ),
        all(
            Fault::Answer(
                404,
                &[],
                "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message><BucketName>bucket</BucketName></Error>",
            ),
            10,
            &["create the bucket bucket"],
        ),
        all(
            Fault::Answer(
                301,
                &[("x-amz-bucket-region", "eu-west-1")],
                "<Error><Code>PermanentRedirect</Code><Message>The bucket you are attempting to access must be addressed using the specified endpoint.</Message><Endpoint>bucket.s3-eu-west-1.amazonaws.com</Endpoint></Error>",
            ),
            10,
            &["lies in the region eu-west-1", "region=eu-west-1"],
        ),
        all(
            Fault::Answer(
                400,
                &[],
                "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'</Message><Region>eu-central-1</Region></Error>",
            ),
            10,
            &["region=eu-central-1"],
        ),
        put(
            Fault::Answer(
                501,
                &[],
                "<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that is not implemented</Message><Header>x-amz-checksum-crc64nvme</Header></Error>",
            ),
            1,
            &["checksum=false"],
        ),
    ]
}

fn run(server: &S3Server, keys: &[(&str, &str)], arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_rewindfs"))
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("REWINDFS_REPO", server.location("p"))
        .env("REWINDFS_PASSWORD", "correct horse battery staple")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(keys.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn each_refusal_says_what_to_do_and_has_its_exit_code() {
    let server = S3Server::start("bucket");
    let keys = server.environment();
    for refusal in refusals() {
        server.heal();
        server.inject(Rule {
            method: refusal.method,
            ..Rule::always(refusal.answer)
        });
        let output = run(&server, &keys, &["init"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(refusal.exit), "{told}");
        for words in refusal.words {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(!told.contains(SECRET_KEY), "{told}");
    }
    server.heal();
    assert!(server.objects().is_empty());
}

#[test]
fn without_credentials_it_says_where_they_are_looked_for() {
    let server = S3Server::start("bucket");
    let output = run(&server, &[], &["init"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(15), "{told}");
    for words in ["no credentials", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"] {
        assert!(told.contains(words), "{told}");
    }
}

/// A clock comes right by itself when it is set, so this one is tried again. How far off it is the server's own date tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_told_by_how_much() {
    let server = S3Server::start("bucket");
    let Ok(Location::S3(place)) = server.location("p").parse() else {
        panic!("a location");
    };
    let keys = Credentials::Keys {
        id: ACCESS_KEY.into(),
        secret: SECRET_KEY.into(),
    };
    let store = S3::connect(&place, keys, Pace::default()).await.unwrap();
    server.inject(Rule::always(Fault::Answer(
        403,
        &[("date", "Sun, 06 Nov 1994 08:49:37 GMT")],
        "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message></Error>",
    )));
    let error = store.list("", None, 9).await.unwrap_err();
    assert_eq!(error.kind, Kind::Retry, "{error}");
    let told = error.to_string();
    assert!(
        told.contains("days ahead of the server's: set it"),
        "{told}"
    );
    assert!(store.clock_offset_ms().unwrap() > 1_000_000_000_000 / 2);
}

/// Storage class and tags go with each object, as the location says; and the checksum does not if it says so.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_location_go_with_each_object() {
    let server = S3Server::start("bucket");
    let location =
        server.location("p") + "&storage_class=STANDARD_IA&tags=project=x,who=me&checksum=false";
    let repo = ("REWINDFS_REPO", location.as_str());
    let keys: Vec<_> = server.environment().into_iter().chain([repo]).collect();
    let output = run(&server, &keys, &["init"]);
    assert!(output.status.success(), "{output:?}");
    let extras = server.extras();
    assert!(!extras.is_empty());
    let wanted = (
        Some("STANDARD_IA".to_owned()),
        Some("project=x&who=me".to_owned()),
    );
    for found in &extras {
        assert_eq!(found, &wanted);
    }
    assert_eq!(server.unchecked_puts(), extras.len() as u64);
}
