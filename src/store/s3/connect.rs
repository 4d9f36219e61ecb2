//! Setting up the S3 client: where the server is, who we are, how long to wait.
//!
//! Credentials come from where AWS's own tools find them: environment variables, the profile files, a web identity,
//! the container's or the instance's role. They are looked up with the first request and never shown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::tls::{self, TlsContext};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::credentials::Keys;
use super::line::Line;
use super::skew::Skew;
use super::trust;
use crate::store::Error;
use crate::store::pace::Pace;
use crate::store::url::S3Place;

/// How long connecting may take. A server that is there answers in a fraction of it from anywhere on Earth.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What most servers of one's own accept as their region, and AWS's oldest.
const REGION_DEFAULT: &str = "us-east-1";

/// Who we are.
#[derive(Clone)]
pub enum Credentials {
    /// What AWS's own chain of environment, profile and instance finds.
    Chain,
    /// These.
    Keys {
        /// The access key's id.
        id: String,
        /// Its secret.
        secret: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain => f.write_str("Chain"),
            Self::Keys { .. } => f.write_str("Keys([redacted])"),
        }
    }
}

/// A client, and what belongs to it.
pub(super) struct Connected {
    pub(super) client: Client,
    /// Whether requests travel over TLS.
    pub(super) tls: bool,
    /// Whom it signs for.
    pub(super) keys: Arc<Keys>,
    /// What its answers say of our clock.
    pub(super) skew: Arc<Skew>,
}

/// Sets a client up. [`crate::store::Kind::Invalid`] if the environment names trusted certificates that cannot be used.
pub(super) async fn connect(
    place: &S3Place,
    credentials: Credentials,
    pace: Pace,
) -> Result<Connected, Error> {
    let skew = Arc::new(Skew::default());
    let http = SharedHttpClient::new(Line {
        inner: http_client(trust::from_environment()?),
        pace,
        skew: skew.clone(),
    });
    let region = region(place).region().await;
    let keys = Arc::new(match credentials {
        Credentials::Chain => Keys::found_by_chain(http.clone(), region.clone()),
        Credentials::Keys { id, secret } => Keys::given(aws_credential_types::Credentials::new(
            id, secret, None, None, "given",
        )),
    });
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(region)
        .credentials_provider(SharedCredentialsProvider::from(
            keys.clone() as Arc<dyn ProvideCredentials>
        ))
        // What they are, and until when, `credentials.rs` knows.
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .build(),
        )
        // `line.rs` knows when a body stands still because we hold it back.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // Old servers refuse the trailers that would be sent otherwise.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &place.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let shared = loader.load().await;
    let endpoint = shared.endpoint_url();
    let tls = !endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let path_style = place.path_style.unwrap_or(endpoint.is_some());
    let config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(path_style)
        .build();
    Ok(Connected {
        client: Client::from_conf(config),
        tls,
        keys,
        skew,
    })
}

fn http_client(trusted: TlsContext) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::Ring,
        ))
        .tls_context(trusted)
        .build_https()
}

/// The region: as given, else as the environment or the profile says. Only AWS itself is then asked for an
/// instance's own, since that takes seconds anywhere else.
fn region(place: &S3Place) -> RegionProviderChain {
    let given = RegionProviderChain::first_try(place.region.clone().map(Region::new));
    let chain = match place.endpoint {
        Some(_) => given
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new()),
        None => given.or_default_provider(),
    };
    chain.or_else(REGION_DEFAULT)
}
