//! What an S3 server's refusal means, and what a person can do about it.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;

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

/// Whether the server says that it does not know what a condition is.
pub(super) fn is_unsupported(failed: &PutError) -> bool {
    status(failed) == Some(501)
}

/// Whether a read was refused only because the range begins behind the object's end.
pub(super) fn is_beyond_end<E>(failed: &SdkError<E, HttpResponse>) -> bool {
    status(failed) == Some(416)
}

/// Judges a failed request.
pub(super) fn judge<E>(place: &S3Place, doing: &str, failed: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let (kind, message) = match &failed {
        SdkError::ServiceError(_) => judge_answer(place, &failed),
        SdkError::ResponseError(_) => (Kind::Retry, chain("the answer made no sense", &failed)),
        _ => judge_unsent(&failed),
    };
    Error::new(kind, doing, message).because(failed)
}

/// Judges what the server said.
fn judge_answer<E>(place: &S3Place, failed: &SdkError<E, HttpResponse>) -> (Kind, String)
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let status = status(failed).unwrap_or(0);
    let code = code(failed).unwrap_or("");
    let (kind, advice) = match kind_of_code(code) {
        Some(known) => known,
        None => kind_of_status(status),
    };
    let bucket = &place.bucket;
    let advice = match advice {
        Advice::None => String::new(),
        Advice::Bucket => format!("; create the bucket {bucket} first, or correct its name"),
        Advice::Rights => format!(
            "; the credentials lack a right on the bucket {bucket}: s3:ListBucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on its objects"
        ),
        Advice::Keys => "; check the access key and its secret".into(),
        Advice::Expired => "; the credentials have expired: sign in again".into(),
        Advice::Clock => "; this machine's clock is wrong: set it".into(),
        Advice::Region => region_advice(place, failed),
        Advice::Archived => "; it lies in an archive class: restore it there first".into(),
    };
    let said = match failed.as_service_error().and_then(|error| error.message()) {
        Some(words) if !words.is_empty() => format!(" ({words})"),
        _ => String::new(),
    };
    let name = match code {
        "" => format!("HTTP status {status}"),
        code => code.to_owned(),
    };
    (kind, format!("{name}{said}{advice}"))
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
}

/// The codes of AWS's list of error responses, and those of other servers, that mean more than their status.
fn kind_of_code(code: &str) -> Option<(Kind, Advice)> {
    Some(match code {
        "NoSuchKey" | "NotFound" => (Kind::Missing, Advice::None),
        "NoSuchBucket" => (Kind::Invalid, Advice::Bucket),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => (Kind::Denied, Advice::Rights),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "NotSignedUp" | "InvalidSecurity" => {
            (Kind::Denied, Advice::Keys)
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => (Kind::Denied, Advice::Expired),
        // It comes right by itself when the clock is set, as after a long sleep.
        "RequestTimeTooSkewed" => (Kind::Retry, Advice::Clock),
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => (Kind::Invalid, Advice::Region),
        // Damaged on the way: what arrives next time may be whole.
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody"
        | "RequestTimeout"
        | "TemporaryRedirect" => (Kind::Retry, Advice::None),
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" => (Kind::Full, Advice::None),
        "InvalidObjectState" => (Kind::Invalid, Advice::Archived),
        _ => return None,
    })
}

/// What a status alone says: throttling (429, 503 SlowDown), conflicts of writers and faults of the server pass.
fn kind_of_status(status: u16) -> (Kind, Advice) {
    match status {
        301 => (Kind::Invalid, Advice::Region),
        401 | 403 => (Kind::Denied, Advice::Rights),
        404 => (Kind::Missing, Advice::None),
        307 | 408 | 409 | 425 | 429 => (Kind::Retry, Advice::None),
        507 => (Kind::Full, Advice::None),
        501 | 505 => (Kind::Invalid, Advice::None),
        500.. => (Kind::Retry, Advice::None),
        _ => (Kind::Invalid, Advice::None),
    }
}

fn region_advice<E>(place: &S3Place, failed: &SdkError<E, HttpResponse>) -> String {
    let said = failed
        .raw_response()
        .and_then(|answer| answer.headers().get("x-amz-bucket-region"));
    match said {
        Some(region) => format!(
            "; the bucket {} lies in the region {region}: add ?region={region} to the location",
            place.bucket
        ),
        None => format!(
            "; the bucket {} lies in another region: add ?region=… to the location",
            place.bucket
        ),
    }
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
    match failed {
        SdkError::ConstructionFailure(_) => {
            (Kind::Invalid, chain("the request cannot be made", failed))
        }
        _ => (Kind::Retry, chain("the server cannot be reached", failed)),
    }
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
