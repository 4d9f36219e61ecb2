//! The values of the settings behind the `?` of an S3 location: what each takes.

use url::Url;

use super::{ParseError, refuse_credentials};

/// Most tags that an object can have (S3's own rule).
const TAGS_MAX: usize = 10;
/// The longest key and value of a tag, in characters (S3's own rule).
const TAG_KEY_LEN_MAX: usize = 128;
const TAG_VALUE_LEN_MAX: usize = 256;

/// Classes whose objects must be brought back for hours before they can be read.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

pub(super) fn endpoint(value: String) -> Result<String, ParseError> {
    let Ok(url) = Url::parse(&value) else {
        return Err(bad_endpoint(value));
    };
    refuse_credentials(&url)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none();
    match plain {
        true => Ok(value.trim_end_matches('/').to_owned()),
        false => Err(bad_endpoint(value)),
    }
}

fn bad_endpoint(value: String) -> ParseError {
    ParseError::Value {
        name: "endpoint",
        value,
        want: "write http://host:port or https://host:port",
    }
}

pub(super) fn region(value: String) -> Result<String, ParseError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    match !value.is_empty() && value.len() <= 64 && value.bytes().all(plain) {
        true => Ok(value),
        false => Err(ParseError::Value {
            name: "region",
            value,
            want: "write a region's name, such as eu-central-1",
        }),
    }
}

/// Other servers have classes of their own, so any name will do but those of archives.
pub(super) fn storage_class(value: String) -> Result<String, ParseError> {
    let refused = |value: String, want| ParseError::Value {
        name: "storage_class",
        value,
        want,
    };
    if ARCHIVES.contains(&value.as_str()) {
        let want = "what lies in an archive cannot be read at once, and snapshots must be; \
                    GLACIER_IR is cheap and can";
        return Err(refused(value, want));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match !value.is_empty() && value.len() <= 64 && value.bytes().all(plain) {
        true => Ok(value),
        false => Err(refused(
            value,
            "write a class's name, such as STANDARD_IA or INTELLIGENT_TIERING",
        )),
    }
}

pub(super) fn tags(value: String) -> Result<String, ParseError> {
    let plain = |text: &str| {
        let mut chars = text.chars();
        chars.all(|c| c.is_alphanumeric() || " +-._:/@".contains(c))
    };
    let pairs: Vec<_> = tag_pairs(&value).collect();
    let is_tag = |(key, value): &(&str, &str)| {
        let lens = (key.chars().count(), value.chars().count());
        (1..=TAG_KEY_LEN_MAX).contains(&lens.0)
            && lens.1 <= TAG_VALUE_LEN_MAX
            && plain(key)
            && plain(value)
    };
    let once = |(key, _): &(&str, &str)| pairs.iter().filter(|pair| pair.0 == *key).count() == 1;
    match pairs.len() <= TAGS_MAX && pairs.iter().all(|pair| is_tag(pair) && once(pair)) {
        true => Ok(value),
        false => Err(ParseError::Value {
            name: "tags",
            value,
            want: "write key=value,key=value, at most ten with different keys, of letters, digits, blanks and -._:/@ \
                   (and + as %2B)",
        }),
    }
}

/// The tags in `key=value,key=value`.
pub(super) fn tag_pairs(tags: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = tags.split(',');
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

pub(super) fn yes(name: &'static str, value: String) -> Result<bool, ParseError> {
    match value.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ParseError::Value {
            name,
            value,
            want: "write true or false",
        }),
    }
}
