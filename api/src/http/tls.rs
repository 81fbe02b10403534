//! TLS by certificate files that are read again when they change.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring, version};

use super::config::TlsConfig;
use super::serve::HttpError;

/// The certificate in force.
pub(crate) struct Tls {
    files: TlsConfig,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: TlsConfig) -> Result<Self, HttpError> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, current })
    }

    /// For the next handshake.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files now and then, for ever. A change that does not load is logged and the old certificate stays.
    pub(crate) async fn watch(self: Arc<Self>) {
        let every = Duration::from_millis(self.files.reload_check_ms.max(10));
        let mut seen = stamp(&self.files);
        loop {
            tokio::time::sleep(every).await;
            let now = stamp(&self.files);
            if now == seen {
                continue;
            }
            match read(&self.files) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    seen = now;
                    tracing::info!(front_end = "http", "the certificate was read again");
                }
                // Both files may be in the middle of being replaced: the next look tries again.
                Err(error) => {
                    tracing::warn!(front_end = "http", %error, "the new certificate cannot be used")
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

fn read(files: &TlsConfig) -> Result<ServerConfig, HttpError> {
    let bad = |path: &Path, problem: &str| HttpError::Tls(format!("{}: {problem}", path.display()));
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
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| bad(certificate, &error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
