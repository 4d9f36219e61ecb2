//! Every form of a moment that is promised, and those that must not pass for one.

use super::*;

/// A Saturday, in a zone two hours east of Greenwich in summer and one in winter.
fn now() -> Zoned {
    // Its rules in full, since a machine may lack those of the zones.
    let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let now: Timestamp = "2026-11-21T10:30:00.500Z".parse().unwrap();
    now.to_zoned(zone)
}

fn at(rfc3339: &str) -> Result<Point, Error> {
    let at: Timestamp = rfc3339.parse().unwrap();
    Ok(Point::At(Stamp(at.as_millisecond() as u64)))
}

#[track_caller]
fn means(text: &str, rfc3339: &str) {
    assert_eq!(parse(text, &now()), at(rfc3339), "{text}");
}

#[test]
fn lengths_of_time_are_so_long_ago() {
    means("10m", "2026-11-21T10:20:00.500Z");
    means("2h30m", "2026-11-21T08:00:00.500Z");
    means("5 minutes ago", "2026-11-21T10:25:00.500Z");
    means("1h ago", "2026-11-21T09:30:00.500Z");
    means("3d", "2026-11-18T10:30:00.500Z");
    means("2w", "2026-11-07T10:30:00.500Z");
    means("90s", "2026-11-21T10:28:30.500Z");
}

#[test]
fn a_length_in_days_counts_by_the_calendar_across_the_end_of_summer_time() {
    // 30 days before was still summer time: the same hour by the clock on the wall.
    means("30d", "2026-10-22T09:30:00.500Z");
}

#[test]
fn dates_and_times_are_local_unless_they_say_otherwise() {
    means("2026-11-21 10:00", "2026-11-21T09:00:00Z");
    means("2026-11-21T10:00", "2026-11-21T09:00:00Z");
    means("2026-11-21 10:00:05.25", "2026-11-21T09:00:05.250Z");
    means("2026-11-21", "2026-11-20T23:00:00Z");
    means("2026-07-01 10:00", "2026-07-01T08:00:00Z");
    means("2026-11-21T09:00:00Z", "2026-11-21T09:00:00Z");
    means("2026-11-21T09:00:00+05:30", "2026-11-21T03:30:00Z");
    means("2026-11-21t09:00:00.123z", "2026-11-21T09:00:00.123Z");
}

#[test]
fn what_people_say_is_understood() {
    means("yesterday 14:00", "2026-11-20T13:00:00Z");
    means("yesterday", "2026-11-20T10:30:00.500Z");
    means("2 days ago", "2026-11-19T10:30:00.500Z");
}

#[test]
fn forms_of_our_own() {
    assert_eq!(parse("latest", &now()), Ok(Point::Latest));
    assert_eq!(parse(" latest ", &now()), Ok(Point::Latest));
    assert_eq!(parse("now", &now()), Ok(Point::Latest));
    assert_eq!(parse("latest~3", &now()), Ok(Point::Back(3)));
    assert_eq!(parse("@17", &now()), Ok(Point::Seq(Seq(17))));
    for name in ["release-1", "before-upgrade", "v1.2.3", "3f2a81c09d5e7b46"] {
        assert_eq!(parse(name, &now()), Ok(Point::Named(name.into())));
    }
    // All digits, yet an id: so many digits never mean anything else.
    let digits = "2026112110001234";
    assert_eq!(parse(digits, &now()), Ok(Point::Named(digits.into())));
}

#[test]
fn what_is_no_moment_gives_examples() {
    for text in [
        "",
        " ",
        "latest~",
        "latest~x",
        "latest~-1",
        "@",
        "@x",
        "@-1",
        "10 parsecs ago",
        "a/b",
        "../x",
        "2026-13-01",
        "2026-11-21 25:00",
        "-",
        "\0",
    ] {
        let refused = parse(text, &now()).expect_err(text);
        assert!(
            matches!(refused, Error::Meaningless(_)),
            "{text:?}: {refused}"
        );
        assert!(refused.to_string().contains("5 minutes ago"));
    }
    for text in ["1969-12-31", "9000000h"] {
        let refused = parse(text, &now()).unwrap_err();
        assert!(matches!(refused, Error::OutOfRange(_)), "{text}: {refused}");
    }
}

#[test]
fn a_time_that_the_clock_skipped_is_the_one_after_the_gap() {
    means("2026-03-29 02:30", "2026-03-29T01:30:00Z");
}

#[test]
fn names_that_could_not_be_asked_for_again_are_refused() {
    for name in [
        "release-1",
        "before-upgrade",
        "before the accident",
        "v1.2.3",
        "größer",
    ] {
        assert_eq!(check_name(name, &now()), Ok(()), "{name}");
    }
    for name in [
        "",
        "latest",
        "latest~1",
        "@1",
        "10m",
        "yesterday",
        "2026-11-21",
        "deadbeef",
        "1234",
        "3f2a81c09d5e7b46",
        "-x",
        "4 weeks",
        "a/b",
        "now",
        &"x".repeat(129),
    ] {
        assert!(check_name(name, &now()).is_err(), "{name}");
    }
}

#[test]
fn what_is_printed_is_found_again() {
    let stamp = Stamp(1_795_260_000_123);
    assert_eq!(parse(&stamp.to_rfc3339(), &now()), Ok(Point::At(stamp)));
    assert_eq!(parse(&local(stamp, &now()), &now()), Ok(Point::At(stamp)));
    assert_eq!(Stamp(u64::MAX).to_rfc3339().get(..4), Some("9999"));
}
