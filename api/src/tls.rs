//! TLS by certificate files that are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection, crypto::ring, version};

use crate::http::TlsConfig;

/// The certificate, its key or the authorities of clients cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("TLS: {0}")]
pub struct TlsError(String);

/// The certificate in force.
pub(crate) struct Tls {
    files: TlsConfig,
    /// Authorities whose client certificates are accepted.
    client_ca: Option<PathBuf>,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files. With `client_ca`, clients may show a certificate of these authorities.
    pub(crate) fn load(files: TlsConfig, client_ca: Option<PathBuf>) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(read(&files, client_ca.as_deref())?));
        Ok(Self { files, client_ca, current })
    }

    /// For the next handshake.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files now and then, for ever. A change that does not load is logged and the old certificate stays.
    pub(crate) async fn watch(self: Arc<Self>, front_end: &'static str) {
        let every = Duration::from_millis(self.files.reload_check_ms.max(10));
        let mut seen = stamp(&self.files);
        loop {
            tokio::time::sleep(every).await;
            let now = stamp(&self.files);
            if now == seen {
                continue;
            }
            match read(&self.files, self.client_ca.as_deref()) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    seen = now;
                    tracing::info!(front_end, "the certificate was read again");
                }
                // Both files may be in the middle of being replaced: the next look tries again.
                Err(error) => {
                    tracing::warn!(front_end, %error, "the new certificate cannot be used")
                }
            }
        }
    }
}

type Stamp = [Option<(SystemTime, u64)>; 2];

fn stamp(files: &TlsConfig) -> Stamp {
    let of = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    [of(&files.certificate), of(&files.key)]
}

fn read(files: &TlsConfig, client_ca: Option<&Path>) -> Result<ServerConfig, TlsError> {
    let bad = |path: &Path, problem: &str| TlsError(format!("{}: {problem}", path.display()));
    let certificate = files.certificate.as_path();
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|_| bad(certificate, "is not a readable PEM file"))?;
    if chain.is_empty() {
        return Err(bad(certificate, "has no certificate"));
    }
    // The error of a key file is not shown: it could quote the file.
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|_| bad(&files.key, "has no readable private key"))?;
    let provider = Arc::new(ring::default_provider());
    let clients = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let authorities = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|_| bad(path, "is not a readable PEM file"))?;
            roots.add_parsable_certificates(authorities);
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| bad(path, &error.to_string()))?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
        .map_err(|error| bad(certificate, &error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The common name of the client's certificate, which the handshake has checked.
pub(crate) fn common_name(connection: &ServerConnection) -> Option<Arc<str>> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(Arc::from(name))
}
