//! TLS with certificates on both sides: whoever has no certificate of the right authority gets no answer at all.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::error::Error;
use crate::options::Tls;

fn bad(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Tls { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let list: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| bad(path, error))?;
    if list.is_empty() { Err(bad(path, "it has no certificate")) } else { Ok(list) }
}

/// What accepts clients.
pub(super) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let own = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| bad(&tls.key, error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.authorities)? {
        roots.add(certificate).map_err(|error| bad(&tls.authorities, error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| bad(&tls.authorities, error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(own, key))
        .map_err(|error| bad(&tls.certificate, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}
