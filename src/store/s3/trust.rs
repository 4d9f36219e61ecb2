//! Which certificates a server may show: those that the system trusts, or the file that `AWS_CA_BUNDLE` names instead, as with AWS's own
//! tools. Asked for by `connect.rs`.

use std::path::Path;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::store::{Error, Kind};

/// The environment variable that names a file of certificates in PEM.
pub(super) const VARIABLE: &str = "AWS_CA_BUNDLE";

/// What the environment says. [`Kind::Invalid`] if the file that it names cannot be read or holds no certificate.
pub(super) fn from_environment() -> Result<TlsContext, Error> {
    let store = match std::env::var_os(VARIABLE) {
        Some(path) if !path.is_empty() => read(Path::new(&path))?,
        _ => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(store).build();
    context.map_err(|error| refused(Path::new(""), &error.to_string()))
}

/// The file's certificates, each proven readable: the client would panic over one that is not.
fn read(path: &Path) -> Result<TrustStore, Error> {
    let pem = std::fs::read(path).map_err(|error| refused(path, &error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|why| refused(path, &why))?;
    }
    match roots.is_empty() {
        true => Err(refused(path, "it holds no certificate in PEM")),
        false => Ok(TrustStore::empty().with_pem_certificate(pem)),
    }
}

fn refused(path: &Path, why: &str) -> Error {
    let message = format!(
        "{VARIABLE} names {}, which cannot be used: {why}; name a file of PEM certificates, or unset it",
        path.display()
    );
    Error::new(Kind::Invalid, "read the trusted certificates", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_no_certificates_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [None, Some(""), Some("hello"), Some(broken)] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let error = read(&path).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid);
            assert!(error.to_string().contains("ca.pem"), "{error}");
        }
    }
}
