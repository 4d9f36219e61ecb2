//! Locations as people write them, right and wrong.

use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Location, ParseError> {
    text.parse()
}

fn s3(text: &str) -> S3Place {
    match parse(text) {
        Ok(Location::S3(place)) => place,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn folders_in_every_spelling() {
    let folder = |path: &str| Ok(Location::Folder(path.into()));
    assert_eq!(parse("/mnt/usb/repo"), folder("/mnt/usb/repo"));
    assert_eq!(parse("file:///mnt/a%20b"), folder("/mnt/a b"));
    assert_eq!(parse("/odd?name"), folder("/odd?name"));
    let here = std::env::current_dir().expect("tests have a working directory");
    assert_eq!(parse("repo"), Ok(Location::Folder(here.join("repo"))));
    assert_eq!(
        parse("./a://b"),
        Ok(Location::Folder(here.join("a:").join("b")))
    );
    assert!(matches!(parse("/x"), Ok(Location::Folder(p)) if p == Path::new("/x")));
}

#[test]
fn s3_with_all_settings() {
    let text =
        "s3://my-bucket/a/b?endpoint=http://127.0.0.1:9000/&region=eu-central-1&path_style=false";
    assert_eq!(
        s3(text),
        S3Place {
            bucket: "my-bucket".into(),
            prefix: "a/b/".into(),
            endpoint: Some("http://127.0.0.1:9000".into()),
            region: Some("eu-central-1".into()),
            path_style: Some(false),
            ..S3Place::default()
        }
    );
    for bare in ["s3://bucket", "s3://bucket/"] {
        assert_eq!((s3(bare).prefix.as_str(), s3(bare).endpoint), ("", None));
    }
    assert_eq!(s3("s3://bucket/docs/"), s3("s3://bucket/docs"));
}

#[test]
fn tags_are_encoded_for_their_header() {
    let place = s3("s3://bucket/a?tags=project=x%2By,who=me+and+you,empty");
    let encoded = place.encoded_tags();
    assert_eq!(
        encoded.as_deref(),
        Some("project=x%2By&who=me+and+you&empty=")
    );
    assert_eq!(s3("s3://bucket/a").encoded_tags(), None);
}

#[test]
fn what_is_shown_can_be_read_again() {
    for text in [
        "/mnt/usb",
        "s3://bucket/",
        "s3://bucket/a/b",
        "s3://bucket/a?endpoint=http://host:1/base&region=r-1&path_style=true",
        "s3://bucket/a?storage_class=STANDARD_IA&tags=project=x,cost+centre=a:/b&checksum=false",
    ] {
        let location = parse(text).expect(text);
        assert_eq!(location.to_string(), text);
        assert_eq!(parse(&location.to_string()), Ok(location));
    }
}

#[test]
fn unknown_settings_name_the_known_ones() {
    let error = parse("s3://bucket/a?regoin=x").expect_err("a misspelt setting");
    let message = error.to_string();
    for name in ["regoin", "endpoint", "region", "path_style"] {
        assert!(message.contains(name), "{message}");
    }
    assert_eq!(
        parse("s3://bucket/a?region=x&region=y"),
        Err(ParseError::Twice("region".into()))
    );
}

#[test]
fn credentials_are_refused_and_not_repeated() {
    for text in [
        "s3://AKIA:hush@bucket/a",
        "s3://bucket/a?endpoint=http://me:hush@host/",
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error, ParseError::Credentials);
        assert!(!format!("{error} {error:?}").contains("hush"));
    }
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "",
        "http://host/bucket",
        "s3://",
        "s3:///prefix",
        "s3://UPPER_case/x",
        "s3://ab/x",
        "s3://bucket:80/x",
        "s3://bucket/a//b",
        "s3://bucket/.hidden",
        "s3://bucket/a b",
        "s3://bucket/a#b",
        "s3://bucket/a?endpoint=host:9000",
        "s3://bucket/a?endpoint=ftp://host",
        "s3://bucket/a?endpoint=",
        "s3://bucket/a?region=",
        "s3://bucket/a?region=a/b",
        "s3://bucket/a?path_style=yes",
        "s3://bucket/a?checksum=",
        "s3://bucket/a?storage_class=",
        "s3://bucket/a?storage_class=GLACIER",
        "s3://bucket/a?storage_class=a%0Ab",
        "s3://bucket/a?tags=",
        "s3://bucket/a?tags==x",
        "s3://bucket/a?tags=a=1,a=2",
        "s3://bucket/a?tags=a=1%26b=2",
        "s3://bucket/a?tags=a,b,c,d,e,f,g,h,i,j,k",
        "file://host/dir",
        "file:///dir?x=y",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}
