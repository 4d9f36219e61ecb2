//! What a person writes to name a repository's place: `s3://bucket/prefix?...`, `file:///dir`, `/dir`, `dir`.
//!
//! Read once, at the edge, by `config` and `cli`; everything behind works with a [`Location`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::store::names;

mod setting;

/// The settings that may follow the `?` of an S3 location.
const SETTINGS: &str = "endpoint, region, path_style, storage_class, tags, checksum";

/// Longest name of a bucket, and shortest (S3's own rule).
const BUCKET_LEN: std::ops::RangeInclusive<usize> = 3..=63;

/// Where a repository lies. Its text form holds no secrets, and can be read again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// A folder, by an absolute path.
    Folder(PathBuf),
    /// A place in a bucket.
    S3(S3Place),
}

/// A place in a bucket of an S3 server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct S3Place {
    /// The bucket; it must exist.
    pub bucket: String,
    /// What all keys begin with: empty, or ending with a slash.
    pub prefix: String,
    /// The server, if it is not AWS's own: `http://host:port` or `https://host:port`.
    pub endpoint: Option<String>,
    /// The region; otherwise what the AWS environment says.
    pub region: Option<String>,
    /// Whether the bucket goes into the path rather than into the host's name. Always so where an endpoint is named
    /// and nothing else is said: servers of one's own seldom have names for their buckets.
    pub path_style: Option<bool>,
    /// The storage class that objects are put with; otherwise the bucket's own, which is `STANDARD`.
    pub storage_class: Option<String>,
    /// Tags that objects are put with, as `key=value,key=value`.
    pub tags: Option<String>,
    /// Whether objects are put with a checksum for the server to prove: so unless `Some(false)`.
    pub checksum: Option<bool>,
}

impl S3Place {
    /// The tags as the header `x-amz-tagging` wants them.
    pub(crate) fn encoded_tags(&self) -> Option<String> {
        let tags = self.tags.as_deref()?;
        let mut encoded = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in setting::tag_pairs(tags) {
            encoded.append_pair(key, value);
        }
        Some(encoded.finish())
    }
}

/// Why a text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing was given.
    #[error("the repository's location is empty")]
    Empty,
    /// It has a scheme that we do not know.
    #[error(
        "{0:?} is no kind of repository; write s3://bucket/prefix, file:///folder or a folder's path"
    )]
    Scheme(String),
    /// It is not a URL.
    #[error("this is not a URL: {0}")]
    Url(String),
    /// A name and password stand in it. They are not repeated here.
    #[error(
        "credentials do not belong in a location; AWS's environment variables, profile or instance provide them"
    )]
    Credentials,
    /// The bucket's name cannot be one.
    #[error("{0:?} cannot be the name of a bucket")]
    Bucket(String),
    /// The prefix cannot be the beginning of an object's name.
    #[error(
        "{0:?} cannot be a prefix: use letters, digits and -_.~= in parts that do not begin with a dot, joined by single slashes"
    )]
    Prefix(String),
    /// A setting that we do not know.
    #[error("there is no setting {0:?}; known are: {SETTINGS}")]
    Setting(String),
    /// A setting given twice.
    #[error("the setting {0} is given twice")]
    Twice(String),
    /// A setting whose value cannot be right.
    #[error("the setting {name} cannot be {value:?}: {want}")]
    Value {
        /// Which setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it takes.
        want: &'static str,
    },
    /// A `file:` URL that names no local folder.
    #[error("a file URL needs three slashes and an absolute path: file:///folder")]
    File,
    /// The working directory is gone, so a relative path means nothing.
    #[error("the folder {0:?} cannot be made absolute: is the working directory still there?")]
    Relative(String),
}

impl FromStr for Location {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.split_once("://") {
            _ if text.is_empty() => Err(ParseError::Empty),
            Some(("s3", _)) => parse_s3(text).map(Self::S3),
            Some(("file", _)) => parse_file(text).map(Self::Folder),
            Some((scheme, _)) if !scheme.contains('/') => {
                Err(ParseError::Scheme(scheme.to_owned()))
            }
            _ => std::path::absolute(text)
                .map(Self::Folder)
                .map_err(|_| ParseError::Relative(text.to_owned())),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::S3(place) => place.fmt(f),
        }
    }
}

impl fmt::Display for S3Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "s3://{}/{}",
            self.bucket,
            self.prefix.trim_end_matches('/')
        )?;
        let path_style = self.path_style.map(|yes| yes.to_string());
        let checksum = self.checksum.map(|yes| yes.to_string());
        let settings = [
            ("endpoint", &self.endpoint),
            ("region", &self.region),
            ("path_style", &path_style),
            ("storage_class", &self.storage_class),
            ("tags", &self.tags),
            ("checksum", &checksum),
        ];
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in settings {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        match query.finish() {
            query if query.is_empty() => Ok(()),
            // A server's address and tags stay readable: slashes, colons, commas and the second `=` mean nothing here.
            query => write!(
                f,
                "?{}",
                query
                    .replace("%3A", ":")
                    .replace("%2F", "/")
                    .replace("%2C", ",")
                    .replace("%3D", "=")
            ),
        }
    }
}

fn parse_file(text: &str) -> Result<PathBuf, ParseError> {
    let url = Url::parse(text).map_err(|error| ParseError::Url(error.to_string()))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ParseError::File);
    }
    url.to_file_path().map_err(|()| ParseError::File)
}

fn parse_s3(text: &str) -> Result<S3Place, ParseError> {
    let url = Url::parse(text).map_err(|error| ParseError::Url(error.to_string()))?;
    refuse_credentials(&url)?;
    let mut place = S3Place {
        bucket: bucket(url.host_str().unwrap_or_default())?,
        prefix: prefix(url.path())?,
        ..S3Place::default()
    };
    if url.port().is_some() {
        return Err(ParseError::Bucket(text_after_scheme(&url)));
    }
    if url.fragment().is_some() {
        return Err(ParseError::Prefix(url.path().to_owned() + "#"));
    }
    for (name, value) in url.query_pairs() {
        place.set(&name, value.into_owned())?;
    }
    Ok(place)
}

impl S3Place {
    fn set(&mut self, name: &str, value: String) -> Result<(), ParseError> {
        let twice = match name {
            "endpoint" => set(&mut self.endpoint, setting::endpoint(value)?),
            "region" => set(&mut self.region, setting::region(value)?),
            "path_style" => set(&mut self.path_style, setting::yes("path_style", value)?),
            "storage_class" => set(&mut self.storage_class, setting::storage_class(value)?),
            "tags" => set(&mut self.tags, setting::tags(value)?),
            "checksum" => set(&mut self.checksum, setting::yes("checksum", value)?),
            _ => return Err(ParseError::Setting(name.to_owned())),
        };
        match twice {
            true => Err(ParseError::Twice(name.to_owned())),
            false => Ok(()),
        }
    }
}

/// Whether it was set before.
fn set<T>(setting: &mut Option<T>, value: T) -> bool {
    setting.replace(value).is_some()
}

fn refuse_credentials(url: &Url) -> Result<(), ParseError> {
    match url.username().is_empty() && url.password().is_none() {
        true => Ok(()),
        false => Err(ParseError::Credentials),
    }
}

fn text_after_scheme(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}

fn bucket(name: &str) -> Result<String, ParseError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    match BUCKET_LEN.contains(&name.len()) && name.bytes().all(plain) {
        true => Ok(name.to_owned()),
        false => Err(ParseError::Bucket(name.to_owned())),
    }
}

fn prefix(path: &str) -> Result<String, ParseError> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    match path {
        "" => Ok(String::new()),
        path if names::is_key(path) => Ok(format!("{path}/")),
        path => Err(ParseError::Prefix(path.to_owned())),
    }
}

#[cfg(test)]
mod tests;
