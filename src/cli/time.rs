//! From what a person writes for a moment to a point in a volume's history.
//!
//! `jiff` reads RFC 3339, local date and time and lengths of time; `parse_datetime` reads what people say (`yesterday 14:00`).
//! Only the forms that neither knows are read here: `latest`, `latest~3`, `@SEQ`, names and ids. Now and the time zone come
//! from the caller, so that tests can hold them still.

use jiff::civil::DateTime;
use jiff::{Span, Timestamp, Zoned};

use crate::clock::Stamp;
use crate::daemon::opening::MOMENTS;
use crate::id::Seq;
use crate::repo::commits::Point;

/// How `--help` explains a moment.
pub(crate) const HELP: &str = "\
Moment to look at: the newest snapshot that is not later than it.
  latest or now, latest~3      the newest, the third before it
  10m, 2h30m, 5 minutes ago    so long ago
  '2026-11-21 10:00'           local date and time
  yesterday 14:00              as people say it
  2026-11-21T09:00:00Z         RFC 3339
  @17                          a sequence number
  3f2a81c09d5e7b46, release-1  a snapshot's id (or its beginning), or its name";

/// Hexadecimal digits of an id as `snapshots` shows it: so many are always an id, whatever else they could mean.
const ID_DIGITS: usize = 16;
/// The longest name of a snapshot, in bytes: it stands in every later commit's history.
const NAME_LEN_MAX: usize = 128;

/// Why a text is no moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It means nothing.
    #[error("`{0}` is not a moment; write {MOMENTS}")]
    Meaningless(String),
    /// It lies before 1970 or beyond what a calendar holds.
    #[error("`{0}` lies outside the calendar that snapshots can have")]
    OutOfRange(String),
    /// It cannot be the name of a snapshot.
    #[error("`{name}` cannot name a snapshot: {why}")]
    Name {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Reads a moment. A word that is none of the known forms is taken for a snapshot's name or id.
pub(crate) fn parse(text: &str, now: &Zoned) -> Result<Point, Error> {
    let text = text.trim();
    if text.len() == ID_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Point::Named(text.to_ascii_lowercase()));
    }
    if let Some(point) = relative_to_history(text)? {
        return Ok(point);
    }
    if let Some(moment) = moment(text, now)? {
        return stamp(&moment, text).map(Point::At);
    }
    let beginning_of_id = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    match beginning_of_id || check_name_form(text).is_ok() {
        true => Ok(Point::Named(text.to_owned())),
        false => Err(Error::Meaningless(text.to_owned())),
    }
}

/// Refuses a name for a snapshot that could not be asked for again, because it means something else.
pub(crate) fn check_name(name: &str, now: &Zoned) -> Result<(), Error> {
    let refuse = |why| {
        Err(Error::Name {
            name: name.to_owned(),
            why,
        })
    };
    if let Err(why) = check_name_form(name) {
        return refuse(why);
    }
    if name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return refuse("it looks like an id; add a letter beyond f");
    }
    match parse(name, now) {
        Ok(Point::Named(_)) => Ok(()),
        _ => refuse("it reads as a moment; choose another word"),
    }
}

fn check_name_form(name: &str) -> Result<(), &'static str> {
    let plain = |c: char| !c.is_control() && c != '/';
    let blank = name.contains(char::is_whitespace);
    match name {
        "" => Err("it is empty"),
        _ if name.len() > NAME_LEN_MAX => Err("it is longer than 128 bytes"),
        _ if !name.starts_with(char::is_alphanumeric) => {
            Err("it must begin with a letter or a digit")
        }
        _ if !name.chars().all(plain) || name.trim() != name => {
            Err("use letters, digits and signs in one line, without slashes")
        }
        // So that a mistyped `10 minuts ago` is called that.
        _ if blank && !name.starts_with(char::is_alphabetic) => {
            Err("one of several words must begin with a letter")
        }
        // A mistyped date must be called that, not searched for among the names.
        _ if begins_like_a_date(name) => Err("it begins like a date"),
        _ if !name.contains(char::is_alphabetic) => Err("it has no letter"),
        _ => Ok(()),
    }
}

fn begins_like_a_date(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() > 5 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-'
}

/// `latest` (`now`), `latest~3`, `@17`. What merely begins like one of them is an error, not a name.
fn relative_to_history(text: &str) -> Result<Option<Point>, Error> {
    let number = |digits: &str| {
        digits
            .parse::<u64>()
            .map_err(|_| Error::Meaningless(text.to_owned()))
    };
    // The newest is what is meant by now, whatever a clock says that was set back or stands still.
    if matches!(text, "latest" | "now") {
        return Ok(Some(Point::Latest));
    }
    if let Some(digits) = text.strip_prefix("latest~") {
        return Ok(Some(Point::Back(number(digits)?)));
    }
    if let Some(digits) = text.strip_prefix('@') {
        return Ok(Some(Point::Seq(Seq(number(digits)?))));
    }
    Ok(None)
}

/// A moment by clock and calendar; `None` if the text is none.
fn moment(text: &str, now: &Zoned) -> Result<Option<Timestamp>, Error> {
    let out_of_range = |_| Error::OutOfRange(text.to_owned());
    // Blanks and signs alone would be taken for now.
    if !text.contains(char::is_alphanumeric) {
        return Ok(None);
    }
    // A bare number could be an hour, a year or seconds: it is taken for none of them.
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    if let Ok(span) = text.parse::<Span>() {
        let back = now.checked_sub(span.abs()).map_err(out_of_range)?;
        return Ok(Some(back.timestamp()));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Some(at));
    }
    if let Ok(local) = text.parse::<DateTime>() {
        let at = local
            .to_zoned(now.time_zone().clone())
            .map_err(out_of_range)?;
        return Ok(Some(at.timestamp()));
    }
    let said = parse_datetime::parse_datetime_at_date(now.clone(), text);
    match said.ok().map(|said| said.into_zoned()) {
        None => Ok(None),
        Some(None) => Err(Error::OutOfRange(text.to_owned())),
        Some(Some(at)) => Ok(Some(at.timestamp())),
    }
}

fn stamp(at: &Timestamp, text: &str) -> Result<Stamp, Error> {
    u64::try_from(at.as_millisecond())
        .map(Stamp)
        .map_err(|_| Error::OutOfRange(text.to_owned()))
}

/// A stamp as a moment; one beyond the calendar (a broken clock wrote it) becomes the calendar's end.
fn timestamp(stamp: Stamp) -> Timestamp {
    i64::try_from(stamp.0)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Local date and time with milliseconds and the offset, as people read it.
pub(crate) fn local(stamp: Stamp, now: &Zoned) -> String {
    timestamp(stamp)
        .to_zoned(now.time_zone().clone())
        .strftime("%Y-%m-%d %H:%M:%S.%3f%:z")
        .to_string()
}

#[cfg(test)]
mod tests;
