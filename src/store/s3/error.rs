//! What an S3 server's refusal means, and what a person can do about it.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;

use super::silence::Silence;
use super::trust;
use crate::store::url::S3Place;
use crate::store::{Error, Kind};

/// How a put fails.
pub(super) type PutError = SdkError<PutObjectError, HttpResponse>;

/// Whether a conditional write was refused. Replacing an object that is gone is a refusal too.
pub(super) fn is_refusal(failed: &PutError, replaces: bool) -> bool {
    match status(failed) {
        Some(412) => true,
        Some(404) => replaces && code(failed) != Some("NoSuchBucket"),
        _ => false,
    }
}

/// Whether the server says that the request itself is wrong.
pub(super) fn is_bad_request(failed: &PutError) -> bool {
    status(failed) == Some(400)
}

/// Whether the server says that it does not know what a condition is.
pub(super) fn is_unsupported(failed: &PutError) -> bool {
    status(failed) == Some(501)
}

/// Whether the server may not know this kind of request at all, or something on the way there does not let it through.
pub(super) fn is_strange_to_it<E>(failed: &SdkError<E, HttpResponse>) -> bool {
    matches!(status(failed), Some(200 | 400 | 403 | 404 | 405 | 501))
}

/// Whether a read was refused only because the range begins behind the object's end.
pub(super) fn is_beyond_end<E>(failed: &SdkError<E, HttpResponse>) -> bool {
    status(failed) == Some(416)
}

/// What was asked of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// To take an object.
    Put,
    /// To give one, or its length.
    Get,
    /// To list names.
    List,
    /// To remove an object.
    Delete,
}

/// A request, as far as its failure is to be told.
pub(super) struct Asked<'a> {
    /// Of whom.
    pub(super) place: &'a S3Place,
    /// What.
    pub(super) act: Act,
    /// What was being done to which object of which store.
    pub(super) doing: &'a str,
    /// How far off this machine's clock is; empty if it is right or nobody knows.
    pub(super) skew: String,
}

/// Judges a failed request.
pub(super) fn judge<E>(asked: &Asked<'_>, failed: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let (kind, message) = match &failed {
        SdkError::ServiceError(_) => judge_answer(asked, &failed),
        SdkError::ResponseError(_) => (Kind::Retry, chain("the answer made no sense", &failed)),
        _ => judge_unsent(&failed),
    };
    Error::new(kind, asked.doing, message).because(failed)
}

/// Judges what the server said.
fn judge_answer<E>(asked: &Asked<'_>, failed: &SdkError<E, HttpResponse>) -> (Kind, String)
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let status = status(failed).unwrap_or(0);
    let code = code(failed).unwrap_or("");
    let words = failed.as_service_error().and_then(|error| error.message());
    let words = words.unwrap_or_default();
    let (kind, advice) = match kind_of_code(code) {
        Some(known) => known,
        None if is_about_checksum(asked, status, words) => (Kind::Invalid, Advice::Checksum),
        None => kind_of_status(status),
    };
    let advice = match advice {
        Advice::Region => region_advice(asked.place, failed, words),
        advice => advice.words(asked),
    };
    let name = match code {
        "" => format!("HTTP status {status}"),
        code => code.to_owned(),
    };
    (kind, tell(asked, kind, &name, words, &advice))
}

/// Judges what the server said of one of the objects that a request was about.
pub(super) fn judge_one(asked: &Asked<'_>, said: &aws_sdk_s3::types::Error) -> Error {
    let code = said.code().unwrap_or("an error without a code");
    let (kind, advice) = match code {
        "InternalError" | "ServiceUnavailable" | "OperationAborted" | "Busy" => {
            (Kind::Retry, Advice::None)
        }
        code if code.starts_with("SlowDown") => (Kind::Retry, Advice::None),
        code => kind_of_code(code).unwrap_or((Kind::Invalid, Advice::None)),
    };
    let words = said.message().unwrap_or_default();
    let told = tell(asked, kind, code, words, &advice.words(asked));
    let key = said.key().unwrap_or("one of them");
    Error::new(kind, asked.doing, format!("{key}: {told}"))
}

/// The server's `name` for what went wrong, its words, what to do, and whether that may be the clock's fault.
fn tell(asked: &Asked<'_>, kind: Kind, name: &str, words: &str, advice: &str) -> String {
    let said = match words {
        "" => String::new(),
        words => format!(" ({words})"),
    };
    let clock = match kind {
        // Servers differ in what they call a signature from another time.
        Kind::Denied if !asked.skew.is_empty() => {
            format!("; this machine's clock is {}: set it first", asked.skew)
        }
        _ => String::new(),
    };
    format!("{name}{said}{advice}{clock}")
}

/// What to tell a person beside the server's own words.
#[derive(Clone, Copy)]
enum Advice {
    None,
    Bucket,
    Rights,
    Keys,
    Expired,
    Clock,
    Region,
    Archived,
    Checksum,
    Class,
}

impl Advice {
    fn words(self, asked: &Asked<'_>) -> String {
        let S3Place { bucket, prefix, .. } = asked.place;
        match self {
            Self::None | Self::Region => String::new(),
            Self::Bucket => format!("; create the bucket {bucket} first, or correct its name"),
            Self::Rights => match asked.act {
                Act::Put => format!(
                    "; the credentials may not write here: they need s3:PutObject{tagging} on arn:aws:s3:::{bucket}/{prefix}*",
                    tagging = match asked.place.tags {
                        Some(_) => " and s3:PutObjectTagging",
                        None => "",
                    }
                ),
                Act::Get => format!(
                    "; the credentials may not read here: they need s3:GetObject on arn:aws:s3:::{bucket}/{prefix}*, and \
                     s3:ListBucket on arn:aws:s3:::{bucket}"
                ),
                Act::List => format!(
                    "; the credentials may not list names here: they need s3:ListBucket on arn:aws:s3:::{bucket}"
                ),
                Act::Delete => format!(
                    "; the credentials may not remove objects here: that takes s3:DeleteObject on arn:aws:s3:::{bucket}/{prefix}*"
                ),
            },
            Self::Keys => "; check the access key and its secret".into(),
            Self::Expired => "; the credentials have expired: sign in again".into(),
            Self::Clock if asked.skew.is_empty() => {
                "; this machine's clock is wrong: set it".into()
            }
            Self::Clock => format!("; this machine's clock is {}: set it", asked.skew),
            Self::Archived => "; it lies in an archive class: restore it there first".into(),
            Self::Checksum => {
                "; the server does not know the checksum (CRC-64/NVME) that is sent with each object: add checksum=false to the \
                 location's settings"
                    .into()
            }
            Self::Class => {
                "; the server has no such storage class: correct storage_class= in the location, or leave it out".into()
            }
        }
    }
}

/// The codes of AWS's list of error responses, and those of other servers, that mean more than their status.
fn kind_of_code(code: &str) -> Option<(Kind, Advice)> {
    Some(match code {
        "NoSuchKey" | "NotFound" => (Kind::Missing, Advice::None),
        "NoSuchBucket" => (Kind::Misplaced, Advice::Bucket),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => (Kind::Denied, Advice::Rights),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "NotSignedUp" | "InvalidSecurity" => {
            (Kind::Denied, Advice::Keys)
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => (Kind::Denied, Advice::Expired),
        // It comes right by itself when the clock is set, as after a long sleep.
        "RequestTimeTooSkewed" => (Kind::Retry, Advice::Clock),
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => (Kind::Misplaced, Advice::Region),
        // Damaged on the way: what arrives next time may be whole.
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody"
        | "RequestTimeout"
        | "TemporaryRedirect" => (Kind::Retry, Advice::None),
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" => (Kind::Full, Advice::None),
        "InvalidObjectState" => (Kind::Invalid, Advice::Archived),
        "InvalidStorageClass" => (Kind::Invalid, Advice::Class),
        _ => return None,
    })
}

/// What a status alone says: throttling (429, 503 SlowDown), conflicts of writers and faults of the server pass.
fn kind_of_status(status: u16) -> (Kind, Advice) {
    match status {
        301 => (Kind::Misplaced, Advice::Region),
        401 | 403 => (Kind::Denied, Advice::Rights),
        404 => (Kind::Missing, Advice::None),
        307 | 408 | 409 | 425 | 429 => (Kind::Retry, Advice::None),
        507 => (Kind::Full, Advice::None),
        501 | 505 => (Kind::Invalid, Advice::None),
        500.. => (Kind::Retry, Advice::None),
        _ => (Kind::Invalid, Advice::None),
    }
}

/// Whether a put was refused for its checksum: an old server names it, or says of some header that it is not implemented, and nothing
/// else that we send with every put is newer than S3 itself.
fn is_about_checksum(asked: &Asked<'_>, status: u16, words: &str) -> bool {
    let sent = asked.act == Act::Put && asked.place.checksum != Some(false);
    let words = words.to_ascii_lowercase();
    sent && match status {
        400 => words.contains("checksum"),
        501 => words.contains("checksum") || words.contains("header"),
        _ => false,
    }
}

fn region_advice<E>(place: &S3Place, failed: &SdkError<E, HttpResponse>, words: &str) -> String {
    let bucket = &place.bucket;
    match region_told(failed, words) {
        Some(region) => {
            let setting = format!("region={region}");
            format!(
                "; the bucket {bucket} lies in the region {region}: add ?{setting} to the location (&{setting} behind others)"
            )
        }
        None => {
            format!("; the bucket {bucket} lies in another region: add ?region=… to the location")
        }
    }
}

/// Where the bucket lies, if the server says so: in a header, in an element of its error, or among its words.
fn region_told<E>(failed: &SdkError<E, HttpResponse>, words: &str) -> Option<String> {
    let answer = failed.raw_response()?;
    let body = answer.body().bytes().unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    let between = |text: &str, before: &str, after: char| {
        let (_, rest) = text.split_once(before)?;
        rest.split_once(after).map(|(told, _)| told.to_owned())
    };
    let header = answer.headers().get("x-amz-bucket-region");
    let told = header
        .map(str::to_owned)
        .or_else(|| between(&body, "<Region>", '<'))
        .or_else(|| between(words, "expecting '", '\''));
    // Whatever a server says, only what can be the name of a region is passed on as advice to type.
    let plain = |region: &String| {
        let mut bytes = region.bytes();
        !region.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    told.filter(plain)
}

/// Judges a request that has no answer: it could not be built, signed or sent, or nothing came back.
fn judge_unsent<E, R>(failed: &SdkError<E, R>) -> (Kind, String)
where
    E: StdError + 'static,
    R: std::fmt::Debug + 'static,
{
    if let Some(credentials) = find::<CredentialsError>(failed) {
        return judge_credentials(credentials);
    }
    if let Some(silence) = find::<Silence>(failed) {
        return (Kind::Retry, silence.to_string());
    }
    match failed {
        SdkError::ConstructionFailure(_) => {
            (Kind::Invalid, chain("the request cannot be made", failed))
        }
        _ => judge_unreached(chain("the server cannot be reached", failed)),
    }
}

/// Judges by its words why there is no connection: the types of the TLS library do not come through.
fn judge_unreached(why: String) -> (Kind, String) {
    if !why.contains("invalid peer certificate") {
        return (Kind::Retry, why);
    }
    let advice = match why.contains("UnknownIssuer") {
        true => format!(
            "the server's certificate is not trusted; if its authority is one of your own, name the file of its certificates (PEM) \
             in {}",
            trust::VARIABLE
        ),
        false => {
            "the server's certificate cannot be accepted; correct it, or the endpoint's name".into()
        }
    };
    (Kind::Invalid, format!("{why}; {advice}"))
}

fn judge_credentials(error: &CredentialsError) -> (Kind, String) {
    let sources = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with a profile in ~/.aws, or give this machine a role";
    match error {
        CredentialsError::CredentialsNotLoaded(_) => {
            (Kind::Denied, format!("there are no credentials: {sources}"))
        }
        CredentialsError::InvalidConfiguration(_) => (
            Kind::Denied,
            chain("the credentials' configuration is wrong", error),
        ),
        fetching => {
            // Whoever hands them out may be out of reach, like the store itself. A refusal stays one.
            let passing = matches!(fetching, CredentialsError::ProviderTimedOut(_))
                || find::<ConnectorError>(fetching).is_some();
            let kind = match passing {
                true => Kind::Retry,
                false => Kind::Denied,
            };
            let said = chain("the credentials could not be fetched", fetching);
            (kind, format!("{said}; otherwise {sources}"))
        }
    }
}

fn status<E>(failed: &SdkError<E, HttpResponse>) -> Option<u16> {
    failed.raw_response().map(|answer| answer.status().as_u16())
}

fn code<E: ProvideErrorMetadata>(failed: &SdkError<E, HttpResponse>) -> Option<&str> {
    failed.as_service_error()?.code()
}

/// The first cause of type `T`.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// `what` happened, and the causes in one line. (`DisplayErrorContext` adds a page of internals to the same.)
pub(super) fn chain(what: &str, error: &(dyn StdError + 'static)) -> String {
    let mut line = what.to_owned();
    let mut last = String::new();
    for cause in causes(error) {
        let words = cause.to_string();
        if words != last {
            line.push_str(": ");
            line.push_str(&words);
        }
        last = words;
    }
    line
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
