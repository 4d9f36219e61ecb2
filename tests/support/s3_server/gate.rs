//! Who is let in, and with which certificate the server shows itself.

use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The one key that opens. Copies share it.
#[derive(Clone)]
pub(super) struct Gate(Arc<Mutex<(String, SecretKey)>>);

impl Gate {
    pub(super) fn new(access: &str, secret: &str) -> Self {
        Self(Arc::new(Mutex::new((access.into(), secret.into()))))
    }

    pub(super) fn change(&self, access: &str, secret: &str) {
        *self.0.lock() = (access.into(), secret.into());
    }
}

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access: &str) -> S3Result<SecretKey> {
        let held = self.0.lock();
        match held.0 == access {
            true => Ok(held.1.clone()),
            false => Err(s3_error!(InvalidAccessKeyId)),
        }
    }
}

/// A certificate for 127.0.0.1 of an authority that nobody knows, and that authority's own in PEM.
pub(super) fn certificate() -> (TlsAcceptor, String) {
    let key = || KeyPair::generate().expect("a key");
    let mut of_authority = CertificateParams::default();
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(of_authority, key()).expect("signed");
    let (ours, names) = (key(), vec!["127.0.0.1".to_owned()]);
    let params = CertificateParams::new(names).expect("an address is a name");
    let certificate = params.signed_by(&ours, &authority).expect("signed");
    let private = PrivateKeyDer::try_from(ours.serialize_der()).expect("a key in DER");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("they belong together");
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}
