//! Who we are, looked up where AWS's own tools look, and again when that has changed.
//!
//! The SDK reads profile files once and keeps what it found for as long as the process lives; a mount lives for months, and keys are
//! replaced meanwhile. So everything is looked up anew: before what has an end ends, from time to time, and when a server refuses what
//! we have. Nothing of it is ever shown.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a look-up may take: an instance's or a container's service that is there answers in a fraction of it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// What ends is renewed so long before. Services that hand out keys have new ones by then.
const BEFORE_END: Duration = Duration::from_secs(300);
/// Keys are looked up again when they are as old as this, so that new ones are taken before the old ones are withdrawn.
const LOOK_EVERY: Duration = Duration::from_secs(900);
/// A server that refuses everything makes us look no more often than this.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Keys {
    from: From,
    held: Mutex<Held>,
}

enum From {
    /// They are given, and stay.
    Given(Credentials),
    /// AWS's chain, asked through this client.
    Chain {
        http: SharedHttpClient,
        region: Option<Region>,
    },
}

#[derive(Default)]
struct Held {
    keys: Option<Credentials>,
    looked: Option<Instant>,
    /// When a refusal has last made us look.
    refused: Option<Instant>,
    /// How often they have become others.
    edition: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys([redacted])")
    }
}

impl Keys {
    /// These, whatever happens.
    pub(super) fn given(keys: Credentials) -> Self {
        Self {
            from: From::Given(keys),
            held: Mutex::default(),
        }
    }

    /// What AWS's chain finds; nothing is looked up yet.
    pub(super) fn found_by_chain(http: SharedHttpClient, region: Option<Region>) -> Self {
        Self {
            from: From::Chain { http, region },
            held: Mutex::default(),
        }
    }

    /// Which edition a request that begins now is signed with, or a later one. What cannot be looked up shows with the request itself.
    pub(super) async fn edition(&self) -> u64 {
        let _ = self.current().await;
        self.held.lock().await.edition
    }

    /// Whether there are other keys than the server has just refused in a request of this edition.
    pub(super) async fn are_others_than(&self, edition: u64) -> bool {
        let mut held = self.held.lock().await;
        if held.edition != edition {
            return true;
        }
        if matches!(self.from, From::Given(_)) || held.refused.is_some_and(is_recent) {
            return false;
        }
        held.refused = Some(Instant::now());
        match self.look().await {
            Ok(found) => {
                held.take(found);
                held.edition != edition
            }
            // The refusal is the error that a person should hear of.
            Err(error) => {
                tracing::debug!(%error, "credentials could not be looked up again");
                false
            }
        }
    }

    async fn current(&self) -> provider::Result {
        if let From::Given(keys) = &self.from {
            return Ok(keys.clone());
        }
        let mut held = self.held.lock().await;
        if let Some(keys) = held.fresh() {
            return Ok(keys);
        }
        match self.look().await {
            Ok(found) => {
                held.take(found.clone());
                Ok(found)
            }
            // A profile file that is just being written is no reason to stop what still works.
            Err(error) => match held.valid() {
                Some(keys) => {
                    tracing::info!(%error, "credentials could not be looked up again; going on with the old ones");
                    held.looked = Some(Instant::now());
                    Ok(keys)
                }
                None => Err(error),
            },
        }
    }

    /// Looks everywhere anew, files included.
    async fn look(&self) -> provider::Result {
        let (http, region) = match &self.from {
            From::Given(keys) => return Ok(keys.clone()),
            From::Chain { http, region } => (http.clone(), region.clone()),
        };
        let looking = async {
            let chain = aws_config::defaults(BehaviorVersion::latest())
                .http_client(http)
                .region(region)
                .identity_cache(IdentityCache::no_cache())
                .retry_config(RetryConfig::standard())
                .timeout_config(
                    TimeoutConfig::builder()
                        .operation_timeout(LOOK_TIMEOUT)
                        .build(),
                )
                .load()
                .await;
            match chain.credentials_provider() {
                Some(provider) => provider.provide_credentials().await,
                None => Err(CredentialsError::not_loaded("nothing provides any")),
            }
        };
        match tokio::time::timeout(LOOK_TIMEOUT, looking).await {
            Ok(found) => found,
            Err(_elapsed) => Err(CredentialsError::provider_timed_out(LOOK_TIMEOUT)),
        }
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.current())
    }
}

impl Held {
    /// What need not be looked up yet.
    fn fresh(&self) -> Option<Credentials> {
        let young = self
            .looked
            .is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        self.until(SystemTime::now() + BEFORE_END).filter(|_| young)
    }

    /// What has not ended yet.
    fn valid(&self) -> Option<Credentials> {
        self.until(SystemTime::now())
    }

    fn until(&self, moment: SystemTime) -> Option<Credentials> {
        let keys = self.keys.as_ref()?;
        let lasts = keys.expiry().is_none_or(|end| end > moment);
        lasts.then(|| keys.clone())
    }

    fn take(&mut self, found: Credentials) {
        let same = self.keys.as_ref().is_some_and(|held| is_same(held, &found));
        self.edition += u64::from(!same);
        self.looked = Some(Instant::now());
        self.keys = Some(found);
    }
}

fn is_same(one: &Credentials, other: &Credentials) -> bool {
    let parts = |keys: &Credentials| {
        (
            keys.access_key_id().to_owned(),
            keys.secret_access_key().to_owned(),
            keys.session_token().map(str::to_owned),
        )
    };
    parts(one) == parts(other)
}

fn is_recent(moment: Instant) -> bool {
    moment.elapsed() < LOOK_PAUSE
}
